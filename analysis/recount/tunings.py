"""Arms that differ in fine-tuning: their fine-tunings among those of a run, and what may differ between arms."""

import copy
import json
from collections.abc import Mapping, Sequence
from typing import Any

from .files import at
from .runs import Run
from .task_setups import one_setup_each

Terms = Mapping[str, Any]
#: Paths, which say nothing about the numbers.
_IDLE = ("task.augment.masked_lm", "task.augment.word_vectors", "knowledge.file")
_STEPS = ["recipe.steps", "recipe.warmup_steps", "recipe.epochs", "recipe.warmup"]


def of_arms(arms: Sequence[Terms]) -> list[dict[str, Any]]:
    """The settings of fine-tuning of each arm; empty if no arm has any."""
    own = [
        {
            ("knowledge" if k == "knowledge.name" else k): v
            for k, v in terms.items()
            if k.startswith(("task.", "knowledge")) and k not in _IDLE
        }
        for terms in arms
    ]
    if not any(own):
        return own
    plain = {"task.start": "pretrained", "task.distil.teacher": None, "task.augment.copies": 0, "knowledge": "none"}
    return [plain | settings for settings in own]


def own(runs: Sequence[Run], settings: Terms) -> list[Run]:
    """The runs of an arm, each with the arm's fine-tunings of one set-up."""
    if not settings:
        return list(runs)
    return one_setup_each([[_with_own(run, settings) for run in runs]])[0]


def _with_own(run: Run, settings: Terms) -> Run:
    made = copy.copy(run)
    made.tasks = [entry | {"start": "pretrained"} for entry in run.tasks if _belongs(entry, settings)]
    return made


def _belongs(entry: dict[str, Any], settings: Terms) -> bool:
    recorded: dict[str, Any] = at(entry, "set_up.all_tasks") or {}
    for path, value in settings.items():
        name = path.removeprefix("task.")
        group = recorded.get(name.split(".")[0])
        if name == "start":
            good = entry["start"] == value
        elif name == "distil.teacher":
            good = (group is None) == (value is None)
        elif name == "augment.copies":
            good = (group["copies"] if group else 0) == value
        elif name == "knowledge":
            good = (group["name"] if group else "none") == value
        elif "." in name:
            good = group is None or group.get(name.split(".")[1], value) == value
        else:
            good = recorded.get(name, {"pool": "first", "head": "pooled"}.get(name)) == value
        if not good:
            return False
    return True


def open_between(settings: Sequence[Terms]) -> list[str]:
    """Names of what may differ between arms: the settings in which they differ, and the steps that follow from them."""
    names: set[str] = set()
    for path in {path for of_arm in settings for path in of_arm}:
        if len({str(of_arm.get(path)) for of_arm in settings}) < 2:
            continue
        name = path.removeprefix("task.")
        whole = path in ("task.distil.teacher", "task.augment.copies", "knowledge")
        names.add(f"set_up.all_tasks.{name.split('.')[0] if whole else name}")
        names |= set(_STEPS) if path in ("task.augment.copies", "task.distil.predictions") else set()
    return sorted(names)


#: What may differ between arms of different kinds of fine-tuning.
BETWEEN_KINDS = (*(f"set_up.all_tasks.{name}" for name in ("distil", "augment", "knowledge", "start")), *_STEPS)


#: Settings that are part of a kind where a run was fine-tuned with several values -> the value of older fine-tunings.
_READS = {"pool": "first", "head": "pooled"}


def of_kind(runs: Sequence[Run], kind: str | None) -> list[Run]:
    """The runs with their fine-tunings of one kind, the JSON text of a report; all of them without a kind."""
    if not kind:
        return list(runs)
    wanted: dict[str, Any] = json.loads(kind)
    kept = []
    for run in runs:
        made = copy.copy(run)
        made.tasks = [entry | {"start": "pretrained"} for entry in run.tasks if _kind(entry, wanted) == wanted]
        kept.append(made)
    return kept


def between(kinds: Sequence[str]) -> tuple[str, ...]:
    """What may differ between arms of the ``kinds``, JSON texts of a report."""
    named = {name for kind in kinds if kind for name in json.loads(kind)}
    return (*BETWEEN_KINDS, *(f"set_up.all_tasks.{name}" for name in _READS if name in named))


def _kind(entry: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    distil, augment, facts = (at(entry, f"set_up.all_tasks.{name}") for name in ("distil", "augment", "knowledge"))
    kind: dict[str, Any] = {"task_teacher": bool(distil is not None), "copies": augment["copies"] if augment else 0}
    kind["task_start"] = entry["start"]
    kind |= {name: at(entry, f"set_up.all_tasks.{name}") or was for name, was in _READS.items() if name in wanted}
    kind |= {"knowledge": "none"} if "knowledge" in wanted else {}
    kind |= {"knowledge" if name == "name" else name: value for name, value in (facts or {}).items()}
    return kind | {name: value for name, value in (distil or {}).items() if name != "cache"}
