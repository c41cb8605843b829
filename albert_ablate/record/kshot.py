"""Zero-, one- and few-shot evaluation: the files of one unit, and its entry in the run's ``results.json``.

A unit is one task with one number of demonstrations and one seed of their drawing.
"""

from typing import Any

from pydantic import Field

from albert_ablate.record.manifest import Code, Hardware
from albert_ablate.record.part import Interval, Number, Part, Whole


class Share(Part):
    """An accuracy with its interval over questions."""

    value: Number
    interval: Interval
    n: Whole  # questions


class KShotManifest(Part):
    """``manifest.json`` of a unit: everything needed to trace its scores."""

    task: str
    k: Whole
    seed: Whole | None  # None without demonstrations
    group: str  # the same for all seeds of one setting
    run: str
    checkpoint: str
    scoring: str  # likelihood, or pseudo-likelihood with its kind
    template: dict[str, Any]
    settings: dict[str, Any]  # of ``kshot`` and of the task, as far as they count
    data: str  # fingerprint
    tokenizer: str  # fingerprint
    room: Whole  # most tokens of a prompt with an option
    source: Code
    hardware: Hardware
    precision: str


class KShotUnit(Part):
    """``results.json`` of a unit. ``options.jsonl`` beside it has what it was computed from."""

    task: str
    k: Whole  # demonstrations asked for
    seed: Whole | None
    group: str
    scoring: str
    questions: Whole
    accuracy: dict[str, Share]  # by rule
    phenomena: dict[str, dict[str, Share]] = Field(default_factory=dict)  # phenomenon -> rule -> accuracy
    bigram: Share | None = None  # of a bigram model of the training text, for minimal pairs
    bigram_phenomena: dict[str, Share] = Field(default_factory=dict)  # phenomenon -> that model's accuracy
    chance: Number
    majority: Number | None  # of the training questions' most frequent answer; None without training questions
    k_used: Number  # mean number of demonstrations that fitted
    shortened: Whole  # questions with fewer demonstrations than asked for
    cut: Whole  # questions whose own beginning was cut
    moved: Whole  # questions whose options begin inside a token that spans prompt and option
    left_out: dict[str, Whole] = Field(default_factory=dict)  # minimal pairs, by reason
    passes: Whole  # sequences that the model read
    seconds: Number


class KShotEntry(Part):
    """One task and setting over its seeds."""

    task: str
    k: Whole
    group: str
    scoring: str
    seeds: list[int]  # empty without demonstrations
    questions: Whole
    accuracy: dict[str, Number]  # by rule, mean over seeds
    spread: dict[str, Number | None]  # by rule, standard deviation over seeds; None for a single one
    accuracies: dict[str, list[Number]]  # by rule, of each seed
    intervals: dict[str, Interval]  # by rule, over questions, of the first seed
    phenomena: dict[str, dict[str, Share]] = Field(default_factory=dict)  # of the first seed
    bigram: Share | None = None  # of the first seed
    bigram_phenomena: dict[str, Share] = Field(default_factory=dict)  # of the first seed
    chance: Number
    majority: Number | None
    k_used: Number  # mean over seeds
    cut: Whole  # of the first seed
    units: list[str]
