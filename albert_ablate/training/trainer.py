"""Pretraining: the loop over the batches and loss terms of a method."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from albert_ablate import streams
from albert_ablate.command_line import command_name
from albert_ablate.config.schema import RunConfig
from albert_ablate.console import Progress
from albert_ablate.errors import CheckpointError
from albert_ablate.methods import Term, method_of
from albert_ablate.methods.batch import StepBatch, StepBatches
from albert_ablate.methods.stages import share_within, stage_at
from albert_ablate.model.base import EncoderModel
from albert_ablate.record.folder import RunFolder
from albert_ablate.record.results import Training
from albert_ablate.stopping import Stop
from albert_ablate.training.budget import budget_label, step_flops
from albert_ablate.training.budget import position as schedule_position
from albert_ablate.training.checkpoint import Owner
from albert_ablate.training.guards import require_finite_line
from albert_ablate.training.loop import Loop
from albert_ablate.training.machine import Machine
from albert_ablate.training.optimizers import enter_stage
from albert_ablate.training.pace import Pace
from albert_ablate.training.sums import Sums, Totals
from albert_ablate.training.trackers import Trackers

#: The end of the stream of batches if the budget is not in steps.
_NO_LAST_STEP = 2**40
#: Least seconds between lines of metrics.jsonl on a GPU, except for lines with held-out scores.
_SECONDS_BETWEEN_LINES = 1.0


class Trainer(Loop):
    """Pretrains a model on a stream of batches."""

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
        self.method = method_of(config)
        self.stage = -1  # of the last step, an index into ``Method.stages``; -1: none yet
        super().__init__(model, config.optimizer, config.budget, runtime, folder, machine, config.batch.micro_size)
        self.owner = owner
        self.keep_checkpoints = runtime.keep_checkpoints
        self.config = config
        model.encoder.recompute = runtime.activation_checkpointing
        self.batches = batches
        self.held_out = held_out
        self.tracker = tracker
        self.tokens = 0  # without padding, up to the last log line, over all starts of the run
        self.curve_seconds = 0.0  # spent on the held-out curve in this start of the run
        self.flops_per_step = step_flops(config)
        self.pace = Pace(machine.device)
        self.advised = False

    def terms(self, batch: StepBatch) -> Sequence[Term]:
        """The terms of the method."""
        return self.method.terms(self.model, batch)

    def factors(self, name: str) -> tuple[float, ...]:
        """Those of the method's stages."""
        return tuple(stage.rate(name) for stage in self.method.stages)

    @property
    def in_stages(self) -> bool:
        """Whether the method has several stages."""
        return len(self.method.stages) > 1

    def update(
        self, step: int, batch: StepBatch, position: float | None = None, counts: Mapping[str, int] | None = None
    ) -> Totals:
        """As in ``Stepper``; enters the stage of the step."""
        stage = self._stage_at(step if position is None else position)
        if stage != self.stage:
            self.stage = stage
            enter_stage(self.optimizer, stage)
            self.method.begin(self.model, stage)
        return super().update(step, batch, position, counts)

    def rate(self, position: float) -> float:
        """The schedule of the stage."""
        stages, steps = self.method.stages, self.schedule.steps
        within = share_within(stages, self.stage, position / steps)
        ramp = stages[self.stage].ramp
        if ramp is not None:
            return self.settings.learning_rate * ramp(within)
        return super().rate(position if len(stages) == 1 else within * steps)

    def ends_stage(self, position: float) -> bool:
        """See ``Loop``."""
        return self._stage_at(position) != self.stage

    def _stage_at(self, position: float) -> int:
        return stage_at(self.method.stages, position / self.schedule.steps)

    def noise(self, step: int) -> int:
        """Each process draws different noise."""
        world = self.machine.world
        shard = () if world.size == 1 else (world.rank,)
        return streams.key(self.config.seed, "dropout", step, *shard)

    def stream(self, done: int) -> Iterator[StepBatch]:
        """The batches after ``done`` steps, built ahead by ``Machine.workers`` processes."""
        last = self.schedule.steps if self.schedule.unit == "steps" else _NO_LAST_STEP
        pin = self.machine.device.type == "cuda"
        return self.batches.from_step(done, last, self.machine.workers(self.runtime), pin_memory=pin)

    def batch_of(self, step: int) -> StepBatch:
        """Build this process's share of the batch of ``step``."""
        batch: StepBatch = self.batches[step]
        return batch

    def shaped(self, part: StepBatch) -> StepBatch:
        """As in ``StepBatches``."""
        shaped: StepBatch = self.batches.shaped(part)
        return shaped

    @property
    def static_shapes(self) -> bool:
        """As in ``StepBatches``."""
        return self.batches.static_shapes

    def position(self, done: int, sums: Sums) -> float:
        """The position on the schedule, in the unit of the budget."""
        tokens, seconds = self.tokens + sums.counts.get("tokens", 0), self.seconds + sums.seconds
        return schedule_position(self.schedule, done, tokens, done * self.flops_per_step, seconds)

    def scored_at(self, done: int, over: bool) -> bool:
        """The held-out curve has a point every ``evaluation.curve_every`` steps and at the end."""
        return over or done % self.config.evaluation.curve_every == 0

    def logged_at(self, done: int, seconds: float) -> bool:
        """Every ``runtime.log_every`` steps; on a GPU at most once a second.

        Steps on a GPU may take a millisecond, and a line waits for the device and the disk.
        """
        if self.machine.device.type == "cuda" and seconds < _SECONDS_BETWEEN_LINES:
            return False
        return super().logged_at(done, seconds)

    def saved_at(self, done: int, scored: bool) -> bool:
        """Every ``runtime.checkpoint_every`` steps."""
        return done % self.runtime.checkpoint_every == 0

    def log(self, done: int, position: float, sums: Sums, scored: bool, progress: Progress) -> None:
        """Write the line and show it. Raises DivergedError if one of its numbers is not finite."""
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
        scores = self.method.shown(line)
        progress.update(done, position, f"{scores} · {speed:,.0f} tokens/s")
        share = min(position / self.schedule.steps, 1.0)
        advice = self.pace.advice(speed)
        self.folder.note(phase="training", step=done, share=share, speed=speed, scores=scores, advice=advice)
        if advice is not None and not self.advised:
            self.advised = True
            self.folder.say(f"step {done:,}: {speed:,.0f} tokens/s, a fifth of the best or less: {advice}")

    def progress(self) -> dict[str, Any]:
        """The number of tokens."""
        return {"tokens": self.tokens}

    def restore(self, meta: Mapping[str, Any]) -> None:
        """See ``progress``."""
        self.tokens = meta["tokens"]

    def check(self, done: int, meta: Mapping[str, Any] | None) -> None:
        """Raise CheckpointError unless all processes see the same checkpoint and their number has not changed.

        The order of sums and the dropout noise depend on the number of processes.
        """
        if self.machine.world.from_main(done) != done:
            raise CheckpointError(f"{self.folder.path} must lie on a disk that all processes of this run share.")
        first, now = 1 if meta is None else meta.get("processes", 1), self.machine.world.size
        if meta is not None and first != now:
            start = command_name("run") if first == 1 else f"torchrun --nproc-per-node={first} run.py"
            raise CheckpointError(
                f"{self.folder.path} was begun with {first} process{'es' * (first > 1)}, now there "
                f"{'are' if now > 1 else 'is'} {now}: it would end with other numbers. Continue with `{start}`, or "
                "remove its checkpoints to start anew."
            )

    def continuing(self, done: int) -> str:
        """For example ``continuing after step 40 of 100``."""
        steps = self.schedule.unit == "steps"
        end = f" of {self.schedule.steps}" if steps else f", budget {budget_label(self.schedule)}"
        return f"continuing after step {done}{end}"

    def stopped(self, stop: Stop, done: int) -> BaseException:
        """The error of a stopped run. It names the last step only if the budget is in steps."""
        return stop.error(f"step {done:,}" + f" of {self.schedule.steps:,}" * (self.schedule.unit == "steps"))

    def diverged(self, quantity: str, step: int) -> str:
        """The message, with the settings that help."""
        c = self.config
        return (
            f"The {quantity} is not finite at step {step}: training has diverged. The weights before this step are "
            f"unharmed. Lower optimizer.learning_rate={c.optimizer.learning_rate:.3g}, lengthen budget.warmup_steps="
            f"{c.budget.warmup_steps}, or scale the rate with the square root of batch.size={c.batch.size}."
        )

    def finish(self, done: int) -> dict[str, Any]:
        """The field ``training`` of ``results.json``."""
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
