"""The interface of methods: what a training step optimises, and what other code needs to know about it.

``methods.method_of`` makes a method for one configuration. What plans and records need (parameters, FLOPs, parents)
follows from the settings alone; torch is loaded only to build the model.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from albert_ablate.config.schema import RunConfig
from albert_ablate.methods.continued import continued
from albert_ablate.methods.parents import Parent, warm_start
from albert_ablate.methods.stages import SINGLE, Stage
from albert_ablate.model.architecture import ParameterCount

if TYPE_CHECKING:  # they load torch
    import numpy as np
    from torch import Tensor

    from albert_ablate.data.store import TokenStore
    from albert_ablate.methods.batch import StepBatches
    from albert_ablate.model.base import EncoderModel


class Measure(StrEnum):
    """A measurement that not every method's model allows. Others need only the encoder."""

    MASKED_LM = "masked_lm"  # the model has ``token_logits``; those of a masked position are of its piece
    CAUSAL_LM = "causal_lm"  # the model has ``token_logits``; those of a position are of the piece that follows it
    SENTENCE_HEAD = "sentence_head"  # the model has ``sentence_logits``, trained on the objective's task


@dataclass(frozen=True)
class Term:
    """One term of the loss of a (micro-)batch, as a sum, so that micro-batches add up."""

    name: str  # of the metrics NAME_loss and NAME_accuracy
    loss_sum: "Tensor"  # scalar, in nats for a cross-entropy
    per: str  # denominator of the mean loss: a key of the batch's ``counts``
    hits: "Tensor | None" = None  # scalar: number of correct predictions
    weight: float = 1.0  # factor of the mean in the loss of the step
    epsilon: float = 0.0  # added to the denominator


class Method(ABC):
    """One way to pretrain an encoder."""

    def __init__(self, config: RunConfig) -> None:
        self.config = config

    @property
    @abstractmethod
    def measures(self) -> frozenset[Measure]:
        """The measurements that the model allows."""

    @property
    def masked(self) -> float:
        """Masked positions of a full sequence."""
        masking = self.config.masking
        return min(masking.probability * self.config.pairs.max_length, masking.max_predictions or math.inf)

    @property
    def padded(self) -> bool:
        """Whether training sequences may be shorter than ``pairs.max_length``."""
        return not self.config.pairs.join_documents

    @abstractmethod
    def parameters(self) -> ParameterCount:
        """The parameters that are trained."""

    @abstractmethod
    def flops(self) -> float:
        """FLOPs of one training sequence of full length: forward and backward, including passes of other networks.

        Matrix products only; a multiply-add counts as two.
        """

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The parts of the schedule, in order. ``flops`` is a mean over the schedule."""
        return SINGLE

    def stage_flops(self, stage: int) -> float:
        """``flops`` of a sequence in one of the stages, an index into ``stages``."""
        return self.flops()

    def begin(self, model: Any, stage: int) -> None:  # noqa: B027 - most methods have nothing to prepare
        """Prepare the model for the steps of a stage, an index into ``stages``: when it begins and after a restart."""

    def teacher_flops(self) -> float:
        """What ``flops`` counts for forward passes of a teacher; 0 without one."""
        return 0

    def lookup_flops(self) -> float:
        """What ``flops`` leaves out: the look-ups of one training sequence in a word table, as a product with it.

        The scripts of ELECTRA's paper count V x E for each token, 26% of what they give for BERT-Small.
        """
        return 3 * self.config.architecture().lookup_flops(self.config.pairs.max_length)

    def parents(self) -> tuple[Parent, ...]:
        """The runs that must be finished before this run starts. Raises UserError for one that it cannot start from."""
        return (*continued(self.config), *warm_start(self.config))

    @abstractmethod
    def build(self, parents: Mapping[str, Path]) -> "EncoderModel":
        """The model on CPU, initialised from the seed. It has what ``measures`` require.

        ``parents``: role of each of ``parents()`` -> its newest checkpoint.
        """

    def rehearsal(self) -> "EncoderModel":
        """A model to time steps with: as ``build`` gives it, but what comes from parents has arbitrary values."""
        return self.build({})

    def batches(self, store: "TokenStore", word_starts: "np.ndarray", share: tuple[int, int] = (0, 1)) -> "StepBatches":
        """The training batches, in the form that ``terms`` reads; ``share`` is (rank, number of processes)."""
        from albert_ablate.data.batches import PairBatches
        from albert_ablate.data.joined import JoinedBatches

        c = self.config
        batches = JoinedBatches if c.pairs.join_documents else PairBatches
        return batches(store, word_starts, c.objective.name, c.pairs, c.masking, c.batch.size, c.seed, share)

    @abstractmethod
    def terms(self, model: Any, batch: Any) -> tuple[Term, ...]:
        """The loss terms of a (micro-)batch; within a stage always the same names in the same order."""

    @abstractmethod
    def shown(self, line: Mapping[str, float]) -> str:
        """The terms of a log line in short form, for the progress bar."""


def sentence_term(logits: "Tensor", labels: "Tensor", weight: float) -> Term:
    """The loss of the sentence objective, from (B, 2) logits and (B,) labels."""
    from torch.nn import functional as F

    loss = F.cross_entropy(logits.float(), labels, reduction="sum")
    hits = (logits.detach().argmax(-1) == labels).sum()
    return Term("sentence", loss, "sequences", hits, weight=weight)


def allowed(measures: Mapping[Measure, bool]) -> frozenset[Measure]:
    """The measurements that are true in ``measures``."""
    return frozenset(measure for measure, allows in measures.items() if allows)
