"""The replaced-token probe: how much the frozen encoder knows of which tokens fit into their context.

Text with replaced tokens (``corruption``) goes through the encoder, and a linear head on the last hidden state of each
token says whether it was replaced. The head is fitted on training-side pairs and scored on held-out ones. The model of
every method has an encoder, so every arm has this measure; the text is the same for all of them.

Two baselines stand beside it. The base rate is the best constant answer. The token-only model knows the shown piece but
no context: for each piece, the log-odds of being replaced in the training-side text.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from albert_ablate.data.batches import Batch
from albert_ablate.evaluation import fitted
from albert_ablate.evaluation.baselines import NgramTables
from albert_ablate.evaluation.corruption import BY_BIGRAM, BY_UNIGRAM, ORIGINAL, Corrupted, Draws, corrupted
from albert_ablate.evaluation.heldout import HeldOut, PairSet
from albert_ablate.evaluation.intervals import SHARE, clustered_auc, clustered_mean
from albert_ablate.evaluation.passes import columns, filled, joined, moved, read, shared
from albert_ablate.model.encoder import Encoder
from albert_ablate.record.results import ReplacedTokens
from albert_ablate.training.distributed import World
from albert_ablate.training.machine import Machine

#: The head is fitted on at most about so many tokens, and their states have at most so many numbers (256 MiB).
_FITTED_ON, _NUMBERS = 2**17, 2**26


@dataclass(frozen=True)
class _Head:
    """The fitted head and the token-only model, as log-odds of being replaced."""

    weights: np.ndarray  # (H,)
    intercept: float
    by_piece: np.ndarray  # (V,)


@dataclass(frozen=True)
class _Scored:
    """Held-out tokens of text, M in all."""

    odds: np.ndarray  # (M,) log-odds of the head
    token_odds: np.ndarray  # (M,) of the token-only model
    kinds: np.ndarray  # (M,) as in ``Corrupted``
    sequence: np.ndarray  # (M,) the pair that each token is in, from 0


def replaced_tokens(encoder: Encoder, held_out: HeldOut, machine: Machine) -> ReplacedTokens | str:
    """The scores of the probe, or why the text does not allow it. Leaves the encoder in evaluation mode."""
    training = held_out.plain_training
    if training is None:
        return "no training documents to fit a head on"
    cache = Path(training.config.paths.cache)
    draws = Draws(NgramTables.kept(training.store, len(training.word_starts), cache))
    if not len(training):
        return "no training document has two sentences"
    encoder.eval()
    head = _fit(encoder, training, draws, machine)
    if head is None:
        return "no token of the training pairs was replaced"
    scored = _score(encoder, held_out.plain, draws, head, machine)
    if len(np.unique(scored.kinds != ORIGINAL)) < 2:
        return "no token of the held-out pairs was replaced"
    return _record(scored)


def _fit(encoder: Encoder, training: PairSet, draws: Draws, machine: Machine) -> _Head | None:
    """The head, fitted on the first pairs, and the token-only model of all pairs; None if there is a single label."""
    states, labels = _states(encoder, training, draws, machine)
    if len(np.unique(labels)) < 2:
        return None
    weights, intercept = fitted.head(states, labels, machine.device)
    return _Head(weights, intercept, _token_odds(training, draws, machine.world))


@torch.inference_mode()
def _states(encoder: Encoder, training: PairSet, draws: Draws, machine: Machine) -> tuple[np.ndarray, np.ndarray]:
    """Last hidden states (n, H) and labels (n,) of the tokens of the first pairs, n at most about ``_FITTED_ON``."""
    tokens = min(_FITTED_ON, _NUMBERS // encoder.shape.hidden_size)
    pairs = max(1, tokens // training.config.pairs.max_length)
    states, labels = [], []
    for text, (part,) in read(_last_states(encoder, training, draws, machine, pairs)):
        states.append(part)
        labels.append((text.kinds != ORIGINAL).astype(np.int64))
    return joined(states, machine.world), joined(labels, machine.world)


def _last_states(
    encoder: Encoder, training: PairSet, draws: Draws, machine: Machine, limit: int
) -> Iterator[tuple[Corrupted, Sequence[Tensor]]]:
    """Each batch of the first ``limit`` pairs, and the last hidden states (M, H) of its tokens of text."""
    for part in shared(training.parts(limit), machine.world):
        text = corrupted(training, part, draws, "training")
        states, b = _forward(encoder, training, text, machine)
        yield text, [states.flatten(0, 1).index_select(0, b.positions)[: len(text.text)]]


def _forward(encoder: Encoder, pairs: PairSet, text: Corrupted, machine: Machine) -> tuple[Tensor, Batch]:
    """Last hidden states (B, T, H) fp32, and the batch on the device, there filled up to a single shape."""
    size = pairs.config.batch.micro_size
    b = moved(text.batch(), machine.device, partial(filled, sequences=size, positions=size * text.ids.shape[1]))
    with machine.autocast():
        states = encoder(b.input_ids, b.type_ids, b.mask)
    return states.float(), b


def _token_odds(training: PairSet, draws: Draws, world: World) -> np.ndarray:
    """``odds_by_piece`` of all tokens of text; no forward pass is needed for it."""
    size = len(training.word_starts)
    times, replaced = np.zeros((2, size))
    for part in shared(training.parts(), world):
        text = corrupted(training, part, draws, "training")
        times += np.bincount(text.pieces, minlength=size)
        replaced += np.bincount(text.pieces[text.kinds != ORIGINAL], minlength=size)
    return odds_by_piece(*joined([np.stack([times, replaced])[None]], world).sum(0))


def odds_by_piece(times: np.ndarray, replaced: np.ndarray) -> np.ndarray:
    """(V,) log-odds of being replaced, given how often each piece is shown and how often it is a replacement.

    One token at the base rate is added to each piece, so that a piece that never occurs has the base rate.
    """
    rate = replaced.sum() / times.sum()
    share = (replaced + rate) / (times + 1)
    return np.asarray(np.log(share) - np.log1p(-share))


@torch.inference_mode()
def _score(encoder: Encoder, pairs: PairSet, draws: Draws, head: _Head, machine: Machine) -> _Scored:
    """Every held-out token of text."""
    parts: list[tuple[np.ndarray, ...]] = []
    for (start, text), (odds,) in read(_odds(encoder, pairs, draws, head, machine)):
        found = odds.reshape(-1)[text.text].astype(np.float64)
        parts.append((found, head.by_piece[text.pieces], text.kinds, start + text.rows))
    return _Scored(*columns(parts, len(fields(_Scored)), machine.world))


def _odds(
    encoder: Encoder, pairs: PairSet, draws: Draws, head: _Head, machine: Machine
) -> Iterator[tuple[tuple[int, Corrupted], Sequence[Tensor]]]:
    """Each batch with the number of its first pair, and the log-odds (B, T) of the head at every position."""
    weights = torch.from_numpy(head.weights).float().to(machine.device)
    for number, part in shared(enumerate(pairs.parts()), machine.world):
        text = corrupted(pairs, part, draws, "held-out")
        states, _ = _forward(encoder, pairs, text, machine)
        yield (number * pairs.config.batch.micro_size, text), [(states @ weights + head.intercept)[: len(text.ids)]]


def _record(scored: _Scored) -> ReplacedTokens:
    label, sequence = (scored.kinds != ORIGINAL).astype(np.int64), scored.sequence
    auc, interval = clustered_auc(scored.odds, label, sequence)
    token_auc, _ = clustered_auc(scored.token_odds, label, sequence)
    count = np.bincount(sequence)
    answer = (scored.odds > 0) == (label == 1)
    loss, loss_interval = clustered_mean(np.bincount(sequence, weights=_nats(scored.odds, label)), count)
    accuracy, accuracy_interval = clustered_mean(np.bincount(sequence, weights=answer), count, SHARE)
    rate = float(label.mean())
    return ReplacedTokens(
        auc=auc,
        interval=interval,
        unigram_auc=_auc_of(BY_UNIGRAM, scored),
        bigram_auc=_auc_of(BY_BIGRAM, scored),
        loss=loss,
        loss_interval=loss_interval,
        accuracy=accuracy,
        accuracy_interval=accuracy_interval,
        recall=float(answer[label == 1].mean()),
        examples=len(label),
        sequences=len(np.unique(sequence)),
        replaced=rate,
        base_loss=float(-rate * np.log(rate) - (1 - rate) * np.log1p(-rate)),
        base_accuracy=max(rate, 1 - rate),
        token_auc=token_auc,
        token_loss=float(_nats(scored.token_odds, label).mean()),
        left_baseline=bool(interval[0] > token_auc),
    )


def _auc_of(kind: int, scored: _Scored) -> float | None:
    """The AUC of replaced tokens of one kind against the original ones; None if a short text has none of them."""
    rows = (scored.kinds == kind) | (scored.kinds == ORIGINAL)
    label = (scored.kinds[rows] == kind).astype(np.int64)
    return clustered_auc(scored.odds[rows], label, scored.sequence[rows])[0] if label.any() else None


def _nats(odds: np.ndarray, label: np.ndarray) -> np.ndarray:
    """(M,) cross-entropy of log-odds."""
    return np.asarray(np.logaddexp(0, odds) - label * odds)
