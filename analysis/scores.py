"""Scores by arm, and the claims that they test: ``python -m analysis.scores runs``. A sweep ends with it.

An arm is all runs that differ only in the seed. Its label names every setting that varies among the runs given.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.padding import Padding
from rich.text import Text

from albert_ablate.arguments import Parser
from albert_ablate.command_line import program
from albert_ablate.config.labels import arm_labels
from albert_ablate.console import command, say, show
from albert_ablate.record.score_table import ScoreRow, ScoreTable

from .judge import controls, prompted_scores
from .judge.claims import VERDICTS, in_question, judge, load_all
from .judge.metrics import (
    BITS_PER_BYTE,
    CONTEXT_GAIN,
    REPLACED,
    SENTENCE_SCORES,
    metric,
    summarised,
    tasks_of,
    unfit,
    values,
)
from .judge.numbers import number
from .read.planted import planted
from .read.runs import load_runs
from .read.seeds import of_planned

_LEGEND = {
    "±": "±: 95% interval over seeds",
    "!": "!: below its baseline, so not compared",
    "*": "*: head fitted on the frozen encoder",
}


def table(runs: pd.DataFrame) -> tuple[ScoreTable, list[str]]:
    """The table of the finished ``runs``, a row for each arm in the order of the runs, and the notes below it."""
    runs = runs[(runs["state"] != "copy") & runs["seed"].notna()]
    labels = arm_labels(list(runs["config"]))
    runs = runs.assign(arm=[label or "all runs" for label in labels])
    finished = runs["state"] == "finished"
    arms = {str(arm): frame for arm, frame in runs.groupby("arm", sort=False)}
    done = {arm: frame[finished[frame.index]] for arm, frame in arms.items()}
    held_out = ["MLM loss", BITS_PER_BYTE, CONTEXT_GAIN, *SENTENCE_SCORES, REPLACED]
    prompts = prompted_scores.keys_of(runs[finished].to_dict("records"))
    known = [*held_out, *prompts, *(f"task:{name}" for name in tasks_of(runs[finished]))]
    keys = [key for key in known if any(len(values(frame, key)) for frame in done.values())]
    rows = [
        ScoreRow((f"  {arm}", *(_score(done[arm], key) for key in keys), of_planned(len(done[arm]), len(frame))))
        for arm, frame in arms.items()
    ]
    doubted: dict[str, dict[str, None]] = {}
    for key in keys:
        for arm, frame in done.items():
            if len(frame) and (why := unfit(frame, key)):
                doubted.setdefault(why, {})[arm] = None
    notes = [f"! {'; '.join(names)}: {why}" for why, names in doubted.items()]
    bars = [bar for run in runs[finished].to_dict("records") if (bar := prompted_scores.bigram(run)) is not None]
    if bars:
        ends = dict.fromkeys(f"{100 * bar:.1f}" for bar in (min(bars), max(bars)))
        notes.append(
            f"{prompted_scores.PAIRS}: 50.0 is chance; a bigram model of the training text has {' to '.join(ends)}"
        )
    legend = [text for mark, text in _LEGEND.items() if any(mark in cell for row in rows for cell in row.cells[1:])]
    heads = [metric(key).label for key in keys]
    return ScoreTable(("  arm", *heads, "runs"), "", rows), [*notes, *([" · ".join(legend)] if legend else [])]


def _score(runs: pd.DataFrame, key: str) -> str:
    """``5.231 ± 0.012 !``; a dash without a number."""
    shown = number(key, summarised(runs, key))
    marks = "!" if len(runs) and unfit(runs, key) else ""
    if key in SENTENCE_SCORES and not (runs[f"{SENTENCE_SCORES[key]}_head"].dropna() == "trained").all():
        marks += "*"
    if key == REPLACED:
        marks += "*"
    return f"{shown} {marks}".rstrip()


def verdicts(runs: pd.DataFrame, claims: Sequence[Path] = ()) -> list[str]:
    """A line for each claim that the runs test: of the paper, of the controls on planted text, and of ``claims``."""
    papers, on_planted = controls.divided(in_question(runs, load_all([controls.CLAIMS, *claims])))
    judged = [*judge(runs, papers), *(judge(planted(runs), on_planted) if len(planted(runs)) else [])]
    width = max(map(len, VERDICTS))
    return [f"{v.verdict:<{width}}  {v.claim.claim}" for v in judged if v.verdict != "not tested"]


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. Exit code 2 without runs and for wrong arguments or claims."""
    parser = Parser(prog=program("scores"), description="Scores by arm, and the claims that they test.")
    parser.add_argument("runs", type=Path, nargs="+", help="folders of run folders, such as runs, or run folders")
    parser.add_argument(
        "--claims", type=Path, action="append", default=[], help="a claims file of yours, judged with the paper's"
    )
    options = parser.parse_args(arguments)
    runs = load_runs(*options.runs)
    if not (runs["state"] == "finished").any():
        say("No run has finished yet.")
        return 0
    scores, notes = table(runs)
    tested = verdicts(runs, options.claims)
    show(scores)
    for note in notes:
        show(Padding(Text(note), (0, 0, 0, 2)))
    say("")
    for verdict in tested:
        show(Padding(Text(verdict), (0, 0, 0, 2)))
    if tested:
        say("")
    return 0


if __name__ == "__main__":
    sys.exit(main())
