"""A run that is stopped and continued ends as one that was not."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from runhelpers import (
    ROOT,
    copy_of,
    newest_checkpoint,
    one_thread,
    only_folder,
    run,
    start,
    status_of,
    timeless,
    tiny_config,
    tiny_overrides,
    weights_of,
)

from albert_ablate.config.schema import RunConfig
from albert_ablate.errors import LockedError, PreemptedError, UserError
from albert_ablate.files import write_json
from albert_ablate.record.folder import RunFolder
from albert_ablate.training import checkpoint


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("optimizer", ["lamb", "adamw"])
def test_a_crash_at_a_checkpoint_then_the_same_command(
    cell: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch, moment: str, optimizer: str
) -> None:
    settings = (f"optimizer={optimizer}", "model.hidden_dropout=0.1")
    reference = run(cell(*settings, runs="whole"))
    config = cell(*settings)
    real = checkpoint.save

    def failing(folder: Path, step: int, *rest: Any) -> Path:
        if step == 8 and moment == "before":
            raise RuntimeError("disk full")
        made = real(folder, step, *rest)
        if step == 8:
            raise RuntimeError("disk full")
        return made

    monkeypatch.setattr(checkpoint, "save", failing)
    with pytest.raises(UserError, match="disk full"):
        start(config)
    monkeypatch.setattr(checkpoint, "save", real)
    folder = only_folder(config)
    assert status_of(folder)["state"] == "failed"
    assert "disk full" in status_of(folder)["reason"]
    assert "Traceback" in (folder.path / "log.txt").read_text()
    assert newest_checkpoint(folder).name == ("step_00000004" if moment == "before" else "step_00000008")

    assert start(config) == 0
    assert weights_of(folder) == weights_of(reference)
    assert timeless(folder.metrics()) == timeless(reference.metrics())
    assert [line["step"] for line in folder.metrics()] == [3, 5, 6, 9, 10, 12]
    mine, theirs = folder.read("results.json"), reference.read("results.json")
    assert mine["training"]["tokens"] == theirs["training"]["tokens"]
    for key in ("masked_lm", "nsp", "sop"):
        assert mine[key] == theirs[key]


def test_ctrl_c_is_recorded_as_a_stop(cell: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    def pressed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    config = cell()
    with monkeypatch.context() as patched:
        patched.setattr("albert_ablate.experiment.layer_similarity", pressed)
        with pytest.raises(PreemptedError):
            start(config)
    assert status_of(only_folder(config))["state"] == "preempted"
    assert status_of(run(config))["state"] == "finished"


def test_a_stop_signal_ends_the_process_with_75_and_the_same_command_continues(shared: Path, tmp_path: Path) -> None:
    settings = ["budget.steps=150", "evaluation.curve_every=40", "runtime.log_every=1", "runtime.checkpoint_every=60"]
    config = tiny_config(shared, *settings, f"paths.runs={tmp_path / 'stopped'}")
    words = tiny_overrides(shared, *settings, f"paths.runs={tmp_path / 'stopped'}")
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "run.py"), *words], cwd=tmp_path, env=one_thread(), stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        end = time.monotonic() + 60
        while time.monotonic() < end and process.poll() is None:
            lines = [line for file in (tmp_path / "stopped").rglob("metrics.jsonl") for line in file.open()]
            if len(lines) >= 3:
                break
            time.sleep(0.005)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 75, output
    assert "Traceback" not in output
    assert "same command continues" in output
    folder = only_folder(config)
    status = status_of(folder)
    assert status["state"] == "preempted"
    stopped_at = folder.metrics()[-1]["step"]
    assert 3 <= stopped_at < 150
    assert newest_checkpoint(folder).name == f"step_{stopped_at:08d}"
    assert f"step {stopped_at} " in status["reason"]

    assert start(config) == 0
    reference = run(replace(config, paths=replace(config.paths, runs=str(tmp_path / "whole"))))
    assert status_of(folder)["state"] == "finished"
    assert status_of(folder)["started"] == status["started"]
    assert weights_of(folder) == weights_of(reference)
    assert [line["step"] for line in folder.metrics()] == list(range(1, 151))
    assert timeless(folder.metrics()) == timeless(reference.metrics())


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_step_finish_and_is_then_handled_as_before(
    cell: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch, stop: signal.Signals
) -> None:
    from albert_ablate.training.trainer import Trainer

    config = cell()
    real, before = Trainer.update, signal.getsignal(stop)

    def signalled(self: Trainer, step: int, *rest: Any) -> Any:
        if step == 6:
            os.kill(os.getpid(), stop)
        return real(self, step, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "update", signalled)
        with pytest.raises(PreemptedError, match="after step 7 of 12"):
            start(config)
    assert signal.getsignal(stop) is before
    folder = only_folder(config)
    assert status_of(folder)["state"] == "preempted"
    assert newest_checkpoint(folder).name == "step_00000007"
    assert folder.metrics()[-1]["step"] == 6, "a line is written where the interval asks for one, stopped or not"


def test_a_signal_at_the_last_step_leaves_only_the_evaluation(
    cell: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch, finished: RunFolder
) -> None:
    from albert_ablate.training.trainer import Trainer

    real, steps = Trainer.update, []

    def signalled(self: Trainer, step: int, *rest: Any) -> Any:
        steps.append(step)
        if step == 11:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, step, *rest)

    monkeypatch.setattr(Trainer, "update", signalled)
    config = cell()
    with pytest.raises(PreemptedError):
        start(config)
    assert newest_checkpoint(only_folder(config)).name == "step_00000012"
    assert status_of(run(config))["state"] == "finished"
    assert steps == list(range(12))
    assert weights_of(only_folder(config)) == weights_of(finished)


def test_a_finished_cell_is_not_run_again(
    cell: Callable[..., RunConfig], finished: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copied = copy_of(finished, tmp_path / "runs", "finished")

    def times() -> dict[str, int]:
        return {str(p.relative_to(copied.path)): p.stat().st_mtime_ns for p in copied.path.rglob("*")}

    before = times()
    assert start(cell()) == 0
    assert times() == before
    said = capsys.readouterr().out
    assert "finished" in said
    assert copied.name in said


def test_a_folder_in_use_by_another_process_is_refused(
    cell: Callable[..., RunConfig], finished: RunFolder, tmp_path: Path
) -> None:
    copied = copy_of(finished, tmp_path / "runs", "running")
    script = (
        "import sys, time, pathlib; from albert_ablate.record.lock import Lock; "
        "Lock(pathlib.Path(sys.argv[1])).acquire(); print('held', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", script, str(copied.path)], stdout=subprocess.PIPE, cwd=ROOT)
    try:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(LockedError, match=str(other.pid)):
            start(cell())
        assert copied.state() == "running"
    finally:
        other.kill()
        other.wait()
    assert copied.state() == "preempted"  # its owner is dead: the folder may be taken over
    assert start(cell()) == 0
    assert copied.state() == "finished"


def test_a_folder_left_by_a_process_that_died_is_continued(
    cell: Callable[..., RunConfig], finished: RunFolder, tmp_path: Path
) -> None:
    copied = copy_of(finished, tmp_path / "runs", "running")
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    write_json(copied.path / "status.json", status_of(copied) | {"pid": gone.pid})
    assert start(cell()) == 0
    assert status_of(copied)["state"] == "finished"


def test_a_half_written_metrics_line_is_dropped(
    cell: Callable[..., RunConfig], finished: RunFolder, tmp_path: Path
) -> None:
    copied = copy_of(finished, tmp_path / "runs")
    shutil.rmtree(copied.checkpoints / "step_00000012")
    metrics = copied.path / "metrics.jsonl"
    text = metrics.read_text()
    metrics.write_text(text[: text.index('"step": 10') + 40])
    assert start(cell()) == 0
    assert timeless(copied.metrics()) == timeless(finished.metrics())
    assert len(metrics.read_text().splitlines()) == len(finished.metrics())
