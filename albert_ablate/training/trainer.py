"""The training loop: accumulate, clip, step, log, evaluate, checkpoint."""

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
from albert_ablate.distributed import ALONE, World
from albert_ablate.errors import CheckpointError, DivergedError
from albert_ablate.model.pretraining import MLM_EPSILON, PretrainingModel
from albert_ablate.record.results import Training
from albert_ablate.runs import RunFolder
from albert_ablate.stopping import deferred
from albert_ablate.trackers import Trackers
from albert_ablate.training import checkpoint
from albert_ablate.training.budget import budget_words, step_flops
from albert_ablate.training.budget import position as schedule_position
from albert_ablate.training.checkpoint import Owner
from albert_ablate.training.guards import Spikes, keep_batch, out_of_memory, require_finite_line, require_finite_step
from albert_ablate.training.optimizers import build_optimizer, clip_gradient, learning_rate
from albert_ablate.training.precision import autocast
from albert_ablate.training.saving import Saver
from albert_ablate.training.sums import Sums

#: Where a budget of tokens or seconds says how long to train, no step is the last.
_NO_LAST_STEP = 2**40


class Trainer:
    """Trains one model on one stream of batches; ``fit`` continues from the newest checkpoint."""

    def __init__(
        self,
        config: RunConfig,
        owner: Owner,
        model: PretrainingModel,
        batches: PairBatches,
        folder: RunFolder,
        device: torch.device,
        precision: str,
        held_out: Callable[[], dict[str, float]],
        tracker: Trackers,
        world: World = ALONE,
    ) -> None:
        self.config = config
        self.owner = owner
        self.model = model.to(device)
        self.model.encoder.recompute = config.runtime.activation_checkpointing
        self.batches = batches
        self.folder = folder
        self.device = device
        self.precision = precision
        self.held_out = held_out
        self.tracker = tracker
        self.world = world
        self.optimizer = build_optimizer(model, config.optimizer)
        self.trains_sentences = config.objective.name is not Objective.NONE
        self.micro_size = config.batch.micro_size
        self.spikes = Spikes(config.optimizer.skip_spikes)
        self.skipped = 0  # steps without an update, over all starts of the run
        self.gradient_norm = self.learning_rate = 0.0  # of the last step
        self.tokens = 0  # real tokens trained on up to the last log line, over all starts of the run
        self.seconds = 0.0  # spent training up to it, without evaluation and saving, over all starts of the run
        self.curve_seconds = 0.0  # spent on the held-out curve since this start
        self.flops_per_step = step_flops(config)

    def fit(self) -> dict[str, Any]:
        """Train to the end of the budget. Returns tokens, seconds and tokens per second.

        Raises DivergedError where loss or gradient is not finite, PreemptedError after a stop signal,
        DiskFullError where a checkpoint has no room.
        """
        done, sums = self._resume()
        runtime, budget = self.config.runtime, self.config.budget
        position = self._position(done, sums, sums.seconds)
        last = budget.steps if budget.unit == "steps" else _NO_LAST_STEP
        stream = self.batches.from_step(done, last, runtime.workers, pin_memory=self.device.type == "cuda")
        lap = time.perf_counter() - sums.seconds
        with deferred() as stopped, self._saver() as saver, Progress(budget.steps, position, budget.unit) as progress:
            while position < budget.steps:
                batch = next(stream)
                masked, tokens, stop, due, elapsed = self._together(
                    batch, stopped.is_set(), saver.due(), time.perf_counter() - lap
                )
                sums.add(self.config.batch.size, tokens, masked, self.update(done, batch, position, masked))
                done += 1
                if self.world.size == 1:  # nobody to agree with: what came during the step counts, too
                    stop, elapsed = stopped.is_set(), time.perf_counter() - lap
                position = self._position(done, sums, elapsed)
                over = position >= budget.steps
                curve = over or done % self.config.evaluation.curve_every == 0
                if curve or done % runtime.log_every == 0:
                    self._log(done, position, sums, elapsed, curve, progress)
                    sums, lap = Sums(), time.perf_counter()
                if over or stop or due or done % runtime.checkpoint_every == 0:
                    sums.seconds = time.perf_counter() - lap
                    self._save(saver, done, sums)
                if stop and not over:
                    saver.wait()
                    self.world.from_main(None)  # nobody leaves, and has the others ended, while it is written
                    raise stopped.error(f"step {done:,}" + f" of {budget.steps:,}" * (budget.unit == "steps"))
        self.world.from_main(None)  # nobody goes on before the last checkpoint is whole
        return self._record(done)

    def _together(self, batch: Batch, stop: bool, due: bool, elapsed: float) -> tuple[int, int, bool, bool, float]:
        """Masked positions and tokens of all shares of a batch, and what all processes do at this step.

        All stop where one is told to; whether a checkpoint is due, and the time, the first one says.
        """
        clock = [float(due), elapsed] if self.world.main else [0.0, 0.0]
        counts = [len(batch.targets), int(batch.mask.sum())]
        masked, tokens, stops, dues, seconds = self.world.sum([*counts, float(stop), *clock], self.device)
        return int(masked), int(tokens), stops > 0, dues > 0, seconds

    def _record(self, done: int) -> dict[str, Any]:
        """``training`` of ``results.json``."""
        record = Training(
            steps=done,
            tokens=self.tokens,
            flops=done * self.flops_per_step,
            seconds=self.seconds,
            tokens_per_second=self.tokens / self.seconds if self.seconds else None,
        )
        if self.config.optimizer.skip_spikes is not None:
            record.skipped_steps = self.skipped
        if self.micro_size != self.config.batch.micro_size:
            record.micro_size = self.micro_size
        if self.world.size > 1:
            record.processes = self.world.size
        return record.as_json()

    def _position(self, done: int, sums: Sums, elapsed: float) -> float:
        """Place on the schedule after ``done`` steps, the unlogged ones in ``sums`` included."""
        tokens, seconds = self.tokens + sums.tokens, self.seconds + elapsed
        return schedule_position(self.config.budget, done, tokens, done * self.flops_per_step, seconds)

    def _log(self, done: int, position: float, sums: Sums, elapsed: float, curve: bool, progress: Progress) -> None:
        """One line of ``metrics.jsonl`` over the steps in ``sums``, with the held-out curve where it is due."""
        self.tokens += sums.tokens
        self.seconds += elapsed
        line = {
            "step": done,
            **sums.means(self.trains_sentences),
            "learning_rate": self.learning_rate,
            "gradient_norm": self.gradient_norm,
            "tokens": self.tokens,
            "flops": done * self.flops_per_step,
            "seconds": self.seconds,
            "tokens_per_second": sums.tokens / max(elapsed, 1e-9),
        }
        if self.config.optimizer.skip_spikes is not None:
            line["skipped_steps"] = self.skipped
        if curve:
            began = time.perf_counter()
            line |= {f"held_out_{name}": value for name, value in self.held_out().items()}
            self.curve_seconds += time.perf_counter() - began
        require_finite_line(line)
        self.folder.append_metrics(line)
        self.tracker.log(done, line)
        progress.update(done, position, _numbers(line))
        share = min(position / self.config.budget.steps, 1.0)
        self.folder.note(phase="training", step=done, share=share, speed=line["tokens_per_second"])

    def update(self, step: int, batch: Batch, position: float | None = None, masked: int | None = None) -> Tensor:
        """One optimizer step on an effective batch. Returns the (4,) sums of its losses and hits.

        ``position`` on the schedule is the step itself unless the budget has another unit. ``batch`` is
        this process's share, ``masked`` the masked positions of all shares.

        The loss is the masked-LM mean over all masked positions of the effective batch plus, where
        there is one, the sentence mean over its sequences, unweighted; micro-batches and processes
        contribute their sums, so any division of the batch gives the same gradient.

        Raises DivergedError, before anything is changed, where a loss or the gradient is not finite.
        """
        place = step if position is None else position
        rate = self.learning_rate = learning_rate(place, self.config.optimizer, self.config.budget)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        values = self.world.sum_tensor(self._gradients(step, batch, masked))
        self.world.sum_gradients(self.model)
        # The gradient of a shared block is the sum over its layers; the clip acts on that sum.
        self.gradient_norm = clip_gradient(self.model, self.config.optimizer.clip_norm)
        try:
            require_finite_step(step, values, self.gradient_norm, self.config)
        except DivergedError as error:
            if self.world.main:
                kept = keep_batch(self.folder.path, step + 1, vars(batch), {"step": step + 1, "learning_rate": rate})
                raise DivergedError(f"{error} Its batch is in {kept}.") from None
            raise
        if self.spikes.seen(values[0] / max(masked or len(batch.targets), 1), self.gradient_norm):
            self.skipped += 1
            self.folder.log(f"step {step + 1} skipped: its gradient norm is {self.gradient_norm:.3g}")
        else:
            self.optimizer.step()
        return values

    def _gradients(self, step: int, batch: Batch, masked: int | None) -> Tensor:
        """Add up the gradients of the micro-batches; returns the sums of losses and hits.

        Where memory runs out and ``runtime.oom_halving`` allows it, once more with micro-batches of
        half the size.
        """
        while True:
            try:
                return self._accumulate(step, batch, masked)
            except (MemoryError, RuntimeError) as error:
                if not (out_of_memory(error) and self.config.runtime.oom_halving and self.micro_size > 1):
                    raise
            self.micro_size = (self.micro_size + 1) // 2
            self.folder.say(f"out of memory at step {step + 1}: micro-batches of {self.micro_size} from now on")

    def _accumulate(self, step: int, batch: Batch, masked: int | None) -> Tensor:
        shard = () if self.world.size == 1 else (self.world.rank,)
        torch.manual_seed(streams.key(self.config.seed, "dropout", step, *shard))
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        denominator = (len(batch.targets) if masked is None else masked) + MLM_EPSILON
        sequences = len(batch) if self.world.size == 1 else self.config.batch.size
        totals = torch.zeros(4, device=self.device)
        for part in batch.micro(self.micro_size):
            part = part.to(self.device)
            with autocast(self.precision, self.device):
                labels = part.labels if self.trains_sentences else None
                out = self.model(part.input_ids, part.type_ids, part.mask, part.positions, part.targets, labels)
            loss = out.mlm_loss_sum / denominator
            found = [out.mlm_loss_sum, out.mlm_correct]
            if out.sentence_loss_sum is not None and out.sentence_correct is not None:
                loss = loss + out.sentence_loss_sum / sequences
                found += [out.sentence_loss_sum, out.sentence_correct]
            loss.backward()
            totals[: len(found)] += torch.stack([value.detach().float() for value in found])
        return totals

    def _resume(self) -> tuple[int, Sums]:
        if self.world.main:
            checkpoint.clear_unfinished(self.folder.checkpoints)
        meta = checkpoint.load_latest(self.folder.checkpoints, self.owner, self.model, self.optimizer)
        done = 0 if meta is None else int(meta["step"])
        if self.world.from_main(done) != done:
            raise CheckpointError(f"{self.folder.path} must lie on a disk that all processes of this run share.")
        self.folder.truncate_metrics(done)
        if meta is None:
            return 0, Sums()
        self._require_equal_processes(meta.get("processes", 1))
        self.tokens, self.seconds = meta["tokens"], meta["seconds"]
        self.micro_size = meta.get("micro_size", self.micro_size)
        self.spikes = Spikes(self.config.optimizer.skip_spikes, meta.get("spikes"))
        self.skipped = meta.get("skipped", 0)
        for name in meta["damaged"]:
            self.folder.say(f"checkpoint {name} is damaged; the one before it is used")
        budget = self.config.budget
        end = f" of {budget.steps}" if budget.unit == "steps" else f", budget {budget_words(budget)}"
        self.folder.say(f"continuing after step {done}{end}")
        return done, Sums.from_dict(meta.get("sums"), self.device)

    def _require_equal_processes(self, before: int) -> None:
        """The order of sums and the dropout noise depend on the number of processes."""
        now = self.world.size
        if before != now:
            start = "python run.py" if before == 1 else f"torchrun --nproc-per-node={before} run.py"
            raise CheckpointError(
                f"{self.folder.path} was begun with {before} process{'es' * (before > 1)}, now there "
                f"{'are' if now > 1 else 'is'} {now}: it would end with other numbers. Continue with `{start}`, or "
                "remove its checkpoints to start anew."
            )

    def _saver(self) -> Saver:
        runtime, folder = self.config.runtime, self.folder.checkpoints
        if self.world.main:
            checkpoint.require_space(folder, 3 * sum(p.nbytes for p in self.model.parameters()))
        return Saver(
            folder, self.owner, runtime.keep_checkpoints, runtime.async_checkpoints, runtime.checkpoint_minutes
        )

    def _save(self, saver: Saver, step: int, sums: Sums) -> None:
        if not self.world.main:
            return
        progress: dict[str, Any] = {"tokens": self.tokens, "seconds": self.seconds, "sums": sums.as_dict()}
        progress |= {"processes": self.world.size, "micro_size": self.micro_size, "skipped": self.skipped}
        if self.config.optimizer.skip_spikes is not None:
            progress["spikes"] = self.spikes.as_dict()
        saver.save(step, self.model, self.optimizer, progress)


def _numbers(line: dict[str, float]) -> str:
    """A log line for a person."""
    text = f"MLM {line['mlm_loss']:.3f} nats, {line['mlm_accuracy']:.1%}"
    if "sentence_accuracy" in line:
        text += f" · sentence {line['sentence_accuracy']:.1%}"
    return f"{text} · {line['tokens_per_second']:,.0f} tokens/s"
