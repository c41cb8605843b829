"""The number format of the heads of fine-tuned tasks: a part of their set-up.

In older versions heads computed in bf16 if the encoder did, so that close answers tied. Scores of different formats
are never averaged, paired or compared.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from albert_ablate.command_line import command_name
from albert_ablate.record.formats import BEFORE, HEADS
from albert_ablate.record.tasks import UnitManifest

from .records import read_record


def with_format(folder: Path, entries: list[dict[str, Any]], precision: Any) -> list[dict[str, Any]]:
    """A run's fine-tuned tasks with ``heads``, the number format of the head, in each recipe.

    Older recipes lack it: then it is the number format of the fine-tuning, else ``precision`` of the run. A recipe
    stays without it where none of these is known.
    """
    completed = []
    for entry in entries:
        recipe = entry.get("recipe") or {}
        answered = recipe.get("heads") or _precision(folder, entry.get("units")) or precision
        completed.append(entry | {"recipe": recipe | {"heads": answered}} if answered else entry)
    return completed


def _precision(folder: Path, units: Any) -> Any:
    """``precision`` in the manifest of the first fine-tuning; None without a manifest."""
    name = units[0] if isinstance(units, list) and units else None
    if not isinstance(name, str) or Path(name).name != name:
        return None
    try:
        return read_record(folder / "tasks" / name / "manifest.json", UnitManifest).get("precision")
    except ValueError:
        return None


def sentences(runs: pd.DataFrame) -> list[str]:
    """Which tasks were scored with heads in bf16, and how to score them again; empty without any."""
    entries = [e for tasks in runs["tasks"][runs["state"] == "finished"] for e in tasks if e["start"] == "pretrained"]
    rounded = sorted({e["task"] for e in entries if (e.get("recipe") or {}).get("heads") == BEFORE})
    if not rounded:
        return []
    return [
        f"Heads of {', '.join(rounded)} answered in {BEFORE}, so that near answers tied. To score them again in "
        f"{HEADS}: {command_name('finetune')} RUN --reread"
    ]
