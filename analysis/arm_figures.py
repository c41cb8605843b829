"""Figures that tell how far to trust a comparison of arms, and what it cost.

Every function takes the runs and gives a ``Drawing``, or raises ``NothingToDraw`` with the reason.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from albert_ablate.axes import AXES
from albert_ablate.drawing_library import Line2D, MaxNLocator

from .arms import arm_names, in_order
from .cells import main_setup
from .estimates import planned_seconds
from .metrics import metric, summarised, unfit, values
from .planted import natural
from .plotting import NothingToDraw, band, counted_log, numbers, plain_log, points, score_axis, score_of
from .runs import held_out_curves
from .statistics import estimate, seeds_needed
from .style import COLOURED, DASHED, DASHES, INK, MUTED, Drawing, canvas, look, look_of, styled

#: The axes that figures have no colours or dashes for.
_OTHERS = [axis for axis in AXES if axis not in (COLOURED, DASHED)]


def pareto(runs: pd.DataFrame) -> Drawing:
    """Parameters against score of the arms that differ in E and sharing; the line joins those no smaller arm beats."""
    chosen = main_setup(runs)
    if len(chosen):
        chosen = chosen[[_common(run, chosen) for run in chosen.to_dict("records")]]
    key = score_of([chosen])
    rows = []
    for arm, frame in chosen.groupby("arm", sort=False):
        value = summarised(frame, key)
        millions = frame["params_with_pooler"].iloc[0]
        if value is not None and millions:
            axis = {one.name: frame[one.name].iloc[0] for one in AXES}
            rows.append({"arm": arm, **axis, "parameters_M": millions / 1e6, "score": key, **numbers(value)})
    if len(rows) < 2:
        raise NothingToDraw("fewer than two arms in one set-up")
    data = pd.DataFrame(rows).sort_values("parameters_M")
    better = metric(key).higher_is_better
    front = data[[_on_front(row, data, better) for row in data.to_dict("records")]]
    with styled():
        figure, axes = canvas((7.2, 4.3))
        axes.plot(front["parameters_M"], front["mean"], color=MUTED, lw=1, zorder=1)
        for coloured, part in data.groupby(COLOURED.name, sort=False):
            style = look_of(COLOURED, coloured) | {"linestyle": "none"}
            points(axes, part["parameters_M"], part, style, COLOURED.words(coloured))
        for place, row in enumerate(data.to_dict("records")):
            offset = (6, 5) if place % 2 else (6, -11)
            axes.annotate(
                DASHED.words(row[DASHED.name]),
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
    """Every run behind every mean, and the smallest difference that this many seeds would show."""
    chosen = main_setup(runs)
    key = score_of([chosen])
    own: dict[Any, float | None] = {place: _own(chosen.loc[[place]], key) for place in chosen.index}
    chosen = chosen.assign(value=pd.Series(own, dtype=float)).dropna(subset=["value"])
    if not len(chosen):
        raise NothingToDraw("no finished run")
    better = metric(key).higher_is_better
    order = chosen.groupby("arm")["value"].mean().sort_values(ascending=better).index
    with styled():
        figure, axes = canvas((7.2, 1.2 + 0.3 * len(order)))
        for y, arm in enumerate(order):
            part = chosen[chosen["arm"] == arm]
            found = estimate(part["value"], metric(key).within)
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
            if found is not None:
                axes.plot([found.mean] * 2, [y - 0.3, y + 0.3], color=INK, lw=1.6)
                if found.n > 1:
                    axes.plot([found.low, found.high], [y, y], color=INK, lw=0.9)
        axes.set_yticks(range(len(order)), list(order))
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


def _own(run: pd.DataFrame, key: str) -> float | None:
    found = values(run, key) * metric(key).scale
    return None if not len(found) else float(found.iloc[0])


def _detectable(chosen: pd.DataFrame) -> str:
    """The smallest paired difference seen with 80% power, from the spread of paired differences."""
    wide = chosen.pivot_table(index="seed", columns="arm", values="value")
    whole = wide.dropna(axis=1)  # an arm that lacks a seed takes that seed from no other
    wide = whole if whole.shape[1] > 1 else wide
    n = len(wide.dropna())
    if n < 2:
        return "With one seed nothing can be said about spread."
    spread = float(np.median(wide.dropna().sub(wide.dropna().mean(axis=1), axis=0).std(ddof=1)) * math.sqrt(2))
    sizes = np.geomspace(1e-4, 1e3, 400)
    seen = next((size for size in sizes if (seeds_needed(size, spread) or math.inf) <= n), None)
    return (
        ""
        if seen is None
        else f"{n} seeds show a difference of about {seen:.2g} between two arms (80% power, before correction)."
    )


def learning_curves(runs: pd.DataFrame) -> Drawing:
    """Held-out loss and the arm's own sentence accuracy against tokens: mean over seeds with a band."""
    chosen = in_order(main_setup(runs))
    parts = [pd.DataFrame(held_out_curves(frame)).assign(arm=arm) for arm, frame in chosen.groupby("arm", sort=False)]
    data = pd.concat([part for part in parts if len(part)]) if any(map(len, parts)) else pd.DataFrame()
    if not len(data):
        raise NothingToDraw("no run has a held-out curve")
    with styled():
        figure, (left, right) = canvas((9.4, 4.6), 1, 2)
        styles = _arm_styles(chosen)
        few = len(styles) <= 6
        for arm, part in data.groupby("arm", sort=False):
            style = styles[str(arm)]
            part = part.assign(tokens=part.groupby("step")["tokens"].transform("mean") / 1e6)
            band(left, part.assign(value=part["mlm_loss"]), "tokens", style, str(arm), few)
            if part["sentence"].notna().any():
                shares = part.assign(value=100 * part["sentence"].astype(float))
                band(right, shares, "tokens", style, str(arm), few, within=(0.0, 100.0))
        for name, line in (("unigram", "--"), ("bigram", ":")):
            height = chosen[f"{name}_loss"].dropna().mean()
            if not math.isnan(height):
                left.axhline(height, color=MUTED, lw=1, ls=line)
                place: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "ha": "right", "va": "bottom"}
                left.annotate(name, (1, height), fontsize=8, color=MUTED, **place)
        right.axhline(50, color=MUTED, lw=1, ls="--")
        left.set(xlabel="tokens, millions", ylabel="held-out masked-LM loss, nats")
        left.set_title("Masked LM")
        right.set(xlabel="tokens, millions", ylabel="accuracy, %")
        right.set_title("The arm's own sentence task")
        handles, labels = left.get_legend_handles_labels() if few else _key(chosen, styles)
        figure.legend(handles, labels, loc="outside lower center", ncols=3 if few else 4)
    caption = "Mean over seeds. Grey lines: what has to be beaten." + (" Band: 95% t interval." if few else "")
    return Drawing("curves", "Learning curves", caption, figure, data)


