"""One fine-tuning: a task, a seed, a pretrained encoder, the best checkpoint on dev and the last one."""

import math
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from albert_ablate import console, streams
from albert_ablate.config import BudgetConfig, OptimizerConfig, RuntimeConfig
from albert_ablate.console import Progress
from albert_ablate.errors import CheckpointError, DivergedError
from albert_ablate.files import replacing
from albert_ablate.model.architecture import Architecture
from albert_ablate.model.pretraining import initialise
from albert_ablate.record.tasks import FineTuned, Scores, SetMetrics, UnitTraining
from albert_ablate.runs import RunFolder
from albert_ablate.stopping import deferred
from albert_ablate.task_config import FineTuneConfig
from albert_ablate.tasks import formats
from albert_ablate.tasks.batches import TaskBatches, in_order
from albert_ablate.tasks.recipe import Recipe
from albert_ablate.tasks.task import FeatureSet, Outputs, SetScores, Task, TaskBatch
from albert_ablate.training import checkpoint
from albert_ablate.training.checkpoint import Owner
from albert_ablate.training.guards import keep_batch
from albert_ablate.training.optimizers import build_optimizer, clip_gradient, learning_rate
from albert_ablate.training.precision import autocast
from albert_ablate.training.saving import Saver

#: Weights that a finished fine-tuning keeps.
BEST, LAST = "best.safetensors", "last.safetensors"
#: Its folder of prediction files.
PREDICTIONS = "predictions"


def build_task_model(
    task: Task, shape: Architecture, recipe: Recipe, seed: int, pretrained: Path | None, spread: float
) -> nn.Module:
    """The task's model: encoder and pooler of the checkpoint ``pretrained`` (None: random), a new head.

    Raises CheckpointError where the checkpoint lacks a tensor of the encoder.
    """
    with torch.device("meta"):
        model = task.build(shape, recipe.classifier_dropout)
    model.to_empty(device="cpu")
    initialise(model, spread, seed)
    if pretrained is not None:
        own = checkpoint.load_matching(pretrained, model)
        missing = [name for name in own if name.startswith(("encoder.", "pooler."))]
        if missing:
            raise CheckpointError(f"{pretrained} lacks tensors of this encoder: {', '.join(missing)}.")
    return model


def tidy(folder: RunFolder) -> None:
    """Remove the state to resume from of a finished fine-tuning."""
    if folder.checkpoints.exists():
        shutil.rmtree(folder.checkpoints)


