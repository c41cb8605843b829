"""A run that diverges stops before the update and says so."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from runhelpers import (
    assert_intact,
    make_batches,
    newest_checkpoint,
    only_folder,
    start,
    status_of,
    weights_of,
)
from safetensors.torch import load_file

from albert_ablate.config.schema import RunConfig
from albert_ablate.data.prepare import prepare
from albert_ablate.errors import DivergedError
from albert_ablate.model.pretraining import PretrainingModel
from albert_ablate.record.folder import RunFolder


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
    assert status_of(folder)["state"] == "diverged"
    assert "learning_rate" in status_of(folder)["reason"]
    kept = folder.path / "diverged" / "step_00000006"
    assert str(kept) in status_of(folder)["reason"]
    batch = load_file(kept / "batch.safetensors")
    expected = make_batches(prepare(config).settled(config))[5]
    assert batch.keys() == expected.tensors().keys()
    assert all(torch.equal(batch[name], tensor) for name, tensor in expected.tensors().items())
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
    assert status_of(folder)["state"] == "diverged"
    for path in folder.checkpoints.iterdir() if folder.checkpoints.is_dir() else ():
        assert_intact(path)
    for line in (folder.path / "metrics.jsonl").read_text().splitlines():
        assert all(isinstance(v, int) or math.isfinite(v) for v in json.loads(line).values())
