"""A training step captured once as a CUDA graph and replayed: one call of the host instead of hundreds of launches.

The graph reads its inputs from fixed buffers: the micro-batches, whose shapes never change, and the learning rate and
counts of the step. Dropout noise still differs between steps, because a replay uses the current seed of the random
generator (PyTorch, "CUDA semantics", section "CUDA Graphs").
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

from albert_ablate.methods.batch import StepBatch
from albert_ablate.training.sums import Totals

#: Steps on a side stream before the capture: libraries choose kernels, and the optimizer creates its state.
WARM_UP = 3
#: Number of replays that are compared with an eager forward pass, and the largest difference allowed: relative to the
#: sum, or in nats for each counted item.
CHECKED, TOLERANCE = 3, 2e-2


class Graphs(Protocol):
    """The CUDA calls that a capture needs."""

    def aside(self) -> AbstractContextManager[None]:
        """Context in which work runs on a side stream, after all earlier and before all later work."""

    def capture(self, work: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """Capture ``work`` without running it. Returns a function that runs it, with its result in fixed memory."""


class CudaGraphs:
    """``Graphs`` of PyTorch."""

    @contextmanager
    def aside(self) -> Iterator[None]:
        """See ``Graphs``."""
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            yield
        torch.cuda.current_stream().wait_stream(stream)

    def capture(self, work: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """See ``Graphs``. After a failed capture, stream and generator are restored so that plain steps can follow."""
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        cause: Exception | None = None
        try:
            # The thread that pins batches also calls CUDA; its calls are not part of the step.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                try:
                    result = work()
                except Exception as error:
                    cause = error
                    raise
        except Exception as error:
            torch.cuda.set_stream(stream)
            generator = torch.cuda.default_generators[torch.cuda.current_device()]
            generator.graphsafe_set_state(generator.clone_state())  # the old state stays in capture mode
            # Ending a failed capture raises a second error, which does not give the reason.
            raise cause or error  # noqa: B904

        def replay() -> Tensor:
            graph.replay()
            return result

        return replay


class Recordable(Protocol):
    """A step that needs no decision of the host."""

    def whole(self, parts: Sequence[Any]) -> Tensor:
        """Forward pass to update. Returns (n + 1,): sums of losses and hits, then the gradient norm."""

    def eager_sums(self, parts: Sequence[Any]) -> Totals | None:
        """The same sums from an eager forward pass that changes nothing; None if its dropout noise would differ."""

    def refusing(self) -> AbstractContextManager[None]:
        """Context in which the device refuses every update."""


class ReplayError(RuntimeError):
    """A replay does not compute the captured step."""


class CapturedSteps:
    """Warm-up, capture, checks and replays of one step's work."""

    def __init__(self, graphs: Graphs, device: torch.device) -> None:
        self._graphs = graphs
        self._device = device
        self.drop()

    def drop(self) -> None:
        """Drop the graph and start again with the warm-up. Needed when shapes change or a step fails."""
        self._warm = 0
        self._unchecked = CHECKED
        self._parts: list[StepBatch] = []  # on the device; the graph reads them
        self._replay: Callable[[], Tensor] | None = None

    @property
    def ready(self) -> bool:
        """Whether the next step may be captured."""
        return self._warm >= WARM_UP

    @contextmanager
    def warming(self) -> Iterator[None]:
        """Context for a warm-up step, which is not captured."""
        with self._graphs.aside():
            yield
        self._warm += 1

    def take(self, work: Recordable, parts: Sequence[StepBatch], seed: int, counts: Mapping[str, int]) -> Tensor:
        """One step on micro-batches of the host; returns a copy of the result of ``Recordable.whole``.

        The first call captures ``work``, which must be the same in every call. ``seed`` is for the dropout noise;
        ``counts`` are the denominators of the sums. Raises ReplayError for unexpected shapes or sums. After any error,
        weights and moments are unchanged.
        """
        if self._replay is None:
            self._parts = [part.to(self._device) for part in parts]
            torch.manual_seed(seed)  # generators cannot be seeded during the capture
            self._replay = self._graphs.capture(lambda: work.whole(self._parts))
        else:
            self._fill(parts)
        if self._unchecked:
            self._check(work, seed, counts)
            self._unchecked -= 1
        return self._replayed(seed)

    def _fill(self, parts: Sequence[StepBatch]) -> None:
        if len(parts) != len(self._parts):
            raise ReplayError(f"{len(parts)} micro-batches, {len(self._parts)} were captured")
        for buffers, part in zip(self._parts, parts, strict=True):
            tensors = part.tensors()
            for name, buffer in buffers.tensors().items():
                tensor = tensors[name]
                if buffer.shape != tensor.shape:
                    raise ReplayError(f"{name} is {tuple(tensor.shape)}, {tuple(buffer.shape)} was captured")
                buffer.copy_(tensor, non_blocking=True)

    def _replayed(self, seed: int) -> Tensor:
        assert self._replay is not None  # set by the capture
        torch.manual_seed(seed)
        return self._replay().clone()

    def _check(self, work: Recordable, seed: int, counts: Mapping[str, int]) -> None:
        """Replay once without an update and compare the losses."""
        expected = work.eager_sums(self._parts)
        if expected is None:
            return
        with work.refusing():
            row = self._replayed(seed).tolist()
        for (name, per), eager, replayed in zip(expected.per.items(), expected.values.tolist(), row, strict=False):
            compared = name.endswith("_loss") and math.isfinite(eager)  # the guard refuses a step that is not finite
            if compared and not abs(replayed - eager) <= TOLERANCE * max(abs(eager), counts[per]):
                raise ReplayError(f"a replay gave a sum of {replayed:.6g} for {name}, the step itself {eager:.6g}")
