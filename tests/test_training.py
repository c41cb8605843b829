"""Training one cell: reproducible, divisible, interruptible, and a record that is complete."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from runhelpers import (
    ROOT,
    batch_arrays,
    held_out_of,
    make_batches,
    make_trainer,
    newest_checkpoint,
    one_thread,
    only_folder,
    read_json,
    run,
    start,
    timeless,
    tiny_config,
    tiny_overrides,
    weights_of,
)
from safetensors.torch import load_file
from torch import Tensor

from albert_ablate.axes import Objective
from albert_ablate.config.identity import identity, ingredients
from albert_ablate.config.parse import parse
from albert_ablate.config.schema import RunConfig
from albert_ablate.data.prepare import prepare
from albert_ablate.door.compose import paper_setup
from albert_ablate.errors import CheckpointError, DivergedError, LockedError, PreemptedError, UserError
from albert_ablate.files import sha256_file, write_json
from albert_ablate.model.pretraining import PretrainingModel, build_model
from albert_ablate.record.folder import RunFolder
from albert_ablate.training import checkpoint

OBJECTIVES = [o.value for o in Objective]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose corpus and cache all tests of this file use; each test has a ``runs`` of its own."""
    folder = tmp_path_factory.mktemp("shared")
    prepare(tiny_config(folder))
    return folder


@pytest.fixture
def cell(shared: Path, tmp_path: Path) -> Callable[..., RunConfig]:
    """``cell("seed=1", runs="b")``: a tiny configuration with run folders of this test's own."""
    return lambda *more, runs="a": tiny_config(shared, *more, f"paths.runs={tmp_path / runs}")


@pytest.fixture(scope="module")
def finished(shared: Path) -> RunFolder:
    """A finished run of the default tiny cell, to read and compare, never to change."""
    return run(tiny_config(shared, runs="reference"))


@pytest.fixture(scope="module")
def by_objective(shared: Path, finished: RunFolder) -> dict[str, RunFolder]:
    """One finished run for each objective."""
    made = {o: run(tiny_config(shared, f"objective={o}", runs=f"reference-{o}")) for o in ("nsp", "none")}
    return made | {"sop": finished}


def copy_of(folder: RunFolder, target: Path, state: str = "preempted") -> RunFolder:
    """A copy of a run folder under ``target`` that is to be continued."""
    shutil.copytree(folder.path, target / folder.name)
    copied = RunFolder(target, folder.name)
    copied.set_status(state)
    return copied


# --- one seed, one result ------------------------------------------------------------------------


def test_one_seed_gives_equal_bytes_and_equal_metrics(cell: Callable[..., RunConfig], finished: RunFolder) -> None:
    again = run(cell())
    assert again.name == finished.name
    assert weights_of(again) == weights_of(finished)
    assert timeless(again.metrics()) == timeless(finished.metrics())
    for name in ("similarity.json", "config.yaml"):
        if name == "similarity.json":
            assert again.read(name) == finished.read(name)
    mine, theirs = again.read("results.json"), finished.read("results.json")
    for record in (mine, theirs):
        record.pop("training")
        record.pop("evaluation")
    assert mine == theirs


def test_another_seed_gives_other_weights_and_losses(cell: Callable[..., RunConfig], finished: RunFolder) -> None:
    other = run(cell("seed=1"))
    assert other.name != finished.name
    mine, theirs = load_file(newest_checkpoint(other) / "model.safetensors"), newest_checkpoint(finished)
    for name, tensor in load_file(theirs / "model.safetensors").items():
        if name.endswith("weight") and "norm" not in name:
            assert not torch.equal(tensor, mine[name]), name
    assert [x["mlm_loss"] for x in other.metrics()] != [x["mlm_loss"] for x in finished.metrics()]


def test_the_seed_also_moves_the_data_not_only_the_weights(cell: Callable[..., RunConfig]) -> None:
    first, second = (make_batches(cell(f"seed={seed}"))[0] for seed in (0, 1))
    assert batch_arrays(first) != batch_arrays(second)


def test_workers_give_the_same_batches(cell: Callable[..., RunConfig]) -> None:
    batches = make_batches(cell())
    alone, helped = (list(batches.from_step(3, 7, workers, pin_memory=False)) for workers in (0, 2))
    assert [batch_arrays(b) for b in alone] == [batch_arrays(b) for b in helped]
    assert len(alone) == 4


# --- batches, micro-batches and the clip ---------------------------------------------------------


