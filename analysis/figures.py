"""The paper's figures and those that tell how far to trust a comparison, from whatever runs exist.

Every function takes the runs and gives a ``Drawing``, or raises ``NothingToDraw`` with the reason.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator, ScalarFormatter

from analysis import paper
from analysis.cells import SHARES, arm_names, main_setup, select
from analysis.metrics import metric, values
from analysis.runs import load_metrics
from analysis.statistics import Estimate, estimate, seeds_needed
from analysis.style import DASHES, INK, MUTED, SHARE_STYLE, Drawing, look, styled
from analysis.tables import arms_of

_STRATEGIES = ("none", "ffn", "attention", "all")
_TASKS = ("MLM", "NSP", "SOP")


class NothingToDraw(Exception):  # noqa: N818 - it is no error
    """No run has what a figure shows."""


def per_layer(runs: pd.DataFrame) -> Drawing:
    """Figure 1: how far each layer moves its input, by sharing strategy, with the paper's curves behind."""
    large = {"figure1: not shared, E = H": arms_of("figure1")["figure1.1"], "figure1: all shared": arms_of("figure1")["figure1.2"]}
    base = {SHARES[s]: {"size": "base", "share": s, "objective": "sop", "embedding": "H/6"} for s in _STRATEGIES}
    arms: dict[str, Mapping[str, Any]] = base
    found = select(runs, base)
    bigger = select(runs, large)
    if sum(map(len, bigger.runs.values())) > 0 and all(len(frame) for frame in bigger.runs.values()):
        arms, found = large, bigger
    rows = [
        {"arm": arm, "share": arms[arm]["share"], "seed": run["seed"], "layer": layer, "depth": layer / len(run[key]), "measure": key, "value": value}
        for arm, frame in found.runs.items()
        for run in frame.to_dict("records")
        for key in ("l2", "degrees")
        if isinstance(run[key], list)
        for layer, value in enumerate(run[key], 1)
    ]  # fmt: skip
    if not rows:
        raise NothingToDraw("no finished SOP run of the base size with E = H/6 has per-layer distances")
    data = pd.DataFrame(rows)
    with styled():
        figure, panels = plt.subplots(1, 2, figsize=(9.4, 3.7))
        for axes, key, label in zip(panels, ("l2", "degrees"), ("L2 distance", "angle, degrees"), strict=True):
            _paper_layers(axes, "L2" if key == "l2" else "cosine_degrees")
            for arm, part in data[data["measure"] == key].groupby("arm", sort=False):
                _band(axes, part, "depth", look(SHARE_STYLE[part["share"].iloc[0]]), str(arm).removeprefix("figure1: "))
            axes.set(xlabel="layer, as a share of the depth", ylabel=label, ylim=(0, None), xlim=(0, 1.03))
            axes.set_title("L2 distance of input and output" if key == "l2" else "Angle between input and output")
            axes.grid(axis="y")
        panels[0].legend(ncols=2, loc="best")
    shape = next(frame for frame in found.runs.values() if len(frame)).iloc[0]
    smooth = "; ".join(_smoothness(found.runs[arm], arm) for arm in found.runs if len(found.runs[arm]))
    caption = (
        f"Mean over tokens; band: 95% t interval over seeds. Ours has {shape['layers']} layers of width {shape['hidden']}, "
        f"the paper's models 24 of 1024 (dashed, grey), so heights differ by width; compare shapes. The paper's layer IDs 1 to 23 "
        f"are put on the same axis by ID/23 (its text does not define them). Roughness (mean change from layer to layer over "
        f"the mean): {smooth}."
    )
    return Drawing("figure1", "Figure 1: what each layer does to its input", caption, figure, data)


def _paper_layers(axes: Any, panel: str) -> None:
    record = paper.figure("figure1")[panel]
    for name, dashes in (("BERT-large", (0, (1, 1.4))), ("ALBERT-large", (0, (4, 2)))):
        depth, height = record["x"][1:], record["series"][name][1:]
        axes.plot(
            np.array(depth) / depth[-1], height, color=MUTED, alpha=0.8, lw=1.1, ls=dashes, label=f"{name} (paper)", zorder=1
        )


