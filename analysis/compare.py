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

_AXES = {"E": "config.embed.size", "share": "config.share.strategy", "objective": "config.objective.name"}


def compare(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a run in plain words, sorted by model, axes and seed."""
    table = pd.DataFrame({"model": runs.get("config.model.name"), **{k: runs.get(c) for k, c in _AXES.items()}})
    table["seed"] = runs.get("config.seed")
    table["status"] = runs["status.state"]
    table["parameters"] = [
        _cell(v, lambda n: f"{n / 1e6:.2f} M") for v in _column(runs, "manifest.parameters.with_pooler")
    ]
    table["MLM nats"] = [_cell(v, lambda x: f"{x:.3f}") for v in _column(runs, "results.masked_lm.loss")]
    for task in ("nsp", "sop"):
        accuracy, interval = (_column(runs, f"results.{task}.{field}") for field in ("accuracy", "interval"))
        head = _column(runs, f"results.{task}.head")
        table[task.upper()] = [_accuracy(*values) for values in zip(accuracy, interval, head, strict=True)]
    left = _column(runs, "results.masked_lm.left_baseline")
    table["left its plateau"] = [_cell(v, lambda yes: "yes" if yes else "NO") for v in left]
    return table.sort_values(["model", "E", "share", "objective", "seed"], kind="stable").reset_index(drop=True)


def _column(runs: pd.DataFrame, name: str) -> list[Any]:
    return list(runs[name]) if name in runs else [None] * len(runs)


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)


def _cell(value: Any, form: Any) -> str:
    return "—" if _missing(value) else form(value)


def _accuracy(accuracy: Any, interval: Any, head: Any) -> str:
    if _missing(accuracy):
        return "—"
    fitted = "" if head == "trained" else " *"
    return f"{accuracy:.1%} [{interval[0]:.1%}, {interval[1]:.1%}]{fitted}"


def main() -> int:
    """Print the table. Exit code 1 where there is no run."""
    parser = argparse.ArgumentParser(prog="python -m analysis.compare", description="Run folders side by side.")
    parser.add_argument("runs", type=Path, help="folder of run folders, such as runs")
    arguments = parser.parse_args()
    try:
        table = compare(load_runs(arguments.runs))
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 1
    drawn = Table(box=None, padding=(0, 1))
    for name in table:
        drawn.add_column(str(name))
    for values in table.itertuples(index=False):
        drawn.add_row(*("—" if _missing(v) else str(v) for v in values))
    console = Console()
    console.print(drawn)
    console.print("* head fitted on the frozen encoder; intervals are 95%, over held-out examples", highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
