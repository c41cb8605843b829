"""The finished run that a run continues (``init.run``): the same encoder, with its weights."""

from collections.abc import Iterator
from pathlib import Path

from albert_ablate.axes import Part, plain
from albert_ablate.config.schema import RunConfig
from albert_ablate.errors import ConfigError
from albert_ablate.methods.parents import Parent
from albert_ablate.methods.teacher import recorded_settings
from albert_ablate.model.shape import Shape

#: The run whose weights training starts with.
CONTINUED = "parent"
#: What must be equal in both encoders: setting -> field of their shapes.
_EQUAL = {
    "embed.size": "embedding_size", "model.hidden": "hidden_size", "model.heads": "heads",
    "model.intermediate": "intermediate_size", "model.norm": "norm", "model.embedding_norm": "embedding_norm",
    "model.norm_type": "norm_type", "model.trigram": "trigram", "model.table_width": "table_width",
    "block": "layer_type", "model.block_width": "block_width", "model.feed_forwards": "feed_forwards",
    "model.attention_input": "attention_input",
}  # fmt: skip


def continued(config: RunConfig) -> tuple[Parent, ...]:
    """The run that ``config`` continues; empty if it continues none.

    Raises ConfigError if its weights do not fit, RunFolderError if its settings cannot be read.
    """
    init = config.init
    if init.run is None or not init.continues:
        return ()
    path = Path(init.run).expanduser()
    parent = recorded_settings(path / "config.yaml", config)
    problems = [*_of_method(config), *_of_shape(config.architecture(), parent.architecture(), f"init.run={init.run}")]
    if problems:
        raise ConfigError(problems)
    return (Parent(CONTINUED, parent, {}, path, "init.run", init.run_id),)


def _of_method(config: RunConfig) -> Iterator[str]:
    """Why the method has no place for the weights of another run."""
    name, start = config.method.name, config.method.start
    if name.distils and start != "random":
        yield (
            f"method.start={start}: the student would begin with layers of its teacher and with the weights of another "
            "run. Use method.start=random."
        )


def _of_shape(ours: Shape, theirs: Shape, named: str) -> Iterator[str]:
    """A sentence for each way in which the encoder does not fit the one that is ``named``."""
    differing = {setting: (getattr(ours, name), getattr(theirs, name)) for setting, name in _EQUAL.items()}
    if ours.has_projection != theirs.has_projection:
        differing["model.projection"] = (_projected(ours), _projected(theirs))
    if ours.type_vocab_size and theirs.type_vocab_size:
        differing["model.type_vocab"] = (ours.type_vocab_size, theirs.type_vocab_size)
    unequal = {setting: values for setting, values in differing.items() if values[0] != values[1]}
    for setting, (own, other) in unequal.items():
        yield (
            f"{setting}={plain(own)}: the model of {named} has {plain(other)}. Leave it out, or begin with random "
            "weights: init.weights=random."
        )
    if unequal:
        return
    if ours.layers != theirs.layers and any(theirs.sharing.size(part) > 1 for part in Part):
        yield (
            f"model.layers={ours.layers}: the model of {named} has {theirs.layers} layers, which differ. Leave it out; "
            "only layers that share all their weights can become more or fewer."
        )
    elif any(len(origins) > 1 for part in Part for origins in origins_of(ours, theirs, part).values()):
        yield (
            f"share={ours.share} (share.groups={ours.groups}, share.inner={ours.inner}): layers would share a block "
            f"that is not the same in {named}, which has share={theirs.share}. Leave it out, or use share=none, "
            "whose layers begin with copies."
        )


def _projected(shape: Shape) -> str:
    return "always" if shape.has_projection else "auto"


def origins_of(ours: Shape, theirs: Shape, part: Part) -> dict[int, set[int]]:
    """Copy of a part of a layer -> the copies of it, in the other model, that its layers have there.

    Where the other model has fewer layers they all share one copy.
    """
    origins: dict[int, set[int]] = {}
    for layer in range(ours.layers):
        there = theirs.sharing.index(part, min(layer, theirs.layers - 1))
        origins.setdefault(ours.sharing.index(part, layer), set()).add(there)
    return origins
