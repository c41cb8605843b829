"""``status.json``: the state of a run or a fine-tuning."""

from typing import Literal, get_args

from pydantic import Field

from albert_ablate.record.part import Part, Whole

State = Literal["queued", "running", "finished", "failed", "diverged", "preempted"]
STATES: tuple[State, ...] = get_args(State)


class Status(Part):
    """The last change of state. Times are ISO 8601 with a zone."""

    state: State
    reason: str | None = None  # of a failure or a stop
    exit_code: int | None = None  # of a failure or a stop
    started: str | None = None  # when it was first started
    updated: str | None = None
    host: str | None = None
    pid: int | None = None  # of the process that wrote it
    time_limits: list[Whole] = Field(default_factory=list)  # the saved step at each time limit
