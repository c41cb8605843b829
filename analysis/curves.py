"""Learning curves: ``python -m analysis.curves runs --out curves.png``.

Held-out masked-LM loss and the arm's own sentence accuracy against tokens, one line a run, with the
baselines each has to beat. The plotted numbers are written beside the picture as CSV.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd

from analysis.runs import load_metrics, load_runs

mpl.use("Agg")
from matplotlib import pyplot as plt

#: Okabe and Ito: distinguishable with any colour vision; line styles keep it readable in grey.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_STYLES = ("-", "--", "-.", ":")


def curves(runs: pd.DataFrame) -> pd.DataFrame:
    """Tidy held-out curves: ``name``, ``step``, ``tokens``, ``mlm_loss``, ``sentence_accuracy``."""
    parts = []
    for row in runs.itertuples():
        file = Path(str(row.path)) / "metrics.jsonl"
        if not file.is_file() or not file.stat().st_size:
            continue
        metrics = load_metrics(str(row.path))
        if "held_out_mlm_loss" not in metrics:
            continue
        points = metrics.dropna(subset=["held_out_mlm_loss"])
        part = {"name": row.name, "step": points["step"], "tokens": points["tokens"]}
        part["mlm_loss"] = points["held_out_mlm_loss"]
        part["sentence_accuracy"] = points.get("held_out_sentence_accuracy")
        parts.append(pd.DataFrame(part))
    if not parts:
        raise FileNotFoundError("no run has a held-out curve yet")
    return pd.concat(parts, ignore_index=True)


def draw(points: pd.DataFrame, runs: pd.DataFrame) -> Any:
    """A figure of two panels; the grey band is what chance gives with the held-out pairs of a point."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    steps = dict(zip(runs["name"], runs.get("config.budget.steps", [0] * len(runs)), strict=True))
    for number, (name, run) in enumerate(points.groupby("name", sort=False)):
        label = f"{str(name).rsplit('-', 1)[0]}, {steps[name]:,} steps"
        look: dict[str, Any] = {"color": _COLOURS[number % len(_COLOURS)], "ls": _STYLES[number % len(_STYLES)]}
        left.plot(run["tokens"] / 1e6, run["mlm_loss"], label=label, **look)
        right.plot(run["tokens"] / 1e6, 100 * run["sentence_accuracy"].astype(float), label=label, **look)
    for kind, style in (("unigram", "--"), ("bigram", ":")):
        column = f"results.masked_lm.{kind}_loss"
        for value in runs[column].dropna().round(2).unique() if column in runs else ():
            left.axhline(value, color="0.45", lw=0.9, ls=style)
            _name_line(left, value, kind)
    right.axhline(50, color="0.45", lw=0.9, ls="--")
    if "config.evaluation.curve_pairs" in runs:
        half = 100 * 1.96 * (0.25 / runs["config.evaluation.curve_pairs"].min()) ** 0.5
        right.axhspan(50 - half, 50 + half, color="0.92", lw=0, zorder=0)
    _name_line(right, 50, "chance")
    left.set(xlabel="training tokens, millions", ylabel="held-out masked-LM loss, nats")
    right.set(xlabel="training tokens, millions", ylabel="held-out accuracy on own sentence task, %")
    left.legend(frameon=False, fontsize=8)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _name_line(axes: Any, height: float, name: str) -> None:
    axes.annotate(
        name, (1, height), xycoords=("axes fraction", "data"), ha="right", va="bottom", color="0.35", fontsize=8
    )


def main() -> int:
    """Write the picture and its CSV. Exit code 1 where there is nothing to draw."""
    parser = argparse.ArgumentParser(prog="python -m analysis.curves", description="Learning curves of run folders.")
    parser.add_argument("runs", type=Path, help="folder of run folders, such as runs")
    parser.add_argument("--out", type=Path, default=Path("curves.png"), help=".png, .svg or .pdf to write")
    arguments = parser.parse_args()
    try:
        runs = load_runs(arguments.runs)
        points = curves(runs)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 1
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    draw(points, runs).savefig(arguments.out, dpi=150)
    points.to_csv(arguments.out.with_suffix(".csv"), index=False)
    print(f"{arguments.out} and {arguments.out.with_suffix('.csv')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
