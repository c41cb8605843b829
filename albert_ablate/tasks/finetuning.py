"""One fine-tuning (a unit): a pretrained encoder, trained on a task. Keeps the best weights on dev and the last."""

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from albert_ablate import console
from albert_ablate.config.schema import RuntimeConfig
from albert_ablate.config.tasks import FineTuneConfig
from albert_ablate.console import Progress
from albert_ablate.errors import CheckpointError
from albert_ablate.files import replacing
from albert_ablate.methods.method import Term
from albert_ablate.model.architecture import Architecture
from albert_ablate.model.base import without_values
from albert_ablate.model.pretraining import initialise
from albert_ablate.record import formats
from albert_ablate.record.folder import RunFolder
from albert_ablate.record.tasks import FineTuned, Scores, SetMetrics, UnitTraining, direction
from albert_ablate.tasks.batches import in_order
from albert_ablate.tasks.layer_decay import layer_scale
from albert_ablate.tasks.recipe import Recipe
from albert_ablate.tasks.task import FeatureSet, HeadSettings, Outputs, SetScores, Task, TaskBatch
from albert_ablate.tasks.task_loop import TaskLoop
from albert_ablate.training import checkpoint
from albert_ablate.training.checkpoint import Owner
from albert_ablate.training.machine import Machine
from albert_ablate.training.saving import Saver
from albert_ablate.training.sums import Sums

#: Weights that a finished fine-tuning keeps.
BEST, LAST = "best.safetensors", "last.safetensors"
#: The folder in a unit's folder of the first stage of a distillation, which imitates a teacher's layers.
LAYERS = "layers"
#: (model, micro-batch) -> the sum of its examples' losses.
Loss = Callable[[nn.Module, TaskBatch], Tensor]
#: The folder of prediction files in a unit's folder.
PREDICTIONS = "predictions"


def build_task_model(
    task: Task,
    shape: Architecture,
    recipe: Recipe,
    common: FineTuneConfig,
    seed: int,
    pretrained: Path | None,
    spread: float,
    say: Callable[[str], None] = console.say,
) -> nn.Module:
    """The task's model: the encoder of the checkpoint ``pretrained`` (None: random), its pooler, and a new head.

    Of the pretrained model only the encoder is required. If it has no pooler, that of the head is new too, which is
    told with ``say``. ``spread``: standard deviation of the initial values. Raises CheckpointError if the checkpoint
    lacks a tensor of the encoder.
    """
    head = HeadSettings(recipe.classifier_dropout, common.pool, common.head)
    model = without_values(lambda: task.build(shape, head))
    initialise(model, spread, seed)
    if pretrained is not None:
        not_loaded = checkpoint.load_matching(pretrained, model)
        missing = [name for name in not_loaded if name.startswith("encoder.")]
        if missing:
            raise CheckpointError(f"{pretrained} lacks tensors of this encoder: {', '.join(missing)}.")
        if any(name.startswith("pooler.") for name in not_loaded):
            say(
                f"  ! {task.name}: the pretrained model has no pooler, so that of the head starts untrained. With "
                "task.head=bare no arm has one."
            )
    return model


def tidy(folder: RunFolder) -> None:
    """Remove the checkpoints of a finished fine-tuning, and those of its first stage."""
    for checkpoints in (folder.checkpoints, RunFolder(folder.path, LAYERS).checkpoints):
        if checkpoints.exists():
            shutil.rmtree(checkpoints)


@torch.inference_mode()
def predict(
    task: Task,
    model: nn.Module,
    features: FeatureSet,
    machine: Machine,
    shaped: Callable[[TaskBatch], TaskBatch] | None = None,
) -> Outputs:
    """The outputs of a task's model for every example, in order. ``shaped`` changes the width of a batch."""
    model.eval()
    predicted: dict[str, np.ndarray] = {}
    for rows, batch in in_order(features):
        moved = (batch if shaped is None else shaped(batch)).to(machine.device)
        with machine.autocast():
            outputs = task.outputs(model, moved)
        for name, value in outputs.items():
            part = (value.float() if value.is_floating_point() else value).cpu().numpy()
            if name not in predicted:
                predicted[name] = np.zeros((len(features), *part.shape[1:]), part.dtype)
            predicted[name][rows] = part
    return predicted


