"""What makes two runs the same run."""

from collections.abc import Mapping
from typing import Any

from albert_ablate.axes import AXES
from albert_ablate.config.schema import RunConfig
from albert_ablate.files import digest

#: Raise when the same configuration would train to other numbers.
NUMERICS = 1

#: Settings that came later, at their only value of before: left out, so that older runs keep their names.
LATER = {
    "model.type_vocab": 2, "model.projection": "auto", "share.inner": 1, "optimizer.skip_spikes": None,
    "masking.long_words": "whole", "tokenizer.words": "reference",
}  # fmt: skip

#: The same, and the axes that came later.
BEFORE = {**LATER, **{axis.path: axis.before for axis in AXES if axis.before is not None}}

#: Settings that identities hold, at their value in runs that lack them and in arms whose terms do not give them.
UNSAID = {"warm_start.layers": [], **{path: value for axis in AXES for path, value in axis.beside.items()}}

#: Groups whose ``name`` only says what their other settings are called.
_NAMED = ("model", *(axis.group for axis in AXES if axis.setting != "name"))

#: Groups that say where and how, not what: they never change the numbers by intent.
INCIDENTAL = ("runtime", "paths", "tracker", "scale", "data", "tokenizer", "sweep", "rerun", "task", "tasks")


def identity(config: RunConfig, store_fingerprint: str, precision: str) -> str:
    """12 hex digits over everything that changes the numbers, the seed included, and nothing else."""
    return digest(ingredients(config, store_fingerprint, precision), 12)


def ingredients(config: RunConfig, store_fingerprint: str, precision: str) -> dict[str, Any]:
    """What the identity is made from: ``comparable`` settings, and corpus and tokenizer by the tokens they give."""
    return comparable(config.as_dict()) | {"tokens": store_fingerprint, "precision": precision, "numerics": NUMERICS}


def comparable(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that change a run's numbers, of nested plain ones: the one rule for identities and for set-ups.

    Settings that came later are left out at the value that runs had before them, and may be missing. Corpus and
    tokenizer are told elsewhere, by their tokens, so that a file may move. Of the budget only the unit in use counts;
    names do not. The micro-batch without dropout only divides the same sums; with dropout it decides which noise
    falls on which sequence.
    """
    kept = {
        group: {k: v for k, v in own.items() if (f"{group}.{k}", v) not in BEFORE.items() and k not in _names(group)}
        if isinstance(own, Mapping)
        else own
        for group, own in values.items()
        if group not in INCIDENTAL
    }
    if kept.get("masking", {}).get("long_words") == "auto":  # until the text has been seen; then it is whole or pieces
        del kept["masking"]["long_words"]
    kept = {group: own for group, own in kept.items() if own != {}}  # an axis that came later, at its value of before
    model, batch, budget = (values.get(name, {}) for name in ("model", "batch", "budget"))
    if batch and not (model.get("hidden_dropout") or model.get("attention_dropout")):
        kept["batch"] = {"size": batch["size"]}
    if not kept.get("warm_start", {}).get("layers"):
        kept.pop("warm_start", None)
    unit = budget.get("unit", "steps")
    if budget and unit == "steps":
        kept["budget"] = {"steps": budget["steps"], "warmup_steps": budget["warmup_steps"]}
    elif budget:
        kept["budget"] = {unit: budget.get(unit), "warmup": budget["warmup_steps"] / budget["steps"]}
    return kept


def _names(group: str) -> tuple[str, ...]:
    """Settings of a group that only say what the others are called."""
    return ("name",) if group in _NAMED else ()


def settings_digest(config: RunConfig) -> str:
    """The same before the corpus is read: cells with equal digests are the same run."""
    sources = digest([config.as_dict()["data"], config.as_dict()["tokenizer"]])
    return identity(config, sources, config.runtime.precision)


def readable_name(config: RunConfig) -> str:
    """The axes, the model and the seed, for a folder's name."""
    values = [(axis, axis.value(config)) for axis in AXES]
    axes = [axis.slug.format(value) for axis, value in values if axis.shown(value)]
    return "-".join([*axes, config.model.name, f"s{config.seed}"])