class FineTuner:
    """Trains one model on one task; ``fit`` continues from the newest checkpoint."""

    def __init__(
        self,
        task: Task,
        model: nn.Module,
        recipe: Recipe,
        common: FineTuneConfig,
        seed: int,
        folder: RunFolder,
        device: torch.device,
        precision: str,
        runtime: RuntimeConfig,
        described: dict[str, Any] | None = None,
        log: Callable[[int, dict[str, float]], None] = lambda step, line: None,
    ) -> None:
        self.task = task
        self.model = model.to(device)
        self.recipe = recipe
        self.common = common
        self.seed = seed
        self.folder = folder
        self.owner = Owner(folder.identity, described or {})
        self.device = device
        self.precision = precision
        self.runtime = runtime
        self.log = log
        self.batches = TaskBatches(task.train, recipe.batch_size, task.name, seed, common.group_by_length)
        self.schedule, self.settings = _schedule(recipe, common)
        self.optimizer = build_optimizer(self.model, self.settings)
        self.seconds = 0.0
        self.best_step, self.best_score = 0, -math.inf
        every = common.evaluate_every or max(1, math.ceil(recipe.steps / common.evaluations))
        self.evaluations = [*range(every, recipe.steps, every), recipe.steps]

    def fit(self) -> dict[str, Any]:
        """Train, evaluate on dev, keep the best. Returns the record for ``results.json``."""
        done, loss, since, before = self._resume()
        steps, lap = self.recipe.steps, time.perf_counter() - before
        title = f"{self.task.name}, seed {self.seed}"
        with deferred() as stopped, self._saver() as saver, Progress(steps, done, "steps", title) as progress:
            while done < steps:
                loss += self.update(done, self.batches[done])
                done += 1
                evaluate = done in self.evaluations
                stop = stopped.is_set()
                if evaluate or done % self.runtime.log_every == 0:
                    elapsed = time.perf_counter() - lap
                    self.seconds += elapsed
                    line = {
                        "step": done, "loss": loss.item() / (done - since), "learning_rate": self.learning_rate,
                        "gradient_norm": self.gradient_norm, "seconds": self.seconds,
                        "examples_per_second": (done - since) * self.batches.batch_size / elapsed,
                    }  # fmt: skip
                    if evaluate:
                        line["dev_score"] = self._evaluate(done)
                    self.folder.append_metrics(line)
                    self.log(done, line)
                    self._show(progress, done, line)
                    loss, since, lap = torch.zeros((), device=self.device), done, time.perf_counter()
                if evaluate or stop or saver.due():
                    self._save(saver, done, loss, since, time.perf_counter() - lap)
                if stop and done < steps:
                    raise stopped.error(f"step {done:,} of {steps:,}", self.task.name)
        return self._finish()

    def update(self, step: int, batch: TaskBatch) -> Tensor:
        """One optimizer step on the mean loss of the batch's examples; returns that mean."""
        torch.manual_seed(streams.key(self.seed, "task dropout", self.task.name, step))
        self.learning_rate = learning_rate(step, self.settings, self.schedule)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        for part in batch.micro(self.common.micro_size):
            with autocast(self.precision, self.device):
                loss = self.task.loss(self.model, part.to(self.device)) / len(batch)
            torch.autograd.backward(loss)
            total += loss.detach()
        self.gradient_norm = clip_gradient(self.model, self.settings.clip_norm)
        if not (math.isfinite(self.gradient_norm) and bool(total.isfinite())):
            tensors = {name: value for name, value in vars(batch).items() if isinstance(value, Tensor)}
            numbers = {"step": step + 1, "learning_rate": self.learning_rate}
            kept = keep_batch(self.folder.path, step + 1, tensors, numbers)
            raise DivergedError(
                f"{self.task.name}: loss or gradient is not finite at step {step + 1} (learning rate "
                f"{self.learning_rate:.3g}). Lower tasks.{self.task.name}.learning_rate or task.scaling.learning_rate. "
                f"Its batch is in {kept}."
            )
        self.optimizer.step()
        return total

    @torch.inference_mode()
    def predict(self, features: FeatureSet) -> Outputs:
        """The task's outputs for every example, in order."""
        self.model.eval()
        found: dict[str, np.ndarray] = {}
        for rows, batch in in_order(features):
            with autocast(self.precision, self.device):
                outputs = self.task.outputs(self.model, batch.to(self.device))
            for name, value in outputs.items():
                part = (value.float() if value.is_floating_point() else value).cpu().numpy()
                if name not in found:
                    found[name] = np.zeros((len(features), *part.shape[1:]), part.dtype)
                found[name][rows] = part
        return found

    def _evaluate(self, step: int) -> float:
        """Score the first dev set; a better one than before keeps these weights."""
        name, features = next(iter(self.task.dev.items()))
        score = self.task.scores(name, self.predict(features)).score
        if score > self.best_score:
            self.best_score, self.best_step = score, step
            checkpoint.save_weights(self._best(step), self.model)
        return score

    def _finish(self) -> dict[str, Any]:
        """Score and predict with the last and with the best weights."""
        checkpoint.save_weights(self.folder.path / LAST, self.model)
        with console.stage(f"predicting {self.task.name}"):
            outputs, last = self._on_dev()
            best = last
            if self.best_step != self.recipe.steps:
                checkpoint.load_strictly(self._best(self.best_step), self.model)
                outputs, best = self._on_dev()
            self._write_predictions(outputs)
        record = FineTuned(
            metric=self.task.metric,
            best=Scores(step=self.best_step, **_record(best)),
            last=Scores(step=self.recipe.steps, **_record(last)),
            selection=f"best of {len(self.evaluations)} evaluations on the dev set that is reported",
            recipe=self.recipe.as_dict() | {"heads": formats.HEADS},
            training=UnitTraining(
                steps=self.recipe.steps,
                epochs=self.recipe.steps / self.batches.per_epoch,
                examples=self.recipe.steps * self.batches.batch_size,
                seconds=self.seconds,
            ),
        )
        return record.as_json()

    def measure(self) -> dict[str, Any]:
        """``best`` and ``last`` of the weights that a finished fine-tuning kept, without their steps, scored now.

        Writes the predictions of the best ones. Raises CheckpointError where weights are damaged.
        """
        found = {}
        with console.stage(f"predicting {self.task.name}"):
            for name, file in (("last", LAST), ("best", BEST)):
                checkpoint.load_strictly(self.folder.path / file, self.model)
                outputs, scores = self._on_dev()
                found[name] = _record(scores)
            self._write_predictions(outputs)
        return found

    def _on_dev(self) -> tuple[dict[str, Outputs], dict[str, SetScores]]:
        """Outputs and scores of the weights as they are, on every dev set."""
        outputs = {name: self.predict(features) for name, features in self.task.dev.items()}
        return outputs, {name: self.task.scores(name, found) for name, found in outputs.items()}

    def _write_predictions(self, dev: dict[str, Outputs]) -> None:
        """The files of the dev sets, and those of the test sets with the weights as they are."""
        test = {name: self.predict(features) for name, features in self.task.test.items()}
        for place, outputs in ((PREDICTIONS, dev), (f"{PREDICTIONS}/test", test)):
            for name, found in outputs.items():
                for file, content in self.task.files(name, found).items():
                    self.folder.write(f"{place}/{file}", content)

    def keep_weights(self) -> None:
        """Leave the best and the last weights in the folder, or none; the state to resume from stays."""
        if self.common.keep_weights:
            with replacing(self.folder.path / BEST) as temporary:
                shutil.copyfile(self._best(self.best_step), temporary)
        else:
            (self.folder.path / LAST).unlink(missing_ok=True)

    def _best(self, step: int) -> Path:
        return self.folder.checkpoints / f"best_{step:08d}.safetensors"

    def _saver(self) -> Saver:
        runtime = self.runtime
        return Saver(self.folder.checkpoints, self.owner, 2, runtime.async_checkpoints, runtime.checkpoint_minutes)

    def _save(self, saver: Saver, step: int, loss: Tensor, since: int, seconds: float) -> None:
        """The state after ``step``; ``loss`` adds up the steps after ``since``, which took ``seconds``."""
        saver.wait()
        self._drop_beaten()
        progress = {"seconds": self.seconds, "best_step": self.best_step, "best_score": max(self.best_score, -1e308)}
        progress |= {"loss": loss.item(), "since": since, "lap": seconds}
        best = [self._best(self.best_step)] if self.best_step else []
        saver.save(step, self.model, self.optimizer, progress, beside=best)

    def _drop_beaten(self) -> None:
        """Remove the best weights of before that no checkpoint needs any more."""
        needed = {self._best(self.best_step).name}
        for path in checkpoint.checkpoints(self.folder.checkpoints):
            needed |= set((checkpoint.intact(path) or {}).get("beside", {}))
        for old in self.folder.checkpoints.glob("best_*.safetensors"):
            if old.name not in needed:
                old.unlink()

    def _resume(self) -> tuple[int, Tensor, int, float]:
        """(step, loss since the last log line, its step, seconds since it)."""
        checkpoint.clear_unfinished(self.folder.checkpoints)
        meta = checkpoint.load_latest(self.folder.checkpoints, self.owner, self.model, self.optimizer)
        none = torch.zeros((), device=self.device)
        self.folder.truncate_metrics(0 if meta is None else meta["step"])
        if meta is None:
            return 0, none, 0, 0.0
        self.seconds, self.best_step, self.best_score = meta["seconds"], meta["best_step"], meta["best_score"]
        for name in meta["damaged"]:
            self.folder.say(f"checkpoint {name} is damaged; the one before it is used")
        self.folder.say(f"{self.task.name}, seed {self.seed}: continuing after step {meta['step']}")
        done = int(meta["step"])
        return done, none + meta.get("loss", 0.0), meta.get("since", done), meta.get("lap", 0.0)

    def _show(self, progress: Progress, done: int, line: dict[str, float]) -> None:
        text = f"loss {line['loss']:.3f}"
        if self.best_step:
            text += f" · best on dev {self.best_score:.3f} at {self.best_step:,}"
        progress.update(done, done, f"{text} · {line['examples_per_second']:,.0f} examples/s")
        phase = f"fine-tuning {self.task.name}, seed {self.seed}, {done / self.recipe.steps:.0%}"
        self.folder.note(phase=phase, step=done, share=done / self.recipe.steps)


def _record(scores: dict[str, SetScores]) -> dict[str, Any]:
    first = next(iter(scores.values()))
    sets = {name: SetMetrics.model_validate(found.metrics) for name, found in scores.items()}
    return Scores(score=first.score, average=first.average, sets=sets).as_json()


def _schedule(recipe: Recipe, common: FineTuneConfig) -> tuple[BudgetConfig, OptimizerConfig]:
    """The released fine-tuning optimizer: AdamW, linear warm-up and decay."""
    budget = BudgetConfig("steps", recipe.steps, recipe.warmup_steps, None, None, None)
    update = asdict(common.optimizer)
    optimizer = OptimizerConfig(name="adamw", learning_rate=recipe.learning_rate, skip_spikes=None, **update)
    return budget, optimizer
