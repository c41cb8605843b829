"""The models that are measured, and made-up text for them: as our batches, and as input of transformers."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from albert_ablate.config.schema import RunConfig
from albert_ablate.data.store import TokenStore
from albert_ablate.door.compose import compose
from albert_ablate.methods import method_of
from albert_ablate.methods.batch import StepBatches


@dataclass(frozen=True)
class Case:
    """A model and the shape of its batch, with the letters of ``albert_ablate/model/shape.py``."""

    name: str
    h: int
    layers: int
    e: int
    v: int
    b: int
    t: int
    share: str = "all"
    dropout: float = 0.0
    device: str = "cpu"

    @property
    def heads(self) -> int:
        """Number of heads, each 64 wide as in the paper."""
        return self.h // 64

    @property
    def tokens(self) -> int:
        """Tokens of one step, padding included."""
        return self.b * self.t

    def config(self, *more: str) -> RunConfig:
        """The configuration of a run that trains this model; ``more`` are further settings."""
        return compose([
            f"embed.size={self.e}", f"share={self.share}", "objective=sop", "optimizer=adamw",
            f"model.hidden={self.h}", f"model.layers={self.layers}", f"model.heads={self.heads}",
            f"model.intermediate={4 * self.h}", "model.max_positions=512", f"model.hidden_dropout={self.dropout}",
            f"model.attention_dropout={self.dropout}", f"tokenizer.vocab_size={self.v}", f"pairs.max_length={self.t}",
            f"batch.size={self.b}", f"batch.micro_size={self.b}", "optimizer.bias_correction=true",
            f"runtime.device={self.device}", *more,
        ])  # fmt: skip

    def flops_per_token(self) -> float:
        """FLOPs of forward and backward: matrix products only, the masked-LM head at 15% of positions."""
        return 3 * self.config().architecture().forward_flops(self.t, 0.15 * self.t) / self.t

    def operations_a_second(self, seconds: float) -> float:
        """Operations a second of a step that takes ``seconds``."""
        return self.tokens / seconds * self.flops_per_token()


def made_up_store(v: int, documents: int = 400) -> TokenStore:
    """Random documents of sentences of 5 to 40 tokens."""
    draw = np.random.default_rng(0)
    sizes = draw.integers(20, 80, documents)
    lengths = draw.integers(5, 40, sizes.sum())
    return TokenStore(
        tokens=draw.integers(5, v, lengths.sum()).astype(np.uint16),
        sentences=np.concatenate([[0], np.cumsum(lengths)]),
        documents=np.concatenate([[0], np.cumsum(sizes)]),
        fingerprint="made up",
    )


def word_starts(v: int) -> np.ndarray:
    """(v,) bool: two in three pieces open a word."""
    return np.arange(v) % 3 > 0


def batches_of(case: Case, config: RunConfig | None = None) -> StepBatches:
    """Training batches of made-up text."""
    return method_of(config or case.config()).batches(made_up_store(case.v), word_starts(case.v))


def tokenizer_of(v: int) -> Any:
    """Transformers' tokenizer with ``v`` pieces."""
    from transformers import AlbertTokenizer

    pieces = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]", *(f"p{i}" for i in range(5, v))]
    return AlbertTokenizer(vocab=[(piece, -float(i)) for i, piece in enumerate(pieces)])


def examples_of(case: Case) -> list[dict[str, Any]]:
    """The pairs of some of our batches, without masks, in the form of transformers' collator."""
    batches = batches_of(case)
    examples = []
    for number in range(max(1, 256 // case.b)):
        batch = batches[number]
        ids = batch.input_ids.long()
        ids.view(-1)[batch.positions] = batch.targets
        for row in range(case.b):
            length = int(batch.mask[row].sum())
            kept = ids[row, :length].tolist()
            examples.append({
                "input_ids": kept, "token_type_ids": batch.type_ids[row, :length].tolist(),
                "attention_mask": [1] * length, "special_tokens_mask": [int(i < 5) for i in kept],
                "label": int(batch.labels[row]),
            })  # fmt: skip
    return examples
