"""A figure on the page: the picture, its finding in a sentence, and its numbers as a file and as a table."""

import base64
from typing import Any

import pandas as pd
from markupsafe import Markup

from ..draw import style
from ..draw.findings import finding
from ..draw.style import Drawing
from . import web

#: Columns of a figure's numbers that hold measurements.
_MEASURED = ("tokens", "mlm_loss", "mlm", "sentence", "value")


def figure_of(drawing: Drawing) -> dict[str, Any]:
    """A figure with its finding, and its numbers as a file and as a table."""
    numbers_csv = base64.b64encode(drawing.data.to_csv(index=False).encode()).decode()
    shown, note = _without_seeds(drawing.data)
    rows = [[_short_number(value) for value in row] for row in shown.itertuples(index=False)]
    return {
        "name": drawing.name, "title": drawing.title, "caption": drawing.caption, "finding": finding(drawing),
        "svg": Markup(style.inline(drawing)), "csv": numbers_csv, "note": note,
        "table": web.plain_table(f"Numbers of “{drawing.title}”", list(map(str, shown.columns)), rows),
    }  # fmt: skip


def _without_seeds(data: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Means over the seeds of a figure's numbers, and a note that says so; the numbers themselves without seeds."""
    if "seed" not in data:
        return data, ""
    kept = [name for name in data if name not in ("seed", "run", *_MEASURED)]
    means = {name: "mean" for name in _MEASURED if name in data}
    return data.groupby(kept, sort=False, dropna=False).agg(
        means
    ).reset_index(), "Means over seeds; the file has every run."


def _short_number(value: Any) -> str:
    """A plotted number with four significant digits, a whole number in full; empty where it is missing."""
    if value is None or value != value:
        return ""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if value.is_integer() or abs(value) >= 1e4 else f"{value:.4g}"
