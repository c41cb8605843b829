"""Estimates of a cell's cost: steps, tokens, FLOPs, time, memory and disk."""

import math
from dataclasses import dataclass

from albert_ablate.axes import SENTENCE_TASKS
from albert_ablate.config.schema import RunConfig
from albert_ablate.methods import method_of
from albert_ablate.training.budget import step_flops

#: Dense bf16 FLOP/s as the makers state them.
GPU_PEAKS = {"a100": 312e12, "h100": 989e12, "h200": 989e12, "b200": 2250e12}

#: Speeds are not compared, and measured steps not trusted, from this ratio on: upper over lower quartile, or fastest
#: over slowest seed. A machine that runs nothing else gives 1.03 to 1.08.
STEADY = 1.25

#: Seconds for a cell's process, n-gram baselines and fitted heads, which depend little on the settings.
_FIXED_SECONDS = 2.0
#: A checkpoint holds weights and two moments in fp32; writing and hashing go at about this rate.
_CHECKPOINT_BYTES = 12
_DISK_BYTES_PER_SECOND = 4e8


@dataclass(frozen=True)
class Calibration:
    """Measured steps of one shape on one machine; of the last stage where the method has several."""

    step_seconds: float  # a whole optimizer step, its batch included
    sequence_seconds: float  # a held-out sequence, forward
    peak_bytes: int  # of the process on a CPU, of the device on a GPU
    tokens_per_step: float  # real tokens, padding left out
    spread: float = 1.0  # upper over lower quartile of the timed steps
    load: float = 0.0  # load average when the measurement began
    cores: int = 1  # that this process may use
    made: float = 0.0  # Unix time

    @property
    def busy(self) -> bool:
        """Whether other programs used the machine: equal steps differed, or more processes than cores wanted to run.

        One process is allowed for, that of the plan itself.
        """
        return self.spread >= STEADY or self.load > self.cores + 1


@dataclass(frozen=True)
class Estimate:
    """Cost of one cell; None for an unknown part."""

    steps: int
    tokens: float  # real ones, padding left out
    flops: float
    seconds: float | None
    memory: int | None  # bytes
    disk: int  # bytes


def on_this_machine(config: RunConfig, measured: Calibration, sequence_tokens: float | None = None) -> Estimate:
    """The estimate from a calibration of the same shape.

    ``sequence_tokens``: mean real tokens of a sequence, if a better value than the calibration's is known.
    """
    tokens = measured.tokens_per_step if sequence_tokens is None else config.batch.size * sequence_tokens
    step_seconds = _mean_seconds(config, measured)
    steps = _steps(config, tokens, step_seconds)
    disk = _checkpoint_bytes(config)
    saves = 1 + steps // config.runtime.checkpoint_every
    seconds = steps * step_seconds + saves * disk / _DISK_BYTES_PER_SECOND + _FIXED_SECONDS
    seconds += _evaluated_sequences(config, steps) * measured.sequence_seconds
    return Estimate(
        steps, steps * tokens, float(steps * step_flops(config)), seconds, measured.peak_bytes,
        disk * config.runtime.keep_checkpoints,
    )  # fmt: skip


def on_gpu(config: RunConfig, flops_per_second: float, sequence_tokens: float) -> Estimate:
    """The estimate of training from FLOPs, at a sustained rate. ``sequence_tokens``: mean real tokens of a sequence."""
    per_step = step_flops(config)
    tokens = config.batch.size * sequence_tokens
    steps = _steps(config, tokens, per_step / flops_per_second)
    flops = float(steps * per_step)
    disk = _checkpoint_bytes(config) * config.runtime.keep_checkpoints
    return Estimate(steps, steps * tokens, flops, flops / flops_per_second, None, disk)


def _mean_seconds(config: RunConfig, measured: Calibration) -> float:
    """Seconds of a step, a mean over the schedule: in the other stages as its FLOPs are to those of the last."""
    method = method_of(config)
    return measured.step_seconds * method.flops() / method.stage_flops(len(method.stages) - 1)


def _steps(config: RunConfig, tokens_per_step: float, step_seconds: float) -> int:
    budget = config.budget
    per_step = {"steps": 1.0, "tokens": tokens_per_step, "flops": step_flops(config), "seconds": step_seconds}
    return math.ceil(budget.amount() / per_step[budget.unit])


def _checkpoint_bytes(config: RunConfig) -> int:
    return _CHECKPOINT_BYTES * method_of(config).parameters().with_heads


def _evaluated_sequences(config: RunConfig, steps: int) -> int:
    """Upper bound of the held-out and probe sequences that a run's evaluations read."""
    e = config.evaluation
    points = math.ceil(steps / e.curve_every)
    fitted = sum(task is not config.objective.name for task in SENTENCE_TASKS)
    return 2 * points * e.curve_pairs + 4 * e.max_pairs + (fitted + 1) * e.probe_pairs + 4 * e.similarity_pairs
