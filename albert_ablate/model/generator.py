"""The generator of ELECTRA: a small encoder with a masked-LM head whose samples replace tokens.

Letters: B batch, T tokens, M masked positions, E embedding, H hidden.
"""

from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from albert_ablate.model.encoder import Encoder
from albert_ablate.model.heads import token_head
from albert_ablate.model.sampling import Sampling
from albert_ablate.model.shape import Shape

S = TypeVar("S", bound=Shape)


class MaskedText(Protocol):
    """A masked batch, as ``data.batches`` makes them."""

    @property
    def input_ids(self) -> Tensor:
        """(B, T), masks applied."""

    @property
    def type_ids(self) -> Tensor:
        """(B, T)."""

    @property
    def mask(self) -> Tensor:
        """(B, T) bool, True at real tokens."""

    @property
    def positions(self) -> Tensor:
        """(M,) indices of masked positions into the flattened B * T grid."""

    @property
    def targets(self) -> Tensor:
        """(M,) the original ids; negative at fillers, which have no target."""

    @property
    def fakes(self) -> Tensor | None:
        """(M,) the samples of a generator that is no network."""


def generator_shape(shape: S, width: float, depth: float) -> S:
    """The shape of a generator with these fractions of the width and the layers of ``shape``, rounded.

    Heads have the same width, at least one; the intermediate width keeps its proportion to that of the attention
    (released code, ``get_generator_config``). Sharing is as in ``shape``, with no more groups than layers.
    """
    hidden, layers = round(shape.hidden_size * width), max(1, round(shape.layers * depth))
    attention = round(shape.attention_width * width)
    return replace(
        shape,
        hidden_size=hidden,
        layers=layers,
        heads=max(1, attention // (shape.attention_width // shape.heads)),
        intermediate_size=round(attention * shape.intermediate_size / shape.attention_width),
        block_width=None if shape.block_width is None else attention,
        groups=min(shape.groups, layers),
    )


@dataclass(frozen=True)
class Corrupted:
    """A batch in which samples have replaced tokens. The loss is a sum, so that micro-batches add up."""

    original: Tensor  # (B, T) ids
    input_ids: Tensor  # (B, T) ids with samples at the masked positions
    replaced: Tensor  # (B, T) bool: differs from the original; a sample that equals it is not replaced
    loss_sum: Tensor | None  # of the generator, nats over the M masked positions; None if it is no network
    hits: Tensor | None  # number of masked positions at which the original is its most probable piece


class Generator(nn.Module):
    """Encoder and masked-LM head. ``tie``: what it shares with ``encoder``, as in ``method.tie``."""

    def __init__(self, shape: Shape, encoder: Encoder, tie: str) -> None:
        super().__init__()
        self.shape = shape
        self.encoder = Encoder(shape)
        self.mlm_head = token_head(shape)
        if tie != "none":  # the released code shares the norm of the embedding too; the paper names two tables
            for name in ("word", "position", "token_type", "norm"):
                setattr(self.encoder.embedding, name, getattr(encoder.embedding, name))
        if tie == "all":
            self.encoder.embedding.projection = encoder.embedding.projection
            self.encoder.norm = encoder.norm
            for kind in self.encoder.kinds:
                setattr(self.encoder, kind, getattr(encoder, kind))

    def forward(self, batch: MaskedText, sampling: Sampling) -> tuple[Tensor, Tensor, Tensor]:
        """Loss sum in nats over masked positions, number of hits, and the (M,) samples, which have no gradient."""
        states = self.encoder(batch.input_ids, batch.type_ids, batch.mask, rows=batch.positions)  # (M, H)
        table = self.encoder.embedding.word.weight  # tied: its gradient comes from both uses
        return self.mlm_head.loss_and_samples(states, table, batch.targets, sampling, compiled=self.encoder.compiling)


def original_ids(batch: MaskedText) -> Tensor:
    """The (B, T) ids before masking."""
    return batch.input_ids.flatten().scatter(0, batch.positions, _targets(batch)).view(batch.input_ids.shape)


def _targets(batch: MaskedText) -> Tensor:
    """The (M,) original ids. Filler positions on a GPU have no target; they keep the id that is there."""
    here = batch.input_ids.flatten()[batch.positions]
    return torch.where(batch.targets >= 0, batch.targets, here).to(here.dtype)


def corrupt(batch: MaskedText, samples: Tensor, repeated: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The original ids, the ids with (M,) ``samples`` at the masked positions, and where they differ, each (B, T).

    Begins with the originals, so that no [MASK] is left. ``repeated``: positions may occur twice. Such a position gets
    the floor of the mean of its samples, an arbitrary piece, as in the released code.
    """
    masked, positions = batch.input_ids.flatten(), batch.positions
    targets = _targets(batch)
    samples = torch.where(batch.targets >= 0, samples, targets).to(masked.dtype)  # (M,)
    original = masked.scatter(0, positions, targets)
    if repeated:
        zeros = torch.zeros_like(masked, dtype=torch.int64)
        counts = zeros.scatter_add(0, positions, torch.ones_like(positions))
        sums = zeros.scatter_add(0, positions, samples.to(torch.int64))
        corrupted = torch.where(counts > 0, sums // counts.clamp(min=1), original).to(masked.dtype)
    else:
        corrupted = original.scatter(0, positions, samples)
    grid = batch.input_ids.shape
    return original.view(grid), corrupted.view(grid), (corrupted != original).view(grid)