class FineTuner(TaskLoop):
    """Trains a model on a task."""

    def __init__(
        self,
        task: Task,
        model: nn.Module,
        recipe: Recipe,
        common: FineTuneConfig,
        seed: int,
        folder: RunFolder,
        machine: Machine,
        runtime: RuntimeConfig,
        described: dict[str, Any] | None = None,
        track: Callable[[int, dict[str, float]], None] = lambda step, line: None,
        loss: Loss | None = None,
    ) -> None:
        """``loss`` replaces that of the task."""
        self.track = track
        self._loss = loss or task.loss
        owner = Owner(folder.identity, described or {}, machine.device.type, machine.card)
        super().__init__(task, model, recipe, common, seed, folder, owner, machine, runtime)
        self.direction = direction(task.metric)  # -1: the least score is the best
        self.best_step, self.best_score = 0, -self.direction * math.inf
        every = common.evaluate_every or max(1, math.ceil(recipe.steps / common.evaluations))
        self.evaluations = [*range(every, recipe.steps, every), recipe.steps]

    def terms(self, batch: TaskBatch) -> Sequence[Term]:
        """The loss of the task, a mean over examples."""
        return (Term("task", self._loss(self.model, batch), "examples"),)

    def factors(self, name: str) -> tuple[float, ...]:
        """One, by the tensor's layer if ``task.optimizer.layer_decay`` is set."""
        (encoder,) = self.encoders
        return (layer_scale(name, encoder.shape, self.common.optimizer),)

    def scored_at(self, done: int, over: bool) -> bool:
        """At the evaluations, which are spread evenly over the steps."""
        return done in self.evaluations

    def saved_at(self, done: int, scored: bool) -> bool:
        """At every evaluation."""
        return scored

    def log(self, done: int, position: float, sums: Sums, scored: bool, progress: Progress) -> None:
        """Write and show the line. Its loss is the mean over the examples since the last line."""
        self.seconds += sums.seconds
        line = {
            "step": done, "loss": sums.means()["task_loss"], "learning_rate": self.learning_rate,
            "gradient_norm": self.gradient_norm, "seconds": self.seconds,
            "examples_per_second": sums.counts["examples"] / sums.seconds,
        }  # fmt: skip
        if scored:
            line["dev_score"] = self._evaluate(done)
        self.folder.append_metrics(line)
        self.track(done, line)
        self._show(progress, done, line)

    def diverged(self, quantity: str, step: int) -> str:
        """The message, with the settings that help."""
        name = self.task.name
        return (
            f"{name}: the {quantity} is not finite at step {step} (learning rate {self.learning_rate:.3g}). "
            f"Lower tasks.{name}.learning_rate or task.scaling.learning_rate."
        )

    def predict(self, features: FeatureSet) -> Outputs:
        """The task's outputs for every example, in order."""
        return predict(self.task, self.model, features, self.machine, None if self.backend is None else self.shaped)

    def _evaluate(self, step: int) -> float:
        """Score the first dev set. The weights are kept if the score is the best so far."""
        name, features = next(iter(self.task.dev.items()))
        score = self.task.scores(name, self.predict(features)).score
        if self.direction * score > self.direction * self.best_score:
            self.best_score, self.best_step = score, step
            checkpoint.save_weights(self._best(step), self.model)
        return score

    def finish(self, done: int) -> dict[str, Any]:
        """Score the last and the best weights, write the predictions of the best, and return the record."""
        checkpoint.save_weights(self.folder.path / LAST, self.model)
        with console.stage(f"predicting {self.task.name}"):
            outputs, last = self._on_dev()
            best = last
            if self.best_step != self.recipe.steps:
                checkpoint.load_strictly(self._best(self.best_step), self.model)
                outputs, best = self._on_dev()
            self._write_predictions(outputs)
        training = UnitTraining(
            steps=self.recipe.steps,
            epochs=self.recipe.steps / self.batches.per_epoch,
            examples=self.recipe.steps * self.batches.batch_size,
            seconds=self.seconds,
        )
        if self.micro_size != self.planned_micro_size:
            training.micro_size = self.micro_size
        if self.backends:
            training.backends = [str(backend) for backend in self.backends]
        record = FineTuned(
            metric=self.task.metric,
            best=Scores(step=self.best_step, **_record(best)),
            last=Scores(step=self.recipe.steps, **_record(last)),
            selection=f"best of {len(self.evaluations)} evaluations on the dev set that is reported",
            recipe=self.recipe.as_dict() | {"heads": formats.HEADS},
            training=training,
        )
        return record.as_json()

    def measure(self) -> dict[str, Any]:
        """Score the kept weights of a finished fine-tuning again: ``best`` and ``last`` of the record, without steps.

        Writes the predictions of the best weights. Raises CheckpointError if weights are damaged.
        """
        records = {}
        with console.stage(f"predicting {self.task.name}"):
            for name, file in (("last", LAST), ("best", BEST)):
                checkpoint.load_strictly(self.folder.path / file, self.model)
                outputs, scores = self._on_dev()
                records[name] = _record(scores)
            self._write_predictions(outputs)
        return records

    def _on_dev(self) -> tuple[dict[str, Outputs], dict[str, SetScores]]:
        """Outputs and scores of the current weights on every dev set."""
        by_set = {name: self.predict(features) for name, features in self.task.dev.items()}
        return by_set, {name: self.task.scores(name, outputs) for name, outputs in by_set.items()}

    def _write_predictions(self, dev: dict[str, Outputs]) -> None:
        """Write the prediction files of the dev sets and, with the current weights, of the test sets."""
        test = {name: self.predict(features) for name, features in self.task.test.items()}
        for folder, by_set in ((PREDICTIONS, dev), (f"{PREDICTIONS}/test", test)):
            for name, outputs in by_set.items():
                for file, content in self.task.files(name, outputs).items():
                    self.folder.write(f"{folder}/{file}", content)

    def keep_weights(self) -> None:
        """Keep the best and the last weights in the folder if that is set, else neither. Checkpoints stay."""
        if self.common.keep_weights:
            with replacing(self.folder.path / BEST) as temporary:
                shutil.copyfile(self._best(self.best_step), temporary)
        else:
            (self.folder.path / LAST).unlink(missing_ok=True)

    def _best(self, step: int) -> Path:
        return self.folder.checkpoints / f"best_{step:08d}.safetensors"

    def progress(self) -> dict[str, Any]:
        """Step and score of the best evaluation so far."""
        return {"best_step": self.best_step, "best_score": min(max(self.best_score, -1e308), 1e308)}

    def restore(self, meta: Mapping[str, Any]) -> None:
        """See ``progress``."""
        self.best_step, self.best_score = meta["best_step"], meta["best_score"]

    def beside(self) -> Sequence[Path]:
        """The best weights so far."""
        return [self._best(self.best_step)] if self.best_step else []

    def _save(self, saver: Saver, step: int, sums: Sums) -> None:
        saver.wait()  # the checkpoint being written may need best weights that are deleted below
        self._drop_beaten()
        super()._save(saver, step, sums)

    def _drop_beaten(self) -> None:
        """Delete best weights that a better evaluation has replaced and no checkpoint needs."""
        needed = {self._best(self.best_step).name}
        for path in checkpoint.checkpoints(self.folder.checkpoints):
            needed |= set((checkpoint.intact(path) or {}).get("beside", {}))
        for old in self.folder.checkpoints.glob("best_*.safetensors"):
            if old.name not in needed:
                old.unlink()

    def _show(self, progress: Progress, done: int, line: dict[str, float]) -> None:
        text = f"loss {line['loss']:.3f}"
        if self.best_step:
            text += f" · best on dev {self.best_score:.3f} at {self.best_step:,}"
        progress.update(done, done, f"{text} · {line['examples_per_second']:,.0f} examples/s")
        phase = f"fine-tuning {self.task.name}, seed {self.seed}, {done / self.recipe.steps:.0%}"
        self.folder.note(phase=phase, step=done, share=done / self.recipe.steps)


def _record(scores: dict[str, SetScores]) -> dict[str, Any]:
    first = next(iter(scores.values()))
    sets = {name: SetMetrics.model_validate(set_scores.metrics) for name, set_scores in scores.items()}
    return Scores(score=first.score, average=first.average, sets=sets).as_json()
