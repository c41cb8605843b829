"""What a sweep will cost: ``python -m albert_ablate.plan sweep=table4 scale=cpu seed=0,1,2``.

Accepts the same overrides as ``python run.py -m`` and trains nothing. Time and memory come from a few
measured steps of each shape on this machine (kept in the cache for a month) or, with ``--gpu``, from FLOPs
at a stated utilisation.
"""

import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from albert_ablate.arguments import Parser
from albert_ablate.command_line import command_name, program
from albert_ablate.commands.plan_table import Clock, Line, show
from albert_ablate.console import command
from albert_ablate.door.cells import expand, read_command_line
from albert_ablate.errors import UserError
from albert_ablate.sweeping.cells import Cell, Placed, assign_folders, labels
from albert_ablate.sweeping.definition import load
from albert_ablate.sweeping.estimate import GPU_PEAKS, on_gpu, on_this_machine


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = Parser(prog=program("plan"), description="What a sweep would run, cost and need.")
    parser.add_argument(
        "overrides", nargs="+", metavar="OVERRIDE", help=f"as for {command_name('sweep')}: sweep=table4 seed=0,1,2"
    )
    parser.add_argument(
        "--gpu", choices=GPU_PEAKS, help="estimate GPU-hours from FLOPs instead of measuring this machine"
    )
    parser.add_argument("--utilisation", type=float, default=0.4, help="share of the GPU's peak (default: 0.4)")
    parser.add_argument("--no-time", action="store_true", help="counts only; measure nothing")
    parser.add_argument("--remeasure", action="store_true", help="measure this machine again")
    parser.add_argument("--csv", type=Path, help="also write the cells, with all their overrides, to this file")
    options = parser.parse_intermixed_args(arguments)
    if not 0 < options.utilisation <= 1:
        parser.error(f"--utilisation={options.utilisation}: a share of the peak, above 0 and at most 1")
    command = read_command_line(options.overrides)
    cells = expand(command)
    counts_only = options.no_time or any(load(name).counts_only for name in command.sweeps)
    from albert_ablate.record.outcome import explaining_disk_errors  # after the checks: torch loads slowly

    paths = cells[0].config.paths
    with explaining_disk_errors(paths.runs, paths.cache):
        clock = None if counts_only else options.gpu or "local"
        lines = _lines(cells, clock, options.utilisation, options.remeasure)
    title = ": ".join(
        filter(None, ["sweep " + command.name if command.name else "grid", *[load(n).title for n in command.sweeps]])
    )
    show(title, lines, None if counts_only else Clock(options.gpu, options.utilisation))
    if options.csv:
        try:
            options.csv.parent.mkdir(parents=True, exist_ok=True)
            pd.DataFrame([line.as_dict() for line in lines]).to_csv(options.csv, index=False)
        except OSError as error:
            raise UserError(f"--csv {options.csv}: cannot be written ({error.strerror}).") from error
        print(f"wrote {options.csv}")
    return 0


def _lines(cells: Sequence[Cell], clock: str | None, utilisation: float, remeasure: bool) -> list[Line]:
    from albert_ablate.sweeping.calibration import calibrate  # torch loads slowly
    from albert_ablate.sweeping.gpus import local_precision
    from albert_ablate.sweeping.real_tokens import RealTokens

    local = all(cell.config.data.source != "hub" for cell in cells) and clock in ("local", None)
    placed = (
        assign_folders(cells, local_precision)
        if local
        else [Placed(c, name, None) for c, name in zip(cells, labels(cells), strict=True)]
    )
    lines, known = [], RealTokens()
    began = time.time()
    for p in placed:
        if p.problem is not None:
            raise p.problem
        config = p.cell.config
        oldest = began if remeasure else None
        calibration = calibrate(config, oldest) if clock == "local" else None  # prepares the text if needed
        tokens, measured = known.of(config)
        if calibration is not None:
            estimate = on_this_machine(config, calibration, tokens)
        else:
            estimate = on_gpu(config, GPU_PEAKS[clock or "h100"] * utilisation, tokens)
        folder = p.folder
        identity = None if folder is None else folder.identity
        state = None if folder is None else p.state()
        filled = tokens / config.pairs.max_length
        lines.append(Line(p.cell, p.label, identity, state, estimate, _took(p), filled, measured, calibration))
    return lines


def _took(placed: Placed) -> float | None:
    """Seconds of training and evaluation of a finished run."""
    if placed.folder is None or placed.folder.state() != "finished":
        return None
    results = placed.folder.read("results.json")
    return float(results["training"]["seconds"] + results.get("evaluation", {"seconds": 0.0})["seconds"])
