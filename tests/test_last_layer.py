"""A last layer computed at some rows only gives what the whole layer gives there, and the same gradients."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from modelhelpers import blocks_of
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from albert_ablate.axes import Part, Share
from albert_ablate.data.batches import Batch
from albert_ablate.model import cpu
from albert_ablate.model.architecture import Architecture
from albert_ablate.model.attention import PATTERNS, Pattern, View
from albert_ablate.model.blocks import KINDS, LAYERS, AttentionBlock, FeedForwardBlock
from albert_ablate.model.encoder import Encoder
from albert_ablate.model.pretraining import PretrainingModel, build_model
from albert_ablate.model.rows import Rows, first_rows
from albert_ablate.model.shape import Shape
from albert_ablate.model.sub_layer import Block, Kind, LayerCall
from albert_ablate.tasks.heads import PooledModel
from albert_ablate.tasks.task import HeadSettings, TaskBatch

B, T, H, N, L, I = 3, 9, 32, 4, 4, 64  # noqa: E741 - the letters of the model's files

#: Indices into the B * T grid.
ROWS = {
    "one a sequence": [0, 9, 18],
    "any order": [20, 1, 3, 10, 0, 9, 18],
    "repeated": [1, 1, 26, 3, 1, 26],
    "one sequence": [12, 9, 17, 10, 11],
    "every position": list(range(B * T)),
    "none": [],
}


# --- kinds and patterns that know nothing of rows ---------------------------------------------------


class Mean(Block):
    """Adds the mean over positions: it needs them all, and computes them all."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.dense = nn.Linear(shape.hidden_size, shape.hidden_size)

    def forward(self, y: Tensor, call: LayerCall) -> Tensor:
        return y + torch.tanh(self.dense(y.mean(1, keepdim=True)))


class Gate(Block):
    """Positionwise, and reads the layer's input."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.dense = nn.Linear(shape.hidden_size, shape.hidden_size)

    def forward(self, y: Tensor, call: LayerCall) -> Tensor:
        return y + call.x * torch.sigmoid(self.dense(y))


def causal(shape: Shape, layer: int, positions: Tensor) -> Tensor:
    return (positions[:, None] >= positions)[None, None]


def causal_kernel(q: Tensor, k: Tensor, v: Tensor, view: View, drop: float) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def layer_of(kinds: str) -> Callable[[Shape], list[str]]:
    return lambda shape: kinds.split()


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "mean", Kind(Part.ATTENTION, Mean, lambda shape: H * H + H, lambda shape, t: 2 * H * H))
    monkeypatch.setitem(
        KINDS, "gate", Kind(Part.FFN, Gate, lambda shape: H * H + H, lambda shape, t: t * 2 * H * H, positionwise=True)
    )
    for kinds in ("attention ffn mean", "mean attention gate ffn", "attention mean gate", "gate ffn"):
        monkeypatch.setitem(LAYERS, kinds, layer_of(kinds))
    monkeypatch.setitem(PATTERNS, "causal", Pattern(causal, lambda shape, length: (length + 1) / 2))
    monkeypatch.setitem(PATTERNS, "kernel", Pattern(causal, PATTERNS["causal"].keys, causal_kernel))


# --- helpers --------------------------------------------------------------------------------------


def architecture(share: Share = Share.ALL, **other: Any) -> Architecture:
    values: dict[str, Any] = {
        "vocab_size": 50, "embedding_size": 16, "hidden_size": H, "layers": L, "heads": N, "intermediate_size": I,
        "max_positions": 16, "share": share, "initializer_range": 0.3, **other,
    }  # fmt: skip
    return Architecture(**values)


def model_of(shape: Architecture) -> PretrainingModel:
    """In fp64, with biases and norms that are not their first values."""
    model = build_model(shape, 0).double()
    draw = torch.Generator().manual_seed(5)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=draw).double()
    return model


def inputs() -> tuple[Tensor, Tensor]:
    """Ids and types."""
    ids = torch.randint(5, 50, (B, T), generator=torch.Generator().manual_seed(0))
    return ids, (torch.arange(T) > 4).long().expand(B, T)


def masks() -> dict[str, Tensor | None]:
    draw = torch.Generator().manual_seed(4)
    tails = torch.arange(T) < torch.tensor([T, 4, 7])[:, None]
    holes = tails.clone()
    holes[0, 3] = holes[2, 5] = False
    return {
        "none": None,
        "tails": tails,
        "holes": holes,
        "keys": holes[:, None, None, :],
        "a query and a key": (torch.rand(B, 1, T, T, generator=draw) < 0.5) | torch.eye(T).bool(),
        "a head": (torch.rand(1, N, T, T, generator=draw) < 0.5) | torch.eye(T).bool(),
    }


def full_and_at_rows(encoder: Encoder, mask: Tensor | None, index: list[int]) -> None:
    """Values and the gradients of every parameter are equal."""
    rows, parameters = torch.tensor(index, dtype=torch.int64), list(encoder.parameters())
    weights = torch.randn(len(index), H, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    found = []
    for y in (encoder(*inputs(), mask).flatten(0, 1)[rows], encoder(*inputs(), mask, rows=rows)):
        assert y.shape == (len(index), H)
        found.append([y, *torch.autograd.grad((y * weights).sum(), parameters, materialize_grads=True)])
    torch.testing.assert_close(found[1], found[0], atol=1e-12, rtol=1e-12)


@pytest.fixture(params=["hand-written", "plain", "gpu"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of computing on CPU, and that of a GPU."""
    if request.param == "gpu":
        monkeypatch.setattr(cpu, "by_hand", lambda x: False)
    if request.param == "plain":
        for block in (AttentionBlock, FeedForwardBlock):
            monkeypatch.setattr(block, "on_cpu", Block.on_cpu)
    return str(request.param)


