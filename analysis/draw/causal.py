"""Causal LM in several sizes: bits per byte against parameters."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from albert_ablate.axes import METHOD, MethodName
from albert_ablate.config.labels import joined, varying

from ..judge.metrics import BITS_PER_BYTE, summarised, unfit, values
from ..read.arms import settings_of_arms
from ..read.sweeps import groups
from .plotting import NothingToDraw, numbers, plain_log, points
from .style import Drawing, canvas, look, styled

#: Settings of a model's size: what arms of one line differ in.
_SIZE = ("model.name", "model.hidden", "model.layers", "embed.size", "model.heads", "model.intermediate")


def sizes(runs: pd.DataFrame) -> Drawing:
    """Bits per byte against parameters; a line joins the causal arms that differ in width alone.

    The arms are those of the latest sweep with two sizes of causal models.
    """
    found = [data for group in groups(runs) if len(data := _sizes_of(group.runs))]
    if not found:
        raise NothingToDraw("no two sizes of causal LM in one sweep")
    data = found[0]
    lines = {str(name): part for name, part in data.groupby("line", sort=False)}
    several = data["settings"].nunique() > 1
    with styled():
        figure, axes = canvas((5.4, 3.9))
        for index, part in enumerate(lines.values()):
            style = look(index)
            axes.plot(part["parameters_M"], part["mean"], color=style["color"], lw=1.4, zorder=1)
            for row in part.to_dict("records"):
                face = "none" if row["mark"] else style["color"]
                alone = {"linestyle": "none", "markersize": 7, "markerfacecolor": face}
                points(axes, [row["parameters_M"]], pd.DataFrame([row]), style | alone, "")
                at = (row["parameters_M"], row["mean"])
                label = f"{row['hidden']}×{row['layers']}"
                axes.annotate(label, at, (8, 4), textcoords="offset points", fontsize=8.5, color=style["color"])
            if several:
                last = part.iloc[-1]
                at = (last["parameters_M"], last["mean"])
                axes.annotate(
                    last["settings"], at, (8, -10), textcoords="offset points", fontsize=8.5, color=style["color"]
                )
        axes.set(xscale="log", xlabel="parameters, millions (labels: width × layers)", ylabel="held-out bits per byte")
        plain_log(axes)
        axes.margins(x=0.2, y=0.12)  # room for the labels
        axes.grid(axis="y")
    caption = "Held-out documents; lower is better. Lines join arms of one depth. Bars: 95% t interval over seeds."
    if (data["mark"] != "").any():
        caption += " Hollow: not better than the unigram baseline."
    return Drawing("sizes", "Causal LM in several sizes", caption, figure, data)


def _sizes_of(runs: pd.DataFrame) -> pd.DataFrame:
    """A row for each causal arm with a score, by line and size; empty unless two arms differ in size."""
    causal = runs[[MethodName(name).predicts_next for name in runs[METHOD.name]]] if METHOD.name in runs else runs[:0]
    if not len(causal):
        return pd.DataFrame()
    apart = [key for key in varying(settings_of_arms(causal)) if key not in _SIZE]
    rows = []
    for arm, frame in causal.groupby("arm", sort=False):
        summary = summarised(frame, BITS_PER_BYTE)
        if summary is not None:
            each = " ".join(f"{value:.6g}" for value in values(frame, BITS_PER_BYTE))
            first = frame.iloc[0]
            shape = {"hidden": int(first["hidden"]), "layers": int(first["layers"])}
            settings = _settings(first["config"], apart)
            depth = f"{shape['layers']} layer{'s' if shape['layers'] > 1 else ''}"
            rows.append({
                "arm": str(arm), "line": f"{depth}, {settings}".rstrip(", "), "settings": settings,
                **shape, "parameters_M": first["params_with_pooler"] / 1e6, "score": BITS_PER_BYTE, **numbers(summary),
                "seeds": each, "mark": unfit(frame, BITS_PER_BYTE) or "",
            })  # fmt: skip
    data = pd.DataFrame(rows)
    if len(data) < 2 or data["parameters_M"].nunique() < 2:
        return pd.DataFrame()
    members = data.groupby("line")["arm"].transform("count")  # the longest line first
    return (
        data.assign(members=-members)
        .sort_values(["members", "line", "parameters_M"], ignore_index=True)
        .drop(columns="members")
    )


def _settings(config: Mapping[str, Any], apart: list[str]) -> str:
    """What sets a line apart besides its depth: E if it is not H, and every setting but the size."""
    size = config["embed"]["size"]
    factorised = [] if size == config["model"]["hidden"] else [f"E = {size}"]
    return ", ".join([*factorised, *filter(None, [joined(config, tuple(apart))] if apart else [])])
