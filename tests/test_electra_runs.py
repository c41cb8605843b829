"""Whole runs of ELECTRA and its relatives: records, stops, two stages, number formats."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from runhelpers import (
    make_trainer,
    newest_checkpoint,
    run,
    run_folders,
    start,
    stopped_in,
    timeless,
    tiny_config,
    weights_of,
)
from safetensors.torch import load_file

from albert_ablate.methods import method_of
from albert_ablate.record.folder import RunFolder
from albert_ablate.training.checkpoint import load_weights

HALF = "method.generator_width=0.5"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("electra_runs")


@pytest.mark.parametrize("method", ["electra", "all_tokens_mlm"])
def test_a_stopped_run_ends_as_one_that_was_not(
    shared: Path, tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = (f"method={method}", HALF, "model.hidden_dropout=0.1", "model.attention_dropout=0.1")
    whole = run(tiny_config(shared, *settings, f"paths.runs={tmp_path / 'whole'}"))
    config = tiny_config(shared, *settings, f"paths.runs={tmp_path / 'parts'}")
    stopped_in(5, config, monkeypatch)
    parts = run(config)
    assert timeless(whole.metrics()) == timeless(parts.metrics())
    assert weights_of(whole) == weights_of(parts)
    assert whole.read("results.json")["masked_lm"] is None
    assert "not trained by this method" in whole.read("results.json")["left_out"]["masked_lm"]


def test_two_stages_begin_with_the_generator_and_leave_it_as_it_is(shared: Path, tmp_path: Path) -> None:
    config = tiny_config(
        shared, "method=electra_two_stage", "objective=none", "share=none", f"paths.runs={tmp_path / 'runs'}"
    )
    assert start(config) == 0
    first, second = sorted(run_folders(tmp_path / "runs"), key=lambda path: "two_stage" in path.name)
    checkpoints = {path: newest_checkpoint(RunFolder(path.parent, path.name)) for path in (first, second)}
    trained = load_file(checkpoints[first] / "model.safetensors")
    begun = method_of(config).build({"generator": checkpoints[first]})
    frozen = {f"generator.{name}": trained[name] for name in trained if f"generator.{name}" in begun.state_dict()}
    assert len(frozen) > 10
    for name, tensor in begun.encoder.state_dict().items():
        assert torch.equal(tensor, trained[f"encoder.{name}"]), name
    ended = load_file(checkpoints[second] / "model.safetensors")
    for name, tensor in frozen.items():
        assert torch.equal(begun.state_dict()[name], tensor), name
        assert torch.equal(ended[name], tensor), name
    moved = [name for name in trained if name in ended and not torch.equal(ended[name], trained[name])]
    assert "encoder.embedding.word.weight" in moved
    assert yaml.safe_load((first / "config.yaml").read_text())["masking"]["fill"] == "electra"
    again = method_of(config).build({})
    load_weights(checkpoints[second], again)
    assert torch.equal(again.state_dict()["replaced_head.out.weight"], ended["replaced_head.out.weight"])


@pytest.mark.parametrize("method", ["electra", "replace_mlm", "all_tokens_mlm"])
def test_bf16_is_near_fp32(shared: Path, method: str) -> None:
    """Apart from samples that rounding moves to another piece."""
    config = tiny_config(shared, f"method={method}", HALF, "budget.steps=20")
    found: dict[str, list[dict[str, Any]]] = {}
    for precision in ("fp32", "bf16"):
        trainer, batches = make_trainer(config, precision=precision)
        found[precision] = [trainer.update(k, batches[k]).means(batches[k].counts()) for k in range(20)]
    for wide, low in zip(found["fp32"], found["bf16"], strict=True):
        for name, value in wide.items():
            if name.endswith("_loss"):
                assert low[name] == pytest.approx(value, abs=0.06), name
