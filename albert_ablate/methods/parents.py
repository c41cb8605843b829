"""Parents: runs whose weights another run starts from, or learns from."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from albert_ablate.axes import ATTENTION, Attention
from albert_ablate.config.attention import AttentionConfig
from albert_ablate.config.schema import BatchConfig, ModelConfig, RunConfig

#: The child starts with all tensors of this parent that agree in name and shape (paper, appendix A.1), and with its
#: table of positions, whose rows are repeated where the child has more (as Longformer's; Beltagy et al., 2020).
WARM_START = "warm start"


@dataclass(frozen=True)
class Parent:
    """A run that must be finished before another run, its child, starts."""

    role: str  # its role for the child, such as ``WARM_START``
    config: RunConfig
    changed: Mapping[str, str]  # key -> value of the overrides in which its command line differs from the child's
    folder: Path | None = None  # of a finished run that the settings name; None: the run of ``config``
    named_by: str = ""  # the setting that names it
    identity: str | None = None  # of the run that it named when this one was begun


def warm_start(config: RunConfig) -> tuple[Parent, ...]:
    """The parent of a warm start: the same settings at the next lower depth of ``warm_start.layers``, or shorter.

    It may have a parent itself. Empty without a warm start.
    """
    if config.warm_start.length is not None:
        return (_shorter(config, config.warm_start.length),)
    if not config.warm_start.layers:
        return ()
    *shallower, depth = config.warm_start.layers
    model = replace(config.model, layers=depth, name=named_after(config.model, depth, config.model.hidden))
    changed = {
        "model.name": model.name,
        "model.layers": str(depth),
        "warm_start.layers": f"[{','.join(map(str, shallower))}]",
    }
    parent = replace(config, model=model, warm_start=replace(config.warm_start, layers=tuple(shallower)))
    return (Parent(WARM_START, parent, changed),)


def _shorter(config: RunConfig, length: int) -> Parent:
    """The run with full attention on sequences of ``length`` tokens, equally many tokens in a batch.

    Arms with full attention and in blocks start from the same one.
    """
    times = config.pairs.max_length // length
    batch = BatchConfig(size=config.batch.size * times, micro_size=config.batch.micro_size * times)
    settings = {name.removeprefix("attention."): value for name, value in ATTENTION.beside.items()}
    attention = AttentionConfig(name=Attention.FULL, **settings)
    parent = replace(
        config,
        model=replace(config.model, max_positions=length),
        pairs=replace(config.pairs, max_length=length),
        attention=attention,
        batch=batch,
        warm_start=replace(config.warm_start, length=None),
    )
    changed = {
        "model.max_positions": str(length), "pairs.max_length": str(length), "batch.size": str(batch.size),
        "batch.micro_size": str(batch.micro_size), "warm_start.length": "null",
    }  # fmt: skip
    if config.attention != attention:
        changed |= {"attention": str(Attention.FULL)}
        changed |= {name: as_word(value) for name, value in ATTENTION.beside.items()}
    return Parent(WARM_START, parent, changed)


def named_after(model: ModelConfig, layers: int, hidden: int) -> str:
    """The name of another depth or width of ``model``: ``large-3x1024``, both from ``large`` and ``large-6x1024``."""
    suffix = f"-{model.layers}x{model.hidden}"
    return f"{model.name.removesuffix(suffix)}-{layers}x{hidden}"


def as_word(value: object) -> str:
    """A plain value in the syntax of the command line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)
