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

from albert_ablate.identity import INCIDENTAL, LATER
from albert_ablate.sweeping.relative import TERMS, embedding_of, shape_of
from analysis.planted import fits, natural
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
#: Why an arm has no number, where no run is its cell.
NO_RUN = "no run of this cell"


@dataclass(frozen=True)
class Selection:
    """The runs of some arms in one set-up."""

    runs: dict[str, pd.DataFrame]  # arm -> its finished runs, a row a seed
    waiting: dict[str, str] = field(default_factory=dict)  # arm without finished runs -> why
    other: int = 0  # finished runs of these arms in other set-ups, left out
    differs: dict[str, str] = field(default_factory=dict)  # setting -> its values there
    setups: int = 0  # how many other set-ups those are of
    taken: str = ""  # why this set-up was taken and not those

    def names(self) -> list[str]:
        """Every run, sorted."""
        return sorted({str(name) for frame in self.runs.values() for name in frame["run"]})


def select(runs: pd.DataFrame, arms: Mapping[str, Terms]) -> Selection:
    """The runs of ``arms`` (name -> terms of a sweep file, or settings) in the set-up that has most of them."""
    runs = runs[runs["state"] != "copy"]
    freed = _freed(arms.values())
    members = {name: runs[matching(runs, terms)] for name, terms in arms.items()}
    places = sorted({place for frame in members.values() for place in frame.index})
    setups = _setups(runs.loc[places], freed)
    finished = runs.index[runs["state"] == "finished"]
    best, left_out, why = _best(members, setups, finished)
    chosen, waiting = {}, {}
    for name, frame in members.items():
        here = frame[[setups[place] == best for place in frame.index]] if len(frame) else frame
        done = here[here["state"] == "finished"]
        chosen[name] = done.sort_values("updated").drop_duplicates("seed", keep="last").sort_values("seed")
        if not len(done):
            waiting[name] = _why(here)
    one = next((place for place in places if setups[place] == best), None)
    others = len({setups[place] for place in left_out})
    return Selection(chosen, waiting, len(left_out), _differences(runs, one, left_out, freed), others, why)


def main_setup(runs: pd.DataFrame) -> pd.DataFrame:
    """Every finished run of the set-up that has most of them, a row a seed, with ``arm``: what tells them apart."""
    return main_selection(runs).runs["all"]


def main_selection(runs: pd.DataFrame) -> Selection:
    """``main_setup`` as the arm ``all``, with what was left out of it."""
    return largest(natural(runs))


def largest(runs: pd.DataFrame) -> Selection:
    """``main_selection`` of runs of any text."""
    trained = runs["config"].map(lambda config: not _imported(config))
    done = runs[(runs["state"] == "finished") & runs["hidden"].notna() & trained]
    if not len(done):
        return Selection({"all": done.assign(arm=[])})
    setups = _setups(done, _AXES)
    best, left_out, why = _best({"all": done}, setups, done.index)
    chosen = done.loc[[place for place in done.index if setups[place] == best]]
    cell = [_digest({k: v for k, v in flatten(c).items() if _under(k, _AXES)}, c["seed"]) for c in chosen["config"]]
    newest = chosen.assign(_cell=cell).sort_values("updated", kind="stable").drop_duplicates("_cell", keep="last")
    chosen = chosen.loc[chosen.index.isin(newest.index)]
    words = _differences(done, chosen.index[0], left_out, _AXES)
    others = len({setups[place] for place in left_out})
    return Selection({"all": chosen.assign(arm=arm_names(chosen))}, {}, len(left_out), words, others, why)


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


def absent(runs: pd.DataFrame, terms: Terms) -> list[str]:
    """``masking.max_ngram=7`` for every setting of a cell that no run has, whatever else it has."""
    shapes = zip(runs["config"], runs["hidden"], runs["base_hidden"], runs["base_layers"], strict=True)
    missing: dict[str, Any] | None = None
    for config, hidden, h, n in shapes:
        if not _comparable(config, hidden, terms):
            continue
        wanted = _wanted(config, hidden, (h, n), terms)
        here = {path: value for path, value in wanted.items() if not _same(path, setting(config, path), value)}
        missing = here if missing is None else {path: value for path, value in missing.items() if path in here}
    return [f"{path}={value}" for path, value in (missing or {}).items()]


def _is(config: dict[str, Any], hidden: Any, base: tuple[Any, Any], terms: Terms) -> bool:
    if not _comparable(config, hidden, terms):
        return False
    wanted = _wanted(config, hidden, base, terms)
    return all(_same(path, setting(config, path), value) for path, value in wanted.items())


def _comparable(config: dict[str, Any], hidden: Any, terms: Terms) -> bool:
    return bool(config) and not pd.isna(hidden) and not _imported(config) and fits(config, terms)


