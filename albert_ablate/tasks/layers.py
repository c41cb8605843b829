"""The first stage of task distillation: a student's embedding, layers and attention imitate a teacher's.

Jiao et al. (2020), section 3.2; the learning rate is constant, as in the released ``task_distill.py``.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from albert_ablate.config.schema import RuntimeConfig
from albert_ablate.config.tasks import FineTuneConfig
from albert_ablate.console import Progress
from albert_ablate.methods.method import Term
from albert_ablate.model.base import without_values
from albert_ablate.model.encoder import Encoder
from albert_ablate.model.imitation import Imitation, ImitationSettings, Observed, observe
from albert_ablate.model.pretraining import initialise
from albert_ablate.record.folder import RunFolder
from albert_ablate.record.tasks import FirstStage
from albert_ablate.tasks.recipe import Recipe
from albert_ablate.tasks.task import FeatureSet, Task, TaskBatch, training_on
from albert_ablate.tasks.task_loop import TaskLoop
from albert_ablate.training.checkpoint import Owner
from albert_ablate.training.machine import Machine
from albert_ablate.training.sums import Sums, Totals

#: Batch -> what the teacher shows of it.
Shown = Callable[[TaskBatch], Observed]


class Imitating(nn.Module):
    """A student and the projections to its teacher's width, which only this stage needs."""

    def __init__(self, student: nn.Module, imitation: Imitation) -> None:
        super().__init__()
        self.student = student
        self.imitation = imitation


class LayerTuner(TaskLoop):
    """Trains a task's model on the losses over layers; ``fit`` leaves the student's weights in the model it was given.

    Its head gets no gradient.
    """

    stage = "layers "

    def __init__(
        self,
        task: Task,
        student: nn.Module,
        teacher: Encoder,
        recipe: Recipe,
        common: FineTuneConfig,
        seed: int,
        folder: RunFolder,
        owner: Owner,
        machine: Machine,
        runtime: RuntimeConfig,
    ) -> None:
        """``recipe`` is that of the second stage. ``teacher`` is in eval mode on the machine's device.

        The targets of batches are the numbers of their examples, by which kept outputs of the teacher are found.
        """
        distil = common.distil
        self._imitation = ImitationSettings.of(distil)
        encoder = student.encoder
        assert isinstance(encoder, Encoder)
        projections = without_values(lambda: Imitation(self._imitation, encoder.shape, teacher.shape))
        initialise(projections, encoder.shape.initializer_range, seed)
        self._ours, self._theirs = self._imitation.pairs(encoder.shape.layers, teacher.shape.layers)
        self._encoder, self._teacher = encoder, teacher
        self._projections = projections
        batch = min(recipe.batch_size, len(task.train))
        steps = max(1, math.ceil(task.examples * distil.epochs / batch))
        stage = replace(recipe, steps=steps, warmup_steps=0, learning_rate=distil.learning_rate)
        self.losses: dict[str, float] = {}  # of the last log line
        self.shown: Shown = self.compute_shown
        super().__init__(
            _numbered(task), Imitating(student, projections), stage, common, seed, folder, owner, machine, runtime
        )
        self.title = f"{self.title}, layers"

    def terms(self, batch: TaskBatch) -> Sequence[Term]:
        """The losses over layers, each a mean over the batch."""
        losses = self._projections.losses(
            self._observed(self._encoder, batch, self._ours), self.shown(batch), batch.mask
        )
        weights = self._imitation.weights
        return [Term(name, loss, per, weight=weights[name]) for name, (loss, per) in losses.items()]

    @torch.no_grad()
    def compute_shown(self, batch: TaskBatch) -> Observed:
        """What the teacher shows of a (micro-)batch on the device."""
        with self.machine.autocast():
            return self._observed(self._teacher, batch, self._theirs)

    def _observed(self, encoder: Encoder, batch: TaskBatch, layers: Sequence[int]) -> Observed:
        return observe(encoder, batch.input_ids, batch.type_ids, batch.mask, layers, self._imitation.target)

    def shaped(self, part: TaskBatch) -> TaskBatch:
        """Padded so that few widths occur, unless padding counts."""
        return part if self._imitation.padding == "released" else super().shaped(part)

    def update(
        self, step: int, batch: Any, position: float | None = None, counts: Mapping[str, int] | None = None
    ) -> Totals:
        """A step at the constant learning rate: that of the schedule's beginning, which has no warm-up."""
        return super().update(step, batch, 0.0, counts)

    def scored_at(self, done: int, over: bool) -> bool:
        """Never: the head is not trained yet."""
        return False

    def logged_at(self, done: int, seconds: float) -> bool:
        """Also after the last step."""
        return done == self.recipe.steps or super().logged_at(done, seconds)

    def saved_at(self, done: int, scored: bool) -> bool:
        """Every ``runtime.checkpoint_every`` steps."""
        return done % self.runtime.checkpoint_every == 0

    def log(self, done: int, position: float, sums: Sums, scored: bool, progress: Progress) -> None:
        """Write and show the line, with the mean of each loss since the last line."""
        self.seconds += sums.seconds
        means, weights = sums.means(), self._imitation.weights
        self.losses = {name: means[f"{name}_loss"] for name in weights}
        loss = sum(weight * self.losses[name] for name, weight in weights.items())
        self.folder.append_metrics(
            {
                "step": done, "loss": loss, **{f"{name}_loss": value for name, value in self.losses.items()},
                "learning_rate": self.learning_rate, "gradient_norm": self.gradient_norm, "seconds": self.seconds,
                "examples_per_second": sums.counts["examples"] / sums.seconds,
            }
        )  # fmt: skip
        shown = " · ".join(f"{name} {value:.3f}" for name, value in self.losses.items())
        progress.update(done, done, f"{shown} · {sums.counts['examples'] / sums.seconds:,.0f} examples/s")
        share = done / self.recipe.steps
        phase = f"distilling layers for {self.task.name}, seed {self.seed}, {share:.0%}"
        self.folder.note(phase=phase, step=done, share=share)

    def diverged(self, quantity: str, step: int) -> str:
        """The message, with the setting that helps."""
        return (
            f"{self.task.name}: the {quantity} of the first stage is not finite at step {step} (learning rate "
            f"{self.learning_rate:.3g}). Lower task.distil.learning_rate."
        )

    def progress(self) -> dict[str, Any]:
        """The losses of the last log line."""
        return {"losses": self.losses}

    def restore(self, meta: Mapping[str, Any]) -> None:
        """See ``progress``."""
        self.losses = dict(meta["losses"])

    def finish(self, done: int) -> dict[str, Any]:
        """The record of the stage."""
        return FirstStage(
            steps=self.recipe.steps,
            epochs=self.recipe.steps / self.batches.per_epoch,
            examples=self.recipe.steps * self.batches.batch_size,
            seconds=self.seconds,
            losses=self.losses,
        ).as_json()


def _numbered(task: Task) -> Task:
    """The task with the number of each training example as its target."""
    features = FeatureSet(task.train.sequences, np.arange(len(task.train)), task.train.choices)
    numbered = training_on(task, features)
    numbered.examples = task.examples
    return numbered
