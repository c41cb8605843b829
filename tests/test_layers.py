"""Kinds of sub-layers, types of layers, attention patterns and norms that are registered from outside."""

import math
from contextlib import nullcontext
from itertools import pairwise
from typing import Any

import pytest
import torch
from modelhelpers import blocks_of
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from albert_ablate.axes import Part, Share
from albert_ablate.model import cpu
from albert_ablate.model.architecture import Architecture
from albert_ablate.model.attention import PATTERNS, Pattern, View
from albert_ablate.model.blocks import KINDS, LAYERS, AttentionBlock, FeedForwardBlock
from albert_ablate.model.dropout import Dropout
from albert_ablate.model.encoder import Encoder
from albert_ablate.model.norms import NORMS
from albert_ablate.model.pretraining import PretrainingModel, build_model
from albert_ablate.model.shape import Shape
from albert_ablate.model.sub_layer import Block, Kind, LayerCall
from albert_ablate.training.optimizers import split_parameters

B, T, H, N, L, NARROW = 3, 9, 32, 4, 4, 8


# --- what is registered ---------------------------------------------------------------------------


class Affine(nn.Module):
    """A norm without statistics; no parameter is called weight or bias."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.empty(width))
        self.offset = nn.Parameter(torch.empty(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x + self.offset


class Reduce(Block):
    """H -> NARROW."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.dense = nn.Linear(shape.hidden_size, NARROW)
        self.norm = Affine(NARROW)

    def forward(self, y: Tensor, call: LayerCall) -> Tensor:
        return self.norm(self.dense(y))


class Narrow(Block):
    """NARROW -> NARROW, with a residual."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.dense = nn.Linear(NARROW, NARROW)
        self.dropout = Dropout(shape.hidden_dropout)

    def forward(self, y: Tensor, call: LayerCall) -> Tensor:
        return y + self.dropout(torch.tanh(self.dense(y)))


class Expand(Block):
    """NARROW -> H; the residual is the input of the layer."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.dense = nn.Linear(NARROW, shape.hidden_size)
        self.norm = Affine(shape.hidden_size)

    def forward(self, y: Tensor, call: LayerCall) -> Tensor:
        return self.norm(self.dense(y) + call.x)


def causal(shape: Shape, layer: int, positions: Tensor) -> Tensor:
    return (positions[:, None] >= positions)[None, None]


def widening(shape: Shape, layer: int, positions: Tensor) -> Tensor:
    return ((positions[:, None] - positions).abs() <= layer)[None, None]


def never_asked(shape: Shape, layer: int, positions: Tensor) -> Tensor:
    raise AssertionError("a kernel of its own makes no T x T matrix")


def causal_kernel(q: Tensor, k: Tensor, v: Tensor, view: View, drop: float) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=drop)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    def flops(shape: Shape, length: int) -> int:
        return length * 2 * H * NARROW

    h = H * NARROW
    monkeypatch.setitem(NORMS, Affine, {"scale": 1.0, "offset": 0.0})
    monkeypatch.setitem(KINDS, "reduce", Kind(Part.ATTENTION, Reduce, lambda shape: h + 3 * NARROW, flops))
    monkeypatch.setitem(
        KINDS, "narrow", Kind(Part.FFN, Narrow, lambda shape: NARROW * (NARROW + 1), lambda shape, t: t * 2 * NARROW**2)
    )
    monkeypatch.setitem(KINDS, "expand", Kind(Part.FFN, Expand, lambda shape: h + 3 * H, flops))
    monkeypatch.setitem(LAYERS, "hourglass", lambda shape: ("attention", "reduce", "narrow", "narrow", "expand"))
    monkeypatch.setitem(PATTERNS, "causal", Pattern(causal, lambda shape, length: (length + 1) / 2))
    monkeypatch.setitem(PATTERNS, "kernel", Pattern(never_asked, PATTERNS["causal"].keys, causal_kernel))
    monkeypatch.setitem(PATTERNS, "widening", Pattern(widening, lambda shape, length: math.nan, by_layer=True))


