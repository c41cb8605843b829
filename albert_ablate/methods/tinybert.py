"""General distillation of TinyBERT (Jiao et al., 2020): a student of the teacher's layers and attention."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from albert_ablate.methods.method import Measure, Term, allowed
from albert_ablate.methods.student import Student
from albert_ablate.model.architecture import Architecture, ParameterCount

if TYPE_CHECKING:  # they load torch
    from albert_ablate.data.batches import Batch
    from albert_ablate.model.imitation import ImitationSettings
    from albert_ablate.model.pretraining import PretrainingModel
    from albert_ablate.model.student import StudentModel


class TinyBert(Student):
    """Mean squared errors between student and teacher on the same text: their embedding, layers and attention.

    Learned projections take the student's states to the teacher's width. No loss reads the masked-LM head.
    """

    @property
    def measures(self) -> frozenset[Measure]:
        """The sentence head if there is one; no loss trains the masked-LM head."""
        return allowed({Measure.SENTENCE_HEAD: self.config.has_pooler})

    @property
    def imitation(self) -> "ImitationSettings":
        """What is compared, and how."""
        from albert_ablate.model.imitation import ImitationSettings

        return ImitationSettings.of(self.config.method)

    def problems(self) -> list[str]:
        """As of any student; the compared layers and heads also need a counterpart."""
        method, problems = self.config.method, super().problems()
        if method.hidden_weight or method.attention_weight:
            problems += self._depth_problems()
        if method.attention_weight:
            problems += self._attention_problems()
        return problems

    def _depth_problems(self) -> list[str]:
        layer_map, m, n = self.config.method.layer_map, self.config.model.layers, self.teacher_shape.layers
        if n < m:
            return [
                f"model.layers={m}: each layer learns from one of the teacher's, which has {n}. "
                f"Set model.layers={n} or less."
            ]
        if layer_map == "uniform" and n % m:
            fitting = ", ".join(str(k) for k in range(1, n + 1) if n % k == 0)
            return [
                f"model.layers={m}: with method.layer_map=uniform the teacher's layers, {n}, are a multiple of the "
                f"student's. Set model.layers to one of {fitting}, or method.layer_map to top or bottom."
            ]
        return []

    def _attention_problems(self) -> list[str]:
        from albert_ablate.model.imitation import has_scores

        weight = f"method.attention_weight={self.config.method.attention_weight:g}"
        ours, theirs = self.config.architecture(), self.teacher_shape
        problems = [
            f"{weight}: the layers of the {who} have no attention scores. Set method.attention_weight=0."
            for who, shape in (("student", ours), ("teacher", theirs))
            if not has_scores(shape)
        ]
        if ours.heads != theirs.heads:
            problems.append(
                f"model.heads={ours.heads}: each head learns from one of the teacher's, which has {theirs.heads}. "
                f"Set model.heads={theirs.heads} (with a model.hidden that it divides), or method.attention_weight=0."
            )
        return problems

    @property
    def _layers(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The layers of student and teacher that are read, counted from 1; the student's last for a sentence loss."""
        depth = self.config.model.layers
        ours, theirs = self.imitation.pairs(depth, self.teacher_shape.layers)
        return ours or ((depth,) if self.config.objective.name.trains_sentences else ()), theirs

    def parameters(self) -> ParameterCount:
        """As masked LM's, and the projections; the teacher is not trained."""
        from albert_ablate.model.imitation import Imitation

        counted = super().parameters()
        projections = Imitation.count(self.imitation, self.config.architecture(), self.teacher_shape)
        return replace(counted, heads={**counted.heads, "imitation": projections})

    def student_flops(self) -> float:
        """Three passes without the masked-LM head; with projections, and attention scores, which are computed twice."""
        from albert_ablate.model.imitation import Imitation

        shape, length = self.config.architecture(), self.config.pairs.max_length
        forward = self._observing_flops(shape, self._layers[0])
        forward += Imitation.flops(self.imitation, shape, self.teacher_shape, length)
        return 3 * (forward + (shape.pooler_flops() if self.config.has_pooler else 0))

    def teacher_flops(self) -> float:
        """One forward pass up to the last layer that is compared, without heads."""
        return self._observing_flops(self.teacher_shape, self._layers[1])

    def _observing_flops(self, shape: Architecture, layers: tuple[int, ...]) -> float:
        from albert_ablate.model.imitation import observing_flops

        length = self.config.pairs.max_length
        needed = replace(shape, layers=max(layers, default=0))
        return needed.encoder_flops(length) + observing_flops(self.imitation, shape, layers, length)

    def take_teacher(self, model: "StudentModel", teacher: "PretrainingModel") -> None:
        """As of any student, and new projections to the teacher's width."""
        from torch import nn

        from albert_ablate.model.base import without_values
        from albert_ablate.model.imitation import Imitation
        from albert_ablate.model.pretraining import initialise

        super().take_teacher(model, teacher)
        made = without_values(lambda: Imitation(self.imitation, model.shape, teacher.shape))
        initialise(nn.ModuleDict({"imitation": made}), model.shape.initializer_range, self.config.seed)
        model.imitation = made

    def terms(self, model: "StudentModel", batch: "Batch") -> tuple[Term, ...]:
        """``embedding``, ``hidden`` and ``attention``, those that have a weight, and ``sentence``."""
        import torch

        from albert_ablate.model.generator import original_ids
        from albert_ablate.model.imitation import observe

        settings, (ours, theirs) = self.imitation, self._layers
        ids = original_ids(batch) if self.config.method.inputs == "plain" else batch.input_ids  # (B, T)
        with torch.no_grad():
            taught = observe(model.teacher.encoder, ids, batch.type_ids, batch.mask, theirs, settings.target)
        shown = observe(model.encoder, ids, batch.type_ids, batch.mask, ours, settings.target)
        losses = model.imitation.losses(shown, taught, batch.mask)
        terms = [Term(name, loss, per, weight=settings.weights[name]) for name, (loss, per) in losses.items()]
        return (*terms, *(self.sentence_terms(model, batch, shown.hidden[-1][:, 0]) if ours else ()))

    def shown(self, line: Mapping[str, float]) -> str:
        """The losses, and the accuracy of the sentence task."""
        names = ("attention", "hidden", "embedding")
        parts = [f"{name} {line[f'{name}_loss']:.3g}" for name in names if f"{name}_loss" in line]
        parts += [f"sentence {line['sentence_accuracy']:.1%}"] if "sentence_accuracy" in line else []
        return " · ".join(parts)
