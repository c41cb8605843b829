"""Students, their teachers and models of their size: score against parameters, FLOPs and time of inference."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from albert_ablate.axes import METHOD
from albert_ablate.config.labels import varying

from ..judge.metrics import metric, summarised, unfit
from ..judge.students import about_students, distils
from ..read.arms import settings_of_arms
from ..read.students import inference_flops
from ..read.sweeps import groups
from .electra import score_of_all
from .looks import arm_styles
from .plotting import NothingToDraw, numbers, plain_log, points
from .style import MUTED, Drawing, canvas, styled

#: Column of what an arm costs -> the label of its axis.
_PANELS = {
    "parameters_M": "parameters, millions",
    "inference_MFLOPs": "FLOPs of a forward pass over one sequence, millions",
    "inference_ms": "time of a forward pass over one sequence, milliseconds",
}


def students(runs: pd.DataFrame) -> Drawing:
    """The score of each arm against three costs; a line joins the arms that no arm of the same cost or less beats.

    The arms are those of the latest sweep with students: the students, the arms of masked LM of their sizes, and their
    teachers.
    """
    group = next((group for group in groups(runs) if METHOD.name in group.runs and _with_students(group.runs)), None)
    if group is None:
        raise NothingToDraw("no run learned from a teacher (method=distilbert or tinybert)")
    frames = {str(arm): frame for arm, frame in group.runs.groupby("arm", sort=False)}
    arms = {arm: frames[arm] for arm in about_students(frames, varying(settings_of_arms(group.runs)))}
    chosen = pd.concat(arms.values())
    key = score_of_all(list(arms.values())) or "MLM"
    rows = [_numbers(arm, frame, key) for arm, frame in arms.items()]
    data = pd.DataFrame([row for row in rows if row["mean"] is not None])
    if len(data) < 2:
        raise NothingToDraw("fewer than two arms that have one score, students among them")
    if len(set(chosen["inference_setting"].dropna())) > 1:
        data["inference_ms"] = None
    panels = {column: label for column, label in _PANELS.items() if data[column].notna().all()}
    better = metric(key).higher_is_better
    looks = arm_styles(chosen)
    names = _names([str(arm) for arm in data["arm"]], looks)
    with styled():
        figure, axes = canvas((5.4, 0.3 + 0.22 * len(set(names.values())) + 2.5 * len(panels)), len(panels), 1)
        for panel, (column, label) in zip([axes] if len(panels) == 1 else list(axes.flat), panels.items(), strict=True):
            front = non_dominated(data, column, better).sort_values(column)
            panel.plot(front[column], front["mean"], color=MUTED, lw=1, zorder=1)
            for row in data.to_dict("records"):
                style = looks[row["arm"]] | {"linestyle": "none", "markersize": 7}
                points(panel, [row[column]], pd.DataFrame([row]), style, names[row["arm"]])
            for depth, alike in data.groupby("layers"):  # beside the best arm of a depth; times of others lie close
                top = alike.sort_values("mean", ascending=not better).iloc[0]
                at = (top[column], top["mean"])
                panel.annotate(f"{depth} layers", at, (6, -13), textcoords="offset points", fontsize=8, color=MUTED)
            panel.set(xscale="log", xlabel=label, ylabel=f"{metric(key).label}, {metric(key).unit}")
            plain_log(panel)
            panel.margins(x=0.15, y=0.2)  # room for the labels
            panel.grid(axis="y")
            if not better:
                panel.invert_yaxis()
        handles, texts = figure.axes[0].get_legend_handles_labels()
        entries = dict(zip(texts, handles, strict=True))
        figure.legend(entries.values(), entries.keys(), loc="outside lower left", ncols=1)
    caption = "Grey line: arms that no arm of the same cost or less beats. Bars: 95% t interval over seeds."
    if "inference_ms" not in panels:
        caption += " Times of inference are left out: they were not measured, or not in the same way."
    return Drawing("students", "Students, their teachers and models of their size", caption, figure, data)


def _with_students(runs: pd.DataFrame) -> bool:
    return any(distils(frame) for _, frame in runs.groupby("arm", sort=False))


def _names(arms: Sequence[str], looks: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Arm -> what the arms with its look have in common in their names; they differ in size, as the axes show."""
    alike: dict[tuple[Any, Any], list[str]] = {}
    for arm in arms:
        alike.setdefault((looks[arm]["color"], looks[arm]["marker"]), []).append(arm)
    names: dict[str, str] = {}
    for members in alike.values():
        parts = [part for part in members[0].split(", ") if all(part in other.split(", ") for other in members)]
        names |= dict.fromkeys(members, ", ".join(parts))
    return names


def _numbers(arm: str, frame: pd.DataFrame, key: str) -> dict[str, Any]:
    measured = frame["inference_ms"].dropna()
    return {
        "arm": arm,
        "method": METHOD.label_of(frame[METHOD.name].iloc[0]),
        "layers": int(frame["layers"].iloc[0]),
        "parameters_M": frame["params_with_pooler"].iloc[0] / 1e6,
        "inference_MFLOPs": inference_flops(frame["config"].iloc[0]) / 1e6,
        "inference_ms": float(measured.mean()) if len(measured) == len(frame) else None,
        "score": key,
        **numbers(summarised(frame, key)),
        "mark": unfit(frame, key) or "",
    }


def non_dominated(data: pd.DataFrame, cost: str, better: bool) -> pd.DataFrame:
    """The rows of ``data`` of which no other costs at most as much and has a better ``mean``.

    ``better``: whether higher means are better.
    """
    sign = 1 if better else -1
    kept = [
        not any(
            other[cost] <= row[cost]
            and sign * other["mean"] >= sign * row["mean"]
            and (other[cost] < row[cost] or sign * other["mean"] > sign * row["mean"])
            for other in data.to_dict("records")
        )
        for row in data.to_dict("records")
    ]
    return data[kept]