def test_micro_batches_train_like_the_whole_batch(cell: Callable[..., RunConfig]) -> None:
    same = ("pairs.short_probability=0.6", "budget.warmup_steps=1", "runtime.log_every=1", "optimizer.clip_norm=null")
    whole = run(cell(*same, "batch.micro_size=8", runs="whole"))
    parts = run(cell(*same, "batch.micro_size=3", runs="parts"))  # 3 + 3 + 2
    assert whole.name == parts.name
    keys = ("mlm_loss", "sentence_loss", "gradient_norm")
    for a, b in zip(whole.metrics(), parts.metrics(), strict=True):
        for key in keys:
            assert b[key] == pytest.approx(a[key], abs=1e-5, rel=1e-5), (a["step"], key)
    assert whole.metrics()[-1]["mlm_loss"] != whole.metrics()[0]["mlm_loss"]


def uneven_batch(config: RunConfig) -> Any:
    """A batch whose micro-batches hold different numbers of masked positions."""
    batches = make_batches(config)
    for step in range(20):
        counts = {len(part.targets) for part in batches[step].micro(config.batch.micro_size)}
        if len(counts) > 1 or config.batch.micro_size == config.batch.size:
            return batches[step]
    raise AssertionError("every micro-batch has as many masks")


@pytest.mark.parametrize("micro", [8, 4, 2, 1])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_gradient_is_that_of_the_masked_mean_plus_the_sentence_mean(
    cell: Callable[..., RunConfig], micro: int, objective: str
) -> None:
    config = cell(
        f"batch.micro_size={micro}", f"objective={objective}", "pairs.short_probability=0.6", "optimizer.clip_norm=null"
    )
    batch = uneven_batch(config)
    plain = build_model(config.architecture(), config.seed)
    labels = None if objective == "none" else batch.labels
    out = plain(batch.input_ids, batch.type_ids, batch.mask, batch.positions, batch.targets, labels)
    loss = out.mlm_loss_sum / (len(batch.targets) + 1e-5)
    if out.sentence_loss_sum is not None:
        loss = loss + out.sentence_loss_sum / len(batch)
    loss.backward()
    wanted = {name: p.grad for name, p in plain.named_parameters()}
    norm = torch.stack([g.norm() for g in wanted.values() if g is not None]).norm().item()
    trainer, _ = make_trainer(config)
    trainer.optimizer.step = lambda *_: None  # type: ignore[method-assign]
    totals = trainer.update(5, batch)
    for name, parameter in trainer.model.named_parameters():
        if wanted[name] is None:
            assert parameter.grad is None, name
        else:
            torch.testing.assert_close(parameter.grad, wanted[name], rtol=1e-4, atol=2e-6, msg=name)
    assert trainer.gradient_norm == pytest.approx(norm, rel=1e-4)
    assert totals["mlm_loss"].item() == pytest.approx(out.mlm_loss_sum.item(), rel=1e-5)


@pytest.mark.parametrize("micro", [8, 2])
def test_clip_acts_once_on_the_accumulated_gradient(
    cell: Callable[..., RunConfig], micro: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = cell(f"batch.micro_size={micro}", "optimizer.clip_norm=0.01")
    free, batches = make_trainer(replace(config, optimizer=replace(config.optimizer, clip_norm=None)))
    clipped, _ = make_trainer(config)
    calls = []
    real = torch.nn.utils.get_total_norm
    monkeypatch.setattr(torch.nn.utils, "get_total_norm", lambda *a, **k: calls.append(1) or real(*a, **k))
    seen: list[dict[str, Tensor]] = []
    for trainer in (free, clipped):
        trainer.optimizer.step = lambda t=trainer: seen.append(  # type: ignore[method-assign]
            {n: p.grad.clone() for n, p in t.model.named_parameters() if p.grad is not None}
        )
        trainer.update(3, batches[3])
    assert len(calls) == 2  # once a step
    raw, cut = seen
    norm = torch.stack([g.norm() for g in raw.values()]).norm().item()
    assert norm > 0.02
    assert clipped.gradient_norm == pytest.approx(norm, rel=1e-4)  # what is logged is the norm before the clip
    assert torch.stack([g.norm() for g in cut.values()]).norm().item() == pytest.approx(0.01, rel=1e-3)
    for name, gradient in raw.items():
        torch.testing.assert_close(cut[name], gradient * (0.01 / norm), rtol=1e-3, atol=1e-8, msg=name)


def test_gradient_below_the_clip_is_untouched(cell: Callable[..., RunConfig]) -> None:
    results = []
    for clip in ("null", "1e6"):
        trainer, batches = make_trainer(cell(f"optimizer.clip_norm={clip}"))
        trainer.update(3, batches[3])
        results.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))
    assert torch.equal(*results)


