"""The replaced-token probe: how much the frozen encoder knows of which tokens fit into their context.

Text with replaced tokens (``corruption``) goes through the encoder, and a linear head on the last hidden state of each
token says whether it was replaced. The head is fitted on training-side pairs and scored on held-out ones. The model of
every method has an encoder, so every arm has this measure; the text is the same for all of them.

Two baselines stand beside it. The base rate is the best constant answer. The token-only model knows the shown piece but
no context: for each piece, the log-odds of being replaced in the training-side text.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from albert_ablate.evaluation import fitted
from albert_ablate.evaluation.baselines import NgramTables
from albert_ablate.evaluation.corruption import BY_BIGRAM, BY_UNIGRAM, ORIGINAL, Corrupted, Draws, corrupted
from albert_ablate.evaluation.heldout import HeldOut, PairSet
from albert_ablate.evaluation.intervals import SHARE, clustered_auc, clustered_mean
from albert_ablate.evaluation.passes import filled, joined, moved, read, shared
from albert_ablate.model.encoder import Encoder
from albert_ablate.record.results import ReplacedTokens
from albert_ablate.training.machine import Machine

#: About so many tokens the head is fitted on, spread evenly over the training-side pairs. Their states take 400 MB for
#: H = 3,072.
_FITTED_ON = 32_768


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
    encoder.eval()
    head = _fit(encoder, training, draws, machine)
    if head is None:
        return "no token of the training pairs was replaced"
    scored = _score(encoder, held_out.plain, draws, head, machine)
    if not np.isin((BY_UNIGRAM, BY_BIGRAM, ORIGINAL), scored.kinds).all():
        return "no token of the held-out pairs was replaced"
    return _record(scored)


@torch.inference_mode()
def _fit(encoder: Encoder, training: PairSet, draws: Draws, machine: Machine) -> _Head | None:
    """The head, fitted on a part of the tokens, and the token-only model of all; None if these have a single label."""
    if not len(training):
        return None
    most = max(1, _FITTED_ON // len(training))
    parts: list[tuple[np.ndarray, ...]] = []
    for (text, chosen), (states,) in read(_chosen_states(encoder, training, draws, machine, most)):
        parts.append((states, text.kinds[chosen], text.pieces, text.kinds))
    states, sampled, pieces, kinds = (joined(list(column), machine.world) for column in _columns(parts, 4))
    if len(np.unique(sampled != ORIGINAL)) < 2:
        return None
    weights, intercept = fitted.head(states, (sampled != ORIGINAL).astype(np.int64), machine.device)
    return _Head(weights, intercept, token_odds(pieces, kinds != ORIGINAL, len(training.word_starts)))


def _columns(parts: Sequence[tuple[np.ndarray, ...]], count: int) -> list[tuple[np.ndarray, ...]]:
    """Rows of arrays by column; a process that had no batch has ``count`` empty columns."""
    return list(zip(*parts, strict=True)) if parts else [()] * count


def token_odds(pieces: np.ndarray, replaced: np.ndarray, vocab_size: int) -> np.ndarray:
    """(V,) log-odds of being replaced by the shown piece, from the tokens ``pieces`` (M,) and ``replaced`` (M,) bool.

    One token at the base rate is added to each piece, so that a piece that never occurs has the base rate.
    """
    times, rate = np.bincount(pieces, minlength=vocab_size), replaced.mean()
    share = (np.bincount(pieces[replaced], minlength=vocab_size) + rate) / (times + 1)
    return np.asarray(np.log(share) - np.log1p(-share))


def _chosen_states(
    encoder: Encoder, training: PairSet, draws: Draws, machine: Machine, most: int
) -> Iterator[tuple[tuple[Corrupted, np.ndarray], Sequence[Tensor]]]:
    """Each batch with its chosen tokens, at most ``most`` of each sequence, and their last hidden states (R, H)."""
    size = training.config.batch.micro_size
    positions = size * min(most, training.config.pairs.max_length)
    for part in shared(training.parts(), machine.world):
        text = corrupted(training, part, draws, "training")
        chosen = text.sample(most)
        batch = text.batch(chosen)
        b = moved(batch, machine.device, partial(filled, sequences=size, positions=positions))
        with machine.autocast():
            states = encoder(b.input_ids, b.type_ids, b.mask, rows=b.positions)
        yield (text, chosen), [states.float()[: len(batch.positions)]]


@torch.inference_mode()
def _score(encoder: Encoder, pairs: PairSet, draws: Draws, head: _Head, machine: Machine) -> _Scored:
    """Every held-out token of text."""
    parts: list[tuple[np.ndarray, ...]] = []
    for (start, text), (odds,) in read(_odds(encoder, pairs, draws, head, machine)):
        found = odds.reshape(-1)[text.text].astype(np.float64)
        parts.append((found, head.by_piece[text.pieces], text.kinds, start + text.rows))
    return _Scored(*(joined(list(column), machine.world) for column in _columns(parts, 4)))


def _odds(
    encoder: Encoder, pairs: PairSet, draws: Draws, head: _Head, machine: Machine
) -> Iterator[tuple[tuple[int, Corrupted], Sequence[Tensor]]]:
    """Each batch with the number of its first pair, and the log-odds (B, T) of the head at every position."""
    size = pairs.config.batch.micro_size
    weights = torch.from_numpy(head.weights).float().to(machine.device)
    for number, part in shared(enumerate(pairs.parts()), machine.world):
        text = corrupted(pairs, part, draws, "held-out")
        batch = text.batch()
        b = moved(batch, machine.device, partial(filled, sequences=size, positions=0))
        with machine.autocast():
            states = encoder(b.input_ids, b.type_ids, b.mask)
        yield (number * size, text), [(states.float() @ weights + head.intercept)[: len(batch)]]


def _record(scored: _Scored) -> ReplacedTokens:
    label, sequence = (scored.kinds != ORIGINAL).astype(np.int64), scored.sequence
    auc, interval = clustered_auc(scored.odds, label, sequence)
    token_auc, _ = clustered_auc(scored.token_odds, label, sequence)
    by_kind = {}
    for kind in (BY_UNIGRAM, BY_BIGRAM):
        of_kind = (scored.kinds == kind) | (scored.kinds == ORIGINAL)
        by_kind[kind], _ = clustered_auc(scored.odds[of_kind], label[of_kind], sequence[of_kind])
    count = np.bincount(sequence)
    answer = (scored.odds > 0) == (label == 1)
    loss, loss_interval = clustered_mean(np.bincount(sequence, weights=_nats(scored.odds, label)), count)
    accuracy, accuracy_interval = clustered_mean(np.bincount(sequence, weights=answer), count, SHARE)
    rate = float(label.mean())
    return ReplacedTokens(
        auc=auc,
        interval=interval,
        unigram_auc=by_kind[BY_UNIGRAM],
        bigram_auc=by_kind[BY_BIGRAM],
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


def _nats(odds: np.ndarray, label: np.ndarray) -> np.ndarray:
    """(M,) cross-entropy of log-odds."""
    return np.asarray(np.logaddexp(0, odds) - label * odds)
