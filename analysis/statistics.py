"""Intervals and tests over seeds. Distributions and tests are scipy's, corrections statsmodels'.

Seeds are few. With three of them a 95% bootstrap interval covers about 77% and Student's t covers 95%
(``tests/test_statistics.py`` simulates the latter), so every interval here is a t interval. Comparisons
are paired by seed: two arms of one seed share weights, documents, their order and masks.

What cannot lie beyond a bound, such as a share or a loss, has an interval that ends there: a t interval cut at
the bounds holds the true mean exactly as often as the whole one. Tests take the uncut numbers.
"""

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy
from statsmodels.stats.multitest import multipletests

from albert_ablate.evaluation.intervals import CONFIDENCE

#: A significance level, and the power at which more seeds are counted.
ALPHA = 1 - CONFIDENCE
POWER = 0.8
_MOST_SEEDS = 1000


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its 95% t interval, cut at what is possible; its ends are NaN with one seed."""

    mean: float
    low: float
    high: float
    sd: float
    values: tuple[float, ...]

    @property
    def n(self) -> int:
        """Seeds."""
        return len(self.values)

    @property
    def margin(self) -> float | None:
        """Half the interval's width; None where it is cut, so that no ± describes it. NaN with one seed."""
        below, above = self.mean - self.low, self.high - self.mean
        return above if math.isnan(above) or math.isclose(below, above, rel_tol=1e-6, abs_tol=1e-12) else None

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval leaves zero out; never with one seed."""
        return bool(self.low > 0 or self.high < 0)


#: No number lies beyond these.
EVERYWHERE = (-math.inf, math.inf)


def estimate(values: Sequence[float] | pd.Series, within: tuple[float, float] = EVERYWHERE) -> Estimate | None:
    """Mean and interval of one number a seed, none of which can lie beyond ``within``; None without any."""
    numbers = np.asarray([float(value) for value in values if not pd.isna(value)])
    if not len(numbers):
        return None
    mean, spread = float(numbers.mean()), float("nan")
    low = high = float("nan")
    if len(numbers) > 1:
        spread = float(numbers.std(ddof=1))
        margin = float(scipy.stats.t.ppf((1 + CONFIDENCE) / 2, len(numbers) - 1)) * spread / len(numbers) ** 0.5
        low, high = max(mean - margin, within[0]), min(mean + margin, within[1])
    return Estimate(mean, low, high, spread, tuple(numbers.tolist()))


def paired(ours: pd.Series, theirs: pd.Series, within: tuple[float, float] = EVERYWHERE) -> Estimate | None:
    """Interval of ``ours - theirs`` over the seeds (the index) that both have; each lies ``within``."""
    both = ours.index.intersection(theirs.index)
    found = (ours.loc[both].astype(float) - theirs.loc[both].astype(float)).dropna()
    return estimate(found, (within[0] - within[1], within[1] - within[0]))


def p_above(found: Estimate, bound: float = 0.0) -> float:
    """One-sided p value of the mean being no greater than ``bound``; 1 with one seed."""
    if found.n < 2:
        return 1.0
    if found.sd == 0:
        return 0.0 if found.mean > bound else 1.0
    return float(scipy.stats.t.sf((found.mean - bound) / (found.sd / found.n**0.5), found.n - 1))


def p_two_sided(found: Estimate) -> float:
    """Two-sided p value of the mean being zero; 1 with one seed."""
    return min(1.0, 2 * min(p_above(found), p_above(_negative(found))))


def p_below(found: Estimate, bound: float = 0.0) -> float:
    """One-sided p value of the mean being no less than ``bound``; 1 with one seed."""
    return p_above(_negative(found), -bound)


def _negative(e: Estimate) -> Estimate:
    return Estimate(-e.mean, -e.high, -e.low, e.sd, tuple(-value for value in e.values))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p values of comparisons made together."""
    if not len(p_values):
        return []
    return [float(p) for p in multipletests(p_values, method="holm")[1]]


def seeds_needed(distance: float, sd: float, alpha: float = ALPHA) -> int | None:
    """Seeds with which a two-sided paired t test sees ``distance`` with 80% power; None above 1,000."""
    if not np.isfinite(sd) or distance == 0:
        return None
    if sd == 0:
        return 2
    effect = abs(distance) / sd
    if _power(effect, _MOST_SEEDS, alpha) < POWER:
        return None
    return 2 + bisect.bisect_left(range(2, _MOST_SEEDS), POWER, key=lambda n: _power(effect, n, alpha))


def _power(effect: float, n: int, alpha: float) -> float:
    """Of a two-sided one-sample t test on ``n`` values whose mean is ``effect`` standard deviations from the null."""
    critical = scipy.stats.t.ppf(1 - alpha / 2, n - 1)
    noncentrality = effect * n**0.5
    power = scipy.stats.nct.sf(critical, n - 1, noncentrality)
    return float(power) if np.isfinite(power) else float(noncentrality > critical)
