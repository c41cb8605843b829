"""Structure, sharing, initialisation, masking and dropout of the model."""

import copy
import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from modelhelpers import blocks_of
from torch import nn
from torch.nn import functional as F

from albert_ablate.axes import Part, Share
from albert_ablate.model import cpu, cpu_residual, dropout
from albert_ablate.model.architecture import Architecture
from albert_ablate.model.attention import View
from albert_ablate.model.dropout import keep_bits
from albert_ablate.model.pretraining import PretrainingModel, build_model
from albert_ablate.model.sharing import Sharing
from albert_ablate.model.sub_layer import LayerCall

SHARES = list(Share)
GROUPINGS = [(n, g) for n in (1, 2, 3, 6, 12, 24) for g in (1, 2, 3, 5, 12) if g <= n]


def shape(share: Share = Share.ALL, embedding: int = 16, **other: Any) -> Architecture:
    values: dict[str, Any] = {
        "vocab_size": 61, "embedding_size": embedding, "hidden_size": 32, "layers": 4, "heads": 4,
        "intermediate_size": 128, "max_positions": 24, "share": share, **other,
    }  # fmt: skip
    return Architecture(**values)


def batch(rows: int = 3, length: int = 11) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 61, (rows, length), generator=draw)
    types = (torch.arange(length) > 5).long().expand(rows, length)
    lengths = torch.tensor([length - 2 * r for r in range(rows)])
    return ids, types, torch.arange(length) < lengths[:, None]


def losses(model: PretrainingModel, labels: bool = True) -> torch.Tensor:
    ids, types, mask = batch()
    out = model(
        ids, types, mask, torch.tensor([1, 3, 14]), torch.tensor([9, 10, 11]),
        torch.tensor([0, 1, 0]) if labels else None,
    )  # fmt: skip
    return out.mlm_loss_sum + (out.sentence_loss_sum if labels else 0)


# --- embedding ------------------------------------------------------------------------------------


def test_all_tables_and_their_norm_are_e_wide() -> None:
    embedding = build_model(shape(), 0).encoder.embedding
    assert embedding.word.weight.shape == (61, 16)
    assert embedding.position.weight.shape == (24, 16)
    assert embedding.token_type is not None
    assert embedding.token_type.weight.shape == (2, 16)
    assert embedding.norm.normalized_shape == (16,)  # type: ignore[union-attr]


def test_the_projection_has_a_bias_and_exists_only_where_the_widths_differ() -> None:
    factorised = build_model(shape(embedding=16), 0).encoder.embedding.projection
    assert factorised.weight.shape == (32, 16)
    assert factorised.bias is not None
    full = build_model(shape(embedding=32), 0).encoder.embedding.projection
    assert not list(full.parameters())


def test_the_norm_comes_before_the_projection() -> None:
    embedding = build_model(shape(), 0).encoder.embedding.eval()
    ids, types, _ = batch()
    assert embedding.token_type is not None
    summed = embedding.word(ids) + embedding.position.weight[:11] + embedding.token_type(types)
    assert isinstance(embedding.projection, nn.Linear)
    expected = F.linear(F.layer_norm(summed, (16,), eps=1e-12), embedding.projection.weight, embedding.projection.bias)
    torch.testing.assert_close(embedding(ids, types), expected)


def test_the_word_table_is_tied_and_gets_gradient_from_both_uses() -> None:
    model = build_model(shape(), 0)
    assert sum(p.shape == (61, 16) for p in model.parameters()) == 1
    assert not any("decoder" in name for name in model.state_dict())
    losses(model).backward()
    gradient = model.encoder.embedding.word.weight.grad
    absent = [i for i in range(61) if i not in batch()[0].unique().tolist()]
    assert gradient is not None
    assert gradient[absent].abs().sum(1).min() > 0  # pieces not in the input: from the decoder alone
    model.zero_grad()
    model.encoder(*batch()).sum().backward()
    gradient = model.encoder.embedding.word.weight.grad
    assert gradient is not None
    assert gradient[absent].abs().max() == 0


