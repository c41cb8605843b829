"""Parameters and FLOPs of a shape, computed without building a model."""

from collections.abc import Mapping
from dataclasses import dataclass

from albert_ablate.model.shape import Shape


@dataclass(frozen=True)
class ParameterCount:
    """Unique parameters: shared blocks once, the tied vocabulary matrix once.

    To the nearest million, ``with_pooler`` reproduces the paper's tables for shared arms and ``encoder`` for unshared
    ones. No single total reproduces every cell, so all three are recorded.
    """

    embedding: int
    projection: int
    blocks: Mapping[str, int]  # kind -> parameters, in the order of a layer
    pooler: int
    heads: Mapping[str, int]  # pretraining head -> parameters
    norm: int = 0  # after the last layer

    @property
    def encoder(self) -> int:
        """Embedding, projection, blocks and the norm after the last layer."""
        return self.embedding + self.projection + sum(self.blocks.values()) + self.norm

    @property
    def with_pooler(self) -> int:
        """``encoder`` plus the pooler."""
        return self.encoder + self.pooler

    @property
    def with_heads(self) -> int:
        """``with_pooler`` plus the heads: the whole pretraining model."""
        return self.with_pooler + sum(self.heads.values())

    def as_dict(self) -> dict[str, int]:
        """The three totals and their parts; the norm after the last layer only where there is one."""
        return {
            "encoder": self.encoder,
            "with_pooler": self.with_pooler,
            "with_heads": self.with_heads,
            "embedding": self.embedding,
            "projection": self.projection,
            **self.blocks,
            **({"norm": self.norm} if self.norm else {}),
            "pooler": self.pooler,
            **self.heads,
        }


class Architecture(Shape):
    """A shape that counts its parameters and FLOPs.

    Each module counts its part. Modules load PyTorch, so they are imported only when something is counted.
    """

    def parameters(self) -> ParameterCount:
        """Unique parameters, counted without building the model (paper, Tables 1 to 4)."""
        from albert_ablate.model.blocks import KINDS, bank_sizes
        from albert_ablate.model.embedding import FactorisedEmbedding
        from albert_ablate.model.heads import Pooler, SentenceHead, token_head_type

        embedding, projection = FactorisedEmbedding.count(self)
        return ParameterCount(
            embedding=embedding,
            projection=projection,
            blocks={kind: size * KINDS[kind].parameters(self) for kind, size in bank_sizes(self).items()},
            norm=2 * self.hidden_size if self.norm_first else 0,
            pooler=Pooler.count(self),
            heads={"mlm_head": token_head_type(self).count(self), "sentence_head": SentenceHead.count(self)},
        )

    def encoder_flops(self, length: int) -> float:
        """Floating-point operations of one forward pass of the encoder over a sequence of ``length`` tokens.

        Matrix products only; a multiply-add counts as two. Sharing changes parameters, not FLOPs.
        """
        from albert_ablate.model.blocks import KINDS, sub_layers
        from albert_ablate.model.embedding import FactorisedEmbedding

        layer = sum(KINDS[kind].flops(self, length) for kind in sub_layers(self))
        return FactorisedEmbedding.flops(self, length) + self.layers * layer

    def forward_flops(self, length: int, masked: float) -> float:
        """FLOPs of one forward pass over a sequence: the encoder, the masked-LM head and the pooler.

        ``length`` is in tokens; ``masked`` is the number of predicted positions. The two logits of the sentence head
        are left out, as in all recorded counts. The last layer counts at every position, although without dropout it
        is computed only at the positions whose states are read. A training step costs three times as much.
        """
        return self.encoder_flops(length) + self.token_head_flops(masked) + self.pooler_flops()

    def token_head_flops(self, rows: float) -> float:
        """FLOPs of one forward pass of the head that predicts pieces, at so many positions."""
        from albert_ablate.model.heads import token_head_type

        return token_head_type(self).flops(self, rows)

    def lookup_flops(self, length: int) -> float:
        """FLOPs of one forward pass if the look-ups in the word table were a product with it."""
        return length * 2 * self.vocab_size * self.embedding_size

    def pooler_flops(self) -> float:
        """FLOPs of one forward pass of the pooler over a sequence."""
        from albert_ablate.model.heads import Pooler

        return Pooler.flops(self)
