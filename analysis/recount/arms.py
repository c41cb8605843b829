"""Which runs belong to an arm: the terms of ``sweeps/*.yaml`` and settings, matched with each ``config.yaml``.

A set-up holds every setting except the seed and those that the terms of the arms set. Of several set-ups, the one with
most arms is taken, then with most runs, then with the latest run. Of one seed the newest run counts. Seeds without
numbers are recorded.
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
from albert_ablate.config.identity import BEFORE, INCIDENTAL, UNSAID
from albert_ablate.config.schema import CONF
from albert_ablate.shipped import shipped

from . import tunings
from .files import at, flat, read_yaml
from .runs import Run
from .task_setups import one_setup_each

_SWEEPS = shipped("sweeps")
_SIZES = ("base", "large", "xlarge", "xxlarge")
#: Terms that set the shape or the length, and are not names of settings.
_SHAPE = ("size", "min_layers", "depth", "after", "width", "length", "compute")
_DROPOUTS = ("model.hidden_dropout", "model.attention_dropout")
_NAMED = {**{axis.group: axis.path for axis in AXES}, "budget": "budget.unit"}
#: Settings of an absolute shape; and setting that chooses an option -> the group whose settings follow from it.
_OUTRIGHT = ("model.hidden", "model.layers", "model.heads", "model.intermediate")
_BRINGS = {name: name.split(".")[0] for name in ("optimizer.name", "data.name", "tokenizer.name", "budget.unit")}
_BEFORE = {**UNSAID, **BEFORE}
_NAMES = (
    "model.name", *(f"{axis.group}.name" for axis in AXES if axis.setting != "name"), "tokenizer.model_path",
    "init.run", "init.tokenizer", "init.weights",
)  # fmt: skip

Terms = Mapping[str, Any]


class UnknownTermError(Exception):
    """An arm has a term that the audit does not read."""


def cells(table: str) -> list[dict[str, Any]]:
    """The cells of a table (``table4``) in the order of its sweep file; the last list of a cell varies fastest."""
    file = read_yaml(_SWEEPS / f"{table}.yaml")
    expanded = []
    for cell in file["cells"]:
        lists = [value if isinstance(value, list) else [value] for value in cell.values()]
        expanded += [file.get("settings", {}) | dict(zip(cell, point, strict=True)) for point in product(*lists)]
    return expanded


@cache
def model_file(name: str) -> dict[str, Any]:
    """``conf/model/NAME.yaml``; empty where it does not exist."""
    content: dict[str, Any] = read_yaml(CONF / "model" / f"{name}.yaml")
    return content


def shape(terms: Terms, hidden: int, layers: int, head: int) -> tuple[int, int, list[int]]:
    """H, L and the depths of the warm-start runs, for terms relative to a base model of ``hidden`` x ``layers``."""
    size, base = model_file(terms.get("size", "base")), model_file("base")
    full = max(math.ceil(layers * Fraction(size["layers"], base["layers"])), int(terms.get("min_layers", 1)))
    wide = round(hidden * Fraction(size["hidden"], base["hidden"]) / head) * head
    deep = math.ceil(full * Fraction(str(terms.get("depth", 1))))
    before = [part.strip() for part in str(terms.get("after", "")).split(",") if part.strip()]
    after = sorted({math.ceil(full * Fraction(part)) for part in before} - {deep})
    return round(wide * Fraction(str(terms.get("width", 1)))), deep, after


def width_of(part: Any, base_hidden: int, hidden: int) -> int:
    """E for ``H`` (the model's H) or ``H/6`` (a sixth of the base model's H, rounded to a multiple of 8)."""
    return hidden if part == "H" else round(base_hidden / int(str(part).removeprefix("H/")) / 8) * 8


def base_of(config: Mapping[str, Any]) -> tuple[int, int]:
    """H and L of the base model that sizes are multiples of (nano for nano-large); the model's own without a file."""
    model = config["model"]
    name = str(model["name"]).split("-")[0]
    name = "base" if name in _SIZES else name
    known = model_file(name)
    own_shape = (model["hidden"], model["layers"])
    if not known or (name == model["name"] and (known["hidden"], known["layers"]) != own_shape):
        return own_shape
    return known["hidden"], known["layers"]


