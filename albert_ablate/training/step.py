"""One optimizer step on named loss terms: accumulate, refuse what is not finite, clip, update."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from albert_ablate.config.schema import BudgetConfig, OptimizerConfig, RuntimeConfig
from albert_ablate.errors import DivergedError
from albert_ablate.methods.batch import StepBatch
from albert_ablate.methods.method import Term
from albert_ablate.record.folder import RunFolder
from albert_ablate.record.outcome import out_of_memory
from albert_ablate.training.guards import LOOK_EVERY, BadStep, FiniteGuard, Spikes, keep_batch
from albert_ablate.training.machine import Machine
from albert_ablate.training.optimizers import build_optimizer, clip_gradient, gradients_of, learning_rate
from albert_ablate.training.sums import Totals


class Stepper(ABC):
    """A model and its optimizer; ``update`` takes one step. Pretraining and fine-tuning share it."""

    def __init__(
        self,
        model: nn.Module,
        settings: OptimizerConfig,
        schedule: BudgetConfig,
        runtime: RuntimeConfig,
        folder: RunFolder,
        machine: Machine,
        micro_size: int,
    ) -> None:
        self.model = model.to(machine.device)
        self.settings = settings
        self.schedule = schedule
        self.runtime = runtime
        self.folder = folder
        self.machine = machine
        self.micro_size = micro_size  # sequences
        self.optimizer = build_optimizer(self.model, settings)
        self.spikes = Spikes(settings.skip_spikes)
        self.skipped = 0  # steps without an update, over all starts of the run
        # Whether a step is a spike is decided on the host, before its update.
        at_once = machine.device.type == "cpu" or settings.skip_spikes is not None
        self.guard = FiniteGuard(1 if at_once else LOOK_EVERY)
        self.learning_rate = 0.0  # of the last step
        self._norm = torch.zeros(())  # of the last step's gradient, on the device
        self._last: tuple[int, StepBatch] | None = None  # the last step and its batch

    @abstractmethod
    def terms(self, batch: Any) -> Sequence[Term]:
        """The loss terms of a (micro-)batch on the device; always the same names in the same order."""

    @abstractmethod
    def noise(self, step: int) -> int:
        """The seed of the step's dropout."""

    @abstractmethod
    def diverged(self, what: str, step: int) -> str:
        """What to tell the user when the ``what`` (loss or gradient) of ``step``, counted from 1, is not finite."""

    @abstractmethod
    def batch_of(self, step: int) -> StepBatch:
        """The batch of ``step``, counted from 0, built again: the share of this process."""

    @property
    def gradient_norm(self) -> float:
        """Of the last step, before clipping. Waits for the device."""
        return self._norm.item()

    def update(
        self, step: int, batch: StepBatch, position: float | None = None, counts: Mapping[str, int] | None = None
    ) -> Totals:
        """One optimizer step on an effective batch. Returns its sums of losses and hits over all processes.

        ``position`` on the schedule is the step itself unless the budget has another unit. ``batch`` is this
        process's share, ``counts`` those of all shares.

        The loss is the sum over the terms of weight x sum / count; micro-batches and processes contribute their
        sums, so any division of the batch gives the same gradient.

        A step whose loss or gradient is not finite changes neither weights nor moments. On CPU it raises DivergedError
        at once. A GPU is not waited for: there no later step changes anything either, and ``settle`` raises the error,
        here every ``LOOK_EVERY`` steps.
        """
        world, counts = self.machine.world, batch.counts() if counts is None else counts
        rate = learning_rate(step if position is None else position, self.settings, self.schedule)
        self.learning_rate = rate
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        totals = self._gradients(step, batch, counts)
        totals = Totals(totals.per, world.sum_tensor(totals.values))
        world.sum_gradients(self.model)
        # The gradient of a shared block is the sum over its layers; the clip acts on that sum.
        gradients = gradients_of(self.model)
        self._norm, self._last = torch.nn.utils.get_total_norm(gradients), (step, batch)
        self.guard.add(step, rate, totals.values, self._norm)
        if self.guard.full:
            self.settle()
        clip_gradient(gradients, self._norm, self.settings.clip_norm)
        if self._spike(totals, counts):
            self.skipped += 1
            self.folder.log(f"step {step + 1} skipped: its gradient norm is {self.gradient_norm:.3g}")
        else:
            self.optimizer.found_inf = self.guard.refused  # type: ignore[attr-defined]
            self.optimizer.step()
        return totals

    def settle(self) -> None:
        """Wait until the device has finished all that it was given.

        Raises DivergedError where a step was not finite: the weights are those before it, its batch is kept.
        """
        if self.machine.device.type == "cuda":
            torch.cuda.synchronize(self.machine.device)
        if (bad := self.guard.look()) is not None:
            raise DivergedError(self._refused(bad))

    def _refused(self, bad: BadStep) -> str:
        self.learning_rate = bad.rate
        words = self.diverged(bad.what, bad.step + 1)
        if self.machine.world.main:
            assert self._last is not None  # there was a step
            last, batch = self._last
            tensors = (batch if bad.step == last else self.batch_of(bad.step)).tensors()
            numbers = {"step": bad.step + 1, "learning_rate": bad.rate}
            words += f" Its batch is in {keep_batch(self.folder.path, bad.step + 1, tensors, numbers)}."
        return words

    def _spike(self, totals: Totals, counts: Mapping[str, int]) -> bool:
        if self.settings.skip_spikes is None:
            return False
        leading = next(iter(totals.per))
        return self.spikes.seen(totals[leading] / max(counts[totals.per[leading]], 1), self.gradient_norm)

    def _gradients(self, step: int, batch: StepBatch, counts: Mapping[str, int]) -> Totals:
        """Add up the gradients of the micro-batches.

        Where memory runs out and ``runtime.oom_halving`` allows it, once more with micro-batches of half the size.
        """
        while True:
            try:
                return self._accumulate(step, batch, counts)
            except (MemoryError, RuntimeError) as error:
                if not (out_of_memory(error) and self.runtime.oom_halving and self.micro_size > 1):
                    raise
            self.micro_size = (self.micro_size + 1) // 2
            self.folder.say(f"out of memory at step {step + 1}: micro-batches of {self.micro_size} from now on")

    def _accumulate(self, step: int, batch: StepBatch, counts: Mapping[str, int]) -> Totals:
        torch.manual_seed(self.noise(step))
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        totals: Totals | None = None
        for part in batch.micro(self.micro_size):
            if self.machine.device.type == "cuda":  # else the copy would wait for the device
                part = part.pin_memory()
            moved = part.to(self.machine.device)
            with self.machine.autocast():
                terms = self.terms(moved)
            torch.autograd.backward(_loss(terms, counts))
            summed = Totals.of(terms)
            totals = summed if totals is None else totals + summed
        assert totals is not None  # no batch is empty
        return totals


def _loss(terms: Sequence[Term], counts: Mapping[str, int]) -> Tensor:
    """The part of the step's loss that these terms are: weight x sum / count, added in their order."""
    parts = []
    for term in terms:
        count = counts[term.per]
        mean = term.loss_sum / (count + term.epsilon if term.epsilon else count)
        parts.append(mean if term.weight == 1 else term.weight * mean)
    return sum(parts[1:], start=parts[0])
