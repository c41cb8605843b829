"""Rules that choose an option from log-probabilities, as pure functions of what is recorded.

With s the summed log-probability of an option's tokens after the prompt, in nats:

    sum         s
    token       s / number of tokens (the default of Brown et al., 2020, section 2.4; depends on the tokenizer)
    byte        s / UTF-8 bytes of the option's words
    null        s minus the same sum after a neutral prompt such as ``Answer:`` (Brown et al., 2020, section 2.4)
    calibrated  log of the option's share p among all options, minus the log of its mean share after prompts whose
                question has no content (contextual calibration; Zhao et al., 2021)
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from albert_ablate.config.kshot import RuleName


@dataclass(frozen=True)
class OptionScores:
    """What was measured of one option. Log-probabilities are in nats."""

    text: str
    tokens: Sequence[float]  # log-probability of each of its tokens after the prompt
    null: float | None = None  # summed, after the neutral prompt
    content_free: Sequence[float] = ()  # summed, after each prompt without content
    bigram: float | None = None  # summed, by a bigram model: no rule reads it

    @property
    def total(self) -> float:
        """Summed log-probability of its tokens after the prompt."""
        return math.fsum(self.tokens)


def _null(options: Sequence[OptionScores]) -> list[float]:
    totals = [option.null for option in options]
    return [option.total - total for option, total in zip(options, totals, strict=True) if total is not None]


def _calibrated(options: Sequence[OptionScores]) -> list[float]:
    shares = _log_shares([option.total for option in options])
    free = [_log_shares(sums) for sums in zip(*(option.content_free for option in options), strict=True)]
    means = [math.log(math.fsum(map(math.exp, column)) / len(free)) for column in zip(*free, strict=True)]
    return _log_shares([share - mean for share, mean in zip(shares, means, strict=True)])


def _log_shares(totals: Sequence[float]) -> list[float]:
    """Logs of the normalised exponentials."""
    top = max(totals)
    norm = top + math.log(math.fsum(math.exp(total - top) for total in totals))
    return [total - norm for total in totals]


#: Rule -> (the options of a question -> a score for each; the highest wins).
RULES: dict[RuleName, Callable[[Sequence[OptionScores]], list[float]]] = {
    "sum": lambda options: [option.total for option in options],
    "token": lambda options: [option.total / len(option.tokens) for option in options],
    "byte": lambda options: [option.total / len(option.text.encode()) for option in options],
    "null": _null,
    "calibrated": _calibrated,
}


def credit(scores: Sequence[float], answer: int) -> float:
    """1 if the option ``answer`` has the highest score, 0 if another has; of n equally high ones, 1/n."""
    winners = [place for place, score in enumerate(scores) if score == max(scores)]
    return 1 / len(winners) if answer in winners else 0.0
