"""The settings of zero-, one- and few-shot evaluation: the group ``kshot``."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from albert_ablate.config.tasks import Count, Positive

_STRICT = ConfigDict(extra="forbid")


def _null(word: Any) -> Any:
    return "null" if word is None else word


#: How the option of a question is chosen from the log-probabilities of the options' tokens.
RuleName = Literal["sum", "token", "byte", "null", "calibrated"]
#: YAML reads the bare word as an empty value.
_Rule = Annotated[RuleName, BeforeValidator(_null)]
#: How a masked model scores a token: from all others, or without those of the same word to its right.
PLL = Literal["word_l2r", "plain"]
#: When a run's tasks are asked: by the command ``kshot`` alone, after their fine-tuning too, or instead of it.
Ask = Literal["command", "after", "instead"]
#: How a bad sentence is made of a good one of the held-out text (``prompting.corruptions``).
Corruption = Literal["swap", "replace", "agreement", "preposition"]


@dataclass(frozen=True, config=_STRICT)
class MinimalPairsConfig:
    """Pairs of a good and a bad sentence, from a user's files or made of the run's held-out text."""

    file: Annotated[str, Field(min_length=1)] | None  # or a folder
    rules: Annotated[tuple[Corruption, ...], Field(min_length=1)]
    pairs: Positive  # of each rule


@dataclass(frozen=True, config=_STRICT)
class KShotConfig:
    """How prompts are made and their options scored."""

    ask: Ask
    k: Annotated[tuple[Count, ...], Field(min_length=1)]
    seeds: Annotated[tuple[Count, ...], Field(min_length=1)]
    rules: Annotated[tuple[_Rule, ...], Field(min_length=1)]
    template: Annotated[str, Field(min_length=1)] | None  # a file
    examples: Positive | None
    balanced: bool
    pll: PLL
    minimal_pairs: MinimalPairsConfig | None  # asked by ``task=minimal_pairs``
