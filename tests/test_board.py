"""The board: what a person sees of a sweep."""

import io
import time
from typing import Any

from rich.console import Console

from albert_ablate.sweeping.board import Watch, board, counts
from albert_ablate.sweeping.record import Standing


def cell(label: str, state: str, **more: object) -> Standing:
    facts: dict[str, Any] = {"reason": None, "step": None, "share": None, "speed": None, "phase": None} | more
    return Standing(label, state, **facts)


CELLS = [
    cell("a", "finished"),
    cell("b", "failed", reason="ValueError: a bug\nin two lines"),
    cell("c", "running", step=1200, share=0.5, speed=43210.0, phase="training"),
    cell("d", "running", phase="evaluating"),
    cell("e", "preempted", reason="its process ended without recording a reason"),
    cell("f", "missing"),
    cell("g", "queued"),
]


def drawn(cells: list[Standing], height: int | None = None, width: int = 100) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(board("sweep x", cells, height))
    return out.getvalue()


def test_every_state_has_its_line() -> None:
    text = drawn(CELLS)
    assert "sweep x: 1 finished, 2 running, 1 failed, 1 stopped, 2 waiting" in text
    lines = {line.split()[1]: line for line in text.splitlines()[1:] if len(line.split()) > 1}
    assert "✓" in lines["a"]
    assert "ValueError: a bug in two lines" in lines["b"]
    assert "50% · step 1,200 · 43,210 tokens/s" in lines["c"]
    assert "evaluating" in lines["d"]
    assert "its process ended without recording a reason" in lines["e"]
    assert "waiting" in lines["f"]


def test_a_narrow_terminal_cuts_words_and_wraps_nothing() -> None:
    long = [cell("e32-all-sop-nano-large-1x512-s0 hidden_dropout=0.0", "failed", reason="word " * 60)]
    lines = drawn(long, width=60).rstrip().splitlines()
    assert len(lines) == 2
    assert all(len(line) <= 60 for line in lines)


def test_a_low_terminal_shows_the_running_cells() -> None:
    many = [cell(f"cell-{i}", "finished" if i < 50 else "running" if i == 50 else "missing") for i in range(100)]
    text = drawn(many, height=20)
    assert len(text.splitlines()) <= 20
    assert "cell-50" in text
    assert "above" in text
    assert "below" in text
    assert counts(many) == "50 finished, 1 running, 49 waiting"


def test_off_a_terminal_each_change_is_a_line() -> None:
    now = [cell("a", "missing"), cell("b", "missing")]
    out = io.StringIO()
    with Watch("sweep x", lambda: list(now), Console(file=out, width=100)):
        for state in ("running", "finished"):
            now[0] = cell("a", state)
            end = time.monotonic() + 10
            while f"a {state}" not in out.getvalue():
                assert time.monotonic() < end
                time.sleep(0.05)
        now[1] = cell("b", "failed", reason="no memory")  # seen even though the sweep ends at once
    lines = out.getvalue().splitlines()
    assert len(lines) == 3
    assert "✓ a finished · 1 finished, 1 waiting" in lines[1]
    assert "✗ b failed · no memory" in lines[2]


def test_on_a_terminal_it_is_live_and_leaves_nothing_behind() -> None:
    out = io.StringIO()
    terminal = Console(file=out, width=100, force_terminal=True, _environ={"TERM": "xterm"})
    with Watch("sweep x", lambda: CELLS, terminal):
        time.sleep(1.3)
    assert "43,210 tokens/s" in out.getvalue()
