"""How long a sweep still takes, from the work that its cells have done since it was started.

The unit of work is the FLOP of training. Evaluation, fine-tuning and the waits between cells count as time without
work, so the rate, work over wall time, includes them.
"""

import math
from collections.abc import Sequence
from typing import Protocol

from albert_ablate.config.schema import RunConfig
from albert_ablate.record.folder import FAILURES
from albert_ablate.sweeping.estimate import on_gpu

#: FLOP/s at which a budget in seconds is converted. It only has to be the same for all cells of a sweep.
_RATE = 1e12


class Progress(Protocol):
    """What is known of a cell's progress."""

    @property
    def state(self) -> str:
        """A state of ``record.status``, or ``missing``."""

    @property
    def phase(self) -> str | None:
        """What a running cell does: ``training`` or what follows it."""

    @property
    def share(self) -> float | None:
        """Share of the budget that a running cell has used."""

    @property
    def work(self) -> float | None:
        """FLOPs of the cell's training; None where they were not recorded."""

    @property
    def before(self) -> float:
        """Share of the training that was done when the sweep was started."""


def training_work(config: RunConfig, saved_step: int) -> tuple[float, float]:
    """(FLOPs of the whole training, share of it that is done at ``saved_step``)."""
    estimate = on_gpu(config, _RATE, config.pairs.max_length)
    return estimate.flops, min(saved_step / estimate.steps, 1.0)


def seconds_left(cells: Sequence[Progress], elapsed: float) -> float | None:
    """Seconds until all cells are done, at the mean rate of the ``elapsed`` seconds since the start; None if unknown.

    Failed cells are not run again and count as done.
    """
    left = gained = 0.0
    for cell in cells:
        if cell.work is None:
            return None
        if cell.state in FAILURES:
            continue
        done = _done(cell)
        gained += cell.work * max(done - cell.before, 0.0)
        left += cell.work * (1 - done)
    if not left:
        return None
    return left / gained * elapsed if gained else None


def _done(cell: Progress) -> float:
    """Share of the cell's training that is done."""
    if cell.state == "finished":
        return 1.0
    if cell.state != "running":
        return cell.before
    if cell.phase == "training":
        return cell.share or cell.before
    return cell.before if cell.phase is None else 1.0


def about(seconds: float) -> str:
    """``12 min`` or ``3 h 05 min``, rounded up."""
    minutes = math.ceil(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
