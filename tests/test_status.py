"""How runs stand, with and without a sweep's record."""

import time
from pathlib import Path
from typing import Any

import pytest

from albert_ablate.commands.status import main
from albert_ablate.files import write_json
from albert_ablate.record.folder import RunFolder
from albert_ablate.record.lock import locked, owner


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copied or single runs, no sweep."""
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "runs"
    RunFolder(place, "a").set_status("finished")
    RunFolder(place, "b").set_status("failed", "no memory", 1)
    RunFolder(place, "c").set_status("finished")
    RunFolder(place / "c" / "tasks", "sst2-s0-0").set_status("preempted", "Stopped sst2 after step 3 of 9")
    RunFolder(place / ".replaced", "old").set_status("finished")
    return place


def test_single_runs_are_listed_with_their_states(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0  # runs/ is the default
    text = capsys.readouterr().out
    assert "runs, runs of no sweep: 1 finished, 1 failed, 1 stopped" in text
    lines = [" ".join(line.split()) for line in text.splitlines()[1:]]
    assert lines == ["✓ a finished", "✗ b failed", "no memory", "‖ c stopped", "Stopped sst2 after step 3 of 9"]


def test_one_damaged_record_hides_no_run(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (runs / "a" / "status.json").write_text("{}")
    assert main([str(runs)]) == 0
    text = capsys.readouterr().out
    assert "2 failed, 1 stopped" in text
    assert "is damaged" in text


@pytest.mark.parametrize("word", ["runs/b", "."])
def test_a_run_folder_shows_that_run(
    word: str, runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if word == ".":
        monkeypatch.chdir(runs / "b")
    assert main([word]) == 0
    text = capsys.readouterr().out
    assert "b: 1 failed" in text
    assert "no memory" in text


def test_a_sweep_comes_first_and_all_shows_the_other_runs(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells: list[dict[str, Any]] = [{"label": "cell a", "folder": "a", "units": [], "problem": None}]
    facts = {"name": "x", "started": 0, "ended": 60, "host": "h", "pid": 1, "cells": cells}
    write_json(runs / ".sweeps" / "x-1.json", facts)
    assert main([str(runs)]) == 0
    text = capsys.readouterr().out
    assert "sweep x: 1 finished" in text
    assert "no memory" not in text
    assert "2 more of no sweep; --all shows them" in text
    with locked(runs / "b") as lock:  # a run that is going on is shown beside a sweep
        RunFolder(runs, "b").set_status("running")
        lock.note(phase="training", step=5, share=0.5, speed=100.0, scores="MLM 5.231 nats")
        end = time.monotonic() + 20
        while "share" not in (owner(runs / "b") or {}).get("progress", {}):
            assert time.monotonic() < end
            time.sleep(0.1)
        assert main([str(runs)]) == 0
    text = capsys.readouterr().out
    assert "runs of no sweep: 1 running" in text
    assert "step 5 · MLM 5.231 nats · 100 tokens/s" in text
    assert "1 more of no sweep; --all shows it" in text
    RunFolder(runs, "b").set_status("failed", "no memory", 1)
    assert main([str(runs), "--all"]) == 0
    text = capsys.readouterr().out
    assert "sweep x: 1 finished" in text
    assert "runs of no sweep: 1 failed, 1 stopped" in text
    assert main([str(runs), "--sweep", "y"]) == 2
    assert "no sweep called y" in capsys.readouterr().err


def test_where_nothing_is_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "no run and no sweep" in said
    assert "To start a run: python run.py scale=demo. A sweep: python run.py -m sweep=demo." in said
    assert main([str(tmp_path / "none")]) == 2
    assert "there is no such folder" in capsys.readouterr().err
