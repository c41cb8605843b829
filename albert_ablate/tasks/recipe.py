"""A task's hyperparameters: its recipe (paper, Table 14), scaled, with the user's overrides."""

from dataclasses import asdict, dataclass
from typing import Any

from albert_ablate.config.tasks import ScalingConfig, TaskBase


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters of one fine-tuning."""

    learning_rate: float
    batch_size: int
    steps: int
    warmup_steps: int
    max_length: int
    dropout: float
    classifier_dropout: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def max_length(task: TaskBase, scaling: ScalingConfig, positions: int) -> int:
    """Most tokens of a sequence: the user's value, or the smaller of recipe and scale; at most ``positions``.

    ``config`` refuses a user's value above the model's positions.
    """
    return min(wanted_length(task, scaling), positions)


def wanted_length(task: TaskBase, scaling: ScalingConfig) -> int:
    """``max_length`` for a model with enough positions."""
    full = task.recipe.max_length
    return task.max_length or min(full, scaling.max_length or full)


def resolve(task: TaskBase, scaling: ScalingConfig, examples: int, positions: int) -> Recipe:
    """The recipe for ``examples`` training examples. The user's values for the task are never scaled.

    ``scaling.steps=recipe`` uses the steps of Table 14. ``scaling.steps=epochs`` uses the recipe's number of
    epochs times ``scaling.epochs``, and warms up for the same share of the steps.
    """
    full = task.recipe
    batch = task.batch_size or min(full.batch_size, scaling.batch_size or full.batch_size)
    overridden = task.steps is not None or task.epochs is not None or task.batch_size is not None
    if task.steps is not None:
        steps = task.steps
    elif scaling.steps == "recipe" and full.steps is not None and not overridden:
        steps = full.steps
    else:
        epochs = task.epochs if task.epochs is not None else full.epochs * scaling.epochs
        steps = max(1, int(examples * epochs / batch))
    exact = steps == full.steps and full.warmup_steps is not None
    warmup = full.warmup_steps if exact and full.warmup_steps is not None else int(full.warmup * steps)
    return Recipe(
        learning_rate=task.learning_rate or full.learning_rate * scaling.learning_rate,
        batch_size=batch,
        steps=steps,
        warmup_steps=min(task.warmup_steps if task.warmup_steps is not None else warmup, steps - 1),
        max_length=max_length(task, scaling, positions),
        dropout=full.dropout if task.dropout is None else task.dropout,
        classifier_dropout=full.classifier_dropout if task.classifier_dropout is None else task.classifier_dropout,
    )
