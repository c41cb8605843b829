"""States of jobs on a cluster without accounts, with a made-up queue."""

import time
from pathlib import Path

import pytest

from albert_ablate.door.slurm import watch_queue_without_accounts

submitit = pytest.importorskip("submitit.slurm.slurm")


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(submitit.SlurmJob, "watcher", submitit.SlurmInfoWatcher(delay_s=600))
    return tmp_path


def write(programs: Path, name: str, body: str) -> None:
    (programs / name).write_text(f"#!/bin/sh\n{body}\n")
    (programs / name).chmod(0o755)


def test_without_accounts_the_queue_says_which_jobs_have_ended(programs: Path) -> None:
    write(programs, "sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    write(programs, "squeue", 'echo "7_0|RUNNING\n7_1|OUT_OF_MEMORY\n7_2|CONFIGURING\n7_3|COMPLETING\n7_4|PENDING"')
    watch_queue_without_accounts()
    watcher = submitit.SlurmJob.watcher
    ended = {f"7_{task}": watcher.is_done(f"7_{task}", mode="force") for task in range(6)}
    assert ended == {"7_0": False, "7_1": True, "7_2": False, "7_3": False, "7_4": False, "7_5": True}
    assert watcher.get_state("7_1") == "OUT_OF_MEMORY"


def test_a_controller_that_does_not_answer_ends_no_job(programs: Path) -> None:
    write(programs, "sacct", "exit 1")
    write(programs, "squeue", "exit 1")
    watch_queue_without_accounts()
    assert not submitit.SlurmJob.watcher.is_done("7_0", mode="force")
    time.sleep(0.01)  # submitit does not look twice in a millisecond
    write(programs, "squeue", "echo '7_0|FAILED'")
    assert submitit.SlurmJob.watcher.is_done("7_0", mode="force")


@pytest.mark.parametrize("has_queue", [True, False])
def test_accounts_are_asked_where_there_are_some(programs: Path, has_queue: bool) -> None:
    write(programs, "sacct", "exit 0")
    if has_queue:
        write(programs, "squeue", "exit 0")
    watch_queue_without_accounts()
    assert type(submitit.SlurmJob.watcher) is submitit.SlurmInfoWatcher
