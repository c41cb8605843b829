"""A student that imitates the embedding, the layers and the attention of a teacher (TinyBERT, Jiao et al., 2020).

Letters: B batch, T tokens, N heads, H width of the student, M its layers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from albert_ablate.model.attention import PATTERNS, View, views
from albert_ablate.model.blocks import KINDS, sub_layers
from albert_ablate.model.encoder import Encoder
from albert_ablate.model.rounding import wide_dtype
from albert_ablate.model.shape import Shape
from albert_ablate.model.sub_layer import Block, LayerCall

LayerMap = Literal["uniform", "top", "bottom"]
AttentionTarget = Literal["scores", "probabilities"]


@dataclass(frozen=True)
class ImitationSettings:
    """The losses of an imitation, as ``method`` and ``task.distil`` set them."""

    embedding_weight: float
    hidden_weight: float
    attention_weight: float
    layer_map: LayerMap
    attention_target: AttentionTarget
    projections: Literal["paper", "shared", "per_layer"]
    padding: Literal["left_out", "released"]

    @classmethod
    def of(cls, group: Any) -> Self:
        """The settings of these names in a group of the configuration, ``method`` or ``task.distil``."""
        return cls(**{field.name: getattr(group, field.name) for field in fields(cls)})

    @property
    def weights(self) -> dict[str, float]:
        """Name -> weight of each loss that is not left out."""
        weights = {
            "embedding": self.embedding_weight, "hidden": self.hidden_weight, "attention": self.attention_weight,
        }  # fmt: skip
        return {name: weight for name, weight in weights.items() if weight}

    @property
    def target(self) -> AttentionTarget | None:
        """The form of attention that is compared; None if none is."""
        return self.attention_target if self.attention_weight else None

    def pairs(self, student_layers: int, teacher_layers: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The compared layers of student and teacher, counted from 1. Empty if only the embedding is compared.

        Raises ValueError for depths that do not fit.
        """
        if not (self.hidden_weight or self.attention_weight):
            return (), ()
        return tuple(range(1, student_layers + 1)), layers_of(self.layer_map, student_layers, teacher_layers)


