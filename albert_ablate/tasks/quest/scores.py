"""Scores of several numbers for each example: errors, R² and rank correlations by column and as means.

Letters: N examples, K columns (targets), V distinct values. Intervals have 95% confidence. Rows of one question are
not independent: errors and R² have a t interval over questions, correlations the percentile bootstrap interval of 1,000
resamples of the questions, drawn from a named stream.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import scipy

from albert_ablate import streams
from albert_ablate.evaluation.intervals import CONFIDENCE, SHARE, clustered_mean

#: What a target without variation adds to the mean correlation.
Constant = Literal["skip", "zero", "nan"]

_RESAMPLES = 1000


def squared_errors(predicted: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """(N, K) twice -> (N, K)."""
    errors: np.ndarray = (predicted - gold) ** 2
    return errors


def r2_by_column(predicted: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """(N, K) twice -> (K,) 1 - squared error / variance, as in scikit-learn.

    For a target without variation it is 1 if it is predicted exactly, else 0.
    """
    error = squared_errors(predicted, gold).sum(0)
    total = ((gold - gold.mean(0)) ** 2).sum(0)
    varied = gold.max(0) > gold.min(0)  # not by total, which rounding can leave above 0
    return np.where(varied, 1 - error / np.where(varied, total, 1.0), (error == 0).astype(float))


def mean_r2(predicted: np.ndarray, gold: np.ndarray) -> float:
    """Mean of ``r2_by_column``, each column with the same weight."""
    return float(r2_by_column(predicted, gold).mean())


def r2_over_questions(predicted: np.ndarray, gold: np.ndarray, questions: np.ndarray) -> dict[str, Any]:
    """``mean_r2`` with its t interval over the (N,) numbers of questions, the variances of the targets taken as known.

    Resamples would give an interval beside the value: many of them lack the few rows in which a rare target is not 0.
    """
    variance, varied = gold.var(0), gold.max(0) > gold.min(0)
    lost = squared_errors(predicted, gold)[:, varied] / variance[varied]  # a mean over rows is 1 - R²
    value = mean_r2(predicted, gold)
    _, (low, high) = clustered_mean(*_sums(lost.sum(1) / gold.shape[1], questions))
    centre = (low + high) / 2
    return {"value": value, "interval": [value - (high - centre), value + (high - centre)]}


class Ranks:
    """Ranks of the columns of (N, K) values, for any number of copies of each row; equal values share a rank."""

    def __init__(self, values: np.ndarray) -> None:
        count = values.shape[1]
        places = [np.unique(values[:, k], return_inverse=True)[1] for k in range(count)]
        starts = np.concatenate([[0], np.cumsum([place.max() + 1 for place in places])])
        #: (N, K) place of each value in the sorted distinct values of all columns, one column after the other.
        self._places = np.stack(places, 1) + starts[:-1]
        self._values, self._before = int(starts[-1]), np.repeat(np.arange(count), np.diff(starts))

    def centred(self, copies: np.ndarray) -> np.ndarray:
        """(N,) copies of each row -> (N, K) ranks minus their mean."""
        total = copies.sum()
        weights = np.repeat(copies, self._places.shape[1])
        counts = np.bincount(self._places.ravel(), weights, self._values)
        middle = np.cumsum(counts) - self._before * total - counts / 2 + 0.5
        ranks: np.ndarray = middle[self._places] - (total + 1) / 2
        return ranks


def correlations(predicted: Ranks, gold: Ranks, copies: np.ndarray) -> np.ndarray:
    """(K,) correlations of the ranks over (N,) copies of the rows; see ``spearman_by_column``."""
    ours, theirs = predicted.centred(copies), gold.centred(copies)
    weighted = copies[:, None] * theirs
    together, own, of_gold = (weighted * ours).sum(0), (copies[:, None] * ours**2).sum(0), (weighted * theirs).sum(0)
    alone = np.sqrt(own * of_gold)
    coefficients = np.divide(together, alone, out=np.zeros_like(together), where=alone > 0)
    return np.where(of_gold > 0, coefficients, np.nan)


def spearman_by_column(predicted: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """(N, K) twice -> (K,) correlations of the ranks, equal values sharing their mean rank.

    NaN for a target without variation; 0 for predictions without variation of a target that varies.
    """
    return correlations(Ranks(predicted), Ranks(gold), np.ones(len(gold)))


def mean_of(columns: np.ndarray, constant: Constant) -> float:
    """Mean of (K,) correlations. NaN if no column counts, or one has no variation and the rule is ``nan``."""
    if constant == "zero":
        columns = np.nan_to_num(columns)
    if constant == "nan":
        return float(columns.mean())
    known = columns[~np.isnan(columns)]
    return float(known.mean()) if len(known) else float("nan")


def mean_spearman(predicted: np.ndarray, gold: np.ndarray, constant: Constant) -> float:
    """``mean_of`` of ``spearman_by_column``."""
    return mean_of(spearman_by_column(predicted, gold), constant)


def discretised(predicted: np.ndarray, train: np.ndarray) -> np.ndarray:
    """One column of predictions (N,), moved to the values of the training targets (M,).

    The lowest share of the predictions gets the lowest value and so on, in the proportions of the training set, each
    value at least once if there are enough predictions. Equal predictions stay equal. This keeps the order of the
    predictions and creates the ties of the targets, which a rank correlation rewards; it can raise the squared error.
    Source: the first place of Google QUEST (oleg-yaroshevskiy/quest_qa_labeling).
    """
    values, counts = np.unique(train, return_counts=True)
    ends = np.round(np.cumsum(counts) / counts.sum() * len(predicted))  # (V,) predictions up to each value
    if len(predicted) >= len(values):
        for place in range(len(values)):
            ends[place] = max(ends[place], (ends[place - 1] if place else 0) + 1)
        ends[-1] = len(predicted)
        for place in reversed(range(len(values) - 1)):
            ends[place] = min(ends[place], ends[place + 1] - 1)
    middle = scipy.stats.rankdata(predicted) - 0.5
    moved: np.ndarray = values[np.minimum(np.searchsorted(ends, middle, side="right"), len(values) - 1)]
    return moved


def error_over_questions(errors: np.ndarray, questions: np.ndarray) -> dict[str, Any]:
    """Mean of (N, K) errors from 0 to 1, with its t interval over the (N,) numbers of questions."""
    mean, interval = clustered_mean(*_sums(errors.mean(1), questions), SHARE)
    return {"value": mean, "interval": interval}


def _sums(values: np.ndarray, questions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sum of (N,) values and the number of rows of each question."""
    return np.bincount(questions, weights=values), np.bincount(questions).astype(float)


