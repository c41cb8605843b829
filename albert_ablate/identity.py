"""What makes two runs the same run."""

from typing import Any

from albert_ablate.config import RunConfig
from albert_ablate.files import digest

#: Raise when the same configuration would train to other numbers.
NUMERICS = 1

#: Groups that say where and how, not what: they never change the numbers by intent.
_INCIDENTAL = ("runtime", "paths", "tracker", "scale", "data", "tokenizer")


def identity(config: RunConfig, store_fingerprint: str, precision: str) -> str:
    """12 hex digits over everything that changes the numbers, the seed included, and nothing else.

    Corpus and tokenizer enter by the fingerprint of the tokens they give, so a file may move.
    Names are left out. So is the micro-batch without dropout, where it only divides the same sums;
    with dropout it decides which noise falls on which sequence.
    """
    values: dict[str, Any] = {k: v for k, v in config.as_dict().items() if k not in _INCIDENTAL}
    values["model"] = {k: v for k, v in values["model"].items() if k != "name"}
    drops = config.model.hidden_dropout > 0 or config.model.attention_dropout > 0
    values["batch"] = {"size": config.batch.size} | ({"micro_size": config.batch.micro_size} if drops else {})
    values |= {"tokens": store_fingerprint, "precision": precision, "numerics": NUMERICS}
    return digest(values, 12)


def readable_name(config: RunConfig) -> str:
    """The axes, the model and the seed, for a folder's name."""
    embed = f"e{config.embed.size}"
    return f"{embed}-{config.share.strategy}-{config.objective.name}-{config.model.name}-s{config.seed}"
