"""The shape of a model: widths, layers, sharing and regularisation."""

from dataclasses import dataclass

from albert_ablate.axes import Axis, Share
from albert_ablate.model.block_pattern import BlockPattern
from albert_ablate.model.sharing import Sharing


@dataclass(frozen=True)
class Shape:
    """Shape and regularisation of one encoder with its pretraining heads.

    Letters in all shape comments: B batch, T tokens, E embedding, H hidden,
    N heads, D head width (attention_width / N), I intermediate, V vocabulary, L layers, M masked positions.
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
    inner: int = 1  # layers of the stack that a group repeats
    projection: bool = False  # whether to project even at E = H, as transformers' ALBERT does
    type_vocab_size: int = 2  # 0: no token types
    hidden_dropout: float = 0.0
    attention_dropout: float = 0.0
    activation: str = "gelu_tanh"  # or gelu_erf, relu
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02
    norm: str = "post"  # of a sub-layer: after the residual sum; pre: before the sub-layer, and after the last layer
    embedding_norm: bool = True  # of the sum of the embedding's tables
    residual_init: str = "plain"  # depth: the last matrices of sub-layers start 1 / sqrt(2 L) times as large
    lm_head: str = "transform"  # a key of ``heads.TOKEN_HEADS``
    norm_type: str = "layer_norm"  # of sub-layers and embedding; no_norm: ``norms.NoNorm``
    trigram: bool = False  # the projection reads the vectors of the next, of this and of the previous position
    table_width: str = "embedding"  # of position and type tables; hidden: they are added after the projection
    pooler: str = "tanh"  # bare: the state of [CLS] itself
    block_width: int | None = None  # inside a layer that has bottlenecks; None: other layers
    feed_forwards: int = 1  # of a layer that has bottlenecks
    attention_input: str = "body"  # of a layer that has bottlenecks: a key of ``bottleneck.SOURCES``
    choices: tuple[tuple[str, str], ...] = ()  # (group, value) of axes without a field
    layer_type: str = "standard"  # a key of ``blocks.LAYERS``: the sub-layers of a layer
    pattern: str = "full"  # a key of ``attention.PATTERNS``: which positions attend to which
    blocks: BlockPattern | None = None  # of a pattern in blocks

    def choice(self, axis: Axis) -> str:
        """The value of ``axis`` in ``choices``, else the axis's ``before``."""
        return dict(self.choices).get(axis.group, str(axis.before))

    @property
    def has_projection(self) -> bool:
        """Whether there is a projection to H: with trigrams, if the widths differ, or if ``projection`` is set."""
        return self.projection or self.trigram or self.embedding_size != self.hidden_size

    @property
    def tables_at_hidden(self) -> bool:
        """Whether position and type tables are H wide."""
        return self.table_width == "hidden"

    @property
    def has_statistics(self) -> bool:
        """Whether norms of sub-layers and embedding divide by a standard deviation."""
        return self.norm_type == "layer_norm"

    @property
    def attention_width(self) -> int:
        """The width of all heads together."""
        return self.hidden_size if self.block_width is None else self.block_width

    @property
    def norm_first(self) -> bool:
        """Whether a sub-layer reads the norm of the residual stream; the encoder then ends with a norm."""
        return self.norm == "pre"

    @property
    def scales_residuals(self) -> bool:
        """Whether the initial size of the matrices that write to the residual stream falls with depth."""
        return self.residual_init == "depth"

    @property
    def sharing(self) -> Sharing:
        """Which layers share which parts."""
        return Sharing(self.share, self.layers, self.groups, self.inner)
