"""BigBird against transformers: the same plans, equal outputs and gradients in both modes, runs that go out and in."""

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from runhelpers import run, tiny_config
from test_distilbert_interop import loaded
from test_electra_interop import opened
from test_huggingface_parity import architecture
from test_import import moved
from torch import Tensor
from transformers import BigBirdConfig, BigBirdForPreTraining
from transformers.models.big_bird.modeling_big_bird import BigBirdBlockSparseAttention

from albert_ablate.axes import Share
from albert_ablate.commands.export import main as export
from albert_ablate.commands.import_hf import main as import_model
from albert_ablate.errors import ForeignCheckpointError
from albert_ablate.files import read_json
from albert_ablate.interop.big_bird import attention_of
from albert_ablate.interop.config_json import complete
from albert_ablate.interop.huggingface import to_huggingface
from albert_ablate.model.block_pattern import BlockPattern
from albert_ablate.model.block_plan import Place, key_blocks
from albert_ablate.model.pretraining import PretrainingModel, build_model
from albert_ablate.record.folder import RunFolder

HIDDEN, VOCABULARY, BLOCK = 48, 97, 4
TOLERANCE = 1e-5


def pattern(plan: str = "transformers", random: int = 3) -> BlockPattern:
    return BlockPattern(BLOCK, 3, 2, random, plan)


def ours(share: Share = Share.NONE, positions: int = 128, random: int = 3, **other: Any) -> PretrainingModel:
    shape = architecture(share, HIDDEN)
    values = {
        **vars(shape),
        "pattern": "bigbird",
        "blocks": pattern(random=random),
        "max_positions": positions,
        **other,
    }
    model: PretrainingModel = moved(build_model(type(shape)(**values), seed=3))
    return model


def inputs(length: int) -> tuple[Tensor, Tensor, Tensor]:
    ids = torch.randint(5, VOCABULARY, (2, length), generator=torch.Generator().manual_seed(1))
    types = (torch.arange(length) > length // 2).long().expand(2, length)
    return ids, types, torch.arange(length) < torch.tensor([[length], [length - 9]])


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("length", [64, 61, 44, 20, 100])
@pytest.mark.parametrize("share", [Share.NONE, Share.ALL])
def test_states_and_heads_are_those_of_transformers(share: Share, length: int, training: bool, tmp_path: Path) -> None:
    """In training mode without dropout both have the plan of the layer's number; in evaluation neither has one."""
    model = ours(share)
    found = to_huggingface(model)
    assert (found.architecture, found.unrolled) == ("BigBirdForPreTraining", share is Share.ALL)
    assert found.left_out == ()
    theirs = loaded(found, tmp_path / "out").train(training)
    model.train(training)
    ids, types, mask = inputs(length)
    expected = theirs(input_ids=ids, attention_mask=mask.long(), token_type_ids=types)
    states = model.encoder(ids, types, mask)
    logits = model.token_logits(states[mask])
    torch.testing.assert_close(logits, expected.prediction_logits[mask], atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(
        model.sentence_logits(states), expected.seq_relationship_logits, atol=TOLERANCE, rtol=0
    )  # fmt: skip


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_gradients_are_those_of_transformers(training: bool, tmp_path: Path) -> None:
    model = ours()
    theirs = loaded(to_huggingface(model), tmp_path / "out").train(training)
    model.train(training)
    ids, types, mask = inputs(61)
    rows = torch.tensor([3, 17, 60, 61, 100])
    labels = torch.full((2, 61), -100)
    labels.view(-1)[rows] = ids.view(-1)[rows]
    out = theirs(
        input_ids=ids, attention_mask=mask.long(), token_type_ids=types, labels=labels,
        next_sentence_label=torch.tensor([0, 1]),
    )  # fmt: skip
    out.loss.backward()
    mine = model(ids, types, mask, rows, ids.view(-1)[rows], torch.tensor([0, 1]))
    assert mine.sentence_loss_sum is not None
    loss = mine.mlm_loss_sum / 5 + mine.sentence_loss_sum / 2
    torch.testing.assert_close(loss, out.loss, atol=TOLERANCE, rtol=0)
    loss.backward()
    named = dict(theirs.named_parameters())
    for layer in range(6):
        for part in ("query", "key", "value"):
            other = named[f"bert.encoder.layer.{layer}.attention.self.{part}.weight"].grad
            assert other is not None
            gradient = model.encoder.get_submodule(f"attention.{layer}.{part}").weight.grad
            torch.testing.assert_close(gradient, other, atol=TOLERANCE, rtol=0)
    table = named["bert.embeddings.position_embeddings.weight"].grad
    torch.testing.assert_close(model.encoder.embedding.position.weight.grad, table, atol=TOLERANCE, rtol=0)


@contextlib.contextmanager
def numpy_stream() -> Any:
    state = np.random.get_state()  # noqa: NPY002
    yield
    np.random.set_state(state)  # noqa: NPY002


def theirs_plan(positions: int, block: int, random: int, length: int, layer: int, heads: int) -> np.ndarray:
    """(N, n - 2, r) blocks by the methods of transformers, as its forward pass calls them."""
    config = BigBirdConfig(
        hidden_size=heads * 2, num_attention_heads=heads, block_size=block, num_random_blocks=random,
        max_position_embeddings=positions,
    )  # fmt: skip
    module = BigBirdBlockSparseAttention(config, seed=layer).train()
    n = length // block
    with numpy_stream():
        np.random.seed(layer)  # noqa: NPY002
        if length in (1024, 3072, 4096):
            rows = [
                module._bigbird_block_rand_mask(positions, positions, block, block, random, last_idx=1024)[: n - 2]
                for _ in range(heads)
            ]
        else:
            until, numbers = module._get_rand_attn_plan(length, block, random)
            rows = module._bigbird_block_rand_mask_with_head(length, length, block, block, heads, until, numbers)
    return np.stack(rows)


@pytest.mark.parametrize("layer", [0, 5])
@pytest.mark.parametrize(("block", "random"), [(64, 3), (16, 3), (32, 2), (64, 1)])
@pytest.mark.parametrize("length", [1024, 1536, 2048, 3072, 4096])
def test_plans_are_those_of_transformers(length: int, block: int, random: int, layer: int) -> None:
    """The released plan too, where both codes draw alike: all lengths but 2,048, with 4,096 positions."""
    expected = theirs_plan(4096, block, random, length, layer, heads=3)
    for plan in ("transformers", "released"):
        if (plan, length) == ("released", 2048):
            continue
        mine = key_blocks(pattern(plan, random=random).__class__(block, 3, 2, random, plan), Place(
            layer, 3, length, 4096, training=True))  # fmt: skip
        drawn = np.array([[row[-random:] for row in head[1:-1]] for head in mine])
        assert np.array_equal(drawn, expected)


def test_the_released_plan_at_2048_is_that_of_the_paper() -> None:
    """transformers has another plan there."""
    where = Place(1, 3, 2048, 4096, training=True)
    longer = Place(1, 3, 4096, 4096, training=True)
    paper = BlockPattern(64, 3, 2, 3, "released")
    short, long = key_blocks(paper, where), key_blocks(paper, longer)
    for head in range(3):
        assert [row[-3:] for row in short[head][1:-1]] == [row[-3:] for row in long[head][1:31]]
    assert key_blocks(pattern().__class__(64, 3, 2, 3, "transformers"), where) != short


def test_what_transformers_does_not_compute_is_refused() -> None:
    for plan in ("seed", "released"):
        with pytest.raises(ForeignCheckpointError, match=r"only with attention\.plan=transformers"):
            to_huggingface(ours(blocks=pattern(plan)))
    with pytest.raises(ForeignCheckpointError, match="embed=full"):
        to_huggingface(ours(embedding_size=16))
    with pytest.raises(ForeignCheckpointError, match=r"model\.norm=pre"):
        to_huggingface(ours(norm="pre"))


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ({"use_bias": False}, "use_bias is false; true is needed"),
        ({"rescale_embeddings": True}, "rescale_embeddings is true; false is needed"),
        ({"attention_type": "sparse"}, "block_sparse or original_full is expected"),
        ({"num_random_blocks": 0}, "num_random_blocks is 0"),
    ],
)
def test_configurations_that_are_another_function_are_refused(field: dict[str, Any], said: str) -> None:
    assert complete({"model_type": "big_bird"})["block_size"] == 64
    with pytest.raises(ForeignCheckpointError, match=said):
        complete({"model_type": "big_bird", **field})


