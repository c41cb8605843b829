"""Parts shared by the figures: a mean with its interval, the score that arms are ranked by, axes."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from albert_ablate.drawing_library import EngFormatter, LogLocator, MaxNLocator, NullLocator, ScalarFormatter

from ..judge.metrics import values
from ..judge.statistics import Estimate, estimate


class NothingToDraw(Exception):  # noqa: N818 - a missing figure is not an error
    """No run has the data that a figure shows; the message is the reason."""


#: Width of a letter of a label in inches, on average.
_LETTER = 0.075
#: Width of a line and of the space around it in a legend, in inches.
_LINE = 0.75


def inches(labels: Iterable[str]) -> float:
    """The width of the longest of these labels."""
    return _LETTER * max(map(len, labels), default=0)


def side_by_side(labels: Iterable[str], width: float, most: int) -> int:
    """How many entries with these labels, at most ``most``, fit beside each other in a legend of ``width`` inches."""
    return max(1, min(most, int(width / (inches(labels) + _LINE))))


def band(
    axes: Any, part: pd.DataFrame, x: str, style: dict[str, Any], label: str, shaded: bool = True,
    within: tuple[float, float] = (0.0, math.inf),
) -> None:  # fmt: skip
    """Mean over seeds of ``value`` (bounded by ``within``) at each ``x``, with its interval as a band."""
    estimates = [(position, estimate(group["value"], within)) for position, group in part.groupby(x)]
    known = [(position, summary) for position, summary in estimates if summary is not None]
    positions = [position for position, _ in known]
    axes.plot(positions, [summary.mean for _, summary in known], label=label, zorder=3, **style)
    if shaded and all(summary.n > 1 for _, summary in known):
        low, high = [summary.low for _, summary in known], [summary.high for _, summary in known]
        axes.fill_between(positions, low, high, color=style["color"], alpha=0.16, lw=0, zorder=2)


def points(axes: Any, x: Any, part: pd.DataFrame, style: dict[str, Any], label: str) -> None:
    """``mean`` of rows made by ``numbers``, at ``x``; with error bars if every row has an interval."""
    low, mean, high = (part[name].astype(float) for name in ("low", "mean", "high"))
    spread = [(mean - low).to_numpy(), (high - mean).to_numpy()]
    bars = {} if low.isna().any() else {"yerr": spread, "capsize": 2.5, "elinewidth": 0.9}
    axes.errorbar(x, mean, label=label, **bars, **style)


def score_of(frames: Any) -> str:
    """The metric that arms are ranked by: the paper's Avg if every finished run has it, else masked-LM accuracy."""
    nonempty = [frame for frame in frames if len(frame)]
    if nonempty and all(len(values(frame, "Avg")) == len(frame) for frame in nonempty):
        return "Avg"
    return "MLM"


def score_axis(key: str) -> str:
    """Axis label of the metric from ``score_of``."""
    return {"Avg": "Avg of five tasks, %", "MLM": "held-out masked-LM accuracy, %"}[key]


def numbers(summary: Estimate | None) -> dict[str, Any]:
    """An estimate as columns of a figure's CSV file: seeds, mean and ends of the interval."""
    if summary is None:
        return {"n": 0, "mean": None, "low": None, "high": None}
    return {"n": summary.n, "mean": summary.mean, "low": summary.low, "high": summary.high}


def interval_text(summary: Estimate, decimals: int) -> str:
    """Mean and interval as text, ``0.35 [0.33, 0.36]``; the mean alone with one seed."""
    if math.isnan(summary.low):
        return f"{summary.mean:.{decimals}f}"
    return f"{summary.mean:.{decimals}f} [{summary.low:.{decimals}f}, {summary.high:.{decimals}f}]"


def log_ticks(axes: Any, ticks: Sequence[int]) -> None:
    """Gives the x axis a binary log scale with exactly these ticks."""
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()


def plain_log(axes: Any, x: bool = True, y: bool = False) -> None:
    """Labels a log axis, whose data are plotted already, with plain numbers instead of powers."""
    for wanted, axis in ((x, axes.xaxis), (y, axes.yaxis)):
        if wanted:
            plain = ScalarFormatter()
            plain.set_scientific(False)
            _log_axis(axes, axis, plain)


def counted_log(axes: Any) -> None:
    """Labels a log x axis, whose data are plotted already, in the form ``120 T``."""
    _log_axis(axes, axes.xaxis, EngFormatter())


def _log_axis(axes: Any, axis: Any, formatter: Any) -> None:
    """Ticks whose labels do not overlap: even steps over less than a decade, then 1, 2 and 5, then decades."""
    low, high = axes.get_xlim() if axis is axes.xaxis else axes.get_ylim()
    span = max(low, high) / min(low, high)
    steps = LogLocator(subs=(1, 2, 5) if span < 100 else (1,))
    axis.set_major_locator(MaxNLocator(5) if span < 10 else steps)
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(formatter)
    axis.set_tick_params(which="both", labelsize=8.5)
