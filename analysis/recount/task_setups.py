"""One set-up for each fine-tuned task: the settings, data, metric and seeds of most arms, then of most runs."""

import copy
import json
from collections.abc import Sequence
from typing import Any

from .files import flat
from .runs import Run

#: Keys of an entry that no record has.
_WHOLE, _RECIPE = "(set-up)", "(set-up without settings)"


def one_setup_each(arms: Sequence[Sequence[Run]]) -> list[list[Run]]:
    """The runs of the arms, with the fine-tunings of each task's set-up that most arms, then most runs, have."""
    count: dict[str, dict[str, list[Any]]] = {}  # task -> set-up -> arms, runs, an entry
    for place, runs in enumerate(arms):
        for entry in (entry for run in runs for entry in run.tasks if entry["start"] == "pretrained"):
            own = count.setdefault(entry["task"], {}).setdefault(_setup(entry), [set(), 0, entry])
            own[0].add(place)
            own[1] += 1
    best = {
        task: max(several.values(), key=lambda one: (len(one[0]), one[1], bool(one[2].get("set_up"))))[2]
        for task, several in count.items()
    }
    return [[_with(run, [entry for entry in run.tasks if _kept(entry, best)]) for run in runs] for runs in arms]


def _with(run: Run, tasks: list[dict[str, Any]]) -> Run:
    if len(tasks) == len(run.tasks):
        return run
    made = copy.copy(run)
    made.tasks = tasks
    return made


def _kept(entry: dict[str, Any], best: dict[str, dict[str, Any]]) -> bool:
    return entry["start"] != "pretrained" or _alike(entry, best[entry["task"]])


def _alike(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """As far as both say: older fine-tunings recorded their recipe alone."""
    both = bool(one.get("set_up") and other.get("set_up"))
    return _setup(one, both) == _setup(other, both)


def _setup(entry: dict[str, Any], whole: bool = True) -> str:
    """What has to be equal, as text; kept in the entry, for it is asked for every score."""
    key = _WHOLE if whole else _RECIPE
    if key not in entry:
        told = {"recipe": entry.get("recipe") or {}, "set_up": (entry.get("set_up") or {}) if whole else {}}
        named = flat(told) | {"metric": entry.get("metric"), "seeds": entry.get("seeds")}
        entry[key] = json.dumps(named, sort_keys=True, default=str)
    return str(entry[key])
