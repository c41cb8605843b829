"""The shape of a model: widths, layers, sharing and regularisation."""

from dataclasses import dataclass

from albert_ablate.axes import Axis, Share
from albert_ablate.model.block_pattern import BlockPattern
from albert_ablate.model.sharing import Sharing


@dataclass(frozen=True)
class Shape:
    """Shape and regularisation of one encoder with its pretraining heads.

    Letters in all shape comments: B batch, T tokens, E embedding, H hidden,
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
    inner: int = 1  # layers of the stack that a group repeats
    projection: bool = False  # whether to project even at E = H, as transformers' ALBERT does
    type_vocab_size: int = 2  # 0: no token types
    hidden_dropout: float = 0.0
    attention_dropout: float = 0.0
    activation: str = "gelu_tanh"
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02
    norm: str = "post"  # of a sub-layer: after the residual sum; pre: before the sub-layer, and after the last layer
    embedding_norm: bool = True  # of the sum of the embedding's tables
    residual_init: str = "plain"  # depth: the last matrices of sub-layers start 1 / sqrt(2 L) times as large
    lm_head: str = "transform"  # a key of ``heads.TOKEN_HEADS``
    choices: tuple[tuple[str, str], ...] = ()  # (group, value) of axes without a field
    layer_type: str = "standard"  # a key of ``blocks.LAYERS``: the sub-layers of a layer
    pattern: str = "full"  # a key of ``attention.PATTERNS``: which positions attend to which
    blocks: BlockPattern | None = None  # of a pattern in blocks

    def choice(self, axis: Axis) -> str:
        """The value of ``axis`` in ``choices``, else the axis's ``before``."""
        return dict(self.choices).get(axis.group, str(axis.before))

    @property
    def has_projection(self) -> bool:
        """Whether there is an E -> H projection: if the widths differ or ``projection`` is set."""
        return self.projection or self.embedding_size != self.hidden_size

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