def test_the_first_update_has_rate_zero_and_moves_nothing(cell: Callable[..., RunConfig]) -> None:
    config = cell()
    trainer, batches = make_trainer(config)
    start_weights = [p.detach().clone() for p in trainer.model.parameters()]
    trainer.update(0, batches[0])
    assert all(torch.equal(a, b) for a, b in zip(start_weights, trainer.model.parameters(), strict=True))
    trainer.update(1, batches[1])
    assert not all(torch.equal(a, b) for a, b in zip(start_weights, trainer.model.parameters(), strict=True))


def test_dropout_is_drawn_from_the_seed_and_the_step(cell: Callable[..., RunConfig]) -> None:
    def after(seed: int, noise: int) -> Tensor:
        config = cell("model.hidden_dropout=0.5", "model.attention_dropout=0.5", f"seed={seed}")
        trainer, _ = make_trainer(config, build_model(config.architecture(), 0))
        torch.manual_seed(noise)
        trainer.update(3, make_batches(cell())[3])
        return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])

    assert torch.equal(after(0, 1), after(0, 2))
    assert not torch.equal(after(0, 1), after(1, 1))


@pytest.mark.parametrize("optimizer", ["lamb", "adamw"])
def test_a_batch_seen_again_and_again_is_learnt_by_heart(cell: Callable[..., RunConfig], optimizer: str) -> None:
    config = cell(
        f"optimizer={optimizer}", "optimizer.learning_rate=0.02", "budget.steps=160", "budget.warmup_steps=10",
        "embed.size=32", "model.initializer_range=0.1",
    )  # fmt: skip
    trainer, batches = make_trainer(config)
    batch = batches[0]
    means = [trainer.update(step, batch).means(batch.counts()) for step in range(160)]
    assert means[0]["mlm_loss"] > 4.0
    assert means[-1]["mlm_loss"] < 0.1
    assert means[-1]["mlm_accuracy"] == 1  # every masked piece is right
    assert means[-1]["sentence_loss"] < 0.1
    assert means[-1]["sentence_accuracy"] == 1


# --- stopping and continuing ---------------------------------------------------------------------


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
    assert folder.status()["state"] == "failed"
    assert "disk full" in folder.status()["reason"]
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
    assert only_folder(config).status()["state"] == "preempted"
    assert run(config).status()["state"] == "finished"


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
    status = folder.status()
    assert status["state"] == "preempted"
    stopped_at = folder.metrics()[-1]["step"]
    assert 3 <= stopped_at < 150
    assert newest_checkpoint(folder).name == f"step_{stopped_at:08d}"
    assert f"step {stopped_at} " in status["reason"]

    assert start(config) == 0
    reference = run(replace(config, paths=replace(config.paths, runs=str(tmp_path / "whole"))))
    assert folder.status()["state"] == "finished"
    assert folder.status()["started"] == status["started"]
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

    def signalled(self: Trainer, step: int, *rest: Any) -> Tensor:
        if step == 6:
            os.kill(os.getpid(), stop)
        return real(self, step, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "update", signalled)
        with pytest.raises(PreemptedError, match="after step 7 of 12"):
            start(config)
    assert signal.getsignal(stop) is before
    folder = only_folder(config)
    assert folder.status()["state"] == "preempted"
    assert newest_checkpoint(folder).name == "step_00000007"
    assert folder.metrics()[-1]["step"] == 6, "a line is written where the interval asks for one, stopped or not"


def test_a_signal_at_the_last_step_leaves_only_the_evaluation(
    cell: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch, finished: RunFolder
) -> None:
    from albert_ablate.training.trainer import Trainer

    real, steps = Trainer.update, []

    def signalled(self: Trainer, step: int, *rest: Any) -> Tensor:
        steps.append(step)
        if step == 11:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, step, *rest)

    monkeypatch.setattr(Trainer, "update", signalled)
    config = cell()
    with pytest.raises(PreemptedError):
        start(config)
    assert newest_checkpoint(only_folder(config)).name == "step_00000012"
    assert run(config).status()["state"] == "finished"
    assert steps == list(range(12))
    assert weights_of(only_folder(config)) == weights_of(finished)


