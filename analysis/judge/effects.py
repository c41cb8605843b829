"""The table of a sweep: every arm, its difference from the reference arm, and the interactions of the swept settings.

An interaction is a difference of differences. For sharing and depth it is how much more (or less) sharing changes the
score at six layers than at three. Differences and interactions are paired by seed, and p values are corrected by
Holm's method over all of one sweep's.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import pandas as pd

from albert_ablate.config.labels import TUNED, is_read, joined, key_name, rank, settings_of, shown_value, varying
from albert_ablate.sweeping.definition import sweep_names

from ..read import cautions
from ..read.arms import settings_of_arms
from ..read.seeds import Seeds
from ..read.sweeps import Group
from . import prompted_scores
from .metrics import (
    BITS_PER_BYTE,
    CONTEXT_GAIN,
    LATENCY,
    METRICS,
    ONNX_LATENCY,
    REPLACED,
    SENTENCE_SCORES,
    SETTINGS,
    TINYBERTS,
    measured_apart,
    metric,
    resolution,
    summarised,
    tasks_of,
    unfit,
    values,
    within,
)
from .numbers import DASH
from .statistics import ALPHA, Estimate, estimate, p_two_sided, seeds_needed
from .students import same_size, students_of
from .tables import Comparison, Entry, Row, Table, corrected, of_same_runs

_SCORES = ("MLM loss", "MLM", BITS_PER_BYTE, CONTEXT_GAIN, *SENTENCE_SCORES, REPLACED, "Avg", "GLUE")
_TIMES = ("inference", LATENCY, ONNX_LATENCY, "seconds")
_COST = ("params", *_TIMES)


@dataclass(frozen=True)
class Effect:
    """A difference between two arms, or an interaction of two settings."""

    name: str  # ``not shared``, ``share × layers``
    against: str  # label of the reference arm; empty for an interaction
    factors: Mapping[str, float]  # row of an arm -> its factor in the sum
    comparison: Comparison
    matched: bool = False  # a student against a model of its size that learned without a teacher


@dataclass(frozen=True)
class SweepTable:
    """The arms of one sweep with their scores, and the effects of what it varies."""

    title: str
    table: Table
    effects: tuple[Effect, ...]
    reference: str  # label of the reference arm; empty with one arm
    students: Table | None = None  # what the students keep of their teachers' scores, and what they cost
    of_user: bool = True  # whether the runs belong to a recorded sweep that is not one of the shipped ones
    words: tuple[str, ...] = ()  # of the command line that started it
    seeds: tuple[int, ...] = ()  # of its runs

    @property
    def matched(self) -> list[Effect]:
        """Students against models of their size that learned without a teacher, for every score."""
        return [effect for effect in self.effects if effect.matched]

    @property
    def seeds_needed(self) -> int | None:
        """Seeds that would settle the first undecided effect, as large as it looks now; None for more than 1,000."""
        judged = [effect.comparison for effect in self.effects if effect.comparison.judged]
        needed = [
            max(count, c.difference.n + 1)
            for c in judged
            if c.verdict != "differs"
            and (count := seeds_needed(c.difference.mean, c.difference.spread, ALPHA / len(judged))) is not None
        ]
        return min(needed, default=None)

    @property
    def interactions(self) -> list[Effect]:
        """The interactions, for every score."""
        return [effect for effect in self.effects if not effect.against]


def contrast(
    arms: Mapping[str, pd.DataFrame], factors: Mapping[str, float], key: str, constant: float = 0.0
) -> Estimate | None:
    """``constant`` and the sum over arms of factor × metric, in printed units, over the seeds that every arm has.

    Its interval is bounded by the bounds of the metric, and its spread is at least the error of one run's score. None
    where no seed has a score in every arm. Raises ValueError where an arm has a seed twice.
    """
    spec = metric(key)
    wide = pd.DataFrame({name: values(arms[name], key) * spec.scale for name in factors}).dropna()
    if not len(wide):
        return None
    low, high = within(key, *(arms[name] for name in factors))
    ends = [sorted((factor * low, factor * high)) for factor in factors.values()]
    bounds = (sum((end[0] for end in ends), constant), sum((end[1] for end in ends), constant))
    floor = max(abs(factor) * resolution(arms[name], key) for name, factor in factors.items())
    sums = wide.mul(pd.Series(factors)).sum(axis=1).rename_axis("seed") + constant
    return estimate(sums, bounds, floor, spec.exact)


def build_sweep(group: Group, number: int, survivors: bool = False) -> SweepTable:
    """The table and the effects of a group of runs; ``number`` makes its names unique in a report, from 1.

    ``survivors``: judge arms with a diverged seed by their remaining seeds.
    """
    runs = group.runs
    keys = varying(settings_of_arms(runs))
    arms = _ordered(group, keys)
    frames = {f"sweep{number}.{place}": frame for place, frame in enumerate(arms, 1)}
    labels = {arm: str(frame["arm"].iloc[0]) for arm, frame in frames.items()}
    seeds = {arm: group.selection.seeds.get(labels[arm], Seeds(())) for arm in frames}
    columns = _columns(runs)
    rows = tuple(_row(arm, frame, keys, columns, seeds[arm]) for arm, frame in frames.items())
    selection = replace(group.selection, runs=frames, seeds=seeds)
    scores = [key for column in columns for key in column if key not in _COST]
    doubts = {} if survivors else {arm: known.doubt for arm, known in seeds.items() if known.doubt}
    pairs = same_size(frames, keys)
    effects = [*_differences(frames, labels, scores, doubts, pairs), *_interactions(frames, keys, scores, doubts)]
    judged = corrected([effect.comparison for effect in effects])
    effects = [replace(effect, comparison=c) for effect, c in zip(effects, judged, strict=True)]
    title = group.title or " × ".join(key_name(key, keys) for key in keys) or group.name
    table = Table(
        f"sweep{number}-{_slug(group.name)}", 0, title, tuple(key_name(key, keys) for key in keys) or ("arm",), columns,
        rows, selection=selection, notes=tuple(_notes(group, seeds, labels)),
    )  # fmt: skip
    reference = next(iter(labels.values())) if len(labels) > 1 else ""
    about = students_of(table, frames, keys)
    return SweepTable(
        title, table, tuple(effects), reference, about, bool(group.listed) and group.name not in sweep_names(),
        group.words, tuple(sorted({int(seed) for seed in runs["seed"]})),
    )  # fmt: skip


def _slug(name: str) -> str:
    return "".join(character if character.isalnum() else "-" for character in name)[:60]


def _ordered(group: Group, keys: Sequence[str]) -> list[pd.DataFrame]:
    """The runs of each arm: the reference arm, then the others in the order of the sweep, then by their values."""
    listed = {run: place for place, run in enumerate(group.listed)}

    def order(frame: pd.DataFrame) -> tuple[bool, int, list[tuple[float, str]]]:
        place = min((listed.get(run, len(listed)) for run in frame["run"]), default=0)
        return not group.is_reference(frame), place, [rank(key, _value(frame, key)) for key in keys]

    return sorted((frame for _, frame in group.runs.groupby("arm", sort=False)), key=order)


def _value(frame: pd.DataFrame, key: str) -> Any:
    return settings_of(frame["config"].iloc[0]).get(key)


def _columns(runs: pd.DataFrame) -> tuple[tuple[str, ...], ...]:
    """Parameters, every score that a run has, and the training time."""
    tasks = tasks_of(runs)
    printed = [name for name, spec in METRICS.items() if spec.task in tasks and name not in TINYBERTS]
    others = [f"task:{task}" for task in tasks if not any(METRICS[name].task == task for name in printed)]
    prompts = prompted_scores.keys_of(runs.to_dict("records"))
    keys = ["params", *_SCORES, *prompts, *printed, *others, *_TIMES]
    return tuple((key,) for key in keys if len(values(runs, key)))


def _row(
    arm: str, frame: pd.DataFrame, keys: Sequence[str], columns: Sequence[tuple[str, ...]], seeds: Seeds
) -> Row:  # fmt: skip
    cells = tuple((_entry(frame, key, seeds),) for (key,) in columns)
    settings = settings_of(frame["config"].iloc[0])
    labels = tuple(shown_value(key, settings) if is_read(key, settings) else DASH for key in keys)
    labels = labels or (str(frame["arm"].iloc[0]),)
    tuned = frame["config"].iloc[0].get(TUNED)
    kind = "" if tuned is None else json.dumps(tuned, sort_keys=True)
    return Row(arm, labels, cells, tuple(frame["run"]), len(frame), len(seeds.planned), kind)


def _entry(frame: pd.DataFrame, key: str, seeds: Seeds) -> Entry:
    measured = summarised(frame, key)
    if measured is None:
        return Entry(key, None, None, "not measured")
    return Entry(key, measured, None, mark=unfit(frame, key) or (None if measured.exact else seeds.doubt))


def _differences(
    frames: Mapping[str, pd.DataFrame],
    labels: Mapping[str, str],
    scores: Sequence[str],
    doubts: Mapping[str, str],
    matched: Sequence[tuple[str, str]] = (),
) -> list[Effect]:
    """The pairs ``matched``, then every arm against the first one, where these two are no such pair."""
    reference, *others = frames
    pairs = [*matched, *((a, reference) for a in others if not {(a, reference), (reference, a)} & set(matched))]
    return [
        Effect(labels[arm], labels[against], factors, compared, (arm, against) in matched)
        for arm, against in pairs
        for key in scores
        if (compared := _comparison(frames, factors := {arm: 1.0, against: -1.0}, key, doubts)) is not None
    ]


def _interactions(
    frames: Mapping[str, pd.DataFrame], keys: Sequence[str], scores: Sequence[str], doubts: Mapping[str, str]
) -> list[Effect]:
    """For every two settings and every value but the reference's: the difference of differences.

    The other settings have the reference's values. Left out where one of the four arms has no run.
    """
    points = {tuple(repr(_value(frame, key)) for key in keys): arm for arm, frame in frames.items()}
    origin = next(iter(points))
    effects = []
    for first, second in combinations(range(len(keys)), 2):
        levels = [list(dict.fromkeys(p[axis] for p in points if p[axis] != origin[axis])) for axis in (first, second)]
        for a, b in ((a, b) for a in levels[0] for b in levels[1]):
            corners = [
                (a, b, 1.0),
                (a, origin[second], -1.0),
                (origin[first], b, -1.0),
                (origin[first], origin[second], 1.0),
            ]
            arms = [(points.get(_moved(origin, {first: x, second: y})), factor) for x, y, factor in corners]
            factors = {arm: factor for arm, factor in arms if arm is not None}
            if len(factors) < len(corners):
                continue
            pair = (keys[first], keys[second])
            name = " × ".join(key_name(key, keys) for key in pair)
            if max(map(len, levels)) > 1:
                name += f" ({joined(frames[next(iter(factors))]['config'].iloc[0], pair)})"
            for key in scores:
                compared = _comparison(frames, factors, key, doubts)
                effects += [] if compared is None else [Effect(name, "", factors, compared)]
    return effects


def _moved(origin: Sequence[str], changes: Mapping[int, str]) -> tuple[str, ...]:
    return tuple(changes.get(place, value) for place, value in enumerate(origin))


def _comparison(
    frames: Mapping[str, pd.DataFrame], factors: Mapping[str, float], key: str, doubts: Mapping[str, str]
) -> Comparison | None:
    if of_same_runs(frames, factors, key):
        return None
    difference = contrast(frames, factors, key)
    if difference is None:
        return None
    first, *others = factors
    mark = next((mark for arm in factors if (mark := unfit(frames[arm], key))), None)
    doubt = next((doubts[arm] for arm in factors if arm in doubts), None)
    p = p_two_sided(difference)
    return Comparison(first, others[0], key, difference, None, p, mark=mark, doubt=doubt)


def _notes(group: Group, seeds: Mapping[str, Seeds], labels: Mapping[str, str]) -> list[str]:
    notes = [f"{labels[arm]}: {known.description()}." for arm, known in seeds.items() if known.lost]
    if group.reference and not group.reference & set(group.runs["run"]):
        notes.append("The reference arm of the sweep file has no finished run in this set-up; the first arm stands in.")
    selection = group.selection
    alike = {key: measured_apart(group.runs, key=key) for key in SETTINGS}
    notes += [f"Do not compare times of {key}: {apart}." for key, apart in alike.items() if apart]
    for key in (LATENCY, ONNX_LATENCY):
        if not alike[key] and len(how := group.runs[SETTINGS[key]].dropna()):
            notes.append(f"{metric(key).label[:1].upper()}{metric(key).label[1:]}: {how.iloc[0]}.")
    if selection.left_out:
        notes.append(cautions.left_out(selection))
    return [*notes, *cautions.code(group.runs), *selection.tasks]
