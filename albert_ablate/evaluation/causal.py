"""Causal LM on held-out documents: nats a piece, bits per byte, and what context is worth.

The documents form one stream in their fixed order and are cut into blocks as in training (``data.blocks``). The tokens
after the last whole block are scored too, in a shorter one, so that every token but the first separator is a target
once. A block begins without context: blocks do not overlap.

Bits per byte = nats of all targets / (ln 2 x bytes of the documents). Among the targets are the first piece of each
document, which follows a separator, and the separators, which say where documents end. A separator belongs to the
document that it ends.

The context gain compares pieces that see much of their document with pieces that see little (Olsson et al., 2022, who
subtract the loss of the 50th token from that of the 500th). Documents are cut into windows of T tokens, which are read
one by one. Early pieces have T/16 to T/8 tokens of the window before them, late ones the last eighth of T. The first
window of a document is left out: documents begin with formulas, so that its early pieces are easy for another reason.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import log
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from albert_ablate.config.schema import RunConfig
from albert_ablate.data.batches import NO_TARGET
from albert_ablate.data.blocks import NextBatch, Stream
from albert_ablate.data.prepare import Prepared
from albert_ablate.data.store import TokenStore
from albert_ablate.data.tokenizer import SEP
from albert_ablate.data.written import document_bytes
from albert_ablate.evaluation.baselines import PLATEAU_MARGIN, NgramBaselines
from albert_ablate.evaluation.intervals import SHARE, clustered_mean, proportion
from albert_ablate.evaluation.passes import joined, read, shared
from albert_ablate.methods import Measure, method_of
from albert_ablate.record.results import CausalLM, ContextGain
from albert_ablate.training.machine import Machine

#: Logits computed at a time: 64 MiB in fp32.
_LOGITS = 2**24
#: The shortest windows whose early and late pieces are compared.
_LEAST = 16


@dataclass(frozen=True)
class _Scored:
    """Sequences of T positions, R in all. ``NO_TARGET`` marks positions without a target."""

    loss: np.ndarray  # (R, T) float64 nats
    hits: np.ndarray  # (R, T) bool
    inputs: np.ndarray  # (R, T)
    targets: np.ndarray  # (R, T)


class HeldOutStream:
    """Scores a model that predicts the next piece on the held-out documents of a corpus."""

    def __init__(
        self, model: Any, config: RunConfig, prepared: Prepared, baselines: NgramBaselines | None, machine: Machine
    ) -> None:
        """``baselines``: n-gram models of the training text, or None for a text without other documents."""
        self.model, self.config, self.machine, self.baselines = model, config, machine, baselines
        self._prepared = prepared
        self._length, self._size = config.pairs.max_length, config.batch.micro_size
        self._stream = _limited(prepared.valid, self._length, config.evaluation.max_pairs)
        self._separators = separator_share([prepared.train, prepared.valid][: 1 if len(prepared.train.tokens) else 2])

    def curve_point(self, sequences: int) -> dict[str, float]:
        """Loss and accuracy on the first ``sequences`` blocks."""
        scored = self._scored(self._begins()[:sequences])
        real = scored.targets != NO_TARGET
        return {
            "causal_loss": float(scored.loss[real].mean()), "causal_accuracy": float(scored.hits[real].mean())
        }  # fmt: skip

    def results(self) -> dict[str, Any]:
        """The field ``causal_lm`` of the record."""
        scored = self._scored(self._begins())
        record = self._record(scored)
        record.context = self._context()
        return {"causal_lm": record.as_json()}

    def unigram_loss(self, baselines: NgramBaselines, separators: float) -> float:
        """Nats of a target by the piece frequencies of a text, whose stream has the share ``separators`` of those."""
        targets = self._stream.at(np.arange(1, self._stream.size))
        text = targets != SEP
        losses = np.full(len(targets), -log(separators))
        losses[text] = baselines.unigram_loss(targets[text]) - log(1 - separators)
        return float(losses.mean())

    def _begins(self) -> np.ndarray:
        """The place of the first input of each sequence, the shorter last one included."""
        return np.arange(0, self._stream.size - 1, self._length)

    def _record(self, scored: _Scored) -> CausalLM:
        real = (scored.targets != NO_TARGET).flatten()
        loss, hits, inputs, targets = (
            part.flatten()[real] for part in (scored.loss, scored.hits, scored.inputs, scored.targets)
        )
        places = np.arange(1, len(targets) + 1)
        document = self._stream.document_at(places) - (targets == SEP)  # a separator ends the one before it
        count = len(self._stream.order)

        def summed(values: np.ndarray) -> np.ndarray:
            return np.bincount(document, weights=values, minlength=count)

        pieces = summed(np.ones(len(targets)))
        mean, interval = clustered_mean(summed(loss), pieces)
        accuracy, accuracy_interval = clustered_mean(summed(hits), pieces, SHARE)
        text = None if self._prepared.text is None else self._prepared.text / "valid.txt"
        sizes, bytes_of = document_bytes(text, self._prepared.valid, self._prepared.tokenizer)
        bits, bits_interval = clustered_mean(summed(loss) / log(2), sizes[:count])
        record = CausalLM(
            loss=mean,
            loss_interval=interval,
            bits_per_byte=bits,
            bits_per_byte_interval=bits_interval,
            bytes=int(sizes[:count].sum()),
            bytes_of=bytes_of,
            accuracy=accuracy,
            interval=accuracy_interval,
            binomial_interval=proportion(int(hits.sum()), len(hits))["interval"],
            examples=len(targets),
            documents=count,
            of_documents=self._prepared.valid.document_count,
            length=self._length,
        )
        if self.baselines is None:
            return record
        bars = self._bars(inputs, targets, document)
        gain, gain_interval = clustered_mean(summed(bars["unigram"] - loss), pieces)
        record.unigram_loss = float(bars["unigram"].mean())
        record.bigram_loss = float(bars["bigram"].mean())
        record.unigram_accuracy = float(bars["frequent"].mean())
        record.gain_over_unigram, record.gain_interval = gain, gain_interval
        record.left_baseline = bool(gain_interval[0] > PLATEAU_MARGIN)
        return record

    def _bars(self, inputs: np.ndarray, targets: np.ndarray, document: np.ndarray) -> dict[str, np.ndarray]:
        """Scores of the n-gram models (M,). They know how frequent separators are, but not where they stand."""
        assert self.baselines is not None
        share, text = self._separators, targets != SEP
        found = {name: np.full(len(targets), -log(share)) for name in ("unigram", "bigram")}
        scores = self.baselines.scores(inputs[text], targets[text], document[text])
        for name, losses in found.items():
            losses[text] = scores[name] - log(1 - share)
        guess_separator = share > (1 - share) * self.baselines.probabilities.max()
        frequent = np.full(len(targets), guess_separator)
        frequent[text] = False if guess_separator else scores["frequent"]
        return found | {"frequent": frequent}

    def _context(self) -> ContextGain | None:
        """The gain of context; None if no document or no sequence is long enough."""
        if self._length < _LEAST:
            return None
        starts, lengths = self._stream.starts[:-1], np.diff(self._stream.starts) - 1
        count = np.maximum(lengths // self._length - 1, 0)  # whole windows after the first of each document
        document = np.repeat(np.arange(len(starts)), count)
        order = np.arange(len(document)) - np.repeat(np.cumsum(count) - count, count)
        begins = (starts[document] + self._length * (order + 1))[: self.config.evaluation.max_pairs]
        if not len(begins):
            return None
        loss = self._scored(begins).loss  # (windows, T)
        early, late = context_windows(self._length)
        differences = loss[:, late].mean(1) - loss[:, early].mean(1)
        places = np.unique(document[: len(begins)], return_inverse=True)[1]
        gain, interval = clustered_mean(np.bincount(places, weights=differences), np.bincount(places))
        return ContextGain(
            gain=gain,
            interval=interval,
            early=[early.start, early.stop - 1],
            late=[late.start, late.stop - 1],
            early_loss=float(loss[:, early].mean()),
            late_loss=float(loss[:, late].mean()),
            documents=int(places[-1]) + 1,
            windows=len(begins),
        )

    @torch.inference_mode()
    def _scored(self, begins: np.ndarray) -> _Scored:
        """Every position of the sequences that begin at the places ``begins``."""
        losses, hits, inputs, targets = [], [], [], []
        for batch, (loss, hit) in read(self._passes(begins)):
            losses.append(loss)
            hits.append(hit)
            inputs.append(batch.input_ids.numpy())
            targets.append(batch.targets.numpy())
        return _Scored(*(joined(parts, self.machine.world) for parts in (losses, hits, inputs, targets)))

    def _passes(self, begins: np.ndarray) -> Iterator[tuple[NextBatch, Sequence[Tensor]]]:
        """Each batch; the fp64 loss of each position (B, T), 0 without a target, and whether it was a hit (B, T)."""
        self.model.eval()
        parts = (begins[first : first + self._size] for first in range(0, len(begins), self._size))
        for part in shared(parts, self.machine.world):
            batch = self._stream.read(part)
            b = batch.to(self.machine.device)
            with self.machine.autocast():
                states = self.model.encoder(b.input_ids, b.type_ids).flatten(0, 1)  # (B * T, H)
                loss, hit = self._judged(states, b.targets.flatten())
            yield batch, [loss.view(batch.targets.shape), hit.view(batch.targets.shape)]

    def _judged(self, states: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """(M, H) states and (M,) targets -> fp64 losses and hits (M,), with few logits at a time."""
        rows = max(1, _LOGITS // self.config.tokenizer.vocab_size)
        found = []
        for first in range(0, len(targets), rows):
            some, wanted = states[first : first + rows], targets[first : first + rows]
            logits = self.model.token_logits(some).float()
            loss = F.cross_entropy(logits, wanted, reduction="none", ignore_index=NO_TARGET).double()
            found.append((loss, logits.argmax(-1) == wanted))
        losses, hits = zip(*found, strict=True)
        return torch.cat(losses), torch.cat(hits)


def held_out_stream(
    model: Any, config: RunConfig, prepared: Prepared, baselines: NgramBaselines | None, machine: Machine
) -> HeldOutStream | None:
    """The scorer of a model that predicts the next piece; None for any other model."""
    if Measure.CAUSAL_LM not in method_of(config).measures:
        return None
    return HeldOutStream(model, config, prepared, baselines, machine)


def context_windows(length: int) -> tuple[slice, slice]:
    """Columns of early and of late pieces in sequences of ``length`` tokens."""
    return slice(length // 16, length // 8), slice(length - length // 8, length)


def _limited(store: TokenStore, length: int, sequences: int) -> Stream:
    """The first documents of ``store``, as many whole ones as fit into so many sequences, but at least one."""
    whole = Stream(store, np.arange(store.document_count), length)
    fitting = int(np.searchsorted(whole.starts, sequences * length + 1, side="right")) - 1
    return Stream(store, np.arange(max(fitting, 1)), length)


def separator_share(stores: Sequence[TokenStore]) -> float:
    """The share of separators in the stream of the documents of ``stores``."""
    documents, tokens = sum(s.document_count for s in stores), sum(len(s.tokens) for s in stores)
    return documents / (documents + tokens)
