"""What ``plan`` prints: a table of the cells that fits the terminal, sums, and how far the times can be trusted."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from albert_ablate.console import duration
from albert_ablate.methods import method_of
from albert_ablate.sweeping.cells import Cell
from albert_ablate.sweeping.estimate import STEADY, Calibration, Estimate

#: Columns of a label, at least and at most, where the terminal is narrow.
_LABEL = (20, 44)
_GAP = 2
_DASH = "—"
#: Seconds after which the age of a measurement is said.
_DAY = 86400.0


@dataclass(frozen=True)
class Clock:
    """Where the times come from: measured steps of this machine or, with a ``gpu``, FLOPs at a share of its peak."""

    gpu: str | None
    utilisation: float


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
    calibration: Calibration | None = None  # the measured steps behind the estimate

    def as_dict(self) -> dict[str, Any]:
        """A row of the CSV file."""
        counts = method_of(self.cell.config).parameters().as_dict()
        return {
            "cell": self.label, "identity": self.identity, "state": self.state, "tables": " ".join(self.cell.rows),
            "overrides": " ".join(self.cell.overrides), **{f"parameters_{k}": v for k, v in counts.items()},
            **{k: getattr(self.estimate, k) for k in ("steps", "tokens", "flops", "seconds", "memory", "disk")},
            "took_seconds": self.took, "real_tokens": self.filled, "real_tokens_measured": self.measured,
        }  # fmt: skip


def show(title: str, lines: Sequence[Line], clock: Clock | None) -> None:
    """Print the plan. ``clock``: None for counts only."""
    console = Console(highlight=False)
    common = [
        override
        for override in lines[0].cell.overrides
        if all(override in line.cell.overrides for line in lines) and not override.startswith("sweep=")
    ]
    in_a_file = not console.is_terminal  # whose lines stay whole

    def say(text: str, style: str | None = None) -> None:
        console.print(text, style=style, markup=False, soft_wrap=in_a_file)

    say(f"\n{title}", style="bold")
    say(f"every cell: {' '.join(common)}")
    say(f"{_widths(lines)}\n")
    table, hidden = _table(lines, clock is not None, console.width)
    console.print(table)
    say("")
    for text in _totals(lines, clock):
        say(text)
    if hidden:
        say(f"not shown at this width: {', '.join(hidden)}; --csv FILE writes every column")
    for text in _doubts([line.calibration for line in lines if line.calibration is not None]):
        say(text, style="yellow")


def _widths(lines: Sequence[Line]) -> str:
    """The model shapes, and the sizes E that the sweep files call H/12, H/6 and so on."""
    sizes = sorted({line.cell.config.embed.size for line in lines})
    models = {(m.name, m.hidden, m.layers): None for m in (line.cell.config.model for line in lines)}
    shapes = ", ".join(f"{name} {hidden}×{layers}" for name, hidden, layers in models)
    return f"models (H×L): {shapes}; E: {', '.join(map(str, sizes))}"


def _table(lines: Sequence[Line], timed: bool, width: int) -> tuple[Table, list[str]]:
    """The table, and the columns with numbers that do not fit into ``width``."""
    rows = [_numbers(line, timed) for line in lines]
    filled = [name for name in rows[0] if any(row[name] != _DASH for row in rows)]
    wide = {name: max(len(name), *(len(row[name]) for row in rows)) + _GAP for name in filled}
    longest = max(len(line.label) for line in lines)
    room = width - max(min(longest, _LABEL[1]), _LABEL[0])
    chosen: set[str] = set()
    for name in sorted(filled, key=_PRIORITY.index):
        if wide[name] <= room:
            chosen.add(name)
            room -= wide[name]
    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("cell", overflow="fold")
    for name in (name for name in _PRINTED if name in chosen):
        table.add_column(name, justify="left" if name == "state" else "right", no_wrap=True)
    for line, row in zip(lines, rows, strict=True):
        table.add_row(line.label, *(row[name] for name in _PRINTED if name in chosen))
    return table, [name for name in _PRINTED if name in filled and name not in chosen]


#: Columns from left to right, and in the order in which a narrow terminal gets them.
_PRINTED = ("identity", "parameters", "FLOPs", "tokens", "time", "memory", "disk", "state")
_PRIORITY = ("time", "state", "parameters", "memory", "FLOPs", "tokens", "disk", "identity")


def _numbers(line: Line, timed: bool) -> dict[str, str]:
    """Column -> what a cell's row says."""
    e = line.estimate
    return {
        "identity": line.identity or _DASH,
        "parameters": f"{method_of(line.cell.config).parameters().with_pooler / 1e6:.1f} M",
        "FLOPs": f"{e.flops:.2g}",
        "tokens": _quantity(e.tokens),
        "time": _time(e.seconds) if timed else _DASH,
        "memory": _bytes(e.memory),
        "disk": _bytes(e.disk),
        "state": line.state or _DASH,
    }


