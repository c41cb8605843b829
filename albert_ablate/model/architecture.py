"""What a model of some shape weighs and costs, before a tensor exists."""

from collections.abc import Mapping
from dataclasses import dataclass

from albert_ablate.model.shape import Shape


@dataclass(frozen=True)
class ParameterCount:
    """Unique parameters: shared blocks once, the tied vocabulary matrix once.

    The paper's tables are reproduced to the nearest million by ``with_pooler`` for shared arms
    and by ``encoder`` for unshared ones; no single rule gives every cell, so all three are kept.
    """

    embedding: int
    projection: int
    blocks: Mapping[str, int]  # by kind, in the order of a layer
    pooler: int
    heads: Mapping[str, int]  # of pretraining, by name

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
        """``with_pooler`` plus the heads: everything that pretraining holds."""
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
    """A shape with its price. Modules state theirs, and are imported when asked: they load PyTorch."""

    def parameters(self) -> ParameterCount:
        """Count without building. Paper, Tables 1 to 4."""
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

        A multiply-add is two; matrix products only. Sharing changes parameters, not operations.
        """
        from albert_ablate.model.blocks import KINDS, sub_layers
        from albert_ablate.model.embedding import FactorisedEmbedding

        layer = sum(KINDS[kind].flops(self, length) for kind in sub_layers(self))
        return FactorisedEmbedding.flops(self, length) + self.layers * layer

    def forward_flops(self, length: int, masked: float) -> float:
        """``encoder_flops``, the masked-LM head and the pooler, over a sequence.

        ``length`` in tokens, ``masked`` in positions sent to the vocabulary. The two logits of the
        sentence head are left out, as in every count recorded so far. The last layer counts at every
        position, although without dropout it is computed only where its states are read. A training
        step costs three times this.
        """
        from albert_ablate.model.heads import MaskedLMHead, Pooler

        return self.encoder_flops(length) + MaskedLMHead.flops(self, masked) + Pooler.flops(self)
