"""Work within a limit of time: sections that each have a limit of their own and are skipped where time is short."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.alone import Answer, Call

#: Runs calls at the same time, each in its own process, for at most so many seconds (``alone.together``).
Together = Callable[[Sequence[Call], float], list[Answer]]


class SectionError(Exception):
    """A call of a section failed or was not finished in time."""


class Ask:
    """What a section calls with: every call ends when the section has to."""

    def __init__(self, together: Together, now: Callable[[], float], end: float) -> None:
        self._together = together
        self._now = now
        self._end = end

    def left(self) -> float:
        """Seconds."""
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
        """What became of each of the calls, which run at the same time."""
        return self._together(calls, self.left())


@dataclass(frozen=True)
class Section:
    """A part of the work."""

    name: str
    seconds: float  # that it may take
    least: float  # it is not begun with less left
    run: Callable[[Ask], Any]


def run_sections(
    sections: Sequence[Section],
    limit: float,
    now: Callable[[], float],
    together: Together,
    done: Callable[[str, dict[str, Any]], None],
) -> dict[str, dict[str, Any]]:
    """Name -> ``value``, ``error`` or ``skipped``, and the ``seconds`` it took, within ``limit`` seconds of now.

    ``done`` is told of each section when it is over.
    """
    end, found = now() + limit, dict[str, dict[str, Any]]()
    for section in sections:
        began = now()
        left = end - began
        if left < section.least:
            found[section.name] = {"skipped": f"{max(left, 0):.0f} s left, {section.least:.0f} needed"}
            done(section.name, found[section.name])
            continue
        ask = Ask(together, now, began + min(section.seconds, left))
        try:
            found[section.name] = {"value": section.run(ask)}
        except SectionError as error:
            found[section.name] = {"error": str(error)}
        found[section.name]["seconds"] = round(now() - began, 1)
        done(section.name, found[section.name])
    return found
