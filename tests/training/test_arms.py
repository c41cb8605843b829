"""What arms of different objectives share, and what the one without a sentence objective lacks."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from runhelpers import (
    batch_arrays,
    held_out_of,
    newest_checkpoint,
    run,
    tiny_config,
)
from safetensors.torch import load_file

from albert_ablate.axes import Objective
from albert_ablate.config.schema import RunConfig
from albert_ablate.model.pretraining import build_model
from albert_ablate.record.folder import RunFolder

OBJECTIVES = [o.value for o in Objective]


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