def wanted(terms: Terms, config: dict[str, Any]) -> dict[str, Any]:
    """Setting -> the value that a run with the base model of ``config`` has if it is the cell of ``terms``."""
    base_hidden, base_layers = base_of(config)
    head = config["model"]["hidden"] // config["model"]["heads"]
    hidden, layers, after = shape(terms, base_hidden, base_layers, head)
    required = {**UNSAID, **brought(terms), "model.hidden": hidden, "model.layers": layers, "warm_start.layers": after}
    for key, value in terms.items():
        if key in ("embedding", "embed") and isinstance(value, str):
            arm_hidden = terms.get("model.hidden", hidden)
            known = value.removeprefix("e").isdecimal()
            required["embed.size"] = (
                int(value[1:]) if known else width_of(value.replace("full", "H"), base_hidden, arm_hidden)
            )
        elif key == "dropout":
            required |= dict.fromkeys(_DROPOUTS, float(value))
        elif key == "corpus" and at(config, "scale.name") == "paper":
            required["data.name"] = {"base": "wiki_books", "more": "wiki_books_more"}[value]
        elif key == "corpus":
            required["data.fraction"] = {"base": 0.5, "more": 1.0}[value]
        elif key in _NAMED or "." in key:
            required[_NAMED.get(key, key)] = value
        elif key == "model":
            required |= {f"model.{k}": v for k, v in model_file(value).items() if k not in ("name", "defaults")}
        elif key not in _SHAPE and key != "seed":
            raise UnknownTermError(f"the arm names an option of {key}, which is not read here")
    if terms.get("method") in ("distilbert", "tinybert", "mobilebert"):  # terms do not say which run is the teacher
        required = {path: v for path, v in required.items() if path not in ("method.teacher", "method.teacher_run")}
    if terms.get("init.weights") == "parent":  # nor which run is the parent
        required.pop("init.run_id")
    if any(path in required for path in _OUTRIGHT if path in terms or "model" in terms):
        required["model.base"] = None  # relative to no base model
    return required


def brought(terms: Terms) -> dict[str, Any]:
    """What the files of the chosen options say of settings that arms need not name."""
    chosen = [(axis.group, str(terms.get(axis.path, terms.get(axis.group)))) for axis in AXES]
    files = {group: read_yaml(CONF / group / f"{option}.yaml") for group, option in chosen}
    whole = {f"{group}.{key}": value for group, file in files.items() for key, value in file.items()}
    return {path: whole[path] for path in UNSAID if path in whole}


def required_settings(run: Run, terms: Terms) -> dict[str, Any] | None:
    """The settings that ``terms`` set, if the run has all of them; else None, as for an imported model."""
    config = run.config
    if at(config, "model.hidden") is None or at(config, "scale.name") == "imported":
        return None
    if isinstance(at(config, "data.planted"), dict) != any(term.startswith("data.planted.") for term in terms):
        return None  # only terms that name planted text match a run on it
    required = wanted(terms, config)
    for path, value in required.items():
        recorded = at(config, path)
        if (_BEFORE.get(path) if recorded is None else recorded) != value:
            return None
    return required


def _under(path: str, names: Iterable[str]) -> bool:
    return any(path == name or path.startswith(f"{name}.") for name in names)


def settings(run: Run) -> dict[str, Any]:
    """Every setting that changes the numbers, flat; the shape by the proportions that size, depth and width keep."""
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
    """The base model, the width of a head, and the ratio of the feed-forward width to H.

    A size with a file in conf/model has the proportions of its base, unless it differs from its file.
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
        ratios = {k: v if model.get(k) in (filed[k], None) else f"{model[k]} of its own" for k, v in of_file.items()}
    else:
        h, heads, wide = (model.get(name) for name in ("hidden", "heads", "intermediate"))
        ratios = {"heads": h / heads if h and heads else None, "intermediate": wide / h if wide and h else 4.0}
    return {"model.base": base} | {f"model.{name}": value for name, value in ratios.items()}


def freed(arm_settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Settings in which arms may differ: those that an arm sets, and those that follow from a differing option."""
    names = {name for chosen in arm_settings for name in chosen}
    apart = {name for name in names if len({json.dumps(chosen.get(name)) for chosen in arm_settings}) > 1}
    free = names | {_BRINGS[name] for name in apart if name in _BRINGS}
    free |= {"batch.micro_size"} if apart & set(_DROPOUTS) else set()
    return sorted(free | ({"tokens"} if any(_under(name, ("data", "tokenizer")) for name in apart) else set()))


def _setups(runs: Iterable[Run], free: Sequence[str], parts: Mapping[Run, Fraction]) -> dict[Run, str]:
    """Run -> its set-up as text. A run without tokens yet gets the set-up of the runs with its settings.

    A run that has a part of the FLOPs has the set-up of those with the whole.
    """
    by_run, by_settings = {}, {}
    for run in runs:
        kept = {path: value for path, value in settings(run).items() if not _under(path, free)}
        if run in parts and "budget.flops" in kept:
            kept["budget.flops"] = float(f"{kept['budget.flops'] / parts[run]:.4g}")
        tokens = at(run.manifest, "data.tokens.fingerprint")
        key = _text(kept)
        if tokens and "tokens" not in free:
            kept = {path: value for path, value in kept.items() if not _under(path, ("data", "tokenizer"))}
        if tokens:
            fingerprint = "" if "tokens" in free else tokens
            on_cpu = at(run.manifest, "hardware.device") in (None, "cpu")  # CPU and GPU are different set-ups
            by_settings[key] = by_run[run] = _text(kept, fingerprint, run.manifest.get("precision"), on_cpu)
        else:
            by_run[run] = key
    return {run: by_settings.get(key, key) for run, key in by_run.items()}


def _text(*values: Any) -> str:
    return json.dumps(values, sort_keys=True, default=str)