def resampled_spearman(
    predicted: Mapping[str, np.ndarray],
    gold: np.ndarray,
    questions: np.ndarray,
    means: Callable[[Mapping[str, np.ndarray]], dict[str, float]],
) -> dict[str, dict[str, Any]]:
    """Name -> value and bootstrap interval of each mean over columns; means that are NaN are left out.

    ``predicted``: name -> (N, K). ``means`` gets name -> (K,) correlations, of all rows and of each resample.
    """
    ranks, of_gold = {name: Ranks(values) for name, values in predicted.items()}, Ranks(gold)

    def measured(copies: np.ndarray) -> dict[str, float]:
        return means({name: correlations(of_set, of_gold, copies) for name, of_set in ranks.items()})

    values = {name: value for name, value in measured(np.ones(len(gold))).items() if not np.isnan(value)}
    count = int(questions.max()) + 1
    draws = streams.generator(0, "quest resamples").integers(0, count, (_RESAMPLES, count))
    drawn = [measured(np.bincount(draw, minlength=count)[questions].astype(float)) for draw in draws]
    tail = (1 - CONFIDENCE) / 2
    intervals = {name: np.nanquantile([one[name] for one in drawn], [tail, 1 - tail]) for name in values}
    return {name: {"value": values[name], "interval": [float(x) for x in intervals[name]]} for name in values}
