"""One LAMB step of BERT-base's 110 M parameters: ``python -m benchmarks.optimizer``.

Against LAMB written tensor by tensor, with new tensors for all intermediate results, and against PyTorch's fused AdamW.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from albert_ablate.config.schema import OptimizerConfig
from albert_ablate.model.pretraining import build_model
from albert_ablate.training.optimizers import build_optimizer
from benchmarks.cases import Case
from benchmarks.measure import first_line, report, take_turns

CASE = Case("base", h=768, layers=12, e=768, v=30000, b=8, t=128, share="none")


def _model() -> tuple[nn.Module, OptimizerConfig]:
    config = CASE.config("optimizer=lamb")
    model = build_model(config.architecture(), 0)
    for parameter in model.parameters():
        parameter.grad = 1e-3 * torch.randn_like(parameter)
    return model, config.optimizer


def ours() -> Callable[[], Any]:
    """The project's LAMB."""
    model, settings = _model()
    return build_optimizer(model, settings).step


def fused_adamw() -> Callable[[], Any]:
    """PyTorch's fastest AdamW."""
    model, _ = _model()
    return torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True).step


def plain_lamb() -> Callable[[], Any]:
    """PEER: LAMB in its usual form."""
    parameters = list(_model()[0].parameters())
    state = {p: (torch.zeros_like(p), torch.zeros_like(p)) for p in parameters}

    @torch.no_grad()
    def step() -> None:
        for p in parameters:
            assert p.grad is not None
            m, v = state[p]
            m = 0.9 * m + 0.1 * p.grad
            v = 0.999 * v + 0.001 * p.grad**2
            state[p] = (m, v)
            update = m / (v.sqrt() + 1e-6) + 0.01 * p
            a, b = p.norm().item(), update.norm().item()
            p.sub_(1e-4 * (a / b if a > 0 and b > 0 else 1.0) * update)

    return step


def main() -> None:
    """Measure all three and report them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.optimizer", description=first_line(__doc__))
    parser.add_argument("--seconds", type=float, default=8, help="for each contender")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    measured = take_turns({f.__name__: partial(f) for f in (ours, plain_lamb, fused_adamw)}, options.seconds)
    our_seconds = measured["ours"].median
    names = {"ours": "LAMB, ours", "plain_lamb": "LAMB, tensor by tensor", "fused_adamw": "AdamW, fused"}
    rows = [
        {
            "optimizer": names[name],
            "ms": 1000 * times.median,
            "time of ours": times.median / our_seconds,
            "steps": len(times.seconds),
        }
        for name, times in measured.items()
    ]
    report("optimizer", "One step of 110 M parameters", rows, ["medians, in turn"], options.out)


if __name__ == "__main__":
    main()
