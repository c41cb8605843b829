"""Labels of runs that are shown together: every setting in which they differ, in the words of the command line."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from albert_ablate.axes import AXES
from albert_ablate.axes.attention import unread_blocks
from albert_ablate.axes.block import unread_inside
from albert_ablate.axes.method import unread
from albert_ablate.config.identity import BEFORE, UNSAID, comparable
from albert_ablate.config.knowledge import unread_facts

#: The settings of a run, nested or flat.
Settings = Mapping[str, Any]
SEED = "seed"
_AXES = {axis.path: axis for axis in AXES}
#: Groups outside an identity in which arms may differ, and those of fine-tuning, in which cells may differ.
_TEXT, _TUNING = ("data", "tokenizer"), ("task", "tasks", "knowledge")
#: Setting -> what names the fine-tuned tasks of a cell.
_TASKS = "tasks"
#: Settings that choose an option of their group, and the scale, which chooses options of many groups. What follows from
#: such a choice is not shown beside it.
_CHOICES = ("scale.name", "model.name", "data.name", "tokenizer.name", "optimizer.name", "budget.unit")
#: Choices that only name other settings: shown only where these differ.
_ONLY_NAMES = ("scale.name", "model.name")
#: Setting -> the one that it is usually set with; not shown where it follows from that one.
_COMPANIONS = {
    "model.heads": "model.hidden", "model.intermediate": "model.hidden", "budget.warmup_steps": "budget.steps",
    "model.attention_dropout": "model.hidden_dropout", "batch.micro_size": "batch.size",
    "method.start": "method.name", "method.pooler": "method.token_types", "method.teacher_depth": "model.layers",
    "tokenizer.model_path": "init.run_id",
}  # fmt: skip
#: The group of settings of an arm that say how it is fine-tuned, where arms differ in that; no run records it.
TUNED = "fine_tuning"
#: Setting that identifies the parent of a run that continues another.
PARENT = "init.run_id"
#: The mark of a setting that a run does not read.
_UNREAD = "unread"
_NAMES = {
    **{axis.path: axis.group for axis in AXES}, **{path: path.split(".")[0] for path in _CHOICES},
    "warm_start.layers": "after", "warm_start.length": "after_length", _TASKS: "task", "knowledge.name": "knowledge",
    PARENT: "from",
}  # fmt: skip


def flatten(values: Settings, prefix: str = "") -> dict[str, Any]:
    """Nested settings as one dictionary with dotted names."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def settings_of(values: Settings) -> dict[str, Any]:
    """Full name -> value of every setting of a run, from its nested plain settings (``config.yaml``)."""
    tasks = {_TASKS: "+".join(values.get(_TASKS) or ()) or "none"}
    return {**UNSAID, **BEFORE} | flatten(values) | {axis.path: axis.of(values) for axis in AXES} | tasks


def varying(runs: Sequence[Settings], tuning: bool = False) -> tuple[str, ...]:
    """Full names of the settings in which runs differ: axes first, in the order of ``AXES``, then the others.

    ``runs``: nested plain settings; ``tuning``: with those of fine-tuning, in which cells differ and arms do not. A
    setting that follows from a varying choice (the scale, a named model) or from its usual companion (heads from the
    width) is left out. The seed is not one of the settings.
    """
    apart = _apart(runs, tuning)
    for name in _ONLY_NAMES:
        if name in apart and not any(_follows(apart, other, name) for other in apart if other != name):
            del apart[name]
    return tuple(name for name in apart if not any(_follows(apart, name, cause) for cause in _causes(name, apart)))


def differing(runs: Sequence[Settings]) -> tuple[str, ...]:
    """``varying``, with the settings that follow from others."""
    return tuple(_apart(runs, tuning=False))


def _apart(runs: Sequence[Settings], tuning: bool) -> dict[str, list[str]]:
    """Setting -> its value in each run, as JSON, for the settings in which runs differ."""
    names = dict.fromkeys((*_AXES, *_CHOICES, *((_TASKS,) if tuning else ())))
    for values in runs:
        compared = comparable({group: inner for group, inner in values.items() if group != SEED})
        groups = (*_TEXT, *_TUNING) if tuning else _TEXT
        names |= dict.fromkeys(flatten(compared | {group: values[group] for group in groups if group in values}))
    flat = [settings_of(values) for values in runs]
    idle = [_unread(settings) for settings in flat]
    columns = {
        name: [
            _UNREAD if name in ignored or _absent(name, settings) else json.dumps(settings.get(name), default=str)
            for settings, ignored in zip(flat, idle, strict=True)
        ]
        for name in names
    }
    return {name: column for name, column in columns.items() if len(set(column) - {_UNREAD}) > 1}


