"""Which runs belong to which arm: matches the cells of a sweep file with run folders.

Arms are compared only within one set-up: every setting that changes the numbers is equal (``setups.py``), except
those that the terms of the arms set. Where runs of several set-ups fit the same arms, the set-up with most runs is
taken and the others are named. A seed without numbers is always reported.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cache
from typing import Any

import pandas as pd

from albert_ablate.axes import AXES, MethodName
from albert_ablate.config.identity import UNSAID
from albert_ablate.config.labels import PARENT
from albert_ablate.config.schema import CONF
from albert_ablate.sweeping.relative import EMBEDDING, TERMS, embedding_of, shape_of

from .arms import APART, full_names
from .planted import fits, natural
from .records import parse_yaml
from .runs import setting
from .seeds import Seeds, missing_too, numberless, seeds_of
from .setups import BEFORE, SHAPE, Settings, differences, keys, opened, settings_of_run, within_arm
from .task_setups import one_setup_each
from .tunings import chosen as tunings_of
from .tunings import free as free_tunings
from .tunings import of_arms, open_between, without

#: Settings that the term ``dropout`` of a sweep file sets.
_DROPOUTS = ("model.hidden_dropout", "model.attention_dropout")

#: Settings that name a student's teacher: which one it is, terms do not say.
_TEACHERS = ("method.teacher", "method.teacher_run")

Terms = Mapping[str, Any]
#: Why an arm has no number, where no run is its cell.
NO_RUN = "no run of this cell"


@dataclass(frozen=True)
class Selection:
    """The runs of some arms in one set-up."""

    runs: dict[str, pd.DataFrame]  # arm -> its finished runs, one row for each seed
    waiting: dict[str, str] = field(default_factory=dict)  # arm without finished runs -> why
    seeds: dict[str, Seeds] = field(default_factory=dict)  # arm with runs -> its seeds, with and without numbers
    left_out: int = 0  # finished runs of these arms in other set-ups
    differs: dict[str, str] = field(default_factory=dict)  # setting -> its values in this and the other set-ups
    other_setups: int = 0  # how many set-ups the runs that were left out belong to
    taken: str = ""  # why this set-up was taken
    tasks: tuple[str, ...] = ()  # sentences about fine-tunings that were left out

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
    within: tuple[str, str | None] = ("", None)  # settings and tokens that only other arms set (``within_arm``)


def select(runs: pd.DataFrame, arms: Mapping[str, Terms]) -> Selection:
    """The runs of ``arms`` (name -> terms of a sweep file, or settings) in the set-up with most arms, then runs.

    Arms that differ in fine-tuning have the same runs with other fine-tunings (``tunings``).
    """
    tunings = of_arms(arms)
    arms = {name: without(terms) for name, terms in arms.items()}
    runs = runs[(runs["state"] != "copy") & runs["seed"].notna()]
    finished = (runs["state"] == "finished") & ~numberless(runs)
    done = set(runs.index[finished])
    members: dict[str, dict[Any, _Member]] = {name: {} for name in arms}
    arm_settings: dict[str, Settings] = {name: {} for name in arms}
    settings: dict[Any, Settings] = {}
    for index, run in runs.to_dict("index").items():
        for name, terms in arms.items():
            wanted = _cell(run, terms)
            if wanted is not None:
                settings.setdefault(index, _at_full_compute(settings_of_run(run), terms))
                members[name][index] = _Member(run, settings[index], index in done)
                arm_settings[name] = wanted
    free = opened([arm_settings[name] for name, arm_members in members.items() if arm_members])
    setups = keys(runs.loc[list(settings)], settings, free)
    for name, arm_members in members.items():
        for index, member in arm_members.items():
            within = within_arm(member.run, member.settings, free, tuple(arm_settings[name]))
            arm_members[index] = replace(member, setup=setups[index], within=within)
    best, why = _best(members)
    chosen, waiting, seeds = {}, {}, {}
    for name, arm_members in members.items():
        taken = {
            index
            for stricter in arms
            if set(arm_settings[stricter]) > set(arm_settings[name])
            for index in members[stricter]
        }
        in_setup = {
            index: member for index, member in arm_members.items() if member.setup == best and index not in taken
        }
        frame = runs.loc[_alike(in_setup)]
        finished_runs = frame[finished[frame.index]]
        chosen[name] = finished_runs.sort_values("updated").drop_duplicates("seed", keep="last").sort_values("seed")
        if len(frame):
            seeds[name] = seeds_of(frame)
        if not len(finished_runs):
            waiting[name] = _why_waiting(frame)
    left = _left_out(members, chosen)
    differs = _set_apart(left, chosen, arm_settings)
    setups_left = {(member.setup, member.within[0]) for _, member in left}
    kept, task_notes = one_setup_each(_tuned(chosen, tunings), free_tunings(tunings))
    return Selection(kept, waiting, missing_too(seeds), len(left), differs, len(setups_left), why, task_notes)


def _tuned(chosen: Mapping[str, pd.DataFrame], tunings: Mapping[str, Mapping[str, Any]]) -> dict[str, pd.DataFrame]:
    """The runs of each arm with its own fine-tunings, those of one set-up."""
    kept = {}
    for name, frame in chosen.items():
        if tunings[name]:
            own = [tunings_of(tasks, tunings[name]) for tasks in frame["tasks"]]
            frame = one_setup_each({name: frame.assign(tasks=pd.Series(own, index=frame.index, dtype=object))})[0][name]
        kept[name] = frame
    return kept


def main_setup(runs: pd.DataFrame) -> pd.DataFrame:
    """Every finished run of the set-up with most runs, a row for each arm and seed; ``arm`` names the arm."""
    return main_selection(runs).runs["all"]


def main_selection(runs: pd.DataFrame) -> Selection:
    """``main_setup`` as the arm ``all``, and what was left out. ``seeds`` has an entry for each arm in it."""
    return largest(natural(runs))


def largest(
    runs: pd.DataFrame,
    apart: Sequence[str] = APART,
    names: Callable[[pd.DataFrame], Sequence[str]] = full_names,
) -> Selection:
    """``main_selection``, of planted text too.

    ``apart``: the settings in which arms may differ; ``names``: the name of each run's arm.
    """
    trained = [_trained_here(config, hidden) for config, hidden in zip(runs["config"], runs["hidden"], strict=True)]
    runs = runs[(runs["state"] != "copy") & runs["seed"].notna() & pd.Series(trained, index=runs.index, dtype=bool)]
    finished = (runs["state"] == "finished") & ~numberless(runs)
    if not finished.any():
        return Selection({"all": runs[finished].assign(arm=[])})
    rows, done = runs.to_dict("index"), set(runs.index[finished])
    settings = {index: settings_of_run(run) for index, run in rows.items()}
    setups = keys(runs, settings, apart)
    members = {index: _Member(run, settings[index], index in done, setups[index]) for index, run in rows.items()}
    best, why = _best({"all": members})
    in_setup = runs.loc[[index for index in rows if setups[index] == best]]
    in_setup = in_setup.assign(arm=names(in_setup))
    finished_runs = in_setup[finished[in_setup.index]]
    newest = finished_runs.sort_values("updated", kind="stable").drop_duplicates(["arm", "seed"], keep="last")
    chosen = finished_runs.loc[finished_runs.index.isin(newest.index)]
    left = [("all", member) for index, member in members.items() if member.finished and setups[index] != best]
    differs = _set_apart(left, {"all": chosen}, {"all": dict.fromkeys(apart)})
    seeds = missing_too({str(arm): seeds_of(frame) for arm, frame in in_setup.groupby("arm", sort=False)})
    kept, task_notes = one_setup_each({"all": chosen}, open_between(chosen))
    setups_left = {member.setup for _, member in left}
    return Selection(kept, {}, seeds, len(left), differs, len(setups_left), why, task_notes)


def matching(runs: pd.DataFrame, terms: Terms) -> "pd.Series[bool]":
    """Which runs are the cell of ``terms``, in any set-up."""
    matches = [_cell(run, terms) is not None for run in runs.to_dict("records")]
    return pd.Series(matches, index=runs.index, dtype=bool)


def coverage(runs: pd.DataFrame, terms: Terms) -> list[str]:
    """``embed.size=16: 0 runs, nearest: 32`` for every setting of a cell that some runs lack, the rarest first."""
    counts: dict[tuple[str, str], int] = {}
    recorded: dict[tuple[str, str], set[str]] = {}
    comparable = [run for run in runs.to_dict("records") if _comparable(run["config"], run["hidden"], terms)]
    for run in comparable:
        for path, value in _wanted(run, terms).items():
            key, known = (path, str(value)), setting(run["config"], path)
            counts[key] = counts.get(key, 0) + _same(path, known, value)
            recorded.setdefault(key, set()).update([] if known is None else [str(known)])
    lacking = sorted((key for key, count in counts.items() if count < len(comparable)), key=lambda key: counts[key])
    return [
        f"{path}={value}: {counts[path, value]} run{'' if counts[path, value] == 1 else 's'}"
        + ("" if counts[path, value] else _nearest(value, sorted(recorded[path, value])))
        for path, value in lacking
    ]


def _nearest(value: str, known: Sequence[str]) -> str:
    """``, nearest: 32``: the recorded value that is most like ``value``; empty where none is known."""
    try:
        wanted = float(value)
        near = sorted(known, key=lambda other: abs(float(other) - wanted))[:1]
    except ValueError:
        near = difflib.get_close_matches(value, known, n=1, cutoff=0.0)
    return f", nearest: {near[0]}" if near else ""


def _cell(run: Mapping[Any, Any], terms: Terms) -> Settings | None:
    """The settings that ``terms`` set, if the run has all of them; else None."""
    if not _comparable(run["config"], run["hidden"], terms):
        return None
    wanted = _wanted(run, terms)
    alike = all(_same(path, setting(run["config"], path), value) for path, value in wanted.items())
    return wanted if alike else None


def _at_full_compute(settings: Settings, terms: Terms) -> Settings:
    """``settings``; where the terms say a part of the FLOPs, with the whole: arms of one sweep have one set-up."""
    flops = settings.get("budget.flops")
    if "compute" not in terms or flops is None:
        return settings
    return {**settings, "budget.flops": float(f"{flops / Fraction(str(terms['compute'])):.4g}")}


def _comparable(config: dict[str, Any], hidden: Any, terms: Terms) -> bool:
    return _trained_here(config, hidden) and fits(config, terms)


def _trained_here(config: dict[str, Any], hidden: Any) -> bool:
    """Whether a run has settings and was not imported: an imported model is never an arm."""
    return bool(config) and not pd.isna(hidden) and not _imported(config)


def _wanted(run: Mapping[Any, Any], terms: Terms) -> Settings:
    """The settings that a run with this base model has if it is the cell of ``terms``."""
    config = run["config"]
    head = int(run["hidden"]) // config["model"].get("heads", 1)
    base_hidden, base_layers = int(run["base_hidden"]), int(run["base_layers"])
    shape = shape_of(dict(terms), base_hidden, base_layers, head)
    wanted: dict[str, Any] = {"model.hidden": shape.hidden, "model.layers": shape.layers}
    wanted |= {**UNSAID, **_brought(terms), "warm_start.layers": list(shape.after)}
    if "method" in terms and MethodName(terms["method"]).distils:
        wanted = {k: v for k, v in wanted.items() if k not in _TEACHERS}
    if terms.get("init.weights") == "parent":  # terms do not say which run is the parent
        del wanted[PARENT]
    for key, value in terms.items():
        if key == "embedding":
            arm_hidden = terms.get("model.hidden", shape.hidden)
            wanted[EMBEDDING] = embedding_of(str(value), base_hidden, arm_hidden)
        elif key == "dropout":
            wanted |= dict.fromkeys(_DROPOUTS, float(value))
        elif key == "corpus":
            name, fraction = {"base": ("wiki_books", 0.5), "more": ("wiki_books_more", 1.0)}[value]
            paper = setting(config, "scale.name") == "paper"
            wanted |= {"data.name": name} if paper else {"data.fraction": fraction}
        elif key not in TERMS:
            wanted[_FIELDS.get(key, key)] = value
    if any(path in terms for path in SHAPE):  # an absolute shape has no base model
        wanted["model.base"] = None
    return wanted


def _brought(terms: Terms) -> Settings:
    """Unsaid settings to which the options in ``terms`` give other values, as method=causal has no token types."""
    brought: Settings = {}
    for axis in AXES:
        option = terms.get(axis.group, terms.get(axis.path))
        brought |= {path: value for path, value in _option(axis.group, option).items() if path in UNSAID}
    return brought


@cache
def _option(group: str, option: Any) -> Settings:
    """The settings of an option's file in ``conf``; empty if it has none."""
    file = CONF / group / f"{option}.yaml"
    content = parse_yaml(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return {f"{group}.{key}": value for key, value in content.items()}


def _imported(config: dict[str, Any]) -> bool:
    """Whether the run was imported from another program."""
    return setting(config, "scale.name") == "imported"


#: Group -> the setting that identifies the chosen option.
_FIELDS = {**{axis.group: axis.path for axis in AXES}, "budget": "budget.unit"}


def _same(path: str, recorded: Any, value: Any) -> bool:
    if recorded is None:  # the run is older than the setting
        recorded = BEFORE.get(path)
    if isinstance(value, (int, float)) and isinstance(recorded, (int, float)):
        return float(recorded) == float(value)
    return bool(recorded == value)


def _alike(members: Mapping[Any, _Member]) -> list[Any]:
    """The runs of one arm that agree in the settings that only other arms set.

    Of several groups the one with most finished runs is taken, then the latest. A run without tokens yet joins
    the group with its settings.
    """
    groups: dict[tuple[str, str | None], list[Any]] = {}
    for index, member in members.items():
        groups.setdefault(member.within, []).append(index)
    if not groups:
        return []

    def rank(key: tuple[str, str | None]) -> tuple[int, str]:
        done = [members[index] for index in groups[key] if members[index].finished]
        return len(done), max((str(member.run["updated"]) for member in done), default="")

    best = max(groups, key=rank)
    return [index for key, indices in groups.items() for index in indices if key in (best, (best[0], None))]


def _best(members: Mapping[str, Mapping[Any, _Member]]) -> tuple[str | None, str]:
    """The set-up with most arms, then most runs, then the latest run; and why it was taken."""
    score: dict[str, list[Any]] = {}
    for arm_members in members.values():
        arms: set[str] = set()
        for member in arm_members.values():
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
    """Finished runs of the arms that were not chosen, each with an arm whose cell it is."""
    taken = {index for frame in chosen.values() for index in frame.index}
    unused: dict[Any, tuple[str, _Member]] = {}
    for name, runs in members.items():
        for index, member in runs.items():
            if member.finished and index not in taken:
                unused.setdefault(index, (name, member))
    return [unused[index] for index in sorted(unused)]


def _set_apart(
    left: Sequence[tuple[str, _Member]], chosen: Mapping[str, pd.DataFrame], arm_settings: Mapping[str, Settings]
) -> dict[str, str]:
    """Setting -> its value in the chosen set-up and in the others."""
    values: dict[str, str] = {}
    for name in dict.fromkeys(name for name, _ in left):
        others = [member.run for arm, member in left if arm == name]
        taken = chosen[name] if len(chosen[name]) else next((f for f in chosen.values() if len(f)), chosen[name])
        if len(taken):
            free = (
                *arm_settings[name],
                *(() if taken is chosen[name] else {k for settings in arm_settings.values() for k in settings}),
            )
            values = differences(taken.iloc[0].to_dict(), others, tuple(free)) | values
    return values


def _reason(best: list[Any], others: list[list[Any]]) -> str:
    """Why the best of several set-ups was taken; each is (arms, runs, time of the last run)."""
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


def _why_waiting(runs: pd.DataFrame) -> str:
    """Why an arm has no finished run."""
    if not len(runs):
        return NO_RUN
    run = runs.sort_values("updated").iloc[-1]
    return f"{run['state']}: {run['note']}" if run["note"] else str(run["state"])
