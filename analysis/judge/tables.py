"""The paper's tables filled from run folders: our numbers, the paper's, and differences between arms.

The arms of a table are the cells of the sweep file with its name, in the order of the paper's rows. This
module computes the numbers; ``render.py`` writes them as Markdown, LaTeX, CSV and HTML.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import pandas as pd

from albert_ablate.axes import AXES
from albert_ablate.sweeping.definition import rows as sweep_rows

from ..read import cautions, paper
from ..read.cells import Selection, select
from ..read.seeds import Seeds, of_planned
from .metrics import (
    FOUR,
    METRICS,
    REPLACED,
    SENTENCE_SCORES,
    SPEEDS,
    is_of_fine_tuning,
    metric,
    resolution,
    summarised,
    tasks_of,
    unfit,
    values,
    within,
)
from .statistics import ALPHA, Estimate, estimate, holm, p_two_sided, paired

#: Tables filled by training -> for each row, the index of the row that it is compared with (None: no comparison).
REFERENCES: dict[str, tuple[int | None, ...]] = {
    "table2": (1, None, 1, 1, 1, 1),
    "table3": (3, 3, 3, None, 7, 7, 7, None),
    "table4": (3, 3, 3, None, 7, 7, 7, None),
    "table5": (None, 0, 1),
    "table6": (None, 0),
    "table7": (None, 0),
    "table8": (None, 0),
    "table11": (None, 0, 1, 2, 3, 4),
    "table12": (None, 0, 1, 2),
    "table13": (None, 0),
    "electra_table5": (None, 0, 1, 4, 0),
    "electra_generators": (2, 2, None, 2, 2),
    "electra_two_stage": (None, 0, 1),
    "electra_tying": (None, 0, 1),
    "distilbert": (None, 0, 0, 1, 2),
    "distilbert_table4": (None, 0, 1, 2, 2, 2, 2, 2),
    "tinybert_table2": (None, 0, 1, 1, 1),
    "tinybert_table3": (None, 0, 0, 0, 0, 0),
    "tinybert_table4": (None, 0, 0),
    "tinybert_table7": (None, 0, 1),
    "mobilebert_table2": (None, 0, 1, 2, 3, 2, 5, 6, 7),
    "mobilebert_table3": (2, 2, None, 2),
    "mobilebert_table_operational": (None, 0, 0, 0, 0, 4),
    "mobilebert_table_transfer": (None, 0, 1, 2, 3, 4, 4),
    "bigbird_table1": (None, 0, 0, 0, 0, 0),
    "bigbird_length": (None, 0, 0, 0, 1, 2),
}
_DOWNSTREAM = (
    ("SQuAD1.1_F1", "SQuAD1.1_EM"),
    ("SQuAD2.0_F1", "SQuAD2.0_EM"),
    ("MNLI",),
    ("SST-2",),
    ("RACE",),
    ("Avg",),
)
_OF_GLUE = (("GLUE",), ("MNLI",), ("SST-2",))
#: Downstream columns of the other papers' tables; the other tasks follow where runs are fine-tuned on them.
_DOWNSTREAM_OF = {
    "albert": _DOWNSTREAM,
    "electra": _OF_GLUE,
    "distilbert": _OF_GLUE,
    "tinybert": (("MNLI",), ("MNLI-mm",), ("MRPC",), ("CoLA",), (FOUR,)),
    "mobilebert": (("GLUE",), ("MNLI",), ("task:qnli",), ("SST-2",), ("SQuAD1.1_F1",)),
    "bigbird": (("SQuAD1.1_F1",), ("MNLI",)),
}
_COST = ("params", "tokens/s")
#: Columns that no arm is best in.
UNRANKED = (*_COST, "speedup")
_SENTENCES = tuple((score,) for score in SENTENCE_SCORES)
_HELD_OUT = (("MLM loss",), ("MLM",), *_SENTENCES)
#: Papers whose tables have methods without masked LM.
_WITHOUT_MLM = ("electra", "tinybert")
#: Columns of the paper that name an arm by a number, which may differ in our runs.
_OURS = (*(axis.name for axis in AXES if not axis.labels), "hidden", "layers")
_NAMES = {
    "not-shared": "not shared", "all-shared": "all shared", "shared-attention": "shared attention",
    "shared-FFN": "shared FFN", "steps_k": "steps, thousands", "time_h": "hours", "SP_task": "sentence task",
    "hidden": "H", "layers": "L",
}  # fmt: skip


#: Why a mean over tasks is missing.
_NEEDED = {"Avg": "needs all five tasks", "GLUE": "needs eight tasks of GLUE", FOUR: "needs MNLI, MRPC and CoLA"}


@dataclass(frozen=True)
class Entry:
    """One number: ours over seeds and the paper's."""

    metric: str
    ours: Estimate | None
    paper: float | None
    reason: str | None = None  # why our number is missing
    mark: str | None = None  # why it must not be compared


