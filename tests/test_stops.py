"""What a cluster does to a sweep: time limits and preemption are no failures, and end where they lead nowhere."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from runhelpers import ROOT, one_thread, only_folder, run_folders, tiny_config, tiny_overrides

from albert_ablate import stopping
from albert_ablate.errors import NoProgressError, PreemptedError
from albert_ablate.record.folder import RunFolder
from albert_ablate.record.outcome import ordinal, recorded
from albert_ablate.sweeping.cells import Cell, Placed, assign_folders
from albert_ablate.sweeping.engine import run_sweep
from albert_ablate.sweeping.gpus import local_precision
from albert_ablate.sweeping.process import Outcome

LIMIT = PreemptedError("Time limit reached at step 5 of 12", "the same command continues from there", limit=True)


@pytest.fixture
def cell(tmp_path: Path) -> Cell:
    return Cell(tiny_config(tmp_path, "runtime.retries=0"), (), ())


def reach(folder: RunFolder, step: int) -> Outcome:
    """What a cell leaves that a time limit ends after ``step``."""
    (folder.checkpoints / f"step_{step:08d}").mkdir(parents=True, exist_ok=True)
    folder.set_status("running")
    with pytest.raises(PreemptedError) as stop, recorded(folder, "", 100):
        raise PreemptedError(f"Time limit reached at step {step} of 12", "it continues", limit=True)
    return Outcome(stop.value.exit_code, str(stop.value))


def swept(cell: Cell, rounds: Callable[[int, Placed], Outcome | None]) -> tuple[int, RunFolder, int]:
    """(exit code, folder, rounds) of a sweep whose launcher is ``rounds``."""
    (placed,) = assign_folders([cell], local_precision)
    assert placed.folder is not None
    count = 0

    def launch(_: object) -> list[Outcome | None]:
        nonlocal count
        count += 1
        assert count < 20, "an endless loop"
        return [rounds(count, placed)]

    code = run_sweep("x", [cell], "missing", launch, one_by_one=False, precision_of=local_precision)
    return code, placed.folder, count


@pytest.mark.parametrize("answers", [True, False], ids=["with an outcome", "the launcher lost it"])
def test_three_time_limits_use_up_no_retry(cell: Cell, answers: bool, capsys: pytest.CaptureFixture[str]) -> None:
    def rounds(count: int, placed: Placed) -> Outcome | None:
        assert placed.folder is not None
        if count == 4:
            placed.folder.set_status("finished")
            return Outcome(0)
        outcome = reach(placed.folder, 3 * count)
        if not answers:
            raise RuntimeError("Job not requeued because: timed-out too many times.")
        return outcome

    code, folder, count = swept(cell, rounds)
    assert (code, count, folder.state(), folder.time_limits()) == (0, 4, "finished", [3, 6, 9])


def test_a_time_limit_that_always_strikes_at_the_same_step_ends_the_cell_in_words(
    cell: Cell, capsys: pytest.CaptureFixture[str]
) -> None:
    code, folder, count = swept(cell, lambda _, placed: reach(placed.folder, 3))  # type: ignore[arg-type]
    assert (code, count, folder.state()) == (1, 3, "failed")
    said = capsys.readouterr().out
    assert "Time limit reached at step 3 of 12, third of 100, and 3 times without getting further than step 3." in (
        " ".join(said.split())
    )
    assert "hydra.launcher.timeout_min" in said


def test_a_preempted_cell_is_started_again_until_it_stands_still(cell: Cell) -> None:
    """SIGTERM while data are prepared, say, when there is no folder yet."""
    code, folder, count = swept(cell, lambda *_: Outcome(75, "Stopped; the same command continues."))
    assert (code, count) == (1, 3)
    reason = (folder.status() or {})["reason"]
    assert reason == "stopped 3 times in one place: Stopped; the same command continues."


def test_a_killed_cell_still_uses_up_its_retries(cell: Cell) -> None:
    code, folder, count = swept(cell, lambda *_: Outcome(1, "killed by SIGKILL."))
    assert (code, count) == (1, 1)
    assert (folder.status() or {})["reason"] == "killed by SIGKILL."


def test_a_launcher_that_refuses_is_named_and_not_an_older_stop(cell: Cell) -> None:
    def refuse(_: int, placed: Placed) -> Outcome:
        raise RuntimeError("sbatch: invalid account")

    (placed,) = assign_folders([cell], local_precision)
    assert placed.folder is not None
    reach(placed.folder, 3)
    code, folder, count = swept(cell, refuse)
    assert (code, count) == (1, 1)
    assert "invalid account" in (folder.status() or {})["reason"]


def test_limits_are_counted_and_the_last_one_fails(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, "a")
    for step, most in ((1, 3), (2, 3)):
        (folder.checkpoints / f"step_{step:08d}").mkdir(parents=True)
        folder.set_status("running")
        with pytest.raises(PreemptedError, match=ordinal(step) + " of 3") as stop, recorded(folder, "", most):
            raise LIMIT
        assert stop.value.exit_code == 75
    (folder.checkpoints / "step_00000003").mkdir()
    folder.set_status("running")
    with pytest.raises(NoProgressError, match=r"third of 3.*runtime\.time_limits") as end, recorded(folder, "", 3):
        raise LIMIT
    assert end.value.exit_code == 1
    assert folder.state() == "failed"
    folder.set_status("running")  # the user's next start begins to count anew
    assert folder.time_limits() == []


def test_a_limit_outside_training_says_what_is_saved(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, "a")
    (folder.checkpoints / "step_00001250").mkdir(parents=True)
    with (
        pytest.raises(PreemptedError, match=r"Time limit reached after step 1,250, first of 10;"),
        recorded(folder, "", 10),
    ):
        raise PreemptedError("Time limit reached", "the same command continues from what is saved", limit=True)


def test_ordinals() -> None:
    assert [ordinal(n) for n in (1, 2, 9, 10, 11, 21, 112)] == [
        "first", "second", "ninth", "10th", "11th", "21st", "112th",
    ]  # fmt: skip


@pytest.mark.parametrize("number", stopping.LIMITS, ids=lambda s: s.name)
def test_the_launchers_handler_comes_after_the_cell(number: signal.Signals) -> None:
    """submitit's puts the job back into the queue, which kills it: the cell has to save first."""
    order: list[str] = []

    def launchers(*_: object) -> None:
        order.append("launcher")

    before = signal.signal(number, launchers)
    try:
        with stopping.limits_postponed(lambda n: order.append(signal.Signals(n).name)) as launchers_turn:
            os.kill(os.getpid(), number)
            time.sleep(0.01)
            order.append("saved")
        launchers_turn()
        assert order == [number.name, "saved", "launcher"]
        assert signal.getsignal(number) is launchers
    finally:
        signal.signal(number, before)


