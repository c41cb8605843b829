"""Pretraining steps on a GPU against transformers with torch.compile and SDPA: ``python -m benchmarks.gpu``.

Base and large, length 128 and 512, bf16; about ten minutes. ``--tiny`` runs the same code on any machine.
"""

import argparse
import time
from pathlib import Path
from typing import Any

from benchmarks.alone import alone
from benchmarks.cases import Case
from benchmarks.measure import first_line, gemm, gemm_flops, median_seconds, report

CASES = [
    Case(f"{name} {b} x {t}", h=h, layers=layers, e=128, v=30000, b=b, t=t, device="cuda")
    for name, h, layers in (("base", 768, 12), ("large", 1024, 24))
    for b, t in ((256, 128), (64, 512))
]
TINY = [Case("tiny 4 x 32", h=64, layers=2, e=16, v=200, b=4, t=32)]
#: Processes that make batches ahead on each side.
WORKERS = 4
SIDES = ("ours", "transformers")
#: Steps after which a side has compiled, captured and checked everything that it uses.
WARM_UP = 16
NOTES = (
    "tokens/s and ratio: whole steps, batches made ahead by as many processes on both sides",
    "in line: each batch is made where its step needs it; GPU alone: one batch that lies on the device",
    "of GEMM rate: operations of our model a second in whole steps, over those of a bf16 product",
    "medians; each side is alone on the device",
)


def measure_side(
    name: str, case: Case, seconds: float, workers: int, compiled: bool, overrides: tuple[str, ...]
) -> dict[str, float | None]:
    """Seconds of a step of one side: ``whole``, ``in_line`` and ``device``; and ``memory``, its peak on the GPU in MB.

    ``overrides`` are further settings of our side.
    """
    import torch

    from benchmarks.sides import device_alone, in_line, our_side, prefetched, transformers_side

    side = our_side(case, *overrides) if name == "ours" else transformers_side(case, compiled)

    step = device_alone(side)
    for _ in range(WARM_UP):
        step()
    measured: dict[str, float | None] = {
        "device": median_seconds(step, seconds, case.device),
        "whole": median_seconds(prefetched(side, workers, case.device), seconds, case.device),
        "in_line": median_seconds(in_line(side), seconds, case.device),
    }
    measured["memory"] = torch.cuda.max_memory_allocated() / 2**20 if case.device == "cuda" else None
    return measured


def gemm_rate(size: int, device: str, seconds: float) -> float:
    """Operations a second of a bf16 product of two ``size``-wide matrices."""
    return gemm_flops(median_seconds(gemm(size, device), seconds, device), size)


def compare(
    case: Case, rate: float, seconds: float, compiled: bool, limit: float = 300, overrides: tuple[str, ...] = ()
) -> dict[str, Any]:
    """One row within ``limit`` seconds, compilation included; the columns of a side that fails are empty.

    ``overrides`` are further settings of our side.
    """
    workers = WORKERS if case.device == "cuda" else 0
    end = time.monotonic() + limit
    answers = {}
    for name in SIDES:
        left = max(end - time.monotonic(), 0)
        answers[name] = alone(measure_side, name, case, seconds, workers, compiled, overrides, seconds=left)
    ours, peer = (answers[name].value for name in SIDES)
    ratios = {
        column: peer[key] / ours[key] if ours and peer else None
        for column, key in (("ratio", "whole"), ("ratio in line", "in_line"), ("ratio GPU alone", "device"))
    }
    return {
        "model": case.name,
        "ours": case.tokens / ours["whole"] if ours else None,
        "transformers": case.tokens / peer["whole"] if peer else None,
        **ratios,
        "of GEMM rate": f"{case.operations_a_second(ours['whole']) / rate:.0%}" if ours else None,
        "GPU MB": ours["memory"] if ours else None,
        "their GPU MB": peer["memory"] if peer else None,
        "failed": "; ".join(f"{name}: {answer.error}" for name, answer in answers.items() if answer.error) or None,
    }


def main() -> None:
    """Run the four cases, or the tiny one."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=first_line(__doc__))
    parser.add_argument("--tiny", action="store_true", help="one small case on the CPU, not compiled")
    parser.add_argument("--seconds", type=float, default=5, help="for each of the three measurements of a side")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("settings", nargs="*", metavar="SETTING=VALUE", help="of our side: runtime.backend=eager")
    options = parser.parse_args()
    if not options.tiny:
        import torch

        if not torch.cuda.is_available():
            raise SystemExit("This machine has no GPU that torch can use; --tiny runs the same code on the CPU.")
    cases, size = (TINY, 256) if options.tiny else (CASES, 8192)
    rate = alone(gemm_rate, size, cases[0].device, options.seconds, seconds=120)
    if rate.error:
        raise SystemExit(f"The rate of a bf16 product could not be measured: {rate.error}")
    overrides = tuple(options.settings)
    rows = [compare(case, rate.value, options.seconds, not options.tiny, overrides=overrides) for case in cases]
    report("gpu", "Pretraining steps on a GPU, bf16, AdamW", rows, NOTES, options.out)
    if any(row["failed"] for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
