"""Sub-layers and loss through ``torch.compile``: whole, once for all layers, arms and seeds, and never without end."""

from collections.abc import Iterator
from itertools import product

import pytest
import torch
from test_cpu import B, H, T, masks, shape
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from albert_ablate.axes import Share
from albert_ablate.model import compiling, cpu, gpu, gpu_loss
from albert_ablate.model.compiling import MOST_GRAPHS, Compiled
from albert_ablate.model.gpu_loss import IGNORED
from albert_ablate.model.pretraining import PretrainingModel, build_model
from albert_ablate.training.optimizers import gradients_of

#: Attention and feed-forward on whole sequences and at the rows of the last layer, and the loss.
GRAPHS = 5


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[CompileCounterWithBackend]:
    """Compilers that have compiled nothing, as on a GPU but for the backend; counts their graphs."""
    counter = CompileCounterWithBackend("aot_eager")
    torch._dynamo.reset()
    monkeypatch.setattr(compiling, "BACKEND", counter)
    monkeypatch.setattr(cpu, "by_hand", lambda x: False)
    monkeypatch.setattr(gpu, "compiled_attention", Compiled(gpu.attention))
    monkeypatch.setattr(gpu, "compiled_feed_forward", Compiled(gpu.feed_forward))
    monkeypatch.setattr(gpu_loss, "compiled_piece", Compiled(gpu_loss.piece))
    yield counter
    torch._dynamo.reset()


def losses(model: PretrainingModel, precision: str, *, sentences: bool = True, length: int = T) -> Tensor:
    """The loss of a batch with two padded positions."""
    draw = torch.Generator().manual_seed(2)
    ids, mask = torch.randint(5, 40, (B, T), generator=draw)[:, :length], masks()["tails"]
    assert mask is not None
    positions, targets = torch.tensor([1, 3, 12, 24, 0, 0]), torch.tensor([6, 9, 30, 11, IGNORED, IGNORED])
    labels = torch.tensor([0, 1, 0]) if sentences else None
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
        out = model(ids, torch.zeros_like(ids), mask[:, :length], positions, targets, labels)
    return out.mlm_loss_sum if out.sentence_loss_sum is None else out.mlm_loss_sum + out.sentence_loss_sum


def gradients(model: PretrainingModel, precision: str = "fp32", **other: bool) -> list[Tensor]:
    model.zero_grad()
    losses(model, precision, **other).backward()
    return [gradient.clone() for gradient in gradients_of(model)]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_one_compile_serves_every_arm_and_seed_of_a_size(graphs: CompileCounterWithBackend, precision: str) -> None:
    widths = set()  # the width E of the loss's product is not that of the layers
    for share, embedding, seed in product(Share, (16, H), (0, 1)):
        model = build_model(shape(share=share, embedding_size=embedding, layers=4), seed)
        eager = gradients(model, precision)
        model.encoder.compiled = True
        tolerance = 1e-5 if precision == "fp32" else 2e-2
        torch.testing.assert_close(gradients(model, precision), eager, atol=tolerance, rtol=tolerance)
        widths.add(embedding)
        assert graphs.frame_count == GRAPHS - 1 + len(widths)


def test_another_objective_has_another_number_of_rows(graphs: CompileCounterWithBackend) -> None:
    """Attention and feed-forward of the last layer are compiled again, where the first position is not wanted."""
    for _ in range(2):
        for sentences, count in ((True, GRAPHS), (False, GRAPHS + 2)):
            model = build_model(shape(), 0)
            model.encoder.compiled = True
            gradients(model, sentences=sentences)
            assert graphs.frame_count >= count
    assert graphs.frame_count == GRAPHS + 2


def test_evaluation_compiles_nothing(graphs: CompileCounterWithBackend) -> None:
    model = build_model(shape(), 0)
    model.encoder.compiled = True
    for length in range(9, T + 1):
        with torch.no_grad():
            losses(model, "fp32", length=length)
        with torch.inference_mode():
            losses(model.eval(), "bf16", length=length)
        losses(model, "fp32", length=length).backward()
        model.train()
    assert graphs.frame_count == 0


@pytest.mark.parametrize("rates", [(0.0, 0.0), (0.2, 0.2)])
def test_layers_that_are_compiled_are_recomputed(graphs: CompileCounterWithBackend, rates: tuple[float, float]) -> None:
    model = build_model(shape(hidden_dropout=rates[0], attention_dropout=rates[1]), 0)
    model.encoder.compiled = True
    found = []
    for model.encoder.recompute in (False, True):
        torch.manual_seed(1)
        found.append(gradients(model))
    torch.testing.assert_close(*found)
    assert graphs.frame_count <= GRAPHS


def test_shapes_without_end_are_compiled_up_to_a_bound(graphs: CompileCounterWithBackend) -> None:
    double = Compiled(lambda x, factor: x * factor)
    for size in range(1, MOST_GRAPHS + 1):
        assert torch.equal(double(torch.ones(size), 2), torch.full((size,), 2.0))
    assert graphs.frame_count == MOST_GRAPHS
    with pytest.warns(UserWarning, match="further shapes run uncompiled"):
        assert torch.equal(double(torch.ones(50), 2), torch.full((50,), 2.0))
    double(torch.ones(3), 2)
    assert graphs.frame_count == MOST_GRAPHS
