"""The board: every cell of a sweep, live on a terminal, as plain lines elsewhere."""

import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from rich.console import Console, ConsoleOptions, RenderableType
from rich.live import Live
from rich.text import Text

from albert_ablate.console import duration, packed
from albert_ablate.record.folder import FAILURES
from albert_ablate.sweeping.record import Standing
from albert_ablate.sweeping.remaining import about, seconds_left

_MARKS = {
    "finished": ("✓", "green"),
    "running": ("▶", "cyan"),
    "failed": ("✗", "bold red"),
    "diverged": ("✗", "bold red"),
    "preempted": ("‖", "yellow"),
    "missing": ("·", "dim"),
    "queued": ("·", "dim"),
}
_NAMES = {"missing": "waiting", "queued": "waiting", "preempted": "stopped"}
_PLAIN_SECONDS = 30.0
#: Columns of the mark with its margin, of a state, of the bar, and of the margin of a cell's second line.
_MARK, _STATE, _BAR, _INDENT = 4, 8, 24, 6
#: From this width on, a running cell has a bar.
_BAR_FROM = 90


def counts(cells: Sequence[Standing]) -> str:
    """``3 finished, 1 running, 4 waiting``."""
    numbers = Counter(_NAMES.get(cell.state, cell.state) for cell in cells)
    names = dict.fromkeys(_NAMES.get(state, state) for state in _MARKS)
    return ", ".join(f"{numbers[name]} {name}" for name in names if numbers[name])


def remaining(cells: Sequence[Standing], elapsed: float) -> str:
    """``7/24 · 12 min left``; the time is left out while it is not known."""
    finished = sum(cell.state == "finished" for cell in cells)
    seconds = seconds_left(cells, elapsed)
    return f"{finished}/{len(cells)}" + ("" if seconds is None else f" · {about(seconds)} left")


def board(
    title: str, cells: Sequence[Standing], height: int | None = None, elapsed: float | None = None
) -> RenderableType:
    """All cells, or those around the running ones if they do not fit into ``height`` lines.

    Marks, labels and states are never cut. With a ``height`` a reason has one line. ``elapsed``: seconds since the
    sweep was started, while it runs; the title then says how much is left.
    """
    return _Board(title, cells, height, elapsed)


class _Board:
    """The board at the width where it is printed."""

    def __init__(self, title: str, cells: Sequence[Standing], height: int | None, elapsed: float | None) -> None:
        self._title = title
        self._cells = cells
        self._height = height
        self._elapsed = elapsed

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        """Its lines."""
        width = options.max_width
        heading = self._heading(console, width)
        rows = [self._row(cell, console, width) for cell in self._cells]
        first, last = self._window(rows, len(heading))
        lines = [*heading, *(line for row in rows[first:last] for line in row)]
        hidden = [f"{n} {where}" for n, where in ((first, "above"), (len(rows) - last, "below")) if n]
        if hidden:
            lines.append(Text(f"  … {' and '.join(hidden)}", style="dim"))
        for line in lines:
            line.truncate(width, overflow="ellipsis")
            yield line

    def _heading(self, console: Console, width: int) -> list[Text]:
        lines = packed(f"{self._title}: {counts(self._cells)}".split(", "), width, ", ")
        if self._elapsed is not None:
            lines[-1:] = packed([lines[-1], remaining(self._cells, self._elapsed)], width)
        return [line for text in lines for line in _wrapped(text, console, width, "bold")]

    def _row(self, cell: Standing, console: Console, width: int) -> list[Text]:
        """The lines of a cell: mark, label and state, then the numbers of a running cell or the reason of a failure."""
        mark, style = _MARKS[cell.state]
        state_width = _BAR if width >= _BAR_FROM else _STATE
        longest = max(Text(known.label).cell_len for known in self._cells)
        label_width = max(min(longest, width - _MARK - 2 - state_width), 1)
        label, *rest = _wrapped(cell.label, console, label_width)
        label.pad_right(label_width - label.cell_len)
        line = Text.assemble((f"  {mark} ", style), label, "  ", _state(cell, state_width))
        lines = [line, *(Text(" " * _MARK) + more for more in rest)]
        room = max(width - _INDENT, 1)
        if cell.state == "running":
            under = [line for text in packed(_parts(cell), room) for line in _wrapped(text, console, room)]
        elif self._height is None:
            under = _wrapped(_reason(cell), console, room, style)
        else:
            under = [Text(_reason(cell), style=style)] if _reason(cell) else []
        return lines + [Text(" " * _INDENT) + text for text in under]

    def _window(self, rows: Sequence[Sequence[Text]], heading: int) -> tuple[int, int]:
        """(first, last + 1) of the cells to show: a third of the lines above the first running cell."""
        if self._height is None:
            return 0, len(rows)
        room = max(self._height - heading - 2, 5)
        sizes = [len(row) for row in rows]
        if sum(sizes) <= room:
            return 0, len(rows)
        active = next((i for i, cell in enumerate(self._cells) if cell.state == "running"), 0)
        first = last = active
        while first > 0 and sum(sizes[first - 1 : active]) <= room // 3:
            first -= 1
        while last < len(rows) and sum(sizes[first : last + 1]) <= room:
            last += 1
        while first > 0 and sum(sizes[first - 1 : last]) <= room:
            first -= 1
        return first, max(last, first + 1)


