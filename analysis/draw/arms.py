"""Figures of arms: score against size, spread over seeds, learning curves, and cost.

Every figure function takes the table of runs and returns a ``Drawing``, or raises ``NothingToDraw`` with the reason.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from albert_ablate.axes import AXES
from albert_ablate.config.labels import arm_labels, joined, varying
from albert_ablate.drawing_library import MaxNLocator

from ..judge.metrics import metric, summarised, unfit, values
from ..judge.statistics import estimate, seeds_needed
from ..read.arms import arm_names, in_order, settings_of_arms
from ..read.cells import main_setup
from ..read.planned import planned_seconds
from ..read.planted import natural
from ..read.runs import held_out_curves
from .looks import arm_styles, legend
from .plotting import (
    NothingToDraw,
    band,
    counted_log,
    inches,
    numbers,
    plain_log,
    points,
    score_axis,
    score_of,
    side_by_side,
)
from .style import COLOURED, DASHED, INK, MUTED, Drawing, canvas, look_of, styled

#: The axes that neither colours nor dashes show.
_OTHERS = [axis for axis in AXES if axis not in (COLOURED, DASHED)]


def pareto(runs: pd.DataFrame) -> Drawing:
    """Score against parameters, for arms that differ in E and sharing; a line joins the arms no smaller arm beats."""
    chosen = main_setup(runs)
    if len(chosen):
        chosen = chosen[[_common(run, chosen) for run in chosen.to_dict("records")]]
    key = score_of([chosen])
    rows = []
    for arm, frame in chosen.groupby("arm", sort=False):
        value = summarised(frame, key)
        millions = frame["params_with_pooler"].iloc[0]
        if value is not None and millions:
            axis_values = {axis.name: frame[axis.name].iloc[0] for axis in AXES}
            rows.append({"arm": arm, **axis_values, "parameters_M": millions / 1e6, "score": key, **numbers(value)})
    if len(rows) < 2:
        raise NothingToDraw("fewer than two arms in one set-up")
    data = pd.DataFrame(rows).sort_values(["parameters_M", "mean"])
    better = metric(key).higher_is_better
    apart = [name for name in varying(settings_of_arms(chosen)) if name != COLOURED.path]
    labels = {arm: joined(frame["config"].iloc[0], apart) for arm, frame in chosen.groupby("arm")}
    front = data[[_on_front(row, data, better) for row in data.to_dict("records")]]
    with styled():
        figure, axes = canvas((7.2, 4.3))
        axes.plot(front["parameters_M"], front["mean"], color=MUTED, lw=1, zorder=1)
        for coloured, part in data.groupby(COLOURED.name, sort=False):
            style = look_of(COLOURED, coloured) | {"linestyle": "none"}
            points(axes, part["parameters_M"], part, style, COLOURED.label_of(coloured))
        above = data.groupby("parameters_M").cumcount() % 2  # of two arms of one size, the better one is labelled above
        for is_above, row in zip(above, data.to_dict("records"), strict=True):
            offset = (6, 5) if is_above else (6, -11)
            axes.annotate(
                labels[row["arm"]],
                (row["parameters_M"], row["mean"]),
                offset,
                textcoords="offset points",
                fontsize=7.5,
                color=MUTED,
            )
        axes.set(xscale="log", xlabel="parameters, millions", ylabel=score_axis(key))
        plain_log(axes)
        axes.margins(x=0.12)
        axes.grid(axis="y")
        axes.legend()
        if not better:
            axes.invert_yaxis()
    upside = " The axis is turned so that up is better." if not better else ""
    return Drawing(
        "pareto", "Parameters against score", f"Grey line: arms that no smaller one beats.{upside}", figure, data
    )


def _on_front(row: Mapping[Any, Any], data: pd.DataFrame, better: bool) -> bool:
    smaller = data[data["parameters_M"] <= row["parameters_M"]]["mean"]
    return bool(row["mean"] == (smaller.max() if better else smaller.min()))


def seed_spread(runs: pd.DataFrame) -> Drawing:
    """Every run behind every mean; the caption gives the smallest difference that this many seeds can show."""
    chosen = main_setup(runs)
    key = score_of([chosen])
    scores: dict[Any, float | None] = {index: _score(chosen.loc[[index]], key) for index in chosen.index}
    chosen = chosen.assign(value=pd.Series(scores, dtype=float)).dropna(subset=["value"])
    if not len(chosen):
        raise NothingToDraw("no finished run")
    better = metric(key).higher_is_better
    order = chosen.groupby("arm")["value"].mean().sort_values(ascending=better).index
    labels_of = dict(zip(chosen["arm"], arm_labels(settings_of_arms(chosen)), strict=True))
    ticks = [labels_of[arm] or str(arm) for arm in order]
    with styled():
        figure, axes = canvas((max(7.2, 4.8 + inches(ticks)), 1.2 + 0.3 * len(order)))
        for y, arm in enumerate(order):
            part = chosen[chosen["arm"] == arm]
            summary = estimate(part["value"], metric(key).within)
            style = look_of(COLOURED, part[COLOURED.name].iloc[0])
            axes.plot(
                part["value"],
                [y] * len(part),
                marker=style["marker"],
                ls="none",
                color=style["color"],
                alpha=0.55,
                ms=6,
            )
            if summary is not None:
                axes.plot([summary.mean] * 2, [y - 0.3, y + 0.3], color=INK, lw=1.6)
                if summary.n > 1:
                    axes.plot([summary.low, summary.high], [y, y], color=INK, lw=0.9)
        axes.set_yticks(range(len(order)), ticks)
        axes.set(xlabel=score_axis(key))
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.grid(axis="x")
    caption = f"Symbols: runs; thick line: mean; thin line: 95% t interval. {_detectable(chosen)}"
    return Drawing(
        "seeds",
        "Every seed behind every mean",
        caption,
        figure,
        chosen[["arm", "run", "seed", "value"]].assign(score=key),
    )


def _score(run: pd.DataFrame, key: str) -> float | None:
    score = values(run, key) * metric(key).scale
    return None if not len(score) else float(score.iloc[0])


def _detectable(chosen: pd.DataFrame) -> str:
    """A sentence with the smallest paired difference that is detected with 80% power; empty where there is none."""
    wide = chosen.pivot_table(index="seed", columns="arm", values="value")
    whole = wide.dropna(axis=1)  # an arm that lacks a seed must not remove that seed from the others
    wide = whole if whole.shape[1] > 1 else wide
    n = len(wide.dropna())
    if n < 2:
        return "With one seed nothing can be said about spread."
    if not np.ptp(wide.dropna().to_numpy()):
        return ""  # every score is equal: without a spread there is no power
    spread = float(np.median(wide.dropna().sub(wide.dropna().mean(axis=1), axis=0).std(ddof=1)) * math.sqrt(2))
    sizes = np.geomspace(1e-4, 1e3, 400)
    seen = next((size for size in sizes if (seeds_needed(size, spread) or math.inf) <= n), None)
    return (
        ""
        if seen is None
        else f"{n} seeds show a difference of about {seen:.2g} between two arms (80% power, before correction)."
    )


def learning_curves(runs: pd.DataFrame) -> Drawing:
    """Held-out loss against tokens: mean over seeds with a band. Beside it accuracy on the arms' own sentence tasks."""
    chosen = in_order(main_setup(runs))
    parts = [pd.DataFrame(held_out_curves(frame)).assign(arm=arm) for arm, frame in chosen.groupby("arm", sort=False)]
    data = pd.concat([part for part in parts if len(part)]) if any(map(len, parts)) else pd.DataFrame()
    if not len(data):
        raise NothingToDraw("no run has a held-out curve")
    with_sentences = data["sentence"].notna().any()
    width = 9.4 if with_sentences else 6.4
    with styled():
        figure, panels = canvas((width, 4.6), 1, 2) if with_sentences else canvas((width, 4.6))
        left, right = panels if with_sentences else (panels, None)
        styles = arm_styles(chosen)
        labels_of = dict(zip(chosen["arm"], arm_labels(settings_of_arms(chosen)), strict=True))
        few = len(styles) <= 6
        for arm, part in data.groupby("arm", sort=False):
            style = styles[str(arm)]
            part = part.assign(tokens=part.groupby("step")["tokens"].transform("mean") / 1e6)
            band(left, part.assign(value=part["mlm_loss"]), "tokens", style, labels_of[arm] or str(arm), few)
            if right is not None and part["sentence"].notna().any():
                shares = part.assign(value=100 * part["sentence"].astype(float))
                band(right, shares, "tokens", style, labels_of[arm] or str(arm), few, within=(0.0, 100.0))
        for name, line in (("unigram", "--"), ("bigram", ":")):
            height = chosen[f"{name}_loss"].dropna().mean()
            if not math.isnan(height):
                left.axhline(height, color=MUTED, lw=1, ls=line)
                annotation: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "ha": "right", "va": "bottom"}
                left.annotate(name, (1, height), fontsize=8, color=MUTED, **annotation)
        left.set(xlabel="tokens, millions", ylabel="held-out masked-LM loss, nats")
        left.set_title("Masked LM")
        if right is not None:
            right.axhline(50, color=MUTED, lw=1, ls="--")
            right.set(xlabel="tokens, millions", ylabel="accuracy, %")
            right.set_title("The arm's own sentence task")
        handles, labels = left.get_legend_handles_labels() if few else legend(chosen, styles)
        beside = side_by_side(labels, width, 3 if few else 4)
        figure.legend(handles, labels, loc="outside lower center", ncols=beside, handlelength=3.5)
    caption = "Mean over seeds. Grey lines: what has to be beaten." + (" Band: 95% t interval." if few else "")
    return Drawing("curves", "Learning curves", caption, figure, data)


