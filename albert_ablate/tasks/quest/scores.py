"""Scores of several numbers for each example: errors, R² and rank correlations by column and as means.

Letters: N examples, K columns (targets), V distinct values. Intervals have 95% confidence. Rows of one question are
not independent: errors have a t interval over questions, the other scores the percentile bootstrap interval of 1,000
resamples of the questions, drawn from a named stream.
"""

import warnings
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import scipy

from albert_ablate import streams
from albert_ablate.evaluation.intervals import CONFIDENCE
from albert_ablate.tasks.metrics import clustered

#: What a target without variation adds to the mean correlation.
Constant = Literal["skip", "zero", "nan"]
Score = Callable[[np.ndarray, np.ndarray], float]

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


def spearman_by_column(predicted: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """(N, K) twice -> (K,) correlations of the ranks, equal values sharing their mean rank.

    NaN for a target without variation; 0 for predictions without variation of a target that varies.
    """
    ours, theirs = (scipy.stats.rankdata(values, axis=0) for values in (predicted, gold))
    ours, theirs = ours - ours.mean(0), theirs - theirs.mean(0)
    alone = np.sqrt((ours**2).sum(0) * (theirs**2).sum(0))
    together = (ours * theirs).sum(0)
    coefficients = np.divide(together, alone, out=np.zeros_like(together), where=alone > 0)
    return np.where(gold.max(0) > gold.min(0), coefficients, np.nan)


def mean_spearman(predicted: np.ndarray, gold: np.ndarray, constant: Constant) -> float:
    """Mean of ``spearman_by_column``. NaN if no column counts, or by the rule ``nan``."""
    columns = spearman_by_column(predicted, gold)
    if constant == "zero":
        columns = np.nan_to_num(columns)
    if constant == "nan":
        return float(columns.mean())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the mean of no column gives NaN and a warning
        return float(np.nanmean(columns))


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
    """Mean of (N, K) errors, with its t interval over the (N,) numbers of questions."""
    return clustered(errors.mean(1), questions)


def resampled(scores: Mapping[str, Score], predicted: np.ndarray, gold: np.ndarray, questions: np.ndarray) -> Any:
    """Name -> value and interval of each score; scores that are NaN are left out."""
    values = {name: score(predicted, gold) for name, score in scores.items()}
    kept = {name: score for name, score in scores.items() if not np.isnan(values[name])}
    rows = [np.flatnonzero(questions == number) for number in np.unique(questions)]
    draws = streams.generator(0, "quest resamples").integers(0, len(rows), (_RESAMPLES, len(rows)))
    drawn: dict[str, list[float]] = {name: [] for name in kept}
    for draw in draws:
        chosen = np.concatenate([rows[number] for number in draw])
        for name, score in kept.items():
            drawn[name].append(score(predicted[chosen], gold[chosen]))
    tail = (1 - CONFIDENCE) / 2
    intervals = {name: np.nanquantile(numbers, [tail, 1 - tail]) for name, numbers in drawn.items()}
    return {name: {"value": values[name], "interval": [float(x) for x in intervals[name]]} for name in kept}