def _causes(name: str, apart: Iterable[str]) -> list[str]:
    """The varying settings that may make a setting redundant."""
    if name in _AXES or name == _CHOICES[0]:
        return []
    chosen = (_CHOICES[0], *(path for path in (*_CHOICES, _TASKS) if path.split(".")[0] == name.split(".")[0]))
    return [path for path in apart if path != name and path in (*chosen, _COMPANIONS.get(name))]


def _follows(columns: Mapping[str, Sequence[str]], name: str, cause: str) -> bool:
    """Whether every value of ``cause`` comes with one value of ``name``, where a run reads ``name``."""
    pairs = {(c, n) for c, n in zip(columns[cause], columns[name], strict=True) if n != _UNREAD}
    return len(pairs) == len({c for c, _ in pairs})


def key_name(name: str, beside: Sequence[str] = ()) -> str:
    """What the command line calls a setting: ``share``, ``layers``; the full name if another of ``beside`` has it."""
    short = _short(name)
    return name if any(path != name and _short(path) == short for path in beside) else short


def _short(name: str) -> str:
    return _NAMES.get(name, name.rpartition(".")[2])


def value_name(name: str, value: Any) -> str:
    """A value alone, as in a column of its setting: ``all shared``, ``E=32``, ``6``."""
    if name in _AXES:
        return _AXES[name].label_of(value)
    return value if isinstance(value, str) else json.dumps(value, default=str)


def shown_value(name: str, settings: Settings) -> str:
    """``value_name`` of a setting of a run with the flat ``settings``; a parent is named by its folder and identity."""
    value = settings.get(name)
    if name != PARENT:
        return value_name(name, value)
    if value is None:
        return "scratch"
    folder = PurePath(str(settings.get("init.run"))).name
    return folder if folder.endswith(str(value)) else f"{folder}-{value}"


def is_read(name: str, settings: Settings) -> bool:
    """Whether a run with the flat ``settings`` reads the setting ``name``."""
    return name not in _unread(settings) and not _absent(name, settings)


def _unread(settings: Settings) -> frozenset[str]:
    """Full names of the settings that a run does not read, by its method, attention, layers and facts."""
    return frozenset(unread(settings)) | unread_facts(settings) | unread_blocks(settings) | unread_inside(settings)


def _absent(name: str, settings: Settings) -> bool:
    return name.startswith(f"{TUNED}.") and name not in settings


def rank(name: str, value: Any) -> tuple[float, str]:
    """Sort key of a value: its place in the axis, the number itself, or the text behind all numbers."""
    if name in _AXES:
        return _AXES[name].rank(value), ""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return (float(value), "") if number else (math.inf, str(value))


def arm_labels(runs: Sequence[Settings]) -> list[str]:
    """``all shared, layers=3`` for each run: the settings that vary among ``runs``, without the seed.

    ``runs``: nested plain settings, as in ``config.yaml`` or of ``RunConfig.as_dict()``. Runs with equal settings have
    equal labels, others never. Empty labels where nothing varies.
    """
    return _labels(runs, tuning=False)


def _labels(runs: Sequence[Settings], tuning: bool) -> list[str]:
    keys = varying(runs, tuning)
    return [joined(values, keys) for values in runs]


def joined(values: Settings, keys: Sequence[str]) -> str:
    """``all shared, layers=3``: the settings ``keys`` (full names) of one run, from its nested plain settings.

    Settings that its method does not read are left out.
    """
    flat = settings_of(values)
    named = {key: shown_value(key, flat) for key in keys if is_read(key, flat)}
    return ", ".join(
        shown if key in _AXES else f"from {shown}" if key == PARENT else f"{key_name(key, keys)}={shown}"
        for key, shown in named.items()
    )


def run_labels(runs: Sequence[Settings]) -> list[str]:
    """``all shared, layers=3, seed 0`` for each cell of a sweep: ``arm_labels``, its fine-tuned task and the seed.

    Only what varies is shown. All labels are distinct: equal ones get a number (``#2``). Empty where nothing varies.
    """
    several = len({values.get(SEED) for values in runs}) > 1
    seen: Counter[str] = Counter()
    labels = []
    for label, values in zip(_labels(runs, tuning=True), runs, strict=True):
        full = ", ".join(part for part in (label, f"seed {values.get(SEED)}" if several else "") if part)
        seen[full] += 1
        labels.append(f"{full} #{seen[full]}" if seen[full] > 1 else full)
    return labels
