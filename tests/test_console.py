"""A print never ends a run: whatever the terminal can write, and whether anybody reads it."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from runhelpers import ROOT, one_thread, only_folder, tiny_config, tiny_overrides

from albert_ablate.console import _Output
from albert_ablate.sweeping.board import board
from albert_ablate.sweeping.record import Standing

ENCODINGS = ["ascii", "latin-1", "cp1252", "cp437", "utf-8"]
SIGNS = "✓ ✗ ▶ ‖ · … – — × ± “a” 語"


def prepared(code: str, stdout: int, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """A command of ours whose ``main`` is ``code``."""
    body = "\n".join(f"    {line}" for line in code.splitlines())
    head = "import sys\nfrom albert_ablate import console\n@console.command\ndef main(words):"
    program = f"{head}\n{body}\n    return 0\nsys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", program], stdout=stdout, stderr=subprocess.PIPE, env=one_thread() | environment, cwd=ROOT
    )  # fmt: skip


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_signs_become_what_the_stream_can_write(encoding: str) -> None:
    done = prepared(f"print({SIGNS!r})\nconsole.say({SIGNS!r})", subprocess.PIPE, PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.decode(encoding).splitlines()
    assert lines[0] == lines[1]
    if encoding == "ascii":
        assert lines[0] == '+ x > = - . - - x +/- "a" ?'
    for sign, found in zip(SIGNS.split(), lines[0].split(), strict=True):
        try:
            sign.encode(encoding)
        except UnicodeEncodeError:
            continue
        assert found == sign  # what the stream has is left as it is


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("width", [20, 40, 80])
def test_the_board_is_drawn_on_any_terminal(encoding: str, width: int) -> None:
    states = ("finished", "running", "failed", "diverged", "preempted", "missing")
    cells = [Standing(f"e16-all-{s}-σ", s, "why …", 3, 0.5, 10.0, "training") for s in states]
    raw = io.BytesIO()
    out = _Output(raw, encoding, "stand_in")
    for terminal in (True, False):
        Console(file=out, width=width, force_terminal=terminal).print(board("sweep ×", cells))
    out.flush()
    lines = raw.getvalue().decode(encoding).splitlines()
    assert sum("finished" in line for line in lines) >= 1


def test_a_reader_that_has_seen_enough_is_no_failure() -> None:
    read, write = os.pipe()
    os.close(read)
    done = prepared("for _ in range(10000): print('a line')\nsys.stdout.flush()", write)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_output_that_could_not_be_written_is_told_by_the_exit_code() -> None:
    with open("/dev/full", "wb") as full:
        done = prepared("for _ in range(10000): console.say('a line')", full.fileno())
    assert done.returncode == 28
    assert done.stderr.decode().strip() == "The output could not be written (No space left on device)."


def test_closed_streams_are_no_failure() -> None:
    program = "import sys\nfrom albert_ablate import console\nconsole.prepare()\nprint('a')\nconsole.say('b')"
    done = subprocess.run(
        ["sh", "-c", 'exec "$0" -c "$1" >&- 2>&-', sys.executable, program], env=one_thread(), cwd=ROOT
    )
    assert done.returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_run_outlives_a_terminal_of_ascii_on_a_full_disk(tmp_path: Path) -> None:
    """And warnings that are errors, with a tracker that does not start."""
    environment = one_thread() | {"PYTHONIOENCODING": "ascii", "PYTHONWARNINGS": "error", "COLUMNS": "20"}
    environment = {name: value for name, value in environment.items() if not name.startswith("WANDB_")}
    words = tiny_overrides(tmp_path, "tracker=wandb", "tracker.mode=online")
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, str(ROOT / "run.py"), *words], stdin=subprocess.DEVNULL, stdout=full,
            stderr=subprocess.PIPE, env=environment | {"HOME": str(tmp_path)}, cwd=tmp_path, timeout=300,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    folder = only_folder(tiny_config(tmp_path))
    assert folder.state() == "finished"
    assert "tracker wandb" in (folder.path / "log.txt").read_text()