def _smoothness(runs: pd.DataFrame, arm: str) -> str:
    parts = [estimate(values(runs, key)) for key in ("L2 roughness", "angle roughness")]
    words = [_interval(found, 2) for found in parts if found is not None]
    return f"{arm.removeprefix('figure1: ')} {' (L2), '.join(words)} (angle)" if words else f"{arm} needs two layers"


def training_curves(runs: pd.DataFrame) -> Drawing:
    """Figure 2: held-out masked-LM accuracy in training, with more data and without dropout; the paper's below."""
    names = ("without", "with more data"), ("with dropout", "without")
    arms = arms_of("figure2")
    chosen = [dict(zip(names[panel], list(arms.values())[2 * panel : 2 * panel + 2], strict=True)) for panel in (0, 1)]
    found = [select(runs, panel) for panel in chosen]
    rows = [
        {"panel": "ab"[place], "arm": arm, **point}
        for place, selection in enumerate(found)
        for arm, frame in selection.runs.items()
        for point in _curves(frame)
        if all(len(frame) for frame in selection.runs.values())
    ]
    if not rows:
        raise NothingToDraw("no pair of runs differs only in the data (half and all) or only in dropout at the largest size")
    data = pd.DataFrame(rows)
    with styled():
        figure, panels = plt.subplots(2, 2, figsize=(9.4, 6.2))
        printed = paper.figure("figure2")
        for place, (letter, title, key) in enumerate(
            (("a", "Additional data", "a_adding_data"), ("b", "Removing dropout", "b_removing_dropout"))
        ):
            top, bottom = panels[0][place], panels[1][place]
            part = data[data["panel"] == letter]
            for number, (arm, curve) in enumerate(part.groupby("arm", sort=False)):
                _band(top, curve.assign(value=100 * curve["mlm"]), "step", look(number), str(arm))
            top.set_title(f"{title}: ours")
            if not len(part):
                top.text(0.5, 0.5, "no such pair of runs", transform=top.transAxes, ha="center", color=MUTED)
            for number, (arm, points) in enumerate(printed[key]["series"].items()):
                style = look(number) | {"marker": ""}
                bottom.plot(*zip(*points, strict=True), label=arm.replace("_", " "), **style)
            bottom.set_title(f"{title}: the paper's")
            top.set(xlabel="steps", ylabel="held-out MLM accuracy, %")
            bottom.set(xlabel="steps, 10,000s", ylabel="dev MLM accuracy, %")
            for axes in (top, bottom):
                axes.grid(axis="y")
                if axes.get_legend_handles_labels()[0]:
                    axes.legend()
    caption = "The paper branches one running model; here both arms start together. Band: 95% t interval over seeds."
    return Drawing("figure2", "Figure 2: additional data and dropout in training", caption, figure, data)


def _curves(runs: pd.DataFrame) -> list[dict[str, Any]]:
    """Held-out points of each run: seed, step, tokens, loss, accuracy, accuracy of the sentence task."""
    rows = []
    for run in runs.to_dict("records"):
        metrics = load_metrics(run["path"])
        if "held_out_mlm_loss" not in metrics:
            continue
        for point in metrics.dropna(subset=["held_out_mlm_loss"]).to_dict("records"):
            sentence = point.get("held_out_sentence_accuracy")
            rows.append(
                {
                    "seed": run["seed"], "step": point["step"], "tokens": point["tokens"],
                    "mlm_loss": point["held_out_mlm_loss"], "mlm": point.get("held_out_mlm_accuracy"),
                    "sentence": sentence,
                }
            )  # fmt: skip
    return rows


