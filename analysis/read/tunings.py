"""Arms that differ in fine-tuning: which fine-tunings of a run are those of an arm.

Such arms share their pretraining, so a run is in several of them. A fine-tuning records the settings that changed its
numbers: without a teacher it has no group ``distil``, without copies no group ``augment``, without facts no group
``knowledge``.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from albert_ablate.config.labels import TUNED
from albert_ablate.tasks.unit_settings import LATER_COMMON

_PREFIX = "task."
#: The group of facts beside the texts. A term of its name says which kind.
_FACTS = "knowledge"
#: Setting whose value decides whether a group is recorded -> the group.
_GROUPS = {"task.distil.teacher": "distil", "task.augment.copies": "augment", _FACTS: _FACTS}
#: Settings that name a run or a file, of which there may be another copy elsewhere.
_PATHS = ("task.augment.masked_lm", "task.augment.word_vectors", f"{_FACTS}.file")
#: Values of an arm whose terms do not say them, where those of another arm do.
_IMPLICIT = {"task.start": "pretrained", "task.distil.teacher": None, "task.augment.copies": 0}
#: The same of facts, where an arm has terms of these.
_IMPLICIT_FACTS = {_FACTS: "none"}
#: What differs between fine-tunings of different settings besides these: augmentation changes the number of examples.
_FOLLOWING = {
    "task.augment.copies": ("recipe.steps", "recipe.warmup_steps", "recipe.epochs", "recipe.warmup"),
    "task.distil.predictions": ("recipe.steps", "recipe.warmup_steps", "recipe.epochs", "recipe.warmup"),
}

#: Parts of the set-up of a fine-tuning in which kinds of fine-tuning may differ.
OPEN = (
    "set_up.all_tasks.distil", "set_up.all_tasks.augment", "set_up.all_tasks.knowledge", "set_up.all_tasks.start",
    "recipe.steps", "recipe.warmup_steps", "recipe.epochs", "recipe.warmup",
)  # fmt: skip

#: Settings of all tasks of which a run may have fine-tunings with several values: then each value is a kind.
_READING = ("pool", "head")

Terms = Mapping[str, Any]


def without(terms: Terms) -> dict[str, Any]:
    """``terms`` without those of fine-tuning."""
    return {key: value for key, value in terms.items() if not _is_tuning(key)}


def _is_tuning(key: str) -> bool:
    return key.startswith(_PREFIX) or key.partition(".")[0] == _FACTS


def of_arms(arms: Mapping[str, Terms]) -> dict[str, dict[str, Any]]:
    """Arm -> its settings of fine-tuning, with those that only other arms set at their implicit values.

    Empty for every arm if no arm sets any.
    """
    arms = {arm: _shortened(terms) for arm, terms in arms.items()}
    named = {key for terms in arms.values() for key in terms if _is_tuning(key)} - set(_PATHS)
    implicit = {key: value for key, value in _IMPLICIT.items() if named}
    implicit |= {key: value for key, value in _IMPLICIT_FACTS.items() if named}
    return {arm: implicit | {key: value for key, value in terms.items() if key in named} for arm, terms in arms.items()}


def _shortened(terms: Terms) -> dict[str, Any]:
    """``terms`` with ``knowledge`` for ``knowledge.name``."""
    return {_FACTS if key == f"{_FACTS}.name" else key: value for key, value in terms.items()}


def has_facts(entry: Mapping[str, Any]) -> bool:
    """Whether a fine-tuning read facts beside its texts."""
    return _FACTS in ((entry.get("set_up") or {}).get("all_tasks") or {})


def free(tunings: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """What may differ between fine-tunings of the arms of ``of_arms``: the settings that do, and what follows.

    Names are those of ``task_setups``: ``recipe.steps``, ``set_up.all_tasks.head``.
    """
    names = {key for settings in tunings.values() for key in settings}
    apart = [name for name in names if len({repr(settings.get(name)) for settings in tunings.values()}) > 1]
    found: list[str] = []
    for name in sorted(apart):
        inner = name.removeprefix(_PREFIX)
        found += [f"set_up.all_tasks.{_GROUPS.get(name, inner)}", *_FOLLOWING.get(name, ())]
    return tuple(dict.fromkeys(found))


def chosen(entries: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The fine-tunings of an arm, all given as ``pretrained``, so that scores are read in one way."""
    return [{**entry, "start": "pretrained"} for entry in entries if _fits(entry, settings)]


