"""The same pretraining step twice: ours, and transformers' with its own collator and AdamW."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from albert_ablate.config import RunConfig
from albert_ablate.data.batches import PairBatches
from albert_ablate.data.store import TokenStore
from albert_ablate.hydra_compose import compose
from albert_ablate.model.pretraining import build_model
from albert_ablate.runs import RunFolder
from albert_ablate.trackers import Trackers
from albert_ablate.training.checkpoint import Owner
from albert_ablate.training.machine import Machine
from albert_ablate.training.precision import autocast, choose_precision, set_up
from albert_ablate.training.trainer import Trainer


@dataclass(frozen=True)
class Case:
    """A model and a batch. Letters as in the model's files."""

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
        """64 wide each, as in the paper."""
        return self.h // 64

    @property
    def tokens(self) -> int:
        """Of one step."""
        return self.b * self.t

    def config(self, *more: str) -> RunConfig:
        """The run that trains it."""
        return compose([
            f"embed.size={self.e}", f"share={self.share}", "objective=sop", "optimizer=adamw",
            f"model.hidden={self.h}", f"model.layers={self.layers}", f"model.heads={self.heads}",
            f"model.intermediate={4 * self.h}", "model.max_positions=512", f"model.hidden_dropout={self.dropout}",
            f"model.attention_dropout={self.dropout}", f"tokenizer.vocab_size={self.v}", f"pairs.max_length={self.t}",
            f"batch.size={self.b}", f"batch.micro_size={self.b}", "optimizer.bias_correction=true",
            f"runtime.device={self.device}", *more,
        ])  # fmt: skip

    def flops_per_token(self) -> float:
        """Of forward and backward, matrix products only, 15% of positions sent to the vocabulary."""
        return 3 * self.config().architecture().forward_flops(self.t, 0.15 * self.t) / self.t

    def operations_a_second(self, seconds: float) -> float:
        """Of a step that takes so long."""
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
    """Two of three pieces open a word."""
    return np.arange(v) % 3 > 0


def batches_of(case: Case, config: RunConfig | None = None) -> PairBatches:
    """Training batches of made-up text."""
    config = config or case.config()
    return PairBatches(
        made_up_store(case.v), word_starts(case.v), config.objective.name, config.pairs, config.masking, case.b, 0
    )


def ours(case: Case, *more: str) -> Callable[[], Any]:
    """One optimizer step: batch, forward, backward, clip, update."""
    config = case.config(*more)
    set_up(config.runtime)
    folder = RunFolder(Path(tempfile.mkdtemp()), "benchmark")
    model = build_model(config.architecture(), 0)
    batches = batches_of(case, config)
    machine = Machine.of(config.runtime)
    trainer = Trainer(config, Owner("benchmark"), model, batches, folder, machine, dict, Trackers())
    done = iter(range(10**9))

    def step() -> None:
        number = next(done)
        trainer.update(number, batches[number])
        trainer.settle()

    return step


def transformers_step(case: Case, compiled: bool = False) -> Callable[[], Any]:
    """The same step in transformers' usual way: Trainer-style loop, bf16 autocast, labels at every position."""
    from transformers import (
        AlbertConfig,
        AlbertForPreTraining,
        BertConfig,
        BertForPreTraining,
        DataCollatorForLanguageModeling,
        get_linear_schedule_with_warmup,
    )

    settings: dict[str, Any] = {
        "vocab_size": case.v, "hidden_size": case.h, "num_hidden_layers": case.layers,
        "num_attention_heads": case.heads, "intermediate_size": 4 * case.h, "hidden_act": "gelu_new",
        "hidden_dropout_prob": case.dropout, "attention_probs_dropout_prob": case.dropout,
    }  # fmt: skip
    model: Any
    if case.share == "all":
        model, label = AlbertForPreTraining(AlbertConfig(embedding_size=case.e, **settings)), "sentence_order_label"
    else:
        model, label = BertForPreTraining(BertConfig(**settings)), "next_sentence_label"
    model.to(case.device).train()
    if compiled:
        model = torch.compile(model)
    device = torch.device(case.device)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-4, weight_decay=0.01, fused=True if device.type == "cuda" else None
    )
    schedule = get_linear_schedule_with_warmup(optimizer, 100, 10_000)
    collator = DataCollatorForLanguageModeling(tokenizer_of(case.v), mlm_probability=0.15)
    examples = examples_of(case)
    place = iter(range(10**9))
    precision = choose_precision(case.config().runtime, device)

    def step() -> None:
        at = next(place) * case.b
        chosen = [examples[(at + i) % len(examples)] for i in range(case.b)]
        batch = collator([{k: v for k, v in e.items() if k != "label"} for e in chosen])
        batch = {k: v.to(device, non_blocking=True) for k, v in batch.items()}
        batch[label] = torch.tensor([e["label"] for e in chosen], device=device)
        usual_update(model, batch, optimizer, schedule, precision)

    return step


def usual_update(model: Any, batch: Any, optimizer: Any, schedule: Any, precision: str) -> None:
    """PEER: one step as transformers' examples and Trainer have it."""
    with autocast(precision, model.device):
        loss = model(**batch).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    schedule.step()
    optimizer.zero_grad()


def tokenizer_of(v: int) -> Any:
    """Transformers' tokenizer with as many pieces."""
    from transformers import AlbertTokenizer

    pieces = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]", *(f"p{i}" for i in range(5, v))]
    return AlbertTokenizer(vocab=[(piece, -float(i)) for i, piece in enumerate(pieces)])


def examples_of(case: Case) -> list[dict[str, Any]]:
    """The pairs of some of our batches, unmasked, as transformers' collator wants them."""
    batches = batches_of(case)
    found = []
    for number in range(max(1, 256 // case.b)):
        batch = batches[number]
        ids = batch.input_ids.long()
        ids.view(-1)[batch.positions] = batch.targets
        for row in range(case.b):
            length = int(batch.mask[row].sum())
            kept = ids[row, :length].tolist()
            found.append({
                "input_ids": kept, "token_type_ids": batch.type_ids[row, :length].tolist(),
                "attention_mask": [1] * length, "special_tokens_mask": [int(i < 5) for i in kept],
                "label": int(batch.labels[row]),
            })  # fmt: skip
    return found
