"""ELECTRA's figures: score against the size of the generator, and how the encoder learns to find replaced tokens."""

from collections.abc import Mapping
from math import inf, log2
from typing import Any

import pandas as pd

from albert_ablate.axes import METHOD, MethodName
from albert_ablate.config.labels import arm_labels

from ..judge.metrics import GLUE_SCORES, metric, summarised, tasks_of, values
from ..judge.tables import arms_of
from ..read import paper
from ..read.arms import in_order, settings_of_arms
from ..read.cells import main_setup, select
from ..read.runs import FINDING, replaced_curves
from .looks import arm_styles
from .plotting import NothingToDraw, band, numbers, points, side_by_side
from .style import MUTED, Drawing, canvas, look, styled

_TABLE = "electra_generators"
#: Panels of the second figure: column -> title, label of the axis, factor, bounds.
_PANELS: dict[str, tuple[str, str, float, tuple[float, float]]] = {
    "accuracy": ("Accuracy over all tokens", "accuracy, %", 100.0, (0.0, 100.0)),
    "auc": ("Ranking of replaced before real", "area under the ROC curve", 1.0, (0.0, 1.0)),
    "recall": ("Share of the replaced tokens found", "recall, %", 100.0, (0.0, 100.0)),
    "generator_loss": ("The generator", "held-out masked-LM loss, nats", 1.0, (0.0, inf)),
}


def generator_sizes(runs: pd.DataFrame) -> Drawing:
    """Score against the width of the generator, ours beside the paper's three curves; ``unigram`` has its own tick."""
    arms = arms_of(_TABLE)
    selection = select(runs, arms)
    frames = [frame for frame in selection.runs.values() if len(frame)]
    key = score_of_all(frames)
    if key is None:
        why = "no fine-tuned run" if frames else "no run"
        raise NothingToDraw(f"{why} with a generator of one of the sizes in sweeps/{_TABLE}.yaml")
    rows = [
        {"curve": "ours", "width": _width(terms), "score": key, **numbers(summarised(selection.runs[arm], key))}
        for arm, terms in arms.items()
        if len(values(selection.runs[arm], key))
    ]
    printed = paper.figure(_TABLE)["GLUE"]["series"]
    rows += [
        {"curve": f"encoder of width {hidden}", "width": width / hidden, "score": "GLUE", "n": 1, "mean": score}
        for hidden, curve in printed.items()
        for width, score in curve.items()
    ]
    data = pd.DataFrame(rows)
    data["tick"] = [_tick(width, data["width"]) for width in data["width"]]
    with styled():
        figure, (left, right) = canvas((9.4, 3.9), 1, 2)
        ours = data[data["curve"] == "ours"].sort_values("tick")
        points(left, ours["tick"], ours, look(0), "ours")
        for index, (curve, part) in enumerate(data[data["curve"] != "ours"].groupby("curve", sort=False), 1):
            part = part.sort_values("tick")
            style: dict[str, Any] = look(index) | {"markerfacecolor": "none"}
            right.plot(part["tick"], part["mean"], label=str(curve), **style)
        for axes, shown in ((left, ours["width"]), (right, (0.0, *_SHOWN))):
            axes.set_xticks([_tick(width, data["width"]) for width in shown], [_fraction(width) for width in shown])
            axes.set_xlim(data["tick"].min() - 0.4, data["tick"].max() + 0.4)
            axes.set(xlabel="width of the generator, as a fraction of the encoder's")
            axes.grid(axis="y")
        left.set(ylabel=f"{metric(key).label}, %")
        left.set_title("Ours")
        right.set(ylabel="GLUE, mean of eight tasks, %")
        right.set_title("The paper's")
        figure.legend(*right.get_legend_handles_labels(), loc="outside lower right", ncols=3)
    caption = (
        "Equal steps. Unigram: pieces as frequent as in the corpus, without a network. Bars: 95% t interval over "
        "seeds; the paper's points, read off its Figure 3, are medians of one pretrained model."
    )
    return Drawing("generators", "ELECTRA, Figure 3: size of the generator", caption, figure, data)


