"""The same pretraining step twice: ours, and transformers' with its collator and AdamW."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from albert_ablate.config.schema import RunConfig
from albert_ablate.data.batches import Batch
from albert_ablate.methods import method_of
from albert_ablate.record.folder import RunFolder
from albert_ablate.training.attention_choice import ForwardPass, choose_attention
from albert_ablate.training.checkpoint import Owner
from albert_ablate.training.machine import Machine
from albert_ablate.training.precision import autocast, choose_precision, set_up
from albert_ablate.training.trackers import Trackers
from albert_ablate.training.trainer import Trainer
from benchmarks.cases import Case, batches_of, examples_of, tokenizer_of


@dataclass(frozen=True)
class Side:
    """One side of a comparison: its batches and its optimizer step."""

    batches: Any  # batches[step] is a batch on the CPU
    update: Callable[[int, Any], Any]  # (step, batch): moves the batch to the device and trains on it
    resident: Callable[[Any], Any]  # puts a batch on the device, so that ``update`` does not move it again


@dataclass(frozen=True)
class Resident(Batch):
    """One of our batches that only the first step moves to the device."""

    kept: dict[str, torch.Tensor] = field(default_factory=dict)  # on the device

    def micro(self, size: int) -> Iterator[Batch]:
        """Itself: the batch is one micro-batch."""
        return iter([self])

    def pin_memory(self) -> Batch:
        """Itself: it will not be moved again."""
        return self

    def to(self, device: torch.device) -> Batch:
        """The batch on ``device``; copied at the first call only."""
        if not self.kept:
            self.kept.update({name: tensor.to(device) for name, tensor in super().tensors().items()})
        return Batch(**self.kept)

    def tensors(self) -> dict[str, torch.Tensor]:
        """The tensors on the device."""
        return self.kept


def our_trainer(case: Case, *more: str, config: RunConfig | None = None, folder: Path | None = None) -> Trainer:
    """The trainer of a case, or of ``config``, on made-up text. Raises UserError."""
    config = config or case.config(*more)
    set_up(config.runtime)
    run = RunFolder(folder or Path(tempfile.mkdtemp()), "benchmark")
    model = method_of(config).rehearsal()
    machine = Machine.of(config.runtime)
    choose_attention(config, ForwardPass.of_pretraining(config), machine)
    return Trainer(
        config, Owner("benchmark"), model, batches_of(case, config), run, machine, held_out=dict, tracker=Trackers()
    )


def ours(case: Case, *more: str) -> Callable[[], Any]:
    """One optimizer step: batch, forward, backward, clip, update."""
    return in_line(our_side(case, *more))


def our_side(case: Case, *more: str) -> Side:
    """Our side."""
    return side_of(our_trainer(case, *more))


def side_of(trainer: Trainer) -> Side:
    """The side of a trainer."""
    return Side(trainer.batches, trainer.update, lambda batch: Resident(**vars(batch)))


def in_line(side: Side) -> Callable[[], Any]:
    """The whole step in one process: the batch is made when the step needs it."""
    steps = count()

    def step() -> None:
        number = next(steps)
        side.update(number, side.batches[number])

    return step


def prefetched(side: Side, workers: int, device: str) -> Callable[[], Any]:
    """The whole step with batches made ahead by ``workers`` processes; with 0 workers, as on a CPU, in line."""
    if workers == 0:
        return in_line(side)
    loader = DataLoader(
        side.batches, batch_size=None, sampler=range(10**9), num_workers=workers, prefetch_factor=4,
        pin_memory=device == "cuda",
    )  # fmt: skip
    stream = enumerate(loader)
    return lambda: side.update(*next(stream))


def device_alone(side: Side) -> Callable[[], Any]:
    """A step on one batch that is already on the device: no batch is made or moved."""
    batch = side.resident(side.batches[0])
    steps = count()
    return lambda: side.update(next(steps), batch)


def transformers_step(case: Case, compiled: bool = False) -> Callable[[], Any]:
    """The same step as transformers usually does it: a loop like Trainer's, bf16 autocast, labels at every position."""
    return in_line(transformers_side(case, compiled))


class Collated(Dataset[Any]):
    """Transformers' batches: its collator on examples, with the label of the sentence task."""

    def __init__(self, case: Case, label: str) -> None:
        from transformers import DataCollatorForLanguageModeling

        self._case = case
        self._label = label
        self._examples = examples_of(case)
        self._collator = DataCollatorForLanguageModeling(tokenizer_of(case.v), mlm_probability=0.15)

    def __getitem__(self, step: int) -> dict[str, Any]:
        start, size = step * self._case.b, len(self._examples)
        chosen = [self._examples[(start + i) % size] for i in range(self._case.b)]
        batch = dict(self._collator([{k: v for k, v in e.items() if k != "label"} for e in chosen]))
        batch[self._label] = torch.tensor([e["label"] for e in chosen])
        return batch


def transformers_side(case: Case, compiled: bool = False) -> Side:
    """PEER: AlbertForPreTraining or BertForPreTraining with its collator and fused AdamW."""
    from transformers import (
        AlbertConfig,
        AlbertForPreTraining,
        BertConfig,
        BertForPreTraining,
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
    precision = choose_precision(case.config().runtime, device)

    def moved(batch: dict[str, Any]) -> dict[str, Any]:
        return {k: v.to(device, non_blocking=True) for k, v in batch.items()}

    def update(_step: int, batch: dict[str, Any]) -> None:
        usual_update(model, moved(batch), optimizer, schedule, precision)

    return Side(Collated(case, label), update, moved)


def usual_update(model: Any, batch: Any, optimizer: Any, schedule: Any, precision: str) -> None:
    """PEER: one step as in transformers' examples and Trainer."""
    with autocast(precision, model.device):
        loss = model(**batch).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    schedule.step()
    optimizer.zero_grad()
