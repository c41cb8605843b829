"""Sweeps over the settings of tasks."""

import shutil
from pathlib import Path

from finetunehelpers import entries
from runhelpers import command_line, run_folders, tiny_overrides
from taskhelpers import (
    TINY,
    write_squad,
    write_sst2,
)

from albert_ablate.record.folder import RunFolder


def test_a_sweep_carries_tasks(tmp_path: Path) -> None:
    """Two cells with two tasks each; the second time nothing runs; a lost unit alone is done again."""
    data = write_squad(write_sst2(tmp_path / "data"))
    words = [*tiny_overrides(tmp_path), *TINY, f"task.data_dir={data}", "tasks.squad11.steps=4", "tasks.sst2.steps=4"]
    sweep = ["-m", "objective=sop,none", "task=sst2,squad11", *words]
    first = command_line(*sweep, cwd=tmp_path)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "2 cells, 0 finished, 2 to run" in first.stdout
    runs = [RunFolder(p.parent, p.name) for p in run_folders(tmp_path / "runs")]
    assert [set(entries(run)) for run in runs] == [{"sst2", "squad11"}] * 2
    again = command_line(*sweep, cwd=tmp_path)
    assert "2 finished, 0 to run" in again.stdout
    (lost,) = runs[0].path.glob("tasks/sst2-*")
    shutil.rmtree(lost)
    kept = {p: p.stat().st_mtime_ns for run in runs for p in run.path.glob("**/status.json")}
    third = command_line(*sweep, cwd=tmp_path)
    assert "1 finished, 1 to run" in third.stdout, third.stdout + third.stderr
    assert lost.joinpath("results.json").is_file()
    assert all(p.stat().st_mtime_ns == stamp for p, stamp in kept.items())


def test_a_failing_task_in_a_sweep_fails_its_cell_only(tmp_path: Path) -> None:
    """A unit whose folder cannot be written is named; the other cell is finished; exit code 1."""
    data = write_sst2(tmp_path / "data")
    words = [*tiny_overrides(tmp_path), *TINY, f"task.data_dir={data}"]
    assert command_line("-m", "objective=sop,none", *words, cwd=tmp_path).returncode == 0
    sop, none = sorted(run_folders(tmp_path / "runs"), key=lambda p: "none" in p.name)
    for old in (none / "checkpoints").iterdir():
        (old / "model.safetensors").write_bytes(b"broken")
    done = command_line("-m", "objective=sop,none", "task=sst2", *words, cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "no intact checkpoint to start from" in done.stdout
    assert "1 finished, 1 failed" in done.stdout
    assert set(entries(RunFolder(sop.parent, sop.name))) == {"sst2"}
