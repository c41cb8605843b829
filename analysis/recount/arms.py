"""Which runs are an arm: the cells of ``sweeps/*.yaml`` and settings, matched with ``config.yaml`` one by one.

Of several set-ups (everything equal but what tells the arms apart, and the seed) the one with most arms counts,
then with most runs, then with the latest run; of one seed the newest run.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from albert_ablate.config import CONF
from albert_ablate.identity import INCIDENTAL, LATER
from analysis.recount.files import at, flat, read_yaml
from analysis.recount.runs import Run

_SWEEPS = CONF.parent / "sweeps"
_SIZES = ("base", "large", "xlarge", "xxlarge")
#: Terms that say a shape, and what else is no setting by its own name.
_SHAPE = ("size", "depth", "after", "width", "length")
_DROPOUTS = ("model.hidden_dropout", "model.attention_dropout")
_NAMED = {"share": "share.strategy", "objective": "objective.name", "embed": "embed.size", "budget": "budget.unit"}
#: Settings that every arm fixes, whether it names them or not.
_AXES = (
    "embed", "share.strategy", "objective", "warm_start", "model.name", "model.hidden", "model.layers", "model.heads",
    "model.intermediate",
)  # fmt: skip

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
    found = {"model.hidden": hidden, "model.layers": layers, "warm_start.layers": after, "share.groups": 1}
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
    return found


def is_cell(run: Run, terms: Terms) -> bool:
    """Whether the run is the cell of ``terms``, whatever its set-up. An imported model is no arm."""
    config = run.config
    if at(config, "model.hidden") is None or at(config, "scale.name") == "imported":
        return False
    before = {"warm_start.layers": [], "share.groups": 1, **LATER}
    for path, value in wanted(terms, config).items():
        found = at(config, path)
        if (before.get(path) if found is None else found) != value:
            return False
    return True


def setup(run: Run, freed: Sequence[str]) -> str:
    """Everything that must be equal between arms, as one text."""
    kept = {}
    unit = at(run.config, "budget.unit") or "steps"
    for path, value in flat(run.config).items():
        of_budget = path.startswith("budget.") and path not in (
            "budget.unit", f"budget.{unit}", "budget.warmup_steps",
        )  # fmt: skip
        incidental = path.split(".")[0] in (*INCIDENTAL, "seed") or path == "batch.micro_size"
        later = path in LATER and LATER[path] == value
        if not (incidental or later or of_budget or any(path == f or path.startswith(f"{f}.") for f in freed)):
            kept[path] = value
    tokens = at(run.manifest, "data.tokens.fingerprint")
    if not tokens:  # not begun: its files say what the tokens will be
        sources = {} if "data" in freed else {k: v for k, v in run.config.items() if k in ("data", "tokenizer")}
        return json.dumps(["settings", kept, sources], sort_keys=True, default=str)
    where = ["" if "tokens" in freed else tokens, run.manifest.get("precision")]
    return json.dumps([kept, where], sort_keys=True, default=str)


def select(runs: Sequence[Run], arms: Iterable[Terms]) -> tuple[list[list[Run]], list[list[Run]]]:
    """For each arm its finished runs, one a seed, by seed; and its runs of that set-up that are not finished."""
    arms = list(arms)
    freed = [*_AXES]
    for key in {key for terms in arms for key in terms}:
        freed += {"dropout": _DROPOUTS, "corpus": ("tokens", "data")}.get(key, ())
        if key not in (*_SHAPE, "embedding", "dropout", "corpus", "budget"):
            freed.append(_NAMED.get(key, key))
    fit = [[run for run in runs if run.state != "copy" and is_cell(run, terms)] for terms in arms]
    names = {run: setup(run, freed) for members in fit for run in members}
    standing: dict[str, list[Any]] = {}
    for members in fit:
        done = [run for run in members if run.state == "finished"]
        for run in members:
            standing.setdefault(names[run], [0, 0, ""])
        for run in done:
            own = standing[names[run]]
            own[1], own[2] = own[1] + 1, max(own[2], str(run.updated))
        for name in {names[run] for run in done}:
            standing[name][0] += 1
    if not standing:
        return [[] for _ in arms], [[] for _ in arms]
    best = max(standing, key=lambda name: standing[name])
    chosen, waiting = [], []
    for members in fit:
        here = [run for run in members if names[run] == best]
        by_seed = {}
        for run in sorted((run for run in here if run.state == "finished"), key=lambda run: str(run.updated)):
            by_seed[run.seed] = run
        chosen.append([by_seed[seed] for seed in sorted(by_seed)])
        waiting.append([run for run in here if run.state != "finished"])
    return chosen, waiting


def folders(places: Iterable[Path]) -> list[Path]:
    """Run folders among ``places`` and in them, by name; those whose name begins with a dot are ours to ignore."""
    found = set()
    for place in places:
        own = (place / "status.json").is_file()
        inside = place.glob("*/status.json")
        found |= {place.resolve()} if own else {f.parent.resolve() for f in inside if f.parent.name[0] != "."}
    return sorted(found)


def states(chosen: Iterable[Run], waiting: Iterable[Run]) -> dict[int, str]:
    """Seed -> the state of its run; of a seed with a finished run, finished."""
    found = {run.seed: run.state for run in waiting}
    return found | {run.seed: run.state for run in chosen}
