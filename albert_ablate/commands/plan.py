"""What a sweep will cost: ``python -m albert_ablate.plan sweep=table4 scale=cpu seed=0,1,2``.

Accepts the same overrides as ``python run.py -m`` and trains nothing. Time and memory come from a few
measured steps of each shape on this machine (kept in the cache) or, with ``--gpu``, from FLOPs at a
stated utilisation.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from albert_ablate.arguments import Parser
from albert_ablate.command_line import command_name, program
from albert_ablate.console import command, duration
from albert_ablate.door.cells import expand, read_command_line
from albert_ablate.errors import UserError
from albert_ablate.methods import method_of
from albert_ablate.sweeping.cells import Cell, Placed, assign_folders, labels
from albert_ablate.sweeping.definition import load
from albert_ablate.sweeping.estimate import GPU_PEAKS, Estimate, on_gpu, on_this_machine

#: Numbers that a model's name already says; ``--csv`` writes them all.
_IMPLIED = ("model.hidden=", "model.heads=", "model.intermediate=", "model.layers=", "model.attention_dropout=")


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
        lines = _lines(cells, None if counts_only else options.gpu or "local", options.utilisation)
    title = ": ".join(
        filter(None, ["sweep " + command.name if command.name else "grid", *[load(n).title for n in command.sweeps]])
    )
    _show(title, lines, options)
    if options.csv:
        try:
            options.csv.parent.mkdir(parents=True, exist_ok=True)
            pd.DataFrame([line.as_dict() for line in lines]).to_csv(options.csv, index=False)
        except OSError as error:
            raise UserError(f"--csv {options.csv}: cannot be written ({error.strerror}).") from error
        print(f"wrote {options.csv}")
    return 0


@dataclass(frozen=True)
class Line:
    """One cell of the plan; None for an unknown number."""

    cell: Cell
    label: str
    identity: str | None
    state: str | None
    estimate: Estimate
    took: float | None  # seconds of a finished run
    filled: float  # share of the sequences' positions that are real tokens
    measured: bool  # whether the share was counted on the prepared text, else estimated

    def as_dict(self) -> dict[str, Any]:
        """A row of the CSV file."""
        counts = method_of(self.cell.config).parameters().as_dict()
        return {
            "cell": self.label, "identity": self.identity, "state": self.state, "tables": " ".join(self.cell.rows),
            "overrides": " ".join(self.cell.overrides), **{f"parameters_{k}": v for k, v in counts.items()},
            **{k: getattr(self.estimate, k) for k in ("steps", "tokens", "flops", "seconds", "memory", "disk")},
            "took_seconds": self.took, "real_tokens": self.filled, "real_tokens_measured": self.measured,
        }  # fmt: skip


def _lines(cells: Sequence[Cell], clock: str | None, utilisation: float) -> list[Line]:
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
    for p in placed:
        if p.problem is not None:
            raise p.problem
        config = p.cell.config
        calibration = calibrate(config) if clock == "local" else None  # prepares the text if needed
        tokens, measured = known.of(config)
        if calibration is not None:
            estimate = on_this_machine(config, calibration, tokens)
        else:
            estimate = on_gpu(config, GPU_PEAKS[clock or "h100"] * utilisation, tokens)
        folder = p.folder
        identity = None if folder is None else folder.identity
        state = None if folder is None else p.state()
        filled = tokens / config.pairs.max_length
        lines.append(Line(p.cell, p.label, identity, state, estimate, _took(p), filled, measured))
    return lines


def _took(placed: Placed) -> float | None:
    """Seconds of training and evaluation of a finished run."""
    if placed.folder is None or placed.folder.state() != "finished":
        return None
    results = placed.folder.read("results.json")
    return float(results["training"]["seconds"] + results.get("evaluation", {"seconds": 0.0})["seconds"])


def _show(title: str, lines: Sequence[Line], options: argparse.Namespace) -> None:
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 150)
    common = [
        override for override in lines[0].cell.overrides if all(override in line.cell.overrides for line in lines)
    ]
    console.print(f"\n{title}", style="bold")
    console.print(f"every cell: {' '.join(common)}", markup=False, soft_wrap=True)
    console.print(f"{_widths(lines)}\n", markup=False, soft_wrap=True)
    console.print(_table(lines, common, timed=lines[0].estimate.seconds is not None and not options.no_time))
    for text in _totals(lines, options):
        console.print(text, markup=False, soft_wrap=True)


def _widths(lines: Sequence[Line]) -> str:
    """The model shapes, and the sizes E that the sweep files call H/12, H/6 and so on."""
    sizes = sorted({line.cell.config.embed.size for line in lines})
    models = {(m.name, m.hidden, m.layers): None for m in (line.cell.config.model for line in lines)}
    shapes = ", ".join(f"{name} {hidden}×{layers}" for name, hidden, layers in models)
    return f"models (H×L): {shapes}; E: {', '.join(map(str, sizes))}"


def _table(lines: Sequence[Line], common: Sequence[str], timed: bool) -> Table:
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="dim")
    table.add_column("cell", overflow="fold", ratio=1)
    for name in ("identity", "parameters, M", "FLOPs", "tokens", "time", "memory", "disk"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for line in lines:
        counts = method_of(line.cell.config).parameters()
        millions = f"{counts.encoder / 1e6:.1f} · {counts.with_pooler / 1e6:.1f} · {counts.with_heads / 1e6:.1f}"
        e = line.estimate
        specific = [w for w in line.cell.overrides if w not in common and not w.startswith(_IMPLIED)]
        table.add_row(
            " ".join(specific) or "the only one", line.identity or "—", millions, f"{e.flops:.2g}", _quantity(e.tokens),
            _time(e.seconds) if timed else "—", _bytes(e.memory), _bytes(e.disk), line.state or "—",
        )  # fmt: skip
    return table


def _totals(lines: Sequence[Line], options: argparse.Namespace) -> list[str]:
    estimates = [line.estimate for line in lines]
    totals = [
        f"{len(lines)} cells · {sum(e.flops for e in estimates):.3g} FLOPs · "
        f"{_quantity(sum(e.tokens for e in estimates))} tokens · {_bytes(sum(e.disk for e in estimates))} on disk"
    ]
    seconds = [e.seconds for e in estimates if e.seconds is not None]
    if options.gpu and not options.no_time:
        hours = sum(seconds) / 3600
        totals.append(
            f"{hours:,.0f} {options.gpu.upper()}-hours of training at {options.utilisation:.0%} of the bf16 peak"
        )
    elif seconds and not options.no_time:
        left = sum(line.estimate.seconds or 0.0 for line in lines if line.state != "finished")
        totals.append(f"{_time(sum(seconds))} for all of them on this machine, {_time(left)} for those not finished")
        done = [line for line in lines if line.took is not None]
        if done:
            took, estimated = sum(line.took or 0.0 for line in done), sum(line.estimate.seconds or 0.0 for line in done)
            error = f"{estimated / took - 1:+.0%}"
            totals.append(f"the {len(done)} finished took {_time(took)}; estimated {_time(estimated)} ({error})")
    tuned = sum(len(line.cell.config.tasks) * len(line.cell.config.task.seeds) for line in lines)
    if tuned:
        totals.append(f"{tuned} fine-tunings come on top; their time is not in the estimate")
    totals += [
        _real_tokens(lines, measured) for measured in (True, False) if any(n.measured is measured for n in lines)
    ]
    totals.append("parameters: encoder · with pooler · with heads; FLOPs: matrix products; memory: peak of the process")
    return ["", *totals]


def _real_tokens(lines: Sequence[Line], measured: bool) -> str:
    """The line on the share of positions that are real tokens, and on how it was determined."""
    shares = sorted(line.filled for line in lines if line.measured is measured)
    low, high = f"{shares[0]:.0%}", f"{shares[-1]:.0%}"
    how = (
        "counted on the prepared text"
        if measured
        else "estimated from pairs.short_probability, as the text is not prepared here"
    )
    return f"tokens: without padding, {low if low == high else f'{low} to {high}'} of all positions, {how}"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "—"
    return duration(seconds) if seconds < 48 * 3600 else f"{seconds / 3600:,.0f} h"


def _quantity(count: float) -> str:
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1e3:.1f} k"


def _bytes(count: int | None) -> str:
    if count is None:
        return "—"
    for size, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1e3:.0f} kB"
