"""Student's t distribution, its power and Holm's correction, in plain Python.

The tail is the regularised incomplete beta function by its continued fraction (Abramowitz and Stegun, 26.5.8,
evaluated by Lentz's method), the quantile a bisection of it, the power an integral by Simpson's rule.
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
    """The t that ``share`` (above a half) of the distribution lies below."""
    low, high = 0.0, 1.0
    while upper_tail(high, freedom) > 1 - share:
        low, high = high, 2 * high
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if upper_tail(middle, freedom) > 1 - share else (low, middle)
    return (low + high) / 2


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p values: the k-th smallest of m times m - k + 1, never below the one before, at most 1."""
    adjusted, least = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        least = max(least, min(1.0, p_values[place] * (len(p_values) - rank)))
        adjusted[place] = least
    return adjusted


def power(effect: float, n: int, alpha: float) -> float:
    """Chance that a t test of ``n`` values with mean ``effect`` standard deviations is significant on that side.

    The integral over the estimated standard deviation s (in units of the true one) of the normal chance that the
    mean lies beyond the critical t times s.
    """
    critical, shift = quantile(1 - alpha / 2, n - 1), effect * math.sqrt(n)

    def beyond(s: float) -> float:
        return 0.5 * math.erfc((critical * s - shift) / math.sqrt(2))

    return _over_spreads(beyond, n - 1, (shift + 12) / critical)


def power_inside(centre: float, spread: float, low: float, high: float, n: int, alpha: float) -> float:
    """Chance that two one-sided t tests of ``n`` values, each at half of ``alpha``, put the mean between the bounds.

    Both do where the mean of the sample keeps the critical t times its standard error from either.
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
    """The mean of ``chance`` over the law of the estimated standard deviation, in units of the true one.

    By Simpson's rule; beyond ``last`` the chance is as good as nothing.
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
    places = ((1 if k in (0, parts) else 4 if k % 2 else 2, start + k * step) for k in range(parts + 1))
    return step / 3 * math.fsum(weight * density(s) * chance(s) for weight, s in places)


def _beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(x, a, b) / a
    return 1.0 - front * _fraction(1 - x, b, a) / b


def _fraction(x: float, a: float, b: float) -> float:
    found = c = 1.0
    d = 1.0 / _apart(1.0 - (a + b) * x / (a + 1))
    found = d
    for m in range(1, _MOST_TERMS):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1.0 / _apart(1.0 + term * d)
            c = _apart(1.0 + term / c)
            found *= d * c
        if abs(d * c - 1.0) < 1e-16:
            break
    return found


def _apart(value: float) -> float:
    """``value``, kept away from zero."""
    return value if abs(value) > _TINY else _TINY
