"""Zero- and few-shot scores as metrics: ``minimal pairs``, and for each task those of ``_KINDS``.

A task's accuracy is that of the rule ``token``, the default of GPT-3; minimal pairs are judged by ``sum``, as both
sentences have as many tokens. ``few-shot`` is the largest number of demonstrations that the run was asked with.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from .statistics import NORMAL

#: Share of the minimal pairs whose good sentence is the more probable one.
PAIRS = "minimal pairs"
_KINDS = {
    "zero-shot": "without demonstrations",
    "few-shot": "with most demonstrations",
    "few-shot gain": "with most demonstrations less without",
    "few-shot over chance": "with most demonstrations less chance",
    "calibration gain": "calibrated less summed, with most demonstrations",
}
_RULE = "token"

Run = Mapping[Any, Any]


def is_prompted(key: str) -> bool:
    """Whether ``key`` is ``minimal pairs`` or a kind with a task, such as ``few-shot:sst2``."""
    kind, _, task = key.partition(":")
    return key == PAIRS or (kind in _KINDS and bool(task))


def task_of(key: str) -> str:
    """The task that is asked."""
    return "minimal_pairs" if key == PAIRS else key.partition(":")[2]


def kinds() -> tuple[str, ...]:
    """The kinds of scores of a task."""
    return tuple(_KINDS)


def keys_of(runs: Iterable[Run]) -> list[str]:
    """Minimal pairs, and for each task the scores without and with demonstrations, that any of the runs has."""
    rows = list(runs)
    tasks = sorted({entry["task"] for run in rows for entry in run.get("kshot") or ()} - {task_of(PAIRS)})
    known = [PAIRS, *(f"{kind}:{task}" for task in tasks for kind in ("zero-shot", "few-shot"))]
    return [key for key in known if any(value(run, key) is not None for run in rows)]


def bigram(run: Run) -> float | None:
    """The share of the minimal pairs in which a bigram model prefers the good sentence."""
    entry = _entry(run, task_of(PAIRS), 0)
    return None if entry is None or entry.get("bigram") is None else float(entry["bigram"]["value"])


def label(key: str) -> str:
    """``few-shot word order``."""
    return key if key == PAIRS else f"{key.partition(':')[0]} {task_of(key).replace('_', ' ')}"


def within(key: str) -> tuple[float, float]:
    """Bounds of the score in %."""
    return (0.0, 100.0) if key.partition(":")[0] in (PAIRS, "zero-shot", "few-shot") else (-100.0, 100.0)


def value(run: Run, key: str) -> float | None:
    """The score of a run, as a share; None if it lacks a part, or has a part in several settings."""
    kind, few = key.partition(":")[0], _few(run, task_of(key))
    if key == PAIRS:
        return _accuracy(_entry(run, task_of(key), 0), "sum")
    zero, most = (_accuracy(entry, _RULE) for entry in (_entry(run, task_of(key), 0), few))
    if kind == "zero-shot":
        return zero
    if kind == "few-shot":
        return most
    if kind == "few-shot gain":
        return None if zero is None or most is None else most - zero
    if kind == "few-shot over chance":
        return None if few is None or most is None else most - float(few["chance"])
    calibrated, summed = (_accuracy(few, rule) for rule in ("calibrated", "sum"))
    return None if calibrated is None or summed is None else calibrated - summed


def error(run: Run, key: str) -> float | None:
    """Standard error over the questions, as a share; of a difference as if its parts had different questions."""
    if value(run, key) is None:
        return None
    errors = [
        (high - low) / (2 * NORMAL)
        for entry, rule in _parts(run, key)
        if entry is not None
        for low, high in [entry["intervals"][rule]]
    ]
    return math.sqrt(sum(part**2 for part in errors))


def at_chance(run: Run, key: str) -> bool:
    """Whether no part of the score is above chance: its interval over questions holds chance, or is below it."""
    if key.startswith("few-shot over chance:") or value(run, key) is None:
        return False
    return all(entry["intervals"][rule][0] <= entry["chance"] for entry, rule in _parts(run, key) if entry is not None)


def _parts(run: Run, key: str) -> list[tuple[dict[str, Any] | None, str]]:
    """The entries that a score is made of, each with its rule."""
    zero, few = _entry(run, task_of(key), 0), _few(run, task_of(key))
    parts = {
        PAIRS: [(zero, "sum")], "zero-shot": [(zero, _RULE)], "few-shot gain": [(zero, _RULE), (few, _RULE)],
        "calibration gain": [(few, "calibrated"), (few, "sum")],
    }  # fmt: skip
    return parts.get(key.partition(":")[0], [(few, _RULE)])


def _entry(run: Run, task: str, k: int) -> dict[str, Any] | None:
    """The entry of a task with ``k`` demonstrations, if there is a single one."""
    found = [entry for entry in run.get("kshot") or () if (entry["task"], entry["k"]) == (task, k)]
    return found[0] if len(found) == 1 else None


def _few(run: Run, task: str) -> dict[str, Any] | None:
    """The entry with most demonstrations; None without demonstrations."""
    most = max((entry["k"] for entry in run.get("kshot") or () if entry["task"] == task), default=0)
    return _entry(run, task, most) if most else None


def _accuracy(entry: dict[str, Any] | None, rule: str) -> float | None:
    return None if entry is None else entry["accuracy"].get(rule)
