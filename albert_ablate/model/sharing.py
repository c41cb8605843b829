"""The share axis: which copy of a sub-layer each layer uses (paper, section 3.1; Table 4).

A strategy speaks of two parts of a layer, attention and feed-forward network, and every kind of
sub-layer follows one of them. A LayerNorm belongs to its sub-layer, so it is shared exactly when
the sub-layer is. Nothing else in the project branches on the strategy.
"""

from dataclasses import dataclass

from albert_ablate.axes.share import Part, Share


@dataclass(frozen=True)
class Sharing:
    """A strategy, applied to ``layers`` layers.

    A shared part has one copy for each of ``groups`` runs of consecutive layers (section 4.5;
    1 = one copy for the whole network), an unshared part one copy a layer. What a group repeats is
    a stack of ``inner`` layers (the released code's inner_group_num; 1 in every model).
    """

    strategy: Share
    layers: int
    groups: int = 1
    inner: int = 1

    def index(self, part: Part, layer: int) -> int:
        """The copy of ``part`` that ``layer`` uses; both are counted from 0."""
        if not self.strategy.shares(part):
            return layer
        stacks = self.layers // self.inner
        return (layer // self.inner * self.groups // stacks) * self.inner + layer % self.inner

    def size(self, part: Part) -> int:
        """The number of distinct copies of ``part``."""
        return self.index(part, self.layers - 1) + 1