@dataclass(frozen=True)
class Row:
    """One arm."""

    arm: str
    labels: tuple[str, ...]
    cells: tuple[tuple[Entry, ...], ...]  # a cell shows one number or two (F1 and EM)
    runs: tuple[str, ...]
    seeds: int
    planned: int = 0  # seeds, with and without numbers
    tuned: str = ""  # its kind of fine-tuning as JSON, where arms of a sweep differ in that

    @property
    def counted(self) -> str:
        """``3``, or ``2 of 3`` where a seed has no numbers."""
        return of_planned(self.seeds, self.planned)


@dataclass(frozen=True)
class Comparison:
    """The difference between an arm and its reference arm, paired by seed."""

    arm: str
    reference: str
    metric: str
    difference: Estimate
    paper: float | None  # the paper's difference
    p: float
    adjusted: float = 1.0  # Holm, over the comparisons of the table
    mark: str | None = None  # why an arm must not be compared
    doubt: str | None = None  # why the remaining seeds are not judged

    @property
    def judged(self) -> bool:
        """Whether it is compared: both arms are fit for it, and there are two seeds."""
        return self.mark is None and self.doubt is None and self.difference.n > 1

    @property
    def verdict(self) -> str:
        """``differs``, ``within noise``, ``not after correction``, or why it is not judged."""
        if self.mark is not None:
            return "speed disturbed" if self.metric in SPEEDS else "below its baseline"
        if self.doubt is not None:
            return self.doubt
        if self.difference.n < 2:
            return "one seed"
        if not self.difference.excludes_zero:
            return "within noise"
        return "differs" if self.adjusted < ALPHA else "not after correction"


@dataclass(frozen=True)
class Table:
    """A table of the paper, filled with numbers of runs."""

    name: str
    number: int
    title: str
    label_columns: tuple[str, ...]
    columns: tuple[tuple[str, ...], ...]
    rows: tuple[Row, ...]
    comparisons: tuple[Comparison, ...] = ()
    selection: Selection = field(default_factory=lambda: Selection({}))
    deviations: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    called: str = "Arms"  # the heading of a table of a sweep

    @property
    def heading(self) -> str:
        """``Table 3`` or ``ELECTRA, Table 5``; what a table of a sweep is called."""
        return paper.heading(self.name) if self.number else self.called

    @property
    def filled(self) -> bool:
        """Whether at least two of its arms have runs."""
        return sum(bool(row.runs) for row in self.rows) > 1


@cache  # callers do not modify the cells
def arms_of(name: str) -> dict[str, dict[str, Any]]:
    """Arm (``table3.1``, ``table3.2``, …) -> terms of its cell, for a table or figure, in the paper's order."""
    return {f"{name}.{number}": dict(row.terms) for number, row in enumerate(sweep_rows([name]), 1)}


def build(runs: pd.DataFrame, name: str, survivors: bool = False) -> Table:
    """The table ``name``, a key of ``REFERENCES``, from ``runs``.

    ``survivors``: compare arms even if one of their seeds diverged. Raises KeyError for a table that is not filled
    by training.
    """
    printed, references = paper.table(name), REFERENCES[name]
    arms = arms_of(name)
    selection = select(runs, arms)
    selected = pd.concat(selection.runs.values()) if selection.names() else runs.iloc[:0]
    columns = _columns(selected, name)
    labels = [c["name"] for c in printed["columns"] if not _is_score(c["name"])]
    unit = _unit_of_speed(name, selection, list(arms))
    rows = []
    for arm, paper_row in zip(arms, printed["rows"], strict=True):
        frame = selection.runs[arm]
        reason = selection.waiting.get(arm)
        shown = tuple(_label(column, paper_row[column], frame) for column in labels)
        cells = tuple(tuple(_entry(frame, paper_row, key, reason, unit) for key in column) for column in columns)
        seeds = selection.seeds.get(arm, Seeds(()))
        if seeds.doubt:
            cells = tuple(tuple(_doubted(entry, seeds.doubt) for entry in column) for column in cells)
        rows.append(Row(arm, shown, cells, tuple(frame["run"]), len(frame), len(seeds.planned)))
    doubts = {} if survivors else {arm: seeds.doubt for arm, seeds in selection.seeds.items()}
    # Runs record how they differ from ALBERT's set-up, which says nothing about the others'.
    recorded = deviations(selected) if paper.of_albert(name) else []
    notes = [*_notes(selection, rows), *([printed["note"]] if not paper.of_albert(name) and selection.names() else [])]
    compared = corrected(_comparisons(list(arms), references, selection, columns, printed["rows"], doubts))
    return Table(
        name, printed["number_v6"], printed["title"].rstrip("."), tuple(_NAMES.get(c, c) for c in labels), columns,
        tuple(rows), compared, selection, tuple(recorded), tuple(notes),
    )  # fmt: skip


