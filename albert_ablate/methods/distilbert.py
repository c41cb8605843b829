"""DistilBERT (Sanh et al., 2019): a student of the teacher's distribution over pieces and of its last states."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from albert_ablate.methods.method import Measure, Term, allowed
from albert_ablate.methods.mlm import EPSILON
from albert_ablate.methods.student import Student
from albert_ablate.methods.teacher import has_masked_lm_head

if TYPE_CHECKING:  # they load torch
    from torch import Tensor

    from albert_ablate.data.batches import Batch
    from albert_ablate.model.student import StudentModel


class DistilBert(Student):
    """Three losses on the same masked text, which student and teacher read.

    ``kl``: the divergence from the teacher's distribution over pieces at ``kl_temperature``, times its square, a mean
    over real tokens ([CLS] and [SEP] included) or over masked positions. ``mlm``: masked LM. ``cosine``: one less the
    cosine between the last states of both, a mean over real tokens. A loss of weight 0 is not computed.
    """

    @property
    def measures(self) -> frozenset[Measure]:
        """Masked LM if a loss trains its head; the sentence head if there is one."""
        method = self.config.method
        trained = bool(method.kl_weight or method.mlm_weight)
        return allowed({Measure.MASKED_LM: trained, Measure.SENTENCE_HEAD: self.config.has_pooler})

    def problems(self) -> list[str]:
        """As of any student; the losses also need a masked-LM head and equal widths."""
        method, problems = self.config.method, super().problems()
        if method.kl_weight and not has_masked_lm_head(self.teacher):
            problems.append(
                f"method.kl_weight={method.kl_weight:g}: the teacher {method.teacher} has no trained masked-LM head "
                "and so no distribution over pieces. Set method.kl_weight=0, or use method=tinybert, which needs none."
            )
        own, other = self.config.model.hidden, self.teacher_shape.hidden_size
        if method.cosine_weight and own != other:
            problems.append(
                f"method.cosine_weight={method.cosine_weight:g}: states of width {own} and the teacher's of {other} "
                f"have no cosine. Set model.hidden={other}, or method.cosine_weight=0."
            )
        return problems

    def student_flops(self) -> float:
        """Three passes; the vocabulary's product is computed where a loss reads it, twice where two do."""
        shape, length = self.config.architecture(), self.config.pairs.max_length
        predicted = (self._compared if self.config.method.kl_weight else 0) + (
            self.masked if self.config.method.mlm_weight else 0
        )
        pooler = shape.pooler_flops() if self.config.has_pooler else 0
        return 3 * (shape.encoder_flops(length) + shape.token_head_flops(predicted) + pooler)

    def teacher_flops(self) -> float:
        """One forward pass, with the head where distributions are compared; none without losses of the teacher."""
        method, shape = self.config.method, self.teacher_shape
        if not (method.kl_weight or method.cosine_weight):
            return 0
        head = shape.token_head_flops(self._compared) if method.kl_weight else 0
        return shape.encoder_flops(self.config.pairs.max_length) + head

    @property
    def _compared(self) -> float:
        """Positions of a full sequence at which distributions are compared."""
        return self.config.pairs.max_length if self.config.method.kl_positions == "all" else self.masked

    def terms(self, model: "StudentModel", batch: "Batch") -> tuple[Term, ...]:
        """``kl``, ``mlm``, ``cosine`` and ``sentence``, those that have a weight."""
        import torch

        method = self.config.method
        states = model.encoder(batch.input_ids, batch.type_ids, batch.mask)  # (B, T, H)
        terms = []
        if method.kl_weight or method.cosine_weight:
            with torch.no_grad():
                taught = model.teacher.encoder(batch.input_ids, batch.type_ids, batch.mask)  # (B, T, H of the teacher)
        if method.kl_weight:
            rows, weights = self._rows(batch)
            loss = model.divergence(_at(states, rows), _at(taught, rows), weights, method.kl_temperature)
            per = "tokens" if method.kl_positions == "all" else "masked"
            terms.append(Term("kl", loss, per, weight=method.kl_weight, epsilon=EPSILON))
        if method.mlm_weight:
            masked, table = _at(states, batch.positions), model.encoder.embedding.word.weight
            loss, hits = model.mlm_head.loss(masked, table, batch.targets, compiled=model.encoder.compiling)
            terms.append(Term("mlm", loss, "masked", hits, weight=method.mlm_weight, epsilon=EPSILON))
        if method.cosine_weight:
            apart = 1 - torch.cosine_similarity(states.float(), taught.float(), dim=-1)  # (B, T)
            terms.append(Term("cosine", (apart * batch.mask).sum(), "tokens", weight=method.cosine_weight))
        return (*terms, *self.sentence_terms(model, batch, states[:, 0]))

    def _rows(self, batch: "Batch") -> "tuple[Tensor | None, Tensor | None]":
        """The positions whose distributions are compared, (R,) indices or None for all, and their factors or None.

        On a GPU all tokens are compared and padding gets the factor 0, since the host does not know where it is.
        """
        if self.config.method.kl_positions == "masked":
            return batch.positions, batch.targets >= 0  # filler positions on a GPU have no target
        if batch.mask.device.type == "cpu":
            return batch.mask.flatten().nonzero()[:, 0], None
        return None, batch.mask.flatten()

    def shown(self, line: Mapping[str, float]) -> str:
        """The losses, and the accuracy of masked LM and of the sentence task."""
        parts = [f"KL {line['kl_loss']:.3f} nats"] if "kl_loss" in line else []
        parts += [f"MLM {line['mlm_loss']:.3f} nats, {line['mlm_accuracy']:.1%}"] if "mlm_loss" in line else []
        parts += [f"cosine {line['cosine_loss']:.3f}"] if "cosine_loss" in line else []
        parts += [f"sentence {line['sentence_accuracy']:.1%}"] if "sentence_accuracy" in line else []
        return " · ".join(parts)


def _at(states: "Tensor", rows: "Tensor | None") -> "Tensor":
    """(B, T, H) -> the states of ``rows``, (R, H)."""
    flat = states.flatten(0, 1)
    return flat if rows is None else flat.index_select(0, rows)
