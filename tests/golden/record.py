"""Fifty training losses of every cell of the three axes: ``python tests/golden/record.py``.

The files hold what training gave when they were recorded. A faster implementation has to give the same
losses (``tests/test_golden.py``); record again only where a change of the numbers is meant, and say why.
"""

import sys
import tempfile
from pathlib import Path

import pandas as pd
import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from runhelpers import make_trainer, tiny_config  # noqa: E402

STEPS = 50
PRECISIONS = ("fp32", "bf16")
CELLS = [
    f"{e}-{s}-{o}" for e in ("e32", "full") for s in ("all", "attention", "ffn", "none") for o in ("sop", "nsp", "none")
]
#: One cell with dropout: its noise is part of the numbers.
DROPOUT = "e32-all-sop-dropout"
#: Cells of ELECTRA.
ELECTRA = ["electra-e32-all-sop", "electra-e32-none-none", "electra-full-all-none", "electra-full-none-nsp"]

#: Cells of students; their teachers have random weights.
STUDENTS = ["distilbert-e32-all-sop", "distilbert-full-none-none", "tinybert-e32-all-sop", "tinybert-full-none-none"]

#: Cells of causal LM, one of them on the sequences of masked LM.
CAUSAL = ["causal-e32-all-none", "causal-full-none-none", "causal-e32-none-none-pairs"]

#: Cells of attention in blocks, one of them without random and global blocks.
BLOCKS = ["bigbird-e32-all-sop", "bigbird-full-none-none", "bigbird-e32-none-none-window"]

#: Cells of MobileBERT: its form, as released and shared, and its transfer layer by layer.
MOBILEBERT = ["mlm-e32-none-nsp-mobilebert", "mlm-e32-all-sop-mobilebert", "mobilebert-e32-none-sop-mobilebert"]

ALL = [*CELLS, DROPOUT, *ELECTRA, *STUDENTS, *CAUSAL, *BLOCKS, *MOBILEBERT]
#: The form of their layers.
_FORM = (
    "block=mobilebert", "model.block_width=32", "model.feed_forwards=2", "model.attention_input=shared",
    "model.norm_type=no_norm", "model.activation=relu", "model.trigram=true", "model.table_width=hidden",
    "model.pooler=bare", "model.lm_head=extended",
)  # fmt: skip


def losses(folder: Path, cell: str, precision: str, *more: str) -> list[float]:
    """Sum of the means of all losses, unweighted, of each of the first 50 steps, with ``more`` settings."""
    plain = cell.removeprefix("bigbird-")
    for suffix in ("-dropout", "-pairs", "-window", "-mobilebert"):
        plain = plain.removesuffix(suffix)
    *method, embed, share, objective = plain.split("-")
    dropout = cell.endswith("-dropout")
    rate = 0.1 if dropout else 0.0
    generator = ["method.generator_width=0.5"] if "electra" in method else []
    pairs = ["method.blocks=pairs"] if cell.endswith("-pairs") else []
    blocks = ["attention=bigbird", "attention.block=4", "attention.random=1"] if cell.startswith("bigbird") else []
    if cell.endswith("-window"):
        blocks[-1:] = ["attention.random=0", "attention.global_blocks=0"]
    layers = _FORM if cell in MOBILEBERT else ()
    config = tiny_config(
        folder, f"embed={embed}", "embed.size=32" if embed == "e32" else "embed.size=64", f"share={share}",
        f"objective={objective}", "model.hidden=64", "model.layers=3", "model.intermediate=256", "batch.size=32",
        "batch.micro_size=32", f"budget.steps={STEPS}", "budget.warmup_steps=10",
        f"model.hidden_dropout={rate}", f"model.attention_dropout={rate}", *(f"method={name}" for name in method),
        *(["model.heads=4"] if method or blocks else []), *generator, *pairs, *blocks, *layers, *more,
    )  # fmt: skip
    trainer, batches = make_trainer(config, precision=precision)
    found = []
    for step in range(STEPS):
        batch = batches[step]
        means = trainer.update(step, batch).means(batch.counts())
        found.append(sum(value for name, value in means.items() if name.endswith("_loss")))
    return found


def record() -> None:
    """Write ``fp32.csv`` and ``bf16.csv``: a row a step, a column a cell."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        for precision in PRECISIONS:
            table = pd.DataFrame({cell: losses(Path(place), cell, precision) for cell in ALL})
            table.index = pd.RangeIndex(1, STEPS + 1, name="step")
            table.round(7).to_csv(HERE / f"{precision}.csv")


if __name__ == "__main__":
    record()
