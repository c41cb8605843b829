"""``status.json``: how a run or a fine-tuning stands."""

from typing import Literal, get_args

from pydantic import Field

from albert_ablate.record.part import Part, Whole

State = Literal["queued", "running", "finished", "failed", "diverged", "preempted"]
STATES: tuple[State, ...] = get_args(State)


class Status(Part):
    """The last change of state. Times are ISO 8601 with a zone."""

    state: State
    reason: str | None = None  # of a failure or a stop, in words
    exit_code: int | None = None  # of a failure
    started: str | None = None  # the first time
    updated: str | None = None
    host: str | None = None
    pid: int | None = None  # of the process that wrote it
    time_limits: list[Whole] = Field(default_factory=list)  # the step that was saved each time a time limit was reached
