"""The number format in which the heads of fine-tuned tasks answered: one for a task in all numbers of a collection.

Heads of older versions answered in bf16 where the encoder computed in it, so that near answers tied. Scores of several
formats are never averaged, paired or compared: those of the format that most runs have count.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd

from albert_ablate.tasks.formats import BEFORE, HEADS, order
from analysis.records import read_record


def with_format(folder: Path, entries: list[dict[str, Any]], precision: Any) -> list[dict[str, Any]]:
    """A run's fine-tuned tasks with ``heads`` in each recipe, where it can be known.

    Older ones have none; theirs is the number format of the fine-tuning, else ``precision``, the run's.
    """
    found = []
    for entry in entries:
        recipe = entry.get("recipe") or {}
        answered = recipe.get("heads") or _precision(folder, entry.get("units")) or precision
        found.append(entry | {"recipe": recipe | {"heads": answered}} if answered else entry)
    return found


def _precision(folder: Path, units: Any) -> Any:
    """What the manifest of the first fine-tuning says, where there is one."""
    name = units[0] if isinstance(units, list) and units else None
    if not isinstance(name, str) or Path(name).name != name:
        return None
    try:
        return read_record(folder / "tasks" / name / "manifest.json").get("precision")
    except ValueError:
        return None


def in_one_format(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs, with ``left_out`` in those entries of ``tasks`` whose head answered in another format than counts."""
    used: dict[str, Counter[str]] = {}
    for tasks in runs["tasks"][runs["state"] == "finished"]:
        for task, answered in {(e["task"], _heads(e)) for e in tasks if e["start"] == "pretrained"}:
            used.setdefault(task, Counter())[answered] += 1
    taken = {task: min(counts, key=lambda a: (-counts[a], order(a))) for task, counts in used.items()}
    marked = [
        [e | {"left_out": _heads(e) != taken.get(e["task"], _heads(e))} for e in tasks] for tasks in runs["tasks"]
    ]
    return runs.assign(tasks=pd.Series(marked, index=runs.index, dtype=object))


def _heads(entry: dict[str, Any]) -> str:
    return str((entry.get("recipe") or {}).get("heads", HEADS))


def of_tasks(runs: pd.DataFrame) -> dict[str, str]:
    """Task -> the format of its numbers in this collection."""
    entries = [e for tasks in runs["tasks"][runs["state"] == "finished"] for e in tasks]
    return {e["task"]: _heads(e) for e in entries if e["start"] == "pretrained" and not e.get("left_out")}


def sentences(runs: pd.DataFrame) -> list[str]:
    """What to know of the formats: scores that were left out, and those of heads in bf16."""
    found = []
    entries = [e for tasks in runs["tasks"][runs["state"] == "finished"] for e in tasks if e["start"] == "pretrained"]
    counts = of_tasks(runs)
    left = Counter((e["task"], _heads(e)) for e in entries if e.get("left_out"))
    for (task, answered), count in sorted(left.items()):
        found.append(
            f"{task}: {count} score{'s' * (count > 1)} of heads in {answered} left out; those of heads in "
            f"{counts[task]} count. Several formats are never put into one number."
        )
    rounded = sorted(task for task, answered in counts.items() if answered == BEFORE)
    if rounded:
        found.append(
            f"Heads of {', '.join(rounded)} answered in {BEFORE}, so that near answers tied. To score them again in "
            f"{HEADS}: python -m albert_ablate.finetune RUN --reread"
        )
    return found


def between(before: pd.DataFrame, after: pd.DataFrame) -> list[str]:
    """Where the formats of two collections differ."""
    a, b = of_tasks(before), of_tasks(after)
    return [
        f"{task}: heads in {a[task]} in A, in {b[task]} in B; a part of the difference is the format's."
        for task in sorted(set(a) & set(b))
        if a[task] != b[task]
    ]
