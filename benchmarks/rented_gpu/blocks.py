"""Attention in blocks on a GPU: FlexAttention against gathered keys, values and gradients, then the time of both."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from albert_ablate.model.attention_kernels import seconds_on_gpu
from albert_ablate.model.block_attention import block_attention
from albert_ablate.model.block_pattern import FLEX, GATHER, BlockPattern
from albert_ablate.model.block_plan import Place
from albert_ablate.model.flex_blocks import BlockKernel, flex_block_attention
from benchmarks.measure import median_seconds
from benchmarks.rented_gpu.sizes import Size

#: The paper's blocks (Zaheer et al., 2020, Table 8), and the heads of its base model.
PATTERN, HEADS, WIDTH = BlockPattern(64, window=3, global_blocks=2, random=3), 12, 64
#: Largest accepted difference in fp32, relative to the largest value.
TOLERANCE = 1e-4
#: Tokens of a sequence; one whole and one that fills no last block are compared.
_TIMED, _COMPARED, _REHEARSED = (1024, 2048, 4096), (1024, 1000), (832,)
_TOKENS = 16_384  # of a batch


def results(kernel: BlockKernel, length: int, padded: bool, device: str) -> list[Tensor]:
    """The context of a kernel in fp32, and the gradients of q, k and v, each (2, N, L, D)."""
    draw = torch.Generator().manual_seed(length)
    q, k, v, up = (torch.randn(2, HEADS, length, WIDTH, generator=draw).to(device) for _ in range(4))
    q, k, v = (z.requires_grad_() for z in (q, k, v))
    keys = torch.zeros(2, length, device=device)
    keys[1, length // 2 :] = -10000.0
    place = Place(0, HEADS, length, max(length, 4096), training=True)
    context = kernel(q, k, v, PATTERN, place, keys if padded else None, 0.0)
    return [context.detach(), *torch.autograd.grad(context, (q, k, v), up)]


def difference(length: int, padded: bool, device: str = "cuda") -> float:
    """The largest difference between both kernels, relative to the largest value; products in full fp32."""
    whole = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        found, expected = (
            results(kernel, length, padded, device) for kernel in (flex_block_attention, block_attention)
        )
    finally:
        torch.backends.cuda.matmul.allow_tf32 = whole
    pairs = zip(found, expected, strict=True)
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)


def kernels(size: Size) -> dict[str, Any]:
    """The differences, and tokens -> kernel -> milliseconds of forward and backward in bf16, full attention among them.

    FlexAttention is left out on a CPU, where it has no gradients.
    """
    on_gpu = size.device == "cuda"
    clock = seconds_on_gpu if on_gpu else partial(median_seconds, seconds=size.seconds / 20, device="cpu")
    compared = [(length, padded) for length in _COMPARED for padded in (False, True)] if on_gpu else []
    differences = {f"{length}{' padded' if padded else ''}": difference(length, padded) for length, padded in compared}
    times: dict[str, dict[str, float]] = {}
    for length in _TIMED if on_gpu else _REHEARSED:
        of_length = {"full": _full, GATHER: block_attention} | ({FLEX: flex_block_attention} if on_gpu else {})
        times[str(length)] = {
            name: 1000 * clock(_step(kernel, length, *((_TOKENS // length, HEADS) if on_gpu else (1, 1)), size.device))
            for name, kernel in of_length.items()
        }
    passed = all(value <= TOLERANCE for value in differences.values())
    return {"passed": passed, "differences": differences, "tolerance": TOLERANCE, "milliseconds": times}


def _full(
    q: Tensor, k: Tensor, v: Tensor, pattern: BlockPattern, place: Place, keys: Tensor | None, drop: float
) -> Tensor:
    """Full attention through PyTorch's fused kernel, as what blocks are compared with."""
    return F.scaled_dot_product_attention(q, k, v)


def _step(kernel: BlockKernel, length: int, sequences: int, heads: int, device: str) -> Callable[[], None]:
    """Forward and backward in bf16."""
    draw = torch.Generator(device).manual_seed(0)
    size = (4, sequences, heads, length, WIDTH)
    q, k, v, up = torch.randn(size, generator=draw, device=device, dtype=torch.bfloat16).unbind(0)
    q, k, v = (z.detach().requires_grad_() for z in (q, k, v))
    place = Place(0, heads, length, max(length, 4096), training=True)

    def step() -> None:
        torch.autograd.grad(kernel(q, k, v, PATTERN, place, None, 0.0), (q, k, v), up)

    return step