def _state(cell: Standing, width: int) -> Text:
    """The state or, of a cell in training, the share of its budget, with a bar if there is room."""
    name, style = _NAMES.get(cell.state, cell.state), _MARKS[cell.state][1]
    if not _training(cell):
        return Text(name, style=style)
    share = cell.share or 0.0
    if width < _BAR:
        return Text(f"{share:.0%}", style=style)
    filled = round(share * (_BAR - 5))
    return Text.assemble(("━" * filled, style), ("━" * (_BAR - 5 - filled), "dim"), (f" {share:>4.0%}", style))


def _training(cell: Standing) -> bool:
    return cell.state == "running" and cell.share is not None and cell.phase == "training"


def _parts(cell: Standing) -> list[str]:
    """What a running cell does, in pieces that are not broken."""
    if not _training(cell):
        return [cell.phase or "starting"]
    return [
        *(["step " + f"{cell.step:,}"] if cell.step is not None else []),
        *(cell.scores.split(" · ") if cell.scores else []), f"{cell.speed or 0:,.0f} tokens/s",
        *([cell.advice] if cell.advice else []),
    ]  # fmt: skip


def _reason(cell: Standing) -> str:
    """Why a cell failed or was stopped, on one line; empty for any other cell."""
    return " ".join((cell.reason or "").split()) if cell.state in (*FAILURES, "preempted") else ""


def _detail(cell: Standing) -> str:
    """What a plain line says of a cell."""
    if cell.state != "running":
        return _reason(cell)
    share = [f"{cell.share:.0%}"] if _training(cell) else []
    return " · ".join([*share, *_parts(cell)])


def _wrapped(text: str, console: Console, width: int, style: str = "") -> list[Text]:
    """Lines of ``text``, broken at spaces, and within a word only if it is wider than ``width``."""
    return list(Text(text, style=style).wrap(console, width, overflow="fold")) if text else []


class Watch:
    """Shows a sweep from its own thread until the body ends."""

    def __init__(
        self, title: str, look: Callable[[], list[Standing]], started: float, console: Console | None = None
    ) -> None:
        self._title = title
        self._look = look
        self._started = started  # Unix time
        self._console = console or Console(highlight=False)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._live if self._console.is_terminal else self._plain, daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _live(self) -> None:
        def draw() -> RenderableType:
            height = shutil.get_terminal_size().lines
            return board(self._title, self._look(), height, time.time() - self._started)

        with Live(draw(), console=self._console, auto_refresh=False, transient=True) as live:
            while not self._over.wait(1.0):
                live.update(draw(), refresh=True)

    def _plain(self) -> None:
        """A line when a cell starts or ends, and every half minute one for each running cell."""
        before = {cell.label: cell.state for cell in self._look()}
        last_shown = time.monotonic()
        while True:
            over = self._over.wait(0.5)
            cells = self._look()
            now, elapsed = time.monotonic(), time.time() - self._started
            for cell in cells:
                if cell.state != before[cell.label]:
                    before[cell.label] = cell.state
                    mark, state = _MARKS[cell.state][0], _NAMES.get(cell.state, cell.state)
                    detail = f" · {_detail(cell)}" if cell.state in (*FAILURES, "preempted") else ""
                    self._say(f"  {mark} {cell.label} {state}{detail} · {counts(cells)} · {duration(elapsed)}")
            if over:
                return
            if now - last_shown >= _PLAIN_SECONDS:
                last_shown = now
                self._say(f"{self._title}: {remaining(cells, elapsed)}")
                for cell in cells:
                    if cell.state == "running":
                        self._say(f"  ▶ {cell.label} {_detail(cell)}")

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)
        sys.stdout.flush()
