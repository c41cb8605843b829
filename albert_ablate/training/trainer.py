"""The training loop: accumulate, clip, step, log, evaluate, checkpoint."""

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from albert_ablate import streams
from albert_ablate.axes import Objective
from albert_ablate.config import RunConfig
from albert_ablate.console import Progress
from albert_ablate.data.batches import Batch, PairBatches
from albert_ablate.errors import DivergedError, PreemptedError
from albert_ablate.model.pretraining import MLM_EPSILON, PretrainingModel
from albert_ablate.runs import RunFolder
from albert_ablate.trackers import Trackers
from albert_ablate.training import checkpoint
from albert_ablate.training.budget import budget_words, step_flops
from albert_ablate.training.budget import position as schedule_position
from albert_ablate.training.optimizers import build_optimizer, clip_gradient, learning_rate
from albert_ablate.training.precision import autocast
from albert_ablate.training.stopping import stop_signals

#: Where a budget of tokens or seconds says how long to train, no step is the last.
_NO_LAST_STEP = 2**40


class _Sums:
    """What has been added up since the last log line; values stay on the device until then."""

    def __init__(self) -> None:
        self.sequences = self.tokens = self.masked = 0
        self.values: Tensor | None = None  # (4,): MLM loss and correct, sentence loss and correct

    def add(self, batch: Batch, values: Tensor) -> None:
        self.sequences += len(batch)
        self.tokens += int(batch.mask.sum())
        self.masked += len(batch.targets)
        self.values = values if self.values is None else self.values + values

    def means(self, trains_sentences: bool) -> dict[str, float]:
        assert self.values is not None
        mlm_loss, mlm_correct, sentence_loss, sentence_correct = self.values.tolist()
        means = {"mlm_loss": mlm_loss / max(self.masked, 1), "mlm_accuracy": mlm_correct / max(self.masked, 1)}
        if trains_sentences:
            means["sentence_loss"] = sentence_loss / self.sequences
            means["sentence_accuracy"] = sentence_correct / self.sequences
        return means