def _common(run: Mapping[Any, Any], chosen: pd.DataFrame) -> bool:
    """Whether the axes that neither colours nor dashes show have their commonest values."""
    return all(run[axis.name] == chosen[axis.name].mode().iloc[0] for axis in _OTHERS)


def cost(runs: pd.DataFrame) -> Drawing:
    """Time of each run against its FLOPs counted before training, and the plan's estimate where it has one."""
    runs = natural(runs)
    complete = runs[["seconds", "flops", "hidden"]].notna().all(axis=1)
    done = runs[(runs["state"] == "finished") & complete]
    if not len(done):
        raise NothingToDraw("no finished run")
    planned = planned_seconds(done)
    data = done[["run", COLOURED.name, "flops", "tokens_per_second", "speed_spread", "device"]].assign(
        arm=arm_names(done),
        steady=[unfit(done.loc[[index]], "tokens/s") is None for index in done.index],
        seconds=done["seconds"] + done["evaluation_seconds"].astype(float).fillna(0.0),
        estimated_seconds=done["run"].map(planned).astype(float),
    )
    judged = data[data["steady"]] if data["steady"].any() else data
    rate = float((judged["flops"] / judged["seconds"]).median())
    known = data.dropna(subset=["estimated_seconds"])
    with styled():
        figure, axes = canvas((7.2, 3.9))
        for coloured, part in data.groupby(COLOURED.name, sort=False):
            style = look_of(COLOURED, coloured) | {"linestyle": "none"}
            axes.plot([], [], label=COLOURED.label_of(coloured), **style)
            for steady, group in part.groupby("steady"):
                face = style["color"] if steady else "none"
                axes.plot(group["flops"], group["seconds"] / 60, markerfacecolor=face, **style)
        if not data["steady"].all():
            axes.plot([], [], ls="none", marker="o", color=MUTED, markerfacecolor="none", label="disturbed")
        span = np.array([data["flops"].min() * 0.8, data["flops"].max() * 1.25])
        axes.plot(span, span / rate / 60, color=MUTED, lw=1, label=f"{rate / 1e9:.3g} GFLOP/s")
        if len(known):
            minutes = known["estimated_seconds"] / 60
            axes.plot(known["flops"], minutes, ls="none", marker="_", ms=12, color=INK, label="estimated before")
        axes.set(xscale="log", yscale="log", xlabel="FLOPs counted before training")
        axes.set_ylabel("training and evaluation, minutes")
        plain_log(axes, x=False, y=True)
        counted_log(axes)
        axes.grid()
        axes.legend()
    ratio = judged["seconds"] / (judged["flops"] / rate)
    caption = f"One rate for all runs misses a run's time by {100 * float((ratio - 1).abs().median()):.0f}% (median)."
    known = known[known["run"].isin(judged["run"])]
    if len(known):
        miss = known["estimated_seconds"] / known["seconds"] - 1
        caption += f" The plan's estimate misses it by {100 * float(miss.abs().median()):.0f}%."
    disturbed = len(data) - len(judged)
    if disturbed:
        caption += f" Hollow, and not counted here: {disturbed} runs during which something else used the machine."
    return Drawing("cost", "Cost counted before against cost measured", caption, figure, data)
