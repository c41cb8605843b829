"""Sweeps as a user runs them: skipped, resumed, retried, taken over, counted."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from runhelpers import ROOT, command_line, one_thread, run_folders, tiny_overrides, weights_of

from albert_ablate.record.folder import RunFolder
from albert_ablate.record.lock import owner

pytestmark = pytest.mark.slow

SWEEP = """
title: Two widths, two seeds
settings: {share: all, objective: sop, seed: [0, 1]}
cells:
  - {embed.size: [8, 16]}
"""


def start(*words: str, cwd: Path, faults: bool = False, **environment: str) -> subprocess.Popen[str]:
    path = {"PYTHONPATH": str(ROOT / "tests" / "faults")} if faults else {}
    return subprocess.Popen(
        [sys.executable, str(ROOT / "run.py"), *words], cwd=cwd, env=one_thread() | path | environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def sweep(*words: str, cwd: Path, faults: bool = False, **environment: str) -> tuple[int, str]:
    if not faults and not environment:
        done = command_line("-m", *words, cwd=cwd)
        return done.returncode, done.stdout + done.stderr
    process = start("-m", *words, cwd=cwd, faults=faults, **environment)
    output, _ = process.communicate(timeout=180)
    return process.returncode, output


def states(runs: Path) -> dict[str, str]:
    return {folder.name.rpartition("-")[0]: RunFolder(runs, folder.name).state() for folder in run_folders(runs)}


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def training_pid(runs: Path, past: int = 0) -> int | None:
    """Process of a cell that has logged more than ``past`` lines."""
    for folder in run_folders(runs):
        holder = owner(folder)
        metrics = folder / "metrics.jsonl"
        if holder and metrics.is_file() and len(metrics.read_text().splitlines()) > past:
            return int(holder["pid"])
    return None


def bits(runs: Path) -> dict[str, tuple[bytes, dict[str, Any]]]:
    """What two sweeps of the same cells must agree on."""
    found = {}
    for path in run_folders(runs):
        folder = RunFolder(runs, path.name)
        results = folder.read("results.json")
        scores = {key: results[key] for key in ("masked_lm", "nsp", "sop")}
        found[path.name] = (weights_of(folder), scores)
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweeps")
    (folder / "mine.yaml").write_text(SWEEP)
    return folder


def words(place: Path, *more: str, runs: str) -> list[str]:
    tiny = [w for w in tiny_overrides(place, runs=runs) if not w.startswith("embed.size=")]
    return [f"sweep={place / 'mine.yaml'}", *tiny, *more]


LONG = ["budget.steps=300", "runtime.log_every=5", "runtime.checkpoint_every=20", "evaluation.curve_every=1000"]


@pytest.fixture(scope="module")
def undisturbed(place: Path) -> Path:
    code, output = sweep(*words(place, *LONG, runs="undisturbed"), cwd=place)
    assert code == 0, output
    return place / "undisturbed"


def test_a_sweep_of_a_users_file_runs_every_cell_and_then_nothing(undisturbed: Path, place: Path) -> None:
    assert set(states(undisturbed)) == {f"e{e}-all-sop-nano-s{s}" for e in (8, 16) for s in (0, 1)}
    assert set(states(undisturbed).values()) == {"finished"}
    before = {p: p.stat().st_mtime_ns for f in run_folders(undisturbed) for p in f.rglob("*")}
    code, output = sweep(*words(place, *LONG, runs="undisturbed"), cwd=place)
    assert code == 0
    assert "4 finished, 0 to run" in output
    assert "MLM loss" in output.partition("in all")[2], "the scores come last"
    assert f"python -m analysis.report {undisturbed}" in output
    assert {p: p.stat().st_mtime_ns for f in run_folders(undisturbed) for p in f.rglob("*")} == before


def test_status_prints_the_board_of_a_finished_sweep(undisturbed: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "albert_ablate.status", str(undisturbed)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert "sweep mine: 4 finished" in done.stdout
    assert "E=16, seed 1" in done.stdout
    none = subprocess.run(
        [sys.executable, "-m", "albert_ablate.status", "nowhere"], capture_output=True, text=True, cwd=undisturbed
    )
    assert none.returncode == 2
    assert "nowhere: there is no such folder" in none.stderr


def test_kill_9_of_the_sweep_loses_nothing(undisturbed: Path, place: Path) -> None:
    """The sweep dies; its cell notices, saves and leaves; the same command ends with the same bits."""
    command = words(place, *LONG, runs="killed")
    process = start("-m", *command, cwd=place)
    wait_for(lambda: process.poll() is not None or training_pid(place / "killed", past=6))
    cell = training_pid(place / "killed")
    process.kill()
    process.wait()
    assert cell is not None
    code, output = sweep(*command, cwd=place)
    assert code == 0, output
    assert bits(place / "killed") == bits(undisturbed)


def test_kill_9_of_a_cell_is_started_again_by_the_sweep(undisturbed: Path, place: Path) -> None:
    process = start("-m", *words(place, *LONG, runs="cell-killed"), cwd=place)
    wait_for(lambda: process.poll() is not None or training_pid(place / "cell-killed", past=6))
    cell = training_pid(place / "cell-killed")
    assert cell is not None
    os.kill(cell, signal.SIGKILL)
    output, _ = process.communicate(timeout=180)
    assert process.returncode == 0, output
    assert bits(place / "cell-killed") == bits(undisturbed)


def children(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    return [int(word) for word in listed.stdout.split()]


def test_kill_9_of_a_joblib_worker(undisturbed: Path, place: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    launcher = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    command = words(place, *LONG, *launcher, runs="joblib")
    process = start("-m", *command, cwd=place)
    runs = place / "joblib"
    wait_for(lambda: process.poll() is not None or training_pid(runs, past=6))

    def is_worker(pid: int) -> bool:
        return "loky" in Path(f"/proc/{pid}/cmdline").read_text().replace("resource_tracker", "")

    workers = [pid for pid in children(process.pid) if is_worker(pid)]
    assert workers
    os.kill(workers[0], signal.SIGKILL)
    first, _ = process.communicate(timeout=180)
    code, output = sweep(*command, cwd=place)
    assert code == 0, first + output
    assert bits(runs) == bits(undisturbed)


def test_submitit_runs_the_cells_as_jobs_of_this_machine(undisturbed: Path, place: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    command = words(place, *LONG, "hydra/launcher=submitit_local", "seed=0", runs="submitit")
    code, output = sweep(*command, cwd=place)
    assert code == 0, output
    expected = {name: content for name, content in bits(undisturbed).items() if "-s0-" in name}
    assert bits(place / "submitit") == expected


def test_two_sweeps_at_once_share_the_cells(undisturbed: Path, place: Path) -> None:
    command = words(place, *LONG, runs="together")
    both = [start("-m", *command, cwd=place) for _ in range(2)]
    outputs = [process.communicate(timeout=180)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert bits(place / "together") == bits(undisturbed)
    for folder in run_folders(place / "together"):
        log = (folder / "log.txt").read_text()
        assert log.count("trained") == 1, log  # once, by one of them


def test_ctrl_c_stops_the_sweep_and_the_cell_saves(place: Path) -> None:
    process = start("-m", *words(place, *LONG, runs="stopped"), cwd=place)
    wait_for(lambda: process.poll() is not None or training_pid(place / "stopped", past=6))
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 75, output
    assert list(states(place / "stopped").values()) == ["preempted"]
    assert "The same command runs the rest" in output
    status = json.loads(next((place / "stopped").glob("*/status.json")).read_text())
    assert "Stopped after step" in status["reason"]
    assert status["exit_code"] == 75


FAULTY = [
    "sweep=null", "embed.size=16", "seed=0,1,2,3,4", "optimizer.clip_norm=null", "evaluation.curve_every=1000",
    "runtime.checkpoint_every=2",
]  # fmt: skip


@pytest.fixture(scope="module")
def faulty(place: Path) -> tuple[int, str]:
    """One cell that works, one each that raises, exits, has no memory, is killed and diverges."""
    return sweep(*words(place, *FAULTY, "embed.size=16,8", runs="faulty")[1:], cwd=place, faults=True)


def test_no_failure_stops_the_others_and_all_are_listed(faulty: tuple[int, str], place: Path) -> None:
    code, output = faulty
    assert code == 1, output
    found = states(place / "faulty")
    for e in (8, 16):
        assert found[f"e{e}-all-sop-nano-s0"] == "finished"
        assert [found[f"e{e}-all-sop-nano-s{s}"] for s in (1, 2, 3)] == ["failed"] * 3
        assert found[f"e{e}-all-sop-nano-s4"] == "finished"  # killed once and started again
    assert output.count("ValueError: a bug in a new axis") >= 2
    assert "exit(7) was called" in output
    assert "Lower batch.micro_size" in output
    assert "Traceback" not in output
    assert "in loss" not in output


def test_a_failed_cell_tells_where_and_keeps_its_traceback(faulty: tuple[int, str], place: Path) -> None:
    (folder,) = (place / "faulty").glob("e8-all-sop-nano-s1-*")
    status = json.loads((folder / "status.json").read_text())
    assert (status["state"], status["exit_code"]) == ("failed", 1)
    assert "a bug in a new axis" in (folder / "log.txt").read_text()


def test_rerun_failed_runs_the_failed_alone(faulty: tuple[int, str], place: Path) -> None:
    code, output = sweep(*words(place, *FAULTY, "embed.size=16,8", "rerun=failed", runs="faulty")[1:], cwd=place)
    assert code == 0, output
    assert "4 finished, 6 to run" in output
    assert set(states(place / "faulty").values()) == {"finished"}


def test_a_cell_that_is_always_killed_is_given_up(place: Path) -> None:
    command = words(place, "seed=0,4", "embed.size=16", runs="doomed")[1:]
    code, output = sweep(*command, cwd=place, faults=True, FAULT_ALWAYS="1")
    assert code == 1, output
    assert "killed by SIGKILL" in output
    assert states(place / "doomed") == {"e16-all-sop-nano-s0": "finished", "e16-all-sop-nano-s4": "preempted"}


def test_a_diverging_cell_gives_the_sweeps_exit_code(place: Path) -> None:
    rates = ["optimizer.learning_rate=0.002,1e30", "optimizer.clip_norm=null", "evaluation.curve_every=1000"]
    code, output = sweep(*words(place, "embed.size=16", *rates, runs="diverging")[1:], cwd=place)
    assert code == 3, output
    assert sorted(RunFolder(f.parent, f.name).state() for f in run_folders(place / "diverging")) == [
        "diverged",
        "finished",
    ]


def test_rerun_all_keeps_the_old_results_aside(place: Path) -> None:
    command = words(place, "embed.size=16", "seed=0", runs="again")
    code, output = sweep(*command, cwd=place)
    assert code == 0, output
    (old,) = run_folders(place / "again")
    first = (old / "results.json").read_text()
    code, output = sweep(*command, "rerun=all", cwd=place)
    assert code == 0, output
    (aside,) = (place / "again" / ".replaced").iterdir()
    assert (aside / "results.json").read_text() == first
    assert bits(place / "again").keys() == {old.name}


def test_a_corpus_that_cannot_be_read_fails_its_own_cells_alone(place: Path) -> None:
    good = tiny_overrides(place)[1].removeprefix("data.path=")
    paths = f"data.path={good},missing.txt"
    command = [w for w in words(place, paths, "embed.size=16", "seed=0", runs="corpora") if w != f"data.path={good}"]
    code, output = sweep(*command[1:], cwd=place)
    assert code == 2, output
    assert list(states(place / "corpora").values()) == ["finished"]
    assert "missing.txt" in output
