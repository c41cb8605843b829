"""What the terminal shows: lines, a progress bar, and the summary of a run."""

import sys
import time
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

_console = Console(highlight=False)
#: Off a terminal, at most one plain progress line in this many seconds.
_PLAIN_SECONDS = 10.0


def silence() -> None:
    """Print nothing from now on: a cell of a sweep leaves the terminal to the board."""
    _console.quiet = True


def say(text: str) -> None:
    """One line."""
    _console.print(text, markup=False, soft_wrap=True)


def stage(text: str) -> AbstractContextManager[object]:
    """On a terminal, a spinner with ``text`` while the body runs; elsewhere nothing."""
    return _console.status(f"  {text}") if _console.is_terminal else nullcontext()


def show(renderable: Any) -> None:
    """Anything rich can draw."""
    _console.print(renderable)


class Progress:
    """A bar with numbers and time left on a terminal, plain lines elsewhere."""

    def __init__(self, total: float, start: float, unit: str, title: str = "training") -> None:
        self._total = total  # length of the schedule; positions on it, not steps, where the unit is not steps
        self._first = start
        self._unit = unit
        self._begin = time.perf_counter()
        self._said = self._begin
        self._bar = None
        if _console.is_terminal:
            self._bar = Bar(
                TextColumn(f"  {title}"), BarColumn(bar_width=30), TextColumn("{task.fields[numbers]}"),
                TimeRemainingColumn(), console=_console, transient=True,
            )  # fmt: skip
            self._task = self._bar.add_task("train", total=total, numbers="")
            self._bar.update(self._task, completed=start)

    def __enter__(self) -> "Progress":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar:
            self._bar.stop()

    def update(self, done: int, position: float, numbers: str) -> None:
        """Show how far it is and the ``numbers`` of a logged line."""
        share = f"/{self._total:,}" if self._unit == "steps" else f" ({position / self._total:.0%} of the {self._unit})"
        if self._bar:
            self._bar.update(self._task, completed=position, numbers=f"{done:,}{share} · {numbers}")
            return
        now = time.perf_counter()
        if now - self._said >= _PLAIN_SECONDS or position >= self._total:
            self._said = now
            left = (now - self._begin) / max(position - self._first, 1e-9) * max(self._total - position, 0)
            say(f"  step {done:>6,}{share} · {numbers} · {duration(left)} left")
            sys.stdout.flush()


def duration(seconds: float) -> str:
    """Seconds as ``42 s``, ``3 min 05 s`` or ``2 h 10 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
