"""One set-up for each fine-tuned task: arms are compared on fine-tunings with equal settings, data and seeds."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd

from albert_ablate.config.labels import flatten

from .setups import under


def setup_of(entry: Mapping[str, Any], free: Sequence[str] = ()) -> str:
    """Key of what has to be equal between fine-tunings of one task: settings, data, metric, fine-tuning seeds.

    ``free``: settings and groups that may differ.
    """
    kept = {name: value for name, value in _compared(entry).items() if not under(name, free)}
    return json.dumps(kept, sort_keys=True, default=str)


def alike(first: Mapping[str, Any], second: Mapping[str, Any], free: Sequence[str] = ()) -> bool:
    """Whether two fine-tunings of a task have one set-up. Older ones recorded the recipe alone: then it decides."""
    if not (first.get("set_up") and second.get("set_up")):
        first, second = ({k: v for k, v in entry.items() if k != "set_up"} for entry in (first, second))
    return setup_of(first, free) == setup_of(second, free)


def one_setup_each(
    arms: Mapping[str, pd.DataFrame], free: Sequence[str] = ()
) -> tuple[dict[str, pd.DataFrame], tuple[str, ...]]:
    """The runs of the arms with the fine-tunings of each task's commonest set-up, and notes on what was left out.

    The commonest set-up is that of most arms, then of most runs. ``free``: settings in which arms may differ.
    """
    arms_with: dict[tuple[str, str], set[str]] = {}
    runs_with: Counter[tuple[str, str]] = Counter()
    examples: dict[str, dict[str, Mapping[str, Any]]] = {}  # task -> set-up -> a fine-tuning in it
    for arm, frame in arms.items():
        for entry in (entry for tasks in frame["tasks"] for entry in tasks if entry["start"] == "pretrained"):
            task, key = entry["task"], setup_of(entry, free)
            examples.setdefault(task, {}).setdefault(key, entry)
            arms_with.setdefault((task, key), set()).add(arm)
            runs_with[task, key] += 1

    def rank(task: str, key: str) -> tuple[int, int, bool]:
        return len(arms_with[task, key]), runs_with[task, key], bool(examples[task][key].get("set_up"))

    best = {task: keys[max(keys, key=partial(rank, task))] for task, keys in examples.items()}
    kept = {}
    for arm, frame in arms.items():
        left = [[entry for entry in tasks if _kept(entry, best, free)] for tasks in frame["tasks"]]
        kept[arm] = frame.assign(tasks=pd.Series(left, index=frame.index, dtype=object))
    notes = []
    for task, keys in sorted(examples.items()):
        others = [key for key, entry in keys.items() if not alike(entry, best[task], free)]
        if others:
            count = sum(runs_with[task, key] for key in others)
            differs = _differences(best[task], [keys[key] for key in others])
            notes.append(
                f"Of the fine-tunings on {task} {count} of another set-up "
                f"{'is' if count == 1 else 'are'} left out ({differs})."
            )
    return kept, tuple(notes)


def apart(runs: pd.DataFrame, reference: pd.DataFrame) -> list[str]:
    """``sst2: recipe.learning_rate 2e-05, there 1e-05`` for every task that both have in different set-ups."""
    a, b = (
        {e["task"]: e for tasks in frame["tasks"] for e in tasks if e["start"] == "pretrained"}
        for frame in (runs, reference)
    )
    both = sorted(set(a) & set(b))
    return [f"{task}: {_differences(a[task], [b[task]], 'there')}" for task in both if not alike(a[task], b[task])]


def _kept(entry: Mapping[str, Any], best: Mapping[str, Mapping[str, Any]], free: Sequence[str]) -> bool:
    return entry["start"] != "pretrained" or alike(entry, best[entry["task"]], free)


def _compared(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Recipe, metric and seeds; every setting and the data, too, where the run recorded them."""
    parts = {"recipe": entry.get("recipe") or {}, "set_up": entry.get("set_up") or {}}
    return flatten(parts) | {"metric": entry.get("metric"), "seeds": entry.get("seeds")}


def _differences(taken: Mapping[str, Any], others: list[Mapping[str, Any]], label: str = "elsewhere") -> str:
    chosen = _compared(taken)
    alternatives = [_compared(alternative) for alternative in others]
    names = sorted(
        {
            name
            for alternative in alternatives
            for name in chosen.keys() | alternative.keys()
            if chosen.get(name) != alternative.get(name)
        }
    )
    parts = [
        f"{name.removeprefix('recipe.').removeprefix('set_up.')} {chosen.get(name)}, "
        f"{label} {' and '.join(dict.fromkeys(str(alternative.get(name)) for alternative in alternatives))}"
        for name in names
    ]
    return "; ".join(parts[:4]) + (f"; and {len(parts) - 4} more" if len(parts) > 4 else "")
