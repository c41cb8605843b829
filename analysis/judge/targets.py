"""Scores of tasks with several targets, such as Google QUEST, target by target."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from albert_ablate.config.labels import arm_labels

from .metrics import entries_of, tasks_of

#: Columns of ``targets.csv``: means over the runs of an arm, as stored.
COLUMNS = (
    "task", "target", "arm", "runs", "mean_squared_error", "mean_squared_error_of_the_mean", "r2", "spearman",
)  # fmt: skip
HEAD = ("task", "target", "arm", "squared error, ×10⁻³", "of the mean, ×10⁻³", "R², %", "Spearman, %")
TITLE = "Scores by target"
_MEASURES = COLUMNS[4:]


def frame(runs: pd.DataFrame) -> pd.DataFrame:
    """A row for each task, target and arm, on the first dev set; empty without such a task.

    A run with several seeds of fine-tuning counts with its median one. ``spearman`` is missing for a target without
    variation in the dev set.
    """
    finished = runs[(runs["state"] == "finished") & runs["seed"].notna()]
    if not len(finished):
        return pd.DataFrame(columns=list(COLUMNS))
    labels = [label or "all runs" for label in arm_labels(list(finished["config"]))]
    rows = [row for _, part in finished.assign(arm=labels).groupby("arm", sort=False) for row in _of_arm(part)]
    places = {key: place for place, key in enumerate(dict.fromkeys((row["task"], row["target"]) for row in rows))}
    rows.sort(key=lambda row: places[row["task"], row["target"]])  # the arms of a target one below the other
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _of_arm(runs: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for task in tasks_of(runs):
        of_runs = [(name, entries) for name, entries in zip(runs["run"], entries_of(runs), strict=True)]
        found = [entries[task] for _, entries in of_runs if task in entries]
        names = [name for name, entries in of_runs if task in entries]
        tables = [table for entry in found if (table := _by_target(entry))]
        if not tables or len(tables) < len(found) or len({tuple(table) for table in tables}) > 1:
            continue
        for target in tables[0]:
            numbers = {name: [table[target][name] for table in tables] for name in _MEASURES}
            means = {name: sum(of) / len(of) if None not in of else None for name, of in numbers.items()}
            yield {"task": task, "target": target, "arm": runs["arm"].iloc[0], "runs": " ".join(names)} | means


def _by_target(entry: dict[str, Any]) -> dict[str, dict[str, Any]]:
    first: dict[str, Any] = next(iter(entry["sets"].values()), {})
    return first.get("by_target") or {}


def rows(numbers: pd.DataFrame) -> list[list[str]]:
    """The lines of the report's table."""
    return [
        [
            row["task"], row["target"].replace("_", " "), row["arm"], f"{1000 * row['mean_squared_error']:.1f}",
            f"{1000 * row['mean_squared_error_of_the_mean']:.1f}", f"{100 * row['r2']:.1f}".replace("-", "−"),
            "—" if pd.isna(row["spearman"]) else f"{100 * row['spearman']:.1f}".replace("-", "−"),
        ]
        for row in numbers.to_dict("records")
    ]  # fmt: skip


def note(numbers: pd.DataFrame) -> str:
    """What the report says above the table; it names the targets without variation."""
    constant = list(dict.fromkeys(numbers[numbers["spearman"].isna()]["target"]))
    text = (
        "Means over the runs of an arm, on the first dev set. The mean of the training set is the bar to beat; "
        "R² is the part of a target's variance that is explained."
    )
    if not constant:
        return text
    named = ", ".join(name.replace("_", " ") for name in constant)
    return f"{text} No variation in the dev set, so no rank correlation: {named}."