def embedding(runs: pd.DataFrame) -> Drawing:
    """E against score for each sharing (Table 3), ours beside the paper's."""
    arms = arms_of("table3")
    found = select(runs, arms)
    key = _score_of(found.runs.values())
    printed = paper.table("table3")["rows"]
    rows = []
    for arm, theirs in zip(arms, printed, strict=True):
        frame = found.runs[arm]
        value = estimate(values(frame, key) * metric(key).scale) if len(frame) else None
        rows.append(
            {"share": arms[arm]["share"], "E": frame["E"].iloc[0] if len(frame) else None, "score": key, **_numbers(value), "paper_E": theirs["E"], "paper_Avg": theirs["Avg"]}
        )  # fmt: skip
    data = pd.DataFrame(rows)
    if data["mean"].isna().all():
        raise NothingToDraw("no run of Table 3")
    with styled():
        figure, (ours, theirs) = plt.subplots(1, 2, figsize=(9.4, 3.5))
        for share, part in data.groupby("share", sort=False):
            style = look(SHARE_STYLE[str(share)])
            here = part.dropna(subset=["mean"])
            _points(ours, here["E"].astype(float), here, style, SHARES[str(share)])
            theirs.plot(part["paper_E"], part["paper_Avg"], label=SHARES[str(share)], **style)
        _log_ticks(ours, sorted(data["E"].dropna().astype(int).unique()))
        _log_ticks(theirs, sorted(data["paper_E"].unique()))
        ours.set(xlabel="embedding size E", ylabel=_axis(key))
        ours.set_title("Ours")
        theirs.set(xlabel="embedding size E", ylabel="Avg of five tasks, %")
        theirs.set_title("The paper's")
        for axes in (ours, theirs):
            axes.grid(axis="y")
            axes.legend()
    return Drawing("embedding", "Embedding size against score", "Bars: 95% t interval over seeds.", figure, data)


def pareto(runs: pd.DataFrame) -> Drawing:
    """Parameters against score of the arms with the commonest objective; the line joins those no smaller arm beats."""
    chosen = main_setup(runs)
    if len(chosen):
        chosen = chosen[chosen["objective"] == chosen["objective"].mode().iloc[0]]
    key = _score_of([chosen])
    rows = []
    for arm, frame in chosen.groupby("arm", sort=False):
        value = estimate(values(frame, key) * metric(key).scale)
        millions = frame["params_with_pooler"].iloc[0]
        if value is not None and millions:
            rows.append({"arm": arm, "share": frame["share"].iloc[0], "E": frame["E"].iloc[0], "objective": frame["objective"].iloc[0], "parameters_M": millions / 1e6, "score": key, **_numbers(value)})  # fmt: skip
    if len(rows) < 2:
        raise NothingToDraw("fewer than two arms in one set-up")
    data = pd.DataFrame(rows).sort_values("parameters_M")
    better = metric(key).higher_is_better
    front = data[[_on_front(row, data, better) for row in data.to_dict("records")]]
    with styled():
        figure, axes = plt.subplots(figsize=(7.2, 4.3))
        axes.plot(front["parameters_M"], front["mean"], color=MUTED, lw=1, zorder=1)
        for share, part in data.groupby("share", sort=False):
            style = look(SHARE_STYLE[str(share)]) | {"linestyle": "none"}
            _points(axes, part["parameters_M"], part, style, SHARES[str(share)])
        for place, row in enumerate(data.to_dict("records")):
            offset = (6, 5) if place % 2 else (6, -11)
            axes.annotate(
                f"E={row['E']}", (row["parameters_M"], row["mean"]), offset, textcoords="offset points", fontsize=7.5, color=MUTED
            )
        axes.set(xscale="log", xlabel="parameters, millions", ylabel=_axis(key))
        _plain_log(axes)
        axes.margins(x=0.12)
        axes.grid(axis="y")
        axes.legend()
        if not better:
            axes.invert_yaxis()
    upside = " The axis is turned so that up is better." if not better else ""
    return Drawing("pareto", "Parameters against score", f"Grey line: arms that no smaller one beats.{upside}", figure, data)


def _on_front(row: dict[str, Any], data: pd.DataFrame, better: bool) -> bool:
    smaller = data[data["parameters_M"] <= row["parameters_M"]]["mean"]
    return bool(row["mean"] == (smaller.max() if better else smaller.min()))


