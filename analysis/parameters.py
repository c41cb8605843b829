"""Parameters before training: ``python -m analysis.parameters``.

Without arguments: every cell whose size the paper prints, counted three ways beside the paper's
number. With overrides, as for ``run.py``: the counts of that one cell.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd
import yaml
from rich.console import Console
from rich.table import Table

from albert_ablate.errors import ConfigError
from albert_ablate.hydra_app import compose

_PAPER = Path(__file__).with_name("paper_parameters.yaml")
_RULES = {"encoder": "encoder", "with_pooler": "with pooler", "with_heads": "with heads"}
_NOTE = """
* the count that gives the paper's number. Shared blocks and the tied vocabulary
matrix count once. No one rule gives every number: shared cells are the count
with pooler, unshared ones the count without. xlarge and xxlarge are not
reproduced by the released architecture under any rule.\
"""


def paper_cells() -> pd.DataFrame:
    """A row for each printed cell: model, embed, share, the three counts, the paper's millions and rule."""
    rows = []
    for cell in yaml.safe_load(_PAPER.read_text(encoding="utf-8")):
        axes = [f"{group}={cell[group]}" for group in ("model", "embed", "share")]
        rows.append(cell | count(["scale=paper", *axes]))
    return pd.DataFrame(rows)


def count(overrides: list[str]) -> dict[str, int]:
    """The three totals of the cell that ``overrides`` describe. Raises ConfigError."""
    counts = compose(overrides).architecture().parameters()
    return {rule: getattr(counts, rule) for rule in _RULES}


def _draw(cells: pd.DataFrame) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="dim")
    for name in ("model", "embed", "share"):
        table.add_column(name, no_wrap=True)
    for name in (*_RULES.values(), "paper"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("Table", no_wrap=True)
    for cell in cells.to_dict("records"):
        marks = {rule: "*" if rule == cell["rule"] else " " for rule in _RULES}
        counts = [f"{cell[rule] / 1e6:.2f} M{marks[rule]}" for rule in _RULES]
        axes = [str(cell[axis]) for axis in ("model", "embed", "share")]
        table.add_row(*axes, *counts, f"{cell['millions']} M", str(cell["table"]))
    return table


def main() -> int:
    """Print the table, or one cell's counts. Exit code 2 for settings that contradict each other."""
    parser = argparse.ArgumentParser(prog="python -m analysis.parameters", description="Parameters before training.")
    parser.add_argument("overrides", nargs="*", help="a cell, such as: model=base embed=e128 share=all")
    overrides = parser.parse_args().overrides
    console = Console(highlight=False)
    if not overrides:
        console.print(_draw(paper_cells()))
        console.print(_NOTE)
        return 0
    try:
        totals = count(overrides)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    for rule, label in _RULES.items():
        console.print(f"{label:<12} {totals[rule]:>14,}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
