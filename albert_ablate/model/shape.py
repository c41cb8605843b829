"""What a model is built from: its widths, its layers, how they are shared, its regularisation."""

from dataclasses import dataclass

from albert_ablate.axes import Axis, Share
from albert_ablate.model.sharing import Sharing


@dataclass(frozen=True)
class Shape:
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
    layer_type: str = "standard"  # a layer's sub-layers: an entry of ``blocks.LAYERS``
    pattern: str = "full"  # which positions see each other: an entry of ``attention.PATTERNS``

    def choice(self, axis: Axis) -> str:
        """The value of an axis among ``choices``; what was before the axis where it is not there."""
        return dict(self.choices).get(axis.group, str(axis.before))

    @property
    def has_projection(self) -> bool:
        """The E -> H projection exists only where the two widths differ, unless it is asked for."""
        return self.projection or self.embedding_size != self.hidden_size

    @property
    def sharing(self) -> Sharing:
        """Which layers have sub-layers in common."""
        return Sharing(self.share, self.layers, self.groups, self.inner)
