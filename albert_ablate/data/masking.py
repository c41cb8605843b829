"""Whole-word n-gram masking (paper, section 4.1; reference create_masked_lm_predictions).

Words are placed in a random order; each draws a length n in words with p(n) proportional to 1/n,
shrinks it while it exceeds what is left of the budget, and is skipped if any of it is covered.
All rows of a batch advance in lockstep, one candidate word each, with array operations.
"""

from dataclasses import dataclass

import numpy as np

from albert_ablate import streams
from albert_ablate.config import MaskingConfig
from albert_ablate.data.tokenizer import FIRST_PIECE, MASK


@dataclass(frozen=True)
class Masked:
    """Inputs with masks applied, and what was there. (B, T) and (M,)."""

    input_ids: np.ndarray  # (B, T)
    positions: np.ndarray  # (M,) int64 indices into the flattened grid, ascending
    targets: np.ndarray  # (M,) int64 original ids


def mask_batch(
    ids: np.ndarray,
    lengths: np.ndarray,
    segment_starts: np.ndarray,
    word_starts: np.ndarray,
    keys: np.ndarray,
    settings: MaskingConfig,
) -> Masked:
    """Mask a batch.

    ``ids`` (B, T) with special tokens and padding; ``lengths`` (B,) real tokens of each row,
    specials included; ``segment_starts`` (B, 2) column of each segment's first token;
    ``word_starts`` (V,) bool by piece; ``keys`` (B,) uint64, one stream a row.
    """
    rows, width = ids.shape
    budget = np.maximum(1, np.rint(lengths * settings.probability)).astype(np.int64)  # half to even
    if settings.max_predictions is not None:
        budget = np.minimum(budget, settings.max_predictions)
    words = _find_words(ids, segment_starts, word_starts)
    covered = _place_spans(words, budget, keys, settings.max_ngram)
    # Words -> tokens: a token is chosen when its word is covered.
    chosen = np.zeros((rows, width), dtype=bool)
    inside = words.of_token >= 0
    chosen[inside] = covered[np.nonzero(inside)[0], words.of_token[inside]]
    positions = np.flatnonzero(chosen)
    targets = ids.reshape(-1)[positions].astype(np.int64)
    return Masked(_replace(ids, positions, targets, keys, len(word_starts)), positions, targets)


@dataclass(frozen=True)
class _Words:
    """Words of each row, padded to the most words of any row, W."""

    of_token: np.ndarray  # (B, T) word index, -1 at special tokens and padding
    pieces: np.ndarray  # (B, W) pieces of each word, 0 where the row has no such word
    left_in_segment: np.ndarray  # (B, W) words from this one to its segment's end, itself included


def _find_words(ids: np.ndarray, segment_starts: np.ndarray, word_starts: np.ndarray) -> _Words:
    rows, width = ids.shape
    real = ids >= FIRST_PIECE
    real |= ids == 1  # <unk> is ordinary text
    row = np.arange(rows)[:, None]
    first = np.zeros((rows, width + 1), dtype=bool)  # one spare column for an empty second segment
    first[row, segment_starts] = True  # a segment's first piece opens a word, whatever it is
    starts = real & (first[:, :width] | word_starts[ids])
    of_token = np.where(real, np.cumsum(starts, axis=1) - 1, -1)
    count = int(of_token.max(initial=-1)) + 1
    flat = (row * count + of_token)[real]
    pieces = np.bincount(flat, minlength=rows * count).reshape(rows, count)
    in_second = np.arange(width) >= segment_starts[:, 1:]
    second = np.zeros((rows, count), dtype=bool)
    second.reshape(-1)[(row * count + of_token)[starts & in_second]] = True
    total = (pieces > 0).sum(axis=1, keepdims=True)
    first_words = total - second.sum(axis=1, keepdims=True)
    end = np.where(second, total, first_words)
    return _Words(of_token, pieces, end - np.arange(count))


def _place_spans(words: _Words, budget: np.ndarray, keys: np.ndarray, max_ngram: int) -> np.ndarray:
    """(B, W) bool: words covered by the chosen spans."""
    rows, count = words.pieces.shape
    index = np.arange(count)
    exists = words.pieces > 0
    shuffle = np.where(exists, streams.uniform(0, keys[:, None], 0, index), 2.0)
    order = np.argsort(shuffle, axis=1, kind="stable")
    length = _draw_lengths(streams.uniform(0, keys[:, None], 1, index), words.left_in_segment, max_ngram)
    pieces_before = np.concatenate([np.zeros((rows, 1), np.int64), np.cumsum(words.pieces, axis=1)], axis=1)
    covered = np.zeros((rows, count + max_ngram), dtype=bool)
    left = budget.copy()
    available = exists.sum(axis=1)
    active = np.arange(rows)
    for rank in range(count):
        active = active[(left[active] > 0) & (rank < available[active])]
        if not len(active):
            break
        word = order[active, rank]
        n = length[active, word]
        room = left[active]
        begin = pieces_before[active, word]
        for _ in range(max_ngram):
            n -= (n > 0) & (pieces_before[active, word + n] - begin > room)
        free = n > 0
        for step in range(max_ngram):
            free &= ~(covered[active, word + step] & (step < n))
        at, word, n = active[free], word[free], n[free]
        for step in range(max_ngram):
            inside = step < n
            covered[at[inside], word[inside] + step] = True
        left[at] -= pieces_before[at, word + n] - pieces_before[at, word]
    return covered[:, :count]


def _draw_lengths(draws: np.ndarray, available: np.ndarray, max_ngram: int) -> np.ndarray:
    """Span lengths in words with p(n) proportional to 1/n over the n that the segment has room for."""
    harmonic = np.cumsum(1.0 / np.arange(1, max_ngram + 1))
    room = np.clip(available, 1, max_ngram)
    return 1 + np.searchsorted(harmonic[:-1], draws * harmonic[room - 1], side="right")


def _replace(
    ids: np.ndarray, positions: np.ndarray, targets: np.ndarray, keys: np.ndarray, vocab_size: int
) -> np.ndarray:
    """80% [MASK], 10% kept, 10% a random piece, drawn for each position (reference: each piece)."""
    row, column = np.divmod(positions, ids.shape[1])
    kind = streams.uniform(0, keys[row], 2, column)
    random = streams.integers(0, FIRST_PIECE, vocab_size, keys[row], 3, column)
    result = ids.copy()
    result.reshape(-1)[positions] = np.where(kind < 0.8, MASK, np.where(kind < 0.9, targets, random))
    return result
