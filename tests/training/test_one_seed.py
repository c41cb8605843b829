"""One seed, one result: equal bytes, whatever else the machine does."""

from collections.abc import Callable

import torch
from runhelpers import (
    batch_arrays,
    make_batches,
    newest_checkpoint,
    run,
    timeless,
    weights_of,
)
from safetensors.torch import load_file

from albert_ablate.config.schema import RunConfig
from albert_ablate.record.folder import RunFolder


def test_one_seed_gives_equal_bytes_and_equal_metrics(cell: Callable[..., RunConfig], finished: RunFolder) -> None:
    again = run(cell())
    assert again.name == finished.name
    assert weights_of(again) == weights_of(finished)
    assert timeless(again.metrics()) == timeless(finished.metrics())
    assert again.read("similarity.json") == finished.read("similarity.json")
    mine, theirs = again.read("results.json"), finished.read("results.json")
    for record in (mine, theirs):
        record.pop("training")
        record.pop("evaluation")
        record.pop("inference")
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
