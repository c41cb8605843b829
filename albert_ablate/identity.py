"""What makes two runs the same run."""

from typing import Any

from albert_ablate.axes import AXES
from albert_ablate.config import RunConfig
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

#: Groups that say where and how, not what: they never change the numbers by intent.
INCIDENTAL = ("runtime", "paths", "tracker", "scale", "data", "tokenizer", "sweep", "rerun", "task", "tasks")


def identity(config: RunConfig, store_fingerprint: str, precision: str) -> str:
    """12 hex digits over everything that changes the numbers, the seed included, and nothing else."""
    return digest(ingredients(config, store_fingerprint, precision), 12)


def ingredients(config: RunConfig, store_fingerprint: str, precision: str) -> dict[str, Any]:
    """What the identity is made from.

    Corpus and tokenizer enter by the fingerprint of the tokens they give, so a file may move. Of the
    budget only the unit in use enters. Names are left out. So is the micro-batch without dropout,
    where it only divides the same sums; with dropout it decides which noise falls on which sequence.
    """
    values: dict[str, Any] = {k: v for k, v in config.as_dict().items() if k not in INCIDENTAL}
    if values["masking"]["long_words"] == "auto":  # until the text has been seen; then it is whole or pieces
        values["masking"] = values["masking"] | {"long_words": "whole"}
    for group, own in list(values.items()):
        if isinstance(own, dict):
            values[group] = {k: v for k, v in own.items() if (f"{group}.{k}", v) not in BEFORE.items()}
            if own and not values[group]:
                del values[group]  # an axis that came later, at its value of before
    for group in ("model", "share"):
        values[group].pop("name", None)
    drops = config.model.hidden_dropout > 0 or config.model.attention_dropout > 0
    values["batch"] = {"size": config.batch.size} | ({"micro_size": config.batch.micro_size} if drops else {})
    if not config.warm_start.layers:
        del values["warm_start"]
    budget = config.budget
    if budget.unit == "steps":
        values["budget"] = {"steps": budget.steps, "warmup_steps": budget.warmup_steps}
    else:
        values["budget"] = {budget.unit: budget.amount(), "warmup": budget.warmup_steps / budget.steps}
    return values | {"tokens": store_fingerprint, "precision": precision, "numerics": NUMERICS}


def differences(one: Any, other: Any, name: str = "") -> list[str]:
    """``field: a, not b`` for every field of two nested dictionaries that differs."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = sorted(one.keys() | other.keys())
        return [d for key in keys for d in differences(one.get(key), other.get(key), f"{name}.{key}".lstrip("."))]
    return [] if one == other else [f"{name}: {one}, not {other}"]


def settings_digest(config: RunConfig) -> str:
    """The same before the corpus is read: cells with equal digests are the same run."""
    sources = digest([config.as_dict()["data"], config.as_dict()["tokenizer"]])
    return identity(config, sources, config.runtime.precision)


def readable_name(config: RunConfig) -> str:
    """The axes, the model and the seed, for a folder's name."""
    values = [(axis, axis.value(config)) for axis in AXES]
    axes = [axis.slug.format(value) for axis, value in values if axis.shown(value)]
    return "-".join([*axes, config.model.name, f"s{config.seed}"])
