"""Student's t distribution, its power and Holm's correction, in plain Python.

The tail is computed with the continued fraction of the regularised incomplete beta function (Abramowitz and Stegun,
26.5.8, by Lentz's method), the quantile by bisection, the power by Simpson's rule.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache

_TINY = 1e-300
_MOST_TERMS = 10_000


def upper_tail(t: float, freedom: float) -> float:
    """P(T > t) with ``freedom`` degrees of freedom."""
    if t < 0:
        return 1.0 - upper_tail(-t, freedom)
    return 0.5 * _beta(freedom / (freedom + t * t), freedom / 2, 0.5)


@cache
def quantile(share: float, freedom: float) -> float:
    """The quantile of the t distribution at ``share`` (above a half)."""
    low, high = 0.0, 1.0
    while upper_tail(high, freedom) > 1 - share:
        low, high = high, 2 * high
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if upper_tail(middle, freedom) > 1 - share else (low, middle)
    return (low + high) / 2


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p values: the k-th smallest of m is multiplied by m - k + 1; they never decrease, and are at most 1."""
    adjusted, least = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        least = max(least, min(1.0, p_values[index] * (len(p_values) - rank)))
        adjusted[index] = least
    return adjusted


def power(effect: float, n: int, alpha: float) -> float:
    """Power of a t test on ``n`` values with a mean of ``effect`` standard deviations, on the side of the effect.

    The normal probability that the mean exceeds the critical t times s, integrated over the estimated standard
    deviation s (in units of the true one).
    """
    critical, shift = quantile(1 - alpha / 2, n - 1), effect * math.sqrt(n)

    def beyond(s: float) -> float:
        return 0.5 * math.erfc((critical * s - shift) / math.sqrt(2))

    return _over_spreads(beyond, n - 1, (shift + 12) / critical)


def power_inside(centre: float, spread: float, low: float, high: float, n: int, alpha: float) -> float:
    """Probability that two one-sided t tests on ``n`` values, each at ``alpha / 2``, put the mean between the bounds.

    Both do if the sample mean is at least the critical t times its standard error inside each bound.
    """
    critical, error = quantile(1 - alpha / 2, n - 1), spread / math.sqrt(n)

    def inside(s: float) -> float:
        below = (low - centre) / error + critical * s
        above = (high - centre) / error - critical * s
        if below >= above:
            return 0.0
        return 0.5 * (math.erfc(below / math.sqrt(2)) - math.erfc(above / math.sqrt(2)))

    return _over_spreads(inside, n - 1, (high - low) / 2 / error / critical)


def _over_spreads(chance: Callable[[float], float], freedom: int, last: float) -> float:
    """The mean of ``chance`` over the distribution of the estimated standard deviation, in units of the true one.

    By Simpson's rule up to ``last``; beyond it ``chance`` is negligible.
    """
    wide = 12 / math.sqrt(2 * freedom)
    start, parts = max(0.0, 1 - wide), 800
    end = min(1 + wide, max(start, last))
    constant = math.log(2) + freedom / 2 * math.log(freedom / 2) - math.lgamma(freedom / 2)

    def density(s: float) -> float:
        if s == 0:
            return math.exp(constant) if freedom == 1 else 0.0
        return math.exp(constant + (freedom - 1) * math.log(s) - freedom * s * s / 2)

    step = (end - start) / parts
    nodes = ((1 if k in (0, parts) else 4 if k % 2 else 2, start + k * step) for k in range(parts + 1))
    return step / 3 * math.fsum(weight * density(s) * chance(s) for weight, s in nodes)


def _beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(x, a, b) / a
    return 1.0 - front * _fraction(1 - x, b, a) / b


def _fraction(x: float, a: float, b: float) -> float:
    value = c = 1.0
    d = 1.0 / _apart(1.0 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, _MOST_TERMS):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1.0 / _apart(1.0 + term * d)
            c = _apart(1.0 + term / c)
            value *= d * c
        if abs(d * c - 1.0) < 1e-16:
            break
    return value


def _apart(value: float) -> float:
    """``value``, kept away from zero."""
    return value if abs(value) > _TINY else _TINY
