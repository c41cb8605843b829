"""Checks ``targets.csv``: each number is the mean over the runs that its row names, as they recorded it."""

from collections.abc import Sequence
from typing import Any

from .checks import Check, compare, unknown
from .files import mean
from .runs import Run

_SECTION = "targets.csv"
_MEASURES = ("mean_squared_error", "mean_squared_error_of_the_mean", "r2", "spearman")


def check(rows: Sequence[dict[str, str]], runs: Sequence[Run]) -> list[Check]:
    """Checks of every row. A run with the task in several settings is not derived again."""
    by_name = {run.name: run for run in runs}
    checks: list[Check] = []
    for row in rows:
        where = f"{row['task']} · {row['target']} · {row['arm']}"
        members = [by_name[name] for name in row["runs"].split() if name in by_name]
        found = [of_run for run in members for of_run in _scores(run, row["task"], row["target"])]
        if len(found) != len(row["runs"].split()):
            checks += [unknown(_SECTION, f"{where} · {name}", row[name], "several settings") for name in _MEASURES]
            continue
        for name in _MEASURES:
            parts = [of_run[name] for of_run in found]
            expected = None if None in parts else mean(parts)
            checks.append(compare(_SECTION, f"{where} · {name}", row[name], expected, "results.json"))
    return checks


def _scores(run: Run, task: str, target: str) -> list[dict[str, Any]]:
    entries = [e for e in run.results.get("tasks") or () if (e["task"], e["start"]) == (task, "pretrained")]
    sets: list[dict[str, Any]] = [next(iter(entry["sets"].values()), {}) for entry in entries]
    return [of_set["by_target"][target] for of_set in sets if target in (of_set.get("by_target") or {})]
