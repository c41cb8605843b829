"""A model's shape, and everything that follows from it before a tensor exists."""

from dataclasses import asdict, dataclass

from albert_ablate.axes import Axis, Share
from albert_ablate.model.sharing import bank_sizes


@dataclass(frozen=True)
class ParameterCount:
    """Unique parameters: shared blocks once, the tied vocabulary matrix once.

    The paper's tables are reproduced to the nearest million by ``with_pooler`` for shared arms
    and by ``encoder`` for unshared ones; no single rule gives every cell, so all three are kept.
    """

    embedding: int
    projection: int
    attention: int
    ffn: int
    pooler: int
    mlm_head: int
    sentence_head: int

    @property
    def encoder(self) -> int:
        """Embedding, projection and blocks."""
        return self.embedding + self.projection + self.attention + self.ffn

    @property
    def with_pooler(self) -> int:
        """``encoder`` plus the pooler."""
        return self.encoder + self.pooler

    @property
    def with_heads(self) -> int:
        """``with_pooler`` plus masked-LM and sentence head: what pretraining holds."""
        return self.with_pooler + self.mlm_head + self.sentence_head

    def as_dict(self) -> dict[str, int]:
        """The three totals and their parts."""
        totals = {"encoder": self.encoder, "with_pooler": self.with_pooler, "with_heads": self.with_heads}
        return totals | asdict(self)


@dataclass(frozen=True)
class Architecture:
    """Shape and regularisation of one encoder with its pretraining heads.

    Letters used in shape comments throughout: B batch, T tokens, E embedding, H hidden,
    N heads, D head width (H / N), I intermediate, V vocabulary, L layers, M masked positions.
    """

    vocab_size: int  # V
    embedding_size: int  # E
    hidden_size: int  # H
    layers: int  # L
    heads: int  # N
    intermediate_size: int  # I
    max_positions: int
    share: Share
    groups: int = 1
    inner: int = 1  # layers in what a group repeats
    projection: bool = False  # a projection at E = H too, as transformers' ALBERT has
    type_vocab_size: int = 2
    hidden_dropout: float = 0.0
    attention_dropout: float = 0.0
    activation: str = "gelu_tanh"
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02
    choices: tuple[tuple[str, str], ...] = ()  # (group, value) of axes that came later and have no field here

    def choice(self, axis: Axis) -> str:
        """The value of an axis among ``choices``; what was before the axis where it is not there."""
        return dict(self.choices).get(axis.group, str(axis.before))

    @property
    def has_projection(self) -> bool:
        """The E -> H projection exists only where the two widths differ, unless it is asked for."""
        return self.projection or self.embedding_size != self.hidden_size

    def parameters(self) -> ParameterCount:
        """Count without building. Paper, Tables 1 to 4."""
        v, e, h, i = self.vocab_size, self.embedding_size, self.hidden_size, self.intermediate_size
        attention_blocks, ffn_blocks = bank_sizes(self.share, self.layers, self.groups, self.inner)
        return ParameterCount(
            embedding=(v + self.max_positions + self.type_vocab_size) * e + 2 * e,
            projection=e * h + h if self.has_projection else 0,
            attention=attention_blocks * (4 * (h * h + h) + 2 * h),
            ffn=ffn_blocks * (2 * h * i + i + h + 2 * h),
            pooler=h * h + h,
            mlm_head=h * e + e + 2 * e + v,
            sentence_head=2 * h + 2,
        )

    def forward_flops(self, length: int, masked: float) -> float:
        """Floating-point operations of one forward pass over a sequence (a multiply-add is two).

        ``length`` in tokens, ``masked`` in positions sent to the vocabulary. Matrix products only.
        Sharing changes parameters, not operations. A training step costs three times this.
        """
        e, h, i = self.embedding_size, self.hidden_size, self.intermediate_size
        projection = 2 * e * h if self.has_projection else 0
        layer = 2 * (4 * h * h + 2 * h * i) + 4 * length * h
        return length * (projection + self.layers * layer) + masked * 2 * (h * e + e * self.vocab_size) + 2 * h * h
