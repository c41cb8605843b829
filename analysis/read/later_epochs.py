"""What a fine-tuning gains after its second epoch, from the evaluations in its ``metrics.jsonl``."""

import json
from pathlib import Path
from typing import Any

from albert_ablate.record.tasks import UnitResults

from .records import read_record

#: Name of the gain among the scores of a set: squared error after epoch 2 less the lowest one of later epochs.
GAIN = "gain_of_later_epochs"
_METRIC = "mean_squared_error"
_EPOCH, _NEAR = 2.0, 0.02  # an evaluation so near to the end of the epoch is taken as at it


def with_gain(folder: Path, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A run's fine-tuned tasks, with ``GAIN`` in the first set of those whose score is a squared error.

    It is the mean over the seeds of the fine-tuning; left out if one was not evaluated after two epochs and later.
    """
    return [_completed(folder, entry) if entry.get("metric") == _METRIC else entry for entry in entries]


def _completed(folder: Path, entry: dict[str, Any]) -> dict[str, Any]:
    units, sets = entry.get("units"), entry.get("sets")
    if not isinstance(units, list) or not units or not sets:
        return entry
    gains = [_gain(folder / "tasks" / name) for name in units if isinstance(name, str) and Path(name).name == name]
    known = [gain for gain in gains if gain is not None]
    if len(known) < len(units):
        return entry
    first = next(iter(sets))
    return entry | {"sets": sets | {first: sets[first] | {GAIN: sum(known) / len(known)}}}


def _gain(unit: Path) -> float | None:
    """Of one fine-tuning; None without the evaluations."""
    try:
        training = read_record(unit / "results.json", UnitResults)["training"]
        texts = (unit / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        lines = [line for line in map(json.loads, texts) if "dev_score" in line]
        scores = {line["step"] * training["epochs"] / training["steps"]: float(line["dev_score"]) for line in lines}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    second = [score for epoch, score in scores.items() if abs(epoch - _EPOCH) <= _NEAR]
    later = [score for epoch, score in scores.items() if epoch > _EPOCH + _NEAR]
    return second[-1] - min(later) if second and later else None
