"""Whole-word n-gram masking (paper, section 4.1; reference create_masked_lm_predictions).

Words take turns in a random order. Each draws a span length n in words with p(n) proportional to 1/n,
shrinks the span while it exceeds the remaining budget, and is skipped if any of the span is covered.
All rows of a batch advance in lockstep, one candidate word each, with array operations.

A word with more pieces than the budget never fits, and if all words are long the budget is not reached. With
``masking.long_words=pieces`` such words are masked piece by piece, and the budget that remains when no word fits
is spent on single pieces.
"""

from dataclasses import dataclass, replace

import numpy as np

from albert_ablate import streams
from albert_ablate.config.schema import MaskingConfig
from albert_ablate.data.tokenizer import FIRST_PIECE, MASK, UNK

#: ``masking.fill`` -> shares of masked positions that get [MASK], and that get [MASK] or stay as they are. The others
#: get a random piece.
FILLS = {"bert": (0.8, 0.9), "electra": (0.85, 1.0)}


@dataclass(frozen=True)
class Masked:
    """Masked inputs and the original ids at the masked positions."""

    input_ids: np.ndarray  # (B, T)
    positions: np.ndarray  # (M,) int64 indices into the flattened (B, T) grid, ascending; repeated if drawn so
    targets: np.ndarray  # (M,) int64 original ids


def mask_batch(
    ids: np.ndarray,
    lengths: np.ndarray,
    segment_starts: np.ndarray,
    word_starts: np.ndarray,
    keys: np.ndarray,
    settings: MaskingConfig,
    weights: np.ndarray | None = None,
) -> Masked:
    """Mask a batch.

    ``ids`` (B, T) with special tokens and padding; ``lengths`` (B,) real tokens of each row,
    specials included; ``segment_starts`` (B, 2) column of each segment's first token;
    ``word_starts`` (V,) bool by piece; ``keys`` (B,) uint64, one random stream per row. ``settings.fill=auto`` is bert.
    ``weights``: (V,) weight of each piece with ``settings.draw=smoothed``, which needs it.
    """
    rows, width = ids.shape
    budget = masking_budget(lengths, settings)
    if settings.draw != "spans":
        if settings.draw == "smoothed":
            assert weights is not None
            positions = _smoothed(ids, int(np.ceil(settings.probability * lengths.sum())), keys, weights)
        else:
            positions = _drawn(ordinary(ids), budget, keys)
        targets = ids.reshape(-1)[positions].astype(np.int64)
        return Masked(_replace(ids, positions, targets, keys, len(word_starts), settings.fill), positions, targets)
    words = find_words(ids, segment_starts, word_starts)
    by_piece = settings.long_words == "pieces"
    if by_piece:
        words = _divided(words, ids, segment_starts, word_starts, budget)
    covered = _place_spans(words, budget, keys, settings.max_ngram)
    # Words -> tokens: a token is chosen when its word is covered.
    chosen = np.zeros((rows, width), dtype=bool)
    inside = words.of_token >= 0
    chosen[inside] = covered[np.nonzero(inside)[0], words.of_token[inside]]
    if by_piece:
        _fill(chosen, inside, budget, keys)
    positions = np.flatnonzero(chosen)
    targets = ids.reshape(-1)[positions].astype(np.int64)
    return Masked(_replace(ids, positions, targets, keys, len(word_starts), settings.fill), positions, targets)


