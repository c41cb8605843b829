"""The share axis: which bank entry each layer uses (paper, section 3.1; Table 4).

A layer is an attention block followed by a feed-forward block, each with its own LayerNorm: the
LayerNorm follows its sub-layer, so it is shared exactly when the sub-layer is. The encoder holds
one bank of attention blocks and one of feed-forward blocks; this map says which entry layer ``i``
uses. Nothing else in the project branches on the strategy.
"""

from albert_ablate.axes import Share


def layer_blocks(share: Share, layer: int, layers: int, groups: int = 1, inner: int = 1) -> tuple[int, int]:
    """(attention bank index, feed-forward bank index) of ``layer``, counted from 0.

    A shared sub-layer has one entry for each of ``groups`` runs of consecutive layers
    (section 4.5; 1 = one entry for the whole network), an unshared one an entry a layer. What is
    repeated is a stack of ``inner`` layers (the released code's inner_group_num; 1 in every model).
    """
    group = (layer // inner * groups // (layers // inner)) * inner + layer % inner
    attention, ffn = share.shared
    return (group if attention else layer, group if ffn else layer)


def bank_sizes(share: Share, layers: int, groups: int = 1, inner: int = 1) -> tuple[int, int]:
    """(number of distinct attention blocks, number of distinct feed-forward blocks)."""
    attention, ffn = layer_blocks(share, layers - 1, layers, groups, inner)
    return attention + 1, ffn + 1
