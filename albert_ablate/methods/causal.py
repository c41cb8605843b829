"""Causal LM: every position predicts the next piece from itself and those before it (Radford et al., 2019)."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from albert_ablate.methods.method import Measure, Method, Term, allowed
from albert_ablate.methods.mlm import model_parameters
from albert_ablate.model.architecture import ParameterCount

if TYPE_CHECKING:  # they load torch
    import numpy as np

    from albert_ablate.data.blocks import NextBatch
    from albert_ablate.data.store import TokenStore
    from albert_ablate.methods.batch import StepBatches
    from albert_ablate.model.pretraining import PretrainingModel


class CausalLM(Method):
    """The mean cross-entropy of the next piece over all positions that a token follows; no other loss.

    The model is masked LM's, with the attention pattern ``causal``. Its head computes every position, where masked LM
    computes 15% of them or fewer, so at equal tokens a step has more targets and costs more FLOPs.
    """

    @property
    def measures(self) -> frozenset[Measure]:
        """Causal LM. No loss trains a sentence head."""
        return allowed({Measure.CAUSAL_LM: True})

    @property
    def padded(self) -> bool:
        """Blocks are full, pairs are not."""
        return self.config.method.blocks == "pairs"

    def parameters(self) -> ParameterCount:
        """Encoder and head, without pooler."""
        return model_parameters(self.config)

    def flops(self) -> float:
        """FLOPs of three forward passes, with the head at every target; the backward pass counts as two.

        Attention counts all pairs of positions, which kernels compute before they mask.
        """
        shape, length = self.config.architecture(), self.config.pairs.max_length
        return 3 * (shape.forward_flops(length, self.targets) - shape.pooler_flops())

    @property
    def targets(self) -> int:
        """Targets of a full sequence: in a pair the last token has none."""
        return self.config.pairs.max_length - (self.config.method.blocks == "pairs")

    def build(self, parents: Mapping[str, Path]) -> "PretrainingModel":
        """Encoder and tied head, initialised from the seed."""
        from albert_ablate.model.pretraining import build_model

        return build_model(self.config.architecture(), self.config.seed, self.config.has_pooler)

    def batches(self, store: "TokenStore", word_starts: "np.ndarray", share: tuple[int, int] = (0, 1)) -> "StepBatches":
        """Blocks of documents, or the sequences of masked LM without masks, as ``method.blocks`` says."""
        from albert_ablate.data.blocks import BlockBatches, NextInPairs

        c = self.config
        if c.method.blocks == "packed":
            return BlockBatches(store, c.pairs.max_length, c.batch.size, c.seed, share)
        return NextInPairs(store, word_starts, c.objective.name, c.pairs, c.masking, c.batch.size, c.seed, share)

    def terms(self, model: "PretrainingModel", batch: "NextBatch") -> tuple[Term, ...]:
        """``causal`` over the targets."""
        states = model.encoder(batch.input_ids, batch.type_ids, batch.mask).flatten(0, 1)  # (B * T, H)
        targets = batch.targets.flatten()  # (B * T,)
        if batch.mask is not None and states.device.type == "cpu":  # a GPU leaves the others out without a gather
            rows = (targets >= 0).nonzero()[:, 0]
            states, targets = states.index_select(0, rows), targets[rows]
        table = model.encoder.embedding.word.weight
        loss, hits = model.mlm_head.loss(states, table, targets, compiled=model.encoder.compiling)
        return (Term("causal", loss, "targets", hits),)

    def shown(self, line: Mapping[str, float]) -> str:
        """Loss and accuracy of the next piece."""
        return f"next piece {line['causal_loss']:.3f} nats, {line['causal_accuracy']:.1%}"
