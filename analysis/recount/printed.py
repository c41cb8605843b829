"""The papers' numbers, from ``analysis/paper.yaml`` (ALBERT) and the files of other papers beside it."""

from functools import cache
from pathlib import Path
from typing import Any

from .files import read_yaml

#: Column of the file -> its heading in the report.
_SHOWN = {
    "hidden": "H", "layers": "L", "steps_k": "steps, thousands", "time_h": "hours", "SP_task": "sentence task",
}  # fmt: skip

#: How ids of tables begin -> the file with their numbers; ALBERT's begin with none of these.
_FILES = {
    "electra": "electra", "distilbert": "distillation", "tinybert": "distillation", "mobilebert": "shapes",
    "bigbird": "shapes",
}  # fmt: skip


@cache
def _file(name: str = "paper") -> dict[str, Any]:
    content: dict[str, Any] = read_yaml(Path(__file__).parent.parent / f"{name}.yaml")
    return content


def _table(name: str) -> dict[str, Any]:
    tables = _file(_FILES.get(name.split("_")[0], "paper"))["tables"]
    content: dict[str, Any] = next(entry for entry in tables if entry["id"] == name)
    return content


def heading(table: str) -> str:
    """The table's name in the report: ``Table 4``, or ``ELECTRA, Table 5``."""
    name: str = _table(table).get("heading", f"Table {table.removeprefix('table')}")
    return name


def rows(table: str) -> list[dict[str, Any]]:
    """The printed rows of a table (``table4``), in order."""
    printed_rows: list[dict[str, Any]] = _table(table)["rows"]
    return printed_rows


def cell(table: str, number: int, key: str) -> float | None:
    """The paper's number of a score in a row, from 1; None where no table of that name is kept, or it has none."""
    try:
        return rows(table)[number - 1].get(key)
    except StopIteration:
        return None


def headings(table: str) -> dict[str, str]:
    """Heading in the report -> the column of ``paper.yaml``."""
    names = [column["name"] for column in _table(table)["columns"]]
    return {_SHOWN.get(name, name.replace("_", " ") if table == "table1" else name): name for name in names}


def score(row: dict[str, Any], key: str) -> float | None:
    """The paper's number of a score in a row; None where it prints none."""
    return row.get("parameters_M" if key == "params" else key)


def curve(name: str, angle: bool) -> list[float]:
    """The curve of a model in Figure 1 by layer, without the input: degrees with ``angle``, else L2 distance."""
    figure = next(entry for entry in _file()["figures"] if entry["id"] == "figure1")
    panels = {panel["name"]: panel["series"] for panel in figure["panels"]}
    layers: list[float] = panels["cosine_degrees" if angle else "L2"][name][1:]
    return layers