#: Widths that have a label.
_SHOWN = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)


def score_of_all(frames: list[pd.DataFrame]) -> str | None:
    """GLUE if every run has it, else the first task that every run was fine-tuned on."""
    if not frames:
        return None
    tasks = tasks_of(pd.concat(frames))
    ranked = ["GLUE", *(f"task:{task}" for task in sorted(tasks, key=lambda task: (task not in GLUE_SCORES, task)))]
    return next((key for key in ranked if all(len(values(frame, key)) == len(frame) for frame in frames)), None)


def _width(terms: Mapping[str, Any]) -> float:
    """The width of an arm's generator; 0 for one that is no network."""
    return float(terms["method.generator_width"]) if "method.generator_width" in terms else 0.0


def _tick(width: float, widths: "pd.Series[float]") -> float:
    """Place on a binary logarithmic axis; the generator without a width is left of all others."""
    smallest = min(w for w in (*widths, *_SHOWN) if w > 0)
    return log2(width) if width > 0 else log2(smallest) - 1


def _fraction(width: float) -> str:
    return "unigram" if width == 0 else "1" if width == 1 else f"1/{round(1 / width)}"


def replaced_tokens(runs: pd.DataFrame) -> Drawing:
    """Held-out accuracy, area under the ROC curve and recall on replaced tokens, and the loss of the generator."""
    chosen = in_order(main_setup(runs))
    curves = {str(arm): pd.DataFrame(replaced_curves(frame)) for arm, frame in chosen.groupby("arm", sort=False)}
    curves = {arm: curve.assign(arm=arm) for arm, curve in curves.items() if len(curve)}
    if not curves:
        raise NothingToDraw("no run has held-out scores of finding replaced tokens (method=electra and its relatives)")
    data = pd.concat(curves.values())
    chosen = chosen[chosen["arm"].isin(curves)]
    labels = dict(zip(chosen["arm"], arm_labels(settings_of_arms(chosen)), strict=True))
    with styled():
        figure, panels = canvas((9.4, 6.4), 2, 2)
        styles = arm_styles(chosen)
        for axes, (column, (title, label, factor, within)) in zip(panels.flat, _PANELS.items(), strict=True):
            for arm, part in data.groupby("arm", sort=False):
                part = part.assign(tokens=part.groupby("step")["tokens"].transform("mean") / 1e6)
                shown = part.assign(value=factor * part[column]).dropna(subset=["value"])
                if len(shown):
                    name = labels[arm] or METHOD.label_of(chosen[chosen["arm"] == arm][METHOD.name].iloc[0])
                    band(axes, shown, "tokens", styles[str(arm)], name, within=within)
                if column == "accuracy":
                    real = part.assign(value=factor * (1 - part["fake_rate"])).groupby("tokens")["value"].mean()
                    axes.plot(real.index, real, color=styles[str(arm)]["color"], lw=1, ls=(0, (1, 1.2)), zorder=4)
            axes.set(xlabel="tokens, millions", ylabel=label)
            axes.set_title(title)
            axes.grid(axis="y")
        panels[0][1].axhline(0.5, color=MUTED, lw=1, ls="--")
        handles, names = panels[0][0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=side_by_side(names, 9.4, 3), handlelength=3.5)
    caption = (
        "Mean over seeds; band: 95% t interval. Dotted, in the arm's colour: the accuracy of calling every token real, "
        "which has to be beaten. A better generator replaces fewer tokens and makes the task harder: compare each arm "
        "with its own line."
    )
    if MethodName.ELECTRA_15 in set(chosen[METHOD.name]):
        label = METHOD.label_of(MethodName.ELECTRA_15)
        caption += f" {label} learns nothing about tokens that are not masked, where it may call everything replaced."
    return Drawing(
        "replaced", "Finding replaced tokens", caption, figure, data[["arm", "seed", "step", "tokens", *FINDING]]
    )