@dataclass(frozen=True)
class Arm:
    """The finished runs of an arm, one for each seed; its planned seeds; seed without numbers -> its state."""

    runs: list[Run]
    planned: tuple[int, ...] = ()
    lost: dict[int, str] = field(default_factory=dict)


def select(runs: Sequence[Run], arms: Iterable[Terms]) -> list[Arm]:
    """The runs of every arm in the set-up with most arms, then runs."""
    tuned = tunings.of_arms(arms := list(arms))
    arms = [
        {key: value for key, value in terms.items() if not key.startswith(("task.", "knowledge"))} for terms in arms
    ]
    candidates = [run for run in runs if run.state != "copy" and run.config.get("seed") is not None]
    fit: list[list[Run]] = []
    parts: dict[Run, Fraction] = {}  # run -> the part of the sweep's FLOPs that its arm has
    arm_settings: list[dict[str, Any]] = []
    for terms in arms:
        cells_of = {run: required for run in candidates if (required := required_settings(run, terms)) is not None}
        fit.append(list(cells_of))
        parts |= dict.fromkeys(cells_of, Fraction(str(terms["compute"]))) if "compute" in terms else {}
        arm_settings.append(list(cells_of.values())[-1] if cells_of else {})
    free = freed([required for required, members in zip(arm_settings, fit, strict=True) if members])
    names = _setups([run for run in candidates if any(run in members for members in fit)], free, parts)
    best = _most(fit, names)
    chosen = []
    for members, terms in zip(fit, arm_settings, strict=True):
        stricter = [more for more, required in zip(fit, arm_settings, strict=True) if set(required) > set(terms)]
        taken = {run for more in stricter for run in more}
        rest = [run for run in members if names[run] == best and run not in taken]
        chosen.append(_arm(_alike(rest, free, terms)))
    planned = tuple(sorted({seed for arm in chosen for seed in arm.planned}))
    own = [tunings.own(arm.runs, settings_of_arm) for arm, settings_of_arm in zip(chosen, tuned, strict=True)]
    kept = one_setup_each(own, tunings.open_between(tuned))
    return [
        Arm(arm_runs, planned, arm.lost | {seed: "missing" for seed in planned if seed not in arm.planned})
        if arm.planned
        else Arm([])
        for arm_runs, arm in zip(kept, chosen, strict=True)
    ]


def _most(fit: Sequence[Sequence[Run]], names: Mapping[Run, str]) -> str | None:
    """The set-up with most arms, then most runs, then the latest run; None without runs."""
    standing: dict[str, list[Any]] = {}
    for members in fit:
        done = [run for run in members if run.counts]
        for run in members:
            standing.setdefault(names[run], [0, 0, ""])
        for run in done:
            score = standing[names[run]]
            score[1], score[2] = score[1] + 1, max(score[2], str(run.updated))
        for name in {names[run] for run in done}:
            standing[name][0] += 1
    return max(standing, key=lambda name: standing[name]) if standing else None


def _alike(members: Sequence[Run], free: Sequence[str], arm_settings: Mapping[str, Any]) -> list[Run]:
    """The runs of one arm that agree in the settings that only other arms set.

    Of several groups the one with most finished runs is taken, then the latest.
    """
    groups: dict[tuple[str, Any], list[Run]] = {}
    for run in members:
        rest = {path: v for path, v in settings(run).items() if _under(path, free) and not _under(path, arm_settings)}
        tokens = (at(run.manifest, "data.tokens.fingerprint") or None) if "tokens" in free else ""
        groups.setdefault((_text(rest), tokens), []).append(run)
    if not groups:
        return []

    def rank(key: tuple[str, Any]) -> tuple[int, str]:
        done = [run for run in groups[key] if run.counts]
        return len(done), max((str(run.updated) for run in done), default="")

    best = max(groups, key=rank)
    return [run for key, group in groups.items() for run in group if key in (best, (best[0], None))]


def _arm(members: Sequence[Run]) -> Arm:
    """The arm of ``members``: its newest finished run of each seed, and the state of each seed without one."""
    by_seed, lost = {}, {}
    for run in sorted((run for run in members if run.counts), key=lambda run: str(run.updated)):
        by_seed[run.seed] = run
    for run in sorted((run for run in members if run.seed not in by_seed), key=lambda run: str(run.updated)):
        lost[run.seed] = "without numbers" if run.state == "finished" else run.state
    planned = tuple(sorted(by_seed.keys() | lost.keys()))
    return Arm([by_seed[seed] for seed in sorted(by_seed)], planned, lost)


def folders(paths: Iterable[Path]) -> list[Path]:
    """Run folders among ``paths`` and in them, sorted; names that begin with a dot are ignored."""
    run_folders = set()
    for path in paths:
        is_run = (path / "status.json").is_file()
        inside = path.glob("*/status.json")
        run_folders |= {path.resolve()} if is_run else {f.parent.resolve() for f in inside if f.parent.name[0] != "."}
    return sorted(run_folders)