def _fits(entry: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    common = (entry.get("set_up") or {}).get("all_tasks") or {}
    for name, wanted in settings.items():
        if name == "task.start":
            fits = entry["start"] == wanted
        elif name == "task.distil.teacher":
            fits = ("distil" in common) == (wanted is not None)
        elif name == "task.augment.copies":
            fits = (common.get("augment") or {}).get("copies", 0) == wanted
        elif name == _FACTS:
            fits = (common.get(_FACTS) or {}).get("name", "none") == wanted
        else:
            fits = _recorded(common, name.removeprefix(_PREFIX), wanted) == wanted
        if not fits:
            return False
    return True


def _recorded(common: Mapping[str, Any], path: str, wanted: Any) -> Any:
    """A recorded setting; ``wanted`` in a group that the fine-tuning does not have, where it has no effect."""
    group, _, name = path.rpartition(".")
    if group:
        return common.get(group, {}).get(name, wanted)
    return common.get(name, LATER_COMMON.get(name))


def kind_of(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What a fine-tuning has of distillation, augmentation and facts: flat, as the group ``TUNED`` of an arm."""
    common = (entry.get("set_up") or {}).get("all_tasks") or {}
    distil, augment = common.get("distil"), common.get("augment")
    kind = {"task_teacher": distil is not None, "copies": (augment or {}).get("copies", 0)}
    kind["task_start"] = entry["start"]
    facts = common.get(_FACTS) or {}
    kind |= {_FACTS if name == "name" else name: value for name, value in facts.items()}
    return kind | {name: value for name, value in (distil or {}).items() if name != "cache"}


def in_kinds(runs: pd.DataFrame) -> pd.DataFrame:
    """``runs`` with a row for each kind of fine-tuning of a run, named in its settings; as they are with one kind.

    Fine-tunings from random weights are a kind of their own only with a teacher, augmentation or facts. Those with
    other poolings or heads are where a run has several.
    """
    shown = [[entry for entry in tasks if _is_shown(entry)] for tasks in runs["tasks"]]
    read = [name for name in _READING if any(_in_several_ways(entries, name) for entries in shown)]
    read += [_FACTS] if any(has_facts(entry) for entries in shown for entry in entries) else []
    kinds = {json.dumps(_kind(entry, read), sort_keys=True) for entries in shown for entry in entries}
    if len(kinds) < 2:
        return runs
    rows = []
    for run, entries in zip(runs.to_dict("records"), shown, strict=True):
        by_kind: dict[str, list[dict[str, Any]]] = {}
        for entry in entries:
            made = by_kind.setdefault(json.dumps(_kind(entry, read), sort_keys=True), [])
            made.append({**entry, "start": "pretrained"})
        for kind, members in (by_kind or {json.dumps(_PLAIN | _of(read), sort_keys=True): []}).items():
            rows.append(run | {"tasks": members, "config": run["config"] | {TUNED: json.loads(kind)}})
    return pd.DataFrame(rows, columns=list(runs.columns))


def _in_several_ways(entries: Sequence[Mapping[str, Any]], name: str) -> bool:
    """Whether a run has fine-tunings of one task with several values of a setting of all tasks."""
    found: dict[str, set[str]] = {}
    for entry in entries:
        found.setdefault(entry["task"], set()).add(str(_of([name], entry)[name]))
    return any(len(values) > 1 for values in found.values())


def _of(names: Sequence[str], entry: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The recorded values of settings of all tasks, or their defaults."""
    common = ((entry or {}).get("set_up") or {}).get("all_tasks") or {}
    found = {name: _recorded(common, name, None) for name in names if name != _FACTS}
    return found | ({_FACTS: (common.get(_FACTS) or {}).get("name", "none")} if _FACTS in names else {})


def _kind(entry: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return kind_of(entry) | _of(names, entry)


def open_between(runs: pd.DataFrame) -> tuple[str, ...]:
    """What may differ between the fine-tunings of ``runs``, which are ``in_kinds``; nothing where there is one kind."""
    kinds = [config[TUNED] for config in runs["config"] if TUNED in config]
    read = [f"set_up.all_tasks.{name}" for name in _READING if any(name in kind for kind in kinds)]
    return (*OPEN, *read) if kinds else ()


#: The kind of a fine-tuning without teacher and augmentation.
_PLAIN = {"task_teacher": False, "copies": 0, "task_start": "pretrained"}


def _is_shown(entry: Mapping[str, Any]) -> bool:
    kind = kind_of(entry)
    return entry["start"] == "pretrained" or kind["task_teacher"] or bool(kind["copies"]) or _FACTS in kind