# --- sharing --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "attention", "ffn"),
    [
        (Share.ALL, [0, 0, 0, 0], [0, 0, 0, 0]),
        (Share.ATTENTION, [0, 0, 0, 0], [0, 1, 2, 3]),
        (Share.FFN, [0, 1, 2, 3], [0, 0, 0, 0]),
        (Share.NONE, [0, 1, 2, 3], [0, 1, 2, 3]),
    ],
)
def test_the_map_says_which_block_a_layer_uses(share: Share, attention: list[int], ffn: list[int]) -> None:
    sharing = Sharing(share, 4)
    for part, expected in ((Part.ATTENTION, attention), (Part.FFN, ffn)):
        assert [sharing.index(part, layer) for layer in range(4)] == expected
        assert sharing.size(part) == max(expected) + 1
    used = [[("attention", a), ("ffn", f)] for a, f in zip(attention, ffn, strict=True)]
    assert build_model(shape(share), 0).encoder.layer_blocks == used
    assert Share.of({part for part in Part if share.shares(part)}) is share


@pytest.mark.parametrize(("layers", "groups"), GROUPINGS)
def test_groups_are_contiguous_and_all_used(layers: int, groups: int) -> None:
    used = [Sharing(Share.ALL, layers, groups).index(Part.FFN, i) for i in range(layers)]
    assert used == [int(i * groups / layers) for i in range(layers)]
    assert sorted(set(used)) == list(range(groups))


@pytest.mark.parametrize("share", SHARES)
def test_sharing_means_the_same_tensors_and_survives_whatever_is_done_to_the_model(share: Share) -> None:
    model = build_model(shape(share), 0)
    model(*batch(), torch.tensor([1]), torch.tensor([9]), torch.tensor([0, 1, 0])).mlm_loss_sum.backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    restored = build_model(shape(share), 1)
    restored.load_state_dict(model.state_dict())
    for candidate in (model, restored, copy.deepcopy(model), model.to(torch.float64)):
        encoder = candidate.encoder
        blocks = [[getattr(encoder, kind)[entry] for kind, entry in layer] for layer in encoder.layer_blocks]
        for part, shared in enumerate((share in (Share.ALL, Share.ATTENTION), share in (Share.ALL, Share.FFN))):
            pointers = [{p.data_ptr() for p in pair[part].parameters()} for pair in blocks]
            if shared:
                assert all(p == pointers[0] for p in pointers)
            else:
                assert len(set.union(*pointers)) == 4 * len(pointers[0])


@pytest.mark.parametrize(("share", "layer_norms"), [(Share.ATTENTION, (1, 4)), (Share.FFN, (4, 1))])
def test_the_layer_norm_follows_its_sub_layer(share: Share, layer_norms: tuple[int, int]) -> None:
    encoder = build_model(shape(share), 0).encoder
    counts = tuple(
        sum(isinstance(m, nn.LayerNorm) for m in blocks_of(encoder, kind).modules()) for kind in ("attention", "ffn")
    )
    assert counts == layer_norms


def test_unshared_layers_start_from_weights_of_their_own() -> None:
    encoder = build_model(shape(Share.NONE), 0).encoder
    for kind in ("attention", "ffn"):
        blocks = blocks_of(encoder, kind)
        first = [block.get_parameter(next(n for n, _ in block.named_parameters())) for block in blocks]
        assert all(not torch.equal(first[0], other) for other in first[1:])


# --- initialisation -------------------------------------------------------------------------------


def test_kernels_and_tables_are_truncated_normal_and_the_rest_constant() -> None:
    model = build_model(shape(Share.NONE, vocab_size=2000, initializer_range=0.02), 0)
    values = []
    for name, p in model.named_parameters():
        if name.endswith("bias"):
            assert p.abs().max() == 0, name
        elif "norm" in name:
            assert torch.equal(p, torch.ones_like(p)), name
        else:
            assert p.abs().max() <= 0.04, name
            values.append(p.flatten())
    assert torch.cat(values).std().item() == pytest.approx(0.0176, rel=0.02)
    assert model.encoder.embedding.word.weight[0].abs().max() > 0  # the pad row is like any other


def test_arms_of_one_seed_start_equal_wherever_name_and_shape_agree() -> None:
    arms = [build_model(s, 7).state_dict() for s in (shape(Share.ALL), shape(Share.NONE), shape(embedding=8))]
    for other in arms[1:]:
        common = [n for n in arms[0] if n in other and other[n].shape == arms[0][n].shape]
        assert any(n.startswith("encoder.attention.0") for n in common)
        assert any(n.startswith("pooler") for n in common)
        assert all(torch.equal(arms[0][n], other[n]) for n in common)
    different = build_model(shape(), 8).state_dict()
    assert not torch.equal(different["pooler.dense.weight"], arms[0]["pooler.dense.weight"])