# --- the same numbers -----------------------------------------------------------------------------


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("share", list(Share))
def test_every_strategy(share: Share, rows: str) -> None:
    full_and_at_rows(model_of(architecture(share)).encoder, masks()["tails"], ROWS[rows])


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("other", [{"groups": 2}, {"layers": 1}, {"inner": 2}, {"activation": "gelu_erf"}], ids=str)
def test_groups_and_a_single_layer(other: dict[str, Any]) -> None:
    full_and_at_rows(model_of(architecture(**other)).encoder, masks()["tails"], ROWS["any order"])


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("pattern", ["full", "causal", "kernel"])
@pytest.mark.parametrize("mask", masks())
@pytest.mark.parametrize("rows", ["any order", "repeated", "none"])
def test_masks_and_patterns(mask: str, pattern: str, rows: str) -> None:
    full_and_at_rows(model_of(architecture(pattern=pattern)).encoder, masks()[mask], ROWS[rows])


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("kinds", ["attention ffn mean", "mean attention gate ffn", "attention mean gate", "gate ffn"])
def test_kinds_that_know_nothing_of_rows(kinds: str, rows: str) -> None:
    full_and_at_rows(model_of(architecture(Share.NONE, layer_type=kinds)).encoder, masks()["tails"], ROWS[rows])


@pytest.mark.parametrize("share", list(Share))
def test_weight_gradients_that_are_kept_turned(share: Share, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "_TRANSPOSING_PAYS", 1)
    full_and_at_rows(model_of(architecture(share)).encoder, masks()["tails"], ROWS["any order"])


@pytest.mark.usefixtures("path")
def test_recomputed_layers() -> None:
    encoder = model_of(architecture()).encoder
    rows = torch.tensor(ROWS["any order"])
    gradients = []
    for encoder.recompute in (False, True):
        loss = encoder(*inputs(), masks()["tails"], rows=rows).square().sum()
        gradients.append(torch.autograd.grad(loss, list(encoder.parameters())))
    torch.testing.assert_close(*gradients, atol=1e-12, rtol=1e-12)


# --- what uses it ---------------------------------------------------------------------------------


def batch(positions: list[int]) -> Batch:
    ids, types = inputs()
    mask, targets = masks()["tails"], torch.arange(len(positions)) + 6
    assert mask is not None
    return Batch(ids, types, mask, torch.tensor(positions, dtype=torch.int64), targets, torch.tensor([0, 1, 0]))


def losses(model: PretrainingModel, b: Batch, sentences: bool) -> list[Tensor]:
    """Of masked LM and, where they are trained, of sentences."""
    out = model(b.input_ids, b.type_ids, b.mask, b.positions, b.targets, b.labels if sentences else None)
    return [out.mlm_loss_sum] if out.sentence_loss_sum is None else [out.mlm_loss_sum, out.sentence_loss_sum]


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("sentences", [True, False])
@pytest.mark.parametrize("positions", [[1, 3, 10, 19], [2], []], ids=str)
@pytest.mark.parametrize("share", list(Share))
def test_pretraining_losses(share: Share, positions: list[int], sentences: bool) -> None:
    model, b = model_of(architecture(share)), batch(positions)
    hidden = model.encoder(b.input_ids, b.type_ids, b.mask)  # (B, T, H)
    expected = [F.cross_entropy(model.token_logits(hidden.flatten(0, 1)[positions]), b.targets, reduction="sum")]
    if sentences:  # the loss of a sentence is in fp32
        expected.append(F.cross_entropy(model.sentence_logits(hidden).float(), b.labels, reduction="sum"))
    mine = losses(model, b, sentences)
    torch.testing.assert_close(mine[0], expected[0], atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(mine[1:], expected[1:])
    gradients = [
        torch.autograd.grad(sum(terms, torch.zeros(())), list(model.parameters()), materialize_grads=True)
        for terms in (mine, expected)
    ]
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("size", [1, 2])
def test_micro_batches_add_up(size: int) -> None:
    """One of them has no masked position."""
    model, b = model_of(architecture(Share.FFN)), batch([1, 3, 4, 10])
    parameters = list(model.encoder.parameters())
    whole = torch.autograd.grad(losses(model, b, sentences=False)[0], parameters)
    parts = [torch.autograd.grad(losses(model, part, sentences=False)[0], parameters) for part in b.micro(size)]
    torch.testing.assert_close([sum(of) for of in zip(*parts, strict=True)], list(whole), atol=1e-12, rtol=1e-12)


@pytest.mark.usefixtures("path")
def test_a_pooled_head_of_a_task() -> None:
    shape = architecture(Share.NONE)
    model = PooledModel(shape, 3, HeadSettings(0.0, "first", "pooled"))
    assert model.pooler is not None
    model.load_state_dict({k: v.float() for k, v in model_of(shape).state_dict().items()}, strict=False)
    (ids, types), mask = inputs(), masks()["tails"]
    assert mask is not None
    logits = model(TaskBatch(ids, types, mask, torch.zeros(B), 1))
    expected = model.classifier(model.pooler(model.encoder(ids, types, mask)))
    torch.testing.assert_close(logits, expected)
    gradients = [torch.autograd.grad(y.square().sum(), list(model.parameters())) for y in (logits, expected)]
    torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-4)


