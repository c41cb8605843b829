"""Learning rates that fall from layer to layer in fine-tuning (Clark et al., 2020; optimization.py of its code).

With factor d and L layers, the learning rate of the schedule is multiplied by

    rule        head   top layer   ...   bottom layer   embeddings and projection
    released    1      d^2               d^(L + 1)      d^(L + 2)
    intended    1      d                 d^L            d^(L + 1)

The released code counts a pooler between head and top layer that its models no longer have, as its author says.
"""

from albert_ablate.config.tasks import TuningUpdateConfig
from albert_ablate.model.blocks import bank_entries
from albert_ablate.model.shape import Shape


def layer_scale(tensor: str, shape: Shape, settings: TuningUpdateConfig) -> float:
    """The factor of the learning rate of ``tensor``, named as in a task's model: ``encoder.ffn.0.inner.weight``.

    1 without a decay. Raises ValueError as ``layers_below_head`` does; the configuration refuses such settings.
    """
    if settings.layer_decay is None:
        return 1.0
    below = layers_below_head(tensor, shape)
    if below and settings.layer_decay_rule == "released":
        below += 1
    return float(settings.layer_decay**below)


def layers_below_head(tensor: str, shape: Shape) -> int:
    """0 for the head with its pooler, 1 for the top layer, L for the bottom one, L + 1 for all below the layers.

    A norm after the last layer is of the top layer.

    Raises ValueError for a block that several layers share: it has no single depth.
    """
    part, _, name = tensor.partition(".")
    if part != "encoder":
        return 0
    kind, _, name = name.partition(".")
    if kind == "norm":
        return 1
    used_by = [
        layer for layer in range(shape.layers) for used, entry in bank_entries(shape, layer)
        if used == kind and name.startswith(f"{entry}.")
    ]  # fmt: skip
    if len(used_by) > 1:
        raise ValueError(f"{tensor}: layers {used_by} share it, so it has no single depth")
    return shape.layers - used_by[0] if used_by else shape.layers + 1
