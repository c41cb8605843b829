"""Runs side by side: ``python -m analysis.compare runs``; two collections: ``python -m analysis.compare A B``.

One collection: axes, parameters and held-out numbers of every run folder. A single run has no spread over
seeds, so the intervals are those over held-out examples.

Two collections: the change from A to B for every cell that both have, paired by seed; the cells that only one
has; and the settings, other than the axes, in which the two differ.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from albert_ablate.arguments import Parser
from albert_ablate.axes import AXES
from albert_ablate.command_line import program
from albert_ablate.config.labels import flatten, joined, key_name, settings_of, shown_value, varying
from albert_ablate.console import command
from albert_ablate.errors import UserError
from albert_ablate.files import write_text
from albert_ablate.record import formats
from albert_ablate.record.tasks import form

from .judge.metrics import BITS_PER_BYTE, REPLACED, SENTENCE_SCORES, tasks_of, unfit
from .judge.statistics import p_two_sided
from .judge.tables import Comparison, Row, compare_arms, corrected
from .judge.tables import Table as PaperTable
from .read import cautions, heads
from .read.arms import full_names, settings_of_arms
from .read.cells import Selection, main_selection
from .read.places import require_file
from .read.runs import load_runs
from .read.task_setups import apart
from .write import render
from .write.sources import different

_NOTE = """
MLM: held-out nats, ! still on its plateau · ±: 95%, over held-out examples
* head fitted on the frozen encoder\
"""
_TASK_NOTE = """
best: of all checkpoints, chosen on dev itself, median over seeds · to beat: majority · bag of words
where a task has two metrics, all numbers are those of their mean\
"""
_PLANTED = ("achievable", "planted text")
_SCORES = ("MLM loss", "MLM", BITS_PER_BYTE, *SENTENCE_SCORES, REPLACED, "Avg", "tokens/s")


def compare(runs: pd.DataFrame) -> pd.DataFrame:
    """A row of text for each run, sorted by model, axes, budget and seed.

    An unfinished run shows its state; copies are left out.
    """
    runs = runs[runs["state"] != "copy"]
    axes = [axis.name for axis in AXES if any(axis.shown(value) for value in runs[axis.name].dropna())]
    table = runs[["model", *axes]].copy()
    apart = _apart(runs, ["model", *axes, "seed"])
    for key in apart:
        table[key_name(key, apart)] = [shown_value(key, settings_of(config)) for config in runs["config"]]
    planned = [flatten(config).get("budget.steps") for config in runs["config"]]
    steps = [p if pd.isna(d) else int(d) for d, p in zip(runs["steps"], planned, strict=True)]
    table["steps"] = pd.Series(steps, index=table.index, dtype=object)  # a missing one would turn all into floats
    table["seed"] = runs["seed"]
    table["params"] = [_cell(v, lambda n: f"{n / 1e6:.2f}M") for v in runs["params_with_pooler"]]
    numbers = runs[["mlm_loss", "mlm_left_baseline", "state"]].itertuples(index=False)
    table["MLM"] = [_loss(*values) for values in numbers]
    if runs["bits_per_byte"].notna().any():
        numbers = runs[["bits_per_byte", "causal_left_baseline", "state"]].itertuples(index=False)
        table[BITS_PER_BYTE] = [_loss(*values) for values in numbers]
    for score, task in SENTENCE_SCORES.items():
        columns = runs[[task, f"{task}_interval", f"{task}_head"]].itertuples(index=False)
        table[score] = [_accuracy(*values) for values in columns]
    if runs["replaced_auc"].notna().any():
        areas = runs[["replaced_auc", "replaced_interval"]].itertuples(index=False)
        table[REPLACED] = [_accuracy(area, interval, "fitted") for area, interval in areas]
    if runs["planted"].notna().any():
        table["achievable"] = [_achievable(run) for run in runs.to_dict("records")]
        table["planted text"] = runs["planted"].fillna("")
    keys = ["model", *axes, *(key_name(key, apart) for key in apart), "steps", "seed"]
    return table.sort_values(keys, kind="stable").reset_index(drop=True)


def _apart(runs: pd.DataFrame, shown: Sequence[str]) -> list[str]:
    """Settings, other than the steps, in which runs with equal columns ``shown`` differ: full names."""
    known = runs[[bool(config) for config in runs["config"]]]
    alike = [frame for _, frame in known.groupby(list(shown), dropna=False) if len(frame) > 1]
    keys = (key for frame in alike for key in varying(settings_of_arms(frame)) if key != "budget.steps")
    return list(dict.fromkeys(keys))


def compare_tasks(runs: pd.DataFrame) -> pd.DataFrame:
    """A row for each run and fine-tuned task: dev scores of the best and of the last checkpoint, medians over seeds."""
    rows = []
    runs = runs[runs["state"] != "copy"]
    apart = _apart(runs, [*(axis.name for axis in AXES), "seed"])
    for run in runs.to_dict("records"):
        for entry in run["tasks"]:
            low, high = entry["spread"]
            floor: dict[str, float] = next(iter(entry.get("to_beat", {}).values()), {})
            seeds, printed = len(entry["seeds"]), form(entry["metric"]).format
            rows.append(
                {
                    "task": entry["task"],
                    "run": " ".join(filter(None, (_short_name(run), joined(run["config"], apart)))),
                    "start": entry["start"] + formats.suffix((entry.get("recipe") or {}).get("heads", formats.HEADS)),
                    "best": printed(entry["score"]),
                    "seeds": f"{printed(low)} to {printed(high)} ({seeds})" if high > low else str(seeds),
                    "last": printed(entry["last_score"]),
                    "to beat": " · ".join(map(printed, floor.values())),
                }
            )
    table = pd.DataFrame(rows)
    return table.sort_values(["task", "run", "start"], kind="stable").reset_index(drop=True) if rows else table


def changes(before: pd.DataFrame, after: pd.DataFrame) -> tuple[PaperTable, dict[str, list[str]]]:
    """The changes from one collection to another.

    Returns a table with a comparison for each cell and score that both have, with verdicts after Holm's
    correction, and three lists: ``only in A``, ``only in B``, ``settings`` that differ.
    """
    selections = main_selection(after), main_selection(before)
    after_runs, before_runs = _named_alike(*selections)
    both = sorted(set(after_runs["arm"]) & set(before_runs["arm"]))
    scores = (*_SCORES, *(f"task:{name}" for name in sorted(set(tasks_of(after_runs)) & set(tasks_of(before_runs)))))
    comparisons = []
    for arm in both:
        a, b = before_runs[before_runs["arm"] == arm], after_runs[after_runs["arm"] == arm]
        for key in scores:
            difference = compare_arms(b, a, key)
            if difference is not None:
                mark = unfit(a, key) or unfit(b, key)
                doubt = _doubt(selections[1], a, "A") or _doubt(selections[0], b, "B")
                p = p_two_sided(difference)
                comparisons.append(Comparison(arm, "A", key, difference, None, p, mark=mark, doubt=doubt))
    notes = {
        "only in A": sorted(set(before_runs["arm"]) - set(after_runs["arm"])),
        "only in B": sorted(set(after_runs["arm"]) - set(before_runs["arm"])),
        "settings": [
            *different(
                after_runs[after_runs["arm"] == both[0]].iloc[0], before_runs[before_runs["arm"] == both[0]].iloc[0]
            ),
            *apart(after_runs, before_runs),
        ]
        if both
        else [],
    }
    rows = tuple(Row(name, (name,), (), (), 0) for name in (*both, "A"))
    return PaperTable("changes", 0, "From A to B", ("arm",), (), rows, corrected(comparisons)), notes


def _short_name(run: Mapping[Any, Any]) -> str:
    """A run by its axes and seed, as folders are named: ``e32-all-sop-s0``."""
    values = [(axis, run[axis.name]) for axis in AXES]
    return "-".join([*(axis.slug.format(value) for axis, value in values if axis.shown(value)), f"s{run['seed']}"])


def _named_alike(*selections: Selection) -> list[pd.DataFrame]:
    """The runs of both collections, ``arm`` named alike in both; ``selected_arm``: its name in the selection."""
    frames = [selection.runs["all"].assign(selected_arm=selection.runs["all"]["arm"]) for selection in selections]
    together = pd.concat(frames, ignore_index=True)
    names = pd.Series(full_names(together) if len(together) else [], index=together.index, dtype=object)
    split = len(frames[0])
    return [frames[0].assign(arm=names[:split].to_numpy()), frames[1].assign(arm=names[split:].to_numpy())]


def _doubt(selection: Selection, arm: pd.DataFrame, name: str) -> str | None:
    seeds = selection.seeds.get(arm["selected_arm"].iloc[0])
    return f"{name}: {seeds.doubt}" if seeds is not None and seeds.doubt else None


def _cell(value: Any, form: Any) -> str:
    return "—" if pd.isna(value) else form(value)


def _achievable(run: dict[Any, Any]) -> str:
    """The achievable scores, ``MLM 1.103, NSP 97.8%, SOP 94.7%``; empty where the corpus does not know them."""
    loss = run["achievable_mlm_loss"]
    if pd.isna(loss):
        return ""
    best = {score: _cell(run[f"achievable_{task}"], "{:.1%}".format) for score, task in SENTENCE_SCORES.items()}
    return ", ".join([f"MLM {loss:.3f}", *(f"{score} {accuracy}" for score, accuracy in best.items())])


def _loss(loss: Any, left_baseline: Any, state: str) -> str:
    return state if pd.isna(loss) else f"{loss:.3f}" + (" !" if left_baseline is False else "")


def _accuracy(accuracy: Any, interval: Any, head: Any) -> str:
    if pd.isna(accuracy):
        return "—"
    return f"{accuracy:.1%}{_around(accuracy, interval)}" + ("" if head == "trained" else "*")


def _around(accuracy: float, interval: Any) -> str:
    """`` ±2.0``, or `` (96.3 to 100.0)`` where the interval is not symmetric (a share near 0 or 100%)."""
    if not isinstance(interval, list):
        return ""
    low, high = (100 * min(max(end, 0.0), 1.0) for end in interval)
    half = (high - low) / 2
    even = abs(100 * accuracy - (low + high) / 2) < max(0.05, half / 10)
    inside = 100 * accuracy - half >= 0 and 100 * accuracy + half <= 100
    return f" ±{half:.1f}" if even and inside else f" ({low:.1f} to {high:.1f})"


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table or the changes. Exit code 1 if ``--csv`` is not writable, 2 without runs and for bad options."""
    parser = Parser(prog=program("compare"), description="Run folders side by side.")
    parser.add_argument("runs", type=Path, help="folder of run folders, such as runs")
    parser.add_argument("second", type=Path, nargs="?", help="a second one: shows what changed since the first")
    parser.add_argument("--csv", type=Path, help="also write the table to this file")
    options = parser.parse_args(arguments)
    if options.csv:
        require_file("--csv", options.csv, "model,E,share,", "arm,against,")
    runs = load_runs(options.runs)
    after = None if options.second is None else load_runs(options.second)
    console = Console()
    table = _show_runs(runs, console) if after is None else _show_changes(runs, after, console)
    if options.csv:
        try:
            write_text(options.csv, table.to_csv(index=False))
        except OSError as error:
            raise UserError(f"--csv {options.csv}: cannot be written ({error.strerror}).") from error
    return 0


