"""The sub-layers as they run on a GPU, on CPU tensors: the same function as the CPU path and as the plain modules."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from golden.record import losses as golden_losses
from runhelpers import tiny_config, twenty_steps
from test_cpu import B, H, T, made, masks, shape, values_and_gradients
from test_golden import GOLDEN
from torch import Tensor, nn
from torch.nn import functional as F

from albert_ablate.config.schema import RunConfig
from albert_ablate.model import cpu, gpu
from albert_ablate.model.attention import View
from albert_ablate.model.blocks import AttentionBlock, FeedForwardBlock
from albert_ablate.model.cpu_residual import Settings
from albert_ablate.model.encoder import Encoder
from albert_ablate.model.pretraining import build_model
from albert_ablate.model.rows import Rows
from albert_ablate.model.sub_layer import LayerCall
from albert_ablate.training import lamb

Cell = Callable[..., RunConfig]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Corpus and cache of all cells."""
    return tmp_path_factory.mktemp("block")


@pytest.fixture
def cell(shared: Path, tmp_path: Path) -> Cell:
    return lambda *more: tiny_config(shared, *more, f"paths.runs={tmp_path / 'runs'}")


@pytest.fixture
def as_on_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is computed by hand."""
    monkeypatch.setattr(cpu, "by_hand", lambda x: False)
    monkeypatch.setattr(lamb, "_on_cpu", lambda tensors: False)


# --- a sub-layer by itself --------------------------------------------------------------------------


def every_mask() -> dict[str, Tensor | None]:
    two = masks()
    tails = two["tails"]
    assert tails is not None
    past = torch.ones(T, T, dtype=torch.bool).tril()
    by_head = (torch.arange(T)[:, None] - torch.arange(T)).abs() <= torch.arange(1, 5)[:, None, None]
    return two | {
        "past": (tails[:, None, None, :] & past),  # (B, 1, T, T)
        "by head": by_head[None],  # (1, N, T, T)
        "keys": tails[:, None, None, :],  # (B, 1, 1, T)
    }


@pytest.mark.parametrize("rows", [None, [3, 1, 30, 11, 0, 11], []], ids=str)
@pytest.mark.parametrize("kind", every_mask())
def test_attention_is_the_plain_module(kind: str, rows: list[int] | None) -> None:
    block = made(AttentionBlock(shape()))
    assert isinstance(block, AttentionBlock)
    x = torch.randn(B, T, H, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    chosen = None if rows is None else Rows(torch.tensor(rows, dtype=torch.int64), B, T)
    weights = torch.randn_like(x if rows is None else x[0, :1].expand(len(rows), -1))

    def call(x: Tensor) -> LayerCall:
        return LayerCall(0, x, View(shape(), 0, every_mask()[kind], x), chosen)

    plain = values_and_gradients(lambda x: block(x, call(x)), block, x, weights)
    path = block.on_gpu(x.dtype, compiled=False)
    assert path is not None
    explicit = values_and_gradients(lambda x: path(x, call(x)), block, x, weights)
    torch.testing.assert_close(explicit, plain, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("activation", ["gelu_tanh", "gelu_erf"])
@pytest.mark.parametrize("size", [(B, T, H), (5, H), (0, H)], ids=str)
def test_feed_forward_is_the_plain_module(activation: str, size: tuple[int, ...]) -> None:
    block = made(FeedForwardBlock(shape(activation=activation)))
    assert isinstance(block, FeedForwardBlock)
    x, weights = torch.randn(2, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    call = LayerCall(0, x, View(shape(), 0, None, torch.zeros(B, T, H)))
    plain = values_and_gradients(lambda x: block(x, call), block, x, weights)
    path = block.on_gpu(torch.float64, compiled=False)
    assert path is not None
    explicit = values_and_gradients(lambda x: path(x, call), block, x, weights)
    torch.testing.assert_close(explicit, plain, atol=1e-9, rtol=1e-9)


def test_the_sum_of_residual_and_branch_is_not_rounded_before_its_norm() -> None:
    draw = torch.Generator().manual_seed(0)
    block = made(FeedForwardBlock(shape())).bfloat16()
    assert isinstance(block, FeedForwardBlock)
    assert isinstance(block.norm, nn.LayerNorm)
    block.norm.float()
    x = torch.randn(200, H, generator=draw).bfloat16()
    weights = gpu.feed_forward_weights(block.inner, block.outer, block.norm, torch.bfloat16)
    y = gpu.feed_forward(x, weights, Settings(block.norm.eps, 0.0))
    branch = block.outer(F.gelu(block.inner(x), approximate="tanh"))
    assert torch.equal(y, block.norm(x.float() + branch.float()).bfloat16())
    assert not torch.equal(y, block.norm((x + branch).float()).bfloat16())


# --- an encoder -------------------------------------------------------------------------------------


def encoder_of(**other: Any) -> Encoder:
    encoder = made(Encoder(shape(**other)))
    assert isinstance(encoder, Encoder)
    return encoder


def ids() -> tuple[Tensor, Tensor]:
    drawn = torch.randint(5, 40, (B, T), generator=torch.Generator().manual_seed(2))
    return drawn, (torch.arange(T) > 5).long().expand(B, T)


@pytest.mark.usefixtures("as_on_gpu")
@pytest.mark.parametrize("embedding", [16, H])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_the_stream_has_one_format(embedding: int, precision: torch.dtype) -> None:
    model = build_model(shape(embedding_size=embedding), 0)
    with torch.autocast("cpu", dtype=precision, enabled=precision == torch.bfloat16):
        states = model.encoder.hidden_states(*ids(), masks()["tails"])
        assert model.encoder.embedding(*ids()).dtype == precision
        assert model.mlm_head.transform(states[-1].flatten(0, 1)).dtype == precision
    assert {state.dtype for state in states} == {precision}


@pytest.mark.usefixtures("as_on_gpu")
@pytest.mark.parametrize("rates", [(0.2, 0.0), (0.0, 0.2), (0.1, 0.1)])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_dropout(rates: tuple[float, float], precision: torch.dtype) -> None:
    """Other noise for another seed, the same for the same, none in evaluation; recomputed layers draw it again."""
    encoder = build_model(shape(hidden_dropout=rates[0], attention_dropout=rates[1]), 0).encoder
    weights = torch.randn(B, T, H, generator=torch.Generator().manual_seed(3))
    mask, rows = masks()["tails"], torch.tensor([3, 1, 30])

    def states(seed: int) -> Tensor:
        torch.manual_seed(seed)
        with torch.autocast("cpu", dtype=precision, enabled=precision == torch.bfloat16):
            return encoder(*ids(), mask)

    def gradients(seed: int) -> list[Tensor]:
        return list(torch.autograd.grad((states(seed) * weights).sum(), list(encoder.parameters())))

    found = states(1)
    assert found.shape == (B, T, H)
    assert found.isfinite().all()
    assert torch.equal(states(1), found)
    assert not torch.equal(states(2), found)
    torch.manual_seed(1)
    with torch.autocast("cpu", dtype=precision, enabled=precision == torch.bfloat16):
        assert torch.equal(encoder(*ids(), mask, rows=rows), found.flatten(0, 1)[rows])
    kept = gradients(1)
    encoder.recompute = True
    torch.testing.assert_close(gradients(1), kept)
    assert all(gradient.isfinite().all() for gradient in kept)
    encoder.eval()
    assert torch.equal(states(1), states(2))


@pytest.mark.usefixtures("as_on_gpu")
@pytest.mark.parametrize("rows", [None, [3, 1, 30, 11]], ids=str)
def test_recomputed_layers_have_the_same_gradients(rows: list[int] | None) -> None:
    encoder = encoder_of()
    index = None if rows is None else torch.tensor(rows)
    found = []
    for encoder.recompute in (False, True):
        loss = encoder(*ids(), masks()["holes"], rows=index).square().sum()
        found.append(torch.autograd.grad(loss, list(encoder.parameters())))
    torch.testing.assert_close(*found, atol=1e-12, rtol=1e-12)


# --- training ---------------------------------------------------------------------------------------


def trained(config: RunConfig, precision: str) -> tuple[list[float], list[Tensor]]:
    """Losses of 20 steps, and the weights after them."""
    means, weights = twenty_steps(config, precision)
    return [sum(step.values()) for step in means], weights


@pytest.mark.parametrize("objective", ["sop", "nsp", "none"])
@pytest.mark.parametrize("share", ["all", "none"])
@pytest.mark.parametrize("precision", ["fp64", "bf16"])
@pytest.mark.parametrize("recompute", [False, True])
def test_twenty_steps_are_those_of_the_cpu_path(
    cell: Cell, objective: str, share: str, precision: str, recompute: bool, request: pytest.FixtureRequest
) -> None:
    config = cell(
        f"objective={objective}", f"share={share}", "budget.steps=40", "batch.micro_size=3",
        f"runtime.activation_checkpointing={str(recompute).lower()}",
    )  # fmt: skip
    by_hand, weights = trained(config, precision)
    request.getfixturevalue("as_on_gpu")
    losses, gpu_weights = trained(config, precision)
    if precision == "fp64":
        torch.testing.assert_close(gpu_weights, weights, rtol=0, atol=1e-9)
    assert losses == pytest.approx(by_hand, rel=1e-6 if precision == "fp64" else 1e-2)


@pytest.mark.usefixtures("as_on_gpu")
@pytest.mark.parametrize("cell", ["e32-all-sop", "e32-none-none", "full-attention-nsp"])
def test_golden_losses(cell: str, shared: Path) -> None:
    recorded = pd.read_csv(GOLDEN / "fp32.csv", index_col="step")[cell].tolist()
    assert golden_losses(shared / "golden", cell, "fp32") == pytest.approx(recorded, abs=1e-4)


@pytest.mark.usefixtures("as_on_gpu")
def test_weights_are_cast_once_for_all_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[Tensor, ...]] = []
    real = gpu.feed_forward_weights

    def counted(*args: object) -> gpu.FeedForwardWeights:
        made.append(real(*args))  # type: ignore[arg-type]
        return made[-1]  # type: ignore[return-value]

    monkeypatch.setattr(gpu, "feed_forward_weights", counted)
    encoder_of(layers=6)(*ids())
    assert len(made) == 1
