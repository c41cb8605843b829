"""The paper's figures drawn from runs, with the paper's curves beside them.

Every figure function takes the table of runs and returns a ``Drawing``, or raises ``NothingToDraw`` with the reason.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from albert_ablate.axes import SHARE

from ..judge.metrics import SENTENCE_SCORES, summarised
from ..judge.tables import arms_of
from ..read import paper
from ..read.cells import select
from ..read.runs import held_out_curves, setting
from .plotting import NothingToDraw, band, interval_text, log_ticks, numbers, points, score_axis, score_of
from .style import COLOURED, MUTED, Drawing, canvas, look, look_of, styled

_STRATEGIES = tuple(map(str, SHARE.labels))[::-1]
_TASKS = ("MLM", *SENTENCE_SCORES)
#: The arms of Table 5: the paper's name -> the label in the figure.
_TRAINED = {"None": "no task", **{score: score for score in SENTENCE_SCORES}}


def per_layer(runs: pd.DataFrame) -> Drawing:
    """Figure 1: distance between input and output of each layer by sharing strategy, with the paper's curves."""
    large = dict(zip(("not shared, E = H", "all shared"), arms_of("figure1").values(), strict=True))
    arms: dict[str, dict[str, Any]] = large
    selection = select(runs, arms)
    if any(not len(frame) for frame in selection.runs.values()):
        arms = {
            SHARE.label_of(s): {"size": "base", "share": s, "objective": "sop", "embedding": "H/6"} for s in _STRATEGIES
        }
        selection = select(runs, arms)
    data = layers_of({arm: frame.assign(share=arms[arm]["share"]) for arm, frame in selection.runs.items()})
    if not len(data):
        raise NothingToDraw("no finished SOP run of the base size with E = H/6 has per-layer distances")
    shape = next(frame for frame in selection.runs.values() if len(frame)).iloc[0]
    smooth = "; ".join(_smoothness(selection.runs[arm], arm) for arm in selection.runs if len(selection.runs[arm]))
    length = setting(shape["config"], "pairs.max_length")
    caption = (
        f"Mean over the tokens of held-out sequences of up to {length} tokens (the paper does not say what its curves "
        f"were measured on); band: 95% t interval over seeds. Ours has {shape['layers']} layers of width "
        f"{shape['hidden']}, the paper's models 24 of 1024 (dashed, grey), so heights differ by width; compare shapes. "
        "The paper's layer IDs 1 to 23 are put on the same axis by ID/23 (its text does not define them). "
        f"Roughness (mean change from layer to layer over the mean): {smooth}."
    )
    return Drawing("figure1", "Figure 1: what each layer does to its input", caption, draw_layers(data), data)


