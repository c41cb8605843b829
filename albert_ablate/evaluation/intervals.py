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
