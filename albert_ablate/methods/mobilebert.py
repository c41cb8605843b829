"""MobileBERT's knowledge transfer (Sun et al., 2020, sections 3.4 and 3.5; released code, run_pretraining.py).

A student learns the feature maps and the attention of its teacher's layers, then the teacher's distribution over pieces
at masked positions. The teacher is as deep as the student and as wide between its layers.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from albert_ablate.axes import METHOD, MethodName
from albert_ablate.methods.method import Measure, Term, allowed
from albert_ablate.methods.mlm import EPSILON
from albert_ablate.methods.parents import Parent, as_word
from albert_ablate.methods.stages import SINGLE, Stage, shares
from albert_ablate.methods.student import Student
from albert_ablate.methods.teacher import TEACHER, has_masked_lm_head, teacher_of
from albert_ablate.model.architecture import Architecture

if TYPE_CHECKING:  # they load torch
    from torch import Tensor

    from albert_ablate.data.batches import Batch
    from albert_ablate.model.pretraining import PretrainingModel
    from albert_ablate.model.student import StudentModel

#: ``method.stage_rates`` -> factors of the learning rate in a progressive stage: of its layer, and of those below.
LAYER_RATES = {"released": (3.0, 0.3), "equal": (1.0, 1.0), "frozen": (3.0, 0.0)}


class MobileBert(Student):
    """Knowledge transfer over layers, then distillation of predictions.

    Transfer of a layer: ``feature``, ``mean``, ``spread`` and ``map`` (see ``model.transfer``), means over real tokens,
    divided by the number of layers; the released code counts padding too. ``progressive``: layer by layer from the
    bottom, in equal parts of ``transfer_share``; ``joint``: all layers at once; ``auxiliary``: all layers beside the
    distillation, from the first step on; ``none``: distillation alone.

    Distillation: the cross-entropy at masked positions with alpha times the true piece plus (1 - alpha) times the
    teacher's distribution. It is the sum of ``mlm`` and ``kl`` with these weights, and of a constant. The sentence loss
    has the true labels. The student has no dropout at any time.
    """

    @property
    def measures(self) -> frozenset[Measure]:
        """Masked LM, and the sentence head if there is one."""
        return allowed({Measure.MASKED_LM: True, Measure.SENTENCE_HEAD: self.config.has_pooler})

    @cached_property
    def teacher(self) -> Parent:
        """The teacher's run; if none is named, masked LM with inverted bottlenecks, trained first."""
        return teacher_of(self.config) if self.config.method.teacher is not None else self._inverted()

    def _inverted(self) -> Parent:
        """IB-BERT: the student's settings with LayerNorm, GELU and one network in each layer, wider inside."""
        c = self.config
        width = round(c.attention_width * c.method.teacher_inside)
        ratio = c.model.intermediate / c.attention_width
        model = replace(
            c.model, name=f"ib-{c.model.name}", block_width=width, intermediate=round(ratio * width), feed_forwards=1,
            attention_input="body", norm_type="layer_norm", activation="gelu_tanh", pooler="tanh",
        )  # fmt: skip
        settings = {path.partition(".")[2]: value for path, value in METHOD.beside.items()}
        teacher = replace(c, model=model, method=replace(c.method, **settings, name=MethodName.MLM))
        changed = {"method": str(MethodName.MLM)}
        changed |= {f"method.{key}": as_word(value) for key, value in settings.items()}
        names = (
            "name", "block_width", "intermediate", "feed_forwards", "attention_input", "norm_type", "activation",
            "pooler",
        )  # fmt: skip
        changed |= {f"model.{key}": as_word(getattr(model, key)) for key in names}
        return Parent(TEACHER, teacher, changed)

    def problems(self) -> list[str]:
        """Sizes that differ where layers are compared, or parts that the teacher lacks."""
        c, method = self.config, self.config.method
        ours, theirs = c.architecture(), self.teacher_shape
        if method.teacher is None and not c.block.type.has_bottlenecks:
            return [
                f"method.teacher=null with block={c.block.type}: a teacher that is trained first has inverted "
                "bottlenecks, as MobileBERT's. Use block=mobilebert, or name a run: method.teacher=RUN."
            ]
        compared = {
            "model.layers": (ours.layers, theirs.layers),
            "model.hidden": (ours.hidden_size, theirs.hidden_size),
        }
        if method.map_weight:
            compared["model.heads"] = (ours.heads, theirs.heads)
        problems = [
            f"{name}={own}: each layer learns from its own of the teacher, which has {other}. Set {name}={other}, or "
            "use method.transfer=none."
            for name, (own, other) in compared.items()
            if own != other and method.transfer != "none"
        ]
        if method.alpha < 1 and not has_masked_lm_head(self.teacher):
            problems.append(
                f"method.alpha={method.alpha:g}: the teacher {method.teacher} has no trained masked-LM head and so no "
                "distribution over pieces. Set method.alpha=1."
            )
        if method.start == "teacher":
            problems += self._copied_problems(ours, theirs)
        return problems + (self._map_problems(ours, theirs) if method.map_weight else [])

    def _copied_problems(self, ours: Architecture, theirs: Architecture) -> list[str]:
        sizes = {
            "embed.size": (ours.embedding_size, theirs.embedding_size),
            "model.hidden": (ours.hidden_size, theirs.hidden_size),
            "model.max_positions": (ours.max_positions, theirs.max_positions),
            "model.trigram": (as_word(ours.trigram), as_word(theirs.trigram)),
            "model.table_width": (ours.table_width, theirs.table_width),
            "model.lm_head": (ours.lm_head, theirs.lm_head),
        }
        return [
            f"method.start=teacher: {name}={own}, the teacher has {other}. Set it to {other}, or use "
            "method.start=random."
            for name, (own, other) in sizes.items()
            if own != other
        ]

    def _map_problems(self, ours: Architecture, theirs: Architecture) -> list[str]:
        from albert_ablate.model.imitation import has_scores

        weight = f"method.map_weight={self.config.method.map_weight:g}"
        return [
            f"{weight}: the layers of the {who} have no attention scores. Set method.map_weight=0."
            for who, shape in (("student", ours), ("teacher", theirs))
            if self.config.method.transfer != "none" and not has_scores(shape)
        ]

    # --- stages ---

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Those of the transfer, then the distillation."""
        method, layers = self.config.method, self.config.model.layers
        share, ramp = method.transfer_share, _ramp if method.stage_ramp == "released" else _constant
        if method.transfer == "joint":
            return Stage(share, _encoder_alone, ramp), Stage(1.0)
        if method.transfer == "progressive":
            each = [Stage(share * (n + 1) / layers, self._layer_rate(n), ramp) for n in range(layers)]
            return *each, Stage(1.0)
        return SINGLE

    def _layer_rate(self, current: int) -> Callable[[str], float]:
        """The factors of the stage of layer ``current``, counted from 0: of it, of those below, and 0 of all else."""
        from albert_ablate.model.blocks import bank_entries

        shape = self.config.architecture()
        at, below = LAYER_RATES[self.config.method.stage_rates]
        rates = {
            f"encoder.{kind}.{entry}.": at if layer == current else below
            for layer in range(current + 1)
            for kind, entry in bank_entries(shape, layer)
        }
        return lambda name: next((rate for prefix, rate in rates.items() if name.startswith(prefix)), 0.0)

    def begin(self, model: "StudentModel", stage: int) -> None:
        """Note the stage, which chooses the losses."""
        model.stage = stage

    def _learned(self, stage: int) -> tuple[int, ...]:
        """The layers, counted from 1, whose losses count in a stage."""
        method, layers = self.config.method, self.config.model.layers
        if method.transfer == "progressive":
            return (stage + 1,) if stage < layers else ()
        with_layers = {"joint": stage == 0, "auxiliary": True, "none": False}[method.transfer]
        return tuple(range(1, layers + 1)) if with_layers else ()

    def _predicts(self, stage: int) -> bool:
        """Whether predictions are learned in a stage: in the last."""
        return stage == len(self.stages) - 1

    @property
    def _weights(self) -> dict[str, float]:
        """Term -> weight of each loss over layers that is not left out."""
        m = self.config.method
        weights = {"feature": m.feature_weight, "mean": m.mean_weight, "spread": m.spread_weight, "map": m.map_weight}
        return {name: weight / self.config.model.layers for name, weight in weights.items() if weight}

    # --- costs ---

    def student_flops(self) -> float:
        """Three passes up to the last layer that a stage needs, a mean over the schedule."""
        return 3 * self._mean(self._student_forward)

    def teacher_flops(self) -> float:
        """One forward pass up to the last layer that a stage compares, a mean over the schedule."""
        return self._mean(self._teacher_forward)

    def stage_flops(self, stage: int) -> float:
        """See ``Method``."""
        return 3 * self._student_forward(stage) + self._teacher_forward(stage)

    def _mean(self, of_stage: Callable[[int], float]) -> float:
        return math.fsum(share * of_stage(stage) for stage, share in enumerate(shares(self.stages)))

    def _student_forward(self, stage: int) -> float:
        shape, method = self.config.architecture(), self.config.method
        flops = self._layers_flops(shape, stage, predicts=self._predicts(stage))
        if self._predicts(stage):
            heads = (method.alpha > 0) + (method.alpha < 1)
            flops += shape.token_head_flops(self.masked * heads)
            flops += shape.pooler_flops() if self.config.has_pooler else 0
        return flops

    def _teacher_forward(self, stage: int) -> float:
        predicts = self._predicts(stage) and self.config.method.alpha < 1
        flops = self._layers_flops(self.teacher_shape, stage, predicts)
        return flops + (self.teacher_shape.token_head_flops(self.masked) if predicts else 0)

    def _layers_flops(self, shape: Architecture, stage: int, predicts: bool) -> float:
        from albert_ablate.model.imitation import scores_flops

        length, learned = self.config.pairs.max_length, self._learned(stage)
        depth = shape.layers if predicts else max(learned, default=0)
        flops = replace(shape, layers=depth).encoder_flops(length) if depth else 0.0
        return flops + (len(learned) * scores_flops(shape, length) if "map" in self._weights and learned else 0.0)

    # --- model and losses ---

    def new_model(self) -> "StudentModel":
        """The student without dropout, initialised from the seed."""
        from albert_ablate.model.base import without_values
        from albert_ablate.model.pretraining import initialise
        from albert_ablate.model.student import StudentModel

        c = self.config
        shape = replace(c.architecture(), hidden_dropout=0.0, attention_dropout=0.0)
        model = without_values(lambda: StudentModel(shape, c.has_pooler))
        initialise(model, shape.initializer_range, c.seed)
        return model

    def take_teacher(self, model: "StudentModel", teacher: "PretrainingModel") -> None:
        """The teacher; with ``method.start=teacher`` its embedding and masked-LM head, but no norm of another type.

        A pooler and a sentence head stay as they are drawn; the teacher in memory has none.
        """
        from albert_ablate.model.student import begin_outside_layers

        model.learn_from(teacher)
        if self.config.method.start == "teacher":
            begin_outside_layers(model, teacher)

    def terms(self, model: "StudentModel", batch: "Batch") -> tuple[Term, ...]:
        """The losses over layers that have a weight, then ``kl``, ``mlm`` and ``sentence``: those of the stage."""
        import torch

        stage = model.stage
        learned, predicts = self._learned(stage), self._predicts(stage)
        depth = self.config.model.layers if predicts else max(learned)
        text = (batch.input_ids, batch.type_ids, batch.mask)
        alpha = self.config.method.alpha
        with torch.no_grad():
            needed = learned or (predicts and alpha < 1)
            taught = model.teacher.encoder.hidden_states(*text, layers=depth) if needed else []
        states = model.encoder.hidden_states(*text, layers=depth)
        found = self._layer_terms(model, batch, states, taught, learned) if learned else []
        if predicts:
            rows = batch.positions
            ours = states[-1].flatten(0, 1).index_select(0, rows)  # (M, H)
            if alpha < 1:
                theirs = taught[-1].flatten(0, 1).index_select(0, rows)
                loss = model.divergence(ours, theirs, batch.targets >= 0, 1.0)
                found.append(Term("kl", loss, "masked", weight=1 - alpha, epsilon=EPSILON))
            if alpha > 0:
                table = model.encoder.embedding.word.weight
                loss, hits = model.mlm_head.loss(ours, table, batch.targets, compiled=model.encoder.compiling)
                found.append(Term("mlm", loss, "masked", hits, weight=alpha, epsilon=EPSILON))
            found += self.sentence_terms(model, batch, states[-1][:, 0])
        return tuple(found)

    def _layer_terms(
        self,
        model: "StudentModel",
        batch: "Batch",
        states: "list[Tensor]",
        taught: "list[Tensor]",
        learned: tuple[int, ...],
    ) -> list[Term]:
        import torch

        from albert_ablate.model import transfer
        from albert_ablate.model.imitation import attention_of

        mask, weights, form = batch.mask, self._weights, self.config.method.feature_form
        losses: dict[str, Callable[[int], Tensor]] = {
            "feature": lambda n: transfer.feature_loss(states[n], taught[n], mask, form),
            "mean": lambda n: transfer.mean_loss(states[n], taught[n], mask),
            "spread": lambda n: transfer.spread_loss(states[n], taught[n], mask),
        }
        sums = {name: [losses[name](n) for n in learned] for name in losses if name in weights}
        if "map" in weights:
            ours = attention_of(model.encoder, states, learned, mask)
            with torch.no_grad():
                theirs = attention_of(model.teacher.encoder, taught, learned, mask)
            sums["map"] = [transfer.map_loss(x, y, mask) for x, y in zip(ours, theirs, strict=True)]
        return [Term(name, torch.stack(parts).sum(), "tokens", weight=weights[name]) for name, parts in sums.items()]

    def shown(self, line: Mapping[str, float]) -> str:
        """The losses of the stage, and the accuracy of masked LM and of the sentence task."""
        parts = [f"{name} {line[f'{name}_loss']:.3g}" for name in self._weights if f"{name}_loss" in line]
        parts += [f"KL {line['kl_loss']:.3f} nats"] if "kl_loss" in line else []
        parts += [f"MLM {line['mlm_loss']:.3f} nats, {line['mlm_accuracy']:.1%}"] if "mlm_loss" in line else []
        parts += [f"sentence {line['sentence_accuracy']:.1%}"] if "sentence_accuracy" in line else []
        return " · ".join(parts)


def _encoder_alone(name: str) -> float:
    """The factors of the joint transfer: all layers learn."""
    trained = name.startswith("encoder.") and not name.startswith("encoder.embedding.")
    return 1.0 if trained else 0.0


def _ramp(share: float) -> float:
    """Linear over the first tenth of a stage, then from 1.0 to 0.9 with a square root, as in the released code."""
    return min(10 * share, 0.9 + 0.1 * math.sqrt(1 - share))


def _constant(share: float) -> float:
    return 1.0