def objective_matrix(runs: pd.DataFrame) -> Drawing:
    """Trained on x tested on (Table 5's intrinsic half), ours beside the paper's."""
    arms = arms_of("table5")
    found = select(runs, arms)
    printed = paper.table("table5")["rows"]
    rows = []
    for arm, theirs in zip(arms, printed, strict=True):
        for key in _TASKS:
            frame = found.runs[arm]
            value = estimate(values(frame, key) * 100) if len(frame) else None
            rows.append({"trained_on": theirs["SP_task"], "tested_on": key, **_numbers(value), "paper": theirs[key]})
    data = pd.DataFrame(rows)
    if data["mean"].isna().all():
        raise NothingToDraw("no run of Table 5")
    with styled():
        figure, panels = plt.subplots(1, 2, figsize=(9.4, 3.1))
        for axes, column, title in zip(panels, ("mean", "paper"), ("Ours, %", "The paper's, %"), strict=True):
            grid = data.pivot(index="trained_on", columns="tested_on", values=column).reindex(["None", "NSP", "SOP"], columns=list(_TASKS))
            axes.imshow(grid.to_numpy(float), cmap="Blues", vmin=0, vmax=150, aspect="auto")
            axes.set_xticks(range(3), [f"tested on {name}" for name in _TASKS])
            axes.set_yticks(range(3), [f"trained on {name}" for name in ("no task", "NSP", "SOP")])
            axes.tick_params(length=0)
            axes.spines[:].set_visible(False)
            axes.set_title(title)
            for y, trained in enumerate(("None", "NSP", "SOP")):
                for x, tested in enumerate(_TASKS):
                    row = data[(data["trained_on"] == trained) & (data["tested_on"] == tested)].iloc[0]
                    axes.text(x, y, _matrix_words(row, column), ha="center", va="center", color="#0b1b2b")
    caption = (
        "NSP and SOP by the trained head where the arm has one, else by a head fitted on the frozen encoder. "
        "± half of the 95% t interval over seeds. Chance is 50."
    )
    return Drawing("objectives", "Trained on, tested on", caption, figure, data)


def _matrix_words(row: pd.Series, column: str) -> str:
    if pd.isna(row[column]):
        return "—"
    spread = (row["high"] - row["low"]) / 2
    return f"{row[column]:.1f}" + (f" ± {spread:.1f}" if column == "mean" and not math.isnan(spread) else "")


def seed_spread(runs: pd.DataFrame) -> Drawing:
    """Every run behind every mean, and the smallest difference that this many seeds would show."""
    chosen = main_setup(runs)
    key = _score_of([chosen])
    chosen = chosen.assign(value=[_own(run, key) for _, run in chosen.groupby(level=0, sort=False)]).dropna(subset=["value"])
    if not len(chosen):
        raise NothingToDraw("no finished run")
    better = metric(key).higher_is_better
    order = chosen.groupby("arm")["value"].mean().sort_values(ascending=better).index
    with styled():
        figure, axes = plt.subplots(figsize=(7.2, 1.2 + 0.3 * len(order)))
        for y, arm in enumerate(order):
            part = chosen[chosen["arm"] == arm]
            found = estimate(part["value"])
            style = look(SHARE_STYLE[part["share"].iloc[0]])
            axes.plot(part["value"], [y] * len(part), marker=style["marker"], ls="none", color=style["color"], alpha=0.55, ms=6)
            if found is not None:
                axes.plot([found.mean] * 2, [y - 0.3, y + 0.3], color=INK, lw=1.6)
                if found.n > 1:
                    axes.plot([found.low, found.high], [y, y], color=INK, lw=0.9)
        axes.set_yticks(range(len(order)), list(order))
        axes.set(xlabel=_axis(key))
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.grid(axis="x")
    caption = f"Symbols: runs; thick line: mean; thin line: 95% t interval. {_detectable(chosen)}"
    return Drawing("seeds", "Every seed behind every mean", caption, figure, chosen[["arm", "run", "seed", "value"]].assign(score=key))


def _own(run: pd.DataFrame, key: str) -> float | None:
    found = values(run, key) * metric(key).scale
    return None if not len(found) else float(found.iloc[0])


