"""Time and memory of a training step against the length: ``python -m benchmarks.length``.

One sequence of 256 to 4,096 tokens of joined documents; three contenders take turns, each in a process of its own:

- full: our full attention on a CPU, whose hand-written gradients keep the probabilities of all pairs;
- fused: full attention through PyTorch's fused kernel, which keeps none of them;
- blocks: BigBird's attention (16 tokens a block, window 3, 2 global and 3 random blocks).

The memory is the peak of the process less that before the first step. The exponent of time is the slope of its
logarithm against that of the length, from 1,024 tokens (or half of the lengths) on. That of memory is the slope of what
each length needs more than the one before, since weights, optimizer and libraries need as much at every length; it is
given for lengths that double.
"""

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from albert_ablate.model.attention import PATTERNS, fused_attention
from albert_ablate.model.block_plan import share_seen
from benchmarks.cases import Case
from benchmarks.measure import Measured, first_line, report, take_turns
from benchmarks.sides import ours

CASE = Case("tiny", h=128, layers=2, e=128, v=2000, b=1, t=256, share="none")
LENGTHS = (256, 512, 1024, 2048, 4096)
_BLOCKS = ("attention=bigbird", "attention.block=16")
#: Exponents are taken from here on: shorter steps are dominated by what does not depend on the length.
_LONG = 1024


def settings(length: int, *more: str) -> tuple[str, ...]:
    """The settings of a step on one sequence of joined documents."""
    return ("objective=none", "pairs.join_documents=true", f"model.max_positions={length}", *more)


def full(case: Case) -> Callable[[], Any]:
    """The step with full attention as this project computes it."""
    return ours(case, *settings(case.t))


def fused(case: Case) -> Callable[[], Any]:
    """The step with full attention through PyTorch's fused kernel. Changes the pattern in this process."""
    PATTERNS["full"] = replace(PATTERNS["full"], kernel=fused_attention)
    return ours(case, *settings(case.t))


def blocks(case: Case) -> Callable[[], Any]:
    """The step with attention in blocks."""
    return ours(case, *settings(case.t, *_BLOCKS))


CONTENDERS: dict[str, Callable[[Case], Callable[[], Any]]] = {"full": full, "fused": fused, "blocks": blocks}


def measured(lengths: Sequence[int], seconds: float, least: int = 5) -> dict[int, dict[str, Measured]]:
    """Length -> contender -> its times and memory."""
    found = {}
    for length in lengths:
        case = replace(CASE, t=length)
        found[length] = take_turns({name: partial(f, case) for name, f in CONTENDERS.items()}, seconds, least)
    return found


def rows(found: dict[int, dict[str, Measured]]) -> list[dict[str, Any]]:
    """A row for each length."""
    table = []
    for length, taken in found.items():
        shape = replace(CASE, t=length).config(*settings(length, *_BLOCKS)).architecture()
        assert shape.blocks is not None
        seen = share_seen(shape.blocks, shape.layers, shape.heads, length, shape.max_positions)
        row: dict[str, Any] = {"tokens": length, "pairs seen": round(seen, 3)}
        row |= {f"{name} ms": round(1000 * one.median, 1) for name, one in taken.items()}
        row |= {f"{name} MB": round(one.peak_mb - one.start_mb, 1) for name, one in taken.items()}
        table.append(row)
    return table


def exponent(lengths: Sequence[int], values: Sequence[float]) -> float:
    """The slope of the least-squares line of log(value) against log(length)."""
    x, y = [math.log(length) for length in lengths], [math.log(value) for value in values]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sum((a - mean_x) ** 2 for a in x)


def notes(table: Sequence[dict[str, Any]]) -> list[str]:
    """Where blocks overtake, and the exponents."""
    found = []
    for rival in ("full", "fused"):
        faster = [row["tokens"] for row in table if row["blocks ms"] < row[f"{rival} ms"]]
        smaller = [row["tokens"] for row in table if row["blocks MB"] < row[f"{rival} MB"]]
        found.append(
            f"blocks against {rival}: faster {_where(faster)}, less memory {_where(smaller)}; "
            f"{table[-1][f'{rival} ms'] / table[-1]['blocks ms']:.2f} times as fast at {table[-1]['tokens']:,} tokens"
        )
    long = [row for row in table if row["tokens"] >= min(_LONG, table[len(table) // 2]["tokens"])]
    if len(long) > 1:
        lengths = [row["tokens"] for row in long]
        each = [f"{c} {exponent(lengths, [row[f'{c} ms'] for row in long]):.2f}" for c in CONTENDERS]
        found.append(f"exponent of time from {lengths[0]:,} tokens: {', '.join(each)}")
    if len(table) > 2 and all(after["tokens"] == 2 * row["tokens"] for row, after in pairwise(table)):
        lengths = [row["tokens"] for row in table[1:]]
        each = [f"{c} {_of_growth(lengths, [row[f'{c} MB'] for row in table])}" for c in CONTENDERS]
        found.append(f"exponent of memory, without what every length needs: {', '.join(each)}")
    return found


def _of_growth(lengths: Sequence[int], values: Sequence[float]) -> str:
    """The exponent of the differences of ``values``, one more than ``lengths``; a dash if one is not positive."""
    growth = [after - before for before, after in pairwise(values)]
    return f"{exponent(lengths, growth):.2f}" if min(growth) > 0 else "—"


def _where(lengths: Sequence[int]) -> str:
    return f"at {', '.join(f'{length:,}' for length in lengths)} tokens" if lengths else "nowhere"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.length", description=first_line(__doc__))
    parser.add_argument("--seconds", type=float, default=10, help="for each length and contender")
    parser.add_argument("--lengths", type=int, nargs="+", default=list(LENGTHS), help="tokens of the sequence")
    parser.add_argument("--out", type=Path, default=None, help="JSON file; default benchmarks/results/length.json")
    options = parser.parse_args()
    table = rows(measured(sorted(options.lengths), options.seconds))
    report("length", "A training step on one sequence, full attention against blocks", table, notes(table), options.out)


if __name__ == "__main__":
    main()
