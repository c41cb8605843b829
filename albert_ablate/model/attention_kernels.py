"""PyTorch's fused attention on a GPU: which of its kernels is right and fastest for a shape is measured, not assumed.

PyTorch chooses by rules of its own, which differ between versions and cards and know nothing of a shape's speed; a
kernel may also refuse a mask, or read it wrongly. Letters: B batch, T tokens, N heads, D head width.
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

#: Largest difference from the plain computation in fp32, of results and gradients, over the largest value there.
TOLERANCE = 2e-2
#: Sequences whose results are compared.
_COMPARED = 8
_WARM_UP, _CALLS, _ROUNDS = 3, 10, 3
#: Clock cycles that the GPU is kept busy for, some 10 ms, while the host queues the calls to be timed.
_AHEAD = 20_000_000

#: A function -> seconds of a call.
Clock = Callable[[Callable[[], None]], float]


@dataclass(frozen=True)
class AttentionKernel:
    """One of PyTorch's."""

    backend: SDPBackend
    enable: Callable[[bool], None]
    repeats: bool  # whether its gradients are the same bits each time, at least with deterministic algorithms


#: Computes whatever the others refuse, and is what they are compared with.
PLAIN = "math"
KERNELS: dict[str, AttentionKernel] = {
    "cudnn": AttentionKernel(SDPBackend.CUDNN_ATTENTION, cuda.enable_cudnn_sdp, repeats=False),
    "flash": AttentionKernel(SDPBackend.FLASH_ATTENTION, cuda.enable_flash_sdp, repeats=True),
    "memory-efficient": AttentionKernel(SDPBackend.EFFICIENT_ATTENTION, cuda.enable_mem_efficient_sdp, repeats=True),
    PLAIN: AttentionKernel(SDPBackend.MATH, cuda.enable_math_sdp, repeats=True),
}


@dataclass(frozen=True)
class AttentionCase:
    """What is measured: attention of one layer of ``shape`` on padded sequences, forward and backward."""

    shape: Shape  # of which heads, widths, pattern and dropout count
    sequences: int  # B
    length: int  # T
    dtype: torch.dtype
    deterministic: bool


@dataclass(frozen=True)
class AttentionTimes:
    """What was measured."""

    milliseconds: dict[str, float] = field(default_factory=dict)  # kernel -> forward and backward
    left_out: dict[str, str] = field(default_factory=dict)  # kernel -> why it is not used

    @property
    def fastest(self) -> str:
        """The kernel to use; the plain one where no kernel passed."""
        return min(self.milliseconds, key=lambda name: self.milliseconds[name], default=PLAIN)


def use(name: str) -> None:
    """Have this process compute attention with one kernel from now on; the plain one takes what it refuses."""
    for other, kernel in KERNELS.items():
        kernel.enable(other in (name, PLAIN))


def measure(case: AttentionCase, device: torch.device, seconds: Clock) -> AttentionTimes:
    """Compare and time every kernel.

    A kernel is left out where it raises, where it differs from the plain computation by more than ``TOLERANCE``, and,
    where a run has to repeat to the bit, where its gradients do not.
    """
    found = AttentionTimes()
    inputs = _Inputs.random(case, device)
    with sdpa_kernel(SDPBackend.MATH):
        wanted = inputs.first(_COMPARED).results(torch.float32)
    for name, kernel in KERNELS.items():
        if case.deterministic and not kernel.repeats:
            found.left_out[name] = "its gradients differ from call to call"
            continue
        try:
            with sdpa_kernel(kernel.backend), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # PyTorch's reasons for refusing, as many as there are kernels
                if (why := _fault(inputs, wanted, case.deterministic)) is None:
                    found.milliseconds[name] = 1000 * seconds(inputs.step)
                else:
                    found.left_out[name] = why
        except RuntimeError as error:
            found.left_out[name] = str(error).strip().partition("\n")[0]
    return found


def _fault(inputs: "_Inputs", wanted: list[Tensor], deterministic: bool) -> str | None:
    """What is wrong with the results of the kernel that is in use; None: nothing."""
    results = inputs.results()
    pairs = [(mine[: len(right)], right) for mine, right in zip(results, wanted, strict=True)]
    worst = float(torch.stack([(mine - right).abs().max() / right.abs().max() for mine, right in pairs]).max())
    if not worst <= TOLERANCE:  # NaN, too
        return f"differs from the plain computation in fp32 by {worst:.1%}"
    if deterministic and not all(map(torch.equal, results, inputs.results())):
        return "its gradients differ from call to call"
    return None


@dataclass(frozen=True)
class _Inputs:
    """Queries, keys, values and gradients of the result, each (B, N, T, D), and which tokens are real."""

    shape: Shape
    tensors: tuple[Tensor, ...]
    mask: Tensor  # (B, T)

    @classmethod
    def random(cls, case: AttentionCase, device: torch.device) -> "_Inputs":
        """Of sequences that are padding in up to half of their positions."""
        shape, (b, t) = case.shape, (case.sequences, case.length)
        draw = torch.Generator(device).manual_seed(0)
        size = (b, t, 4, shape.heads, shape.hidden_size // shape.heads)  # as a projection leaves them in memory
        tensors = torch.randn(size, generator=draw, device=device, dtype=case.dtype).permute(2, 0, 3, 1, 4).unbind(0)
        lengths = torch.randint(t // 2, t + 1, (b, 1), generator=draw, device=device)
        return cls(shape, tensors, torch.arange(t, device=device) < lengths)

    def first(self, sequences: int) -> "_Inputs":
        """Those of the first sequences."""
        return _Inputs(self.shape, tuple(tensor[:sequences] for tensor in self.tensors), self.mask[:sequences])

    def results(self, dtype: torch.dtype | None = None) -> list[Tensor]:
        """fp32: attention without dropout, and the gradients of q, k and v."""
        return [tensor.float() for tensor in self._computed(0.0, dtype)]

    def step(self) -> None:
        """What is timed: with the run's dropout."""
        self._computed(self.shape.attention_dropout, None)

    def _computed(self, drop: float, dtype: torch.dtype | None) -> list[Tensor]:
        q, k, v, upstream = (tensor.detach().to(dtype or tensor.dtype) for tensor in self.tensors)
        operands = [tensor.requires_grad_() for tensor in (q, k, v)]
        out = fused_attention(q, k, v, View(self.shape, 0, self.mask, q[:, 0]), drop)
        return [out.detach(), *torch.autograd.grad(out, operands, upstream)]


def seconds_on_gpu(step: Callable[[], None]) -> float:
    """Seconds of GPU work in a call, the least of some rounds: the host is ahead and its own time does not count."""
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
