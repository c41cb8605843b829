"""Runs that come first: another run starts from their weights, or learns from them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from albert_ablate.config.schema import ModelConfig, RunConfig

#: The child begins with every tensor of this parent whose name and shape it has (paper, appendix A.1).
WARM_START = "warm start"


@dataclass(frozen=True)
class Parent:
    """A run that has to be finished before another one starts."""

    role: str  # what it is to the child
    config: RunConfig
    changed: Mapping[str, str]  # override -> value: what its command line has instead of the child's


def warm_start(config: RunConfig) -> tuple[Parent, ...]:
    """The same settings at the next lower depth of ``warm_start.layers``, which has its own parent in turn."""
    if not config.warm_start.layers:
        return ()
    *shallower, depth = config.warm_start.layers
    model = replace(config.model, layers=depth, name=_name(config.model, depth))
    changed = {
        "model.name": model.name,
        "model.layers": str(depth),
        "warm_start.layers": f"[{','.join(map(str, shallower))}]",
    }
    before = replace(config, model=model, warm_start=replace(config.warm_start, layers=tuple(shallower)))
    return (Parent(WARM_START, before, changed),)


def _name(model: ModelConfig, depth: int) -> str:
    """``large-3x1024``, whether from ``large`` or from ``large-6x1024``."""
    suffix = f"-{model.layers}x{model.hidden}"
    return f"{model.name.removesuffix(suffix)}-{depth}x{model.hidden}"
