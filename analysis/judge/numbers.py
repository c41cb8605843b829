"""Formats numbers with the decimals of their unit."""

import math

from .metrics import THOUSANDTHS, metric
from .statistics import Estimate

DASH = "—"
DECIMALS = {"nats": 3, "%": 1, "M": 2, "1/s": 0, "s": 0, "ms": 2, "TFLOPs": 2, "x": 2, "": 3, THOUSANDTHS: 1}
_SPEEDUP = "x"


def unit(key: str) -> str:
    """Unit that the metric ``key`` is printed in."""
    return _SPEEDUP if key == "speedup" else metric(key).unit


def number(key: str, estimate: Estimate | None) -> str:
    """``81.2 ± 0.3``, or ``2.8 (0.0 to 29.8)`` where a bound cuts the interval; the mean alone with one seed."""
    if estimate is None:
        return DASH
    decimals = DECIMALS[unit(key)]
    alone = math.isnan(estimate.low) or key in ("params", "speedup", "tokens/s")
    if not alone and estimate.margin is not None and 0 < estimate.margin < 0.5 * 10**-decimals:
        decimals += 1
    text = f"{estimate.mean:,.{decimals}f}".replace("-", "−")
    text += "×" if key == "speedup" else ""
    return text if alone else f"{text}{spread(estimate, decimals)}"


def spread(estimate: Estimate, decimals: int) -> str:
    """`` ± 0.3``, or `` (0.0 to 29.8)`` where a bound cuts the interval; empty with one seed."""
    if math.isnan(estimate.low):
        return ""
    if estimate.margin is not None:
        return f" ± {estimate.margin:.{decimals}f}"
    return f" ({estimate.low:.{decimals}f} to {estimate.high:.{decimals}f})".replace("-", "−")


def printed(key: str, value: float | None) -> str:
    """The paper's value of ``key`` as it prints it: one decimal, none for parameters; empty for None."""
    return "" if value is None else f"{value:.{0 if key == 'params' else 1}f}"


def signed(value: float, decimals: int) -> str:
    """``+1.5`` or ``−0.2``."""
    return f"{value:+.{decimals}f}".replace("-", "−")


def p_value(p: float) -> str:
    """``0.031`` or ``<0.001``."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"