# --- helpers --------------------------------------------------------------------------------------


def architecture(share: Share = Share.ALL, **other: object) -> Architecture:
    values: dict[str, Any] = {
        "vocab_size": 50, "embedding_size": 16, "hidden_size": H, "layers": L, "heads": N, "intermediate_size": 64,
        "max_positions": 16, "share": share, "initializer_range": 0.3, **other,
    }  # fmt: skip
    return Architecture(**values)


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Ids, types, and a mask whose padding stands at the ends."""
    ids = torch.randint(5, 50, (B, T), generator=torch.Generator().manual_seed(0))
    types = (torch.arange(T) > 4).long().expand(B, T)
    return ids, types, torch.arange(T) < torch.tensor([T, 4, 7])[:, None]


def encoder_of(shape: Architecture) -> Encoder:
    """In fp64, with biases and norms that are not their first values."""
    encoder = build_model(shape, 0).encoder.double()
    draw = torch.Generator().manual_seed(5)
    for parameter in encoder.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=draw).double()
    return encoder


def loss_of(model: PretrainingModel) -> Tensor:
    ids, types, mask = inputs()
    positions, targets = torch.tensor([1, 3, 10, 19]), torch.tensor([6, 9, 30, 11])
    out = model(ids, types, mask, positions, targets, torch.tensor([0, 1, 0]))
    assert out.sentence_loss_sum is not None
    return out.mlm_loss_sum / 4 + out.sentence_loss_sum / 3


def reference(encoder: Encoder, visible: Tensor | None = None, positions: Tensor | None = None) -> Tensor:
    """A standard encoder written out: (L or 1, B or 1, N or 1, T, T) visibility, (B or 1, T) positions -> (B, T, H)."""
    ids, types, _ = inputs()
    tables = encoder.embedding
    positions = torch.arange(T)[None] if positions is None else positions
    assert tables.token_type is not None
    summed = tables.word.weight[ids] + tables.position.weight[positions] + tables.token_type.weight[types]
    x = tables.projection(tables.norm(summed))  # type: ignore[misc]
    for layer, blocks in enumerate(encoder.layer_blocks):
        attention, ffn = (blocks_of(encoder, kind)[entry] for kind, entry in blocks)
        assert isinstance(attention, AttentionBlock)
        assert isinstance(ffn, FeedForwardBlock)
        heads = (m(x).view(B, T, N, H // N).transpose(1, 2) for m in (attention.query, attention.key, attention.value))
        q, k, v = heads
        scores = q @ k.transpose(2, 3) / math.sqrt(H // N)
        if visible is not None:
            scores = scores.masked_fill(~visible[layer % len(visible)], -math.inf)
        context = (scores.softmax(-1) @ v).transpose(1, 2).reshape(B, T, H)
        x = attention.norm(x + attention.output(context))
        x = ffn.norm(x + ffn.outer(F.gelu(ffn.inner(x), approximate="tanh")))
    return x


def with_gradients(encoder: Encoder, y: Tensor) -> list[Tensor]:
    weights = torch.randn(B, T, H, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    return [y, *torch.autograd.grad((y * weights * inputs()[2][:, :, None]).sum(), list(encoder.parameters()))]


@pytest.fixture(params=["hand-written", "plain", "gpu"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of computing on CPU, and that of a GPU."""
    if request.param == "gpu":
        monkeypatch.setattr(cpu, "by_hand", lambda x: False)
    if request.param == "plain":
        for block in (AttentionBlock, FeedForwardBlock):
            monkeypatch.setattr(block, "on_cpu", Block.on_cpu)


