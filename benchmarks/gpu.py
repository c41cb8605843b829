"""Pretraining steps on a GPU against transformers with torch.compile and SDPA: ``python -m benchmarks.gpu``.

Base and large, length 128 and 512, bf16; under eight minutes. ``--tiny`` runs the same code on any machine.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.cases import Case, ours, transformers_step
from benchmarks.measure import first_line, gemm, gemm_flops, report, take_turns

CASES = [
    Case(f"{name} {b} x {t}", h=h, layers=layers, e=128, v=30000, b=b, t=t, device="cuda")
    for name, h, layers in (("base", 768, 12), ("large", 1024, 24))
    for b, t in ((256, 128), (64, 512))
]
TINY = [Case("tiny 4 x 32", h=64, layers=2, e=16, v=200, b=4, t=32)]


def waiting(build: Callable[[], Callable[[], Any]], device: str) -> Callable[[], Any]:
    """A contender whose call ends when the device has done the work."""
    import torch

    step = build()

    def whole() -> None:
        step()
        if device == "cuda":
            torch.cuda.synchronize()

    return whole


def compare(case: Case, size: int, seconds: float, compiled: bool) -> dict[str, Any]:
    """One row: tokens a second of both, and our share of the measured rate of a bf16 product."""
    contenders = {
        "ours": partial(ours, case),
        "theirs": partial(transformers_step, case, compiled=compiled),
        "gemm": partial(gemm, size, case.device),
    }
    found = take_turns({k: partial(waiting, v, case.device) for k, v in contenders.items()}, seconds)
    mine, theirs = found["ours"].median, found["theirs"].median
    rate = gemm_flops(found["gemm"].median, size)
    return {
        "model": case.name,
        "ours": case.tokens / mine,
        "transformers": case.tokens / theirs,
        "ratio": theirs / mine,
        "of GEMM rate": f"{case.operations_a_second(mine) / rate:.0%}",
    }


def main() -> None:
    """Run the four cases, or the tiny one."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=first_line(__doc__))
    parser.add_argument("--tiny", action="store_true", help="on the CPU, without compiling: does it run")
    parser.add_argument("--seconds", type=float, default=12, help="for each contender of each row")
    parser.add_argument("--out", type=Path, help="JSON to write")
    options = parser.parse_args()
    if not options.tiny:
        import torch

        if not torch.cuda.is_available():
            raise SystemExit("no GPU here; --tiny runs the same code on the CPU")
    cases, size = (TINY, 256) if options.tiny else (CASES, 8192)
    rows = [compare(case, size, options.seconds, compiled=not options.tiny) for case in cases]
    report("gpu", "Pretraining steps on a GPU, bf16, AdamW", rows, ["medians, in turn"], options.out)


if __name__ == "__main__":
    main()
