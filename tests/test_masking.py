"""Whole-word n-gram masking against a plain loop with the same draws."""

import numpy as np
import pytest
from datahelpers import mask_settings
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from albert_ablate import streams
from albert_ablate.config.schema import MaskingConfig
from albert_ablate.data.masking import Masked, mask_batch
from albert_ablate.data.tokenizer import CLS, FIRST_PIECE, MASK, PAD, SEP

V = 500
#: Pieces with an even id open a word, odd ones continue it.
WORD_STARTS = np.arange(V) % 2 == 0


def make_batch(
    seed: int, rows: int, length: int, continuation: float = 0.3
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids, lengths and segment starts of random pairs with padding."""
    draw = np.random.default_rng(seed)
    ids = np.zeros((rows, length), dtype=np.int32)
    lengths, starts = [], []
    for row in range(rows):
        a = int(draw.integers(1, length - 4))
        b = int(draw.integers(1, length - 3 - a + 1))
        body = 2 * draw.integers(3, V // 2, a + b) + (draw.random(a + b) < continuation)
        body = np.minimum(body, V - 1)
        ids[row, : a + b + 3] = [CLS, *body[:a], SEP, *body[a:], SEP]
        lengths.append(a + b + 3)
        starts.append([1, a + 2])
    return ids, np.array(lengths), np.array(starts)


def masked(batch: tuple[np.ndarray, np.ndarray, np.ndarray], chosen: MaskingConfig, key: int = 7) -> Masked:
    keys = streams.hashed(key, np.arange(len(batch[0])))
    return mask_batch(*batch, WORD_STARTS, keys, chosen)


def words_of(ids: np.ndarray, starts: np.ndarray) -> list[list[int]]:
    """Columns of each word of a row."""
    words: list[list[int]] = []
    for column, piece in enumerate(ids):
        if piece in (PAD, CLS, SEP):
            continue
        if column in starts or WORD_STARTS[piece]:
            words.append([])
        words[-1].append(column)
    return words


def plain(ids: np.ndarray, length: int, starts: np.ndarray, key: int, chosen: MaskingConfig) -> set[int]:
    """The reference's sequential algorithm for one row."""
    budget = max(1, round(length * chosen.probability))
    budget = min(budget, chosen.max_predictions or budget)
    words = words_of(ids, starts)
    second = next((i for i, w in enumerate(words) if w[0] >= starts[1]), len(words))
    order = np.argsort(streams.uniform(0, key, 0, np.arange(len(words))), kind="stable")
    draws = streams.uniform(0, key, 1, np.arange(len(words)))
    covered: set[int] = set()
    for i in order:
        if len(covered) >= budget:
            break
        end = second if i < second else len(words)
        room = min(chosen.max_ngram, end - i)
        weights = np.array([1 / n for n in range(1, room + 1)])
        n = 1 + int(np.searchsorted(np.cumsum(weights)[:-1], draws[i] * weights.sum(), side="right"))
        while n and sum(len(w) for w in words[i : i + n]) > budget - len(covered):
            n -= 1
        span = [column for word in words[i : i + n] for column in word]
        if span and covered.isdisjoint(span):
            covered.update(span)
    return covered


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    length=st.integers(8, 70),
    probability=st.sampled_from([0.1, 0.15, 0.4]),
    ngram=st.integers(1, 4),
    cap=st.sampled_from([None, 1, 5]),
    continuation=st.sampled_from([0.0, 0.3, 0.8]),
)
def test_positions_equal_the_plain_loop(
    seed: int, length: int, probability: float, ngram: int, cap: int | None, continuation: float
) -> None:
    batch = make_batch(seed, 6, length, continuation)
    chosen = mask_settings(probability=probability, max_ngram=ngram, max_predictions=cap)
    result = masked(batch, chosen)
    keys = streams.hashed(7, np.arange(6))
    for row in range(6):
        found = {p % length for p in result.positions.tolist() if p // length == row}
        assert found == plain(batch[0][row], batch[1][row], batch[2][row], int(keys[row]), chosen)


def test_words_are_masked_whole_and_specials_never() -> None:
    batch = make_batch(0, 200, 64)
    result = masked(batch, mask_settings())
    chosen = np.zeros(batch[0].shape, dtype=bool)
    chosen.reshape(-1)[result.positions] = True
    assert not chosen[batch[0] < FIRST_PIECE].any()
    for row in range(200):
        for word in words_of(batch[0][row], batch[2][row]):
            assert len(set(chosen[row, word].tolist())) == 1


def test_targets_are_what_stood_there_and_nothing_else_changes() -> None:
    batch = make_batch(1, 100, 64)
    result = masked(batch, mask_settings())
    np.testing.assert_array_equal(result.targets, batch[0].reshape(-1)[result.positions])
    rest = np.delete(np.arange(batch[0].size), result.positions)
    np.testing.assert_array_equal(result.input_ids.reshape(-1)[rest], batch[0].reshape(-1)[rest])
    assert (np.diff(result.positions) > 0).all()


@pytest.mark.parametrize("cap", [None, 5])
def test_the_budget_is_kept_and_reached(cap: int | None) -> None:
    batch = make_batch(2, 300, 128, continuation=0.0)
    result = masked(batch, mask_settings(max_predictions=cap))
    count = np.bincount(result.positions // 128, minlength=300)
    budget = [max(1, round(int(n) * 0.15)) for n in batch[1]]
    assert count.tolist() == [min(b, cap or b) for b in budget]


def test_halves_round_to_even_as_in_the_reference() -> None:
    ids = np.full((1, 30), 10, dtype=np.int32)
    ids[0, [0, 14, 29]] = [CLS, SEP, SEP]  # 30 x 0.15 = 4.5
    result = mask_batch(ids, np.array([30]), np.array([[1, 15]]), WORD_STARTS, np.array([3]), mask_settings())
    assert len(result.positions) == 4


def test_twenty_predictions_at_length_512_are_under_four_percent() -> None:
    ids = np.full((8, 512), 10, dtype=np.int32)
    ids[:, [0, 250, 511]] = [CLS, SEP, SEP]
    starts, keys = np.tile([1, 251], (8, 1)), streams.hashed(0, np.arange(8))
    result = mask_batch(ids, np.full(8, 512), starts, WORD_STARTS, keys, mask_settings(max_predictions=20))
    assert len(result.positions) / (8 * 512) == pytest.approx(0.039, abs=2e-4)


def test_span_lengths_follow_one_over_n() -> None:
    """With a tiny share masked spans rarely meet, so placed lengths are drawn lengths."""
    ids = np.full((4000, 400), 10, dtype=np.int32)
    ids[:, [0, 200, 399]] = [CLS, SEP, SEP]
    starts, keys = np.tile([1, 201], (4000, 1)), streams.hashed(1, np.arange(4000))
    result = mask_batch(ids, np.full(4000, 400), starts, WORD_STARTS, keys, mask_settings(max_predictions=3))
    row, column = np.divmod(result.positions, 400)
    one_run = [column[row == r] for r in range(4000)]
    first = np.zeros(4, dtype=int)
    for columns in one_run:  # three pieces: one span of 3, 2 + 1, 1 + 2 or 1 + 1 + 1
        first[len(np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1))] += 1
    p1, p2, p3 = 6 / 11, 3 / 11, 2 / 11
    # After a first span of 1, two pieces are left: a drawn 3 shrinks to 2.
    expected = np.array([p3, p2 + p1 * (p2 + p3), p1 * p1])
    assert np.abs(first[1:] / 4000 - expected).max() < 0.03


def test_eight_tenths_masked_one_kept_one_random() -> None:
    batch = make_batch(3, 3000, 64)
    result = masked(batch, mask_settings())
    now = result.input_ids.reshape(-1)[result.positions]
    count = len(now)
    mask, kept = (now == MASK).sum(), (now == result.targets).sum()
    random = now[(now != MASK) & (now != result.targets)]
    for hits, share in ((mask, 0.8), (kept, 0.1 + 0.1 / (V - FIRST_PIECE)), (len(random), 0.1)):
        assert stats.binomtest(int(hits), count, share).pvalue > 1e-3
    assert random.min() >= FIRST_PIECE
    observed = np.bincount(random, minlength=V)[FIRST_PIECE:]
    assert stats.chisquare(observed).pvalue > 1e-3


def test_replacement_is_drawn_for_each_piece_not_each_word() -> None:
    batch = make_batch(4, 800, 64, continuation=0.8)
    result = masked(batch, mask_settings(max_ngram=1))
    now = result.input_ids.reshape(-1)[result.positions] == MASK
    neighbours = np.diff(result.positions) == 1
    mixed = now[:-1][neighbours] != now[1:][neighbours]
    assert mixed.mean() == pytest.approx(2 * 0.8 * 0.2, abs=0.03)


def test_a_row_does_not_depend_on_the_others() -> None:
    batch = make_batch(5, 20, 40)
    whole = masked(batch, mask_settings()).input_ids
    keys = streams.hashed(7, np.arange(20))
    for row in range(20):
        ids, lengths, starts = (x[row : row + 1] for x in batch)
        alone = mask_batch(ids, lengths, starts, WORD_STARTS, keys[row : row + 1], mask_settings())
        np.testing.assert_array_equal(alone.input_ids[0], whole[row])


def test_the_first_piece_of_a_segment_opens_a_word() -> None:
    """A continuation piece left at the front by truncation must not be glued to the other segment."""
    ids = np.array([[CLS, 10, SEP, 11, SEP]], dtype=np.int32)
    for key in range(50):
        found = mask_batch(
            ids, np.array([5]), np.array([[1, 3]]), WORD_STARTS, np.array([key]), mask_settings(probability=0.3)
        )
        assert len(found.positions) == 2
        one = mask_batch(
            ids, np.array([5]), np.array([[1, 3]]), WORD_STARTS, np.array([key]), mask_settings(probability=0.15)
        )
        assert len(one.positions) == 1