# --- what is computed -----------------------------------------------------------------------------


def counted(function: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        function()
    return counter.get_total_flops()


def saved(slots: int) -> int:
    """FLOPs of the last layer that R = 7 rows in ``slots`` a sequence do without."""
    idle = B * T - 7
    scores_and_context = 4 * H * T * (B * T - B * slots)
    return idle * (2 * H * H + 2 * H * H + 4 * H * I) + scores_and_context


def test_queries_output_and_feed_forward_are_left_out() -> None:
    shape = architecture()
    encoder, rows = model_of(shape).encoder, torch.tensor(ROWS["any order"])  # 3, 2 and 2 of the sequences
    whole = B * shape.encoder_flops(T)
    assert counted(lambda: encoder(*inputs(), rows=rows)) == whole - saved(slots=3)
    assert counted(lambda: encoder(*inputs())) == whole
    assert counted(lambda: encoder.hidden_states(*inputs())) == whole


def test_the_plain_path_leaves_out_output_and_feed_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    for block in (AttentionBlock, FeedForwardBlock):
        monkeypatch.setattr(block, "on_cpu", Block.on_cpu)
    encoder = model_of(architecture(Share.NONE)).encoder
    shapes: list[tuple[int, ...]] = []
    for linear in (
        blocks_of(encoder, "attention")[-1].query,
        blocks_of(encoder, "attention")[-1].output,
        blocks_of(encoder, "ffn")[-2].inner,
        blocks_of(encoder, "ffn")[-1].inner,
    ):
        linear.register_forward_hook(lambda module, args, y: shapes.append(tuple(args[0].shape)))
    encoder(*inputs(), rows=torch.tensor(ROWS["any order"]))
    assert shapes == [(B, T, H), (B, T, H), (7, H), (7, H)]  # ffn of the layer before, then the last layer's


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("rates", [(0.2, 0.0), (0.0, 0.2)])
def test_dropout_draws_the_noise_of_the_whole_layer(rates: tuple[float, float]) -> None:
    shape = architecture(hidden_dropout=rates[0], attention_dropout=rates[1])
    encoder, rows = model_of(shape).encoder.train(), torch.tensor(ROWS["any order"])
    states = []
    for chosen in (None, rows):
        torch.manual_seed(1)
        states.append(encoder(*inputs(), masks()["tails"], rows=chosen))
    assert torch.equal(states[1], states[0].flatten(0, 1)[rows])
    full_and_at_rows(encoder.eval(), masks()["tails"], ROWS["any order"])
    assert counted(lambda: encoder.train()(*inputs(), rows=rows)) > counted(
        lambda: encoder.eval()(*inputs(), rows=rows)
    )


# --- rows -----------------------------------------------------------------------------------------


def test_rows_stand_in_slots_of_their_sequences() -> None:
    rows = Rows(torch.tensor([7, 0, 5, 5]), batch=3, length=4)  # 7 and twice 5 in the second sequence
    assert rows.most == 3
    assert rows.grid(torch.tensor([1, 2, 3, 4])).tolist() == [[2, 0, 0], [1, 3, 4], [0, 0, 0]]
    assert rows.of(torch.arange(24).view(3, 4, 2)).tolist() == [[14, 15], [0, 1], [10, 11], [10, 11]]
    assert rows.grid(torch.tensor([1, 2, 3, 4])).flatten()[rows.slots].tolist() == [1, 2, 3, 4]


def test_first_rows_are_those_of_cls() -> None:
    assert first_rows(torch.zeros(B, T)).tolist() == [0, T, 2 * T]
