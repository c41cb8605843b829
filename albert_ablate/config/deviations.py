"""Where a run's set-up differs from the paper's: a small run never passes for the paper's result."""

from typing import Any

from albert_ablate.config.schema import RunConfig

_COMPARED = ("model", "pairs", "masking", "optimizer", "budget")


def deviations(config: RunConfig, paper: RunConfig) -> list[dict[str, Any]]:
    """Every setting that differs from ``paper``, the paper preset with this run's axes."""
    ours, theirs = config.as_dict(), paper.as_dict()
    theirs["masking"]["long_words"] = "whole"
    if ours["masking"]["long_words"] == "auto":  # the text has not been seen
        ours["masking"]["long_words"] = "whole"
    pairs = [(f"{group}.{key}", ours[group][key], theirs[group][key]) for group in _COMPARED for key in theirs[group]]
    pairs += [("data.name", config.data.name, paper.data.name)]
    pairs += [("tokenizer.vocab_size", config.tokenizer.vocab_size, paper.tokenizer.vocab_size)]
    pairs += [("batch.size", config.batch.size, paper.batch.size)]
    return [{"field": field, "ours": a, "paper": b} for field, a, b in pairs if a != b]
