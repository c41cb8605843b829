"""A step of ELECTRA against one of masked LM, and against transformers: ``python -m benchmarks.electra``.

Both of ours train the same encoder on the same positions; ELECTRA's generator has a quarter of its width. The peer is
transformers' two ELECTRA classes with tied embeddings in the usual loop. Whole training steps in bf16 without a
sentence loss; the contenders take turns.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from albert_ablate.training.precision import autocast, choose_precision
from benchmarks.cases import Case
from benchmarks.measure import Build, first_line, report, take_turns
from benchmarks.sides import Collated, Side, in_line, ours

CASES = {
    "mini": Case("mini 32 x 128", h=256, layers=4, e=128, v=8000, b=32, t=128, share="none"),
    "small": Case("small 8 x 128", h=256, layers=12, e=128, v=30000, b=8, t=128, share="none"),
}
_RATIO = 0.25


class Both(nn.Module):
    """PEER: transformers' generator and discriminator with one embedding module."""

    def __init__(self, case: Case) -> None:
        from transformers import ElectraConfig, ElectraForMaskedLM, ElectraForPreTraining

        super().__init__()
        common: dict[str, Any] = {
            "vocab_size": case.v, "embedding_size": case.e, "num_hidden_layers": case.layers, "hidden_act": "gelu",
            "hidden_dropout_prob": case.dropout, "attention_probs_dropout_prob": case.dropout,
        }  # fmt: skip
        narrow, heads = int(case.h * _RATIO), max(1, int(case.heads * _RATIO))
        self.generator = ElectraForMaskedLM(
            ElectraConfig(hidden_size=narrow, num_attention_heads=heads, intermediate_size=4 * narrow, **common)
        )
        self.discriminator = ElectraForPreTraining(
            ElectraConfig(hidden_size=case.h, num_attention_heads=case.heads, intermediate_size=4 * case.h, **common)
        )
        self.generator.electra.embeddings = self.discriminator.electra.embeddings
        self.generator.generator_lm_head.weight = self.discriminator.electra.embeddings.word_embeddings.weight

    def forward(self, batch: dict[str, Any]) -> torch.Tensor:
        """The joint loss."""
        shared = {name: batch[name] for name in ("attention_mask", "token_type_ids")}
        out = self.generator(input_ids=batch["input_ids"], labels=batch["labels"], **shared)
        masked = batch["labels"] != -100
        original = torch.where(masked, batch["labels"], batch["input_ids"])
        with torch.no_grad():
            logits = out.logits[masked].float()
            noise = -torch.log(-torch.log(torch.rand_like(logits) + 1e-9) + 1e-9)
            corrupted = original.clone()
            corrupted[masked] = (logits + noise).argmax(-1)
        labels = (corrupted != original).long()
        return out.loss + 50 * self.discriminator(input_ids=corrupted, labels=labels, **shared).loss


def transformers_side(case: Case) -> Side:
    """PEER: both classes with transformers' collator and AdamW."""
    model = Both(case).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01)
    precision = choose_precision(case.config().runtime, torch.device("cpu"))

    def update(_step: int, batch: dict[str, Any]) -> None:
        with autocast(precision, torch.device("cpu")):
            loss = model(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return Side(Collated(case, "label"), update, lambda batch: batch)


def _peer(case: Case) -> Callable[[], Any]:
    return in_line(transformers_side(case))


def compare(case: Case, seconds: float) -> dict[str, Any]:
    """One row."""
    plain = ("objective=none", "model.activation=gelu_erf")
    electra = (*plain, "method=electra", f"method.generator_width={_RATIO}")
    contenders: dict[str, Build] = {
        "masked LM": partial(ours, case, *plain), "ELECTRA": partial(ours, case, *electra),
        "transformers": partial(_peer, case),
    }  # fmt: skip
    measured = take_turns(contenders, seconds)
    mlm, rtd, peer = (measured[name].median for name in contenders)
    return {
        "model": f"{case.name}, {case.share}",
        "masked LM ms": round(1000 * mlm, 1),
        "ELECTRA ms": round(1000 * rtd, 1),
        "transformers ms": round(1000 * peer, 1),
        "ELECTRA / masked LM": rtd / mlm,
        "transformers / ELECTRA": peer / rtd,
    }


def main() -> None:
    """Run the chosen cases."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.electra", description=first_line(__doc__))
    parser.add_argument("cases", nargs="*", choices=[*CASES, []], help=f"of {', '.join(CASES)}; default: all")
    parser.add_argument("--seconds", type=float, default=10, help="for each contender of each row")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    rows = [compare(CASES[name], options.seconds) for name in options.cases or CASES]
    notes = ["medians; E = 128, generator of a quarter of the width, erf GELU, no dropout, no sentence loss"]
    report("electra", "Pretraining steps of ELECTRA on CPU, bf16, AdamW", rows, notes, options.out)


if __name__ == "__main__":
    main()
