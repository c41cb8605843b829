"""The part of a table that runs fill: the other rows and columns are the paper's alone, and are folded away."""

from dataclasses import replace

from ..judge.tables import Table


def filled_part(table: Table) -> Table:
    """``table`` without the rows that no run belongs to and the columns without a number of ours.

    A note says how much was left out. A table that needs no runs, or has none, stays whole.
    """
    if not table.filled:
        return table
    rows = [row for row in table.rows if row.runs]
    places = range(len(table.columns))
    kept = [place for place in places if any(entry.ours is not None for row in rows for entry in row.cells[place])]
    fewer = [
        f"{count} {name}{'' if count == 1 else 's'}"
        for count, name in ((len(table.rows) - len(rows), "row"), (len(table.columns) - len(kept), "column"))
        if count
    ]
    if not fewer:
        return table
    return replace(
        table,
        rows=tuple(replace(row, cells=tuple(row.cells[place] for place in kept)) for row in rows),
        columns=tuple(table.columns[place] for place in kept),
        notes=(*table.notes, f"Left out: {' and '.join(fewer)} of the paper's table that no run fills."),
    )
