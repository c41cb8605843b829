"""Draws the figures: ``python -m analysis.figures runs --out figures``; some of them with ``--only``.

Each is written as PNG, SVG and PDF, and its plotted numbers as CSV.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from albert_ablate.arguments import Parser
from albert_ablate.command_line import program
from albert_ablate.console import command
from albert_ablate.errors import UserError

from .draw import style
from .draw.arms import cost, learning_curves, pareto, seed_spread
from .draw.causal import sizes
from .draw.electra import generator_sizes, replaced_tokens
from .draw.forest import forest
from .draw.paper import embedding, objective_matrix, per_layer, training_curves
from .draw.plotting import NothingToDraw
from .draw.students import students
from .draw.style import Drawing
from .judge.effects import SweepTable
from .read import cautions
from .read.cells import main_selection
from .read.places import require_ours, require_writable
from .read.runs import load_runs

#: Name -> the function that draws it; the papers' figures first.
FIGURES: dict[str, Callable[[pd.DataFrame], Drawing]] = {
    "figure1": per_layer, "figure2": training_curves, "embedding": embedding, "objectives": objective_matrix,
    "students": students, "sizes": sizes, "generators": generator_sizes, "replaced": replaced_tokens,
    "pareto": pareto, "seeds": seed_spread, "curves": learning_curves, "cost": cost,
}  # fmt: skip


def draw_all(runs: pd.DataFrame, names: Sequence[str] = tuple(FIGURES)) -> tuple[list[Drawing], dict[str, str]]:
    """The figures that ``runs`` have data for, and figure -> why it is missing. Captions name arms that lack a seed."""
    drawings, undrawn = [], {}
    lost = cautions.lost_in_short(main_selection(runs))
    for name in names:
        try:
            drawing = FIGURES[name](runs)
            drawings.append(replace(drawing, caption=f"{drawing.caption} {lost}".strip()))
        except NothingToDraw as reason:
            undrawn[name] = str(reason)
    return drawings, undrawn


def draw_forests(sweeps: Sequence[SweepTable]) -> dict[str, Drawing]:
    """Name of a sweep's table -> its forest plot, for the sweeps with an effect that can be judged."""
    forests = {}
    for sweep in sweeps:
        try:
            forests[sweep.table.name] = forest(sweep)
        except NothingToDraw:  # the section says why no effect is judged
            continue
    return forests


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the figures.

    Exit code 1 without drawings or if ``--out`` is not writable, 2 without runs and for wrong options.
    """
    parser = Parser(prog=program("figures"), description="Figures of run folders.")
    parser.add_argument("runs", type=Path, nargs="+", help="folders of run folders, such as runs")
    parser.add_argument("--out", type=Path, default=Path("figures"), help="folder to write (default: figures)")
    parser.add_argument(
        "--only", nargs="+", choices=FIGURES, default=list(FIGURES), metavar="NAME", help=", ".join(FIGURES)
    )
    options = parser.parse_args(arguments)
    require_writable("--out", options.out)
    for name in options.only:
        require_ours("--out", options.out, style.files(name), f"{name}.csv", "")
    drawings, undrawn = draw_all(load_runs(*options.runs), options.only)
    for drawing in drawings:
        try:
            style.write(drawing, options.out)
        except OSError as error:
            raise UserError(f"--out {options.out}: cannot be written ({error.strerror}).") from error
        print(f"{options.out / drawing.name}.png, .svg, .pdf and .csv")
    for name, why in undrawn.items():
        print(f"not drawn: {name}: {why}")
    return 0 if drawings else 1


if __name__ == "__main__":
    sys.exit(main())