def _doubts(measured: Sequence[Calibration]) -> list[str]:
    """Warnings about measurements on a busy machine, and about old ones."""
    busy = [c for c in measured if c.busy]
    doubts = []
    if busy:
        spread, load = max(c.spread for c in busy), max(c.load for c in busy)
        why = f"steps of equal size differed by a factor of {spread:.1f}" if spread >= STEADY else "other programs ran"
        doubts.append(
            f"machine busy: times unreliable ({why}, load average {load:.1f} on {busy[0].cores} cores). "
            "On an idle machine, --remeasure measures again"
        )
    age = time.time() - min((c.made for c in measured), default=time.time())
    if age > _DAY:
        days = int(age / _DAY)
        doubts.append(f"times measured up to {days} day{'s' * (days > 1)} ago; --remeasure measures again")
    return doubts


def _totals(lines: Sequence[Line], clock: Clock | None) -> list[str]:
    """The lines below the table: sums, the accuracy of earlier estimates, and what the numbers mean."""
    estimates = [line.estimate for line in lines]
    totals = [
        f"{len(lines)} cells · {sum(e.flops for e in estimates):.3g} FLOPs · "
        f"{_quantity(sum(e.tokens for e in estimates))} tokens · {_bytes(sum(e.disk for e in estimates))} on disk"
    ]
    seconds = [e.seconds for e in estimates if e.seconds is not None]
    if clock is not None and clock.gpu:
        hours = sum(seconds) / 3600
        totals.append(f"{hours:,.0f} {clock.gpu.upper()}-hours of training at {clock.utilisation:.0%} of the bf16 peak")
    elif seconds and clock is not None:
        left = sum(line.estimate.seconds or 0.0 for line in lines if line.state != "finished")
        totals.append(f"{_time(sum(seconds))} for all of them on this machine, {_time(left)} for those not finished")
        done = [line for line in lines if line.took is not None]
        if done:
            took, estimated = sum(line.took or 0.0 for line in done), sum(line.estimate.seconds or 0.0 for line in done)
            error = f"{estimated / took - 1:+.0%}"
            totals.append(f"the {len(done)} finished took {_time(took)}; estimated {_time(estimated)} ({error})")
    tuned = sum(len(line.cell.config.fine_tuned) * len(line.cell.config.task.seeds) for line in lines)
    if tuned:
        totals.append(f"{tuned} fine-tunings come on top; their time is not in the estimate")
    asking = sum(line.cell.config.kshot.ask != "command" for line in lines)
    if asking:
        totals.append(f"{asking} runs are asked questions after their training; their time is not in the estimate")
    totals += [
        _real_tokens(lines, measured) for measured in (True, False) if any(n.measured is measured for n in lines)
    ]
    totals.append("parameters: with pooler, without heads; FLOPs: matrix products; memory: peak of the process")
    return totals


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
        return _DASH
    return duration(seconds) if seconds < 48 * 3600 else f"{seconds / 3600:,.0f} h"


def _quantity(count: float) -> str:
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1e3:.1f} k"


def _bytes(count: int | None) -> str:
    if count is None:
        return _DASH
    for size, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1e3:.0f} kB"
