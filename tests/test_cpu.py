"""The CPU path, with its gradients by hand, is the same function as the plain modules."""

from collections.abc import Callable
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from albert_ablate.axes import Share
from albert_ablate.model import cpu
from albert_ablate.model.architecture import Architecture
from albert_ablate.model.attention import View
from albert_ablate.model.blocks import AttentionBlock, FeedForwardBlock
from albert_ablate.model.dropout import Dropout, keep_bits
from albert_ablate.model.encoder import Encoder
from albert_ablate.model.heads import MaskedLMHead
from albert_ablate.model.pretraining import initialise
from albert_ablate.model.sub_layer import Block, LayerCall, SubLayer

B, T, H = 3, 11, 32
Layers = TypeVar("Layers", bound=nn.Module)


def shape(**other: Any) -> Architecture:
    settings: dict[str, Any] = {
        "vocab_size": 40, "embedding_size": 16, "hidden_size": H, "layers": 3, "heads": 4, "intermediate_size": 64,
        "max_positions": 16, "share": Share.ALL, "initializer_range": 0.3,
    }  # fmt: skip
    return Architecture(**{**settings, **other})


def made(module: Layers) -> Layers:
    """In fp64, with biases and LayerNorms that are not their first values."""
    initialise(module, 0.3, 0)
    draw = torch.Generator().manual_seed(5)
    for parameter in module.parameters():
        parameter.data = parameter.data.double() + 0.1 * torch.randn(parameter.shape, generator=draw).double()
    return module


def masks() -> dict[str, Tensor | None]:
    tails = torch.ones(B, T, dtype=torch.bool)
    tails[0, 7:] = tails[2, 1:] = False
    holes = tails.clone()
    holes[1, 4] = False
    return {"none": None, "full": torch.ones(B, T, dtype=torch.bool), "tails": tails, "holes": holes}


def call(x: Tensor, mask: Tensor | None = None) -> LayerCall:
    return LayerCall(0, x, View(shape(), 0, mask, x))


def fast_path(block: Block, x: Tensor) -> SubLayer:
    path = block.on_cpu(x.dtype)
    assert path is not None
    return path


def values_and_gradients(
    function: Callable[[Tensor], Tensor], module: nn.Module, x: Tensor, weights: Tensor
) -> list[Tensor]:
    x = x.clone().requires_grad_()
    y = function(x)
    return [y, *torch.autograd.grad((y * weights).sum(), [x, *module.parameters()])]


