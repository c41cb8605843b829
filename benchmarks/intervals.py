"""Medians of times, and intervals of them and of their ratios by a bootstrap over rounds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from albert_ablate import streams

_DRAWS = 1000
_LOW, _HIGH = 2.5, 97.5


@dataclass(frozen=True)
class Estimate:
    """A number with its 95% interval."""

    value: float
    low: float
    high: float


def median(times: Sequence[float]) -> Estimate:
    """The median of ``times``."""
    taken = np.asarray(times)
    return _estimate(float(np.median(taken)), np.median(taken[_rounds(len(taken))], axis=1))


def ratio(times: Sequence[float], of: Sequence[float]) -> Estimate:
    """The ratio of both medians; the two took turns, so that equal places are of one round.

    The same rounds are drawn for both: what disturbs a round disturbs both.
    """
    a, b = np.asarray(times), np.asarray(of)
    drawn = _rounds(len(a))
    return _estimate(float(np.median(a) / np.median(b)), np.median(a[drawn], axis=1) / np.median(b[drawn], axis=1))


def _rounds(count: int) -> np.ndarray:
    """(draws, count) indices of rounds: runs of neighbouring rounds, as long as the root of their number.

    What else a machine does lasts for several rounds, so single rounds are not independent.
    """
    length = max(1, round(count**0.5))
    pieces = -(-count // length)
    starts = streams.generator(0, "rounds of a benchmark", count).integers(0, count, (_DRAWS, pieces, 1))
    drawn = (starts + np.arange(length)) % count
    return np.asarray(drawn.reshape(_DRAWS, -1)[:, :count])


def _estimate(value: float, drawn: np.ndarray) -> Estimate:
    low, high = np.percentile(drawn, [_LOW, _HIGH])
    return Estimate(value, float(low), float(high))
