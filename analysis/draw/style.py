"""How every figure looks, and how it is written: PNG, SVG, PDF and its numbers as CSV."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from albert_ablate.axes import EMBED, SHARE, Axis
from albert_ablate.drawing_library import Figure, styles

#: The axis that colours and markers stand for, and the one that dashes stand for.
COLOURED, DASHED = SHARE, EMBED
#: Okabe and Ito: distinguishable with any colour vision; markers and dashes keep them apart in grey.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#8A8A8A")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES: tuple[Any, ...] = (
    "-",
    (0, (5, 2)),
    (0, (5, 1.5, 1, 1.5)),
    (0, (1, 1.2)),
    (0, (8, 2)),
    (0, (3, 1, 1, 1, 1, 1)),
    "-",
)
#: Text and lines; a page may put its own colours in their place.
INK, MUTED = "#1b1c20", "#73757d"
_SETTINGS: Any = {
    "font.family": "sans-serif", "font.size": 9.5, "axes.titlesize": 10.5, "axes.titleweight": "bold",
    "axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.8,
    "axes.edgecolor": MUTED, "axes.labelcolor": INK, "text.color": INK, "xtick.color": MUTED, "ytick.color": MUTED,
    "xtick.labelcolor": INK, "ytick.labelcolor": INK, "grid.color": MUTED, "grid.alpha": 0.25, "grid.linewidth": 0.6,
    "lines.linewidth": 1.6, "lines.markersize": 5, "legend.frameon": False, "legend.fontsize": 8.5,
    "figure.constrained_layout.use": True,
}  # fmt: skip
#: Text stays text, which can be searched and chosen.
_FILES: Any = {"svg.fonttype": "none", "pdf.fonttype": 42}


@dataclass(frozen=True)
class Drawing:
    """A finished figure."""

    name: str
    title: str
    caption: str
    figure: Any
    data: pd.DataFrame  # the plotted numbers

    @cached_property
    def svg(self) -> str:
        """The drawing on a transparent ground; the same drawing gives the same characters."""
        stream = io.StringIO()
        with styles.context(["default", _FILES | {"svg.hashsalt": self.name}]):
            self.figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
        self.figure.set_layout_engine("none")  # it is laid out now, and need not be again for every form
        text = stream.getvalue()
        return text[text.index("<svg") :]


@contextmanager
def styled() -> Iterator[None]:
    """The house style for whatever is drawn inside, whatever the user's own style is."""
    with styles.context(["default", _SETTINGS]):
        yield


def canvas(size: tuple[float, float], rows: int = 1, columns: int = 1) -> tuple[Figure, Any]:
    """An empty figure of ``size`` inches and its axes."""
    figure = Figure(figsize=size)
    return figure, figure.subplots(rows, columns)


def look(place: int) -> dict[str, Any]:
    """Colour, marker and dashes of the arm at ``place``."""
    return {
        "color": COLOURS[place % len(COLOURS)], "marker": MARKERS[place % len(MARKERS)],
        "linestyle": DASHES[place % len(DASHES)],
    }  # fmt: skip


def look_of(axis: Axis, value: Any) -> dict[str, Any]:
    """The same of a value of an axis, which looks alike in every figure."""
    return look(int(axis.rank(value)))


def files(name: str) -> list[str]:
    """What ``write`` makes of the drawing ``name``, the numbers last."""
    return [f"{name}.{form}" for form in ("png", "svg", "pdf", "csv")]


def write(drawing: Drawing, folder: Path, forms: tuple[str, ...] = ("png", "svg", "pdf")) -> None:
    """``folder/name.*`` in each form, and ``name.csv`` with the plotted numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    for form in forms:
        path = folder / f"{drawing.name}.{form}"
        if form == "svg":
            start, end = drawing.svg.split(">", 1)
            path.write_text(f'{start}><rect width="100%" height="100%" fill="white"/>{end}', encoding="utf-8")
        else:
            metadata = {"png": {"Software": None}, "pdf": {"CreationDate": None}}[form]
            with styles.context(["default", _FILES]):
                drawing.figure.savefig(path, dpi=160, facecolor="white", metadata=metadata)
    drawing.data.to_csv(folder / f"{drawing.name}.csv", index=False)


def inline(drawing: Drawing) -> str:
    """The SVG for a page, its text and lines in the page's own ``--ink`` and ``--muted``."""
    # One page holds several drawings, whose ids must differ.
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{drawing.name}-", drawing.svg)
    return text.replace(INK, "var(--ink)").replace(MUTED, "var(--muted)")
