"""Metrics of fine-tuned tasks by plain loops: shares, F1, correlations, SQuAD's exact match and F1."""

import math
import re
import string
from collections.abc import Callable, Sequence
from typing import Any

from .files import mean
from .student import quantile

_ARTICLES = re.compile(r"\b(a|an|the)\b")


def f1_of(counts: tuple[int, int, int]) -> float:
    """F1 of (hits, false alarms, misses); 0 where nothing is predicted or there."""
    hits, alarms, misses = counts
    return 2 * hits / (2 * hits + alarms + misses) if hits else 0.0


def _counts(predicted: Sequence[Any], gold: Sequence[Any], one: Any) -> tuple[int, int, int]:
    pairs = [(p == one, g == one) for p, g in zip(predicted, gold, strict=True)]
    return pairs.count((True, True)), pairs.count((True, False)), pairs.count((False, True))


def accuracy(predicted: Sequence[Any], gold: Sequence[Any]) -> float:
    """Share of equal values."""
    return sum(p == g for p, g in zip(predicted, gold, strict=True)) / len(gold)


def macro_f1(predicted: Sequence[Any], gold: Sequence[Any]) -> float:
    """Mean F1 of the classes that are predicted or there."""
    return mean([f1_of(_counts(predicted, gold, one)) for one in {*predicted, *gold}])


def f1(predicted: Sequence[int], gold: Sequence[int]) -> float:
    """F1 of class 1."""
    return f1_of(_counts(predicted, gold, 1))


def matthews(predicted: Sequence[int], gold: Sequence[int]) -> float:
    """Matthews correlation of two classes; 0 where a side is constant."""
    return pearson([float(p) for p in predicted], [float(g) for g in gold])


def pearson(predicted: Sequence[float], gold: Sequence[float]) -> float:
    """Pearson correlation; 0 where a side is constant."""
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
    """From 1; equal values share their mean rank."""
    order = sorted(range(len(values)), key=lambda place: values[place])
    ranks, start = [0.0] * len(values), 0
    while start < len(order):
        end = start
        while end + 1 < len(order) and values[order[end + 1]] == values[order[start]]:
            end += 1
        for place in order[start : end + 1]:
            ranks[place] = (start + end) / 2 + 1
        start = end + 1
    return ranks


#: Metric of single classes or numbers -> how it is computed.
MEASURES: dict[str, Callable[[Any, Any], float]] = {
    "accuracy": accuracy, "f1": f1, "macro_f1": macro_f1, "matthews": matthews, "pearson": pearson,
    "spearman": spearman, "mean_squared_error": squared_error,
}  # fmt: skip


def clustered(values: Sequence[float], clusters: Sequence[Any]) -> tuple[float, list[float]]:
    """Mean of shares with its t interval over clusters, cut at 0 and 1."""
    centre, sums, sizes = mean(values), dict[Any, float](), dict[Any, int]()
    for value, cluster in zip(values, clusters, strict=True):
        sums[cluster] = sums.get(cluster, 0.0) + value
        sizes[cluster] = sizes.get(cluster, 0) + 1
    k = len(sums)
    if k < 2:
        return centre, [centre, centre]
    squares = math.fsum((sums[one] - centre * sizes[one]) ** 2 for one in sums)
    margin = quantile(0.975, k - 1) * math.sqrt(squares * k / (k - 1)) / len(values)
    return centre, [max(centre - margin, 0.0), min(centre + margin, 1.0)]


def squad_words(text: str) -> list[str]:
    """Words that count: lower case, without ASCII punctuation and articles (evaluate-v1.1.py)."""
    kept = "".join(character for character in text.lower() if character not in string.punctuation)
    return _ARTICLES.sub(" ", kept).split()


def squad(predicted: str, answers: Sequence[str], version: str) -> tuple[float, float]:
    """Exact match and F1 of one question: the best over its answers; without one the answer is nothing."""
    if version == "2.0":
        answers = [answer for answer in answers if squad_words(answer)] or [""]
    own = squad_words(predicted)
    exact = max(float(own == squad_words(answer)) for answer in answers)
    return exact, max(_words_f1(own, squad_words(answer), version) for answer in answers)


def _words_f1(own: list[str], gold: list[str], version: str) -> float:
    if version == "2.0" and not (own and gold):
        return float(own == gold)
    left, common = list(gold), 0
    for word in own:
        if word in left:
            left.remove(word)
            common += 1
    return f1_of((common, len(own) - common, len(gold) - common))
