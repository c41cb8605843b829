"""The share axis: which copy of a sub-layer each layer uses (paper, section 3.1; Table 4).

A strategy decides for two parts of a layer, attention and feed-forward network, whether they are shared. Every kind of
sub-layer belongs to one of these parts. A LayerNorm belongs to its sub-layer and is shared with it. No other code
branches on the strategy.
"""

from dataclasses import dataclass

from albert_ablate.axes.share import Part, Share


@dataclass(frozen=True)
class Sharing:
    """A strategy, applied to ``layers`` layers.

    The layers are split into ``groups`` groups of consecutive layers (section 4.5; 1 = the whole network). A group
    repeats a stack of ``inner`` layers (inner_group_num of the released code; 1 in every released model). A shared part
    has one copy for each layer of a group's stack, an unshared part one for each layer.
    """

    strategy: Share
    layers: int
    groups: int = 1
    inner: int = 1

    def index(self, part: Part, layer: int) -> int:
        """The number of the copy of ``part`` that ``layer`` uses; copies and layers are counted from 0."""
        if not self.strategy.shares(part):
            return layer
        stacks = self.layers // self.inner
        return (layer // self.inner * self.groups // stacks) * self.inner + layer % self.inner

    def repeats(self, part: Part) -> bool:
        """Whether several layers use one copy of ``part``."""
        return self.size(part) < self.layers

    def size(self, part: Part) -> int:
        """The number of distinct copies of ``part``."""
        return self.index(part, self.layers - 1) + 1