def _drawn(text: np.ndarray, budget: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """(M,) positions, ``budget`` (B,) of each row: independent draws from its ``text`` (B, T), some of them equal."""
    rows, width = text.shape
    slot = np.arange(int(budget.max(initial=0)))
    available = text.sum(axis=1)
    columns = np.argsort(~text, axis=1, kind="stable")  # those of text first
    rank = streams.integers(5, 0, np.maximum(available, 1)[:, None], keys[:, None], slot)
    drawn = np.take_along_axis(columns, rank, axis=1) + np.arange(rows)[:, None] * width
    return np.sort(drawn[(slot < budget[:, None]) & (available > 0)[:, None]])


def _smoothed(ids: np.ndarray, count: int, keys: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """``count`` positions of the whole batch, or all of text if there are fewer, drawn without replacement by weight.

    One after another, each of the rest with a probability in proportion to the (V,) ``weights`` of its piece. That is
    the order of -log(u) / weight for uniform u (Efraimidis and Spirakis, 2006).
    """
    places = np.flatnonzero(ordinary(ids))
    row, column = np.divmod(places, ids.shape[1])
    draws = 1.0 - streams.uniform(6, keys[row], column)  # never 0
    turn = -np.log(draws) / weights[ids.reshape(-1)[places]]
    return np.sort(places[np.argsort(turn, kind="stable")[:count]])


def smoothed_weights(tokens: np.ndarray, vocab_size: int, smoothing: float) -> np.ndarray:
    """(V,) weight of each piece in a text of ``tokens``: its count, at least 1, to the power of ``-smoothing``.

    Rare pieces are masked more often than their share, as in XLM and the released code of DistilBERT.
    """
    weights: np.ndarray = np.maximum(np.bincount(tokens, minlength=vocab_size), 1.0) ** -smoothing
    return weights


def held_out_masking(settings: MaskingConfig) -> MaskingConfig:
    """How held-out text is masked: as in training, but never by the frequencies of the training text."""
    return replace(settings, draw="spans") if settings.draw == "smoothed" else settings


def masking_budget(lengths: np.ndarray, settings: MaskingConfig) -> np.ndarray:
    """(B,) positions to mask in rows of ``lengths`` real tokens."""
    budget = np.maximum(1, np.rint(lengths * settings.probability)).astype(np.int64)  # half to even
    return budget if settings.max_predictions is None else np.minimum(budget, settings.max_predictions)


@dataclass(frozen=True)
class Words:
    """Words of each row, padded to the most words of any row, W."""

    of_token: np.ndarray  # (B, T) word index, -1 at special tokens and padding
    pieces: np.ndarray  # (B, W) pieces of each word, 0 where the row has no such word
    left_in_segment: np.ndarray  # (B, W) words from this one to its segment's end, itself included


def find_words(ids: np.ndarray, segment_starts: np.ndarray, word_starts: np.ndarray) -> Words:
    """Words of a batch; the arguments are those of ``mask_batch``."""
    real = ordinary(ids)
    return _counted(real, real & (_segment_firsts(ids, segment_starts) | word_starts[ids]), segment_starts)


def ordinary(ids: np.ndarray) -> np.ndarray:
    """(B, T) bool: tokens of text; <unk> is one of them."""
    return (ids >= FIRST_PIECE) | (ids == UNK)


def _segment_firsts(ids: np.ndarray, segment_starts: np.ndarray) -> np.ndarray:
    """(B, T) bool: the first piece of each segment, which always opens a word."""
    rows, width = ids.shape
    first = np.zeros((rows, width + 1), dtype=bool)  # one spare column for an empty second segment
    first[np.arange(rows)[:, None], segment_starts] = True
    return first[:, :width]


def _divided(
    words: Words, ids: np.ndarray, segment_starts: np.ndarray, word_starts: np.ndarray, budget: np.ndarray
) -> Words:
    """``words``, where every piece of a word longer than its row's budget is a separate word."""
    real = words.of_token >= 0
    too_long = words.pieces > budget[:, None]  # (B, W)
    if not too_long.any():
        return words
    by_piece = real & np.take_along_axis(too_long, np.maximum(words.of_token, 0), axis=1)
    starts = real & (_segment_firsts(ids, segment_starts) | word_starts[ids] | by_piece)
    return _counted(real, starts, segment_starts)


def _fill(chosen: np.ndarray, text: np.ndarray, budget: np.ndarray, keys: np.ndarray) -> None:
    """Spends the rest of the budget on single pieces, drawn at random; changes ``chosen`` (B, T) in place."""
    left = budget - chosen.sum(axis=1)
    rows = np.flatnonzero(left > 0)
    if not len(rows):
        return
    free = text[rows] & ~chosen[rows]
    draws = np.where(free, streams.uniform(0, keys[rows, None], 4, np.arange(text.shape[1])), 2.0)
    rank = np.argsort(np.argsort(draws, axis=1, kind="stable"), axis=1, kind="stable")
    chosen[rows] |= free & (rank < left[rows, None])


def _counted(real: np.ndarray, starts: np.ndarray, segment_starts: np.ndarray) -> Words:
    rows, width = real.shape
    row = np.arange(rows)[:, None]
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
    return Words(of_token, pieces, end - np.arange(count))


def _place_spans(words: Words, budget: np.ndarray, keys: np.ndarray, max_ngram: int) -> np.ndarray:
    """(B, W) bool: words covered by the chosen spans.

    A row of six tokens, the words 0 to 3, and four tokens to mask::

        token   0  1 2  3 4  5
        word    0  1 1  2 2  3

    >>> words = Words(
    ...     of_token=np.array([[0, 1, 1, 2, 2, 3]]),
    ...     pieces=np.array([[1, 2, 2, 1]]),
    ...     left_in_segment=np.array([[4, 3, 2, 1]]),
    ... )
    >>> keys = np.array([18], dtype=np.uint64)
    >>> order, length = _draw_spans(words, keys, max_ngram=3)
    >>> order  # in which the words get their turn
    array([[2, 3, 1, 0]])
    >>> length  # of the span that begins with each word, in words
    array([[3, 1, 2, 1]])
    >>> _place_spans(words, np.array([4]), keys, max_ngram=3)
    array([[ True, False,  True,  True]])

    Turn by turn: word 2 draws words 2 and 3, three tokens of the four: placed, one is left. Word 3 is covered already:
    skipped. Word 1 draws itself, two tokens where one is left: its span shrinks to nothing. Word 0 draws words 0 to 2
    and shrinks to word 0: placed, and the budget is spent.
    """
    rows, count = words.pieces.shape
    order, length = _draw_spans(words, keys, max_ngram)
    pieces_before = np.concatenate([np.zeros((rows, 1), np.int64), np.cumsum(words.pieces, axis=1)], axis=1)
    covered = np.zeros((rows, count + max_ngram), dtype=bool)
    left = budget.copy()
    available = (words.pieces > 0).sum(axis=1)
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


def _draw_spans(words: Words, keys: np.ndarray, max_ngram: int) -> tuple[np.ndarray, np.ndarray]:
    """(B, W) words in the order of their turns, padding last; (B, W) length in words of the span from each word."""
    index = np.arange(words.pieces.shape[1])
    shuffle = np.where(words.pieces > 0, streams.uniform(0, keys[:, None], 0, index), 2.0)
    order = np.argsort(shuffle, axis=1, kind="stable")
    return order, _draw_lengths(streams.uniform(0, keys[:, None], 1, index), words.left_in_segment, max_ngram)


def _draw_lengths(draws: np.ndarray, available: np.ndarray, max_ngram: int) -> np.ndarray:
    """Span lengths n in words, p(n) proportional to 1/n, over the lengths that fit into the segment."""
    harmonic = np.cumsum(1.0 / np.arange(1, max_ngram + 1))
    room = np.clip(available, 1, max_ngram)
    return 1 + np.searchsorted(harmonic[:-1], draws * harmonic[room - 1], side="right")


def _replace(
    ids: np.ndarray, positions: np.ndarray, targets: np.ndarray, keys: np.ndarray, vocab_size: int, fill: str
) -> np.ndarray:
    """[MASK], the piece itself or a random one, drawn for each position, as in the reference for each piece."""
    masks, kept = FILLS["bert" if fill == "auto" else fill]
    row, column = np.divmod(positions, ids.shape[1])
    kind = streams.uniform(0, keys[row], 2, column)
    random = streams.integers(0, FIRST_PIECE, vocab_size, keys[row], 3, column)
    result = ids.copy()
    result.reshape(-1)[positions] = np.where(kind < masks, MASK, np.where(kind < kept, targets, random))
    return result
