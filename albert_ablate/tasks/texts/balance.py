"""Class balance of a task: the dev split, class weights, and notes for the user."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from albert_ablate.config.tasks import TextConfig
from albert_ablate.data.text import side_of
from albert_ablate.errors import DataError
from albert_ablate.tasks.texts.labels import listed
from albert_ablate.tasks.texts.sets import Example, ExampleSets


def hold_out(examples: Sequence[Example], task: TextConfig) -> tuple[list[Example], list[Example]]:
    """(training, dev) parts of the rows of one file; equal texts are always on the same side."""
    if task.dev_split == "label":
        held_out = _share_of_each_class(examples, task.dev_fraction)
    else:
        held_out = {text for text in map(_text, examples) if side_of(text, task.dev_fraction) == "valid"}
    return [e for e in examples if _text(e) not in held_out], [e for e in examples if _text(e) in held_out]


def _text(example: Example) -> str:
    return f"{example.first}\x1f{example.second}"


def _share_of_each_class(examples: Sequence[Example], fraction: float) -> set[str]:
    """Texts to hold out: ``fraction`` of each class by a hash of the text, at least one but never all.

    A text that occurs with several labels counts for the first one.
    """
    of_class: dict[object, list[str]] = defaultdict(list)
    for text, target in {_text(e): e.target for e in reversed(examples)}.items():
        of_class[target].append(text)
    held_out: set[str] = set()
    for texts in of_class.values():
        count = min(max(1, round(fraction * len(texts))), len(texts) - 1)
        held_out.update(sorted(texts, key=lambda text: hashlib.blake2b(text.encode(), digest_size=8).digest())[:count])
    return held_out


def weigh(sets: ExampleSets, task: TextConfig) -> None:
    """Set the loss weight of each class. Raises DataError if the given weights do not fit the classes.

    ``balanced`` uses scikit-learn's formula: training examples / (classes x examples of the class).
    """
    if task.class_weights == "none":
        return
    field = f"tasks.{task.name}.class_weights"
    if task.class_weights == "balanced":
        counts = np.bincount([int(e.target) for e in sets.train], minlength=len(sets.names))  # type: ignore[arg-type]
        if not counts.all():
            missing = [name for name, count in zip(sets.names, counts, strict=True) if not count]
            raise DataError(f"{field}=balanced: no training example of {listed(missing)}, so it can have no weight.")
        weights = counts.sum() / (len(counts) * counts)
    else:
        weights = np.array(task.class_weights)
        if len(weights) != len(sets.names):
            raise DataError(
                f"{field} has {len(weights)} weights for {len(sets.names)} classes; give one for each of "
                f"{listed(sets.names)}, in this order."
            )
    sets.weights = tuple(float(weight) for weight in weights)
    sets.counts["class_weights"] = dict(zip(sets.names, sets.weights, strict=True))


def class_notes(sets: ExampleSets, split: str | None) -> list[str]:
    """A note for each class that can hardly be learned or measured.

    ``split``: the setting that would hold out a share of every class, or None if it is in use or does not apply.
    """
    if sets.kind == "values":
        return []
    train, notes = _members(sets, sets.train), []
    rows = len(sets.train)
    missing = [name for name in sets.names if not train[name]]
    if missing:
        notes.append(f"no training example of {_number(missing, sets)}: {listed(missing)}; it cannot be learned")
    single = [name for name in sets.names if train[name] == 1]
    if sets.kind == "classes" and 2 * len(sets.names) > rows:
        notes.append(
            f"{len(sets.names)} classes for {rows:,} training examples: is the column of labels the right one?"
        )
    elif single:
        notes.append(f"a single training example of {_number(single, sets)}: {listed(single)}")
    for name, examples in sets.dev.items():
        present = _members(sets, examples)
        absent = [label for label in sets.names if not present[label]]
        if absent:
            helps = split and any(train[label] > 1 for label in absent)
            remedy = f". {split} holds out a share of every class" if helps else ""
            notes.append(
                f"{name} has no example of {_number(absent, sets)}: {listed(absent)}; its scores say nothing about it, "
                f"and macro F1 leaves it out unless it is predicted{remedy}"
            )
    return notes


def _members(sets: ExampleSets, examples: Sequence[Example]) -> Counter[str]:
    """Class or label -> number of its examples."""
    if sets.kind == "classes":
        return Counter(sets.names[int(e.target)] for e in examples)  # type: ignore[arg-type]
    targets = np.array([e.target for e in examples])
    return Counter(dict(zip(sets.names, targets.sum(0).astype(int).tolist(), strict=True)))


def _number(names: Sequence[str], sets: ExampleSets) -> str:
    kind = {"classes": "class", "labels": "label"}[sets.kind]
    return f"{len(names)} of {len(sets.names)} {kind if len(sets.names) == 1 else sets.kind}"
