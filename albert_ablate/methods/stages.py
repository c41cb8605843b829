"""Stages of training: parts of the schedule that optimise different losses and parameters."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

#: Of shares, so that a stage begins with the step at its start.
_ROUNDING = 1e-12


def _every(name: str) -> float:
    return 1.0


@dataclass(frozen=True)
class Stage:
    """A part of the schedule."""

    ends: float  # the share of the schedule at which the stage ends; 1 for the last
    #: Name of a parameter -> factor of its learning rate; with 0 it is not trained.
    rate: Callable[[str], float] = _every
    #: Share of the stage that is over -> factor of the peak rate; None: the schedule of ``budget``, stretched over it.
    ramp: Callable[[float], float] | None = None


#: One stage: everything is trained on the whole schedule.
SINGLE = (Stage(1.0),)


def stage_at(stages: Sequence[Stage], share: float) -> int:
    """The index of the stage in which ``share`` of the schedule is over."""
    return next((n for n, stage in enumerate(stages) if share < stage.ends - _ROUNDING), len(stages) - 1)


def share_within(stages: Sequence[Stage], stage: int, share: float) -> float:
    """How much of a stage is over, from 0 to 1, when ``share`` of the schedule is."""
    begins = stages[stage - 1].ends if stage else 0.0
    return min(max((share - begins) / (stages[stage].ends - begins), 0.0), 1.0)


def shares(stages: Sequence[Stage]) -> list[float]:
    """The share of the schedule that each stage has."""
    ends = [0.0, *(stage.ends for stage in stages)]
    return [after - before for before, after in pairwise(ends)]
