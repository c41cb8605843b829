"""The state of a sweep or of single runs: ``python -m albert_ablate.status runs``."""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from albert_ablate.arguments import Parser
from albert_ablate.command_line import command_name, program
from albert_ablate.console import command, duration
from albert_ablate.errors import RunFolderError
from albert_ablate.files import read_json
from albert_ablate.sweeping.board import board
from albert_ablate.sweeping.record import records, single_run, single_runs, standings


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code: 0, or 2 where there is nothing to show."""
    parser = Parser(prog=program("status"), description="The state of a sweep or of single runs.")
    parser.add_argument(
        "runs", type=Path, metavar="RUNS", nargs="?", default=Path("runs"),
        help="the folder with the run folders (paths.runs; default: runs), or one of them",
    )  # fmt: skip
    parser.add_argument("--sweep", help="the sweep of this name; default: the one that was started last")
    parser.add_argument(
        "--all", action="store_true", help="every sweep in the folder, and the runs that belong to no sweep"
    )
    parser.add_argument("--watch", action="store_true", help="print the board again every few seconds until it is over")
    options = parser.parse_args(arguments)
    while _show(options) and options.watch:
        time.sleep(5)
    return 0


def _show(options: argparse.Namespace) -> bool:
    """Print the chosen sweeps and runs; returns whether any is running. Raises RunFolderError if there are none."""
    console, runs = Console(highlight=False), options.runs
    if (runs / "status.json").is_file():
        run = runs.resolve()
        return _show_runs(console, run.name, run.parent, [run.name])
    if not runs.is_dir():
        raise RunFolderError(
            f"{runs}: there is no such folder. Runs lie in paths.runs, which is runs/ by default. {_how_to_start()}"
        )
    chosen = [r for r in records(runs) if options.sweep is None or read_json(r)["name"] == options.sweep]
    if options.sweep is not None and not chosen:
        raise RunFolderError(f"{runs}: no sweep called {options.sweep} has been started there.")
    running = False
    for record in chosen if options.all else chosen[-1:]:
        running = _show_sweep(console, record) or (running and options.all)
    known = {cell["folder"] for record in records(runs) for cell in read_json(record)["cells"]}
    single = [name for name in single_runs(runs) if name not in known] if options.sweep is None else []
    if not chosen and not single:
        raise RunFolderError(f"{runs}: no run and no sweep has been started there. {_how_to_start()}")
    going = [name for name in single if single_run(runs, name).state == "running"]
    shown = single if options.all or not chosen else going
    if shown:
        running |= _show_runs(console, f"{runs}, runs of no sweep", runs, shown)
    if others := len(single) - len(shown):
        console.print(f"{others} more of no sweep; --all shows {'it' if others == 1 else 'them'}", style="dim")
    return running


def _how_to_start() -> str:
    return f"To start a run: {command_name('run')} scale=demo. A sweep: {command_name('sweep')} sweep=demo."


def _show_sweep(console: Console, record: Path) -> bool:
    facts = read_json(record)
    now = facts["ended"] or time.time()
    cells = standings(record)
    going = not facts["ended"] and any(cell.state == "running" for cell in cells)
    console.print(board(f"sweep {facts['name']}", cells, elapsed=now - facts["started"] if going else None))
    ended = "ended" if facts["ended"] else "going on" if going else "no cell is running"
    console.print(
        f"{ended} · {duration(now - facts['started'])} since it was started on {facts['host']}\n", markup=False
    )
    return not facts["ended"]


def _show_runs(console: Console, title: str, runs: Path, names: Sequence[str]) -> bool:
    cells = [single_run(runs, name) for name in names]
    console.print(board(title, cells))
    return any(cell.state == "running" for cell in cells)