def _columns(runs: pd.DataFrame, name: str) -> tuple[tuple[str, ...], ...]:
    """Columns of a table: parameters, downstream and held-out scores (measured ones first), other tasks, speed.

    ELECTRA's and TinyBERT's tables have no masked LM: most of their models do not learn it. The replaced-token probe
    has a column only if a run has it: older runs do not.
    """
    family = paper.family(name)
    downstream = _DOWNSTREAM_OF[family]
    held_out = _SENTENCES if family in _WITHOUT_MLM else _HELD_OUT
    if not len(runs):
        return (("params",), *downstream)
    measured = family != "albert" or any(len(values(runs, key)) for column in downstream for key in column)
    held_out = (*held_out, (REPLACED,)) if len(values(runs, REPLACED)) else held_out
    scores = (*downstream, *held_out) if measured else (*held_out, *downstream)
    known = {metric(key).task for column in downstream for key in column}
    others = [(f"task:{task}",) for task in tasks_of(runs) if task not in known]
    return (("params",), *scores, *others, ("tokens/s",), ("speedup",))


def _is_score(column: str) -> bool:
    """Whether a column of the paper is a number of an arm, and not a part of its name."""
    return column in {*METRICS, "speedup", "parameters_M", "Avg"} or column.startswith("task:")


def _label(column: str, paper_value: Any, runs: pd.DataFrame) -> str:
    """The label of a row in a column; where our number differs, ours with the paper's in brackets."""
    shown = _NAMES.get(str(paper_value), str(paper_value))
    if column in ("steps_k", "time_h") and len(runs):
        number = runs["steps"].mean() / 1e3 if column == "steps_k" else runs["seconds"].mean() / 3600
        return f"{number:.3g} [{shown}]"
    if column not in _OURS:
        return shown
    ours = str(runs[column].iloc[0]) if len(runs) else ""
    return shown if ours == shown else f"{ours} [{shown}]".strip()


def _entry(runs: pd.DataFrame, paper_row: Mapping[str, Any], key: str, reason: str | None, unit: pd.DataFrame) -> Entry:
    printed = paper_row.get({"params": "parameters_M"}.get(key, key))
    if key == "speedup":
        if not len(runs) or not len(unit):
            return Entry(key, None, printed, reason or "no run of the row that speed is relative to")
        measured = estimate(values(runs, "tokens/s") / values(unit, "tokens/s").mean(), metric("tokens/s").within)
        return Entry(key, measured, printed, mark=unfit(runs, "tokens/s") or unfit(unit, "tokens/s"))
    measured = summarised(runs, key) if len(runs) else None
    if measured is not None:
        return Entry(key, measured, printed, mark=unfit(runs, key))
    if reason is None:
        tuned = metric(key).task is not None
        reason = "not fine-tuned on this task" if tuned else _NEEDED.get(key, "not measured")
    return Entry(key, None, printed, reason)


def _doubted(entry: Entry, doubt: str) -> Entry:
    """``entry`` marked with ``doubt``, unless it is missing or exact (a parameter count)."""
    return entry if entry.ours is None or entry.ours.exact else replace(entry, mark=entry.mark or doubt)


def _unit_of_speed(name: str, selection: Selection, arms: Sequence[str]) -> pd.DataFrame:
    """Runs of the row that speed-up is relative to: the last row without a reference."""
    references = REFERENCES[name]
    index = max(index for index, reference in enumerate(references) if reference is None)
    return selection.runs[arms[index]]


def _comparisons(
    arms: Sequence[str],
    references: Sequence[int | None],
    selection: Selection,
    columns: Sequence[Sequence[str]],
    printed: Sequence[Mapping[str, Any]],
    doubts: Mapping[str, str | None],
) -> list[Comparison]:
    comparisons = []
    for index, reference in enumerate(references):
        if reference is None:
            continue
        arm_runs, reference_runs = selection.runs[arms[index]], selection.runs[arms[reference]]
        if not len(arm_runs) or not len(reference_runs):
            continue
        factors = {arms[index]: 1.0, arms[reference]: -1.0}
        for key in (key for column in columns for key in column if key not in UNRANKED):
            if of_same_runs(selection.runs, factors, key):
                continue
            difference = compare_arms(arm_runs, reference_runs, key)
            if difference is None:
                continue
            paper_arm, paper_reference = printed[index].get(key), printed[reference].get(key)
            paper_difference = None if paper_arm is None or paper_reference is None else paper_arm - paper_reference
            mark = unfit(arm_runs, key) or unfit(reference_runs, key)
            p = p_two_sided(difference)
            doubt = doubts.get(arms[index]) or doubts.get(arms[reference])
            comparisons.append(
                Comparison(arms[index], arms[reference], key, difference, paper_difference, p, mark=mark, doubt=doubt)
            )
    return comparisons


