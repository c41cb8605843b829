"""Runs side by side: ``python -m analysis.compare runs``.

Axes, parameters and held-out numbers of every run folder. One run a cell has no spread over seeds,
so the intervals are those of the held-out examples alone; differences inside them say nothing.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from analysis.runs import load_runs

_NOTE = """
MLM: held-out nats, ! still on its plateau · ±: 95%, over held-out examples
* head fitted on the frozen encoder\
"""
_TASK_NOTE = """
best: of all checkpoints, chosen on dev itself, median over seeds · to beat: majority · bag of words\
"""
_AXES = {"E": "config.embed.size", "share": "config.share.strategy", "objective": "config.objective.name"}


def compare(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a run in plain words, sorted by model, axes, budget and seed; an unfinished run says so."""
    table = pd.DataFrame({"model": runs.get("config.model.name"), **{k: runs.get(c) for k, c in _AXES.items()}})
    done = _column(runs, "results.training.steps")  # other budgets than steps give as many as fit
    planned = _column(runs, "config.budget.steps")
    table["steps"] = [p if _missing(d) else int(d) for d, p in zip(done, planned, strict=True)]
    table["seed"] = runs.get("config.seed")
    table["params"] = [_cell(v, lambda n: f"{n / 1e6:.2f}M") for v in _column(runs, "manifest.parameters.with_pooler")]
    numbers = [_column(runs, f"results.masked_lm.{field}") for field in ("loss", "left_baseline")]
    table["MLM"] = [_loss(*values) for values in zip(*numbers, runs["status.state"], strict=True)]
    for task in ("nsp", "sop"):
        columns = [_column(runs, f"results.{task}.{field}") for field in ("accuracy", "interval", "head")]
        table[task.upper()] = [_accuracy(*values) for values in zip(*columns, strict=True)]
    keys = ["model", "E", "share", "objective", "steps", "seed"]
    return table.sort_values(keys, kind="stable").reset_index(drop=True)


def compare_tasks(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a run and fine-tuned task: the best checkpoint on dev (median over seeds), and the last."""
    rows = []
    for place, entries in enumerate(_column(runs, "results.tasks")):
        e, share, objective = (runs[column].iloc[place] for column in _AXES.values())
        for entry in entries if isinstance(entries, list) else []:
            low, high = entry["spread"]
            floor: dict[str, float] = next(iter(entry["to_beat"].values()), {})
            rows.append(
                {
                    "task": entry["task"],
                    "run": f"e{e}-{share}-{objective}-s{runs['config.seed'].iloc[place]}",
                    "start": entry["start"],
                    "best": f"{entry['score']:.1%}",
                    "seeds": f"{low:.1%} to {high:.1%} ({len(entry['seeds'])})"
                    if high > low
                    else str(len(entry["seeds"])),
                    "last": f"{entry['last_score']:.1%}",
                    "to beat": " · ".join(f"{value:.1%}" for value in floor.values()),
                }
            )
    table = pd.DataFrame(rows)
    return table.sort_values(["task", "run", "start"], kind="stable").reset_index(drop=True) if rows else table


def _column(runs: pd.DataFrame, name: str) -> list[Any]:
    return list(runs[name]) if name in runs else [None] * len(runs)


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)


def _cell(value: Any, form: Any) -> str:
    return "—" if _missing(value) else form(value)


def _loss(loss: Any, left_baseline: Any, state: str) -> str:
    if _missing(loss):
        return state
    return f"{loss:.3f}" + ("" if left_baseline else " !")


def _accuracy(accuracy: Any, interval: Any, head: Any) -> str:
    if _missing(accuracy):
        return "—"
    half = (interval[1] - interval[0]) / 2
    return f"{accuracy:.1%} ±{100 * half:.1f}" + ("" if head == "trained" else "*")


def main() -> int:
    """Print the table. Exit code 1 where there is no run."""
    parser = argparse.ArgumentParser(prog="python -m analysis.compare", description="Run folders side by side.")
    parser.add_argument("runs", type=Path, help="folder of run folders, such as runs")
    arguments = parser.parse_args()
    try:
        runs = load_runs(arguments.runs)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 1
    console = Console()
    console.print(_drawn(compare(runs)))
    console.print(_NOTE, highlight=False)
    tasks = compare_tasks(runs)
    if len(tasks):
        console.print("\nfine-tuned", _drawn(tasks), sep="\n")
        console.print(_TASK_NOTE, highlight=False)
    return 0


def _drawn(table: pd.DataFrame) -> Table:
    drawn = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    for name in table:
        drawn.add_column(str(name), no_wrap=name not in ("task", "run"), overflow="fold")
    for values in table.itertuples(index=False):
        drawn.add_row(*("—" if _missing(v) else str(v) for v in values))
    return drawn


if __name__ == "__main__":
    sys.exit(main())
