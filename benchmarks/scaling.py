"""How cost grows: ``python -m benchmarks.scaling``.

Tokens a second and memory of a training step against layers, width, length and E, for share=all and none,
and what sharing saves in parameters and optimizer time. Draws
``docs/scaling.svg`` and writes its numbers to ``docs/scaling.csv``.
"""

import argparse
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from albert_ablate.methods import method_of
from benchmarks.cases import Case
from benchmarks.measure import first_line, take_turns
from benchmarks.sides import ours

os.environ["MPLBACKEND"] = "Agg"  # before matplotlib is loaded, which refuses an unknown backend
from matplotlib import pyplot as plt
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

BASE = Case("mini", h=256, layers=4, e=128, v=8000, b=16, t=128)
AXES: dict[str, tuple[str, list[int]]] = {
    "layers": ("layers L", [1, 3, 6, 12, 24, 48]),
    "h": ("width H", [128, 256, 512, 1024]),
    "t": ("length T", [64, 128, 256, 512]),
    "e": ("embedding E", [32, 64, 128, 256]),
}
STYLES = {"all": {"color": "#0072B2", "marker": "o"}, "none": {"color": "#D55E00", "marker": "s", "ls": "--"}}


def points(seconds: float) -> pd.DataFrame:
    """A row for each axis, value and sharing strategy; batches of 2,048 tokens."""
    rows: list[dict[str, Any]] = []
    for axis, (_, values) in AXES.items():
        for value in values:
            case = replace(BASE, **{axis: value})  # type: ignore[arg-type]
            case = replace(case, b=2048 // case.t)
            both = {share: replace(case, share=share) for share in STYLES}
            contenders = {share: partial(ours, case, "optimizer=lamb") for share, case in both.items()}
            measured = take_turns(contenders, seconds, 3)
            for share, case in both.items():
                rows.append({
                    "axis": axis, "value": value, "share": share,
                    "tokens_per_second": case.tokens / measured[share].median, "peak_mb": measured[share].peak_mb,
                    "parameters": method_of(case.config()).parameters().with_heads,
                })  # fmt: skip
    return pd.DataFrame(rows)


def draw(table: pd.DataFrame) -> Any:
    """A figure with a column for each axis, speed above memory."""
    figure, panels = plt.subplots(2, len(AXES), figsize=(12, 5), layout="constrained", sharey="row", sharex="col")
    for column, (axis, (label, values)) in enumerate(AXES.items()):
        for share, style in STYLES.items():
            rows = table[(table["axis"] == axis) & (table["share"] == share)]
            panels[0, column].plot(rows["value"], rows["tokens_per_second"], label=f"share={share}", **style)
            panels[1, column].plot(rows["value"], rows["peak_mb"], **style)
        panels[1, column].set(xscale="log", xlabel=label, xticks=values, xticklabels=values)
        panels[1, column].minorticks_off()
        for row in (0, 1):
            panels[row, column].set(yscale="log")
            panels[row, column].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panels[row, column].yaxis.set_minor_locator(NullLocator())
            panels[row, column].yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
            panels[row, column].grid(alpha=0.3)
            panels[row, column].spines[["top", "right"]].set_visible(False)
    panels[0, 0].set(ylabel="tokens a second")
    panels[1, 0].set(ylabel="peak memory, MB")
    panels[0, 0].legend(frameon=False)
    return figure


def main() -> None:
    """Measure and draw."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=first_line(__doc__))
    parser.add_argument("--seconds", type=float, default=2, help="for each point")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("docs/scaling.svg"),
        help="figure; a CSV file of the same name gets its numbers",
    )
    options = parser.parse_args()
    table = points(options.seconds)
    table.round(1).to_csv(options.out.with_suffix(".csv"), index=False)
    draw(table).savefig(options.out)
    print(table.to_string(index=False))
    print(f"Wrote {options.out} and {options.out.with_suffix('.csv')}")


if __name__ == "__main__":
    main()