def _arm_styles(chosen: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Colour and dashes by their axes; another colour where the other axes have not their commonest values."""
    dashed = sorted(chosen[DASHED.name].unique(), key=DASHED.rank)
    others: dict[str, int] = {}
    found = {}
    for run in chosen.drop_duplicates("arm").to_dict("records"):
        style = look_of(COLOURED, run[COLOURED.name])
        if not _common(run, chosen):
            style = look(len(COLOURED.labels) + others.setdefault(_coloured(run, chosen), len(others)))
        dashes = DASHES[dashed.index(run[DASHED.name]) % len(DASHES)]
        found[run["arm"]] = style | {"linestyle": dashes, "markersize": 3.5}
    return found


def _common(run: Mapping[Any, Any], chosen: pd.DataFrame) -> bool:
    """Whether the axes that no colour or dash is for have the values that most runs have."""
    return all(run[axis.name] == chosen[axis.name].mode().iloc[0] for axis in _OTHERS)


def _coloured(run: Mapping[Any, Any], chosen: pd.DataFrame) -> str:
    """What a colour stands for: a value of its axis, and the other axes where their values are not the commonest."""
    more = (
        [] if _common(run, chosen) else [axis.words(run[axis.name]) for axis in _OTHERS if axis.shown(run[axis.name])]
    )
    return ", ".join([COLOURED.words(run[COLOURED.name]), *more])


def _key(chosen: pd.DataFrame, styles: Mapping[str, Mapping[str, Any]]) -> tuple[list[Line2D], list[str]]:
    """A legend of colours and one of dashes: one line each instead of one for every arm."""
    runs = chosen.drop_duplicates("arm").to_dict("records")
    colours = {
        _coloured(run, chosen): {**styles[run["arm"]], "linestyle": "-"} for run in runs
    }  # fmt: skip
    dashes = {
        f"{DASHED.name} = {run[DASHED.name]}": {"color": MUTED, "linestyle": styles[run["arm"]]["linestyle"]}
        for run in runs
    }
    found = {**colours, **dashes}
    return [Line2D([], [], **style) for style in found.values()], list(found)


def cost(runs: pd.DataFrame) -> Drawing:
    """What each run took against what was counted and, where the plan measured its shape, estimated before."""
    runs = natural(runs)
    complete = runs[["seconds", "flops", "hidden"]].notna().all(axis=1)
    done = runs[(runs["state"] == "finished") & complete]
    if not len(done):
        raise NothingToDraw("no finished run")
    said = planned_seconds(done)
    data = done[["run", COLOURED.name, "flops", "tokens_per_second", "speed_spread", "device"]].assign(
        arm=arm_names(done),
        steady=[unfit(done.loc[[place]], "tokens/s") is None for place in done.index],
        seconds=done["seconds"] + done["evaluation_seconds"].astype(float).fillna(0.0),
        estimated_seconds=done["run"].map(said).astype(float),
    )
    judged = data[data["steady"]] if data["steady"].any() else data
    rate = float((judged["flops"] / judged["seconds"]).median())
    known = data.dropna(subset=["estimated_seconds"])
    with styled():
        figure, axes = canvas((7.2, 3.9))
        for coloured, part in data.groupby(COLOURED.name, sort=False):
            style = look_of(COLOURED, coloured) | {"linestyle": "none"}
            axes.plot([], [], label=COLOURED.words(coloured), **style)
            for steady, some in part.groupby("steady"):
                face = style["color"] if steady else "none"
                axes.plot(some["flops"], some["seconds"] / 60, markerfacecolor=face, **style)
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
        counted_log(axes, float(span[1] / span[0]))
        axes.grid()
        axes.legend()
    ratio = judged["seconds"] / (judged["flops"] / rate)
    words = f"One rate for all runs misses a run's time by {100 * float((ratio - 1).abs().median()):.0f}% (median)."
    known = known[known["run"].isin(judged["run"])]
    if len(known):
        miss = known["estimated_seconds"] / known["seconds"] - 1
        words += f" The plan's estimate misses it by {100 * float(miss.abs().median()):.0f}%."
    disturbed = len(data) - len(judged)
    if disturbed:
        words += f" Hollow, and not counted here: {disturbed} runs during which something else used the machine."
    return Drawing("cost", "Cost counted before against cost measured", words, figure, data)
