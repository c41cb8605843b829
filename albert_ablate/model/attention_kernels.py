"""The fastest correct kernel of PyTorch's fused attention on a GPU, measured for a shape.

PyTorch's own choice differs between versions and cards and ignores how fast a shape runs. A kernel may also refuse a
mask or apply it wrongly. Letters: B batch, T tokens, N heads, D head width.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.backends import cuda
from torch.nn.attention import SDPBackend, sdpa_kernel

from albert_ablate.model.attention import View, fused_attention
from albert_ablate.model.shape import Shape

#: Largest error allowed in results and gradients, relative to the largest value of the plain computation in fp32.
TOLERANCE = 2e-2
#: Number of sequences whose results are compared.
_COMPARED = 8
_WARM_UP, _CALLS, _ROUNDS = 3, 10, 3
#: Clock cycles (about 10 ms) that the GPU is kept busy while the host queues the calls to be timed.
_AHEAD = 20_000_000

#: (function) -> seconds for one call of it.
Clock = Callable[[Callable[[], None]], float]


@dataclass(frozen=True)
class AttentionKernel:
    """One of PyTorch's attention kernels."""

    backend: SDPBackend
    enable: Callable[[bool], None]
    repeats: bool  # whether its gradients are bitwise reproducible with deterministic algorithms


#: The reference: it accepts every input, and the other kernels are compared with it.
PLAIN = "math"
KERNELS: dict[str, AttentionKernel] = {
    "cudnn": AttentionKernel(SDPBackend.CUDNN_ATTENTION, cuda.enable_cudnn_sdp, repeats=False),
    "flash": AttentionKernel(SDPBackend.FLASH_ATTENTION, cuda.enable_flash_sdp, repeats=True),
    "memory-efficient": AttentionKernel(SDPBackend.EFFICIENT_ATTENTION, cuda.enable_mem_efficient_sdp, repeats=True),
    PLAIN: AttentionKernel(SDPBackend.MATH, cuda.enable_math_sdp, repeats=True),
}


@dataclass(frozen=True)
class AttentionCase:
    """A case to measure: attention of one layer of ``shape`` on padded sequences, forward and backward."""

    shape: Shape  # only its heads, widths, pattern and dropout matter
    sequences: int  # B
    length: int  # T
    dtype: torch.dtype
    deterministic: bool


@dataclass(frozen=True)
class AttentionTimes:
    """The result of a measurement."""

    milliseconds: dict[str, float] = field(default_factory=dict)  # kernel -> time of forward and backward
    left_out: dict[str, str] = field(default_factory=dict)  # kernel -> why it is not used

    @property
    def fastest(self) -> str:
        """The kernel to use; ``PLAIN`` if no kernel passed."""
        return min(self.milliseconds, key=lambda name: self.milliseconds[name], default=PLAIN)


def use(name: str) -> None:
    """Use the kernel ``name`` in this process from now on; ``PLAIN`` computes what it refuses."""
    for kernel_name, kernel in KERNELS.items():
        kernel.enable(kernel_name in (name, PLAIN))


def measure(case: AttentionCase, device: torch.device, seconds: Clock) -> AttentionTimes:
    """Compare and time every kernel.

    A kernel is left out if it raises or differs from the plain computation by more than ``TOLERANCE``. In a
    deterministic run it is also left out if its gradients are not bitwise reproducible.
    """
    times = AttentionTimes()
    inputs = _Inputs.random(case, device)
    with sdpa_kernel(SDPBackend.MATH):
        reference = inputs.first(_COMPARED).results(torch.float32)
    for name, kernel in KERNELS.items():
        if case.deterministic and not kernel.repeats:
            times.left_out[name] = "its gradients differ from call to call"
            continue
        try:
            with sdpa_kernel(kernel.backend), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # PyTorch warns for each kernel that refuses
                if (why := _fault(inputs, reference, case.deterministic)) is None:
                    times.milliseconds[name] = 1000 * seconds(inputs.step)
                else:
                    times.left_out[name] = why
        except RuntimeError as error:
            times.left_out[name] = str(error).strip().partition("\n")[0]
    return times


def _fault(inputs: "_Inputs", reference: list[Tensor], deterministic: bool) -> str | None:
    """What is wrong with the results of the active kernel, or None."""
    results = inputs.results()
    pairs = [(result[: len(right)], right) for result, right in zip(results, reference, strict=True)]
    worst = float(torch.stack([(result - right).abs().max() / right.abs().max() for result, right in pairs]).max())
    if not worst <= TOLERANCE:  # also true for NaN
        return f"differs from the plain computation in fp32 by {worst:.1%}"
    if deterministic and not all(map(torch.equal, results, inputs.results())):
        return "its gradients differ from call to call"
    return None


@dataclass(frozen=True)
class _Inputs:
    """Queries, keys, values and upstream gradients, each (B, N, T, D), and the mask of real tokens."""

    shape: Shape
    tensors: tuple[Tensor, ...]
    mask: Tensor  # (B, T)

    @classmethod
    def random(cls, case: AttentionCase, device: torch.device) -> "_Inputs":
        """Random inputs. Up to half of a sequence is padding."""
        shape, (b, t) = case.shape, (case.sequences, case.length)
        draw = torch.Generator(device).manual_seed(0)
        size = (b, t, 4, shape.heads, shape.hidden_size // shape.heads)  # the memory layout of a projection's result
        tensors = torch.randn(size, generator=draw, device=device, dtype=case.dtype).permute(2, 0, 3, 1, 4).unbind(0)
        lengths = torch.randint(t // 2, t + 1, (b, 1), generator=draw, device=device)
        return cls(shape, tensors, torch.arange(t, device=device) < lengths)

    def first(self, sequences: int) -> "_Inputs":
        """The inputs of the first ``sequences`` sequences."""
        return _Inputs(self.shape, tuple(tensor[:sequences] for tensor in self.tensors), self.mask[:sequences])

    def results(self, dtype: torch.dtype | None = None) -> list[Tensor]:
        """Attention without dropout and the gradients of q, k and v, each (B, N, T, D) fp32."""
        return [tensor.float() for tensor in self._computed(0.0, dtype)]

    def step(self) -> None:
        """Forward and backward with the run's dropout, for timing."""
        self._computed(self.shape.attention_dropout, None)

    def _computed(self, drop: float, dtype: torch.dtype | None) -> list[Tensor]:
        q, k, v, upstream = (tensor.detach().to(dtype or tensor.dtype) for tensor in self.tensors)
        operands = [tensor.requires_grad_() for tensor in (q, k, v)]
        out = fused_attention(q, k, v, View(self.shape, 0, self.mask, q[:, 0]), drop)
        return [out.detach(), *torch.autograd.grad(out, operands, upstream)]


def seconds_on_gpu(step: Callable[[], None]) -> float:
    """Seconds of GPU work for one call, the minimum over rounds. Calls are queued ahead: host time does not count."""
    for _ in range(_WARM_UP):
        step()
    torch.cuda.synchronize()
    began, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    times = []
    for _ in range(_ROUNDS):
        torch.cuda._sleep(_AHEAD)  # type: ignore[no-untyped-call]
        began.record()
        for _ in range(_CALLS):
            step()
        ended.record()
        torch.cuda.synchronize()
        times.append(began.elapsed_time(ended) / 1000 / _CALLS)
    return min(times)
