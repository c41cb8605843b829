"""The board: what a person sees of a sweep."""

import io
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyte
import pytest
from rich.console import Console

from albert_ablate.sweeping.board import Watch, board, counts, remaining
from albert_ablate.sweeping.record import Standing
from albert_ablate.sweeping.remaining import about, seconds_left

PICTURES = Path(__file__).parent / "pictures"


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


DEPTH = [
    cell("layers=3 share=all s0", "finished", work=1e12),
    cell("layers=6 share=all s0", "running", step=1200, share=0.52, speed=43210.0, phase="training", work=2e12,
         scores="MLM 5.231 nats, 12.3% · sentence 55.1%"),
    cell("layers=3 share=none s0", "failed", work=1e12,
         reason="ValueError: 3 does not divide 130, the width of the model, and every head needs a whole number"),
    cell("layers=6 share=none s0", "running", phase="fine-tuning text_classification, seed 0, 40%", work=2e12),
    cell("e32-all-sop-nano-large-1x512-s0 hidden_dropout=0.0 layers=24", "preempted", work=1e12,
         reason="Stopped after step 1,081"),
    cell("layers=6 share=all s1", "missing", work=2e12),
]  # fmt: skip


def drawn(cells: list[Standing], height: int | None = None, width: int = 100) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(board("sweep x", cells, height))
    return out.getvalue()


def test_every_state_has_its_line() -> None:
    text = drawn(CELLS)
    assert "sweep x: 1 finished, 2 running, 1 failed, 1 stopped, 2 waiting" in text
    lines = [line.split() for line in text.splitlines()[1:]]
    rows = {line[1]: [line, *lines[i + 1 : i + 2]] for i, line in enumerate(lines) if line[0] in "✓✗▶‖·"}
    assert rows["a"][0] == ["✓", "a", "finished"]
    assert rows["b"] == [["✗", "b", "failed"], ["ValueError:", "a", "bug", "in", "two", "lines"]]
    assert rows["c"][0][-1] == "50%"
    assert rows["c"][1] == ["step", "1,200", "·", "43,210", "tokens/s"]
    assert rows["d"] == [["▶", "d", "running"], ["evaluating"]]
    assert rows["e"][1] == ["its", "process", "ended", "without", "recording", "a", "reason"]
    assert rows["f"][0] == ["·", "f", "waiting"]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_board_on_a_terminal_is_the_picture(width: int) -> None:
    screen = pyte.Screen(width, 40)
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=True).print(board("sweep depth", DEPTH, elapsed=600.0))
    pyte.Stream(screen).feed(out.getvalue().replace("\n", "\r\n"))
    shown = "\n".join(line.rstrip() for line in screen.display).rstrip() + "\n"
    assert shown == (PICTURES / f"board-{width}.txt").read_text(encoding="utf-8")


def test_advice_on_a_slow_run_stands_with_its_numbers() -> None:
    slow = replace(DEPTH[1], advice="other programs use the processor; runtime.threads=1 may be faster")
    words = " ".join(drawn([slow], width=60).split())
    assert "43,210 tokens/s other programs use the processor; runtime.threads=1 may be faster" in words
    assert all(len(line) <= 60 for line in drawn([slow], width=60).splitlines())


def test_a_live_board_shows_one_line_of_a_reason() -> None:
    long = [cell("e32-all-sop-nano-large-1x512-s0 hidden_dropout=0.0", "failed", reason="word " * 60)]
    lines = drawn(long, width=60, height=20).rstrip().splitlines()
    assert lines[1].split() == ["✗", "e32-all-sop-nano-large-1x512-s0", "failed"]
    assert lines[2].split() == ["hidden_dropout=0.0"]
    assert len(lines) == 4
    assert lines[3].endswith("…")
    assert all(len(line) <= 60 for line in lines)
    whole = drawn(long, width=60)
    assert whole.count("word") == 60


def test_the_time_left_follows_from_the_work_done_since_the_start() -> None:
    work = [  # the first was finished before, and the third half done
        cell("a", "finished", work=8e12, before=1.0),
        cell("b", "finished", work=1e12),
        cell("c", "running", work=2e12, before=0.5, share=0.75, phase="training"),
        cell("d", "missing", work=4e12),
        cell("e", "failed", work=9e12),
    ]
    assert seconds_left(work, 60.0) == pytest.approx(60 * (0.5 + 4) / (1 + 0.5))
    assert remaining(work, 60.0) == "2/5 · 3 min left"
    assert seconds_left(work[2:4], 60.0) == pytest.approx(60 * 4.5 / 0.5)
    assert seconds_left(work[3:], 60.0) is None, "nothing has been done yet"
    assert seconds_left(work[:2], 60.0) is None, "nothing is left"
    assert seconds_left([*work, cell("f", "missing")], 60.0) is None, "an older record"
    evaluating = replace(work[2], phase="evaluating", share=0.1)
    assert seconds_left([evaluating, work[3]], 60.0) == pytest.approx(60 * 4 / 1)
    assert about(3 * 3600 + 61) == "3 h 02 min"


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
    with Watch("sweep x", lambda: list(now), time.time(), Console(file=out, width=100)):
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
    with Watch("sweep x", lambda: CELLS, time.time(), terminal):
        time.sleep(1.3)
    assert "43,210 tokens/s" in out.getvalue()
