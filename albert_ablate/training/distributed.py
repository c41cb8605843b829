"""Several processes on one run: ``torchrun --nproc-per-node=N run.py ...``.

Every process holds the whole model and trains on its share of each batch. Sums over the processes give the loss and
gradient of a single process. The gradient is summed once for each step, after all micro-batches, as one flat tensor, so
that shared blocks and recomputed activations need no special case.
"""

import importlib
import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from albert_ablate.errors import ConfigError, PeerLostError

#: How long processes wait while the first process evaluates or prepares data.
_PATIENCE = timedelta(hours=6)

Result = TypeVar("Result")


@dataclass(frozen=True)
class World:
    """The number of processes of this run, and the rank of this process."""

    rank: int
    size: int

    @property
    def main(self) -> bool:
        """Whether this is the first process, which writes files."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """The sum of each value over the processes (float64), computed on the hosts without waiting for a GPU."""
        if self.size == 1:
            return list(values)
        total = self.sum_tensor(torch.tensor(values, dtype=torch.float64))
        return [float(value) for value in total.tolist()]

    def sum_tensor(self, tensor: Tensor) -> Tensor:
        """``tensor``, replaced in place by its sum over the processes."""
        if self.size > 1:
            self._communicate(lambda: distributed.all_reduce(tensor))
        return tensor

    def sum_gradients(self, model: nn.Module) -> None:
        """Replace every gradient by its sum over the processes. All processes must have the same set of gradients."""
        if self.size == 1:
            return
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        self.sum_tensor(flat)
        parts = torch.split(flat, [gradient.numel() for gradient in gradients])
        torch._foreach_copy_(gradients, [p.view_as(g) for p, g in zip(parts, gradients, strict=True)])

    def from_main(self, value: Result) -> Result:
        """The value of the first process."""
        if self.size == 1:
            return value
        box: list[Any] = [value]
        self._communicate(lambda: distributed.broadcast_object_list(box, src=0))
        received: Result = box[0]
        return received

    def gather(self, value: Result) -> list[Result]:
        """The values of all processes, by rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        self._communicate(lambda: distributed.all_gather_object(values, value))
        return values

    def main_first(self, work: Callable[[], Result]) -> Result:
        """The result of ``work``. The first process runs it before the others, which then use what it cached."""
        if self.main:
            result = work()
        self.from_main(None)
        return result if self.main else work()

    @contextmanager
    def noticing(self) -> Iterator[None]:
        """Context for code that waits for the device. Raises PeerLostError if another process is gone.

        A GPU sums asynchronously, so the error of a failed sum appears when the host waits next.
        """
        try:
            yield
        except RuntimeError as error:
            if self.size == 1 or not (isinstance(error, distributed.DistError) or "NCCL" in str(error)):
                raise
            raise _lost(error) from error

    def _communicate(self, call: Callable[[], Any]) -> None:
        try:
            call()
        except RuntimeError as error:
            raise _lost(error) from error


def _lost(error: RuntimeError) -> PeerLostError:
    return PeerLostError(
        f"Another process of this run is gone ({str(error).splitlines()[0]}). The same command continues from the last "
        "checkpoint."
    )


#: A single process.
ALONE = World(0, 1)


def world_size() -> int:
    """Number of processes that torchrun has started for this run; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def require_one_process(activity: str) -> None:
    """Raise ConfigError if torchrun has started several processes; ``activity`` begins the message."""
    if world_size() > 1:
        raise ConfigError(
            f"{activity} runs in one process, but torchrun has started {world_size()}. Start it with python."
        )


@contextmanager
def joined(kind: str) -> Iterator[World]:
    """The processes that torchrun has started, connected within this context.

    NCCL sums tensors on GPUs; gloo does everything else, such as agreeing on each step.
    """
    if world_size() == 1:
        yield ALONE
        return
    # The functions of this module have the current group as a default argument. Imported after the group exists, they
    # would keep it and gloo's threads alive until the interpreter ends. A thread that frees a Python tensor at that
    # time aborts the process.
    importlib.import_module("torch.distributed.nn")
    if kind == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield World(int(os.environ["RANK"]), world_size())
    except BaseException as error:
        _forget_locals(error)
        raise
    finally:
        distributed.destroy_process_group()


def _forget_locals(error: BaseException | None) -> None:
    """Clear the frames of ``error`` and its causes. A frame of a collective would keep the group alive."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
