"""A forest plot of a sweep: every effect with its interval, a panel for each score."""

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from albert_ablate.drawing_library import MaxNLocator

from ..judge.effects import Effect, SweepTable
from ..judge.metrics import THOUSANDTHS, metric
from ..judge.numbers import unit
from .plotting import NothingToDraw, inches
from .style import COLOURS, INK, MUTED, Drawing, canvas, styled

#: Panels in a row.
_ACROSS = 4
_UNITS = {"%": "points", "nats": "nats", "": "", THOUSANDTHS: THOUSANDTHS}


def forest(sweep: SweepTable) -> Drawing:
    """Differences and interactions with 95% intervals and a line at zero; hollow: the paper's value.

    Raises NothingToDraw where no effect can be judged.
    """
    shown = [effect for effect in sweep.effects if _is_judged(effect)]
    if not shown:
        raise NothingToDraw("no effect of two arms that left their baselines, with two seeds")
    scores = list(dict.fromkeys(effect.comparison.metric for effect in shown))
    names = list(dict.fromkeys(effect.name for effect in shown))
    columns = min(len(scores), _ACROSS)
    rows = math.ceil(len(scores) / columns)
    with styled():
        size = (max(2.2, inches(names)) + 1.9 * columns, rows * (0.9 + 0.27 * len(names)))
        figure, axes = canvas(size, rows, columns)
        panels = list(axes.flat) if rows * columns > 1 else [axes]
        for place, (panel, score) in enumerate(zip(panels, scores, strict=False)):
            for effect in shown:
                if effect.comparison.metric == score:
                    _draw(panel, len(names) - 1 - names.index(effect.name), effect)
            panel.axvline(0, color=MUTED, lw=1, zorder=1)
            panel.set_ylim(-0.6, len(names) - 0.4)
            panel.set_yticks(range(len(names)), names[::-1] if place % columns == 0 else [""] * len(names))
            panel.tick_params(axis="y", length=0)
            spec = metric(score)
            panel.set_title(spec.label)
            panel.set_xlabel(f"{_UNITS[unit(score)]} {'→' if spec.higher_is_better else '←'} better".strip())
            panel.xaxis.set_major_locator(MaxNLocator(4))
            panel.grid(axis="x")
        for panel in panels[len(scores) :]:
            panel.set_axis_off()
    hollow = (
        " Hollow: the paper's value, in its own score."
        if any(effect.comparison.paper is not None for effect in shown)
        else ""
    )
    against = f"Differences from “{sweep.reference}”" if any(effect.against for effect in shown) else "Effects"
    if any(effect.matched for effect in shown):
        against += "; squares: a student's from a model of its size that learned without a teacher"
    more = " and interactions (×: difference of differences)" if any(not effect.against for effect in shown) else ""
    caption = f"{against}{more}. Bars: 95% t interval, paired by seed.{hollow}"
    return Drawing(sweep.table.name, f"Effects: {sweep.title}", caption, figure, _numbers(shown))


def _is_judged(effect: Effect) -> bool:
    comparison = effect.comparison
    return comparison.mark is None and comparison.doubt is None and not math.isnan(comparison.difference.low)


def _draw(panel: Any, y: int, effect: Effect) -> None:
    comparison = effect.comparison
    kind = 2 if effect.matched else 0 if effect.against else 1
    difference, colour, height = comparison.difference, COLOURS[kind], y - 0.22 * effect.matched
    panel.plot([difference.low, difference.high], [height, height], color=colour, lw=1.6, zorder=2)
    panel.plot([difference.mean], [height], marker="oDs"[kind], color=colour, ms=5, ls="none", zorder=3)
    if comparison.paper is not None:
        panel.plot([comparison.paper], [y], marker="o", markerfacecolor="none", color=INK, ms=6.5, ls="none", zorder=4)


def _numbers(effects: Sequence[Effect]) -> pd.DataFrame:
    """The plotted numbers."""
    return pd.DataFrame(
        {
            "effect": e.name, "against": e.against, "score": e.comparison.metric, "unit": unit(e.comparison.metric),
            "n": e.comparison.difference.n, "difference": e.comparison.difference.mean,
            "low": e.comparison.difference.low, "high": e.comparison.difference.high, "paper": e.comparison.paper,
        }
        for e in effects
    )  # fmt: skip
