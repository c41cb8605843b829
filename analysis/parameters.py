"""Parameter counts before training: ``python -m analysis.parameters``.

Without arguments: every cell of Tables 1, 3 and 4, counted in three ways beside the paper's number.
With overrides, as for ``run.py``: the counts of those cells.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from albert_ablate.arguments import Parser
from albert_ablate.command_line import program
from albert_ablate.console import command
from albert_ablate.door.cells import expand, read_command_line
from albert_ablate.door.compose import compose
from albert_ablate.sweeping.cells import labels

from .judge.tables import arms_of
from .read import paper

_RULES = {"encoder": "encoder", "with_pooler": "with pooler", "with_heads": "with heads"}
#: Counts that may give a printed number, the commonest first.
_TRIED = ("with_pooler", "encoder", "with_heads")
_EMBEDS = {"H/12": "e64", "H/6": "e128", "H/3": "e256", "H": "full"}
#: The groups that name a printed cell.
_GROUPS = ("model", "embed", "share")
_NOTE = """
* the count that gives the paper's number. Shared blocks and the tied vocabulary
matrix count once. No one rule gives every number: shared cells are the count
with pooler, unshared ones the count without. xlarge and xxlarge are not
reproduced by the released architecture under any rule.\
"""


def paper_cells() -> pd.DataFrame:
    """A row for each printed cell: model, embed, share, three counts, the paper's number in millions, rule, tables."""
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    for name in ("table1", "table3", "table4"):
        for terms, printed in zip(arms_of(name).values(), paper.table(name)["rows"], strict=True):
            overrides = overrides_of(terms)
            row = rows.setdefault(tuple(overrides), {"millions": printed["parameters_M"], "tables": []})
            row["tables"].append(name.removeprefix("table"))
    cells = []
    for cell, row in rows.items():
        counts = count(["scale=paper", *cell])
        rule = next((rule for rule in _TRIED if round(counts[rule] / 1e6) == row["millions"]), "neither")
        axes = dict(override.split("=") for override in cell)
        cells.append(axes | counts | {"millions": row["millions"], "rule": rule, "table": ", ".join(row["tables"])})
    return pd.DataFrame(cells)


def overrides_of(terms: Mapping[str, Any]) -> list[str]:
    """The overrides (Hydra's key=value) of a table's cell at the paper's sizes."""
    return [f"model={terms['size']}", f"embed={_EMBEDS[terms['embedding']]}", f"share={terms['share']}"]


def count(overrides: list[str]) -> dict[str, int]:
    """The three parameter counts of the cell that ``overrides`` describe. Raises ConfigError."""
    counts = compose(overrides).architecture().parameters()
    return {rule: getattr(counts, rule) for rule in _RULES}


def _draw(cells: pd.DataFrame) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="dim")
    for name in _GROUPS:
        table.add_column(name, no_wrap=True)
    for name in (*_RULES.values(), "paper"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("Table", no_wrap=True)
    for cell in cells.to_dict("records"):
        marks = {rule: "*" if rule == cell["rule"] else " " for rule in _RULES}
        counts = [f"{cell[rule] / 1e6:.2f} M{marks[rule]}" for rule in _RULES]
        axes = [str(cell[axis]) for axis in _GROUPS]
        table.add_row(*axes, *counts, f"{cell['millions']} M", str(cell["table"]))
    return table


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table, or the counts of cells. Exit code 2 for wrong settings."""
    parser = Parser(prog=program("parameters"), description="Parameters before training.")
    parser.add_argument("overrides", nargs="*", help="a cell, such as: model=base embed=e128 share=all, or several")
    overrides = parser.parse_args(arguments).overrides
    console = Console(highlight=False)
    if not overrides:
        console.print(_draw(paper_cells()))
        console.print(_NOTE)
        return 0
    cells = expand(read_command_line(overrides))
    for name, cell in zip(labels(cells), cells, strict=True):
        if len(cells) > 1:
            console.print(name, markup=False)
        totals = cell.config.architecture().parameters()
        for rule, label in _RULES.items():
            console.print(f"{label:<12} {getattr(totals, rule):>14,}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
