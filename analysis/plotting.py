"""What the figures have in common: a mean with its interval, the score arms are ranked by, axes."""

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from albert_ablate.drawing_library import EngFormatter, NullFormatter, ScalarFormatter

from .metrics import values
from .statistics import Estimate, estimate


class NothingToDraw(Exception):  # noqa: N818 - it is no error
    """No run has what a figure shows."""


def band(
    axes: Any, part: pd.DataFrame, x: str, style: dict[str, Any], label: str, shaded: bool = True,
    within: tuple[float, float] = (0.0, math.inf),
) -> None:  # fmt: skip
    """Mean over seeds of ``value``, which lies ``within``, at each ``x``, with its interval as a band."""
    points = [(place, estimate(found["value"], within)) for place, found in part.groupby(x)]
    known = [(place, found) for place, found in points if found is not None]
    places = [place for place, _ in known]
    axes.plot(places, [found.mean for _, found in known], label=label, zorder=3, **style)
    if shaded and all(found.n > 1 for _, found in known):
        low, high = [found.low for _, found in known], [found.high for _, found in known]
        axes.fill_between(places, low, high, color=style["color"], alpha=0.16, lw=0, zorder=2)


def points(axes: Any, x: Any, part: pd.DataFrame, style: dict[str, Any], label: str) -> None:
    """``mean`` of ``numbers`` rows at ``x``, with bars where every row has an interval."""
    low, mean, high = (part[name].astype(float) for name in ("low", "mean", "high"))
    spread = [(mean - low).to_numpy(), (high - mean).to_numpy()]
    bars = {} if low.isna().any() else {"yerr": spread, "capsize": 2.5, "elinewidth": 0.9}
    axes.errorbar(x, mean, label=label, **bars, **style)


def score_of(frames: Any) -> str:
    """What arms are ranked by: the paper's Avg where every finished run has it, else masked-LM accuracy."""
    found = [frame for frame in frames if len(frame)]
    if found and all(len(values(frame, "Avg")) == len(frame) for frame in found):
        return "Avg"
    return "MLM"


def score_axis(key: str) -> str:
    """Label of an axis of ``score_of``."""
    return {"Avg": "Avg of five tasks, %", "MLM": "held-out masked-LM accuracy, %"}[key]


def numbers(found: Estimate | None) -> dict[str, Any]:
    """Columns of an estimate in a figure's CSV."""
    if found is None:
        return {"n": 0, "mean": None, "low": None, "high": None}
    return {"n": found.n, "mean": found.mean, "low": found.low, "high": found.high}


def interval_words(found: Estimate, decimals: int) -> str:
    """``0.35 [0.33, 0.36]``."""
    if math.isnan(found.low):
        return f"{found.mean:.{decimals}f}"
    return f"{found.mean:.{decimals}f} [{found.low:.{decimals}f}, {found.high:.{decimals}f}]"


def log_ticks(axes: Any, ticks: Sequence[int]) -> None:
    """A binary log axis of x that names exactly ``ticks``."""
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()


def plain_log(axes: Any, x: bool = True, y: bool = False) -> None:
    """Numbers instead of powers on a log axis."""
    for wanted, axis in ((x, axes.xaxis), (y, axes.yaxis)):
        if wanted:
            for formatter in (axis.set_major_formatter, axis.set_minor_formatter):
                plain = ScalarFormatter()
                plain.set_scientific(False)
                formatter(plain)
            axis.set_tick_params(which="both", labelsize=8.5)


def counted_log(axes: Any, span: float) -> None:
    """``120 T`` on a log axis of x; ticks between the powers of ten are named where there are few of them."""
    axes.xaxis.set_major_formatter(EngFormatter())
    axes.xaxis.set_minor_formatter(EngFormatter() if span < 10 else NullFormatter())
    axes.xaxis.set_tick_params(which="both", labelsize=8.5)
