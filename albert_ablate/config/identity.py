"""The identity of a run: what makes two runs the same."""

from collections.abc import Mapping
from typing import Any

from albert_ablate.axes import AXES
from albert_ablate.axes.block import INSIDE
from albert_ablate.config.init import NOTHING, continues
from albert_ablate.config.schema import RunConfig
from albert_ablate.files import digest

#: Raise when the same configuration would give other numbers.
NUMERICS = 1

#: Settings added later, with the value older runs had implicitly: left out at it, so that older runs keep their names.
LATER = {
    "model.type_vocab": 2, "model.projection": "auto", "share.inner": 1, "optimizer.skip_spikes": None,
    "masking.long_words": "whole", "tokenizer.words": "reference", "masking.fill": "auto", "masking.draw": "spans",
    "masking.smoothing": 0.7, "model.norm": "post", "model.embedding_norm": True, "model.residual_init": "plain",
    "model.lm_head": "transform", "pairs.join_documents": False,
    "warm_start.length": None, "model.norm_type": "layer_norm", "model.trigram": False,
    "model.table_width": "embedding", "model.pooler": "tanh",
    **{f"model.{key}": default for key, default in INSIDE.items()},
    **{f"init.{name}": value for name, value in NOTHING.items()},
}  # fmt: skip

#: The axes that were added later.
_LATER_AXES = [axis for axis in AXES if axis.before is not None]

#: ``LATER``, what counts only with one unit of the budget, and the axes added later with their other settings.
BEFORE = {
    **LATER,
    "budget.lookups": "free",
    **{axis.path: axis.before for axis in _LATER_AXES},
    **{path: value for axis in _LATER_AXES for path, value in axis.beside.items()},
}

#: Settings in identities -> their value in runs that lack them and in arms whose terms do not set them.
UNSAID = {
    "warm_start.layers": [],
    "init.run_id": None,
    **{axis.path: axis.before for axis in _LATER_AXES},
    **{path: value for axis in AXES for path, value in axis.beside.items()},
}

#: Group -> settings that are no part of an identity: a name that only labels the group's other settings, and the
#: folder of a teacher, whose own identity is a setting.
_UNCOUNTED = {
    **dict.fromkeys(("model", *(axis.group for axis in AXES if axis.setting != "name")), "name"),
    "method": "teacher",
}

#: Groups on where and how to run, which never change the numbers by intent.
INCIDENTAL = (
    "runtime", "paths", "tracker", "scale", "data", "tokenizer", "sweep", "rerun", "task", "tasks",
    "knowledge", "kshot",
)  # fmt: skip


def identity(config: RunConfig, store_fingerprint: str, precision: str) -> str:
    """12 hex digits over everything that changes the numbers, the seed included, and nothing else."""
    return digest(ingredients(config, store_fingerprint, precision), 12)


def ingredients(config: RunConfig, store_fingerprint: str, precision: str) -> dict[str, Any]:
    """The content of an identity: ``comparable`` settings, and the tokens in place of corpus and tokenizer."""
    return comparable(config.as_dict()) | {"tokens": store_fingerprint, "precision": precision, "numerics": NUMERICS}


def comparable(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that change a run's numbers, from nested plain values: the only rule for identities and set-ups.

    Settings added later may be missing, and are left out at the value that older runs had implicitly. Corpus and
    tokenizer are left out, as their tokens represent them and a file may move. Names are left out. Of the budget only
    the unit in use counts. The micro-batch counts only with dropout: it decides which sequence gets which noise.
    """
    kept = {
        group: {
            k: v for k, v in inner.items() if (f"{group}.{k}", v) not in BEFORE.items() and k != _UNCOUNTED.get(group)
        }
        if isinstance(inner, Mapping)
        else inner
        for group, inner in values.items()
        if group not in INCIDENTAL
    }
    if kept.get("masking", {}).get("long_words") == "auto":  # reading the text resolves it to whole or pieces
        del kept["masking"]["long_words"]
    kept = {group: inner for group, inner in kept.items() if inner != {}}  # a later axis at its implicit value
    model, batch, budget = (values.get(name, {}) for name in ("model", "batch", "budget"))
    if batch and not (model.get("hidden_dropout") or model.get("attention_dropout")):
        kept["batch"] = {"size": batch["size"]}
    if not any(kept.get("warm_start", {}).get(name) for name in ("layers", "length")):
        kept.pop("warm_start", None)
    kept.pop("init", None)
    if continues(values.get("init", {})):  # the parent's identity stands for its folder, its tokens for a tokenizer
        kept["init"] = {"run_id": values["init"]["run_id"]}
    unit = budget.get("unit", "steps")
    if budget and unit == "steps":
        kept["budget"] = {"steps": budget["steps"], "warmup_steps": budget["warmup_steps"]}
    elif budget:
        kept["budget"] = {unit: budget.get(unit), "warmup": budget["warmup_steps"] / budget["steps"]}
        if budget.get("lookups", "free") != "free":
            kept["budget"]["lookups"] = budget["lookups"]
    return kept


def settings_digest(config: RunConfig) -> str:
    """A stand-in for the identity before the corpus is read: cells with equal digests are the same run."""
    sources = digest([config.as_dict()["data"], config.as_dict()["tokenizer"]])
    return identity(config, sources, config.runtime.precision)


def readable_name(config: RunConfig) -> str:
    """Axes, model and seed, the readable part of a folder's name."""
    values = [(axis, axis.value(config)) for axis in AXES]
    axes = [axis.slug.format(value) for axis, value in values if axis.shown(value)]
    return "-".join([*axes, config.model.name, f"s{config.seed}"])