def layers_of(frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """A row for each arm, seed, layer and measure; runs need ``l2``, ``degrees`` and the axis shown by colour."""
    return pd.DataFrame(
        {
            "arm": arm, COLOURED.name: run[COLOURED.name], "seed": run["seed"],
            "layer": layer, "depth": layer / len(run[measure]), "measure": measure, "value": value,
        }
        for arm, frame in frames.items()
        for run in frame.to_dict("records")
        for measure in ("l2", "degrees")
        if isinstance(run[measure], list)
        for layer, value in enumerate(run[measure], 1)
    )  # fmt: skip


def draw_layers(data: pd.DataFrame) -> Any:
    """Figure 1 from the rows of ``layers_of``: L2 distance and angle by depth, with the paper's curves."""
    with styled():
        figure, panels = canvas((9.4, 3.7), 1, 2)
        for axes, key, label in zip(panels, ("l2", "degrees"), ("L2 distance", "angle, degrees"), strict=True):
            _paper_layers(axes, "L2" if key == "l2" else "cosine_degrees")
            for index, (arm, part) in enumerate(data[data["measure"] == key].groupby("arm", sort=False)):
                several = data[COLOURED.name].nunique() > 1
                style = look_of(COLOURED, part[COLOURED.name].iloc[0]) if several else look(index)
                band(axes, part, "depth", style, str(arm))
            axes.set(xlabel="layer, as a share of the depth", ylabel=label, ylim=(0, None), xlim=(0, 1.03))
            axes.set_title("L2 distance of input and output" if key == "l2" else "Angle between input and output")
            axes.grid(axis="y")
        panels[0].legend(ncols=2, loc="best")
    return figure


def _paper_layers(axes: Any, panel: str) -> None:
    record = paper.figure("figure1")[panel]
    for name, dashes in (("BERT-large", (0, (1, 1.4))), ("ALBERT-large", (0, (4, 2)))):
        depth, height = record["x"][1:], record["series"][name][1:]
        axes.plot(
            np.array(depth) / depth[-1],
            height,
            color=MUTED,
            alpha=0.8,
            lw=1.1,
            ls=dashes,
            label=f"{name} (paper)",
            zorder=1,
        )


def _smoothness(runs: pd.DataFrame, arm: str) -> str:
    parts = [summarised(runs, key) for key in ("L2 roughness", "angle roughness")]
    texts = [interval_text(roughness, 2) for roughness in parts if roughness is not None]
    return f"{arm} {' (L2), '.join(texts)} (angle)" if texts else f"{arm} needs two layers"


def training_curves(runs: pd.DataFrame) -> Drawing:
    """Figure 2: held-out masked-LM accuracy in training, with more data and without dropout; below, the paper's."""
    names = ("without", "with more data"), ("with dropout", "without")
    arms = arms_of("figure2")
    chosen = [dict(zip(names[panel], list(arms.values())[2 * panel : 2 * panel + 2], strict=True)) for panel in (0, 1)]
    selections = [select(runs, panel) for panel in chosen]
    rows = [
        {"panel": "ab"[index], "arm": arm, **point}
        for index, selection in enumerate(selections)
        for arm, frame in selection.runs.items()
        for point in held_out_curves(frame)
        if all(len(frame) for frame in selection.runs.values())
    ]
    if not rows:
        raise NothingToDraw(
            "no pair of runs differs only in the data (half and all) or only in dropout at the largest size"
        )
    data = pd.DataFrame(rows)
    with styled():
        figure, panels = canvas((9.4, 6.2), 2, 2)
        printed = paper.figure("figure2")
        for index, (letter, title, key) in enumerate(
            (("a", "Additional data", "a_adding_data"), ("b", "Removing dropout", "b_removing_dropout"))
        ):
            top, bottom = panels[0][index], panels[1][index]
            part = data[data["panel"] == letter]
            for number, (arm, curve) in enumerate(part.groupby("arm", sort=False)):
                shares = curve.assign(value=100 * curve["mlm"])
                band(top, shares, "step", look(number), str(arm), within=(0.0, 100.0))
            top.set_title(f"{title}: ours")
            if not len(part):
                top.text(0.5, 0.5, "no such pair of runs", transform=top.transAxes, ha="center", color=MUTED)
            for number, (arm, curve) in enumerate(printed[key]["series"].items()):
                style = look(number) | {"marker": ""}
                bottom.plot(*zip(*curve, strict=True), label=arm.replace("_", " "), **style)
            bottom.set_title(f"{title}: the paper's")
            top.set(xlabel="steps", ylabel="held-out MLM accuracy, %")
            bottom.set(xlabel="steps, 10,000s", ylabel="dev MLM accuracy, %")
            for axes in (top, bottom):
                axes.grid(axis="y")
                if axes.get_legend_handles_labels()[0]:
                    axes.legend()
    caption = "The paper branches one running model; here both arms start together. Band: 95% t interval over seeds."
    return Drawing("figure2", "Figure 2: additional data and dropout in training", caption, figure, data)


def embedding(runs: pd.DataFrame) -> Drawing:
    """Score against E for each sharing strategy of Table 3, ours beside the paper's."""
    arms = arms_of("table3")
    selection = select(runs, arms)
    key = score_of(selection.runs.values())
    printed = paper.table("table3")["rows"]
    rows = []
    for arm, paper_row in zip(arms, printed, strict=True):
        frame = selection.runs[arm]
        value = summarised(frame, key) if len(frame) else None
        cell = {"share": arms[arm]["share"], "E": frame["E"].iloc[0] if len(frame) else None, "score": key}
        rows.append(cell | numbers(value) | {"paper_E": paper_row["E"], "paper_Avg": paper_row["Avg"]})
    data = pd.DataFrame(rows)
    if data["mean"].isna().all():
        raise NothingToDraw("no run of Table 3")
    with styled():
        figure, (left, right) = canvas((9.4, 3.5), 1, 2)
        for share, part in data.groupby("share", sort=False):
            style = look_of(SHARE, share)
            measured = part.dropna(subset=["mean"])
            points(left, measured["E"].astype(float), measured, style, SHARE.label_of(share))
            right.plot(part["paper_E"], part["paper_Avg"], label=SHARE.label_of(share), **style)
        log_ticks(left, sorted(data["E"].dropna().astype(int).unique()))
        log_ticks(right, sorted(data["paper_E"].unique()))
        left.set(xlabel="embedding size E", ylabel=score_axis(key))
        left.set_title("Ours")
        right.set(xlabel="embedding size E", ylabel="Avg of five tasks, %")
        right.set_title("The paper's")
        for axes in (left, right):
            axes.grid(axis="y")
            axes.legend()
    return Drawing("embedding", "Embedding size against score", "Bars: 95% t interval over seeds.", figure, data)


def objective_matrix(runs: pd.DataFrame) -> Drawing:
    """Matrix of the objective trained on and the score tested on (Table 5, intrinsic tasks), ours and the paper's."""
    arms = arms_of("table5")
    selection = select(runs, arms)
    printed = paper.table("table5")["rows"]
    rows = []
    for arm, paper_row in zip(arms, printed, strict=True):
        for key in _TASKS:
            frame = selection.runs[arm]
            value = summarised(frame, key) if len(frame) else None
            rows.append(
                {"trained_on": paper_row["SP_task"], "tested_on": key, **numbers(value), "paper": paper_row[key]}
            )
    data = pd.DataFrame(rows)
    if data["mean"].isna().all():
        raise NothingToDraw("no run of Table 5")
    with styled():
        figure, panels = canvas((9.4, 3.1), 1, 2)
        for axes, column, title in zip(panels, ("mean", "paper"), ("Ours, %", "The paper's, %"), strict=True):
            grid = data.pivot(index="trained_on", columns="tested_on", values=column).reindex(
                list(_TRAINED), columns=list(_TASKS)
            )
            axes.pcolormesh(grid.to_numpy(float), cmap="Blues", vmin=0, vmax=150, edgecolors="none")
            axes.invert_yaxis()
            axes.set_xticks(np.arange(len(_TASKS)) + 0.5, [f"tested on {name}" for name in _TASKS])
            axes.set_yticks(np.arange(len(_TRAINED)) + 0.5, [f"trained on {name}" for name in _TRAINED.values()])
            axes.tick_params(length=0)
            axes.spines[:].set_visible(False)
            axes.set_title(title)
            for y, trained in enumerate(_TRAINED):
                for x, tested in enumerate(_TASKS):
                    row = data[(data["trained_on"] == trained) & (data["tested_on"] == tested)].iloc[0]
                    axes.text(x + 0.5, y + 0.5, _matrix_label(row, column), ha="center", va="center", color="#0b1b2b")
    caption = (
        "NSP and SOP by the trained head where the arm has one, else by a head fitted on the frozen encoder. "
        "± half of the 95% t interval over seeds; in brackets, one that ends at a bound. Chance is 50."
    )
    return Drawing("objectives", "Trained on, tested on", caption, figure, data)


def _matrix_label(row: pd.Series, column: str) -> str:
    if pd.isna(row[column]):
        return "—"
    if column != "mean" or pd.isna(row["low"]):
        return f"{row[column]:.1f}"
    below, above = row["mean"] - row["low"], row["high"] - row["mean"]
    if math.isclose(below, above, rel_tol=1e-6, abs_tol=1e-12):
        return f"{row['mean']:.1f} ± {above:.1f}"
    return f"{row['mean']:.1f}\n({row['low']:.1f} to {row['high']:.1f})"
