"""The gradient of a batch, summed over its micro-batches.

If memory runs out, micro-batches become smaller. If the model does not compile, a plainer backend takes over.
"""

import traceback
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from albert_ablate.config.schema import OptimizerConfig, RuntimeConfig
from albert_ablate.errors import UserError
from albert_ablate.methods.batch import StepBatch
from albert_ablate.methods.method import Term
from albert_ablate.model.encoder import Encoder
from albert_ablate.record.folder import RunFolder
from albert_ablate.record.outcome import out_of_memory
from albert_ablate.training.backend import Backend
from albert_ablate.training.machine import Machine
from albert_ablate.training.optimizers import build_optimizer
from albert_ablate.training.sums import Totals


class Accumulator(ABC):
    """A model and its optimizer; computes the gradient of a batch."""

    def __init__(
        self,
        model: nn.Module,
        settings: OptimizerConfig,
        runtime: RuntimeConfig,
        folder: RunFolder,
        machine: Machine,
        micro_size: int,
    ) -> None:
        self.model = model.to(machine.device)
        self.settings = settings
        self.runtime = runtime
        self.folder = folder
        self.machine = machine
        self.micro_size = micro_size  # sequences
        self.encoders = [module for module in self.model.modules() if isinstance(module, Encoder)]
        self.optimizer = build_optimizer(self.model, settings, self.factors)
        self.backend = self.first_backend(machine.backend)  # of the next step; None on a CPU
        #: Backends that computed steps, in order, over all starts of the run; empty on a CPU.
        self.backends = [] if self.backend is None else [self.backend]

    @abstractmethod
    def terms(self, batch: Any) -> Sequence[Term]:
        """The loss terms of a (micro-)batch on the device; the same names in the same order between two log lines."""

    @abstractmethod
    def noise(self, step: int) -> int:
        """The seed of the dropout noise of ``step``."""

    @abstractmethod
    def shaped(self, part: Any) -> StepBatch:
        """A micro-batch on the host, padded to the shape that a GPU uses. Its losses stay the same."""

    @abstractmethod
    def resized(self) -> None:
        """Drop everything that depends on the previous size of micro-batches."""

    def factors(self, name: str) -> tuple[float, ...]:
        """Factors of the parameter's learning rate, one for each stage of the training; 0: it is not trained there."""
        return (1.0,)

    def first_backend(self, backend: Backend | None) -> Backend | None:
        """The backend to begin with; ``backend`` is the machine's choice."""
        return backend

    def _gradients(self, step: int, batch: StepBatch, counts: Mapping[str, Any]) -> Totals:
        """Accumulate the gradients of the micro-batches and return the sums of their losses and hits.

        If memory runs out and ``runtime.oom_halving`` is set, the step is repeated with micro-batches of half the
        size. If code does not compile, the step is repeated without compilation. Raises all other errors.
        """
        while True:
            try:
                return self._accumulate(step, batch, counts)
            except Exception as error:
                compiled = self.backend not in (None, Backend.EAGER)
                memory, why = out_of_memory(error), in_short(error)
                if isinstance(error, UserError) or not (self._may_halve if memory else compiled):
                    raise
                if not memory:
                    self.folder.log(traceback.format_exc())
            if not (memory and self._halve(step)):
                self._fall_back(Backend.EAGER, f"the model does not compile: {why}")

    @property
    def _may_halve(self) -> bool:
        return self.runtime.oom_halving and self.micro_size > 1

    def _halve(self, step: int) -> bool:
        """Halve the size of micro-batches if that is allowed; returns whether it was."""
        if not self._may_halve:
            return False
        self.micro_size = (self.micro_size + 1) // 2
        self.folder.say(f"out of memory at step {step + 1}: micro-batches of {self.micro_size} from now on")
        self.resized()
        return True

    def _fall_back(self, backend: Backend, why: str) -> None:
        self.folder.say(f"runtime.backend={backend} from now on instead of {self.backend}: {why}")
        self.backend = backend
        self.backends.append(backend)

    def _accumulate(self, step: int, batch: StepBatch, counts: Mapping[str, Any]) -> Totals:
        torch.manual_seed(self.noise(step))
        return self._backward(map(self._moved, batch.micro(self.micro_size)), counts)

    def _moved(self, part: StepBatch) -> StepBatch:
        """A micro-batch on the device, copied asynchronously."""
        if self.backend is not None:
            part = self.shaped(part)
        return self._pinned(part).to(self.machine.device)

    def _pinned(self, part: StepBatch) -> StepBatch:
        """A micro-batch whose copy to a GPU is asynchronous."""
        return part.pin_memory() if self.machine.device.type == "cuda" else part

    def _backward(self, parts: Iterable[Any], counts: Mapping[str, Any]) -> Totals:
        """Accumulate the gradients of micro-batches on the device; returns the sums of their losses and hits."""
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        totals: Totals | None = None
        with self._compiling():
            for part in parts:
                with self.machine.autocast():
                    terms = self.terms(part)
                torch.autograd.backward(_loss(terms, counts))
                summed = Totals.of(terms)
                totals = summed if totals is None else totals + summed
        assert totals is not None  # a batch is never empty
        return totals

    @contextmanager
    def _compiling(self) -> Iterator[None]:
        """Context in which encoders use compiled code if the backend does. Evaluation never does: its shapes vary."""
        compiled = self.backend not in (None, Backend.EAGER)
        for encoder in self.encoders:
            encoder.compiled = compiled
        try:
            yield
        finally:
            for encoder in self.encoders:
                encoder.compiled = False


def in_short(error: Exception) -> str:
    """Type and first line of ``error``."""
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"


def _loss(terms: Sequence[Term], counts: Mapping[str, Any]) -> Tensor:
    """The contribution of these terms to the loss of the step: the sum of weight x sum / count, in order."""
    parts = []
    for term in terms:
        count = counts[term.per]
        mean = term.loss_sum / (count + term.epsilon if term.epsilon else count)
        parts.append(mean if term.weight == 1 else term.weight * mean)
    return sum(parts[1:], start=parts[0])
