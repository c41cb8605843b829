"""How cost grows: ``python -m benchmarks.scaling``.

Tokens per second and memory of a training step against layers, width, length and E, for share=all and none,
and what sharing saves in parameters and optimizer time. Draws
``docs/scaling.svg`` and writes its numbers to ``docs/scaling.csv``.
"""

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from albert_ablate.axes import SHARE
from albert_ablate.drawing_library import Figure
from albert_ablate.methods import method_of
from analysis.draw import style
from benchmarks.cases import Case
from benchmarks.measure import first_line, take_turns
from benchmarks.sides import ours

BASE = Case("mini", h=256, layers=4, e=128, v=8000, b=16, t=128)
AXES: dict[str, tuple[str, list[int]]] = {
    "layers": ("layers L", [1, 3, 6, 12, 24, 48]),
    "h": ("width H", [128, 256, 512, 1024]),
    "t": ("length T", [64, 128, 256, 512]),
    "e": ("embedding E", [32, 64, 128, 256]),
}
SHARES = ("all", "none")


def points(seconds: float) -> pd.DataFrame:
    """A row for each axis, value and sharing strategy; batches of 2,048 tokens."""
    rows: list[dict[str, Any]] = []
    for axis, (_, values) in AXES.items():
        for value in values:
            case = replace(BASE, **{axis: value})  # type: ignore[arg-type]
            case = replace(case, b=2048 // case.t)
            both = {share: replace(case, share=share) for share in SHARES}
            contenders = {share: partial(ours, case, "optimizer=lamb") for share, case in both.items()}
            measured = take_turns(contenders, seconds, 3)
            for share, case in both.items():
                rows.append({
                    "axis": axis, "value": value, "share": share,
                    "tokens_per_second": case.tokens / measured[share].median, "peak_mb": measured[share].peak_mb,
                    "parameters": method_of(case.config()).parameters().with_heads,
                })  # fmt: skip
    return pd.DataFrame(rows)


def draw(table: pd.DataFrame, name: str = "scaling") -> style.Drawing:
    """A figure with a column for each axis, speed above memory."""
    with style.styled():
        figure = Figure(figsize=(11, 4.8))
        panels = figure.subplots(2, len(AXES), sharex="col", sharey="row")
        for column, (axis, (label, values)) in enumerate(AXES.items()):
            for share in SHARES:
                rows = table[(table["axis"] == axis) & (table["share"] == share)]
                look = style.look_of(SHARE, share)
                panels[0, column].plot(rows["value"], rows["tokens_per_second"], label=SHARE.label_of(share), **look)
                panels[1, column].plot(rows["value"], rows["peak_mb"], **look)
            panels[0, column].set_title(f"{'abcd'[column]}  {label}")
            panels[1, column].set(xscale="log", xlabel=label)
            panels[1, column].set_xticks(values, [str(value) for value in values])
            panels[1, column].minorticks_off()
            for row in (0, 1):
                panels[row, column].grid(axis="y")
        for row, label in enumerate(("tokens per second", "peak memory, MB")):
            panels[row, 0].set(yscale="log", ylabel=label)
            ticks = _ticks(table["tokens_per_second" if row == 0 else "peak_mb"])
            panels[row, 0].set_yticks(ticks, [f"{tick:,}" for tick in ticks])
            panels[row, 0].minorticks_off()
        panels[0, 0].legend()
    title = "Speed and memory of a training step against layers, width, length and E"
    return style.Drawing(name, title, "", figure, table)


def _ticks(values: "pd.Series[float]") -> list[int]:
    """1, 2 and 5 times the powers of ten within the range of ``values``."""
    known = [first * 10**power for power in range(7) for first in (1, 2, 5)]
    return [tick for tick in known if values.min() <= tick <= values.max()]


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
    table = points(options.seconds).round(1)
    style.write(draw(table, options.out.stem), options.out.parent, ("svg",))
    print(table.to_string(index=False))
    print(f"Wrote {options.out} and {options.out.with_suffix('.csv')}")


if __name__ == "__main__":
    main()