@pytest.fixture
def hand_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention that fails where the hand-written path is not taken."""
    monkeypatch.setattr(AttentionBlock, "forward", None)


def equal(a: list[Tensor], b: list[Tensor]) -> None:
    torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)


# --- kinds and layers -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "attention", "ffn"),
    [
        (Share.ALL, [0, 0, 0, 0], [0, 0, 0, 0]),
        (Share.ATTENTION, [0, 0, 0, 0], [0, 1, 2, 3]),
        (Share.FFN, [0, 1, 2, 3], [0, 0, 0, 0]),
        (Share.NONE, [0, 1, 2, 3], [0, 1, 2, 3]),
    ],
)
def test_kinds_follow_their_part_of_the_strategy(share: Share, attention: list[int], ffn: list[int]) -> None:
    encoder = build_model(architecture(share, layer_type="hourglass"), 0).encoder
    assert encoder.layer_blocks == [
        [("attention", a), ("reduce", a), ("narrow", 2 * f), ("narrow", 2 * f + 1), ("expand", f)]
        for a, f in zip(attention, ffn, strict=True)
    ]
    sizes = {kind: len(list(blocks.children())) for kind, blocks in encoder.named_children() if kind != "embedding"}
    a, f = max(attention) + 1, max(ffn) + 1
    assert sizes == {"attention": a, "reduce": a, "narrow": 2 * f, "expand": f}


def test_groups_hold_for_kinds_that_stand_in_a_layer_twice() -> None:
    encoder = build_model(architecture(Share.ALL, groups=2, layer_type="hourglass"), 0).encoder
    narrow = [[entry for kind, entry in layer if kind == "narrow"] for layer in encoder.layer_blocks]
    assert narrow == [[0, 1], [0, 1], [2, 3], [2, 3]]


@pytest.mark.parametrize("share", list(Share))
def test_counts_equal_the_built_model(share: Share) -> None:
    shape = architecture(share, layer_type="hourglass")
    model = build_model(shape, 0).eval()
    counts = shape.parameters()
    assert counts.blocks == {
        kind: sum(p.numel() for p in model.encoder.get_submodule(kind).parameters())
        for kind in ("attention", "reduce", "narrow", "expand")
    }
    assert counts.with_heads == counts.as_dict()["with_heads"] == sum(p.numel() for p in model.parameters())
    ids = torch.ones(1, T, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.encoder(ids, ids)
    assert counter.get_total_flops() == shape.encoder_flops(T)


def test_the_worked_example_of_the_encoder() -> None:
    """The table in its docstring."""
    encoder = build_model(architecture(Share.FFN), 0).encoder
    for layer, blocks in enumerate(encoder.layer_blocks):
        assert f"{layer}        {', '.join(f'{kind}.{entry}' for kind, entry in blocks)}\n" in str(Encoder.__doc__)


@pytest.mark.parametrize("share", list(Share))
def test_a_block_gets_the_layers_input_and_its_own_weights(share: Share) -> None:
    encoder = encoder_of(architecture(share, layer_type="hourglass")).eval()
    ids, types, _ = inputs()
    states = encoder.hidden_states(ids, types)
    for layer, (x, after) in enumerate(pairwise(states)):
        call = LayerCall(layer, x, View(encoder.shape, layer, None, x))
        attention, reduce, first, second, expand = (
            blocks_of(encoder, kind)[entry] for kind, entry in encoder.layer_blocks[layer]
        )
        y = reduce(attention(x, call), call)
        y = y + torch.tanh(first.dense(y))
        y = y + torch.tanh(second.dense(y))
        torch.testing.assert_close(after, expand.norm(expand.dense(y) + x), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("share", list(Share))
def test_gradients_cross_plain_and_hand_written_kinds(share: Share, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = encoder_of(architecture(share, layer_type="hourglass")).eval()
    mixed = with_gradients(encoder, encoder(*inputs()))
    monkeypatch.setattr(AttentionBlock, "on_cpu", Block.on_cpu)
    equal(mixed, with_gradients(encoder, encoder(*inputs())))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_kind_without_a_hand_written_path_trains_on_cpu(precision: str) -> None:
    model = build_model(architecture(Share.NONE, layer_type="hourglass"), 0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
    losses = []
    for _ in range(2):
        optimizer.zero_grad()
        with nullcontext() if precision == "fp32" else torch.autocast("cpu", dtype=torch.bfloat16):
            loss = loss_of(model)
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[1] < losses[0] - 0.01


@pytest.mark.parametrize("other", [{"layer_type": "hourglass"}, {"pattern": "causal"}, {"pattern": "widening"}])
def test_recomputed_layers_have_the_same_gradients(other: dict[str, str]) -> None:
    shape = architecture(Share.ATTENTION, hidden_dropout=0.2, attention_dropout=0.2, **other)
    gradients = []
    for recompute in (False, True):
        model = build_model(shape, 0).train()
        model.encoder.recompute = recompute
        torch.manual_seed(1)
        loss_of(model).backward()
        gradients.append([p.grad for p in model.parameters()])
    torch.testing.assert_close(*gradients)


# --- patterns -------------------------------------------------------------------------------------


def padding() -> dict[str, Tensor | None]:
    tails = inputs()[2]
    holes = tails.clone()
    holes[0, 3] = holes[2, 5] = False
    return {"none": None, "tails": tails, "holes": holes}


@pytest.mark.usefixtures("path")
def test_the_past_never_sees_the_future() -> None:
    encoder = encoder_of(architecture(pattern="causal")).eval()
    ids, types, _ = inputs()
    before = encoder(ids, types)
    for first in range(1, T):
        changed = ids.clone()
        changed[:, first:] = 5 + (ids[:, first:] + 17) % 45
        after = encoder(changed, types)
        assert torch.equal(after[:, :first], before[:, :first])
        assert not torch.isclose(after[:, first:], before[:, first:]).all(-1).any()


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("kind", padding())
def test_a_causal_pattern_with_padding(kind: str) -> None:
    encoder = encoder_of(architecture(Share.ATTENTION, pattern="causal")).eval()
    mask = padding()[kind]
    visible = torch.ones(T, T).tril().bool().expand(1, B, 1, T, T)
    if mask is not None:
        visible = visible & mask[None, :, None, None, :]
    ids, types, _ = inputs()
    equal(with_gradients(encoder, encoder(ids, types, mask)), with_gradients(encoder, reference(encoder, visible)))


@pytest.mark.usefixtures("hand_written")
@pytest.mark.parametrize("pattern", ["full", "causal", "widening"])
def test_patterns_keep_the_hand_written_path(pattern: str) -> None:
    encoder = encoder_of(architecture(pattern=pattern))
    ids, types, mask = inputs()
    for given in (None, mask, mask[:, None, None, :], mask[:, None, None, :] & mask[:, None, :, None]):
        encoder(ids, types, given).sum().backward()


@pytest.mark.usefixtures("path")
def test_a_pattern_differs_by_layer_where_weights_are_shared() -> None:
    encoder = encoder_of(architecture(Share.ALL, pattern="widening")).eval()
    distance = (torch.arange(T)[:, None] - torch.arange(T)).abs()
    visible = torch.stack([distance <= layer for layer in range(L)])[:, None, None]
    ids, types, _ = inputs()
    equal(with_gradients(encoder, encoder(ids, types)), with_gradients(encoder, reference(encoder, visible)))


def test_a_pattern_with_a_kernel_of_its_own_runs_on_cpu() -> None:
    by_kernel, by_bias = (encoder_of(architecture(pattern=pattern)).eval() for pattern in ("kernel", "causal"))
    assert blocks_of(by_kernel, "attention")[0].on_cpu(torch.float64) is None
    assert blocks_of(by_bias, "attention")[0].on_cpu(torch.float64) is not None
    ids, types, _ = inputs()
    equal(with_gradients(by_kernel, by_kernel(ids, types)), with_gradients(by_bias, by_bias(ids, types)))


def test_flops_follow_the_keys() -> None:
    full, causal_one = (architecture(pattern=pattern) for pattern in ("full", "causal"))
    pairs = View(causal_one, 0, None, torch.empty(1, T, H)).visible
    assert pairs is not None
    assert full.encoder_flops(T) - causal_one.encoder_flops(T) == L * 2 * 2 * (T * T - pairs.sum().item()) * H
    for name in ("full", "causal"):  # what a pattern shows is what it counts
        seen = View(architecture(pattern=name), 0, None, torch.empty(1, T, H)).visible
        average = T if seen is None else seen.sum(-1).double().mean().item()
        assert PATTERNS[name].keys(full, T) == average


# --- masks and positions of a batch ---------------------------------------------------------------


def visible_matrices() -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(4)
    itself = torch.eye(T).bool()
    return {
        "a sequence": (torch.rand(B, 1, T, T, generator=draw) < 0.5) | itself,
        "a head": (torch.rand(1, N, T, T, generator=draw) < 0.5) | itself,
        "both": (torch.rand(B, N, T, T, generator=draw) < 0.5) | itself,
        "keys": inputs()[2][:, None, None, :],
    }


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32])
@pytest.mark.parametrize("kind", visible_matrices())
def test_a_visible_matrix(kind: str, dtype: torch.dtype) -> None:
    encoder = encoder_of(architecture(Share.NONE)).eval()
    ids, types, _ = inputs()
    visible = visible_matrices()[kind]
    mine = with_gradients(encoder, encoder(ids, types, visible.to(dtype)))
    equal(mine, with_gradients(encoder, reference(encoder, visible[None])))


@pytest.mark.usefixtures("path")
def test_a_visible_matrix_and_a_pattern_both_hold() -> None:
    encoder = encoder_of(architecture(pattern="causal")).eval()
    ids, types, _ = inputs()
    visible = visible_matrices()["both"]
    expected = reference(encoder, (visible & torch.ones(T, T).tril().bool())[None])
    equal(with_gradients(encoder, encoder(ids, types, visible)), with_gradients(encoder, expected))


@pytest.mark.parametrize("rows", [1, B])
def test_soft_positions(rows: int) -> None:
    encoder = encoder_of(architecture()).eval()
    ids, types, _ = inputs()
    positions = torch.randint(0, 16, (rows, T), generator=torch.Generator().manual_seed(8))
    mine = with_gradients(encoder, encoder(ids, types, position_ids=positions))
    equal(mine, with_gradients(encoder, reference(encoder, positions=positions)))
    assert torch.equal(encoder.hidden_states(ids, types, None, positions)[-1], mine[0])
    torch.testing.assert_close(encoder(ids, types, position_ids=torch.arange(T)[None]), encoder(ids, types))


def test_a_mask_of_three_dimensions_is_refused() -> None:
    encoder = build_model(architecture(), 0).encoder
    ids, types, mask = inputs()
    with pytest.raises(ValueError, match=r"not \(3, 1, 9\)"):
        encoder(ids, types, mask[:, None])


# --- norms ----------------------------------------------------------------------------------------


def test_a_registered_norm_starts_as_the_identity_and_gets_no_weight_decay() -> None:
    model = build_model(architecture(Share.NONE, layer_type="hourglass"), 0)
    norms = [block.norm for block in blocks_of(model.encoder, "reduce")]
    assert len(norms) == L
    for norm in norms:
        assert torch.equal(norm.scale, torch.ones(NARROW))
        assert torch.equal(norm.offset, torch.zeros(NARROW))
    decayed, excluded = ({id(p) for p in group} for group in split_parameters(model))
    mine = {id(p) for norm in norms for p in norm.parameters()}
    assert mine <= excluded
    assert not mine & decayed
    assert {id(block.dense.weight) for block in blocks_of(model.encoder, "reduce")} <= decayed
