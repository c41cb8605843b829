"""A training step recorded once as a CUDA graph and replayed: one call of the host in place of hundreds of launches.

What is recorded reads its input from buffers that stay where they are: the micro-batches, whose shapes never change,
and the numbers of the step. Dropout still draws other noise in each step, because a replay takes the random generator's
seed as it is then (PyTorch, "CUDA semantics", section "CUDA Graphs").
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

from albert_ablate.methods.batch import StepBatch
from albert_ablate.training.sums import Totals

#: Steps taken aside before the capture: libraries choose their kernels, and the optimizer makes its state.
WARM_UP = 3
#: Replays that are compared with an eager forward pass, and by how much they may differ, as a share of the sum or in
#: nats for each of what was counted.
CHECKED, TOLERANCE = 3, 2e-2


class Graphs(Protocol):
    """The calls of CUDA that a capture needs."""

    def aside(self) -> AbstractContextManager[None]:
        """Within, work goes to a stream of its own, after all earlier and before all later work."""

    def capture(self, work: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """Record ``work`` without doing it. The function given does it and returns its result, in the same memory."""


class CudaGraphs:
    """Those of PyTorch."""

    @contextmanager
    def aside(self) -> Iterator[None]:
        """See ``Graphs``."""
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            yield
        torch.cuda.current_stream().wait_stream(stream)

    def capture(self, work: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """See ``Graphs``. What a capture that fails leaves behind is put right, so that plain steps can follow."""
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        cause: Exception | None = None
        try:
            # Of other threads' calls none belongs to the step: one pins batches.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                try:
                    result = work()
                except Exception as error:
                    cause = error
                    raise
        except Exception as error:
            torch.cuda.set_stream(stream)
            generator = torch.cuda.default_generators[torch.cuda.current_device()]
            generator.graphsafe_set_state(generator.clone_state())  # the old state waits for the end of the capture
            # The end of a capture that failed raises, too, without saying why.
            raise cause or error  # noqa: B904

        def replay() -> Tensor:
            graph.replay()
            return result

        return replay


class Recordable(Protocol):
    """A step that asks the host for nothing."""

    def whole(self, parts: Sequence[Any]) -> Tensor:
        """From the forward pass to the update: (n + 1,) sums of losses and hits, and the norm of the gradient."""

    def eager_sums(self, parts: Sequence[Any]) -> Totals | None:
        """The same sums of an eager forward pass that changes nothing; None where its noise would be another."""

    def refusing(self) -> AbstractContextManager[None]:
        """Within, the device refuses every update."""


class ReplayError(RuntimeError):
    """A replay does not do what was recorded."""


class CapturedSteps:
    """Warm-up, capture, checks and replays of one step's work."""

    def __init__(self, graphs: Graphs, device: torch.device) -> None:
        self._graphs = graphs
        self._device = device
        self.drop()

    def drop(self) -> None:
        """Begin anew: the shapes will be other ones, or nothing is recorded any more."""
        self._warm = 0
        self._unchecked = CHECKED
        self._parts: list[StepBatch] = []  # on the device; what is recorded reads them
        self._replay: Callable[[], Tensor] | None = None

    @property
    def ready(self) -> bool:
        """Whether the next step may be captured."""
        return self._warm >= WARM_UP

    @contextmanager
    def warming(self) -> Iterator[None]:
        """The body takes a step that is not captured."""
        with self._graphs.aside():
            yield
        self._warm += 1

    def take(self, work: Recordable, parts: Sequence[StepBatch], seed: int, counts: Mapping[str, int]) -> Tensor:
        """One step on micro-batches of the host; returns what ``Recordable.whole`` does, in memory of its own.

        The first call captures ``work``, which is the same in every call. ``seed`` is that of the step's noise,
        ``counts`` what its sums are over. Whatever is raised, weights and moments are those before the step. Raises
        ReplayError where shapes or sums are not those that were expected.
        """
        if self._replay is None:
            self._parts = [part.to(self._device) for part in parts]
            torch.manual_seed(seed)  # no generator may be seeded during the capture
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
            given = part.tensors()
            for name, buffer in buffers.tensors().items():
                if buffer.shape != given[name].shape:
                    raise ReplayError(f"{name} is {tuple(given[name].shape)}, {tuple(buffer.shape)} was captured")
                buffer.copy_(given[name], non_blocking=True)

    def _replayed(self, seed: int) -> Tensor:
        assert self._replay is not None  # there was a capture
        torch.manual_seed(seed)
        return self._replay().clone()

    def _check(self, work: Recordable, seed: int, counts: Mapping[str, int]) -> None:
        """Replay once without an update and compare the losses."""
        expected = work.eager_sums(self._parts)
        if expected is None:
            return
        with work.refusing():
            found = self._replayed(seed).tolist()
        for (name, per), wanted, sum_ in zip(expected.per.items(), expected.values.tolist(), found, strict=False):
            compared = name.endswith("_loss") and math.isfinite(wanted)  # the guard refuses the others
            if compared and not abs(sum_ - wanted) <= TOLERANCE * max(abs(wanted), counts[per]):
                raise ReplayError(f"a replay gave a sum of {sum_:.6g} for {name}, the step itself {wanted:.6g}")
