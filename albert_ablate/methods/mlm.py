"""Masked LM plus the sentence loss of ``objective``, as in BERT and ALBERT (paper, section 3.1)."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from albert_ablate.config.schema import RunConfig
from albert_ablate.methods.method import Measure, Method, Term
from albert_ablate.model.architecture import ParameterCount

if TYPE_CHECKING:  # they load torch
    from albert_ablate.data.batches import Batch
    from albert_ablate.model.pretraining import PretrainingModel

#: Keeps the masked-LM mean finite if a batch has no masked position (reference run_pretraining).
EPSILON = 1e-5


class MaskedLM(Method):
    """The mean loss over masked positions plus, if the objective has one, the mean sentence loss, unweighted."""

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config)
        self._sentences = config.objective.name.trains_sentences
        heads = {Measure.SENTENCE_HEAD} if config.has_pooler else set()
        self.measures = frozenset({Measure.MASKED_LM} | heads)

    def parameters(self) -> ParameterCount:
        """Encoder, pooler and both heads, in every arm; without a pooler there is no sentence head either."""
        return model_parameters(self.config)

    def flops(self) -> float:
        """FLOPs of three forward passes; the backward pass counts as two.

        The number of predicted positions follows ``masking.probability`` up to ``masking.max_predictions``.
        """
        shape, length = self.config.architecture(), self.config.pairs.max_length
        return 3 * (shape.forward_flops(length, self.masked) - (0 if self.config.has_pooler else shape.pooler_flops()))

    def build(self, parents: Mapping[str, Path]) -> "PretrainingModel":
        """Encoder, tied masked-LM head and, if ``config.has_pooler``, pooler and sentence head."""
        from albert_ablate.model.pretraining import build_model

        return build_model(self.config.architecture(), self.config.seed, self.config.has_pooler)

    def terms(self, model: "PretrainingModel", batch: "Batch") -> tuple[Term, ...]:
        """``mlm`` over masked positions and, if the objective has a sentence loss, ``sentence`` over sequences."""
        labels = batch.labels if self._sentences else None
        out = model(batch.input_ids, batch.type_ids, batch.mask, batch.positions, batch.targets, labels)
        mlm = Term("mlm", out.mlm_loss_sum, "masked", out.mlm_correct, epsilon=EPSILON)
        if out.sentence_loss_sum is None:
            return (mlm,)
        return mlm, Term("sentence", out.sentence_loss_sum, "sequences", out.sentence_correct)

    def shown(self, line: Mapping[str, float]) -> str:
        """Loss and accuracy of masked LM, accuracy of the sentence task."""
        text = f"MLM {line['mlm_loss']:.3f} nats, {line['mlm_accuracy']:.1%}"
        return f"{text} · sentence {line['sentence_accuracy']:.1%}" if "sentence_accuracy" in line else text


def model_parameters(config: RunConfig) -> ParameterCount:
    """Those of encoder and masked-LM head and, if ``config.has_pooler``, of pooler and sentence head."""
    counted = config.architecture().parameters()
    if config.has_pooler:
        return counted
    return replace(counted, pooler=0, heads={"mlm_head": counted.heads["mlm_head"]})
