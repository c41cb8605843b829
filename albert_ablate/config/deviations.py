"""Lists where a run's set-up differs from the paper's, so that a small run is not taken for the paper's result."""

from typing import Any

from albert_ablate.config.schema import RunConfig

_COMPARED = ("model", "pairs", "masking", "optimizer", "budget")


def deviations(config: RunConfig, paper: RunConfig) -> list[dict[str, Any]]:
    """Every setting that differs from ``paper``, the paper preset with this run's axes."""
    values, reference = config.as_dict(), paper.as_dict()
    reference["masking"]["long_words"] = "whole"
    if values["masking"]["long_words"] == "auto":  # the text has not been read
        values["masking"]["long_words"] = "whole"
    compared = [(group, key) for group in _COMPARED for key in reference[group]]
    pairs = [(f"{group}.{key}", values[group][key], reference[group][key]) for group, key in compared]
    pairs += [("data.name", config.data.name, paper.data.name)]
    pairs += [("tokenizer.vocab_size", config.tokenizer.vocab_size, paper.tokenizer.vocab_size)]
    pairs += [("batch.size", config.batch.size, paper.batch.size)]
    return [{"field": field, "ours": ours, "paper": papers} for field, ours, papers in pairs if ours != papers]