def _wanted(config: dict[str, Any], hidden: Any, base: tuple[Any, Any], terms: Terms) -> dict[str, Any]:
    """The settings that make a run with this base model the cell of ``terms``."""
    head = int(hidden) // config["model"].get("heads", 1)
    base_hidden, base_layers = int(base[0]), int(base[1])
    shape = shape_of(dict(terms), base_hidden, base_layers, head)
    wanted: dict[str, Any] = {"model.hidden": shape.hidden, "model.layers": shape.layers}
    wanted |= {"warm_start.layers": list(shape.after), "share.groups": 1}
    for key, value in terms.items():
        if key == "embedding":
            own_hidden = terms.get("model.hidden", shape.hidden)
            wanted["embed.size"] = embedding_of(str(value), base_hidden, own_hidden)
        elif key == "dropout":
            wanted |= dict.fromkeys(_DROPOUTS, float(value))
        elif key == "corpus":
            name, fraction = {"base": ("wiki_books", 0.5), "more": ("wiki_books_more", 1.0)}[value]
            paper = setting(config, "scale.name") == "paper"
            wanted |= {"data.name": name} if paper else {"data.fraction": fraction}
        elif key not in TERMS:
            wanted[_FIELDS.get(key, key)] = value
    return wanted


def _imported(config: dict[str, Any]) -> bool:
    """Whether another program trained it: then it is no arm of ours, whatever its shape."""
    return setting(config, "scale.name") == "imported"


#: Groups in which an option is told by one setting.
_FIELDS = {"share": "share.strategy", "objective": "objective.name", "embed": "embed.size", "budget": "budget.unit"}


def _same(path: str, found: Any, value: Any) -> bool:
    if found is None:  # a run of before there was the setting
        found = {"warm_start.layers": [], "share.groups": 1, **LATER}.get(path)
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
    return {k: v for k, v in flat.items() if not _under(k, freed)}


def _under(name: str, paths: Sequence[str]) -> bool:
    return any(name == path or name.startswith(f"{path}.") for path in paths)


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


def _best(members: dict[str, pd.DataFrame], setups: dict[Any, str], finished: Any) -> tuple[str | None, list[Any], str]:
    """The set-up with most arms, then most runs, then the latest; the finished runs of others; why it was taken."""
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
        return None, [], ""
    best = max(score, key=lambda setup: score[setup])
    places = {place for frame in members.values() for place in frame.index}
    left_out = sorted(place for place in places if place in finished and setups[place] != best)
    return best, left_out, _reason(score[best], [score[setup] for setup in score if setup != best])


def _reason(best: list[Any], others: list[list[Any]]) -> str:
    """What decided between set-ups of (arms, runs, time of the last run)."""
    arms, runs, last = max(others, default=[0, 0, ""])
    if best[0] > arms:
        return "it has most arms"
    if best[1] > runs:
        return "it has most runs"
    return (
        "of several with as many runs it has the latest"
        if best[2] > last
        else "of several alike it comes first by name"
    )


def _differences(runs: pd.DataFrame, one: Any, others: Sequence[Any], freed: Sequence[str]) -> dict[str, str]:
    """Setting -> "3500, elsewhere 1200": what tells the chosen set-up from the others."""
    if one is None or not others:
        return {}
    chosen = runs.loc[[one]].to_dict("records")[0]
    ours, data = _rest(chosen["config"], freed), _data_words(chosen)
    found: dict[str, tuple[str, dict[str, None]]] = {}
    for other in runs.loc[list(others)].to_dict("records"):
        theirs = _rest(other["config"], freed)
        if other["tokens_fingerprint"] != chosen["tokens_fingerprint"] and "tokens" not in freed:
            found.setdefault("data", (data, {}))[1][_data_words(other)] = None
        if other["precision"] != chosen["precision"]:
            found.setdefault("precision", (str(chosen["precision"]), {}))[1][str(other["precision"])] = None
        for path in sorted(set(ours) | set(theirs)):
            if ours.get(path) != theirs.get(path) and not path.startswith("evaluation.curve"):
                found.setdefault(path, (str(ours.get(path)), {}))[1][str(theirs.get(path))] = None
    return {path: f"{mine}, elsewhere {' and '.join(list(other)[:3])}" for path, (mine, other) in found.items()}


def _data_words(run: Mapping[Any, Any]) -> str:
    """``embedded (tokens feed)``: the corpus and the tokens that were made of it."""
    corpus = run["data"].get("corpus") if isinstance(run["data"], dict) else None
    return f"{corpus or setting(run['config'], 'data.name')} (tokens {str(run['tokens_fingerprint'])[:8]})"


def _why(runs: pd.DataFrame) -> str:
    """Why an arm has no finished run."""
    if not len(runs):
        return NO_RUN
    run = runs.sort_values("updated").iloc[-1]
    return f"{run['state']}: {run['note']}" if run["note"] else str(run["state"])