def _show_runs(runs: pd.DataFrame, console: Console) -> pd.DataFrame:
    table = compare(runs)
    shown = table.drop(columns=[name for name in _PLANTED if name in table])
    if "planted text" in table:
        shown["model"] = [
            f"{name}‡" if text else name for name, text in zip(table["model"], table["planted text"], strict=True)
        ]
    console.print(_drawn(shown))
    console.print(_NOTE, highlight=False)
    for line in _planted_notes(table):
        console.print(line, highlight=False, soft_wrap=True)
    finished = runs[runs["state"] == "finished"]
    sentences = [*cautions.different_texts(finished), *cautions.code(finished), *cautions.copies(runs)]
    _warn(console, [*sentences, *heads.sentences(runs)])
    tasks = compare_tasks(runs)
    if len(tasks):
        console.print("\nfine-tuned", _drawn(tasks), sep="\n")
        console.print(_TASK_NOTE, highlight=False)
    return table


def _planted_notes(table: pd.DataFrame) -> list[str]:
    """A line for each planted text: its strengths, and the achievable scores on it."""
    if "planted text" not in table:
        return []
    texts = table.loc[table["planted text"] != "", ["planted text", "achievable"]].drop_duplicates()
    return [
        f"‡ planted text, {run['planted text']}: achievable {run['achievable'] or 'is not known yet'}"
        for run in texts.to_dict("records")
    ]


