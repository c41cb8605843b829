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

    @property
    def encoder(self) -> int:
        """Embedding, projection and blocks."""
        return self.embedding + self.projection + sum(self.blocks.values())

    @property
    def with_pooler(self) -> int:
        """``encoder`` plus the pooler."""
        return self.encoder + self.pooler

    @property
    def with_heads(self) -> int:
        """``with_pooler`` plus the heads: the whole pretraining model."""
        return self.with_pooler + sum(self.heads.values())

    def as_dict(self) -> dict[str, int]:
        """The three totals and their parts."""
        return {
            "encoder": self.encoder,
            "with_pooler": self.with_pooler,
            "with_heads": self.with_heads,
            "embedding": self.embedding,
            "projection": self.projection,
            **self.blocks,
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
        from albert_ablate.model.heads import MaskedLMHead, Pooler, SentenceHead

        embedding, projection = FactorisedEmbedding.count(self)
        return ParameterCount(
            embedding=embedding,
            projection=projection,
            blocks={kind: size * KINDS[kind].parameters(self) for kind, size in bank_sizes(self).items()},
            pooler=Pooler.count(self),
            heads={"mlm_head": MaskedLMHead.count(self), "sentence_head": SentenceHead.count(self)},
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
        from albert_ablate.model.heads import MaskedLMHead

        return self.encoder_flops(length) + MaskedLMHead.flops(self, masked) + self.pooler_flops()

    def lookup_flops(self, length: int) -> float:
        """FLOPs of one forward pass if the look-ups in the word table were a product with it."""
        return length * 2 * self.vocab_size * self.embedding_size

    def pooler_flops(self) -> float:
        """FLOPs of one forward pass of the pooler over a sequence."""
        from albert_ablate.model.heads import Pooler

        return Pooler.flops(self)
