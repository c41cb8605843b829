"""95% intervals of held-out numbers."""

from typing import TypedDict

import numpy as np
import scipy  # loads scipy.stats at first use; that takes half a second, which training does not need

CONFIDENCE = 0.95


class Wilson(TypedDict):
    """A share with its Wilson score interval."""

    accuracy: float
    interval: list[float]
    examples: int


def proportion(hits: int, count: int) -> Wilson:
    """``accuracy`` with its Wilson score interval and the number of examples."""
    interval = scipy.stats.binomtest(hits, count).proportion_ci(CONFIDENCE, method="wilson")
    return {"accuracy": hits / count, "interval": [float(interval.low), float(interval.high)], "examples": count}


#: Bounds of a share; its interval is cut there.
SHARE = (0.0, 1.0)


def clustered_mean(
    sums: np.ndarray, counts: np.ndarray, within: tuple[float, float] = (-np.inf, np.inf)
) -> tuple[float, list[float]]:
    """Mean of ``sums`` per unit of ``counts`` with its t interval over independent clusters.

    A cluster is a sequence: its masked positions share a context, so they are not independent of each other. The
    interval is cut at the bounds ``within``.
    """
    total = counts.sum()
    mean = float(sums.sum() / total)
    clusters = len(sums)
    if clusters < 2:
        return mean, [mean, mean]
    residual = sums - mean * counts
    error = np.sqrt((residual**2).sum() * clusters / (clusters - 1)) / total
    margin = float(scipy.stats.t.ppf((1 + CONFIDENCE) / 2, clusters - 1) * error)
    return mean, [max(mean - margin, within[0]), min(mean + margin, within[1])]


def clustered_auc(scores: np.ndarray, labels: np.ndarray, clusters: np.ndarray) -> tuple[float, list[float]]:
    """Area under the ROC curve, with its t interval over independent clusters.

    The area is the share of pairs of a one and a zero, over all n_1 * n_0 of them, in which the one has the higher
    score; a tie counts half. Its error comes from the components of each example, the share of the other label's
    examples on the right side of it, summed by cluster (Obuchowski, 1997, Biometrics 53, section 2).

    ``scores``, ``labels`` of 0 and 1, ``clusters`` from 0: (M,) each. Both labels must occur.
    """
    one = labels == 1
    ones, zeros = int(one.sum()), int((~one).sum())
    rank = scipy.stats.rankdata(scores)
    part = np.empty(len(scores))
    part[one] = (rank[one] - scipy.stats.rankdata(scores[one])) / zeros
    part[~one] = 1 - (rank[~one] - scipy.stats.rankdata(scores[~one])) / ones
    area = float(part[one].mean())
    by_cluster = np.bincount(clusters, weights=(part - area) / np.where(one, ones, zeros))
    count = len(np.unique(clusters))
    if count < 2:
        return area, [area, area]
    error = np.sqrt((by_cluster**2).sum() * count / (count - 1))
    margin = float(scipy.stats.t.ppf((1 + CONFIDENCE) / 2, count - 1) * error)
    return area, [max(area - margin, SHARE[0]), min(area + margin, SHARE[1])]
