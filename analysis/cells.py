"""Which runs are which arm: cells in a sweep file's terms, found among run folders.

Arms are compared only within one set-up: every setting that changes the numbers is equal (``setups.py``) but for
those that an arm's own terms set. Where runs of several set-ups fit the same arms, the set-up with most of them is
taken and the others are named. A seed that gave no numbers is never left out without a word.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from albert_ablate.axes import AXES
from albert_ablate.identity import UNSAID
from albert_ablate.sweeping.relative import EMBEDDING, TERMS, embedding_of, shape_of

from .arms import APART, full_names
from .planted import fits, natural
from .runs import setting
from .seeds import Seeds, missing_too, numberless, seeds_of
from .setups import (
    BEFORE,
    SHAPE,
    Settings,
    differences,
    keys,
    opened,
    settings_of_run,
    within_arm,
)
from .task_setups import one_setup_each

#: Settings that the terms of a sweep file beside the axes stand for.
_DROPOUTS = ("model.hidden_dropout", "model.attention_dropout")

Terms = Mapping[str, Any]
#: Why an arm has no number, where no run is its cell.
NO_RUN = "no run of this cell"


@dataclass(frozen=True)
class Selection:
    """The runs of some arms in one set-up."""

    runs: dict[str, pd.DataFrame]  # arm -> its finished runs, a row a seed
    waiting: dict[str, str] = field(default_factory=dict)  # arm without finished runs -> why
    seeds: dict[str, Seeds] = field(default_factory=dict)  # arm with runs -> its seeds, those without numbers too
    other: int = 0  # finished runs of these arms in other set-ups, left out
    differs: dict[str, str] = field(default_factory=dict)  # setting -> its values there
    setups: int = 0  # how many other set-ups those are of
    taken: str = ""  # why this set-up was taken and not those
    tasks: tuple[str, ...] = ()  # what was left out of the fine-tunings, in sentences

    def names(self) -> list[str]:
        """Every run, sorted."""
        return sorted({str(name) for frame in self.runs.values() for name in frame["run"]})


@dataclass(frozen=True)
class _Member:
    """A run that is the cell of an arm."""

    run: Mapping[Any, Any]
    settings: Settings
    finished: bool
    setup: str = ""
    within: tuple[str, str | None] = ("", None)  # settings and tokens that only some arms say


def select(runs: pd.DataFrame, arms: Mapping[str, Terms]) -> Selection:
    """The runs of ``arms`` (name -> terms of a sweep file, or settings) in the set-up that has most of them."""
    runs = runs[(runs["state"] != "copy") & runs["seed"].notna()]
    finished = (runs["state"] == "finished") & ~numberless(runs)
    done_places = set(runs.index[finished])
    members: dict[str, dict[Any, _Member]] = {name: {} for name in arms}
    own: dict[str, Settings] = {name: {} for name in arms}
    settings: dict[Any, Settings] = {}
    for place, run in runs.to_dict("index").items():
        for name, terms in arms.items():
            wanted = _cell(run, terms)
            if wanted is not None:
                settings.setdefault(place, settings_of_run(run))
                members[name][place] = _Member(run, settings[place], place in done_places)
                own[name] = wanted
    free = opened([own[name] for name, found in members.items() if found])
    setups = keys(runs.loc[list(settings)], settings, free)
    for name, found in members.items():
        for place, member in found.items():
            within = within_arm(member.run, member.settings, free, tuple(own[name]))
            found[place] = replace(member, setup=setups[place], within=within)
    best, why = _best(members)
    chosen, waiting, seeds = {}, {}, {}
    for name, found in members.items():
        taken = {place for other in arms if set(own[other]) > set(own[name]) for place in members[other]}
        here = {place: one for place, one in found.items() if one.setup == best and place not in taken}
        frame = runs.loc[_alike(here)]
        done = frame[finished[frame.index]]
        chosen[name] = done.sort_values("updated").drop_duplicates("seed", keep="last").sort_values("seed")
        if len(frame):
            seeds[name] = seeds_of(frame)
        if not len(done):
            waiting[name] = _why(frame)
    left = _left_out(members, chosen)
    differs = _told(left, chosen, own)
    setups_left = {(member.setup, member.within[0]) for _, member in left}
    kept, of_tasks = one_setup_each(chosen)
    return Selection(kept, waiting, missing_too(seeds), len(left), differs, len(setups_left), why, of_tasks)


def main_setup(runs: pd.DataFrame) -> pd.DataFrame:
    """Every finished run of the set-up that has most of them, a row a seed, with ``arm``: what tells them apart."""
    return main_selection(runs).runs["all"]


def main_selection(runs: pd.DataFrame) -> Selection:
    """``main_setup`` as the arm ``all``, with what was left out of it; ``seeds`` are of each of its arms."""
    return largest(natural(runs))


def largest(runs: pd.DataFrame) -> Selection:
    """``main_selection`` of runs of any text."""
    ours = [_of_ours(config, hidden) for config, hidden in zip(runs["config"], runs["hidden"], strict=True)]
    runs = runs[(runs["state"] != "copy") & runs["seed"].notna() & pd.Series(ours, index=runs.index, dtype=bool)]
    finished = (runs["state"] == "finished") & ~numberless(runs)
    if not finished.any():
        return Selection({"all": runs[finished].assign(arm=[])})
    rows, done_places = runs.to_dict("index"), set(runs.index[finished])
    settings = {place: settings_of_run(run) for place, run in rows.items()}
    setups = keys(runs, settings, APART)
    members = {place: _Member(run, settings[place], place in done_places, setups[place]) for place, run in rows.items()}
    best, why = _best({"all": members})
    here = runs.loc[[place for place in rows if setups[place] == best]]
    here = here.assign(arm=full_names(here))
    done = here[finished[here.index]]
    newest = done.sort_values("updated", kind="stable").drop_duplicates(["arm", "seed"], keep="last")
    chosen = done.loc[done.index.isin(newest.index)]
    left = [("all", member) for place, member in members.items() if member.finished and setups[place] != best]
    differs = _told(left, {"all": chosen}, {"all": dict.fromkeys(APART)})
    seeds = missing_too({str(arm): seeds_of(frame) for arm, frame in here.groupby("arm", sort=False)})
    kept, of_tasks = one_setup_each({"all": chosen})
    setups_left = {member.setup for _, member in left}
    return Selection(kept, {}, seeds, len(left), differs, len(setups_left), why, of_tasks)


def matching(runs: pd.DataFrame, terms: Terms) -> "pd.Series[bool]":
    """Which runs are the cell of ``terms``, whatever their set-up."""
    found = [_cell(run, terms) is not None for run in runs.to_dict("records")]
    return pd.Series(found, index=runs.index, dtype=bool)


def absent(runs: pd.DataFrame, terms: Terms) -> list[str]:
    """``masking.max_ngram=7`` for every setting of a cell that no run has, whatever else it has."""
    missing: dict[str, Any] | None = None
    for run in runs.to_dict("records"):
        if not _comparable(run["config"], run["hidden"], terms):
            continue
        wanted = _wanted(run, terms)
        here = {path: value for path, value in wanted.items() if not _same(path, setting(run["config"], path), value)}
        missing = here if missing is None else {path: value for path, value in missing.items() if path in here}
    return [f"{path}={value}" for path, value in (missing or {}).items()]


def _cell(run: Mapping[Any, Any], terms: Terms) -> Settings | None:
    """The settings that ``terms`` set, where a run has them all; else None."""
    if not _comparable(run["config"], run["hidden"], terms):
        return None
    wanted = _wanted(run, terms)
    alike = all(_same(path, setting(run["config"], path), value) for path, value in wanted.items())
    return wanted if alike else None


def _comparable(config: dict[str, Any], hidden: Any, terms: Terms) -> bool:
    return _of_ours(config, hidden) and fits(config, terms)


def _of_ours(config: dict[str, Any], hidden: Any) -> bool:
    return bool(config) and not pd.isna(hidden) and not _imported(config)


def _wanted(run: Mapping[Any, Any], terms: Terms) -> Settings:
    """The settings that make a run with this base model the cell of ``terms``."""
    config = run["config"]
    head = int(run["hidden"]) // config["model"].get("heads", 1)
    base_hidden, base_layers = int(run["base_hidden"]), int(run["base_layers"])
    shape = shape_of(dict(terms), base_hidden, base_layers, head)
    wanted: dict[str, Any] = {"model.hidden": shape.hidden, "model.layers": shape.layers}
    wanted |= {**UNSAID, "warm_start.layers": list(shape.after)}
    for key, value in terms.items():
        if key == "embedding":
            own_hidden = terms.get("model.hidden", shape.hidden)
            wanted[EMBEDDING] = embedding_of(str(value), base_hidden, own_hidden)
        elif key == "dropout":
            wanted |= dict.fromkeys(_DROPOUTS, float(value))
        elif key == "corpus":
            name, fraction = {"base": ("wiki_books", 0.5), "more": ("wiki_books_more", 1.0)}[value]
            paper = setting(config, "scale.name") == "paper"
            wanted |= {"data.name": name} if paper else {"data.fraction": fraction}
        elif key not in TERMS:
            wanted[_FIELDS.get(key, key)] = value
    if any(path in terms for path in SHAPE):  # a shape given outright is relative to no base model
        wanted["model.base"] = None
    return wanted


def _imported(config: dict[str, Any]) -> bool:
    """Whether another program trained it: then it is no arm of ours, whatever its shape."""
    return setting(config, "scale.name") == "imported"


#: Groups in which an option is told by one setting.
_FIELDS = {**{axis.group: axis.path for axis in AXES}, "budget": "budget.unit"}


def _same(path: str, found: Any, value: Any) -> bool:
    if found is None:  # a run of before there was the setting
        found = BEFORE.get(path)
    if isinstance(value, (int, float)) and isinstance(found, (int, float)):
        return float(found) == float(value)
    return bool(found == value)


def _alike(members: Mapping[Any, _Member]) -> list[Any]:
    """The runs of one arm that have the settings alike which only other arms say: of most finished ones, the latest.

    A run that has no tokens yet is of those whose settings it has.
    """
    groups: dict[tuple[str, str | None], list[Any]] = {}
    for place, member in members.items():
        groups.setdefault(member.within, []).append(place)
    if not groups:
        return []

    def rank(key: tuple[str, str | None]) -> tuple[int, str]:
        done = [members[place] for place in groups[key] if members[place].finished]
        return len(done), max((str(member.run["updated"]) for member in done), default="")

    best = max(groups, key=rank)
    return [place for key, found in groups.items() for place in found if key in (best, (best[0], None))]


def _best(members: Mapping[str, Mapping[Any, _Member]]) -> tuple[str | None, str]:
    """The set-up with most arms, then most runs, then the latest; why it was taken."""
    score: dict[str, list[Any]] = {}
    for found in members.values():
        arms: set[str] = set()
        for member in found.values():
            entry = score.setdefault(member.setup, [0, 0, ""])
            if member.finished:
                arms.add(member.setup)
                entry[1] += 1
                entry[2] = max(entry[2], str(member.run["updated"]))
        for setup in arms:
            score[setup][0] += 1
    if not score:
        return None, ""
    best = max(score, key=lambda setup: score[setup])
    return best, _reason(score[best], [score[setup] for setup in score if setup != best])


def _left_out(
    members: Mapping[str, Mapping[Any, _Member]], chosen: Mapping[str, pd.DataFrame]
) -> list[tuple[str, _Member]]:
    """Finished runs of the arms that no arm took, each with an arm whose cell it is."""
    taken = {place for frame in chosen.values() for place in frame.index}
    found: dict[Any, tuple[str, _Member]] = {}
    for name, runs in members.items():
        for place, member in runs.items():
            if member.finished and place not in taken:
                found.setdefault(place, (name, member))
    return [found[place] for place in sorted(found)]


def _told(
    left: Sequence[tuple[str, _Member]], chosen: Mapping[str, pd.DataFrame], own: Mapping[str, Settings]
) -> dict[str, str]:
    """Setting -> its value in the set-up that was taken and in those that were not."""
    found: dict[str, str] = {}
    for name in dict.fromkeys(name for name, _ in left):
        others = [member.run for arm, member in left if arm == name]
        taken = chosen[name] if len(chosen[name]) else next((f for f in chosen.values() if len(f)), chosen[name])
        if len(taken):
            free = (*own[name], *(() if taken is chosen[name] else {k for one in own.values() for k in one}))
            found = differences(taken.iloc[0].to_dict(), others, tuple(free)) | found
    return found


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


def _why(runs: pd.DataFrame) -> str:
    """Why an arm has no finished run."""
    if not len(runs):
        return NO_RUN
    run = runs.sort_values("updated").iloc[-1]
    return f"{run['state']}: {run['note']}" if run["note"] else str(run["state"])
