"""Which runs are which arm: cells in a sweep file's terms, found among run folders.

Arms are compared only within one set-up: every setting that changes the numbers is equal but for
the axes that tell the arms apart. Where runs of several set-ups fit the same arms, the set-up with
most of them is taken and the others are named.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from albert_ablate.errors import ConfigError
from albert_ablate.identity import INCIDENTAL, LATER
from albert_ablate.sweeping.relative import TERMS, embedding_of, shape_of
from analysis.runs import setting

#: What arms of one set-up may differ in: what never changes the numbers, and the seed.
_INCIDENTAL = (*INCIDENTAL, "seed")
#: Settings that the axes of a paper table stand for; an arm fixes them all.
_AXES = (
    "embed", "share.strategy", "objective", "warm_start",
    *(f"model.{name}" for name in ("name", "hidden", "layers", "heads", "intermediate")),
)  # fmt: skip
#: Settings that the terms of a sweep file beside the axes stand for.
_OF_TERM = {"dropout": ("model.hidden_dropout", "model.attention_dropout"), "corpus": ("tokens", "data")}
_DROPOUTS = _OF_TERM["dropout"]

Terms = Mapping[str, Any]


@dataclass(frozen=True)
class Selection:
    """The runs of some arms in one set-up."""

    runs: dict[str, pd.DataFrame]  # arm -> its finished runs, a row a seed
    waiting: dict[str, str] = field(default_factory=dict)  # arm without finished runs -> why
    other: int = 0  # finished runs of these arms in other set-ups, left out
    differs: dict[str, str] = field(default_factory=dict)  # setting -> its values there

    def names(self) -> list[str]:
        """Every run, sorted."""
        return sorted({str(name) for frame in self.runs.values() for name in frame["run"]})


def select(runs: pd.DataFrame, arms: Mapping[str, Terms]) -> Selection:
    """The runs of ``arms`` (name -> terms of a sweep file, or settings) in the set-up that has most of them."""
    freed = _freed(arms.values())
    members = {name: runs[matching(runs, terms)] for name, terms in arms.items()}
    places = sorted({place for frame in members.values() for place in frame.index})
    setups = _setups(runs.loc[places], freed)
    finished = runs.index[runs["state"] == "finished"]
    best, left_out = _best(members, setups, finished)
    chosen, waiting = {}, {}
    for name, frame in members.items():
        here = frame[[setups[place] == best for place in frame.index]] if len(frame) else frame
        done = here[here["state"] == "finished"]
        chosen[name] = done.sort_values("updated").drop_duplicates("seed", keep="last").sort_values("seed")
        if not len(done):
            waiting[name] = _why(here)
    one = next((place for place in places if setups[place] == best), None)
    return Selection(chosen, waiting, len(left_out), _differences(runs, one, left_out, freed))


def main_setup(runs: pd.DataFrame) -> pd.DataFrame:
    """Every finished run of the set-up that has most of them, with ``arm``: what tells them apart, in words."""
    trained = runs["config"].map(lambda config: not _imported(config))
    done = runs[(runs["state"] == "finished") & runs["hidden"].notna() & trained]
    if not len(done):
        return done.assign(arm=[])
    setups = pd.Series(_setups(done, _AXES))
    counts = setups.value_counts()
    most = [setup for setup, count in counts.items() if count == counts.max()]
    latest = max(most, key=lambda setup: str(done.loc[setups[setups == setup].index, "updated"].max()))
    chosen = done.loc[setups[setups == latest].index]
    return chosen.assign(arm=arm_names(chosen))


def arm_names(runs: pd.DataFrame) -> list[str]:
    """``E=32, all shared, SOP`` of each run, with the model where the runs have several shapes."""
    shapes = runs[["hidden", "layers"]].drop_duplicates()
    words = []
    for run in runs.to_dict("records"):
        shape = f"{run['hidden']}×{run['layers']}, " if len(shapes) > 1 else ""
        words.append(f"{shape}E={run['E']}, {SHARES[run['share']]}, {OBJECTIVES[run['objective']]}")
    return words


def in_order(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs by shape, E as a number, sharing as in Table 4, objective (SOP first) and seed."""
    ranks = {name: place for place, name in enumerate((*SHARES, *OBJECTIVES))}
    by_axes = runs.assign(_share=runs["share"].map(ranks), _objective=runs["objective"].map(ranks))
    keys = ["hidden", "layers", "E", "_share", "_objective", "seed"]
    return runs.loc[by_axes.sort_values(keys, kind="stable").index]


#: Strategies and objectives in words.
SHARES = {"all": "all shared", "attention": "shared attention", "ffn": "shared FFN", "none": "not shared"}
OBJECTIVES = {"sop": "SOP", "nsp": "NSP", "none": "no sentence task"}


def matching(runs: pd.DataFrame, terms: Terms) -> "pd.Series[bool]":
    """Which runs are the cell of ``terms``, whatever their set-up."""
    shapes = zip(runs["config"], runs["hidden"], runs["base_hidden"], runs["base_layers"], strict=True)
    found = [_is(config, hidden, (h, n), terms) for config, hidden, h, n in shapes]
    return pd.Series(found, index=runs.index, dtype=bool)


def require_terms(place: str, terms: Terms) -> None:
    """Raises ConfigError for terms that make no cell."""
    try:
        _is({"model": {"heads": 1}}, 768, (768, 12), terms)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{place}: {dict(terms)} is no cell ({type(error).__name__}: {error}).") from None