@pytest.mark.parametrize("kind", masks())
def test_attention(kind: str) -> None:
    block = made(AttentionBlock(shape()))
    assert isinstance(block, AttentionBlock)
    x, weights = torch.randn(2, B, T, H, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    mask = masks()[kind]
    plain = values_and_gradients(lambda x: block(x, call(x, mask)), block, x, weights)
    fast = values_and_gradients(lambda x: fast_path(block, x)(x, call(x, mask)), block, x, weights)
    torch.testing.assert_close(fast, plain, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("activation", ["gelu_tanh", "gelu_erf"])
def test_feed_forward(activation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "_GELU_PIECE", 100)
    monkeypatch.setattr(cpu, "_TRANSPOSING_PAYS", 32)
    block = made(FeedForwardBlock(shape(activation=activation)))
    assert isinstance(block, FeedForwardBlock)
    x, weights = torch.randn(2, B, T, H, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    plain = values_and_gradients(lambda x: block(x, call(x)), block, x, weights)
    fast = values_and_gradients(lambda x: fast_path(block, x)(x, call(x)), block, x, weights)
    torch.testing.assert_close(fast, plain, atol=1e-9, rtol=1e-9)


def test_weight_gradient_in_every_form(monkeypatch: pytest.MonkeyPatch) -> None:
    for n, k in ((8, 8), (8, 40), (40, 8), (300, 8)):
        d_out, x = torch.randn(260, n, dtype=torch.float64), torch.randn(260, k, dtype=torch.float64)
        for least in (1, 1000):
            monkeypatch.setattr(cpu, "_TRANSPOSING_PAYS", least)
            torch.testing.assert_close(cpu.weight_gradient(d_out, x), d_out.t() @ x)


@pytest.mark.parametrize("share", list(Share))
def test_a_whole_encoder_and_its_micro_batches(share: Share) -> None:
    """Gradients of shared blocks add up over layers and over backward passes."""
    encoder = made(Encoder(shape(share=share)))
    ids = torch.randint(5, 40, (B, T), generator=torch.Generator().manual_seed(2))
    mask = masks()["tails"]
    assert mask is not None
    weights = torch.randn(B, T, H, dtype=torch.float64)
    names = [name for name, _ in encoder.named_parameters()]

    def plain() -> Tensor:
        x = encoder.embedding(ids, torch.zeros_like(ids))
        for blocks in encoder.layer_blocks:
            for kind, entry in blocks:
                x = encoder.get_submodule(f"{kind}.{entry}")(x, call(x, mask))
        return x

    expected = torch.autograd.grad((plain() * weights).sum(), list(encoder.parameters()))
    for row in range(B):
        part = slice(row, row + 1)
        ((encoder(ids[part], torch.zeros_like(ids[part]), mask[part])) * weights[part]).sum().backward()
    for name, mine, theirs in zip(names, (p.grad for p in encoder.parameters()), expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-9, rtol=1e-9, msg=name)


def test_masked_lm_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "_LOSS_PIECE", 90)  # two rows a piece
    head = made(MaskedLMHead(shape()))
    table = torch.randn(40, 16, dtype=torch.float64, requires_grad=True)
    hidden = torch.randn(7, H, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, 40, (7,))
    inputs = [hidden, table, *head.parameters()]
    logits = head(hidden, table)
    expected = F.cross_entropy(logits, targets, reduction="sum")
    loss, correct = head.loss(hidden, table, targets)
    torch.testing.assert_close(loss, expected)
    assert correct.item() == (logits.argmax(-1) == targets).sum().item()
    torch.testing.assert_close(torch.autograd.grad(loss * 0.3, inputs), torch.autograd.grad(expected * 0.3, inputs))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_dropout(dtype: torch.dtype) -> None:
    """The rate, the scale, the same zeros in the gradient, other noise for another seed."""
    x = torch.full((1000, 600), 3.0, dtype=dtype, requires_grad=True)
    layer = Dropout(0.1)
    torch.manual_seed(1)
    y = layer(x)
    y.sum().backward()
    dropped = (y == 0).double()
    assert dropped.mean().item() == pytest.approx(0.1, abs=3 * (0.09 / x.numel()) ** 0.5)
    for axis in (0, 1):  # no row and no column is special
        spread = dropped.mean(axis).std().item() / (0.09 / x.shape[axis]) ** 0.5
        assert spread == pytest.approx(1, abs=0.15)
    assert y.unique().tolist() == pytest.approx([0, 3 / 0.9], rel=0.01)
    assert x.grad is not None
    assert torch.equal(x.grad == 0, y == 0)
    torch.manual_seed(1)
    assert torch.equal(layer(x), y)
    assert not torch.equal(layer(x), y)
    assert torch.equal(layer.eval()(x), x)


def test_attention_dropout_has_the_gradient_of_its_own_noise() -> None:
    """With noise held, the hand-written gradient is the slope of the function."""
    block = made(AttentionBlock(shape(hidden_dropout=0.3, attention_dropout=0.3)))
    assert isinstance(block, AttentionBlock)
    other = made(FeedForwardBlock(shape(hidden_dropout=0.3)))
    assert isinstance(other, FeedForwardBlock)

    def function(x: Tensor) -> Tensor:
        torch.manual_seed(3)
        where = call(x, masks()["tails"])
        return fast_path(other, x)(fast_path(block, x)(x, where), where)

    x = torch.randn(B, T, H, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    noisy = function(x)
    made(block).eval()
    assert not torch.equal(noisy, function(x))
    block.train()
    assert torch.autograd.gradcheck(function, (x,), fast_mode=True)


def test_keep_bits_fill_the_whole_value() -> None:
    bits = keep_bits(torch.empty(50_000, dtype=torch.bfloat16), 0.5)
    assert set(bits.unique().tolist()) == {0, -1}
    assert bits.dtype == torch.int16
