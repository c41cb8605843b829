"""Sections of work under a common time limit; each has its limit too, and is skipped if too little time is left."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.alone import Answer, Call

#: Runs calls at the same time, each in a separate process, for at most so many seconds (``alone.together``).
Together = Callable[[Sequence[Call], float], list[Answer]]


class SectionError(Exception):
    """A call of a section failed or did not finish in time."""


class Ask:
    """Makes the calls of a section; each call ends at the latest when the section must end."""

    def __init__(self, together: Together, now: Callable[[], float], end: float) -> None:
        self._together = together
        self._now = now
        self._end = end

    def left(self) -> float:
        """Seconds left."""
        return max(self._end - self._now(), 0.0)

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """The value of ``function(*arguments)``. Raises SectionError."""
        return self.all([(function, arguments)])[0]

    def all(self, calls: Sequence[Call]) -> list[Any]:
        """The values of calls that run at the same time. Raises SectionError."""
        answers = self.answers(calls)
        if failed := [answer.error for answer in answers if answer.error is not None]:
            raise SectionError("; ".join(failed))
        return [answer.value for answer in answers]

    def answers(self, calls: Sequence[Call]) -> list[Answer]:
        """Values or errors of calls that run at the same time."""
        return self._together(calls, self.left())


@dataclass(frozen=True)
class Section:
    """A part of the work."""

    name: str
    seconds: float  # its limit
    least: float  # seconds that must be left to begin it
    run: Callable[[Ask], Any]


def run_sections(
    sections: Sequence[Section],
    limit: float,
    now: Callable[[], float],
    together: Together,
    done: Callable[[str, dict[str, Any]], None],
) -> dict[str, dict[str, Any]]:
    """Run the sections for at most ``limit`` seconds in all.

    Returns name -> ``value``, ``error`` or ``skipped``, and the ``seconds`` it took. ``done`` is called with the name
    and this record when a section is over.
    """
    end, records = now() + limit, dict[str, dict[str, Any]]()
    for section in sections:
        began = now()
        left = end - began
        if left < section.least:
            records[section.name] = {"skipped": f"{max(left, 0):.0f} s left, {section.least:.0f} needed"}
            done(section.name, records[section.name])
            continue
        ask = Ask(together, now, began + min(section.seconds, left))
        try:
            records[section.name] = {"value": section.run(ask)}
        except SectionError as error:
            records[section.name] = {"error": str(error)}
        records[section.name]["seconds"] = round(now() - began, 1)
        done(section.name, records[section.name])
    return records