def test_a_finished_cell_is_not_run_again(
    cell: Callable[..., RunConfig], finished: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copied = copy_of(finished, tmp_path / "a", "finished")

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
    copied = copy_of(finished, tmp_path / "a", "running")
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
    copied = copy_of(finished, tmp_path / "a", "running")
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    write_json(copied.path / "status.json", copied.status() | {"pid": gone.pid})
    assert start(cell()) == 0
    assert copied.status()["state"] == "finished"


def test_a_half_written_metrics_line_is_dropped(
    cell: Callable[..., RunConfig], finished: RunFolder, tmp_path: Path
) -> None:
    copied = copy_of(finished, tmp_path / "a")
    shutil.rmtree(copied.checkpoints / "step_00000012")
    metrics = copied.path / "metrics.jsonl"
    text = metrics.read_text()
    metrics.write_text(text[: text.index('"step": 10') + 40])
    assert start(cell()) == 0
    assert timeless(copied.metrics()) == timeless(finished.metrics())
    assert len(metrics.read_text().splitlines()) == len(finished.metrics())


# --- damaged checkpoints -------------------------------------------------------------------------


def _empty_weights(path: Path) -> None:
    (path / "model.safetensors").write_bytes(b"")


def _flip_weights(path: Path) -> None:
    content = bytearray((path / "model.safetensors").read_bytes())
    content[-5] ^= 0x40
    (path / "model.safetensors").write_bytes(content)


def _shorten_state(path: Path) -> None:
    content = (path / "state.pt").read_bytes()
    (path / "state.pt").write_bytes(content[: len(content) // 2])


def _remove_state(path: Path) -> None:
    (path / "state.pt").unlink()


def _shorten_meta(path: Path) -> None:
    content = (path / "meta.json").read_text()
    (path / "meta.json").write_text(content[: len(content) // 2])


def _remove_meta(path: Path) -> None:
    (path / "meta.json").unlink()


DAMAGE = [_empty_weights, _flip_weights, _shorten_state, _remove_state, _shorten_meta, _remove_meta]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda f: f.__name__.strip("_"))
def test_the_checkpoint_before_a_damaged_one_is_used_and_the_damaged_one_named(
    cell: Callable[..., RunConfig], finished: RunFolder, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    copied = copy_of(finished, tmp_path / "a")
    damage(copied.checkpoints / "step_00000012")
    assert start(cell()) == 0
    log = (copied.path / "log.txt").read_text()
    assert "step_00000012 is damaged" in log
    assert "continuing after step 8 of 12" in log
    assert timeless(copied.metrics()) == timeless(finished.metrics())


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda f: f.__name__.strip("_"))
def test_a_damaged_checkpoint_is_replaced_when_its_step_comes_again(
    cell: Callable[..., RunConfig], finished: RunFolder, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    """Training over the step goes on to a whole checkpoint, not past a broken one."""
    copied = copy_of(finished, tmp_path / "a")
    config = cell()
    model = build_model(config.architecture(), config.seed)
    trainer, _ = make_trainer(config, model)
    owner = checkpoint.Owner(finished.read("manifest.json")["identity"])
    checkpoint.load_latest(copied.checkpoints, owner, model, trainer.optimizer)
    damage(copied.checkpoints / "step_00000012")
    state = checkpoint.snapshot(model, trainer.optimizer, copied=False)
    checkpoint.save(copied.checkpoints, 12, owner, state, {"tokens": 1, "seconds": 1.0}, 2)
    last = copied.checkpoints / "step_00000012"
    assert (last / "model.safetensors").read_bytes() == weights_of(finished)
    meta = read_json(last / "meta.json")
    assert {name: sha256_file(last / name) for name in meta["sha256"]} == meta["sha256"]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda f: f.__name__.strip("_"))
def test_a_run_whose_checkpoints_are_all_damaged_does_not_restart_by_itself(
    cell: Callable[..., RunConfig], finished: RunFolder, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    copied = copy_of(finished, tmp_path / "a")
    lines = (copied.path / "metrics.jsonl").read_text()
    for path in copied.checkpoints.iterdir():
        damage(path)
    with pytest.raises(CheckpointError, match="step_00000012") as caught:
        start(cell())
    assert "step_00000008" in str(caught.value)
    assert "damaged" in str(caught.value)
    assert copied.status()["state"] == "failed"
    assert (copied.path / "metrics.jsonl").read_text() == lines


def test_a_folder_without_any_checkpoint_starts_at_step_0(
    cell: Callable[..., RunConfig], finished: RunFolder, tmp_path: Path
) -> None:
    copied = copy_of(finished, tmp_path / "a")
    shutil.rmtree(copied.checkpoints)
    assert start(cell()) == 0
    assert timeless(copied.metrics()) == timeless(finished.metrics())
    assert weights_of(copied) == weights_of(finished)


def test_another_runs_checkpoint_is_refused_with_what_differs(
    finished: RunFolder, cell: Callable[..., RunConfig]
) -> None:
    config = cell("optimizer.learning_rate=0.5", "seed=7")
    config = prepare(config).settled(config)
    other = checkpoint.Owner("0123456789ab", ingredients(config, "another corpus", "fp32"))
    with pytest.raises(CheckpointError, match="not to 0123456789ab") as caught:
        checkpoint.load_latest(finished.checkpoints, other, build_model(config.architecture(), 0))
    lines = str(caught.value).splitlines()[1:]
    fingerprint = finished.read("manifest.json")["data"]["tokens"]["fingerprint"]
    assert lines == [
        "  - optimizer.learning_rate: 0.002, not 0.5", "  - seed: 0, not 7",
        f"  - tokens: {fingerprint}, not another corpus",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "named", "same"),
    [
        ("embed.size=8", ["encoder.embedding.word.weight", "encoder.embedding.projection.weight"], "pooler"),
        ("embed.size=32", ["encoder.embedding.projection.weight", "mlm_head.dense.weight"], "pooler"),
        ("share=none", ["encoder.attention.1.query.weight", "encoder.ffn.1.inner.weight"], "embedding"),
        ("share=attention", ["encoder.ffn.1.inner.weight"], "encoder.attention"),
        ("share=ffn", ["encoder.attention.1.query.weight"], "encoder.ffn"),
    ],
)
def test_a_checkpoint_of_another_shape_is_refused_by_tensor(
    finished: RunFolder, cell: Callable[..., RunConfig], changed: str, named: list[str], same: str
) -> None:
    model = build_model(cell(changed).architecture(), 0)
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load_weights(newest_checkpoint(finished), model)
    for name in named:
        assert name in str(caught.value)
    assert same not in str(caught.value)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_checkpoint_of_another_depth_fits_where_all_is_shared(
    finished: RunFolder, cell: Callable[..., RunConfig]
) -> None:
    model = build_model(cell("model.layers=5").architecture(), 1)
    checkpoint.load_weights(newest_checkpoint(finished), model)
    assert torch.equal(
        model.pooler.dense.weight, load_file(newest_checkpoint(finished) / "model.safetensors")["pooler.dense.weight"]
    )


def test_only_the_newest_checkpoints_are_kept(cell: Callable[..., RunConfig]) -> None:
    for keep in (1, 3):
        folder = run(cell("runtime.checkpoint_every=2", f"runtime.keep_checkpoints={keep}", runs=f"keep{keep}"))
        names = sorted(p.name for p in folder.checkpoints.iterdir())
        assert names == [f"step_{s:08d}" for s in (8, 10, 12)[-keep:]]


# --- divergence ----------------------------------------------------------------------------------


def assert_intact(path: Path) -> None:
    meta = read_json(path / "meta.json")
    assert {name: sha256_file(path / name) for name in meta["sha256"]} == meta["sha256"]
    assert all(torch.isfinite(t).all() for t in load_file(path / "model.safetensors").values())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_run_and_spares_what_was_saved(
    cell: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch, finished: RunFolder, value: float
) -> None:
    config = cell("runtime.checkpoint_every=1")
    real, calls = PretrainingModel.forward, []

    def broken(self: PretrainingModel, *args: Any) -> Any:
        out = real(self, *args)
        calls.append(1)
        return replace(out, mlm_loss_sum=out.mlm_loss_sum * value) if len(calls) == 6 else out

    with monkeypatch.context() as patched:
        patched.setattr(PretrainingModel, "forward", broken)
        with pytest.raises(DivergedError, match="not finite at step 6") as caught:
            start(config)
    assert caught.value.exit_code == 3
    folder = only_folder(config)
    assert folder.status()["state"] == "diverged"
    assert "learning_rate" in folder.status()["reason"]
    kept = folder.path / "diverged" / "step_00000006"
    assert str(kept) in folder.status()["reason"]
    batch = load_file(kept / "batch.safetensors")
    expected = make_batches(prepare(config).settled(config))[5]
    assert batch.keys() == vars(expected).keys()
    assert all(torch.equal(batch[name], tensor) for name, tensor in vars(expected).items())
    assert newest_checkpoint(folder).name == "step_00000005"
    assert_intact(newest_checkpoint(folder))
    assert folder.metrics()[-1]["step"] == 5
    assert not (folder.path / "results.json").exists()
    assert start(config) == 0
    assert weights_of(folder) == weights_of(finished)


@pytest.mark.parametrize("curve_every", [1000, 2])
def test_an_absurd_learning_rate_is_reported_as_divergence(cell: Callable[..., RunConfig], curve_every: int) -> None:
    """Also where the held-out curve is the first to see it."""
    config = cell(
        "optimizer.learning_rate=1e30", "optimizer.clip_norm=null", f"evaluation.curve_every={curve_every}",
        "runtime.log_every=1",
    )  # fmt: skip
    with pytest.raises(DivergedError, match="finite"):
        start(config)
    folder = only_folder(config)
    assert folder.status()["state"] == "diverged"
    for path in folder.checkpoints.iterdir() if folder.checkpoints.is_dir() else ():
        assert_intact(path)
    for line in (folder.path / "metrics.jsonl").read_text().splitlines():
        assert all(isinstance(v, int) or math.isfinite(v) for v in json.loads(line).values())


# --- the run folder ------------------------------------------------------------------------------


def test_the_folder_holds_everything(finished: RunFolder) -> None:
    assert {p.name for p in finished.path.iterdir()} == {
        "config.yaml", "manifest.json", "status.json", "metrics.jsonl", "results.json", "similarity.json",
        "checkpoints", "log.txt", "spiece.model",
    }  # fmt: skip
    for name in ("manifest.json", "status.json", "results.json", "similarity.json"):
        read_json(finished.path / name)
    assert not list(finished.path.rglob(".*"))  # no temporary file is left


def test_config_yaml_gives_the_configuration_back(finished: RunFolder, shared: Path) -> None:
    config = parse(yaml.safe_load((finished.path / "config.yaml").read_text()))
    given = tiny_config(shared, runs="reference")
    assert config == prepare(given).settled(given)


def test_manifest(finished: RunFolder, shared: Path) -> None:
    config = tiny_config(shared, runs="reference")
    prepared = prepare(config)
    config = prepared.settled(config)
    manifest = finished.read("manifest.json")
    assert manifest["identity"] == identity(config, prepared.train.fingerprint, "fp32")
    assert finished.name.endswith(manifest["identity"])
    assert manifest["name"] == finished.name
    assert set(manifest["source"]) == {"commit", "dirty"}
    head = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True)
    assert manifest["source"]["commit"] == (head.stdout.strip() if head.returncode == 0 else None)
    data = manifest["data"]
    assert data["text"]["fingerprint"]
    assert data["tokenizer"] == {"fingerprint": prepared.tokenizer.fingerprint, "vocab_size": 200}
    assert data["tokens"]["fingerprint"] == prepared.train.fingerprint
    assert data["tokens"]["train"] == len(prepared.train.tokens)
    assert data["text"]["train"]["documents"] == prepared.train.document_count
    assert data["text"]["valid"]["documents"] == prepared.valid.document_count
    read = {"sentences": {"files": 1, "documents": 60}}
    assert data["source"] == {"files": ["corpus.txt"], "validation_files": [], "read_as": read}
    assert data["pairs_per_epoch"] == make_batches(config, prepared).epoch_size
    assert manifest["packages"]["torch"] == metadata.version("torch")
    assert all(manifest["packages"][name] for name in ("torch", "numpy", "sentencepiece", "hydra-core", "pydantic"))
    assert manifest["hardware"]["device"] == "cpu"
    assert manifest["hardware"]["threads"] == 1
    assert manifest["hardware"]["cores"] == os.cpu_count()
    assert manifest["precision"] == "fp32"
    shape = config.architecture()
    model = build_model(shape, 0)
    counts = manifest["parameters"]
    heads = sum(p.numel() for m in (model.mlm_head, model.sentence_head) for p in m.parameters())
    pooler = sum(p.numel() for p in model.pooler.parameters())
    assert counts["encoder"] == sum(p.numel() for p in model.encoder.parameters())
    assert counts["with_pooler"] == counts["encoder"] + pooler
    assert counts["with_heads"] == counts["with_pooler"] + heads
    masked = config.masking.probability * config.pairs.max_length
    assert manifest["training_flops"] == pytest.approx(3 * shape.forward_flops(32, masked) * 8 * 12)
    stated = {line["field"]: line for line in manifest["deviations_from_paper"]}
    assert stated["budget.steps"] == {"field": "budget.steps", "ours": 12, "paper": 125000}
    assert stated["batch.size"] == {"field": "batch.size", "ours": 8, "paper": 4096}
    assert stated["data.name"]["ours"] == "text"
    assert "masking.max_ngram" not in stated


def test_the_paper_preset_states_no_deviation_from_itself() -> None:
    from albert_ablate.config.deviations import deviations
    from albert_ablate.door.compose import compose

    config = compose(["scale=paper"])
    assert deviations(config, paper_setup(config)) == []


def test_status_and_log(finished: RunFolder) -> None:
    status = finished.status()
    assert status["state"] == "finished"
    assert status["reason"] is None
    assert status["started"] <= status["updated"]
    assert status["pid"] == os.getpid()
    log = (finished.path / "log.txt").read_text()
    assert finished.name in log
    assert "evaluating" in log


def test_metrics(finished: RunFolder, shared: Path) -> None:
    lines = finished.metrics()
    assert [line["step"] for line in lines] == [3, 5, 6, 9, 10, 12]
    config = tiny_config(shared)
    tokens = np.cumsum([int(make_batches(config)[step].mask.sum()) for step in range(12)])
    for line in lines:
        assert line["tokens"] == tokens[line["step"] - 1]
        assert line["tokens_per_second"] > 0
        assert 0 <= line["mlm_accuracy"] <= 1
        assert 0 <= line["sentence_accuracy"] <= 1
        assert line["gradient_norm"] > 0
        curve = line["step"] in (5, 10, 12)
        assert ("held_out_mlm_loss" in line) is curve
        assert ("held_out_mlm_accuracy" in line) is curve
        assert ("held_out_sentence_accuracy" in line) is curve
    assert [line["learning_rate"] for line in lines][:1] == [pytest.approx(0.002 * (1 - 2 / 12))]
    assert lines[-1]["learning_rate"] == pytest.approx(0.002 / 12)
    assert [line["seconds"] for line in lines] == sorted(line["seconds"] for line in lines)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_results(by_objective: dict[str, RunFolder], objective: str) -> None:
    results = by_objective[objective].read("results.json")
    assert {"masked_lm", "nsp", "sop", "training"} <= set(results)
    mlm = results["masked_lm"]
    assert mlm["interval"][0] <= mlm["accuracy"] <= mlm["interval"][1]
    assert mlm["loss_interval"][0] < mlm["loss"] < mlm["loss_interval"][1]
    assert mlm["gain_over_unigram"] == pytest.approx(mlm["unigram_loss"] - mlm["loss"])
    assert mlm["examples"] > mlm["sequences"] > 1
    assert 0 <= mlm["unigram_accuracy"] <= 1
    assert mlm["left_baseline"] is False
    for task in ("nsp", "sop"):
        record = results[task]
        assert record["interval"][0] <= record["accuracy"] <= record["interval"][1]
        assert record["examples"] == 32
        assert 0.5 <= record["majority_class"] < 1
        assert record["head"] == ("trained" if task == objective else "fitted on the frozen encoder")
        assert isinstance(record["left_baseline"], bool)
        assert ("own_head" in record) is (objective not in (task, "none"))
    training = results["training"]
    assert training["steps"] == 12
    assert training["tokens"] == by_objective[objective].metrics()[-1]["tokens"]


def test_similarity(finished: RunFolder) -> None:
    record = finished.read("similarity.json")
    for name in ("l2", "degrees", "l2_sd", "degrees_sd"):
        assert len(record[name]) == 2  # layers
        assert all(value > 0 for value in record[name])
    assert record["sequences"] == 8
    assert len(record["without_special"]["l2"]) == 2


def test_checkpoint_holds_weights_moments_and_progress(finished: RunFolder, shared: Path) -> None:
    path = newest_checkpoint(finished)
    assert {p.name for p in path.iterdir()} == {"model.safetensors", "state.pt", "meta.json"}
    meta = read_json(path / "meta.json")
    assert meta["step"] == 12
    assert meta["identity"] == finished.read("manifest.json")["identity"]
    assert meta["tokens"] == finished.metrics()[-1]["tokens"]
    assert_intact(path)
    state = torch.load(path / "state.pt", weights_only=True)
    model = build_model(tiny_config(shared).architecture(), 0)
    assert len(state["state"]) == len(list(model.parameters()))
    assert {int(entry["step"]) for entry in state["state"].values()} == {12}


# --- the arm without a sentence objective, and what all arms share --------------------------------


@pytest.mark.parametrize("optimizer", ["lamb", "adamw"])
def test_without_a_sentence_objective_pooler_and_head_keep_their_first_weights(
    cell: Callable[..., RunConfig], optimizer: str
) -> None:
    config = cell("objective=none", f"optimizer={optimizer}", "optimizer.weight_decay=0.5")
    folder = run(config)
    trained = load_file(newest_checkpoint(folder) / "model.safetensors")
    first = build_model(config.architecture(), config.seed).state_dict()
    for name, tensor in first.items():
        if name.startswith(("pooler.", "sentence_head.")):
            assert torch.equal(trained[name], tensor), name
        else:
            assert not torch.equal(trained[name], tensor), name
    assert not any("sentence" in key for line in folder.metrics() for key in line)


def test_with_a_sentence_objective_pooler_and_head_learn(by_objective: dict[str, RunFolder], shared: Path) -> None:
    first = build_model(tiny_config(shared).architecture(), 0).state_dict()
    for objective in ("nsp", "sop"):
        trained = load_file(newest_checkpoint(by_objective[objective]) / "model.safetensors")
        for name in ("pooler.dense.weight", "sentence_head.dense.weight"):
            assert not torch.equal(trained[name], first[name]), (objective, name)


def test_arms_of_one_seed_start_from_the_same_weights(cell: Callable[..., RunConfig]) -> None:
    first = build_model(cell().architecture(), 0).state_dict()
    for arm in ("share=none", "share=ffn", "embed.size=8", "model.layers=3"):
        other = build_model(cell(arm).architecture(), 0).state_dict()
        common = [n for n in first.keys() & other.keys() if first[n].shape == other[n].shape]
        assert len(common) > 10
        assert all(torch.equal(first[n], other[n]) for n in common)


@pytest.mark.parametrize(
    "other",
    ["seed=7", "objective=nsp", "objective=none", "share=none", "embed.size=32", "model.layers=4", "masking.copies=2",
     "optimizer.learning_rate=0.1", "pairs.short_probability=0.9", "runtime.workers=2"],
)  # fmt: skip
def test_every_arm_and_seed_is_scored_on_the_same_pairs(cell: Callable[..., RunConfig], other: str) -> None:
    _, first = held_out_of(cell())
    _, second = held_out_of(cell(other))

    def content(held_out: Any) -> list[Any]:
        sets = [held_out.plain, *held_out.tasks.values(), *held_out.probe_training.values()]
        return [batch_arrays(batch) for pairs in sets for batch in pairs.batches()]

    assert list(first.tasks) == list(second.tasks)
    assert len(content(first)) == 20  # five sets of 32 pairs in batches of 8
    assert content(first) == content(second)


def test_held_out_pairs_come_from_held_out_documents_only(cell: Callable[..., RunConfig]) -> None:
    prepared, held_out = held_out_of(cell())
    assert held_out.plain.store is prepared.valid
    assert all(pairs.store is prepared.valid for pairs in held_out.tasks.values())
    assert all(pairs.store is prepared.train for pairs in held_out.probe_training.values())

    def sentences(store: Any) -> set[tuple[int, ...]]:
        cuts = store.sentences
        return {tuple(store.tokens[a:b].tolist()) for a, b in pairwise(cuts)}

    assert len(sentences(prepared.train) & sentences(prepared.valid)) < 0.05 * len(sentences(prepared.valid))


def test_the_plain_set_is_never_swapped_and_the_tasks_are_balanced(cell: Callable[..., RunConfig]) -> None:
    _, held_out = held_out_of(cell("evaluation.max_pairs=1000"))
    assert not any(batch.labels.any() for batch in held_out.plain.batches())
    for task, pairs in held_out.tasks.items():
        labels = torch.cat([batch.labels for batch in pairs.batches()]).float()
        assert 0.3 < labels.mean() < 0.7, task


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_bf16_trains_on_cpu(cell: Callable[..., RunConfig], objective: str) -> None:
    folder = run(cell("runtime.precision=bf16", f"objective={objective}", "budget.steps=4", "budget.warmup_steps=1"))
    assert folder.read("manifest.json")["precision"] == "bf16"
    weights = load_file(newest_checkpoint(folder) / "model.safetensors")
    assert {t.dtype for t in weights.values()} == {torch.float32}
    assert all(torch.isfinite(t).all() for t in weights.values())
