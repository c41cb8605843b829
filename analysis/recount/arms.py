"""Which runs are an arm: the cells of ``sweeps/*.yaml`` and settings, matched with ``config.yaml`` one by one.

Of several set-ups (everything equal but what the arms' own terms set, and the seed) the one with most arms counts,
then with most runs, then with the latest run; of one seed the newest run. A seed without numbers is kept in mind.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from albert_ablate.axes import AXES
from albert_ablate.config import CONF
from albert_ablate.identity import BEFORE, INCIDENTAL, UNSAID
from albert_ablate.shipped import shipped

from .files import at, flat, read_yaml
from .runs import Run
from .task_setups import one_setup_each

_SWEEPS = shipped("sweeps")
_SIZES = ("base", "large", "xlarge", "xxlarge")
#: Terms that say a shape, and what else is no setting by its own name.
_SHAPE = ("size", "depth", "after", "width", "length")
_DROPOUTS = ("model.hidden_dropout", "model.attention_dropout")
_NAMED = {**{axis.group: axis.path for axis in AXES}, "budget": "budget.unit"}
#: A shape given outright, and the settings that an option brings with it.
_OUTRIGHT = ("model.hidden", "model.layers", "model.heads", "model.intermediate")
_BRINGS = {name: name.split(".")[0] for name in ("optimizer.name", "data.name", "tokenizer.name", "budget.unit")}
_BEFORE = {**UNSAID, **BEFORE}
_NAMES = ("model.name", *(f"{axis.group}.name" for axis in AXES if axis.setting != "name"), "tokenizer.model_path")

Terms = Mapping[str, Any]


class UnknownTermError(Exception):
    """An arm says something that this path does not read."""


def cells(table: str) -> list[dict[str, Any]]:
    """The arms of ``table4``, in the order of its sweep file; the last list of a cell varies fastest."""
    file = read_yaml(_SWEEPS / f"{table}.yaml")
    found = []
    for cell in file["cells"]:
        lists = [value if isinstance(value, list) else [value] for value in cell.values()]
        found += [file.get("settings", {}) | dict(zip(cell, point, strict=True)) for point in product(*lists)]
    return found


@cache
def model_file(name: str) -> dict[str, Any]:
    """``conf/model/NAME.yaml``; empty where there is none."""
    found: dict[str, Any] = read_yaml(CONF / "model" / f"{name}.yaml")
    return found


def shape(terms: Terms, hidden: int, layers: int, head: int) -> tuple[int, int, list[int]]:
    """H, L and the layers of the networks trained before, for a base of ``hidden`` x ``layers``."""
    size, base = model_file(terms.get("size", "base")), model_file("base")
    full = math.ceil(layers * Fraction(size["layers"], base["layers"]))
    wide = round(hidden * Fraction(size["hidden"], base["hidden"]) / head) * head
    deep = math.ceil(full * Fraction(str(terms.get("depth", 1))))
    before = [part.strip() for part in str(terms.get("after", "")).split(",") if part.strip()]
    after = sorted({math.ceil(full * Fraction(part)) for part in before} - {deep})
    return round(wide * Fraction(str(terms.get("width", 1)))), deep, after


def width_of(part: Any, base_hidden: int, hidden: int) -> int:
    """E of ``H`` (the model's own width) or ``H/6`` (of the base model's, in eights)."""
    return hidden if part == "H" else round(base_hidden / int(str(part).removeprefix("H/")) / 8) * 8


def base_of(config: Mapping[str, Any]) -> tuple[int, int]:
    """H and L of the model that the sizes are multiples of: nano of nano-large; its own where there is no such file."""
    model = config["model"]
    name = str(model["name"]).split("-")[0]
    name = "base" if name in _SIZES else name
    known = model_file(name)
    own = (model["hidden"], model["layers"])
    if not known or (name == model["name"] and (known["hidden"], known["layers"]) != own):
        return own
    return known["hidden"], known["layers"]


def wanted(terms: Terms, config: dict[str, Any]) -> dict[str, Any]:
    """Setting -> the value that makes a run with ``config``'s base model the cell of ``terms``."""
    base_hidden, base_layers = base_of(config)
    head = config["model"]["hidden"] // config["model"]["heads"]
    hidden, layers, after = shape(terms, base_hidden, base_layers, head)
    found = {**UNSAID, "model.hidden": hidden, "model.layers": layers, "warm_start.layers": after}
    for key, value in terms.items():
        if key in ("embedding", "embed") and isinstance(value, str):
            own = terms.get("model.hidden", hidden)
            known = value.removeprefix("e").isdecimal()
            found["embed.size"] = int(value[1:]) if known else width_of(value.replace("full", "H"), base_hidden, own)
        elif key == "dropout":
            found |= dict.fromkeys(_DROPOUTS, float(value))
        elif key == "corpus" and at(config, "scale.name") == "paper":
            found["data.name"] = {"base": "wiki_books", "more": "wiki_books_more"}[value]
        elif key == "corpus":
            found["data.fraction"] = {"base": 0.5, "more": 1.0}[value]
        elif key in _NAMED or "." in key:
            found[_NAMED.get(key, key)] = value
        elif key == "model":
            found |= {f"model.{k}": v for k, v in model_file(value).items() if k != "name"}
        elif key not in _SHAPE and key != "seed":
            raise UnknownTermError(f"the arm names an option of {key}, which is not read here")
    if any(path in found for path in _OUTRIGHT if path in terms or "model" in terms):
        found["model.base"] = None  # relative to no base model
    return found


