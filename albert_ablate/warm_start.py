"""Warm starts: a network that begins with the weights of a shallower one (paper, appendix A.1)."""

from dataclasses import replace

from albert_ablate.config import ModelConfig, RunConfig


def start_of(config: RunConfig) -> RunConfig | None:
    """The run that ``config`` starts from, or None: the same settings with the depth before."""
    if not config.warm_start.layers:
        return None
    *before, depth = config.warm_start.layers
    model = replace(config.model, layers=depth, name=_name(config.model, depth))
    return replace(config, model=model, warm_start=replace(config.warm_start, layers=tuple(before)))


def _name(model: ModelConfig, depth: int) -> str:
    """``large-3x1024``, whether from ``large`` or from ``large-6x1024``."""
    own = f"-{model.layers}x{model.hidden}"
    return f"{model.name.removesuffix(own)}-{depth}x{model.hidden}"
