"""Words of the command line -> the cells of a sweep, each composed and validated (part of the door).

``sweep=`` names the file; a key that the file sweeps is narrowed by the command line, a key that it
keeps constant is replaced; any other swept key, ``seed=0,1,2`` above all, multiplies the cells.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from albert_ablate.config.identity import settings_digest
from albert_ablate.config.schema import RunConfig
from albert_ablate.door.compose import compose
from albert_ablate.door.options import require_supported
from albert_ablate.door.words import initialised, one_value, parsed, texts_of, values_of
from albert_ablate.errors import ConfigError
from albert_ablate.methods import method_of
from albert_ablate.sweeping.cells import Cell
from albert_ablate.sweeping.definition import Row, rows
from albert_ablate.sweeping.relative import settings_of

#: Keys that say which cells to run, not what a cell is.
_CONTROL = ("sweep", "rerun")
RERUNS = ("missing", "failed", "all")


@dataclass(frozen=True)
class Words:
    """The command line, taken apart."""

    sweeps: tuple[str, ...]
    rerun: str
    fixed: dict[str, str]  # key -> the word itself
    swept: dict[str, list[str]]  # key -> values

    @property
    def name(self) -> str | None:
        """What the sweep is called in records."""
        return "-".join(Path(name).stem for name in self.sweeps) or None


def read_words(words: Sequence[str]) -> Words:
    """Parse overrides with Hydra's grammar; settings of Hydra are checked and left out. Raises ConfigError."""
    with initialised():
        require_supported(words, multirun=True)
        read = {o.get_key_element(): o for o in parsed(words) if not o.is_hydra_override()}
        control = {key: texts_of(read.pop(key)) for key in _CONTROL if key in read}
        swept = {key: values_of(override) for key, override in read.items() if override.is_sweep_override()}
    fixed = {key: str(override.input_line) for key, override in read.items() if key not in swept}
    rerun = control.get("rerun", ["missing"])
    if len(rerun) > 1 or rerun[0] not in RERUNS:
        raise ConfigError(f"rerun={','.join(rerun)}: say one of {', '.join(RERUNS)}.")
    names = tuple(name for name in control.get("sweep", []) if name != "null")
    return Words(names, rerun[0], fixed, swept)


def expand(words: Words) -> list[Cell]:
    """Every distinct cell, in the order in which they run. Raises ConfigError naming every cell that cannot run."""
    with initialised():
        found = list(_composed(_specifications(words), words))
    runs: dict[str, list[Cell]] = {}
    for config, overrides, row in found:
        for cell in [*_parents(config, overrides), Cell(config, overrides, (row,))]:
            _merge(cell, runs.setdefault(settings_digest(cell.config), []))
    return [cell for same in runs.values() for cell in same]


def _merge(cell: Cell, same: list[Cell]) -> None:
    """Add a cell to those of the same run; where their fine-tunings are the same too, or none, they are one cell."""
    for place, known in enumerate(same):
        if not (cell.config.tasks and known.config.tasks and _tuning(cell) != _tuning(known)):
            kept = known if known.config.tasks or not cell.config.tasks else cell
            same[place] = replace(kept, rows=tuple(dict.fromkeys(known.rows + cell.rows)))
            return
    same.append(cell)


def _tuning(cell: Cell) -> Any:
    return cell.config.task, cell.config.tasks


def _parents(config: RunConfig, overrides: tuple[str, ...]) -> list[Cell]:
    """The cells that have to be finished first, in the order in which they run; no table lists them for that."""
    cells = []
    for parent in method_of(config).parents():
        kept = [
            word
            for word in overrides
            if word.partition("=")[0] not in parent.changed and not word.startswith(("task=", "task.", "tasks."))
        ]
        words = (*kept, *(f"{key}={value}" for key, value in parent.changed.items()))
        cells += [*_parents(parent.config, words), Cell(replace(parent.config, tasks={}), words, ())]
    return cells


def _specifications(words: Words) -> Iterator[tuple[dict[str, str], str]]:
    """(override key -> word, sweep file) of each cell, duplicates included."""
    listed = rows(words.sweeps) if words.sweeps else [Row({}, "")]
    varying = _varying(listed, words)
    narrowed = {key: values for key, values in _given(words).items() if key in varying}
    outer = {key: values for key, values in words.swept.items() if key not in narrowed}
    fixed = {key: word for key, word in words.fixed.items() if key not in narrowed}
    for key, values in narrowed.items():
        unknown = [value for value in values if not any(_same(value, other) for other in varying[key])]
        if unknown:
            name = "-".join(words.sweeps)
            raise ConfigError(f"{key}={unknown[0]}: sweep={name} has {key}={', '.join(varying[key])} at this scale.")
    for point in product(*([(key, value) for value in values] for key, values in outer.items())):
        chosen = fixed | {key: f"{key}={value}" for key, value in point}
        embed = [] if "embed" in chosen else ["embed=full"]  # no factorisation that could contradict the model
        for row in listed:
            own = [one_value(k, v) for k, v in row.terms.items() if _is_base(k) and k not in chosen]
            settings = settings_of(row.terms, _compose((*chosen.values(), *own, *embed)))
            if all(any(_same(settings.get(k, ""), v) for v in values) for k, values in narrowed.items()):
                yield chosen | {k: one_value(k, v) for k, v in settings.items() if k not in chosen}, row.sweep


def _is_base(key: str) -> bool:
    """Whether a setting of a sweep file belongs to what its relative terms follow; a corpus needs its path there."""
    return key in ("scale", "model", "data") or key.startswith("data.")


def _varying(listed: list[Row], words: Words) -> dict[str, list[str]]:
    """Override keys to which the file gives several values, with the values."""
    if not words.sweeps:
        return {}
    scale = [word for key, word in words.fixed.items() if key == "scale"]
    values: dict[str, dict[str, None]] = {}
    for row in listed:
        own = scale or ([one_value("scale", row.terms["scale"])] if "scale" in row.terms else [])
        for key, value in settings_of(row.terms, _compose(tuple(own))).items():
            values.setdefault(key, {})[value] = None
    return {key: list(found) for key, found in values.items() if len(found) > 1}


def _given(words: Words) -> dict[str, list[str]]:
    """Every key of the command line with its value or values."""
    return {key: [word.partition("=")[2]] for key, word in words.fixed.items()} | words.swept


def _composed(
    specifications: Iterable[tuple[dict[str, str], str]], words: Words
) -> Iterator[tuple[RunConfig, tuple[str, ...], str]]:
    problems: dict[str, None] = {}
    for specification, row in specifications:
        overrides = tuple(specification.values()) + ((f"sweep={words.name}",) if words.name else ())
        try:
            yield _compose(overrides), overrides, row
        except ConfigError as error:
            problems |= dict.fromkeys(error.problems)
    if problems:
        raise ConfigError(list(problems))


_compose = lru_cache(maxsize=256)(compose)  # many cells of a sweep have the same base


def _same(a: str, b: str) -> bool:
    """Whether two words are the same value: 0.10 is 0.1."""
    return bool(_plain(a) == _plain(b))


def _plain(word: str) -> Any:
    try:
        return yaml.safe_load(word)
    except yaml.YAMLError:
        return word
