"""Damaged checkpoints are passed over or refused, never loaded."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from runhelpers import (
    copy_of,
    make_trainer,
    newest_checkpoint,
    read_json,
    run,
    start,
    status_of,
    timeless,
    weights_of,
)
from safetensors.torch import load_file

from albert_ablate.config.identity import ingredients
from albert_ablate.config.schema import RunConfig
from albert_ablate.data.prepare import prepare
from albert_ablate.errors import CheckpointError
from albert_ablate.files import sha256_file
from albert_ablate.model.pretraining import build_model
from albert_ablate.record.folder import RunFolder
from albert_ablate.training import checkpoint


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
    copied = copy_of(finished, tmp_path / "runs")
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
    copied = copy_of(finished, tmp_path / "runs")
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
    copied = copy_of(finished, tmp_path / "runs")
    lines = (copied.path / "metrics.jsonl").read_text()
    for path in copied.checkpoints.iterdir():
        damage(path)
    with pytest.raises(CheckpointError, match="step_00000012") as caught:
        start(cell())
    assert "step_00000008" in str(caught.value)
    assert "damaged" in str(caught.value)
    assert status_of(copied)["state"] == "failed"
    assert (copied.path / "metrics.jsonl").read_text() == lines


def test_a_folder_without_any_checkpoint_starts_at_step_0(
    cell: Callable[..., RunConfig], finished: RunFolder, tmp_path: Path
) -> None:
    copied = copy_of(finished, tmp_path / "runs")
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
    assert model.pooler.dense is not None
    assert torch.equal(
        model.pooler.dense.weight, load_file(newest_checkpoint(finished) / "model.safetensors")["pooler.dense.weight"]
    )


def test_only_the_newest_checkpoints_are_kept(cell: Callable[..., RunConfig]) -> None:
    for keep in (1, 3):
        folder = run(cell("runtime.checkpoint_every=2", f"runtime.keep_checkpoints={keep}", runs=f"keep{keep}"))
        names = sorted(p.name for p in folder.checkpoints.iterdir())
        assert names == [f"step_{s:08d}" for s in (8, 10, 12)[-keep:]]