def _is(config: dict[str, Any], hidden: Any, base: tuple[Any, Any], terms: Terms) -> bool:
    if not config or pd.isna(hidden) or _imported(config) or setting(config, "share.groups") not in (None, 1):
        return False
    head = int(hidden) // config["model"].get("heads", 1)
    base_hidden, base_layers = int(base[0]), int(base[1])
    shape = shape_of(dict(terms), base_hidden, base_layers, head)
    wanted: dict[str, Any] = {"model.hidden": shape.hidden, "model.layers": shape.layers}
    wanted["warm_start.layers"] = list(shape.after)
    for key, value in terms.items():
        if key == "embedding":
            wanted["embed.size"] = embedding_of(str(value), base_hidden, shape.hidden)
        elif key == "dropout":
            wanted |= dict.fromkeys(_DROPOUTS, float(value))
        elif key == "corpus":
            name, fraction = {"base": ("wiki_books", 0.5), "more": ("wiki_books_more", 1.0)}[value]
            paper = setting(config, "scale.name") == "paper"
            wanted |= {"data.name": name} if paper else {"data.fraction": fraction}
        elif key not in TERMS:
            wanted[_FIELDS.get(key, key)] = value
    return all(_same(setting(config, path), value) for path, value in wanted.items())


def _imported(config: dict[str, Any]) -> bool:
    """Whether another program trained it: then it is no arm of ours, whatever its shape."""
    return setting(config, "scale.name") == "imported"


#: Groups in which an option is told by one setting.
_FIELDS = {"share": "share.strategy", "objective": "objective.name", "embed": "embed.size", "budget": "budget.unit"}


def _same(found: Any, value: Any) -> bool:
    if found is None and value == []:
        return True  # a run of before there were warm starts
    if isinstance(value, (int, float)) and isinstance(found, (int, float)):
        return float(found) == float(value)
    return bool(found == value)


def _freed(arms: Any) -> tuple[str, ...]:
    """Settings in which the arms may differ."""
    keys = {key for terms in arms for key in terms}
    named = [path for key in keys for path in _OF_TERM.get(key, ())]
    return (*_AXES, *named, *(_FIELDS.get(key, key) for key in keys if key not in TERMS and key != "budget"))


def _setups(runs: pd.DataFrame, freed: Sequence[str]) -> dict[Any, str]:
    """Index -> set-up. A run without a manifest yet is of the set-up of those whose settings it has."""
    found, by_settings = {}, {}
    columns = (runs[name] for name in ("config", "tokens_fingerprint", "precision"))
    for place, config, fingerprint, precision in zip(runs.index, *columns, strict=True):
        sources = {k: v for k, v in config.items() if k in ("data", "tokenizer")}
        rest = _rest(config, freed)
        own = _digest(rest, sources if "data" not in freed else {})
        if fingerprint:
            tokens = "" if "tokens" in freed else fingerprint
            by_settings[own] = found[place] = _digest(rest, [tokens, precision])
        else:
            found[place] = own
    return {place: by_settings.get(key, key) for place, key in found.items()}


def _rest(config: dict[str, Any], freed: Sequence[str]) -> dict[str, Any]:
    """The settings that must be equal, flat. Of the batch only its size, and of the budget what is in use."""
    flat = {path: value for path, value in flatten(config).items() if path.split(".")[0] not in _INCIDENTAL}
    flat = {path: value for path, value in flat.items() if LATER.get(path) != value and path != "batch.micro_size"}
    unit = flat.get("budget.unit", "steps")
    kept = ("budget.unit", f"budget.{unit}", "budget.warmup_steps")
    flat = {k: v for k, v in flat.items() if not k.startswith("budget.") or k in kept}
    return {k: v for k, v in flat.items() if not any(k == path or k.startswith(f"{path}.") for path in freed)}


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings -> dotted ones."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= flatten(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _digest(*values: Any) -> str:
    return json.dumps(values, sort_keys=True, default=str)


def _best(members: dict[str, pd.DataFrame], setups: dict[Any, str], finished: Any) -> tuple[str | None, list[Any]]:
    """The set-up with most arms, then most runs, then the latest; and the finished runs of others."""
    score: dict[str, list[Any]] = {}
    for frame in members.values():
        arms: set[str] = set()
        for place, updated in zip(frame.index, frame["updated"], strict=True):
            entry = score.setdefault(setups[place], [0, 0, ""])
            if place in finished:
                arms.add(setups[place])
                entry[1] += 1
                entry[2] = max(entry[2], str(updated))
        for setup in arms:
            score[setup][0] += 1
    if not score:
        return None, []
    best = max(score, key=lambda setup: score[setup])
    places = {place for frame in members.values() for place in frame.index}
    return best, sorted(place for place in places if place in finished and setups[place] != best)


def _differences(runs: pd.DataFrame, one: Any, others: Sequence[Any], freed: Sequence[str]) -> dict[str, str]:
    """Setting -> "3500, elsewhere 1200": what tells the chosen set-up from the others."""
    if one is None or not others:
        return {}
    chosen: Any = runs.loc[one]
    ours = _rest(chosen["config"], freed)
    found: dict[str, str] = {}
    for other in runs.loc[list(others)].to_dict("records"):
        theirs = _rest(other["config"], freed)
        for path in sorted(set(ours) | set(theirs)):
            if ours.get(path) != theirs.get(path) and not path.startswith("evaluation.curve"):
                found[path] = f"{ours.get(path)}, elsewhere {theirs.get(path)}"
        if other["tokens_fingerprint"] != chosen["tokens_fingerprint"] and "tokens" not in freed:
            found["data"] = "other tokens elsewhere"
    return found


def _why(runs: pd.DataFrame) -> str:
    """Why an arm has no finished run."""
    if not len(runs):
        return "no run of this cell"
    run = runs.sort_values("updated").iloc[-1]
    return f"{run['state']}: {run['note']}" if run["note"] else str(run["state"])
