"""The port for methods: what a training step optimises, and everything the rest of the project asks about it.

A method is made for one configuration by ``methods.method_of``. It answers from the settings alone what plans and
records need (parameters, FLOPs, runs that come first), and loads torch only to build its model.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from albert_ablate.config.schema import RunConfig
from albert_ablate.methods.parents import Parent, warm_start
from albert_ablate.model.architecture import ParameterCount

if TYPE_CHECKING:  # they load torch
    import numpy as np
    from torch import Tensor

    from albert_ablate.data.store import TokenStore
    from albert_ablate.methods.batch import StepBatches
    from albert_ablate.model.base import EncoderModel


class Measure(StrEnum):
    """A measurement that a trained model may allow, beside those that need its encoder alone."""

    MASKED_LM = "masked_lm"  # the model has ``masked_lm_logits``
    SENTENCE_HEAD = "sentence_head"  # the model has ``sentence_logits``, trained on the objective's task


@dataclass(frozen=True)
class Term:
    """One part of the loss of a (micro-)batch, as a sum, so that the parts of a batch add up exactly."""

    name: str  # log lines are NAME_loss and NAME_accuracy
    loss_sum: "Tensor"  # scalar, in nats unless the term says otherwise
    per: str  # what the loss is a mean over: a key of the batch's ``counts``
    hits: "Tensor | None" = None  # scalar: how many predictions were right
    weight: float = 1.0  # of the mean, in the loss of the step
    epsilon: float = 0.0  # added to the denominator


class Method(ABC):
    """One way to pretrain an encoder."""

    #: The measurements that its model allows.
    measures: frozenset[Measure]

    def __init__(self, config: RunConfig) -> None:
        self.config = config

    @abstractmethod
    def parameters(self) -> ParameterCount:
        """Of everything that is trained."""

    @abstractmethod
    def flops(self) -> float:
        """Of one training sequence at full length, forward and backward, the passes of other networks included.

        Matrix products only; a multiply-add is two.
        """

    def parents(self) -> tuple[Parent, ...]:
        """The runs that have to be finished before this one starts."""
        return warm_start(self.config)

    @abstractmethod
    def build(self, parents: Mapping[str, Path]) -> "EncoderModel":
        """The model on CPU, initialised from the seed. It has an ``encoder``, and what ``measures`` promises.

        ``parents``: the role of each of ``parents()`` -> its newest checkpoint.
        """

    def batches(self, store: "TokenStore", word_starts: "np.ndarray", share: tuple[int, int] = (0, 1)) -> "StepBatches":
        """The training batches; ``share`` is (which, of how many) processes. ``terms`` reads what they hold."""
        from albert_ablate.data.batches import PairBatches

        c = self.config
        return PairBatches(store, word_starts, c.objective.name, c.pairs, c.masking, c.batch.size, c.seed, share)

    @abstractmethod
    def terms(self, model: Any, batch: Any) -> tuple[Term, ...]:
        """The loss of a (micro-)batch; always the same names in the same order."""

    @abstractmethod
    def shown(self, line: Mapping[str, float]) -> str:
        """The terms of a log line, short, for the progress bar."""
