"""A sweep against launchers that lose, swallow or refuse, and places that cannot be written: never exit code 0."""

import errno
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hydra
import pytest
import torch
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig
from runhelpers import run_folders, tiny_overrides

from albert_ablate.door.app import multirun
from albert_ablate.door.words import initialised
from albert_ablate.record.folder import RunFolder
from albert_ablate.sweeping import engine
from albert_ablate.sweeping.process import Outcome

Jobs = Sequence[Sequence[str]]


class Fake:
    """A launcher that trains nothing and answers as it is told."""

    def __init__(self, answer: Callable[[Jobs], list[JobReturn]]) -> None:
        self.answer = answer
        self.launched: list[Sequence[str]] = []

    def launch(self, jobs: Jobs, initial_job_idx: int) -> list[JobReturn]:
        self.launched += jobs
        return self.answer(jobs)


def answers(status: JobStatus, value: Any) -> Callable[[Jobs], list[JobReturn]]:
    return lambda jobs: [JobReturn(status=status, _return_value=value) for _ in jobs]


def refuses(jobs: Jobs) -> list[JobReturn]:
    raise RuntimeError("the cluster is closed")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("launchers")


def launcher_settings(*words: str) -> DictConfig:
    with initialised():
        return hydra.compose("config", list(words), return_hydra_config=True)


JOBLIB = ["hydra/launcher=joblib"]
SLURM = ["hydra/launcher=submitit_slurm", "hydra.launcher.gpus_per_node=1"]


def sweep(words: list[str], launcher: Fake, settings: list[str]) -> int:
    """The exit code of a sweep."""
    try:
        multirun(words, launcher_settings(*settings), launcher)  # type: ignore[arg-type]
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


FAULTS = {
    "nothing comes back": answers(JobStatus.COMPLETED, None),
    "something else comes back": answers(JobStatus.COMPLETED, "fine"),
    "the job failed": answers(JobStatus.FAILED, ValueError("x")),
    "the job is not over": answers(JobStatus.UNKNOWN, None),
    "a success that never ran": answers(JobStatus.COMPLETED, Outcome(0)),
    "too few answers": lambda jobs: [],
    "the launcher raises": refuses,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_no_launcher_makes_a_sweep_of_missing_cells_a_success(fault: str, place: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    runs = fault.replace(" ", "-")
    launcher = Fake(FAULTS[fault])
    assert sweep(tiny_overrides(place, "seed=0", runs=runs), launcher, JOBLIB) == 1
    assert len(launcher.launched) == 2, "a cell is tried twice"
    found = [RunFolder(folder.parent, folder.name).status() for folder in run_folders(place / runs)]
    assert [status["state"] for status in found if status] == ["failed"]
    (record,) = (place / runs / ".sweeps").glob("*.json")
    assert json.loads(record.read_text())["exit_code"] == 1


def test_rerun_failed_is_no_success_where_cells_never_ran(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    launcher = Fake(refuses)
    assert sweep(tiny_overrides(place, "seed=0,1", "rerun=failed", runs="never"), launcher, JOBLIB) == 1
    assert not launcher.launched
    assert "2 cells are not finished and were left out by rerun=failed" in capsys.readouterr().out


def test_a_place_that_cannot_be_written_is_found_before_anything_is_done(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    monkeypatch.setattr(engine, "assign_folders", None)  # would prepare the data
    blocked = place / "blocked"
    blocked.mkdir()
    (blocked / ".sweeps").write_text("a file")
    launcher = Fake(refuses)
    for paths in (["paths.runs=/proc/none/runs"], ["paths.cache=/proc/none/cache"], [f"paths.runs={blocked}"]):
        assert sweep(tiny_overrides(place, *paths, runs="unused"), launcher, JOBLIB) == 2
        assert "cannot be written" in capsys.readouterr().err
    assert not launcher.launched


def test_a_full_disk_at_the_record_is_words(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(engine, "end_record", full)
    words = tiny_overrides(place, "seed=0", runs="full")
    assert sweep(words, Fake(refuses), JOBLIB) == 1, "the end of a sweep is told all the same"
    assert "could not be recorded" in capsys.readouterr().out
    monkeypatch.setattr(engine, "write_record", full)
    assert sweep(words, Fake(refuses), JOBLIB) == 28
    assert "No space left" in capsys.readouterr().err


def test_a_gpu_is_looked_for_where_the_cells_will_run(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not on the login node of a cluster, where the number format has to be said: it is part of the identity."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    here, cluster = Fake(refuses), Fake(refuses)
    words = tiny_overrides(place, "runtime.device=cuda", "runtime.retries=0", runs="gpu")
    assert sweep(words, here, JOBLIB) == 2
    assert "this machine has no usable GPU" in capsys.readouterr().err
    for unclear in (["runtime.precision=auto"], ["runtime.precision=auto", "runtime.device=auto"]):
        assert sweep([*words, *unclear], cluster, SLURM) == 2
        assert "Say runtime.precision=bf16" in capsys.readouterr().err
    assert not here.launched + cluster.launched
    assert sweep([*words, "runtime.precision=bf16"], cluster, SLURM) == 1
    assert len(cluster.launched) == 1


def test_more_cells_than_cores_at_once_are_mentioned(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1}, raising=False)
    words = [w for w in tiny_overrides(place, "seed=0,1,2", "runtime.retries=0", runs="many") if "threads" not in w]
    launcher = Fake(refuses)
    assert sweep(words, launcher, ["hydra/launcher=submitit_local"]) == 1
    assert "submitit_local starts all 3 cells at once, on 2 cores" in capsys.readouterr().out
    assert all("runtime.threads=1" in job for job in launcher.launched)
