"""Several processes on one run: ``torchrun --nproc-per-node=N run.py ...``.

Every process holds the whole model and trains on its share of each batch; sums over the processes
give the same loss and gradient as one process has. The gradient is summed once a step, when all
micro-batches are done, in one piece: shared blocks and recomputed activations need no special case.
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

#: One process evaluates or prepares data while the others wait.
_PATIENCE = timedelta(hours=6)

Result = TypeVar("Result")


@dataclass(frozen=True)
class World:
    """The processes of this run, and which one this is."""

    rank: int
    size: int

    @property
    def main(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """The sum of each value over the processes (float64). Hosts tell each other; no GPU is waited for."""
        if self.size == 1:
            return list(values)
        total = self.sum_tensor(torch.tensor(values, dtype=torch.float64))
        return [float(value) for value in total.tolist()]

    def sum_tensor(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor over the processes."""
        if self.size > 1:
            self._talk(lambda: distributed.all_reduce(tensor))
        return tensor

    def sum_gradients(self, model: nn.Module) -> None:
        """Make every gradient the sum over the processes. A parameter has one in all of them or in none."""
        if self.size == 1:
            return
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        self.sum_tensor(flat)
        parts = torch.split(flat, [gradient.numel() for gradient in gradients])
        torch._foreach_copy_(gradients, [p.view_as(g) for p, g in zip(parts, gradients, strict=True)])

    def from_main(self, value: Result) -> Result:
        """The first process's value."""
        if self.size == 1:
            return value
        box: list[Any] = [value]
        self._talk(lambda: distributed.broadcast_object_list(box, src=0))
        found: Result = box[0]
        return found

    def gather(self, value: Result) -> list[Result]:
        """The values of all processes, by rank."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        self._talk(lambda: distributed.all_gather_object(found, value))
        return found

    def main_first(self, work: Callable[[], Result]) -> Result:
        """What ``work`` gives, after the first process has done it: the others find what it has cached."""
        if self.main:
            result = work()
        self.from_main(None)
        return result if self.main else work()

    @contextmanager
    def noticing(self) -> Iterator[None]:
        """The body waits for the device. Raises PeerLostError where that tells of a process that is gone.

        A GPU sums on its own time, so that the error of a sum comes up wherever the host waits next.
        """
        try:
            yield
        except RuntimeError as error:
            if self.size == 1 or not (isinstance(error, distributed.DistError) or "NCCL" in str(error)):
                raise
            raise _lost(error) from error

    def _talk(self, call: Callable[[], Any]) -> None:
        try:
            call()
        except RuntimeError as error:
            raise _lost(error) from error


def _lost(error: RuntimeError) -> PeerLostError:
    return PeerLostError(
        f"Another process of this run is gone ({str(error).splitlines()[0]}). The same command continues from the last "
        "checkpoint."
    )


#: One process alone.
ALONE = World(0, 1)


def world_size() -> int:
    """How many processes torchrun has started for this run; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def require_one_process(what: str) -> None:
    """Raise ConfigError under torchrun."""
    if world_size() > 1:
        raise ConfigError(f"{what} runs in one process, but torchrun has started {world_size()}. Start it with python.")


@contextmanager
def joined(kind: str) -> Iterator[World]:
    """The processes that torchrun has started, connected for the length of the body.

    Tensors of GPUs are summed by NCCL, everything else, such as what is agreed for each step, by gloo.
    """
    if world_size() == 1:
        yield ALONE
        return
    # Its functions have the group as their default argument: loaded later, they would keep it, and with it gloo's
    # threads, alive until the interpreter ends. A thread that then frees a tensor of Python's aborts the process.
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
    """Empty the frames that have raised: one inside a collective holds the group for as long as the error lives."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
