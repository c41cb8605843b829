"""How a sweep or single runs stand: ``python -m albert_ablate.status runs``."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from albert_ablate.console import command, duration, program
from albert_ablate.errors import RunFolderError
from albert_ablate.files import read_json
from albert_ablate.sweeping.board import board
from albert_ablate.sweeping.record import records, single_run, single_runs, standings


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code: 0, or 2 where there is nothing to show."""
    parser = argparse.ArgumentParser(prog=program("albert_ablate.status"), description=__doc__)
    parser.add_argument(
        "runs", type=Path, metavar="RUNS", nargs="?", default=Path("runs"),
        help="the folder with the run folders (paths.runs; default: runs), or one of them",
    )  # fmt: skip
    parser.add_argument("--sweep", help="the sweep of this name; default: the one that was started last")
    parser.add_argument("--all", action="store_true", help="every sweep that was run there, and the runs of no sweep")
    parser.add_argument("--watch", action="store_true", help="print the board again every few seconds until it is over")
    options = parser.parse_args(arguments)
    while _show(options) and options.watch:
        time.sleep(5)
    return 0


def _show(options: argparse.Namespace) -> bool:
    """Print what is asked for once; whether it is going on. Raises RunFolderError where there is nothing."""
    console, runs = Console(highlight=False), options.runs
    if (runs / "status.json").is_file():
        place = runs.resolve()
        return _show_runs(console, place.name, place.parent, [place.name])
    if not runs.is_dir():
        raise RunFolderError(f"{runs}: there is no such folder. Runs lie in paths.runs, which is runs/ by default.")
    found = [r for r in records(runs) if options.sweep is None or read_json(r)["name"] == options.sweep]
    if options.sweep is not None and not found:
        raise RunFolderError(f"{runs}: no sweep called {options.sweep} has been started there.")
    going = False
    for record in found if options.all else found[-1:]:
        going = _show_sweep(console, record) or (going and options.all)
    known = {cell["folder"] for record in records(runs) for cell in read_json(record)["cells"]}
    single = [name for name in single_runs(runs) if name not in known] if options.sweep is None else []
    if not found and not single:
        raise RunFolderError(f"{runs}: no run and no sweep has been started there (python run.py -m sweep=demo).")
    if single and (options.all or not found):
        going |= _show_runs(console, f"{runs}, runs of no sweep", runs, single)
    return going


def _show_sweep(console: Console, record: Path) -> bool:
    facts = read_json(record)
    now = facts["ended"] or time.time()
    cells = standings(record)
    console.print(board(f"sweep {facts['name']}", cells))
    going = any(cell.state == "running" for cell in cells)
    ended = "ended" if facts["ended"] else "going on" if going else "no cell is running"
    console.print(
        f"{ended} · {duration(now - facts['started'])} since it was started on {facts['host']}\n", markup=False
    )
    return not facts["ended"]


def _show_runs(console: Console, title: str, runs: Path, names: Sequence[str]) -> bool:
    cells = [single_run(runs, name) for name in names]
    console.print(board(title, cells))
    return any(cell.state == "running" for cell in cells)


if __name__ == "__main__":
    sys.exit(main())