def test_building_touches_no_global_generator() -> None:
    before = (torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"].tolist(), random.getstate())  # noqa: NPY002
    build_model(shape(), 0)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state(legacy=False)["state"]["key"].tolist() == before[1]  # noqa: NPY002
    assert random.getstate() == before[2]


def test_the_first_loss_is_that_of_a_uniform_guess() -> None:
    model = build_model(shape(initializer_range=0.02), 0).eval()
    ids, types, mask = batch()
    out = model(ids, types, mask, torch.tensor([1, 3, 14]), torch.tensor([9, 10, 11]), torch.tensor([0, 1, 0]))
    assert out.mlm_loss_sum.item() / 3 == pytest.approx(math.log(61), rel=0.05)
    assert out.sentence_loss_sum.item() / 3 == pytest.approx(math.log(2), rel=0.05)


# --- padding --------------------------------------------------------------------------------------


def test_padding_never_changes_a_real_token() -> None:
    encoder = build_model(shape(Share.NONE), 0).encoder.eval()
    ids, types, mask = batch(1, 11)
    mask = torch.arange(11)[None] < 8
    changed = torch.where(mask, ids, 5 + (ids + 17) % 50)
    a, b = encoder(ids, types, mask), encoder(changed, types, mask)
    torch.testing.assert_close(a[:, :8], b[:, :8], atol=1e-6, rtol=0)
    torch.testing.assert_close(a[:, :8], encoder(ids[:, :8], types[:, :8], None), atol=1e-5, rtol=0)
    assert not torch.allclose(encoder(ids, types, None)[:, :8], a[:, :8], atol=1e-3)


@pytest.mark.parametrize("kind", [torch.bool, torch.int32, torch.int64, torch.float32])
def test_a_mask_of_any_type_means_the_same(kind: torch.dtype) -> None:
    encoder = build_model(shape(), 0).encoder.eval()
    ids, types, mask = batch()
    torch.testing.assert_close(encoder(ids, types, mask.to(kind)), encoder(ids, types, mask), atol=0, rtol=0)


# --- dropout and the objective --------------------------------------------------------------------


def test_dropout_stands_where_the_reference_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[float, tuple[int, ...]]] = []

    def record(x: torch.Tensor, rate: float) -> torch.Tensor:
        seen.append((rate, tuple(x.shape)))
        return keep_bits(x, rate)

    for module in (cpu, cpu_residual):
        monkeypatch.setattr(module, "keep_bits", record)
    monkeypatch.setattr(dropout, "keep_bits", record)
    model = build_model(shape(hidden_dropout=0.2, attention_dropout=0.1), 0).train()
    losses(model)
    embedding, layer = [(0.2, (3, 11, 16))], [(0.1, (3 * 4, 11, 11)), (0.2, (3, 11, 32)), (0.2, (3, 11, 32))]
    assert seen == embedding + 4 * layer  # after the embedding LayerNorm; probabilities, output, FFN; none in the heads
    seen.clear()
    losses(model.eval())
    assert seen == []


def test_blocks_are_post_layer_norm() -> None:
    encoder = build_model(shape(), 0).encoder.eval()
    block = blocks_of(encoder, "ffn")[0]
    x = torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(0))
    inner = F.gelu(F.linear(x, block.inner.weight, block.inner.bias), approximate="tanh")
    expected = F.layer_norm(x + F.linear(inner, block.outer.weight, block.outer.bias), (32,), eps=1e-12)
    call = LayerCall(0, x, View(encoder.shape, 0, None, x))
    torch.testing.assert_close(block(x, call), expected)


def test_without_a_sentence_objective_pooler_and_head_get_no_gradient() -> None:
    model = build_model(shape(), 0)
    losses(model, labels=False).backward()
    idle = [*model.pooler.parameters(), *model.sentence_head.parameters()]
    assert all(p.grad is None for p in idle)
    losses(model, labels=True).backward()
    assert all(p.grad is not None for p in idle)


def test_no_masked_position_gives_a_finite_zero() -> None:
    model = build_model(shape(), 0)
    none = torch.zeros(0, dtype=torch.int64)
    out = model(*batch(), none, none, None)
    assert out.mlm_loss_sum.item() == 0
    out.mlm_loss_sum.backward()