class Trainer:
    """Trains one model on one stream of batches; ``fit`` continues from the newest checkpoint."""

    def __init__(
        self,
        config: RunConfig,
        identity: str,
        model: PretrainingModel,
        batches: PairBatches,
        folder: RunFolder,
        device: torch.device,
        precision: str,
        held_out: Callable[[], dict[str, float]],
        tracker: Trackers,
    ) -> None:
        self.config = config
        self.identity = identity
        self.model = model.to(device)
        self.batches = batches
        self.folder = folder
        self.device = device
        self.precision = precision
        self.held_out = held_out
        self.tracker = tracker
        self.optimizer = build_optimizer(model, config.optimizer)
        self.trains_sentences = config.objective.name is not Objective.NONE
        self.gradient_norm = self.learning_rate = 0.0  # of the last step
        self.tokens = 0  # real tokens trained on, over all starts of the run
        self.seconds = 0.0  # spent training, without evaluation and saving, over all starts of the run
        self.curve_seconds = 0.0  # spent on the held-out curve since this start
        self.flops_per_step = step_flops(config)

    def fit(self) -> dict[str, Any]:
        """Train to the end of the budget. Returns tokens, seconds and tokens per second.

        Raises DivergedError where loss or gradient is not finite, PreemptedError after a stop signal.
        """
        done, runtime, budget = self._resume(), self.config.runtime, self.config.budget
        position = self._position(done, _Sums(), 0.0)
        last = budget.steps if budget.unit == "steps" else _NO_LAST_STEP
        stream = self.batches.from_step(done, last, runtime.workers, pin_memory=self.device.type == "cuda")
        sums, lap = _Sums(), time.perf_counter()
        with stop_signals() as stopped, Progress(budget.steps, position, budget.unit) as progress:
            while position < budget.steps:
                batch = next(stream)
                sums.add(batch, self.update(done, batch, position))
                done += 1
                elapsed = time.perf_counter() - lap
                position = self._position(done, sums, elapsed)
                stop = stopped.is_set() or position >= budget.steps
                log = stop or done % runtime.log_every == 0
                curve = position >= budget.steps or done % self.config.evaluation.curve_every == 0
                save = stop or done % runtime.checkpoint_every == 0
                if log or curve or save:
                    line = {"step": done, **sums.means(self.trains_sentences)}
                    self.tokens += sums.tokens
                    self.seconds += elapsed
                    line |= {
                        "learning_rate": self.learning_rate,
                        "gradient_norm": self.gradient_norm,
                        "tokens": self.tokens,
                        "flops": done * self.flops_per_step,
                        "seconds": self.seconds,
                        "tokens_per_second": sums.tokens / elapsed,
                    }
                    if curve:
                        began = time.perf_counter()
                        line |= {f"held_out_{name}": value for name, value in self.held_out().items()}
                        self.curve_seconds += time.perf_counter() - began
                    _require_finite(line)
                    self.folder.append_metrics(line)
                    self.tracker.log(done, line)
                    progress.update(done, position, _numbers(line))
                    share = min(position / budget.steps, 1.0)
                    self.folder.note(phase="training", step=done, share=share, speed=line["tokens_per_second"])
                    if save:
                        self._save(done)
                    sums, lap = _Sums(), time.perf_counter()
                if stopped.is_set() and position < budget.steps:
                    where = f"step {done} of {budget.steps}" if budget.unit == "steps" else f"step {done}"
                    raise PreemptedError(f"Stopped after {where}; the same command continues from there.")
        return {
            "steps": done,
            "tokens": self.tokens,
            "flops": done * self.flops_per_step,
            "seconds": self.seconds,
            "tokens_per_second": self.tokens / self.seconds if self.seconds else None,
        }

    def _position(self, done: int, sums: _Sums, elapsed: float) -> float:
        """Place on the schedule after ``done`` steps, the unlogged ones in ``sums`` included."""
        tokens, seconds = self.tokens + sums.tokens, self.seconds + elapsed
        return schedule_position(self.config.budget, done, tokens, done * self.flops_per_step, seconds)

    def update(self, step: int, batch: Batch, position: float | None = None) -> Tensor:
        """One optimizer step on an effective batch. Returns the (4,) sums of its losses and hits.

        ``position`` on the schedule is the step itself unless the budget has another unit.

        The loss is the masked-LM mean over all masked positions of the effective batch plus, where
        there is one, the sentence mean over its sequences, unweighted; micro-batches contribute
        their sums, so any division of the batch gives the same gradient.
        """
        torch.manual_seed(streams.key(self.config.seed, "dropout", step))
        place = step if position is None else position
        rate = self.learning_rate = learning_rate(place, self.config.optimizer, self.config.budget)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        masked, sequences = len(batch.targets) + MLM_EPSILON, len(batch)
        totals = torch.zeros(4, device=self.device)
        for part in batch.micro(self.config.batch.micro_size):
            part = part.to(self.device)
            with autocast(self.precision, self.device):
                labels = part.labels if self.trains_sentences else None
                out = self.model(part.input_ids, part.type_ids, part.mask, part.positions, part.targets, labels)
            loss = out.mlm_loss_sum / masked
            found = [out.mlm_loss_sum, out.mlm_correct]
            if out.sentence_loss_sum is not None and out.sentence_correct is not None:
                loss = loss + out.sentence_loss_sum / sequences
                found += [out.sentence_loss_sum, out.sentence_correct]
            loss.backward()
            totals[: len(found)] += torch.stack([value.detach().float() for value in found])
        # The gradient of a shared block is the sum over its layers; the clip acts on that sum.
        self.gradient_norm = clip_gradient(self.model, self.config.optimizer.clip_norm)
        if not math.isfinite(self.gradient_norm):
            raise DivergedError(
                f"The gradient is not finite at step {step + 1} (learning rate {rate:.3g}). The weights before this "
                "step are unharmed. Lower optimizer.learning_rate, lengthen budget.warmup_steps, or scale the rate "
                "with the square root of batch.size."
            )
        self.optimizer.step()
        return totals

    def _resume(self) -> int:
        meta = checkpoint.load_latest(self.folder.checkpoints, self.identity, self.model, self.optimizer)
        if meta is None:
            self.folder.truncate_metrics(0)
            return 0
        self.tokens, self.seconds = meta["tokens"], meta["seconds"]
        self.folder.truncate_metrics(meta["step"])
        for name in meta["damaged"]:
            self.folder.say(f"checkpoint {name} is damaged; the one before it is used")
        budget = self.config.budget
        end = f" of {budget.steps}" if budget.unit == "steps" else f", budget {budget_words(budget)}"
        self.folder.say(f"continuing after step {meta['step']}{end}")
        return int(meta["step"])

    def _save(self, step: int) -> None:
        progress = {"tokens": self.tokens, "seconds": self.seconds}
        keep = self.config.runtime.keep_checkpoints
        checkpoint.save(self.folder.checkpoints, step, self.identity, self.model, self.optimizer, progress, keep)


def _require_finite(line: dict[str, float]) -> None:
    """Raise DivergedError where a number of a log line is not finite."""
    wrong = [name for name, value in line.items() if not math.isfinite(value)]
    if wrong:
        raise DivergedError(
            f"{', '.join(wrong)} is not finite at step {line['step']}: training has diverged. "
            "Lower optimizer.learning_rate or lengthen budget.warmup_steps; checkpoints before this step are unharmed."
        )


def _numbers(line: dict[str, float]) -> str:
    """A log line for a person."""
    text = f"MLM {line['mlm_loss']:.3f} nats, {line['mlm_accuracy']:.1%}"
    if "sentence_accuracy" in line:
        text += f" · sentence {line['sentence_accuracy']:.1%}"
    return f"{text} · {line['tokens_per_second']:,.0f} tokens/s"
