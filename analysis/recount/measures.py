"""Metrics of fine-tuned tasks, computed by plain loops: accuracy, F1, correlations, SQuAD's exact match and F1."""

import math
import re
import string
from collections.abc import Callable, Sequence
from typing import Any

from .files import mean
from .student import quantile

_ARTICLES = re.compile(r"\b(a|an|the)\b")


def f1_of(counts: tuple[int, int, int]) -> float:
    """F1 of (hits, false alarms, misses); 0 without hits."""
    hits, alarms, misses = counts
    return 2 * hits / (2 * hits + alarms + misses) if hits else 0.0


def _counts(predicted: Sequence[Any], gold: Sequence[Any], label: Any) -> tuple[int, int, int]:
    pairs = [(p == label, g == label) for p, g in zip(predicted, gold, strict=True)]
    return pairs.count((True, True)), pairs.count((True, False)), pairs.count((False, True))


def accuracy(predicted: Sequence[Any], gold: Sequence[Any]) -> float:
    """Share of equal values."""
    return sum(p == g for p, g in zip(predicted, gold, strict=True)) / len(gold)


def macro_f1(predicted: Sequence[Any], gold: Sequence[Any]) -> float:
    """Mean F1 of the classes that occur among predictions or answers."""
    return mean([f1_of(_counts(predicted, gold, label)) for label in {*predicted, *gold}])


def f1(predicted: Sequence[int], gold: Sequence[int]) -> float:
    """F1 of class 1."""
    return f1_of(_counts(predicted, gold, 1))


def matthews(predicted: Sequence[int], gold: Sequence[int]) -> float:
    """Matthews correlation of two classes; 0 if predictions or answers are constant."""
    return pearson([float(p) for p in predicted], [float(g) for g in gold])


def pearson(predicted: Sequence[float], gold: Sequence[float]) -> float:
    """Pearson correlation; 0 if predictions or answers are constant."""
    a, b = mean(predicted), mean(gold)
    together = math.fsum((p - a) * (g - b) for p, g in zip(predicted, gold, strict=True))
    alone = math.sqrt(math.fsum((p - a) ** 2 for p in predicted) * math.fsum((g - b) ** 2 for g in gold))
    return together / alone if alone else 0.0


def spearman(predicted: Sequence[float], gold: Sequence[float]) -> float:
    """Pearson correlation of the ranks."""
    return pearson(_ranks(predicted), _ranks(gold))


def squared_error(predicted: Sequence[float], gold: Sequence[float]) -> float:
    """Mean squared error."""
    return mean([(p - g) ** 2 for p, g in zip(predicted, gold, strict=True)])


def _ranks(values: Sequence[float]) -> list[float]:
    """Ranks from 1; equal values share their mean rank."""
    order = sorted(range(len(values)), key=lambda index: values[index])
    ranks, start = [0.0] * len(values), 0
    while start < len(order):
        end = start
        while end + 1 < len(order) and values[order[end + 1]] == values[order[start]]:
            end += 1
        for index in order[start : end + 1]:
            ranks[index] = (start + end) / 2 + 1
        start = end + 1
    return ranks


#: Metric of classes or numbers -> its function.
MEASURES: dict[str, Callable[[Any, Any], float]] = {
    "accuracy": accuracy, "f1": f1, "macro_f1": macro_f1, "matthews": matthews, "pearson": pearson,
    "spearman": spearman, "mean_squared_error": squared_error,
}  # fmt: skip


def clustered(values: Sequence[float], clusters: Sequence[Any]) -> tuple[float, list[float]]:
    """Mean of ``values`` with its t interval over clusters, cut at 0 and 1."""
    centre, sums, sizes = mean(values), dict[Any, float](), dict[Any, int]()
    for value, cluster in zip(values, clusters, strict=True):
        sums[cluster] = sums.get(cluster, 0.0) + value
        sizes[cluster] = sizes.get(cluster, 0) + 1
    k = len(sums)
    if k < 2:
        return centre, [centre, centre]
    squares = math.fsum((sums[cluster] - centre * sizes[cluster]) ** 2 for cluster in sums)
    margin = quantile(0.975, k - 1) * math.sqrt(squares * k / (k - 1)) / len(values)
    return centre, [max(centre - margin, 0.0), min(centre + margin, 1.0)]


def answer_words(text: str) -> list[str]:
    """The words that are compared: in lower case, without ASCII punctuation and articles (evaluate-v1.1.py)."""
    kept = "".join(character for character in text.lower() if character not in string.punctuation)
    return _ARTICLES.sub(" ", kept).split()


def squad(predicted: str, answers: Sequence[str], version: str) -> tuple[float, float]:
    """Exact match and F1 of one question, the best over its answers; an unanswerable question has the empty answer."""
    if version == "2.0":
        answers = [answer for answer in answers if answer_words(answer)] or [""]
    given = answer_words(predicted)
    exact = max(float(given == answer_words(answer)) for answer in answers)
    return exact, max(_overlap_f1(given, answer_words(answer), version) for answer in answers)


def _overlap_f1(given: list[str], gold: list[str], version: str) -> float:
    if version == "2.0" and not (given and gold):
        return float(given == gold)
    left, common = list(gold), 0
    for word in given:
        if word in left:
            left.remove(word)
            common += 1
    return f1_of((common, len(given) - common, len(gold) - common))
