"""One optimizer step on named loss terms: accumulate, refuse if not finite, clip, update."""

import traceback
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from albert_ablate.config.schema import BudgetConfig, OptimizerConfig, RuntimeConfig
from albert_ablate.errors import DivergedError
from albert_ablate.methods.batch import StepBatch
from albert_ablate.record.folder import RunFolder
from albert_ablate.record.outcome import out_of_memory
from albert_ablate.training.accumulate import Accumulator, in_short
from albert_ablate.training.backend import Backend
from albert_ablate.training.captured import CapturedSteps, CudaGraphs
from albert_ablate.training.guards import LOOK_EVERY, BadStep, FiniteGuard, Spikes, keep_batch
from albert_ablate.training.machine import Machine
from albert_ablate.training.numbers import Numbers
from albert_ablate.training.optimizers import clip_gradient, gradients_of, learning_rate, scale_of, scales_of
from albert_ablate.training.sums import Totals


class Stepper(Accumulator):
    """A model and its optimizer; ``update`` takes one step. Used by pretraining and fine-tuning."""

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
        super().__init__(model, settings, runtime, folder, machine, micro_size)
        self.schedule = schedule
        self.spikes = Spikes(settings.skip_spikes)
        self.skipped = 0  # steps without an update, over all starts of the run
        # The host decides before the update whether a step is a spike.
        at_once = machine.device.type == "cpu" or settings.skip_spikes is not None
        self.guard = FiniteGuard(1 if at_once else LOOK_EVERY)
        self.learning_rate = 0.0  # of the last step
        self.captured = CapturedSteps(CudaGraphs(), machine.device)
        self._numbers = Numbers(None if machine.backend is None else machine.device, scales_of(self.optimizer))
        self._norm = torch.zeros(())  # of the last step's gradient, on the device
        self._per: Mapping[str, str] = {}  # ``Totals.per`` of every step
        self._last: tuple[int, StepBatch] | None = None  # the last step and its batch

    @abstractmethod
    def diverged(self, quantity: str, step: int) -> str:
        """The message to the user if ``quantity`` (loss or gradient) of ``step``, counted from 1, is not finite."""

    @abstractmethod
    def batch_of(self, step: int) -> StepBatch:
        """Build this process's share of the batch of ``step``, counted from 0."""

    @property
    @abstractmethod
    def static_shapes(self) -> bool:
        """Whether ``shaped`` returns the same shapes in every step."""

    def rate(self, position: float) -> float:
        """The learning rate at a position on the schedule, before the factors of parameters."""
        return learning_rate(position, self.settings, self.schedule)

    @property
    def in_stages(self) -> bool:
        """Whether the terms of the loss change during the training."""
        return False

    @property
    def gradient_norm(self) -> float:
        """The gradient norm of the last step before clipping. Waits for the device."""
        return self._norm.item()

    def update(
        self, step: int, batch: StepBatch, position: float | None = None, counts: Mapping[str, int] | None = None
    ) -> Totals:
        """One optimizer step on an effective batch. Returns its sums of losses and hits over all processes.

        ``position`` is the position on the schedule; None: ``step``. ``batch`` is this process's share of the batch,
        ``counts`` are the counts of the whole batch; None: those of ``batch``.

        The loss is the sum over the terms of weight x sum / count. Micro-batches and processes contribute sums, so any
        division of the batch gives the same gradient.

        A step whose loss or gradient is not finite changes neither weights nor moments. On CPU this method then raises
        DivergedError. A GPU works asynchronously: later steps change nothing either, until ``settle`` raises the
        error. This method calls ``settle`` every ``LOOK_EVERY`` steps.
        """
        counts = batch.counts() if counts is None else counts
        rate = self.rate(step if position is None else position)
        self.learning_rate, self._last = rate, (step, batch)
        self._numbers.put(rate, counts)
        for group in self.optimizer.param_groups:
            group["lr"] = self._numbers.rates[scale_of(group)]
        if self.backend is Backend.GRAPH and (why := self._uncapturable()) is not None:
            self._fall_back(Backend.COMPILED, why)
        if self.backend is Backend.GRAPH and self.captured.ready:
            totals = self._replayed(step, batch, counts)
            if totals is not None:
                return totals
        if self.backend is Backend.GRAPH:
            with self.captured.warming():
                return self._taken(step, batch, counts)
        return self._taken(step, batch, counts)

    def _taken(self, step: int, batch: StepBatch, counts: Mapping[str, int]) -> Totals:
        """The step without replay."""
        world = self.machine.world
        totals = self._gradients(step, batch, self._numbers.counts)
        self._per = totals.per
        totals = Totals(totals.per, world.sum_tensor(totals.values))
        world.sum_gradients(self.model)
        # The gradient of a shared block is the sum over its layers; the clip acts on that sum.
        gradients = gradients_of(self.model)
        self._norm = torch.nn.utils.get_total_norm(gradients)
        self.guard.add(step, self.learning_rate, self.guard.judge(totals.values, self._norm))
        if self.guard.full:
            self.settle()
        if self._spike(totals, counts):
            self.skipped += 1
            self.folder.log(f"step {step + 1} skipped: its gradient norm is {self.gradient_norm:.3g}")
        else:
            self._change_weights(gradients, self._norm)
        return totals

    def _replayed(self, step: int, batch: StepBatch, counts: Mapping[str, int]) -> Totals | None:
        """The step as a replay. Returns None if that failed; then nothing has changed, and the graph is dropped."""
        try:
            parts = [self._pinned(self.shaped(part)) for part in batch.micro(self.micro_size)]
            row = self.captured.take(self, parts, self.noise(step), counts)
        except Exception as error:
            why, memory = in_short(error), out_of_memory(error)
            self.folder.log(traceback.format_exc())
        else:
            self._norm = row[-1]
            self.guard.add(step, self.learning_rate, row)
            if self.guard.full:
                self.settle()
            return Totals(self._per, row[:-1])
        self.resized()
        if not (memory and self._halve(step)):
            self._fall_back(Backend.COMPILED, f"the step cannot be captured: {why}")
        return None

    def resized(self) -> None:
        """Drop the graph, whose shapes no longer fit, and the gradients, which are in its memory."""
        self.captured.drop()
        self.optimizer.zero_grad(set_to_none=True)

    def _uncapturable(self) -> str | None:
        """Why the steps of this run cannot be captured; None if no reason is known."""
        reasons = {
            "several processes share the run": self.machine.world.size > 1,
            "optimizer.skip_spikes is decided on the host": self.settings.skip_spikes is not None,
            "runtime.activation_checkpointing sets random states": self.runtime.activation_checkpointing,
            "batches vary in shape": not self.static_shapes,
            "the losses change between stages": self.in_stages,
        }
        return next((reason for reason, holds in reasons.items() if holds), None)

    def whole(self, parts: Sequence[Any]) -> Tensor:
        """See ``captured.Recordable``."""
        totals = self._backward(parts, self._numbers.counts)
        gradients = gradients_of(self.model)
        norm = torch.nn.utils.get_total_norm(gradients)
        row = self.guard.judge(totals.values, norm)
        self._change_weights(gradients, norm)
        return row

    @torch.no_grad()
    def eager_sums(self, parts: Sequence[Any]) -> Totals | None:
        """See ``captured.Recordable``."""
        shapes = [encoder.shape for encoder in self.encoders]
        if any(max(shape.hidden_dropout, shape.attention_dropout) > 0 for shape in shapes):
            return None
        self.model.train()
        totals: Totals | None = None
        for part in parts:
            with self.machine.autocast():
                summed = Totals.of(self.terms(part))
            totals = summed if totals is None else totals + summed
        return totals

    def refusing(self) -> AbstractContextManager[None]:
        """See ``captured.Recordable``."""
        return self.guard.refusing()

    def settle(self) -> None:
        """Wait until the device has finished all steps.

        Raises DivergedError if a step was not finite; the weights are those before this step, and its batch is kept.
        Raises PeerLostError if another process of the run is gone.
        """
        with self.machine.world.noticing():
            if self.machine.device.type == "cuda":
                torch.cuda.synchronize(self.machine.device)
            bad = self.guard.look()
        if bad is not None:
            raise DivergedError(self._refused(bad))

    def _refused(self, bad: BadStep) -> str:
        self.learning_rate = bad.rate
        message = self.diverged(bad.quantity, bad.step + 1)
        if self.machine.world.main:
            assert self._last is not None  # a step has been taken
            last, batch = self._last
            tensors = (batch if bad.step == last else self.batch_of(bad.step)).tensors()
            numbers = {"step": bad.step + 1, "learning_rate": bad.rate}
            message += f" Its batch is in {keep_batch(self.folder.path, bad.step + 1, tensors, numbers)}."
        return message

    def _spike(self, totals: Totals, counts: Mapping[str, int]) -> bool:
        if self.settings.skip_spikes is None:
            return False
        leading = next(iter(totals.per))
        with self.machine.world.noticing():
            return self.spikes.seen(totals[leading] / max(counts[totals.per[leading]], 1), self.gradient_norm)

    def _change_weights(self, gradients: Sequence[Tensor], norm: Tensor) -> None:
        clip_gradient(gradients, norm, self.settings.clip_norm)
        self.optimizer.found_inf = self.guard.refused  # type: ignore[attr-defined]
        self.optimizer.step()
