"""Pretraining steps on CPU against transformers: ``python -m benchmarks.throughput``.

Four models: share=all against AlbertForPreTraining, and share=none with E = H against BertForPreTraining. Whole
training steps (batch, forward, backward, clip, AdamW) in bf16. Each contender has a separate process; they take turns.
"""

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.cases import Case
from benchmarks.measure import Build, first_line, gemm, gemm_flops, report, take_turns
from benchmarks.sides import ours, transformers_step

CASES = {
    "nano": Case("nano 64 x 64", h=128, layers=4, e=128, v=4000, b=64, t=64),
    "mini": Case("mini 32 x 128", h=256, layers=4, e=128, v=8000, b=32, t=128),
    "base128": Case("base 8 x 128", h=768, layers=12, e=128, v=30000, b=8, t=128),
    "base512": Case("base 4 x 512", h=768, layers=12, e=128, v=30000, b=4, t=512),
}


def compare(case: Case, seconds: float) -> dict[str, Any]:
    """One row: both sides and the machine's bf16 rate, measured in turn."""
    contenders: dict[str, Build] = {
        "ours": partial(ours, case), "transformers": partial(transformers_step, case), "gemm": gemm,
    }  # fmt: skip
    measured = take_turns(contenders, seconds)
    our, peer = measured["ours"], measured["transformers"]
    return {
        "model, share": f"{case.name}, {case.share}",
        "tokens/s": round(case.tokens / our.median),
        "theirs": round(case.tokens / peer.median),
        "ratio": peer.median / our.median,
        "of GEMM rate": f"{case.operations_a_second(our.median) / gemm_flops(measured['gemm'].median):.0%}",
        "peak MB": round(our.peak_mb),
        "their MB": round(peer.peak_mb),
    }


def main() -> None:
    """Run the chosen cases."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput", description=first_line(__doc__))
    parser.add_argument("cases", nargs="*", choices=[*CASES, []], help=f"of {', '.join(CASES)}; default: all")
    parser.add_argument("--dropout", type=float, default=0.0, help="of both; 0 is transformers' default for ALBERT")
    parser.add_argument("--seconds", type=float, default=10, help="for each contender of each row")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    rows = []
    for name in options.cases or CASES:
        case = replace(CASES[name], dropout=options.dropout)
        rows.append(compare(case, options.seconds))
        rows.append(compare(replace(case, share="none", e=case.h), options.seconds))
    notes = [
        "medians; the real length of a sequence varies, tokens count padding on both sides",
        "of GEMM rate: operations of the model a second, over those of a 2048-wide bf16 product measured in turn",
        "peak MB: of the whole process, libraries included",
    ]
    name = "throughput" if options.dropout == 0 else f"throughput-dropout-{options.dropout:g}"
    title = f"Pretraining steps on CPU, bf16, AdamW, dropout {options.dropout:g}, against transformers"
    report(name, title, rows, notes, options.out)


if __name__ == "__main__":
    main()
