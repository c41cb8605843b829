"""Checkpoints are written while training goes on, by steps and by time, and never two at once."""

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from runhelpers import make_trainer, newest_checkpoint, run, start, tiny_config, weights_of

from albert_ablate.config.schema import RunConfig
from albert_ablate.errors import UserError
from albert_ablate.files import read_json
from albert_ablate.record.folder import RunFolder
from albert_ablate.training import checkpoint
from albert_ablate.training.checkpoint import Owner
from albert_ablate.training.saving import Saver
from albert_ablate.training.trainer import Trainer

Cell = Callable[..., RunConfig]


def test_steps_go_on_while_a_checkpoint_is_written(
    cell: Cell, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what it holds is the state of its own step."""
    real, update, steps = checkpoint.save, Trainer.update, []
    reached = threading.Event()

    def slow(folder: Path, step: int, *rest: Any) -> Path:
        if step == 4:
            assert reached.wait(20), "training waited for the disk"
        return real(folder, step, *rest)

    def counted(self: Trainer, step: int, *rest: Any) -> Any:
        steps.append(step)
        if step == 7:
            reached.set()
        return update(self, step, *rest)

    monkeypatch.setattr(checkpoint, "save", slow)
    monkeypatch.setattr(Trainer, "update", counted)
    folder = run(cell("runtime.keep_checkpoints=9"))
    assert steps == list(range(12))
    monkeypatch.undo()
    plain = run(
        cell("runtime.keep_checkpoints=9", "runtime.async_checkpoints=false", f"paths.runs={folder.path}-plain")
    )
    for step in (4, 8, 12):
        mine, theirs = (f.checkpoints / f"step_{step:08d}" for f in (folder, plain))
        for name in ("model.safetensors", "state.pt"):
            assert (mine / name).read_bytes() == (theirs / name).read_bytes()


def test_what_a_write_met_is_raised_in_training(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise ValueError("a bug in saving")

    monkeypatch.setattr(checkpoint, "save", broken)
    with pytest.raises(UserError, match="a bug in saving"):
        start(cell("budget.steps=200"))


def test_by_time(cell: Cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    trainer, _ = make_trainer(cell())
    with Saver(tmp_path / "c", Owner("x"), 5, background=False, minutes=10) as saver:
        assert not saver.due()
        clock[0] = 599
        assert not saver.due()
        clock[0] = 601
        assert saver.due()
        saver.save(3, trainer.model, trainer.optimizer, {})
        assert not saver.due()
    assert [path.name for path in checkpoint.checkpoints(tmp_path / "c")] == ["step_00000003"]
    with Saver(tmp_path / "d", Owner("x"), 5, background=False, minutes=None) as saver:
        clock[0] = 10**9
        assert not saver.due()


def test_a_checkpoint_between_two_log_lines_changes_no_line(cell: Cell, shared: Path, tmp_path: Path) -> None:
    """Stopped there, the run's log has no gap, no line twice, and the same sums."""
    config = cell("runtime.checkpoint_minutes=1e-9", "runtime.keep_checkpoints=20", "runtime.log_every=5")
    folder = run(config)
    whole = run(tiny_config(shared, "runtime.log_every=5", f"paths.runs={tmp_path / 'whole'}"))
    assert len(checkpoint.checkpoints(folder.checkpoints)) == 12
    lines = [{k: v for k, v in line.items() if "second" not in k} for line in whole.metrics()]
    for kept in (1, 3, 7, 9):
        again = RunFolder(tmp_path / f"again-{kept}", folder.name)
        shutil.copytree(folder.path, again.path)
        for path in checkpoint.checkpoints(again.checkpoints)[kept:]:
            shutil.rmtree(path)
        again.set_status("preempted")
        assert start(tiny_config(shared, "runtime.log_every=5", f"paths.runs={again.path.parent}")) == 0
        assert [{k: v for k, v in line.items() if "second" not in k} for line in again.metrics()] == lines
        assert weights_of(again) == weights_of(whole)


def test_training_state_holds_tensors_and_plain_values_alone(cell: Cell) -> None:
    """So that it loads with weights_only, which runs no code."""
    folder = run(cell())
    newest = newest_checkpoint(folder)
    state = torch.load(newest / "state.pt", weights_only=True)
    assert state["state"]
    meta = read_json(newest / "meta.json")
    assert set(meta["sha256"]) == {"model.safetensors", "state.pt"}
    assert meta["described"]["tokens"] == folder.read("manifest.json")["data"]["tokens"]["fingerprint"]