def _detectable(chosen: pd.DataFrame) -> str:
    """The smallest paired difference seen with 80% power, from the spread of paired differences."""
    wide = chosen.pivot_table(index="seed", columns="arm", values="value")
    n = len(wide.dropna())
    if n < 2:
        return "With one seed nothing can be said about spread."
    spread = float(np.median(wide.dropna().sub(wide.dropna().mean(axis=1), axis=0).std(ddof=1)) * math.sqrt(2))
    sizes = np.geomspace(1e-4, 1e3, 400)
    seen = next((size for size in sizes if (seeds_needed(size, spread) or math.inf) <= n), None)
    return "" if seen is None else f"{n} seeds show a difference of about {seen:.2g} between two arms (80% power, before correction)."


def learning_curves(runs: pd.DataFrame) -> Drawing:
    """Held-out loss and the arm's own sentence accuracy against tokens: mean over seeds with a band."""
    chosen = main_setup(runs)
    parts = [pd.DataFrame(_curves(frame)).assign(arm=arm) for arm, frame in chosen.groupby("arm", sort=True)]
    data = pd.concat([part for part in parts if len(part)]) if any(map(len, parts)) else pd.DataFrame()
    if not len(data):
        raise NothingToDraw("no run has a held-out curve")
    with styled():
        figure, (left, right) = plt.subplots(1, 2, figsize=(9.4, 4.6))
        styles = _arm_styles(chosen)
        few = len(styles) <= 6
        for arm, part in data.groupby("arm", sort=True):
            style = styles[str(arm)]
            part = part.assign(tokens=part.groupby("step")["tokens"].transform("mean") / 1e6)
            _band(left, part.assign(value=part["mlm_loss"]), "tokens", style, str(arm), few)
            if part["sentence"].notna().any():
                points = part.assign(value=100 * part["sentence"].astype(float))
                _band(right, points, "tokens", style, str(arm), few)
        for name, line in (("unigram", "--"), ("bigram", ":")):
            height = chosen[f"{name}_loss"].dropna().mean()
            if not math.isnan(height):
                left.axhline(height, color=MUTED, lw=1, ls=line)
                left.annotate(name, (1, height), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8, color=MUTED)
        right.axhline(50, color=MUTED, lw=1, ls="--")
        left.set(xlabel="tokens, millions", ylabel="held-out masked-LM loss, nats")
        left.set_title("Masked LM")
        right.set(xlabel="tokens, millions", ylabel="accuracy, %")
        right.set_title("The arm's own sentence task")
        handles, labels = left.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)
    caption = "Mean over seeds. Grey lines: what has to be beaten." + (" Band: 95% t interval." if few else "")
    return Drawing("curves", "Learning curves", caption, figure, data)


