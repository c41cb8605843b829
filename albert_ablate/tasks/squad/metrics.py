"""The official SQuAD metrics (evaluate-v1.1 and evaluate-v2.0), reproduced exactly, and their variants by characters.

In scripts without spaces a whole answer would be one word, including a closing "。". For these, each character is
a token, words of other scripts stay whole, and all Unicode punctuation is dropped. This is the mixed segmentation
of CMRC 2018 (Cui et al., 2019), with which MLQA (Lewis et al., 2020) counts common tokens as SQuAD does. DRCD, JaQuAD
and JSQuAD count characters too. (The script of CMRC 2018 counts the longest common run of tokens instead.)
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
    """The tokens that are compared, joined with spaces.

    Words in lower case, without ASCII punctuation and articles; or, ``by_characters``, mixed segments in lower
    case, without any punctuation or invisible characters.
    """
    if by_characters:
        kept = "".join(c for c in text.lower() if not is_punctuation(c) and category(c) != "Cf")
        return " ".join(mixed_segments(kept))
    kept = "".join(c for c in text.lower() if c not in _PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", kept).split())


def exact(predicted: str, gold: str, by_characters: bool = False) -> float:
    """1 if the normalised texts are equal, else 0."""
    return float(normalise(predicted, by_characters) == normalise(gold, by_characters))


def f1(predicted: str, gold: str, version: str, by_characters: bool = False) -> float:
    """Token F1. If a side is empty, 1.1 gives 0; 2.0 gives 1 if both are empty, else 0."""
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
    """Exact match and F1 of every scored question, from 0 to 1."""

    exact: dict[str, float]
    f1: dict[str, float]


def scores_11(
    golds: Mapping[str, Sequence[str]], predictions: Mapping[str, str], by_characters: Container[str] = ()
) -> QuestionScores:
    """SQuAD 1.1: the best score over the answers; a missing prediction counts as wrong.

    ``by_characters``: ids of the questions whose tokens are characters.
    """
    scores = QuestionScores({}, {})
    for key, answers in golds.items():
        predicted, letters = predictions.get(key), key in by_characters
        scores.exact[key] = 0.0 if predicted is None else max(exact(predicted, gold, letters) for gold in answers)
        scores.f1[key] = 0.0 if predicted is None else max(f1(predicted, gold, "1.1", letters) for gold in answers)
    return scores


def scores_20(
    golds: Mapping[str, Sequence[str]], predictions: Mapping[str, str], by_characters: Container[str] = ()
) -> QuestionScores:
    """SQuAD 2.0 before any threshold; missing predictions are skipped, as in the official script.

    Gold answers that normalise to an empty text are dropped; if none is left, the answer is the empty text.
    """
    scores = QuestionScores({}, {})
    for key, gold_answers in golds.items():
        if key not in predictions:
            continue
        letters = key in by_characters
        answers = [gold for gold in gold_answers if normalise(gold, letters)] or [""]
        scores.exact[key] = max(exact(predictions[key], gold, letters) for gold in answers)
        scores.f1[key] = max(f1(predictions[key], gold, "2.0", letters) for gold in answers)
    return scores


def with_threshold(
    scores: Mapping[str, float], golds: Mapping[str, Sequence[str]], null: Mapping[str, float], threshold: float
) -> dict[str, float]:
    """Scores if every question whose null score exceeds ``threshold`` gets the empty answer."""
    return {k: float(not golds[k]) if null[k] > threshold else score for k, score in scores.items()}


def best_threshold(
    scores: Mapping[str, float],
    golds: Mapping[str, Sequence[str]],
    predictions: Mapping[str, str],
    null: Mapping[str, float],
) -> tuple[float, float]:
    """(highest mean score, its threshold), searched over all null scores.

    The search uses the reported set, so the score is optimistic. It starts with no question answered and
    threshold 0, as in the official script.
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
    """Mean over all scored questions, or over those of ``keys``; None if there are none."""
    values = list(scores.values()) if keys is None else [scores[k] for k in keys if k in scores]
    return sum(values) / len(values) if values else None