def corrected(comparisons: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """The comparisons with p values after Holm's correction over those that are judged."""
    judged = [c for c in comparisons if c.mark is None and c.doubt is None and c.difference.n > 1]
    adjusted = dict(zip(map(id, judged), holm([c.p for c in judged]), strict=True))
    return tuple(replace(c, adjusted=adjusted.get(id(c), 1.0)) for c in comparisons)


def of_same_runs(frames: Mapping[str, pd.DataFrame], factors: Mapping[str, float], key: str) -> bool:
    """Whether a sum over arms is 0 by construction: a score of pretraining, where arms differ in fine-tuning alone."""
    if is_of_fine_tuning(key):
        return False
    sums: defaultdict[str, float] = defaultdict(float)
    for arm, factor in factors.items():
        for run in frames[arm]["run"]:
            sums[run] += factor
    return not any(sums.values())


def compare_arms(arm: pd.DataFrame, reference: pd.DataFrame, key: str) -> Estimate | None:
    """``arm - reference`` in printed units, paired by seed; None where no seed has both.

    Its spread has the error of one run's score as a floor. Raises ValueError where an arm has a seed twice.
    """
    spec = metric(key)
    floor = max(resolution(arm, key), resolution(reference, key))
    a, b = values(arm, key) * spec.scale, values(reference, key) * spec.scale
    return paired(a, b, within(key, arm, reference), floor, spec.exact)


def deviations(runs: pd.DataFrame) -> list[str]:
    """``batch.size 64 (4096)`` for every setting in which a run differs from the paper's set-up."""
    by_field: dict[str, tuple[set[str], str]] = {}
    for entries in runs["deviations"]:
        for entry in entries or ():
            ours = by_field.setdefault(entry["field"], (set(), str(entry["paper"])))[0]
            ours.add(str(entry["ours"]))
    hidden = {"model.name", "budget.unit"}
    return [
        f"{name} {'/'.join(sorted(ours))} ({paper_value})"
        for name, (ours, paper_value) in by_field.items()
        if name not in hidden
    ]


def _notes(selection: Selection, rows: Sequence[Row]) -> list[str]:
    names = {row.arm: ", ".join(row.labels) for row in rows}
    notes = [f"{names[arm]}: {seeds.description()}." for arm, seeds in selection.seeds.items() if seeds.lost]
    frames = [frame for frame in selection.runs.values() if len(frame)]
    seeds = {len(frame) for frame in frames}
    if 1 in seeds:
        notes.append("One seed has no interval over seeds: its differences say nothing.")
    if 3 in seeds or 2 in seeds:
        notes.append(
            "With so few seeds no test without an assumption about the distribution reaches p < 0.05; "
            "the intervals assume that differences between seeds are normal."
        )
    if frames:
        notes += cautions.code(pd.concat(frames))
    devices = {device for frame in frames for device in frame["device"].dropna()}
    if len(devices) > 1:
        notes.append("The runs come from several devices; speeds are not comparable.")
    if selection.left_out:
        notes.append(cautions.left_out(selection))
    return [*notes, *selection.tasks]


def configurations(count: Callable[[Mapping[str, Any]], Mapping[str, int]]) -> Table:
    """Table 1. ``count`` returns the parameter counts of a cell at the paper's sizes."""
    printed = paper.table("table1")
    columns = [column["name"] for column in printed["columns"] if column["name"] != "parameters_M"]
    rows = []
    for (arm, terms), paper_row in zip(arms_of("table1").items(), printed["rows"], strict=True):
        labels = tuple({True: "yes", False: "no"}.get(paper_row[name], str(paper_row[name])) for name in columns)
        counted = estimate([count(terms)["with_pooler"] / 1e6])
        rows.append(Row(arm, labels, ((Entry("params", counted, paper_row["parameters_M"]),),), (), 0))
    names = tuple(_NAMES.get(name, name.replace("_", " ")) for name in columns)
    note = "Counted on the configuration at the paper's sizes, with pooler, without the pretraining heads."
    return Table("table1", 1, printed["title"].rstrip("."), names, (("params",),), tuple(rows), notes=(note,))
