"""The masked-LM loss on a GPU, in pieces, is that of ``F.cross_entropy``."""

from typing import Any

import pytest
import torch
from test_cpu import made, shape
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from albert_ablate.model import cpu, gpu_loss
from albert_ablate.model.gpu_loss import IGNORED, masked_lm_loss
from albert_ablate.model.heads import MaskedLMHead

M, V, E = 23, 40, 16


def tensors(dtype: torch.dtype, rows: int = M) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Inputs, table, bias, and targets every fifth of which is ignored."""
    draw = torch.Generator().manual_seed(0)
    x, table, bias = (torch.randn(size, generator=draw).to(dtype) for size in ((rows, E), (V, E), (V,)))
    targets = torch.randint(0, V, (rows,), generator=draw)
    targets[::5] = IGNORED
    return x.requires_grad_(), table.requires_grad_(), bias.requires_grad_(), targets


@pytest.fixture(params=[M * V, 7 * V, V, 1])
def pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All rows at once, a few, one, and a vocabulary that is larger than a piece."""
    monkeypatch.setattr(gpu_loss, "_PIECE", request.param)


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
@pytest.mark.parametrize("rows", [M, 1, 0])
def test_loss_hits_and_gradients(dtype: torch.dtype, tolerance: float, rows: int) -> None:
    x, table, bias, targets = tensors(dtype, rows)
    logits = F.linear(x, table, bias)
    expected = F.cross_entropy(logits, targets, reduction="sum", ignore_index=IGNORED)
    loss, hits = masked_lm_loss(x, table, bias, targets)
    torch.testing.assert_close(loss, expected, atol=tolerance, rtol=tolerance)
    assert hits.item() == (logits.argmax(-1) == targets).sum().item()
    inputs = (x, table, bias)
    found, wanted = (torch.autograd.grad(0.3 * value, inputs) for value in (loss, expected))
    torch.testing.assert_close(found, wanted, atol=tolerance, rtol=tolerance)


def test_every_row_ignored_is_no_loss_and_no_gradient() -> None:
    x, table, bias, targets = tensors(torch.float64)
    loss, hits = masked_lm_loss(x, table, bias, torch.full_like(targets, IGNORED))
    assert loss.item() == hits.item() == 0
    assert all(not gradient.any() for gradient in torch.autograd.grad(loss, (x, table, bias)))


def test_hits_count_right_answers() -> None:
    x, table, bias, _ = tensors(torch.float64)
    answers = F.linear(x, table, bias).argmax(-1)
    answers[::5] = IGNORED
    assert masked_lm_loss(x, table, bias, answers)[1].item() == int((answers != IGNORED).sum())


@pytest.mark.usefixtures("pieces")
def test_bf16_products_with_sums_in_fp32() -> None:
    x, table, bias, targets = tensors(torch.float32)
    low = x.detach().bfloat16().requires_grad_()
    loss, _ = masked_lm_loss(low, table, bias, targets)
    exact, _ = masked_lm_loss(low.detach().double().requires_grad_(), table.double(), bias.double(), targets)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=5e-3)
    found = torch.autograd.grad(loss, (low, table, bias))
    wide = [z.detach().double().requires_grad_() for z in (low, table, bias)]
    wanted = torch.autograd.grad(masked_lm_loss(wide[0], wide[1], wide[2], targets)[0], wide)
    assert [gradient.dtype for gradient in found] == [torch.bfloat16, torch.float32, torch.float32]
    for mine, each in zip(found, wanted, strict=True):
        assert (mine.double() - each).norm() <= 1e-2 * each.norm()


def test_the_scale_of_the_gradient_is_not_rounded() -> None:
    """0.3 is not a number of bf16; the product of a gradient with it is rounded once."""
    x, table, bias, targets = tensors(torch.bfloat16)
    whole, scaled = (
        torch.autograd.grad(masked_lm_loss(x, table.float(), bias.float(), targets)[0] * scale, x)[0]
        for scale in (1.0, 0.3)
    )
    assert torch.equal(scaled, (whole.float() * torch.tensor(0.3)).bfloat16())
    assert not torch.equal(scaled, (whole.float() * torch.tensor(0.3).bfloat16().float()).bfloat16())


def test_a_certain_answer_keeps_the_digits_of_its_gradient() -> None:
    """p - 1 is formed before it is rounded: bf16 has no number between 1 - 2**-8 and 1."""
    x = torch.ones(1, 1, dtype=torch.bfloat16, requires_grad=True)
    table = torch.tensor([[8.0], [0.0]], requires_grad=True)
    loss, _ = masked_lm_loss(x, table, torch.zeros(2), torch.tensor([0]))
    (gradient,) = torch.autograd.grad(loss, table)
    exact = torch.sigmoid(torch.tensor(-8.0)).item()
    assert gradient.flatten().tolist() == pytest.approx([-exact, exact], rel=5e-3)


class _Largest(TorchDispatchMode):
    """The most values of a tensor that an operation gave."""

    values = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        self.values = max([self.values, *sizes])
        return result


def test_only_the_logits_of_a_piece_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = 50
    monkeypatch.setattr(gpu_loss, "_PIECE", rows * V)
    x, table, bias, targets = tensors(torch.float32, 40 * rows)
    with _Largest() as largest:
        masked_lm_loss(x, table, bias, targets)[0].backward()
    assert largest.values == len(x) * E  # the inputs' gradient; M x V would be V / E times as many


def test_the_largest_batch_of_base_keeps_its_logits_small() -> None:
    """256 sequences of 128 tokens with a vocabulary of 30,000: about 1,000 rows at a time."""
    sizes = [part.stop - part.start for part in gpu_loss._pieces(256 * 19, 30_000)]
    assert len(set(sizes)) == 1
    assert 900 < sizes[0] < 1200
    assert sum(len(range(256 * 19)[part]) for part in gpu_loss._pieces(256 * 19, 30_000)) == 256 * 19


def test_the_head_uses_it_off_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    head = made(MaskedLMHead(shape()))
    assert isinstance(head, MaskedLMHead)
    draw = torch.Generator().manual_seed(1)
    table, hidden = (torch.randn(n, width, generator=draw).double() for n, width in ((V, E), (M, 32)))
    targets = torch.randint(0, V, (M,), generator=draw)
    by_hand = head.loss(hidden, table, targets)
    monkeypatch.setattr(cpu, "by_hand", lambda x: False)
    torch.testing.assert_close(head.loss(hidden, table, targets), by_hand, atol=1e-9, rtol=1e-9)
    targets[3:] = IGNORED
    torch.testing.assert_close(
        head.loss(hidden, table, targets), head.loss(hidden[:3], table, targets[:3]), atol=1e-9, rtol=1e-9
    )
