"""Terminal output: lines, a progress bar, and the summary of a run.

Printing never ends a run. ``prepare``, at the start of every command, makes the standard streams replace
characters that their encoding lacks, and ignore closed pipes and full disks. ``command`` wraps every
command and turns errors into messages and exit codes.
"""

import codecs
import errno
import io
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text

from albert_ablate.errors import UserError

_console = Console(highlight=False)
#: Without a terminal, seconds between plain progress lines.
_PLAIN_SECONDS = 10.0
#: Replacements of characters that a stream's encoding lacks; others become a question mark.
_STAND_INS = {
    "✓": "+", "✗": "x", "▶": ">", "‖": "=", "●": "*", "·": "-", "…": ".", "–": "-", "—": "-", "−": "-", "×": "x",
    "→": ">", "≈": "~", "≥": ">=", "≤": "<=", "±": "+/-", "°": " deg", "’": "'", "“": '"', "”": '"', "\u00a0": " ",
}  # fmt: skip


def _stand_in(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_STAND_INS.get(sign, "?") for sign in error.object[error.start : error.end]), error.end


codecs.register_error("stand_in", _stand_in)


class _Output(io.TextIOWrapper):
    """A standard stream whose writes never raise: neither for a character nor for a closed reader or a full disk."""

    lost: OSError | None = None  # the last error of a write

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self.lost = error
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self.lost = error


def prepare() -> None:
    """Replace the standard streams by ones on which no print fails."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the process that started this one
            outlet: Any = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        elif type(stream) is io.TextIOWrapper:
            encoding, buffered = stream.encoding, stream.line_buffering
            outlet = _Output(stream.detach(), encoding, "stand_in", line_buffering=buffered)
        else:  # of a notebook or a test
            continue
        setattr(sys, name, outlet)
        setattr(sys, f"__{name}__", outlet)


def command(main: Callable[[Sequence[str] | None], int]) -> Callable[..., int]:
    """Wrap the ``main`` of a command, which takes the arguments and returns the exit code.

    A UserError becomes its message on stderr and its exit code. Called without arguments, ``main`` is the whole
    process: it reads the command line, ``as_process`` applies, and the exit code is 28 or 1 if the output could not
    be written. A reader that stops early (``| head``) is no failure.
    """

    @wraps(main)
    def run(arguments: Sequence[str] | None = None) -> int:
        if arguments is not None:  # called from Python, whose streams and Ctrl-C are the caller's
            return _explaining_errors(lambda: main(arguments))
        return _written(as_process(lambda: main(None)))

    return run


def as_process(work: Callable[[], int]) -> int:
    """Run ``work`` as the whole process; returns its exit code. Errors and Ctrl-C become messages on stderr."""
    prepare()
    try:
        return _explaining_errors(work)
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return 130


def _explaining_errors(work: Callable[[], int]) -> int:
    try:
        return work()
    except UserError as error:
        return tell(error)


def tell(error: UserError) -> int:
    """Print the message of an error on stderr; returns its exit code."""
    print(f"\n{error.message}\n", file=sys.stderr)
    return error.exit_code


def _written(code: int) -> int:
    """``code`` or, for a successful command whose output could not be written, the code of that error."""
    sys.stdout.flush()
    lost = getattr(sys.stdout, "lost", None)
    if lost is None or lost.errno == errno.EPIPE:
        return code
    print(f"\nThe output could not be written ({lost.strerror}).", file=sys.stderr)
    return code or (errno.ENOSPC if lost.errno == errno.ENOSPC else 1)


def silence() -> None:
    """Print nothing from now on, as in a cell of a sweep, whose terminal shows the board."""
    _console.quiet = True


def say(text: str) -> None:
    """Print one line."""
    _console.print(text, markup=False, soft_wrap=True)


def stage(text: str) -> AbstractContextManager[object]:
    """Show a spinner with ``text`` during the body, on a terminal only."""
    spinner = "line" if _console.options.ascii_only else "dots"
    return _console.status(f"  {text}", spinner=spinner) if _console.is_terminal else nullcontext()


def show(renderable: Any) -> None:
    """Print anything that rich can render."""
    _console.print(renderable)


class Progress:
    """A progress bar with numbers and remaining time on a terminal, plain lines elsewhere."""

    def __init__(self, total: float, start: float, unit: str, title: str = "training") -> None:
        self._total = total  # length of the schedule, in ``unit``
        self._first = start
        self._unit = unit
        self._begin = time.perf_counter()
        self._last_line = self._begin
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
        """Show the step ``done``, the ``position`` on the schedule and the ``numbers`` of a log line."""
        share = f"/{self._total:,}" if self._unit == "steps" else f" ({position / self._total:.0%} of the {self._unit})"
        if self._bar:
            self._bar.update(self._task, completed=position, numbers=f"{done:,}{share} · {numbers}")
            return
        now = time.perf_counter()
        if now - self._last_line >= _PLAIN_SECONDS or position >= self._total:
            self._last_line = now
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


def packed(parts: Sequence[str], width: int, joint: str = " · ") -> list[str]:
    """The parts on as few lines as possible, those of a line joined by ``joint``; a part is never broken."""
    lines: list[str] = []
    for part in parts:
        joined = f"{lines[-1]}{joint}{part}" if lines else part
        if lines and Text(joined).cell_len <= width:
            lines[-1] = joined
        else:
            lines.append(part)
    return lines
