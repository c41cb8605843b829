"""The official SQuAD metrics, number for number (evaluate-v1.1 and evaluate-v2.0), and those by characters.

In scripts without spaces a whole answer would be one word, and a closing "。" a part of it. There a
token is a character, words of other scripts stay whole, and all of Unicode's punctuation is dropped:
the mixed segmentation of CMRC 2018 (Cui et al., 2019), with which MLQA (Lewis et al., 2020) counts
common tokens as SQuAD does; DRCD, JaQuAD and JSQuAD count characters too. (CMRC 2018's own script counts the
longest common run of tokens instead.)
"""

import re
import string
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from unicodedata import category

from albert_ablate.tasks.scripts import is_punctuation, mixed_segments

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = frozenset(string.punctuation)


def normalise(text: str, by_characters: bool = False) -> str:
    """The tokens that count, with a space between them.

    Lower case without ASCII punctuation and articles, by white space; or ``by_characters``, without
    any punctuation and invisible characters.
    """
    if by_characters:
        kept = "".join(c for c in text.lower() if not is_punctuation(c) and category(c) != "Cf")
        return " ".join(mixed_segments(kept))
    kept = "".join(c for c in text.lower() if c not in _PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", kept).split())


def exact(predicted: str, gold: str, by_characters: bool = False) -> float:
    """1 where the normalised texts are equal."""
    return float(normalise(predicted, by_characters) == normalise(gold, by_characters))


def f1(predicted: str, gold: str, version: str, by_characters: bool = False) -> float:
    """Token F1. With an empty side, 1.1 gives 0 and 2.0 gives 1 where both are empty."""
    a, b = normalise(predicted, by_characters).split(), normalise(gold, by_characters).split()
    if version == "2.0" and (not a or not b):
        return float(a == b)
    common = sum((Counter(a) & Counter(b)).values())
    if common == 0:
        return 0.0
    precision, recall = common / len(a), common / len(b)
    return 2 * precision * recall / (precision + recall)


@dataclass(frozen=True)
class QuestionScores:
    """Exact match and F1 of every scored question, in percent of 1."""

    exact: dict[str, float]
    f1: dict[str, float]


def scores_11(
    golds: Mapping[str, Sequence[str]], predictions: Mapping[str, str], by_characters: Container[str] = ()
) -> QuestionScores:
    """SQuAD 1.1: the best over the answers; a missing prediction is wrong and stays in the total.

    ``by_characters`` are the questions whose tokens are characters.
    """
    found = QuestionScores({}, {})
    for key, answers in golds.items():
        predicted, letters = predictions.get(key), key in by_characters
        found.exact[key] = 0.0 if predicted is None else max(exact(predicted, gold, letters) for gold in answers)
        found.f1[key] = 0.0 if predicted is None else max(f1(predicted, gold, "1.1", letters) for gold in answers)
    return found


def scores_20(
    golds: Mapping[str, Sequence[str]], predictions: Mapping[str, str], by_characters: Container[str] = ()
) -> QuestionScores:
    """SQuAD 2.0 before any threshold: a missing prediction is left out, as the official script does.

    Gold answers that normalise to nothing are dropped; without one left the answer is the empty text.
    """
    found = QuestionScores({}, {})
    for key, given in golds.items():
        if key not in predictions:
            continue
        letters = key in by_characters
        answers = [gold for gold in given if normalise(gold, letters)] or [""]
        found.exact[key] = max(exact(predictions[key], gold, letters) for gold in answers)
        found.f1[key] = max(f1(predictions[key], gold, "2.0", letters) for gold in answers)
    return found


def with_threshold(
    scores: Mapping[str, float], golds: Mapping[str, Sequence[str]], null: Mapping[str, float], threshold: float
) -> dict[str, float]:
    """Scores where every question whose null score exceeds ``threshold`` is answered with nothing."""
    return {k: float(not golds[k]) if null[k] > threshold else score for k, score in scores.items()}


def best_threshold(
    scores: Mapping[str, float],
    golds: Mapping[str, Sequence[str]],
    predictions: Mapping[str, str],
    null: Mapping[str, float],
) -> tuple[float, float]:
    """(highest mean score, its threshold), searched over the null scores themselves.

    On the set that is then reported, so the number is optimistic. Starts with no question answered
    and threshold 0, as the official script does.
    """
    current = best = float(sum(not golds[k] for k in golds))
    threshold = 0.0
    for key in sorted(null, key=lambda k: null[k]):
        if key not in scores:
            continue
        current += scores[key] if golds[key] else (-1.0 if predictions[key] else 0.0)
        if current > best:
            best, threshold = current, null[key]
    return best / len(scores), threshold


def mean(scores: Mapping[str, float], keys: Sequence[str] | None = None) -> float | None:
    """Mean over all scored questions, or over those of ``keys``; None where there are none."""
    values = list(scores.values()) if keys is None else [scores[k] for k in keys if k in scores]
    return sum(values) / len(values) if values else None