def own_settings(run: Run, terms: Terms) -> dict[str, Any] | None:
    """What ``terms`` set, where the run has it all, whatever its set-up; else None. An imported model is no arm."""
    config = run.config
    if at(config, "model.hidden") is None or at(config, "scale.name") == "imported":
        return None
    if isinstance(at(config, "data.planted"), dict) != any(term.startswith("data.planted.") for term in terms):
        return None  # planted text is a matter of its own
    own = wanted(terms, config)
    for path, value in own.items():
        found = at(config, path)
        if (_BEFORE.get(path) if found is None else found) != value:
            return None
    return own


def _under(path: str, names: Iterable[str]) -> bool:
    return any(path == name or path.startswith(f"{name}.") for name in names)


def settings(run: Run) -> dict[str, Any]:
    """Every setting that changes the numbers, flat; the shape as what a size, depth or width leaves alone."""
    whole = flat(run.config)
    unit = whole.get("budget.unit", "steps")
    drops = whole.get("model.hidden_dropout") or whole.get("model.attention_dropout")
    kept = {}
    for path, value in whole.items():
        group = path.split(".")[0]
        incidental = group in (*INCIDENTAL, "seed") and group not in ("data", "tokenizer")
        idle = group == "budget" and path not in ("budget.unit", f"budget.{unit}", "budget.warmup_steps")
        divided = path == "batch.micro_size" and not drops
        if not (incidental or idle or divided or path in _NAMES or (path in _BEFORE and _BEFORE[path] == value)):
            kept[path] = value
    if unit != "steps" and whole.get("budget.steps"):
        kept["budget.warmup_steps"] = f"{whole.get('budget.warmup_steps', 0) / whole['budget.steps']:.4g} of it"
    return kept | _proportions(run.config)


def _proportions(config: dict[str, Any]) -> dict[str, Any]:
    """The base model, how wide a head is, and the feed-forward network over the hidden width.

    A size that a file of conf/model gives in full is as its file says.
    """
    model = config.get("model", {})
    filed = model_file(str(model.get("name")))
    base = str(base_of(config))
    if filed and (model.get("hidden"), model.get("layers")) == (filed["hidden"], filed["layers"]):
        name = str(model["name"]).split("-")[0]
        origin = model_file("base" if name in _SIZES else name) or filed
        of_file = {
            "heads": origin["hidden"] / origin["heads"],
            "intermediate": origin["intermediate"] / origin["hidden"],
        }
        own = {k: v if model.get(k) in (filed[k], None) else f"{model[k]} of its own" for k, v in of_file.items()}
    else:
        h, heads, wide = (model.get(name) for name in ("hidden", "heads", "intermediate"))
        own = {"heads": h / heads if h and heads else None, "intermediate": wide / h if wide and h else 4.0}
    return {"model.base": base} | {f"model.{name}": value for name, value in own.items()}


def freed(own: Sequence[Mapping[str, Any]]) -> list[str]:
    """Settings in which arms may differ: those that one of them sets, and what the options they differ in bring."""
    names = {name for one in own for name in one}
    apart = {name for name in names if len({json.dumps(one.get(name)) for one in own}) > 1}
    found = names | {_BRINGS[name] for name in apart if name in _BRINGS}
    found |= {"batch.micro_size"} if apart & set(_DROPOUTS) else set()
    return sorted(found | ({"tokens"} if any(_under(name, ("data", "tokenizer")) for name in apart) else set()))


def _setups(runs: Iterable[Run], free: Sequence[str]) -> dict[Run, str]:
    """Run -> everything that must be equal between arms. One without tokens yet is of those whose settings it has."""
    found, by_settings = {}, {}
    for run in runs:
        kept = {path: value for path, value in settings(run).items() if not _under(path, free)}
        tokens = at(run.manifest, "data.tokens.fingerprint")
        own = _text(kept)
        if tokens and "tokens" not in free:
            kept = {path: value for path, value in kept.items() if not _under(path, ("data", "tokenizer"))}
        if tokens:
            fingerprint = "" if "tokens" in free else tokens
            on_cpu = at(run.manifest, "hardware.device") in (None, "cpu")  # unlike kinds of device are unlike set-ups
            by_settings[own] = found[run] = _text(kept, fingerprint, run.manifest.get("precision"), on_cpu)
        else:
            found[run] = own
    return {run: by_settings.get(key, key) for run, key in found.items()}