def layers_of(layer_map: LayerMap, student_layers: int, teacher_layers: int) -> tuple[int, ...]:
    """The teacher's layer, counted from 1, of each layer m of the student (section 4.4).

    ``uniform``: m N / M; ``top``: m + N - M; ``bottom``: m. Raises ValueError if the depths do not fit.
    """
    m, n = student_layers, teacher_layers
    if n < m:
        raise ValueError(f"{m} layers cannot learn from {n}: each needs a layer of the teacher.")
    if layer_map == "uniform" and n % m:
        raise ValueError(f"{n} layers of the teacher are no multiple of {m}.")
    first, step = {"uniform": (n // m, n // m), "top": (n - m + 1, 1), "bottom": (1, 1)}[layer_map]
    return tuple(range(first, first + m * step, step))


@dataclass(frozen=True)
class Observed:
    """What one network shows in a forward pass."""

    embedding: Tensor  # (B, T, H), after norm, dropout and the projection to H
    hidden: tuple[Tensor, ...]  # (B, T, H) each: output of the chosen layers
    attention: tuple[Tensor, ...]  # (B, N, T, T) each, fp32 or wider; empty if it was not asked for


def observe(
    encoder: Encoder,
    input_ids: Tensor,
    type_ids: Tensor,
    mask: Tensor | None,
    layers: Sequence[int],
    target: AttentionTarget | None,
) -> Observed:
    """The embedding and the ``layers``, counted from 1 and rising, of a forward pass over (B, T) ids, types and mask.

    ``target``: the form of attention; None: without attention. Later layers are not computed. ``scores`` are those
    before mask and softmax, 0 where the attention pattern hides a key. Queries and keys, and what comes before them in
    the layer, are computed a second time from the layer's input. Attention is without dropout. Raises ValueError for a
    layer that has no scores.
    """
    states = encoder.hidden_states(input_ids, type_ids, mask, layers=max(layers, default=0))
    attention: tuple[Tensor, ...] = ()
    if target is not None and layers:
        seen = views(encoder.shape, mask, states[0])
        attention = tuple(
            _attention(encoder, layer - 1, states[layer - 1], seen[layer - 1], target) for layer in layers
        )
    return Observed(states[0], tuple(states[layer] for layer in layers), attention)


def attention_of(
    encoder: Encoder, states: Sequence[Tensor], layers: Sequence[int], mask: Tensor | None
) -> tuple[Tensor, ...]:
    """The attention probabilities of ``layers``, counted from 1, (B, N, T, T) each; see ``observe``.

    ``states``: those of ``Encoder.hidden_states`` from the first on.
    """
    seen = views(encoder.shape, mask, states[0])
    return tuple(_attention(encoder, n - 1, states[n - 1], seen[n - 1], "probabilities") for n in layers)


def _attention(encoder: Encoder, layer: int, x: Tensor, view: View, target: AttentionTarget) -> Tensor:
    """(B, T, H) input of ``layer``, counted from 0 -> (B, N, T, T)."""
    scores, y, call = None, x, LayerCall(layer, x, view)
    for kind, entry in encoder.layer_blocks[layer]:
        block = encoder.get_submodule(kind)[entry]  # type: ignore[index]
        assert isinstance(block, Block)
        if KINDS[kind].score_flops is not None:
            scores = block.scores(y, x)
            break
        y = block(y, call)
    if scores is None:
        raise ValueError(f"Layer {layer + 1} has no attention scores.")
    scores = scores.to(wide_dtype(scores.dtype))
    if target == "probabilities":
        return torch.softmax(scores if view.bias is None else scores + view.bias, -1)
    return scores if view.visible is None else scores.masked_fill(~view.visible, 0.0)


class Imitation(nn.Module):
    """The learned projections of a student's states to the teacher's width, and the losses.

    ``paper``: W_e for the embedding and W_h for the layers (equations 8 and 9). ``shared``: one for all, as in the
    released code. ``per_layer``: one for each, as in the second release of its weights. All have a bias, as in the
    released code, and exist at equal widths too. A loss that is left out has no projection of its own.
    """

    def __init__(self, settings: ImitationSettings, student: Shape, teacher: Shape) -> None:
        super().__init__()
        self.settings = settings
        self._embedding, self._hidden = _projections(settings, student.layers)
        for name in dict.fromkeys([*self._embedding, *self._hidden]):
            self.add_module(name, nn.Linear(student.hidden_size, teacher.hidden_size))

    @staticmethod
    def count(settings: ImitationSettings, student: Shape, teacher: Shape) -> int:
        """Parameters of the projections."""
        embedding, hidden = _projections(settings, student.layers)
        return len({*embedding, *hidden}) * (student.hidden_size * teacher.hidden_size + teacher.hidden_size)

    @staticmethod
    def flops(settings: ImitationSettings, student: Shape, teacher: Shape, length: int) -> float:
        """FLOPs of one forward pass of the projections over a sequence of ``length`` tokens."""
        embedding, hidden = _projections(settings, student.layers)
        return (len(embedding) + len(hidden)) * length * 2 * student.hidden_size * teacher.hidden_size

    def losses(self, student: Observed, teacher: Observed, mask: Tensor) -> dict[str, tuple[Tensor, str]]:
        """Name -> (sum, the count that is the denominator of its mean) of each loss that is not left out.

        Both networks have read the same (B, T) text; ``mask`` is true at its real tokens. A loss is a mean squared
        error, summed over layers. The mean is over the teacher's width or over heads, and over real tokens or pairs of
        real tokens. With ``padding=released`` it is over all positions of the grid or pairs of them, and scores of
        padded keys count as equal. Differences are taken in fp32 or wider.
        """
        found = {}
        if self._embedding:
            found["embedding"] = self._states([student.embedding], [teacher.embedding], self._embedding, mask)
        if self._hidden:
            found["hidden"] = self._states(student.hidden, teacher.hidden, self._hidden, mask)
        if self.settings.target is not None:
            found["attention"] = self._attention(student.attention, teacher.attention, mask)
        return found

    def _states(
        self, ours: Sequence[Tensor], theirs: Sequence[Tensor], names: Sequence[str], mask: Tensor
    ) -> tuple[Tensor, str]:
        projected = [self.get_submodule(name)(x) for name, x in zip(names, ours, strict=True)]  # (B, T, width) each
        errors = _summed([_difference(x, y).square().mean(-1) for x, y in zip(projected, theirs, strict=True)])
        if self.settings.padding == "released":
            return errors.mean(1).sum(), "sequences"
        return (errors * mask).sum(), "tokens"

    def _attention(self, ours: Sequence[Tensor], theirs: Sequence[Tensor], mask: Tensor) -> tuple[Tensor, str]:
        errors = _summed([_difference(x, y).square().mean(1) for x, y in zip(ours, theirs, strict=True)])  # (B, T, T)
        if self.settings.padding == "left_out":
            return (errors * mask[:, :, None] * mask[:, None, :]).sum(), "pairs"
        if self.settings.target == "scores":  # at padded keys both are the mask's -10000, which the code sets to 0
            errors = errors * mask[:, None, :]
        return errors.mean((1, 2)).sum(), "sequences"


def _projections(settings: ImitationSettings, layers: int) -> tuple[list[str], list[str]]:
    """The names of the projections of the embedding and of each of the student's ``layers``; empty if left out."""
    each = [f"hidden_{layer}" for layer in range(1, layers + 1)]
    names = {"paper": ("embedding", ["hidden"] * layers), "shared": ("shared", ["shared"] * layers),
             "per_layer": ("embedding", each)}  # fmt: skip
    embedding, hidden = names[settings.projections]
    return [embedding] if settings.embedding_weight else [], hidden if settings.hidden_weight else []


def _difference(x: Tensor, y: Tensor) -> Tensor:
    wide = wide_dtype(x.dtype)
    return x.to(wide) - y.to(wide)


def _summed(parts: Sequence[Tensor]) -> Tensor:
    """The sum over layers of tensors of one shape."""
    return sum(parts[1:], parts[0])


def observing_flops(settings: ImitationSettings, shape: Shape, layers: Sequence[int], length: int) -> float:
    """FLOPs of computing the attention of ``layers`` in ``observe``, beside the forward pass itself.

    Raises ValueError if the layers of ``shape`` have no attention scores.
    """
    return 0.0 if settings.target is None else len(layers) * scores_flops(shape, length)


def scores_flops(shape: Shape, length: int) -> float:
    """FLOPs of the attention scores of a layer, computed from its input. Raises ValueError if it has none."""
    if not has_scores(shape):
        raise ValueError("Layers have no attention scores.")
    found = 0.0
    for kind in sub_layers(shape):
        score_flops = KINDS[kind].score_flops
        if score_flops is not None:
            return found + score_flops(shape, length)
        found += KINDS[kind].flops(shape, length)
    raise AssertionError  # has_scores found one


def has_scores(shape: Shape) -> bool:
    """Whether ``observe`` can compute the attention scores of the layers."""
    has = any(KINDS[kind].score_flops is not None for kind in sub_layers(shape))
    return has and PATTERNS[shape.pattern].kernel is None
