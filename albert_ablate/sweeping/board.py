"""The board: every cell of a sweep, live on a terminal, as plain lines elsewhere."""

import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from albert_ablate.console import duration
from albert_ablate.record.folder import FAILURES
from albert_ablate.sweeping.record import Standing

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


def counts(cells: Sequence[Standing]) -> str:
    """``3 finished, 1 running, 4 waiting``."""
    numbers = Counter(_NAMES.get(cell.state, cell.state) for cell in cells)
    names = dict.fromkeys(_NAMES.get(state, state) for state in _MARKS)
    return ", ".join(f"{numbers[name]} {name}" for name in names if numbers[name])


def board(title: str, cells: Sequence[Standing], height: int | None = None) -> RenderableType:
    """All cells, or those around the running ones if they do not fit into ``height`` lines."""
    table = Table(box=None, padding=(0, 1), pad_edge=False, show_header=False)
    table.add_column(width=3)
    table.add_column(no_wrap=True, overflow="ellipsis")
    table.add_column(no_wrap=True)
    table.add_column(overflow="ellipsis", no_wrap=True)
    shown, above, below = _window(cells, height)
    for cell in shown:
        mark, style = _MARKS[cell.state]
        bar: RenderableType = ProgressBar(total=1.0, completed=cell.share or 0.0, width=20)
        state = Text(_NAMES.get(cell.state, cell.state), style=style)
        table.add_row(
            Text(f"  {mark}", style=style), cell.label, bar if cell.state == "running" else state, _detail(cell)
        )
    hidden = [f"{n} {where}" for n, where in ((above, "above"), (below, "below")) if n]
    more = Text(f"  … {' and '.join(hidden)}", style="dim") if hidden else Text("", end="")
    return Group(Text(f"{title}: {counts(cells)}", style="bold"), table, more)


def _window(cells: Sequence[Standing], height: int | None) -> tuple[Sequence[Standing], int, int]:
    room = len(cells) if height is None else max(height - 4, 5)
    if len(cells) <= room:
        return cells, 0, 0
    active = next((i for i, cell in enumerate(cells) if cell.state == "running"), 0)
    first = min(max(active - room // 3, 0), len(cells) - room)
    return cells[first : first + room], first, len(cells) - first - room


def _detail(cell: Standing) -> str:
    if cell.state == "running":
        if cell.share is None or cell.phase != "training":
            return cell.phase or "starting"
        return f"{cell.share:.0%} · step {cell.step:,} · {cell.speed or 0:,.0f} tokens/s"
    if cell.state in (*FAILURES, "preempted"):
        return " ".join((cell.reason or "").split())
    return ""


class Watch:
    """Shows a sweep from its own thread until the body ends."""

    def __init__(self, title: str, look: Callable[[], list[Standing]], console: Console | None = None) -> None:
        self._title = title
        self._look = look
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
            return board(self._title, self._look(), shutil.get_terminal_size().lines)

        with Live(draw(), console=self._console, auto_refresh=False, transient=True) as live:
            while not self._over.wait(1.0):
                live.update(draw(), refresh=True)

    def _plain(self) -> None:
        """A line when a cell starts or ends, and every half minute one for each running cell."""
        before = {cell.label: cell.state for cell in self._look()}
        began = last_shown = time.monotonic()
        while True:
            over = self._over.wait(0.5)
            cells = self._look()
            now = time.monotonic()
            for cell in cells:
                if cell.state != before[cell.label]:
                    before[cell.label] = cell.state
                    mark, state = _MARKS[cell.state][0], _NAMES.get(cell.state, cell.state)
                    detail = f" · {_detail(cell)}" if cell.state in (*FAILURES, "preempted") else ""
                    self._say(f"  {mark} {cell.label} {state}{detail} · {counts(cells)} · {duration(now - began)}")
            if over:
                return
            if now - last_shown >= _PLAIN_SECONDS:
                last_shown = now
                for cell in cells:
                    if cell.state == "running":
                        self._say(f"  ▶ {cell.label} {_detail(cell)}")

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)
        sys.stdout.flush()
