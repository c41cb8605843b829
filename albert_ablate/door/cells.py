"""Expands multirun overrides into the cells of a sweep, each composed and validated (part of the door).

``sweep=`` names the file. On the command line, a key that the file sweeps is narrowed and a key that it
keeps constant is replaced. Any other swept key, such as ``seed=0,1,2``, multiplies the cells. A setting that only some
cells read, such as ``method.teacher=RUN``, is for these.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from albert_ablate.axes import MethodName
from albert_ablate.config.identity import settings_digest
from albert_ablate.config.labels import is_read
from albert_ablate.config.labels import settings_of as flat_settings
from albert_ablate.config.schema import RunConfig
from albert_ablate.door.compose import compose
from albert_ablate.door.options import require_supported
from albert_ablate.door.words import as_override, initialised, parsed, texts_of, values_of
from albert_ablate.errors import ConfigError
from albert_ablate.methods import method_of
from albert_ablate.sweeping.cells import Cell
from albert_ablate.sweeping.definition import Row, load, rows
from albert_ablate.sweeping.relative import settings_of

#: Keys that select the cells to run and are no setting of a cell.
_CONTROL = ("sweep", "rerun")
#: Flat settings of a run that reads no setting of an option.
_PLAIN = {"method.name": str(MethodName.MLM)}
RERUNS = ("missing", "failed", "all")


@dataclass(frozen=True)
class CommandLine:
    """The parsed command line of a sweep."""

    sweeps: tuple[str, ...]
    rerun: str
    fixed: dict[str, str]  # key -> its override
    swept: dict[str, list[str]]  # key -> values

    @property
    def name(self) -> str | None:
        """Name of the sweep in records; None without a sweep file."""
        return "-".join(Path(name).stem for name in self.sweeps) or None

    @property
    def words(self) -> list[str]:
        """What describes the cells: the words of the command line, without Hydra's own and ``rerun``."""
        sweeps = [f"sweep={','.join(self.sweeps)}"] if self.sweeps else []
        return [*sweeps, *self.fixed.values(), *(f"{key}={','.join(values)}" for key, values in self.swept.items())]

    @property
    def title(self) -> str:
        """The titles of the sweep files; empty without one."""
        return " · ".join(load(name).title for name in self.sweeps)


def read_command_line(overrides: Sequence[str]) -> CommandLine:
    """Parse overrides with Hydra's grammar; Hydra's own settings are checked and dropped. Raises ConfigError."""
    with initialised():
        require_supported(overrides, multirun=True)
        read = {o.get_key_element(): o for o in parsed(overrides) if not o.is_hydra_override()}
        control = {key: texts_of(read.pop(key)) for key in _CONTROL if key in read}
        swept = {key: values_of(override) for key, override in read.items() if override.is_sweep_override()}
    fixed = {key: str(override.input_line) for key, override in read.items() if key not in swept}
    rerun = control.get("rerun", ["missing"])
    if len(rerun) > 1 or rerun[0] not in RERUNS:
        raise ConfigError(f"rerun={','.join(rerun)}: say one of {', '.join(RERUNS)}.")
    names = tuple(name for name in control.get("sweep", []) if name != "null")
    return CommandLine(names, rerun[0], fixed, swept)


def expand(command: CommandLine) -> list[Cell]:
    """All distinct cells in the order of running. Raises ConfigError with the problems of every cell."""
    with initialised():
        composed = list(_composed(_applied(list(_specifications(command)), command), command))
    runs: dict[str, list[Cell]] = {}
    for config, overrides, row in composed:
        for cell in [*_parents(config, overrides), Cell(config, overrides, (row.sweep,), row.reference)]:
            _merge(cell, runs.setdefault(settings_digest(cell.config), []))
    return [cell for same in runs.values() for cell in same]


def _merge(cell: Cell, same: list[Cell]) -> None:
    """Add ``cell`` to the cells of the same run. Cells with equal or no tasks become one."""
    for index, known in enumerate(same):
        if not (cell.config.has_tasks and known.config.has_tasks and _tuning(cell) != _tuning(known)):
            kept = known if known.config.has_tasks or not cell.config.has_tasks else cell
            same[index] = replace(
                kept,
                rows=tuple(dict.fromkeys(known.rows + cell.rows)),
                reference=known.reference or cell.reference,
            )
            return
    same.append(cell)


def _tuning(cell: Cell) -> Any:
    return cell.config.task, cell.config.tasks, cell.config.knowledge, cell.config.kshot


def _parents(config: RunConfig, overrides: tuple[str, ...]) -> list[Cell]:
    """Cells that must be finished first, in the order of running. They belong to no table."""
    cells = []
    for parent in method_of(config).parents():
        if parent.folder is not None:
            continue
        kept = [
            override
            for override in overrides
            if override.partition("=")[0] not in parent.changed
            and not override.startswith(("task=", "task.", "tasks.", "knowledge=", "knowledge.", "kshot."))
        ]
        changed = (*kept, *(f"{key}={value}" for key, value in parent.changed.items()))
        cells += [*_parents(parent.config, changed), Cell(parent.config.without_tasks(), changed, ())]
    return cells


