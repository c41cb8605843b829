"""One set-up for each fine-tuned task: arms are compared on fine-tunings with equal settings, data and seeds."""

import json
from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any

import pandas as pd

from .setups import flatten


def setup_of(entry: Mapping[str, Any]) -> str:
    """What has to be equal between fine-tunings of one task: settings, data, metric and seeds of fine-tuning."""
    return json.dumps(_told(entry), sort_keys=True, default=str)


def alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two fine-tunings of a task have one set-up, as far as both say: older ones recorded the recipe alone."""
    if not (one.get("set_up") and other.get("set_up")):
        one, other = ({k: v for k, v in entry.items() if k != "set_up"} for entry in (one, other))
    return setup_of(one) == setup_of(other)


def one_setup_each(arms: Mapping[str, pd.DataFrame]) -> tuple[dict[str, pd.DataFrame], tuple[str, ...]]:
    """The runs of some arms with the fine-tunings of each task's commonest set-up, and what was left out.

    The commonest is the one of most arms, then of most runs.
    """
    arms_with: dict[tuple[str, str], set[str]] = {}
    runs_with: Counter[tuple[str, str]] = Counter()
    found: dict[str, dict[str, Mapping[str, Any]]] = {}  # task -> set-up -> a fine-tuning in it
    for arm, frame in arms.items():
        for entry in (entry for tasks in frame["tasks"] for entry in tasks if entry["start"] == "pretrained"):
            task, key = entry["task"], setup_of(entry)
            found.setdefault(task, {}).setdefault(key, entry)
            arms_with.setdefault((task, key), set()).add(arm)
            runs_with[task, key] += 1

    def rank(task: str, key: str) -> tuple[int, int, bool]:
        return len(arms_with[task, key]), runs_with[task, key], bool(found[task][key].get("set_up"))

    best = {task: keys[max(keys, key=partial(rank, task))] for task, keys in found.items()}
    kept = {}
    for arm, frame in arms.items():
        left = [[entry for entry in tasks if _kept(entry, best)] for tasks in frame["tasks"]]
        kept[arm] = frame.assign(tasks=pd.Series(left, index=frame.index, dtype=object))
    words = []
    for task, keys in sorted(found.items()):
        others = [key for key, entry in keys.items() if not alike(entry, best[task])]
        if others:
            count = sum(runs_with[task, key] for key in others)
            differs = _differences(best[task], [keys[key] for key in others])
            words.append(
                f"Of the fine-tunings on {task} {count} of another set-up "
                f"{'is' if count == 1 else 'are'} left out ({differs})."
            )
    return kept, tuple(words)


def apart(ours: pd.DataFrame, theirs: pd.DataFrame) -> list[str]:
    """``sst2: recipe.learning_rate 2e-05, there 1e-05`` for every task that both have in unlike set-ups."""
    a, b = (
        {e["task"]: e for tasks in frame["tasks"] for e in tasks if e["start"] == "pretrained"}
        for frame in (ours, theirs)
    )
    both = sorted(set(a) & set(b))
    return [f"{task}: {_differences(a[task], [b[task]], 'there')}" for task in both if not alike(a[task], b[task])]


def _kept(entry: Mapping[str, Any], best: Mapping[str, Mapping[str, Any]]) -> bool:
    return entry["start"] != "pretrained" or alike(entry, best[entry["task"]])


def _told(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Recipe, metric, seeds and, where the run recorded them, every setting and the data."""
    parts = {"recipe": entry.get("recipe") or {}, "set_up": entry.get("set_up") or {}}
    return flatten(parts) | {"metric": entry.get("metric"), "seeds": entry.get("seeds")}


def _differences(taken: Mapping[str, Any], others: list[Mapping[str, Any]], place: str = "elsewhere") -> str:
    ours = _told(taken)
    theirs = [_told(other) for other in others]
    names = sorted(
        {name for other in theirs for name in ours.keys() | other.keys() if ours.get(name) != other.get(name)}
    )
    words = [
        f"{name.removeprefix('recipe.').removeprefix('set_up.')} {ours.get(name)}, "
        f"{place} {' and '.join(dict.fromkeys(str(other.get(name)) for other in theirs))}"
        for name in names
    ]
    return "; ".join(words[:4]) + (f"; and {len(words) - 4} more" if len(words) > 4 else "")
