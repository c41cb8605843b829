"""A sweep against launchers that lose, swallow or refuse, and places that cannot be written: never exit code 0."""

import errno
import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hydra
import pytest
import torch
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig
from runhelpers import ROOT, run_folders, tiny_overrides

from albert_ablate.door.app import multirun
from albert_ablate.door.cells import expand, read_command_line
from albert_ablate.door.launchers import asks_for_gpus, completed, engine_of, prepare
from albert_ablate.door.words import initialised
from albert_ablate.errors import ConfigError
from albert_ablate.record.folder import RunFolder
from albert_ablate.sweeping import engine
from albert_ablate.sweeping.cells import Cell
from albert_ablate.sweeping.process import Outcome

Jobs = Sequence[Sequence[str]]


class Fake:
    """A launcher that trains nothing and answers as it is told."""

    def __init__(self, answer: Callable[[Jobs], list[JobReturn]]) -> None:
        self.answer = answer
        self.launched: list[Sequence[str]] = []
        self.calls: list[int] = []

    def launch(self, jobs: Jobs, initial_job_idx: int) -> list[JobReturn]:
        self.launched += jobs
        self.calls.append(len(jobs))
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
        multirun(words, launcher_settings(*settings), lambda composed: launcher)  # type: ignore[arg-type, return-value]
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


def test_submitit_local_starts_as_many_cells_as_there_are_cores(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    seeds = f"seed={','.join(map(str, range(12)))}"
    words = [w for w in tiny_overrides(place, "runtime.retries=0", seeds, runs="many") if "threads" not in w]
    for more, parts in (([], [4, 4, 4]), (["runtime.threads=2"], [2] * 6), (["runtime.threads=8"], [1] * 12)):
        launcher = Fake(answers(JobStatus.COMPLETED, Outcome(1, "no")))
        assert sweep([*words, *more], launcher, ["hydra/launcher=submitit_local"]) == 1
        assert launcher.calls == parts
        assert f"12 cells, {parts[0]} at a time on 4 cores" in capsys.readouterr().out
        threads = {word for job in launcher.launched for word in job if word.startswith("runtime.threads")}
        assert threads == set(more or ["runtime.threads=1"])


def test_the_preset_of_slurm_sets_what_a_cluster_asks_for() -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    composed = launcher_settings("hydra/launcher=slurm", "hydra.launcher.gpus_per_node=1")
    assert engine_of(composed.hydra).cluster
    assert asks_for_gpus(composed.hydra)
    assert not asks_for_gpus(launcher_settings("hydra/launcher=slurm").hydra)
    settings = composed.hydra.launcher
    assert (settings.cpus_per_task, settings.mem_gb, settings.array_parallelism, settings.setup) == (4, 16, 16, [])


@pytest.mark.parametrize(("given", "limits"), [([], 7), (["hydra.launcher.max_num_timeout=0"], 0)])
def test_a_job_is_requeued_as_often_as_a_run_may_reach_its_limit(given: list[str], limits: int, place: Path) -> None:
    """Of the cells' own settings: those of the command line, not the defaults."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    composed = launcher_settings("hydra/launcher=slurm", *given)
    completed(composed, cells_of(place, "runtime.time_limits=7"), gpus=0)
    assert composed.hydra.launcher.max_num_timeout == limits


def test_a_signal_ahead_of_the_whole_job_is_refused(place: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    composed = launcher_settings("hydra/launcher=slurm", "hydra.launcher.timeout_min=2")
    with pytest.raises(ConfigError, match=r"signal_delay_s=120.*timeout_min=2.*fewer than 120, such as 30"):
        completed(composed, cells_of(place), gpus=0)
    composed = launcher_settings(
        "hydra/launcher=slurm", "hydra.launcher.timeout_min=2", "hydra.launcher.signal_delay_s=40"
    )
    completed(composed, cells_of(place), gpus=0)


def test_the_file_of_a_cluster_in_the_page_composes(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    page = (ROOT / "docs" / "slurm.md").read_text(encoding="utf-8")
    (own,) = re.findall(r"```yaml\n(.*?)```", page, re.S)
    file = tmp_path / "hydra" / "launcher" / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(own)
    composed = launcher_settings(f"hydra.searchpath=[file://{tmp_path}]", "hydra/launcher=mine")
    assert engine_of(composed.hydra).name == "submitit_slurm"
    assert asks_for_gpus(composed.hydra)
    assert composed.hydra.launcher.account == "nlp"
    assert composed.hydra.launcher.signal_delay_s == 120  # of the preset


def test_the_batch_script_in_the_page_is_one(tmp_path: Path) -> None:
    """Its shape; tests/test_slurm.py runs it."""
    (script,) = re.findall(
        r"```bash\n(#!/bin/bash\n.*?)```", (ROOT / "docs" / "slurm.md").read_text(encoding="utf-8"), re.S
    )
    file = tmp_path / "large.sh"
    file.write_text(script)
    subprocess.run(["bash", "-n", str(file)], check=True)


def test_ray_that_is_not_installed_is_words(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"hydra/launcher=ray: it is not installed. Run `pip install -e '.\[ray\]'`"):
        prepare(launcher_settings("hydra/launcher=ray").hydra)


def test_the_queue_of_gpus_needs_a_gpu(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    composed = launcher_settings("hydra/launcher=gpus")
    completed(composed, cells_of(place, "runtime.cells_per_gpu=3"), gpus=2)
    assert composed.hydra.launcher.n_jobs == 6
    launcher = Fake(refuses)
    assert sweep(tiny_overrides(place, "seed=0,1", runs="no-gpu"), launcher, ["hydra/launcher=gpus"]) == 2
    assert "no GPU is visible here" in capsys.readouterr().err
    assert not launcher.launched


def cells_of(place: Path, *words: str) -> list[Cell]:
    return expand(read_command_line(tiny_overrides(place, "seed=0,1", *words, runs="cells")))