def _specifications(command: CommandLine) -> Iterator[tuple[dict[str, str], Row]]:
    """(key -> override, row of the sweep file) of each cell, duplicates included."""
    listed = rows(command.sweeps) if command.sweeps else [Row({}, "")]
    varying = _varying(listed, command)
    narrowed = {key: values for key, values in _command_values(command).items() if key in varying}
    outer = {key: values for key, values in command.swept.items() if key not in narrowed}
    fixed = {key: override for key, override in command.fixed.items() if key not in narrowed}
    for key, values in narrowed.items():
        unknown = [value for value in values if not any(_same(value, listed_value) for listed_value in varying[key])]
        if unknown:
            name = "-".join(command.sweeps)
            raise ConfigError(f"{key}={unknown[0]}: sweep={name} has {key}={', '.join(varying[key])} at this scale.")
    for point in product(*([(key, value) for value in values] for key, values in outer.items())):
        chosen = fixed | {key: f"{key}={value}" for key, value in point}
        embed = [] if "embed" in chosen else ["embed=full"]  # no factorisation that could contradict the model
        for row in listed:
            with _located(row, command):
                terms = {k: v for k, v in row.terms.items() if _is_base(k) or _has_amount(k, v, chosen)}
                base = [as_override(k, v) for k, v in terms.items() if k not in chosen]
                settings = settings_of(row.terms, _base_of(chosen, (*base, *embed)))
                if not all(any(_same(settings.get(k, ""), v) for v in values) for k, values in narrowed.items()):
                    continue
                specification = chosen | {k: as_override(k, v) for k, v in settings.items() if k not in chosen}
            yield specification, row


def _base_of(chosen: Mapping[str, str], more: Sequence[str]) -> RunConfig:
    """What the terms of a row are relative to: the settings ``chosen`` on the command line, on the bases ``more``.

    Settings that only some cells read change no size. They are left out where they would be refused, because the row
    alone sets the option that reads them.
    """
    try:
        return _compose((*chosen.values(), *more))
    except ConfigError:
        kept = [override for key, override in chosen.items() if not _is_optional(key)]
        if len(kept) == len(chosen):
            raise
        return _compose((*kept, *more))


_Specifications = list[tuple[dict[str, str], Row]]


def _applied(specifications: _Specifications, command: CommandLine) -> _Specifications:
    """The specifications without the settings of the command line that only other cells read.

    A setting that no cell reads is left in all, and refused there.
    """
    optional = [key for key in _command_values(command) if _is_optional(key)]
    if not optional:
        return specifications
    read = [_read(specification, optional) for specification, _ in specifications]
    dropped = [set().union(*read) - of_cell for of_cell in read]
    return [
        ({key: override for key, override in specification.items() if key not in unread}, row)
        for (specification, row), unread in zip(specifications, dropped, strict=True)
    ]


def _is_optional(key: str) -> bool:
    """Whether some options alone read the setting."""
    return "." in key and not is_read(key, _PLAIN)


def _read(specification: Mapping[str, str], optional: Sequence[str]) -> set[str]:
    """Those of the settings ``optional`` that a cell reads; all of them if it cannot be composed without them."""
    try:
        config = _compose(tuple(override for key, override in specification.items() if key not in optional))
    except ConfigError:
        return set(optional)
    settings = flat_settings(config.as_dict())
    return {key for key in optional if is_read(key, settings)}


@contextmanager
def _located(row: Row, command: CommandLine) -> Iterator[None]:
    """Add the line of the sweep file to the problems of ``row``, except those with settings of the command line."""
    try:
        yield
    except ConfigError as error:
        given = tuple(f"{key}{sign}" for key in (*command.fixed, *command.swept) for sign in ".=:")
        raise ConfigError([p if p.startswith(given) else row.located(p) for p in error.problems]) from None


def _is_base(key: str) -> bool:
    """Whether relative terms depend on a setting of a sweep file; composing a corpus needs its path too."""
    return key in ("scale", "model", "data") or key.startswith("data.")


def _has_amount(key: str, value: Any, chosen: Iterable[str]) -> bool:
    """Whether this is the unit of a budget whose amount is on the command line, which is refused without the unit."""
    return key == "budget" and f"budget.{value}" in chosen


def _varying(listed: list[Row], command: CommandLine) -> dict[str, list[str]]:
    """Override keys with several values in the sweep file -> these values."""
    if not command.sweeps:
        return {}
    scale = [override for key, override in command.fixed.items() if key == "scale"]
    values: dict[str, dict[str, None]] = {}
    for row in listed:
        with _located(row, command):
            base = scale or ([as_override("scale", row.terms["scale"])] if "scale" in row.terms else [])
            settings = settings_of(row.terms, _compose(tuple(base)))
        for key, value in settings.items():
            values.setdefault(key, {})[value] = None
    return {key: list(distinct) for key, distinct in values.items() if len(distinct) > 1}


def _command_values(command: CommandLine) -> dict[str, list[str]]:
    """Every key of the command line -> its values."""
    return {key: [override.partition("=")[2]] for key, override in command.fixed.items()} | command.swept


def _composed(
    specifications: Iterable[tuple[dict[str, str], Row]], command: CommandLine
) -> Iterator[tuple[RunConfig, tuple[str, ...], Row]]:
    problems: dict[str, None] = {}
    for specification, row in specifications:
        overrides = tuple(specification.values()) + ((f"sweep={command.name}",) if command.name else ())
        try:
            with _located(row, command):
                config = _compose(overrides)
            yield config, overrides, row
        except ConfigError as error:
            problems |= dict.fromkeys(error.problems)
    if problems:
        raise ConfigError(list(problems))


_compose = lru_cache(maxsize=256)(compose)  # many cells of a sweep have the same base


def _same(first: str, second: str) -> bool:
    """Whether two texts are the same YAML value: 0.10 equals 0.1."""
    return bool(_plain(first) == _plain(second))


def _plain(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text
