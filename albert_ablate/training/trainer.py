"""Pretraining: the loop over the batches and loss terms of a method."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from albert_ablate import streams
from albert_ablate.config.schema import RunConfig
from albert_ablate.console import Progress
from albert_ablate.errors import CheckpointError
from albert_ablate.methods import Term, method_of
from albert_ablate.methods.batch import StepBatch, StepBatches
from albert_ablate.model.base import EncoderModel
from albert_ablate.record.folder import RunFolder
from albert_ablate.record.results import Training
from albert_ablate.stopping import Stop
from albert_ablate.training.budget import budget_words, step_flops
from albert_ablate.training.budget import position as schedule_position
from albert_ablate.training.checkpoint import Owner
from albert_ablate.training.guards import require_finite_line
from albert_ablate.training.loop import Loop
from albert_ablate.training.machine import Machine
from albert_ablate.training.sums import Sums
from albert_ablate.training.trackers import Trackers

#: Where a budget of tokens or seconds says how long to train, no step is the last.
_NO_LAST_STEP = 2**40
#: Of metrics.jsonl, on a GPU; lines with held-out scores are written whenever they are due.
_SECONDS_BETWEEN_LINES = 1.0


class Trainer(Loop):
    """Pretrains one model on one stream of batches."""

    def __init__(
        self,
        config: RunConfig,
        owner: Owner,
        model: EncoderModel,
        batches: StepBatches,
        folder: RunFolder,
        machine: Machine,
        held_out: Callable[[], dict[str, float]],
        tracker: Trackers,
    ) -> None:
        runtime = config.runtime
        super().__init__(model, config.optimizer, config.budget, runtime, folder, machine, config.batch.micro_size)
        self.owner = owner
        self.keep_checkpoints = runtime.keep_checkpoints
        self.config = config
        self.method = method_of(config)
        model.encoder.recompute = runtime.activation_checkpointing
        self.batches = batches
        self.held_out = held_out
        self.tracker = tracker
        self.tokens = 0  # real tokens trained on up to the last log line, over all starts of the run
        self.curve_seconds = 0.0  # spent on the held-out curve since this start
        self.flops_per_step = step_flops(config)

    def terms(self, batch: StepBatch) -> Sequence[Term]:
        """Those of the method."""
        return self.method.terms(self.model, batch)

    def noise(self, step: int) -> int:
        """Each process draws its own."""
        world = self.machine.world
        shard = () if world.size == 1 else (world.rank,)
        return streams.key(self.config.seed, "dropout", step, *shard)

    def stream(self, done: int) -> Iterator[StepBatch]:
        """Built ahead by the machine's number of processes."""
        last = self.schedule.steps if self.schedule.unit == "steps" else _NO_LAST_STEP
        pin = self.machine.device.type == "cuda"
        return self.batches.from_step(done, last, self.machine.workers(self.runtime), pin_memory=pin)

    def batch_of(self, step: int) -> StepBatch:
        """By arithmetic, as every batch."""
        batch: StepBatch = self.batches[step]
        return batch

    def shaped(self, part: StepBatch) -> StepBatch:
        """As the batches say."""
        shaped: StepBatch = self.batches.shaped(part)
        return shaped

    @property
    def static_shapes(self) -> bool:
        """As the batches say."""
        return self.batches.static_shapes

    def position(self, done: int, sums: Sums) -> float:
        """By the unit of the budget."""
        tokens, seconds = self.tokens + sums.counts.get("tokens", 0), self.seconds + sums.seconds
        return schedule_position(self.schedule, done, tokens, done * self.flops_per_step, seconds)

    def scored_at(self, done: int, over: bool) -> bool:
        """The held-out curve has a point every ``evaluation.curve_every`` steps and at the end."""
        return over or done % self.config.evaluation.curve_every == 0

    def logged_at(self, done: int, seconds: float) -> bool:
        """Every ``runtime.log_every`` steps; on a GPU, whose steps may take a millisecond, not twice in a second.

        A line waits for the device and for the disk.
        """
        if self.machine.device.type == "cuda" and seconds < _SECONDS_BETWEEN_LINES:
            return False
        return super().logged_at(done, seconds)

    def saved_at(self, done: int, scored: bool) -> bool:
        """Every ``runtime.checkpoint_every`` steps."""
        return done % self.runtime.checkpoint_every == 0

    def log(self, done: int, position: float, sums: Sums, scored: bool, progress: Progress) -> None:
        """Raises DivergedError where a number of the line is not finite."""
        tokens = sums.counts["tokens"]
        self.tokens += tokens
        self.seconds += sums.seconds
        line = {
            "step": done,
            **sums.means(),
            "learning_rate": self.learning_rate,
            "gradient_norm": self.gradient_norm,
            "tokens": self.tokens,
            "flops": done * self.flops_per_step,
            "seconds": self.seconds,
            "tokens_per_second": tokens / max(sums.seconds, 1e-9),
        }
        if self.settings.skip_spikes is not None:
            line["skipped_steps"] = self.skipped
        if scored:
            began = time.perf_counter()
            line |= {f"held_out_{name}": value for name, value in self.held_out().items()}
            self.curve_seconds += time.perf_counter() - began
        require_finite_line(line)
        self.folder.append_metrics(line)
        self.tracker.log(done, line)
        speed = line["tokens_per_second"]
        progress.update(done, position, f"{self.method.shown(line)} · {speed:,.0f} tokens/s")
        share = min(position / self.schedule.steps, 1.0)
        self.folder.note(phase="training", step=done, share=share, speed=speed)

    def progress(self) -> dict[str, Any]:
        """Tokens beside what every loop keeps."""
        return {"tokens": self.tokens}

    def restore(self, meta: Mapping[str, Any]) -> None:
        """See ``progress``."""
        self.tokens = meta["tokens"]

    def check(self, done: int, meta: Mapping[str, Any] | None) -> None:
        """All processes must see the same checkpoint, and be as many as those that wrote it.

        The order of sums and the dropout noise depend on their number.
        """
        if self.machine.world.from_main(done) != done:
            raise CheckpointError(f"{self.folder.path} must lie on a disk that all processes of this run share.")
        before, now = 1 if meta is None else meta.get("processes", 1), self.machine.world.size
        if meta is not None and before != now:
            start = "python run.py" if before == 1 else f"torchrun --nproc-per-node={before} run.py"
            raise CheckpointError(
                f"{self.folder.path} was begun with {before} process{'es' * (before > 1)}, now there "
                f"{'are' if now > 1 else 'is'} {now}: it would end with other numbers. Continue with `{start}`, or "
                "remove its checkpoints to start anew."
            )

    def continuing(self, done: int) -> str:
        """``continuing after step 40 of 100``."""
        steps = self.schedule.unit == "steps"
        end = f" of {self.schedule.steps}" if steps else f", budget {budget_words(self.schedule)}"
        return f"continuing after step {done}{end}"

    def stopped(self, stop: Stop, done: int) -> BaseException:
        """Without a number of steps in the budget there is no last one to name."""
        return stop.error(f"step {done:,}" + f" of {self.schedule.steps:,}" * (self.schedule.unit == "steps"))

    def diverged(self, what: str, step: int) -> str:
        """With the settings that help."""
        c = self.config
        return (
            f"The {what} is not finite at step {step}: training has diverged. The weights before this step are "
            f"unharmed. Lower optimizer.learning_rate={c.optimizer.learning_rate:.3g}, lengthen budget.warmup_steps="
            f"{c.budget.warmup_steps}, or scale the rate with the square root of batch.size={c.batch.size}."
        )

    def finish(self, done: int) -> dict[str, Any]:
        """``training`` of ``results.json``."""
        record = Training(
            steps=done,
            tokens=self.tokens,
            flops=done * self.flops_per_step,
            seconds=self.seconds,
            tokens_per_second=self.tokens / self.seconds if self.seconds else None,
        )
        if self.settings.skip_spikes is not None:
            record.skipped_steps = self.skipped
        if self.micro_size != self.config.batch.micro_size:
            record.micro_size = self.micro_size
        if self.backends:
            record.backends = [str(backend) for backend in self.backends]
        if self.machine.world.size > 1:
            record.processes = self.machine.world.size
        return record.as_json()
