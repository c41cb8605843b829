"""Metrics of the tasks with their 95% intervals; scikit-learn and scipy compute them.

An interval covers the examples of the set, not seeds. A share of right answers has Wilson's; means
over questions that share a passage have a t interval over passages; correlations and F1 have the
percentile interval of 1,000 resamples of the examples, drawn from a named stream.
"""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy

from albert_ablate import streams
from albert_ablate.evaluation.intervals import CONFIDENCE, SHARE, clustered_mean, proportion

_RESAMPLES = 1000

Metric = Callable[[np.ndarray, np.ndarray], float]


def _sklearn() -> Any:
    """Loaded at first use: it takes a second, and training does not need it."""
    from sklearn import metrics

    return metrics


def accuracy(predicted: np.ndarray, gold: np.ndarray) -> dict[str, Any]:
    """Share of equal labels with Wilson's interval."""
    found = proportion(int((predicted == gold).sum()), len(gold))
    return {"value": found["accuracy"], "interval": found["interval"]}


def clustered(values: np.ndarray, clusters: np.ndarray) -> dict[str, Any]:
    """Mean of (n,) shares whose t interval takes the (n,) clusters to be independent."""
    _, place = np.unique(clusters, return_inverse=True)
    mean, interval = clustered_mean(np.bincount(place, weights=values), np.bincount(place).astype(float), SHARE)
    return {"value": mean, "interval": interval}


def resampled(metric: Metric, predicted: np.ndarray, gold: np.ndarray) -> dict[str, Any]:
    """``metric`` of all examples, and its percentile interval over resampled examples."""
    value = metric(predicted, gold)
    draws = streams.generator(0, "metric resamples").integers(0, len(gold), (_RESAMPLES, len(gold)))
    found = [metric(predicted[rows], gold[rows]) for rows in draws]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(found, [tail, 1 - tail])
    return {"value": value, "interval": [float(low), float(high)]}


def matthews(predicted: np.ndarray, gold: np.ndarray) -> float:
    """Matthews correlation; 0 where a side is constant."""
    return float(_sklearn().matthews_corrcoef(gold, predicted))


def f1(predicted: np.ndarray, gold: np.ndarray) -> float:
    """F1 of class 1; 0 where it is neither predicted nor there."""
    return float(_sklearn().f1_score(gold, predicted, zero_division=0.0))


def macro_f1(predicted: np.ndarray, gold: np.ndarray) -> float:
    """Unweighted mean of the F1 of every class that is there or predicted; others cannot be judged."""
    return float(_sklearn().f1_score(gold, predicted, average="macro", zero_division=0.0))


def micro_f1(predicted: np.ndarray, gold: np.ndarray) -> float:
    """F1 over all (n, k) yes-or-no labels together."""
    return float(_sklearn().f1_score(gold.ravel(), predicted.ravel(), zero_division=0.0))


def pearson(predicted: np.ndarray, gold: np.ndarray) -> float:
    """Pearson correlation, averaged over targets; 0 where a side is constant."""
    return _correlation(scipy.stats.pearsonr, predicted, gold)


def spearman(predicted: np.ndarray, gold: np.ndarray) -> float:
    """Spearman correlation, averaged over targets; 0 where a side is constant."""
    return _correlation(scipy.stats.spearmanr, predicted, gold)


def mean_squared_error(predicted: np.ndarray, gold: np.ndarray) -> float:
    """Averaged over examples and targets."""
    return float(((predicted - gold) ** 2).mean())


def _correlation(measure: Any, predicted: np.ndarray, gold: np.ndarray) -> float:
    columns = zip(np.atleast_2d(predicted.T), np.atleast_2d(gold.T), strict=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of constant input, which gives NaN
        found = [float(measure(a, b).statistic) for a, b in columns]
    return float(np.mean(np.nan_to_num(found)))
