"""What a figure shows, in one sentence with its numbers: for readers who do not see it."""

from collections.abc import Callable

import pandas as pd

from albert_ablate.axes import SHARE
from albert_ablate.console import duration

from ..judge.metrics import metric
from ..judge.numbers import DECIMALS
from .style import Drawing


def finding(drawing: Drawing) -> str:
    """The sentence for a figure, computed from its plotted numbers; empty for a figure without one."""
    known = _FINDINGS.get(drawing.name)
    return "" if known is None or not len(drawing.data) else known(drawing.data)


def _score(key: str, value: float) -> str:
    """``31.0% MLM`` or ``4.905 nats MLM loss``."""
    spec = metric(key)
    space = "" if spec.unit == "%" else " "
    return f"{value:.{DECIMALS[spec.unit]}f}{space}{spec.unit}"


def _pareto(data: pd.DataFrame) -> str:
    key = str(data["score"].iloc[0])
    ranked = data.sort_values("mean", ascending=not metric(key).higher_is_better).to_dict("records")
    smallest = data.sort_values("parameters_M").to_dict("records")[0]
    arms = [(ranked[0], "is best"), (smallest, "is smallest")]
    parts = [
        f"{arm['arm']} {what}, with {_score(key, arm['mean'])} and {arm['parameters_M']:.2f} M parameters"
        for arm, what in arms
    ]
    return f"{parts[0]}." if ranked[0] == smallest else f"{'; '.join(parts)}."


def _seeds(data: pd.DataFrame) -> str:
    key = str(data["score"].iloc[0])
    means = data.groupby("arm")["value"].mean().sort_values()
    seeds = data["seed"].nunique()
    spread = data.groupby("arm")["value"].agg(lambda part: part.max() - part.min()).max()
    return (
        f"Means go from {_score(key, means.iloc[0])} ({means.index[0]}) to {_score(key, means.iloc[-1])} "
        f"({means.index[-1]}); runs of one arm differ by at most {spread:.2f} points over {seeds} seeds."
    )


def _curves(data: pd.DataFrame) -> str:
    last = data[data["step"] == data["step"].max()].groupby("arm")["mlm_loss"].mean().sort_values()
    tokens = data["tokens"].max() / 1e6
    return f"After {tokens:.1f} M tokens the masked-LM loss is {last.iloc[0]:.3f} nats for {last.index[0]}" + (
        f" and {last.iloc[-1]:.3f} for {last.index[-1]}, the highest." if len(last) > 1 else "."
    )


def _cost(data: pd.DataFrame) -> str:
    short, long = (duration(float(data["seconds"].agg(end))) for end in ("min", "max"))
    few, many = (f"{data['flops'].agg(end):.2g}" for end in ("min", "max"))
    return f"{len(data)} runs of {few} to {many} FLOPs took {short} to {long} each."


def _embedding(data: pd.DataFrame) -> str:
    parts = []
    for share, part in data.dropna(subset=["mean", "E"]).sort_values("E").groupby("share", sort=False):
        if len(part) > 1:
            change = part["mean"].iloc[-1] - part["mean"].iloc[0]
            ends = f"from E = {part['E'].iloc[0]:.0f} to {part['E'].iloc[-1]:.0f}"
            parts.append(f"{SHARE.label_of(share)}: {change:+.1f} points {ends}".replace("-", "−"))
    return f"{'; '.join(parts)}." if parts else ""


def _objectives(data: pd.DataFrame) -> str:
    shown = data[data["tested_on"] != "MLM"].dropna(subset=["mean"])
    parts = [
        f"{str(row['trained_on']).replace('None', 'no sentence task')} on {row['tested_on']} {row['mean']:.1f}%"
        for row in shown.to_dict("records")
    ]
    return f"Trained and tested: {', '.join(parts)} (chance: 50%)." if parts else ""


def _per_layer(data: pd.DataFrame) -> str:
    moved = data[data["measure"] == "l2"].groupby(["arm", "layer"], sort=False)["value"].mean()
    parts = [f"{arm} {part.iloc[0]:.1f} to {part.iloc[-1]:.1f}" for arm, part in moved.groupby(level=0, sort=False)]
    return f"Mean L2 distance in the first and last layer: {', '.join(parts)}." if parts else ""


def _training(data: pd.DataFrame) -> str:
    last = data[data["step"] == data["step"].max()].groupby(["panel", "arm"], sort=False)["mlm"].mean()
    parts = [f"{arm} {100 * value:.1f}%" for (_, arm), value in last.items()]
    return f"Masked-LM accuracy at the end: {', '.join(parts)}."


def _generators(data: pd.DataFrame) -> str:
    ours = data[data["curve"] == "ours"].sort_values("mean")
    best = ours.iloc[-1]
    name = "unigram" if best["width"] == 0 else f"{best['width']:g} of the encoder's width"
    return f"Best of {len(ours)} generators: {name}, with {_score(str(best['score']), best['mean'])}."


def _students(data: pd.DataFrame) -> str:
    ranked = data.sort_values("mean", ascending=not metric(str(data["score"].iloc[0])).higher_is_better)
    shown = [(row, _score(str(row["score"]), row["mean"])) for row in ranked.to_dict("records")]
    parts = [f"{row['arm']} {score} with {row['parameters_M']:.2f} M parameters" for row, score in shown]
    return f"From the best to the worst: {'; '.join(parts)}."


def _sizes(data: pd.DataFrame) -> str:
    parts = []
    for name, part in data.groupby("line", sort=False):
        if len(part) > 1:
            few, many = part.iloc[0], part.iloc[-1]
            parts.append(
                f"{name}: {few['mean']:.3f} bits per byte with {few['parameters_M']:.2f} M parameters, "
                f"{many['mean']:.3f} with {many['parameters_M']:.2f} M"
            )
    return f"{'; '.join(parts)}." if parts else ""


def _replaced(data: pd.DataFrame) -> str:
    last = data[data["step"] == data.groupby("arm")["step"].transform("max")].groupby("arm", sort=False).mean()
    parts = [
        f"{arm} {100 * row['accuracy']:.1f}% (all real: {100 * (1 - row['fake_rate']):.1f}%), AUC {row['auc']:.3f}"
        for arm, row in last.to_dict("index").items()
    ]
    return f"At the end: {'; '.join(parts)}."


_FINDINGS: dict[str, Callable[[pd.DataFrame], str]] = {
    "pareto": _pareto, "seeds": _seeds, "curves": _curves, "cost": _cost, "embedding": _embedding,
    "students": _students, "sizes": _sizes, "generators": _generators, "replaced": _replaced,
    "objectives": _objectives, "figure1": _per_layer, "figure2": _training,
}  # fmt: skip