def test_what_a_shell_has_ignored_stays_ignored() -> None:
    """``nohup python run.py`` outlives its terminal."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopping.stoppable():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.01)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_only_a_person_is_impatient() -> None:
    """A second, other signal (SIGUSR2, then SIGTERM as the job is ended) does not cut the saving short."""
    code = (
        "import os, signal, time\n"
        "from albert_ablate import stopping\n"
        "stopping._SAME_REQUEST_SECONDS = 0.05\n"
        "def send(*numbers):\n"
        "    for number in numbers:\n"
        "        os.kill(os.getpid(), number); time.sleep(0.1)\n"
        "try:\n"
        "    with stopping.deferred() as stopped:\n"
        "        send(signal.SIGUSR2, signal.SIGTERM, signal.SIGUSR2, signal.SIGXCPU, signal.SIGXCPU)\n"
        "        print('saved', flush=True)\n"
        "        send(signal.SIGTERM)\n"
        "        print('too late')\n"
        "except BaseException as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=one_thread())
    assert (done.returncode, done.stdout) == (75, "saved\n"), done.stderr


@pytest.mark.slow
def test_a_sweep_in_a_job_saves_when_every_process_is_signalled(tmp_path: Path) -> None:
    """As SLURM does to a step: the sweep, its server of processes, the resource tracker and the cell."""
    more = ["budget.steps=20000", "runtime.log_every=5", "runtime.checkpoint_every=100000"]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "run.py"), "-m", *tiny_overrides(tmp_path, *more), "seed=0,1"], cwd=tmp_path,
        env=one_thread(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    end = time.monotonic() + 90
    while not any(f.joinpath("metrics.jsonl").is_file() for f in run_folders(tmp_path / "runs")):
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True).stdout.split()
    parents = {int(pid): int(parent) for pid, parent in zip(listed[::2], listed[1::2], strict=True)}
    family = {process.pid}
    while more_of := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more_of
    assert len(family) >= 4
    for pid in sorted(family, reverse=True):
        os.kill(pid, signal.SIGUSR2)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 75, output
    assert "Traceback" not in output
    folder = only_folder(tiny_config(tmp_path, *more))
    assert folder.state() == "preempted"
    assert folder.saved_step() == folder.time_limits()[0] > 0
    assert f"Time limit reached at step {folder.saved_step():,} of 20,000, first of 100" in output
