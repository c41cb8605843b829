"""Metrics of the tasks with 95% confidence intervals, computed with scikit-learn and scipy.

Intervals describe the sampling of examples, not of seeds. Accuracy has Wilson's interval. Means over
questions that share a passage have a t interval over passages. Correlations and F1 have the percentile
bootstrap interval of 1,000 resamples of the examples, drawn from a named stream.
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
    """The module ``sklearn.metrics``, imported on first use: it takes a second, and training does not need it."""
    from sklearn import metrics

    return metrics


def accuracy(predicted: np.ndarray, gold: np.ndarray) -> dict[str, Any]:
    """Share of equal labels with Wilson's interval."""
    share = proportion(int((predicted == gold).sum()), len(gold))
    return {"value": share["accuracy"], "interval": share["interval"]}


def clustered(values: np.ndarray, clusters: np.ndarray) -> dict[str, Any]:
    """Mean of (n,) shares, with a t interval that treats the (n,) clusters as independent."""
    _, cluster = np.unique(clusters, return_inverse=True)
    mean, interval = clustered_mean(np.bincount(cluster, weights=values), np.bincount(cluster).astype(float), SHARE)
    return {"value": mean, "interval": interval}


def resampled(metric: Metric, predicted: np.ndarray, gold: np.ndarray) -> dict[str, Any]:
    """``metric`` of all examples, with its percentile bootstrap interval."""
    value = metric(predicted, gold)
    draws = streams.generator(0, "metric resamples").integers(0, len(gold), (_RESAMPLES, len(gold)))
    values = [metric(predicted[rows], gold[rows]) for rows in draws]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return {"value": value, "interval": [float(low), float(high)]}


def matthews(predicted: np.ndarray, gold: np.ndarray) -> float:
    """Matthews correlation; 0 if predictions or labels are constant."""
    return float(_sklearn().matthews_corrcoef(gold, predicted))


def f1(predicted: np.ndarray, gold: np.ndarray) -> float:
    """F1 of class 1; 0 if it is neither predicted nor present."""
    return float(_sklearn().f1_score(gold, predicted, zero_division=0.0))


def macro_f1(predicted: np.ndarray, gold: np.ndarray) -> float:
    """Unweighted mean F1 over the classes that are present or predicted."""
    return float(_sklearn().f1_score(gold, predicted, average="macro", zero_division=0.0))


def micro_f1(predicted: np.ndarray, gold: np.ndarray) -> float:
    """F1 over all (n, k) binary labels together."""
    return float(_sklearn().f1_score(gold.ravel(), predicted.ravel(), zero_division=0.0))


def pearson(predicted: np.ndarray, gold: np.ndarray) -> float:
    """Pearson correlation, averaged over targets; 0 if predictions or targets are constant."""
    return _correlation(scipy.stats.pearsonr, predicted, gold)


def spearman(predicted: np.ndarray, gold: np.ndarray) -> float:
    """Spearman correlation, averaged over targets; 0 if predictions or targets are constant."""
    return _correlation(scipy.stats.spearmanr, predicted, gold)


def mean_squared_error(predicted: np.ndarray, gold: np.ndarray) -> float:
    """Mean squared error over examples and targets."""
    return float(((predicted - gold) ** 2).mean())


def _correlation(measure: Any, predicted: np.ndarray, gold: np.ndarray) -> float:
    columns = zip(np.atleast_2d(predicted.T), np.atleast_2d(gold.T), strict=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # constant input gives NaN and a warning
        coefficients = [float(measure(a, b).statistic) for a, b in columns]
    return float(np.mean(np.nan_to_num(coefficients)))
