"""The style of every figure, and writing one: PNG, SVG, PDF and its numbers as CSV."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import escape

from albert_ablate.axes import EMBED, SHARE, Axis
from albert_ablate.drawing_library import Figure, styles

#: The axis shown by colours and markers, and the axis shown by dashes.
COLOURED, DASHED = SHARE, EMBED
#: Okabe and Ito: distinguishable with any colour vision; in grey, markers and dashes distinguish them.
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
#: Colours of text and lines; ``inline`` replaces them by those of the page.
INK, MUTED = "#1b1c20", "#73757d"
_SETTINGS: Any = {
    "font.family": "sans-serif", "font.size": 9.5, "axes.titlesize": 10.5, "axes.titleweight": "bold",
    "axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.8,
    "axes.edgecolor": MUTED, "axes.labelcolor": INK, "text.color": INK, "xtick.color": MUTED, "ytick.color": MUTED,
    "xtick.labelcolor": INK, "ytick.labelcolor": INK, "grid.color": MUTED, "grid.alpha": 0.25, "grid.linewidth": 0.6,
    "lines.linewidth": 1.6, "lines.markersize": 5, "legend.frameon": False, "legend.fontsize": 8.5,
    "figure.constrained_layout.use": True, "figure.constrained_layout.w_pad": 0.08,
    "figure.constrained_layout.h_pad": 0.08,
}  # fmt: skip
_PAPER = '<rect class="paper" width="100%" height="100%" fill="white"/>'
#: The style of an SVG file on a dark page; programs that know no media queries show it on white.
_DARK = "@media (prefers-color-scheme: dark) {.paper {fill: #1e2024}" + "".join(
    f' [style*="{use}: {light}"] {{{use}: {dark} !important}}'
    for light, dark in ((INK, "#e8e8e4"), (MUTED, "#a9abb3"))
    for use in ("fill", "stroke")
) + "}"  # fmt: skip
#: Text in the files stays text, which can be searched and selected.
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
        """The drawing on a transparent background; equal drawings give equal text."""
        stream = io.StringIO()
        with styles.context(["default", _FILES | {"svg.hashsalt": self.name}]):
            self.figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
        self.figure.set_layout_engine("none")  # the layout is computed; later forms reuse it
        text = stream.getvalue()
        return text[text.index("<svg") :]


@contextmanager
def styled() -> Iterator[None]:
    """Applies the project's style to everything drawn inside, regardless of the user's matplotlib settings."""
    with styles.context(["default", _SETTINGS]):
        yield


def canvas(size: tuple[float, float], rows: int = 1, columns: int = 1) -> tuple[Figure, Any]:
    """An empty figure of ``size`` inches and its axes."""
    figure = Figure(figsize=size)
    return figure, figure.subplots(rows, columns)


def look(index: int) -> dict[str, Any]:
    """Colour, marker and dashes of the arm number ``index``, from 0."""
    return {
        "color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)],
        "linestyle": DASHES[index % len(DASHES)],
    }  # fmt: skip


def look_of(axis: Axis, value: Any) -> dict[str, Any]:
    """Colour, marker and dashes of a value of an axis: the same in every figure."""
    return look(int(axis.rank(value)))


def files(name: str) -> list[str]:
    """Names of the files that ``write`` makes for the drawing ``name``, the numbers last."""
    return [f"{name}.{form}" for form in ("png", "svg", "pdf", "csv")]


def write(drawing: Drawing, folder: Path, forms: tuple[str, ...] = ("png", "svg", "pdf")) -> None:
    """Writes ``folder/name.*`` in each form, and ``name.csv`` with the plotted numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    for form in forms:
        path = folder / f"{drawing.name}.{form}"
        if form == "svg":
            path.write_text(on_paper(named(drawing.svg, drawing.title)), encoding="utf-8")
        else:
            metadata = {"png": {"Software": None}, "pdf": {"CreationDate": None}}[form]
            with styles.context(["default", _FILES]):
                drawing.figure.savefig(path, dpi=160, facecolor="white", metadata=metadata)
    drawing.data.to_csv(folder / f"{drawing.name}.csv", index=False)


def inline(drawing: Drawing) -> str:
    """The SVG for a page, with text and lines in the colours ``--ink`` and ``--muted`` of the page."""
    # A page holds several drawings, so ids get the name of the drawing as a prefix.
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{drawing.name}-", named(drawing.svg, drawing.title))
    text = re.sub(r"(\d\.\d\d)\d+", r"\1", text)  # a hundredth of a point is enough for a screen
    return text.replace(INK, "var(--ink)").replace(MUTED, "var(--muted)")


def on_paper(svg: str) -> str:
    """``svg`` on white paper; dark where a reader's browser prefers a dark page."""
    start, end = svg.split("</title>", 1)
    return f"{start}</title><style>{_DARK}</style>{_PAPER}{end}"


def named(svg: str, title: str) -> str:
    """``svg`` as one picture with a title, for readers who do not see it."""
    start, end = svg.split(">", 1)
    return f'{start} role="img" aria-label="{escape(title)}"><title>{escape(title)}</title>{end}'