def test_full_attention_stays_full_attention() -> None:
    assert attention_of(complete({"model_type": "big_bird", "attention_type": "original_full"})) == {"name": "full"}
    model = ours(pattern="full", blocks=None)
    found = to_huggingface(model, {"model_type": "big_bird"})
    assert (found.architecture, found.config["attention_type"]) == ("BigBirdForPreTraining", "original_full")


def test_a_model_without_token_types_goes_out_with_a_zero_table(tmp_path: Path) -> None:
    model = ours(type_vocab_size=0)
    theirs = loaded(to_huggingface(model), tmp_path / "out")
    assert isinstance(theirs, BigBirdForPreTraining)
    ids, types, mask = inputs(60)
    expected = theirs(input_ids=ids, attention_mask=mask.long()).prediction_logits[mask]
    logits = model.token_logits(model.encoder(ids, types, mask)[mask])
    torch.testing.assert_close(logits, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("share", ["none", "all"])
def test_a_run_goes_out_and_comes_back(share: str, tmp_path: Path) -> None:
    blocks = ("attention=bigbird", "attention.block=2", "attention.random=1", "attention.plan=transformers")
    config = tiny_config(
        tmp_path, f"share={share}", "objective=none", "embed.size=32", *blocks, "budget.steps=2",
        "budget.warmup_steps=1", "runtime.threads=1",
    )  # fmt: skip
    folder = run(config)
    assert export([str(folder.path), str(tmp_path / "out")]) == 0
    assert "set_attention_type" in (tmp_path / "out" / "README.md").read_text()
    theirs = BigBirdForPreTraining.from_pretrained(tmp_path / "out").eval()
    assert theirs.config.block_size == 2
    assert import_model([str(tmp_path / "out"), str(tmp_path / "runs" / "back")]) == 0
    back = RunFolder.at(tmp_path / "runs" / "back")
    settings = yaml.safe_load((back.path / "config.yaml").read_text())
    assert settings["attention"] == yaml.safe_load((folder.path / "config.yaml").read_text())["attention"]
    assert settings["share"]["strategy"] == share
    model = opened(back.path)
    ids = torch.randint(5, 200, (2, 31), generator=torch.Generator().manual_seed(1))
    expected = theirs(input_ids=ids).prediction_logits
    logits = model.token_logits(model.encoder(ids, torch.zeros_like(ids), torch.ones_like(ids)).flatten(0, 1))
    torch.testing.assert_close(logits, expected.flatten(0, 1), atol=TOLERANCE, rtol=0)
    assert export([str(back.path), str(tmp_path / "again")]) == 0
    assert read_json(tmp_path / "again" / "config.json") == read_json(tmp_path / "out" / "config.json")
