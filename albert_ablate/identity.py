"""What makes two runs the same run."""

from typing import Any

from albert_ablate.config import RunConfig
from albert_ablate.files import digest

#: Raise when the same configuration would train to other numbers.
NUMERICS = 1

#: Settings that came later, at their only value of before: left out, so that older runs keep their names.
LATER = {"model.type_vocab": 2, "model.projection": "auto", "share.inner": 1}

#: Groups that say where and how, not what: they never change the numbers by intent.
INCIDENTAL = ("runtime", "paths", "tracker", "scale", "data", "tokenizer", "sweep", "rerun", "task", "tasks")


def identity(config: RunConfig, store_fingerprint: str, precision: str) -> str:
    """12 hex digits over everything that changes the numbers, the seed included, and nothing else.

    Corpus and tokenizer enter by the fingerprint of the tokens they give, so a file may move. Of the
    budget only the unit in use enters. Names are left out. So is the micro-batch without dropout,
    where it only divides the same sums; with dropout it decides which noise falls on which sequence.
    """
    values: dict[str, Any] = {k: v for k, v in config.as_dict().items() if k not in INCIDENTAL}
    for group in ("model", "share"):
        values[group] = {k: v for k, v in values[group].items() if LATER.get(f"{group}.{k}") != v and k != "name"}
    drops = config.model.hidden_dropout > 0 or config.model.attention_dropout > 0
    values["batch"] = {"size": config.batch.size} | ({"micro_size": config.batch.micro_size} if drops else {})
    if not config.warm_start.layers:
        del values["warm_start"]
    budget = config.budget
    if budget.unit == "steps":
        values["budget"] = {"steps": budget.steps, "warmup_steps": budget.warmup_steps}
    else:
        values["budget"] = {budget.unit: budget.amount(), "warmup": budget.warmup_steps / budget.steps}
    values |= {"tokens": store_fingerprint, "precision": precision, "numerics": NUMERICS}
    return digest(values, 12)


def settings_digest(config: RunConfig) -> str:
    """The same before the corpus is read: cells with equal digests are the same run."""
    sources = digest([config.as_dict()["data"], config.as_dict()["tokenizer"]])
    return identity(config, sources, config.runtime.precision)


def readable_name(config: RunConfig) -> str:
    """The axes, the model and the seed, for a folder's name."""
    embed = f"e{config.embed.size}"
    return f"{embed}-{config.share.strategy}-{config.objective.name}-{config.model.name}-s{config.seed}"