def _text(*values: Any) -> str:
    return json.dumps(values, sort_keys=True, default=str)


@dataclass(frozen=True)
class Arm:
    """The finished runs of an arm, one a seed, by seed; its planned seeds; those without numbers and their state."""

    runs: list[Run]
    planned: tuple[int, ...] = ()
    lost: dict[int, str] = field(default_factory=dict)


def select(runs: Sequence[Run], arms: Iterable[Terms]) -> list[Arm]:
    """The runs of every arm in the set-up that has most of them."""
    arms = list(arms)
    here = [run for run in runs if run.state != "copy" and run.config.get("seed") is not None]
    fit: list[list[Run]] = []
    own: list[dict[str, Any]] = []
    for terms in arms:
        cells_of = {run: found for run in here if (found := own_settings(run, terms)) is not None}
        fit.append(list(cells_of))
        own.append(list(cells_of.values())[-1] if cells_of else {})
    free = freed([one for one, members in zip(own, fit, strict=True) if members])
    names = _setups([run for run in here if any(run in members for members in fit)], free)
    best = _most(fit, names)
    chosen = []
    for members, terms in zip(fit, own, strict=True):
        others = [run for theirs, more in zip(fit, own, strict=True) if set(more) > set(terms) for run in theirs]
        mine = [run for run in members if names[run] == best and run not in others]
        chosen.append(_arm(_alike(mine, free, terms)))
    planned = tuple(sorted({seed for arm in chosen for seed in arm.planned}))
    kept = one_setup_each([arm.runs for arm in chosen])
    return [
        Arm(own_runs, planned, arm.lost | {seed: "missing" for seed in planned if seed not in arm.planned})
        if arm.planned
        else Arm([])
        for own_runs, arm in zip(kept, chosen, strict=True)
    ]


def _most(fit: Sequence[Sequence[Run]], names: Mapping[Run, str]) -> str | None:
    """The set-up with most arms, then most runs, then the latest run."""
    standing: dict[str, list[Any]] = {}
    for members in fit:
        done = [run for run in members if run.counts]
        for run in members:
            standing.setdefault(names[run], [0, 0, ""])
        for run in done:
            own = standing[names[run]]
            own[1], own[2] = own[1] + 1, max(own[2], str(run.updated))
        for name in {names[run] for run in done}:
            standing[name][0] += 1
    return max(standing, key=lambda name: standing[name]) if standing else None


def _alike(members: Sequence[Run], free: Sequence[str], own: Mapping[str, Any]) -> list[Run]:
    """Runs of one arm that have alike what only other arms set: of most finished ones, then the latest."""
    groups: dict[tuple[str, Any], list[Run]] = {}
    for run in members:
        rest = {path: v for path, v in settings(run).items() if _under(path, free) and not _under(path, own)}
        tokens = (at(run.manifest, "data.tokens.fingerprint") or None) if "tokens" in free else ""
        groups.setdefault((_text(rest), tokens), []).append(run)
    if not groups:
        return []

    def rank(key: tuple[str, Any]) -> tuple[int, str]:
        done = [run for run in groups[key] if run.counts]
        return len(done), max((str(run.updated) for run in done), default="")

    best = max(groups, key=rank)
    return [run for key, found in groups.items() for run in found if key in (best, (best[0], None))]


def _arm(members: Sequence[Run]) -> Arm:
    """Its newest finished run of each seed, and what became of the seeds without one."""
    by_seed, lost = {}, {}
    for run in sorted((run for run in members if run.counts), key=lambda run: str(run.updated)):
        by_seed[run.seed] = run
    for run in sorted((run for run in members if run.seed not in by_seed), key=lambda run: str(run.updated)):
        lost[run.seed] = "without numbers" if run.state == "finished" else run.state
    planned = tuple(sorted(by_seed.keys() | lost.keys()))
    return Arm([by_seed[seed] for seed in sorted(by_seed)], planned, lost)


def folders(places: Iterable[Path]) -> list[Path]:
    """Run folders among ``places`` and in them, by name; those whose name begins with a dot are ours to ignore."""
    found = set()
    for place in places:
        own = (place / "status.json").is_file()
        inside = place.glob("*/status.json")
        found |= {place.resolve()} if own else {f.parent.resolve() for f in inside if f.parent.name[0] != "."}
    return sorted(found)
