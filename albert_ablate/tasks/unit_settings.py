"""The settings of a fine-tuning that change its numbers: the only rule for the identities and set-ups of units."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Protocol

from albert_ablate.config.tasks import FineTuneConfig, TaskConfig

#: Settings that do not change the numbers: of all tasks, and of one task.
_INCIDENTAL = ("source", "data_dir", "seeds", "keep_weights", "bag_of_words")
_NAMES = ("name", "hub", "train_file", "dev_file", "test_file")
#: Settings of all tasks that only heads for whole sequences read.
_POOLING = ("pool", "head")
#: Group -> settings that name a run or a file, whose own identity counts, or that do not change the numbers.
_PATHS = {"distil": ("teacher", "cache"), "augment": ("masked_lm", "word_vectors")}
#: Settings added later -> the value that older versions had implicitly, of all tasks and of one task. At this value a
#: setting is left out of identities, so that older fine-tunings keep their names.
LATER_COMMON: Mapping[str, Any] = {
    "pool": "first", "head": "pooled", "label_pieces": "first",
    "optimizer": {"layer_decay": None, "layer_decay_rule": "released"},
}  # fmt: skip
LATER: Mapping[str, Any] = {"dev_split": "text", "class_weights": "none", "choose_by": None, "f1_unit": "auto"}


class Located(Protocol):
    """Facts, as far as they identify a fine-tuning."""

    @property
    def settings(self) -> dict[str, Any]:
        """What changes the numbers: settings, and the content of the table."""


def common_settings(common: FineTuneConfig, task: TaskConfig, facts: Located | None = None) -> dict[str, Any]:
    """The settings of all tasks that change the numbers of ``task``, which is read with ``facts``."""
    unread = [*_INCIDENTAL, *(() if task.pools else _POOLING)]
    unread += [] if task.labels_words else ["label_pieces"]
    unread += [] if common.distil.teacher else ["distil"]
    unread += [] if common.augment.copies else ["augment"]
    settings = {k: v for k, v in asdict(common).items() if k not in unread}
    for group, paths in _PATHS.items():
        if group in settings:
            settings[group] = {k: v for k, v in settings[group].items() if k not in paths}
    knowledge = {} if facts is None else {"knowledge": facts.settings}
    return _without(settings, LATER_COMMON) | knowledge


def task_settings(task: TaskConfig) -> dict[str, Any]:
    """The settings of one task that change the numbers."""
    return _without({k: v for k, v in asdict(task).items() if k not in _NAMES}, LATER)


def completed(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """The recorded settings of all tasks, with the values that the unit had implicitly where it recorded none."""
    optimizer = {**LATER_COMMON["optimizer"], **recorded["optimizer"]}
    return {**LATER_COMMON, **recorded, "optimizer": optimizer}


def _without(values: Mapping[str, Any], implicit: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` without those that are equal to ``implicit``; mappings of both are compared inside."""
    kept = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and key in implicit:
            kept[key] = _without(value, implicit[key])
        elif key not in implicit or value != implicit[key]:
            kept[key] = value
    return kept
