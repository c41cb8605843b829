"""The number format in which the heads of fine-tuned tasks answered: a part of their set-up.

Heads of older versions answered in bf16 where the encoder computed in it, so that near answers tied. As with any other
setting, scores of several formats are never averaged, paired or compared.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from albert_ablate.record.tasks import UnitManifest
from albert_ablate.tasks.formats import BEFORE, HEADS

from .records import read_record


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
        return read_record(folder / "tasks" / name / "manifest.json", UnitManifest).get("precision")
    except ValueError:
        return None


def sentences(runs: pd.DataFrame) -> list[str]:
    """Which tasks have scores of heads that answered in bf16, and how to score them again."""
    entries = [e for tasks in runs["tasks"][runs["state"] == "finished"] for e in tasks if e["start"] == "pretrained"]
    rounded = sorted({e["task"] for e in entries if (e.get("recipe") or {}).get("heads") == BEFORE})
    if not rounded:
        return []
    return [
        f"Heads of {', '.join(rounded)} answered in {BEFORE}, so that near answers tied. To score them again in "
        f"{HEADS}: python -m albert_ablate.finetune RUN --reread"
    ]