def _warn(console: Console, sentences: Sequence[str]) -> None:
    for sentence in sentences:
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)


def _show_changes(before: pd.DataFrame, after: pd.DataFrame, console: Console) -> pd.DataFrame:
    table, notes = changes(before, after)
    if table.comparisons:
        rows = pd.DataFrame([render.compared(table, c) for c in table.comparisons], columns=list(render.COMPARED))
        console.print(_drawn(rows.drop(columns=["against", "paper"])))
        console.print("\ndifference: B minus A, paired by seed · p after Holm's correction", highlight=False)
    else:
        console.print("No cell has finished runs with the same seed in both.")
    for name, runs in (("A", before), ("B", after)):
        _warn(console, [f"{name}: {sentence}" for sentence in cautions.of_runs(runs)])
    same = set(before["identity"][before["state"] == "finished"]) & set(after["identity"][after["state"] == "finished"])
    if same:
        _warn(console, [f"in both: {len(same)} runs are the same run in A and in B; their difference says nothing"])
    for name, lines in notes.items():
        for line in lines:
            console.print(f"{name}: {line}", highlight=False, markup=False, soft_wrap=True)
    return render.differences(table)


def _drawn(table: pd.DataFrame) -> Table:
    drawn = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    for name in table:  # a narrow column breaks between words; a word that is cut has an ellipsis
        drawn.add_column(str(name), overflow="ellipsis")
    for values in table.itertuples(index=False):
        drawn.add_row(*(Text("—" if pd.isna(v) else str(v)) for v in values))  # rich would read [marks] in a str
    return drawn


if __name__ == "__main__":
    sys.exit(main())