def _arm_styles(chosen: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Colour by sharing (by objective where it is not the commonest), dashes by E."""
    common = chosen["objective"].mode().iloc[0]
    widths = sorted(chosen["E"].unique())
    found = {}
    for run in chosen.drop_duplicates("arm").to_dict("records"):
        other = run["objective"] != common
        place = 4 + (run["objective"] == "none") if other else SHARE_STYLE[run["share"]]
        dashes = DASHES[widths.index(run["E"]) % len(DASHES)]
        found[run["arm"]] = look(place) | {"linestyle": dashes, "markersize": 3.5}
    return found


def cost(runs: pd.DataFrame, expected: Callable[[pd.DataFrame], Mapping[str, float]] | None = None) -> Drawing:
    """What each run took against what was counted, and where there is one, estimated before training."""
    done = runs[(runs["state"] == "finished") & runs["seconds"].notna() & runs["flops"].notna()]
    if not len(done):
        raise NothingToDraw("no finished run")
    said = expected(done) if expected is not None else {}
    data = done[["run", "share", "flops", "seconds", "tokens_per_second", "device"]].assign(
        arm=arm_names(done), estimated_seconds=[said.get(run) for run in done["run"]]
    )
    with styled():
        figure, axes = plt.subplots(figsize=(7.2, 3.9))
        for share, part in data.groupby("share", sort=False):
            axes.plot(part["flops"], part["seconds"] / 60, **(look(SHARE_STYLE[str(share)]) | {"linestyle": "none"}), label=SHARES[str(share)])
        rate = float((data["flops"] / data["seconds"]).median())
        span = np.array([data["flops"].min() * 0.8, data["flops"].max() * 1.25])
        axes.plot(span, span / rate / 60, color=MUTED, lw=1, label=f"{rate / 1e9:.3g} GFLOP/s")
        known = data.dropna(subset=["estimated_seconds"])
        if len(known):
            axes.plot(known["flops"], known["estimated_seconds"] / 60, ls="none", marker="_", ms=12, color=INK, label="estimated before")
        axes.set(xscale="log", yscale="log", xlabel="FLOPs counted before training", ylabel="training time, minutes")
        _plain_log(axes, x=False, y=True)
        axes.grid()
        axes.legend()
    ratio = data["seconds"] / (data["flops"] / rate)
    words = f"One rate for all runs misses a run's time by {100 * float((ratio - 1).abs().median()):.0f}% (median)."
    if len(known):
        miss = known["estimated_seconds"] / known["seconds"] - 1
        words += f" The plan's estimate misses it by {100 * float(miss.abs().median()):.0f}%."
    return Drawing("cost", "Cost counted before against cost measured", words, figure, data)


#: Every figure, the paper's first.
FIGURES: tuple[Callable[[pd.DataFrame], Drawing], ...] = (
    per_layer, training_curves, embedding, pareto, objective_matrix, seed_spread, learning_curves, cost,
)  # fmt: skip


def _band(axes: Any, part: pd.DataFrame, x: str, style: dict[str, Any], label: str, shaded: bool = True) -> None:
    """Mean over seeds of ``value`` at each ``x``, with its interval as a band."""
    points = [(place, estimate(found["value"])) for place, found in part.groupby(x)]
    known = [(place, found) for place, found in points if found is not None]
    places = [place for place, _ in known]
    axes.plot(places, [found.mean for _, found in known], label=label, zorder=3, **style)
    if shaded and all(found.n > 1 for _, found in known):
        low, high = [found.low for _, found in known], [found.high for _, found in known]
        axes.fill_between(places, low, high, color=style["color"], alpha=0.16, lw=0, zorder=2)


def _points(axes: Any, x: Any, part: pd.DataFrame, style: dict[str, Any], label: str) -> None:
    spread = ((part["high"] - part["low"]) / 2).astype(float)
    axes.errorbar(x, part["mean"].astype(float), yerr=None if spread.isna().any() else spread, capsize=2.5, elinewidth=0.9, label=label, **style)


def _score_of(frames: Any) -> str:
    """What arms are ranked by: the paper's Avg where every finished run has it, else masked-LM accuracy."""
    found = [frame for frame in frames if len(frame)]
    if found and all(len(values(frame, "Avg")) == len(frame) for frame in found):
        return "Avg"
    return "MLM"


def _axis(key: str) -> str:
    return {"Avg": "Avg of five tasks, %", "MLM": "held-out masked-LM accuracy, %"}[key]


def _numbers(found: Estimate | None) -> dict[str, Any]:
    if found is None:
        return {"n": 0, "mean": None, "low": None, "high": None}
    return {"n": found.n, "mean": found.mean, "low": found.low, "high": found.high}


def _interval(found: Estimate, decimals: int) -> str:
    if math.isnan(found.low):
        return f"{found.mean:.{decimals}f}"
    return f"{found.mean:.{decimals}f} [{found.low:.{decimals}f}, {found.high:.{decimals}f}]"


def _log_ticks(axes: Any, ticks: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()


def _plain_log(axes: Any, x: bool = True, y: bool = False) -> None:
    """Numbers instead of powers on a log axis."""
    for wanted, axis in ((x, axes.xaxis), (y, axes.yaxis)):
        if wanted:
            for formatter in (axis.set_major_formatter, axis.set_minor_formatter):
                plain = ScalarFormatter()
                plain.set_scientific(False)
                formatter(plain)
            axis.set_tick_params(which="minor", labelsize=8)
