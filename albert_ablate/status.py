"""The board of a running or finished sweep: ``python -m albert_ablate.status runs``."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from albert_ablate.console import command, duration
from albert_ablate.errors import UserError
from albert_ablate.files import read_json
from albert_ablate.sweeping.board import board
from albert_ablate.sweeping.record import records, standings


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code: 0, or 2 where no sweep is recorded."""
    parser = argparse.ArgumentParser(prog="python -m albert_ablate.status", description=__doc__)
    parser.add_argument("runs", type=Path, metavar="RUNS", help="the folder with the run folders (paths.runs)")
    parser.add_argument("--sweep", help="the sweep of this name; default: the one that was started last")
    parser.add_argument("--all", action="store_true", help="every sweep that was run there")
    parser.add_argument("--watch", action="store_true", help="print the board again every few seconds until it is over")
    options = parser.parse_args(arguments)
    try:
        return _show(options)
    except UserError as error:
        print(f"\n{error}\n", file=sys.stderr)
        return error.exit_code


def _show(options: argparse.Namespace) -> int:
    found = [r for r in records(options.runs) if options.sweep is None or read_json(r)["name"] == options.sweep]
    if not found:
        named = f" called {options.sweep}" if options.sweep else ""
        print(f"{options.runs}: no sweep{named} has been started there (python run.py -m sweep=demo)", file=sys.stderr)
        return 2
    console = Console(highlight=False)
    while True:
        for record in found if options.all else found[-1:]:
            _print(console, record)
        if not options.watch or all(read_json(record)["ended"] for record in found[-1:]):
            return 0
        time.sleep(5)


def _print(console: Console, record: Path) -> None:
    facts = read_json(record)
    now = facts["ended"] or time.time()
    cells = standings(record)
    console.print(board(f"sweep {facts['name']}", cells))
    going = any(cell.state == "running" for cell in cells)
    ended = "ended" if facts["ended"] else "going on" if going else "no cell is running"
    console.print(
        f"{ended} · {duration(now - facts['started'])} since it was started on {facts['host']}\n", markup=False
    )


if __name__ == "__main__":
    command(main)
