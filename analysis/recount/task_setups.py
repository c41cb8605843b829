"""One set-up for each fine-tuned task: settings, data, metric and seeds that most arms have, then most runs."""

import copy
import json
from collections.abc import Sequence
from typing import Any

from .files import flat
from .runs import Run

#: Keys under which an entry keeps its set-up; no recorded entry has them.
_WHOLE, _RECIPE = "(set-up)", "(set-up without settings)"


def one_setup_each(arms: Sequence[Sequence[Run]], free: Sequence[str] = ()) -> list[list[Run]]:
    """The runs of the arms, with the fine-tunings of each task's set-up that most arms, then most runs, have.

    ``free``: names of settings and groups that may differ between arms.
    """
    count: dict[str, dict[str, list[Any]]] = {}  # task -> set-up -> arms, runs, an entry
    for index, runs in enumerate(arms):
        for entry in (entry for run in runs for entry in run.tasks if entry["start"] == "pretrained"):
            tally = count.setdefault(entry["task"], {}).setdefault(_setup(entry, free=free), [set(), 0, entry])
            tally[0].add(index)
            tally[1] += 1
    best = {
        task: max(several.values(), key=lambda tally: (len(tally[0]), tally[1], bool(tally[2].get("set_up"))))[2]
        for task, several in count.items()
    }
    return [[_with(run, [entry for entry in run.tasks if _kept(entry, best, free)]) for run in runs] for runs in arms]


def _with(run: Run, tasks: list[dict[str, Any]]) -> Run:
    if len(tasks) == len(run.tasks):
        return run
    made = copy.copy(run)
    made.tasks = tasks
    return made


def _kept(entry: dict[str, Any], best: dict[str, dict[str, Any]], free: Sequence[str]) -> bool:
    return entry["start"] != "pretrained" or alike(entry, best[entry["task"]], free)


def alike(first: dict[str, Any], second: dict[str, Any], free: Sequence[str]) -> bool:
    """Whether two fine-tunings have one set-up; older ones recorded only their recipe, which then decides."""
    both = bool(first.get("set_up") and second.get("set_up"))
    return _setup(first, both, free) == _setup(second, both, free)


def _setup(entry: dict[str, Any], whole: bool = True, free: Sequence[str] = ()) -> str:
    """What has to be equal between fine-tunings, as text; kept in the entry, as every score needs it."""
    key = f"{_WHOLE if whole else _RECIPE} {','.join(free)}"
    if key not in entry:
        parts = {"recipe": entry.get("recipe") or {}, "set_up": (entry.get("set_up") or {}) if whole else {}}
        named = flat(parts) | {"metric": entry.get("metric"), "seeds": entry.get("seeds")}
        named = {k: v for k, v in named.items() if not any(k == name or k.startswith(f"{name}.") for name in free)}
        entry[key] = json.dumps(named, sort_keys=True, default=str)
    return str(entry[key])
