"""How the three objectives cut and pair segments."""

from typing import Any

import numpy as np
import pytest
from datahelpers import make_store, pair_settings, random_store
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from albert_ablate import streams
from albert_ablate.axes import Objective
from albert_ablate.data.segments import Pairs, build_pairs, lone_sentences, needs_second_document
from albert_ablate.data.store import TokenStore

NSP, SOP, NONE = Objective.NSP, Objective.SOP, Objective.NONE
EVERY = list(Objective)


def document_of(store: TokenStore, token: np.ndarray) -> np.ndarray:
    sentence = np.searchsorted(store.sentences, token, side="right") - 1
    return np.searchsorted(store.documents, sentence, side="right") - 1


def rows(pairs: Pairs) -> list[tuple[int, ...]]:
    columns = (pairs.document, pairs.ordinal, pairs.a_start, pairs.a_length, pairs.b_start, pairs.b_length, pairs.label)
    return list(zip(*(c.tolist() for c in columns), strict=True))


# --- objectives -----------------------------------------------------------------------------------


def test_sop_pairs_are_neighbouring_runs_of_one_document() -> None:
    store = random_store()
    pairs = build_pairs(store, SOP, pair_settings(max_length=512), 0, 0)  # nothing is truncated
    assert (document_of(store, pairs.a_start) == pairs.document).all()
    assert (document_of(store, pairs.b_start) == pairs.document).all()
    ordered = pairs.label == 0
    assert (pairs.a_start + pairs.a_length == pairs.b_start)[ordered].all()
    assert (pairs.b_start + pairs.b_length == pairs.a_start)[~ordered].all()


def test_half_of_the_sop_pairs_are_swapped() -> None:
    label = build_pairs(random_store(documents=3000), SOP, pair_settings(), 0, 0).label
    assert stats.binomtest(int(label.sum()), len(label)).pvalue > 1e-3
    assert len(label) > 10_000


def test_none_is_packed_like_sop_without_the_swap() -> None:
    store = random_store()
    sop, none = (build_pairs(store, o, pair_settings(max_length=512), 0, 0) for o in (SOP, NONE))
    assert (none.label == 0).all()
    np.testing.assert_array_equal(sop.document, none.document)
    np.testing.assert_array_equal(sop.ordinal, none.ordinal)
    kept = sop.label == 0
    for a, b in (("a_start", "b_start"), ("a_length", "b_length")):
        np.testing.assert_array_equal(getattr(sop, a)[kept], getattr(none, a)[kept])
        np.testing.assert_array_equal(getattr(sop, a)[~kept], getattr(none, b)[~kept])


def test_nsp_negatives_come_from_another_document() -> None:
    store = random_store()
    pairs = build_pairs(store, NSP, pair_settings(), 0, 0)
    random = pairs.label == 1
    assert (pairs.b_document[random] != pairs.document[random]).all()
    assert (document_of(store, pairs.b_start) == pairs.b_document).all()
    assert (pairs.b_document[~random] == pairs.document[~random]).all()
    assert 0.45 < random.mean() < 0.62  # a lone last sentence can only be a negative


def test_nsp_negatives_are_uniform_over_the_other_documents() -> None:
    store = make_store([[5] * 400, [5], [5] * 3, [5] * 2])
    found = np.concatenate([build_pairs(store, NSP, pair_settings(), 0, e).b_document for e in range(80)])
    documents = np.concatenate([build_pairs(store, NSP, pair_settings(), 0, e).document for e in range(80)])
    counts = np.bincount(found[(documents == 0) & (found != 0)], minlength=4)[1:]
    assert stats.chisquare(counts).pvalue > 1e-3


def plain_runs(store: TokenStore, objective: Objective, epoch: int, *, put_back: bool, extend: bool) -> list[Any]:
    """The reference's loop over one document after the other, with the same draws."""
    max_length = 32
    keys = {n: streams.key(0, f"pairs.{n}", epoch) for n in ("target", "split", "coin")}
    found = []
    for d in range(store.document_count):
        target = max_length - 3
        if float(streams.uniform(keys["target"], d, 0)) < 0.1:
            target = int(streams.integers(keys["target"], 2, max_length - 2, d, 1))
        i, stop, ordinal = int(store.documents[d]), int(store.documents[d + 1]), 0
        while i < stop:
            j = i + 1
            while j < stop and (store.sentences[j] - store.sentences[i] < target or (extend and j - i < 2)):
                j += 1
            split = j if j - i == 1 else int(streams.integers(keys["split"], i + 1, j, d, i))
            random = j - i == 1 or float(streams.uniform(keys["coin"], d, i)) < 0.5
            if objective is NSP or j - i > 1:
                found.append((d, ordinal, i, split, j, random))
            i = split if objective is NSP and random and put_back else j
            ordinal += 1
    return found


@pytest.mark.parametrize("objective", EVERY)
@pytest.mark.parametrize("tail", ["put_back", "drop"])
@pytest.mark.parametrize("single", ["extend", "skip"])
def test_runs_equal_the_plain_loop(objective: Objective, tail: str, single: str) -> None:
    store = random_store(1)
    pairs = build_pairs(store, objective, pair_settings(nsp_tail=tail, single_sentence=single), 0, 3)
    expected = plain_runs(store, objective, 3, put_back=tail == "put_back", extend=single == "extend")
    assert sorted(zip(pairs.document.tolist(), pairs.ordinal.tolist(), strict=True)) == [r[:2] for r in expected]
    by_run = {row[:2]: row for row in rows(pairs)}
    for d, ordinal, first, split, last, random in expected:
        _, _, a_start, a_length, b_start, b_length, label = by_run[d, ordinal]
        begin, middle, end = (int(store.sentences[s]) for s in (first, split, last))
        if objective is NSP:
            assert label == int(random)
        swapped = objective is SOP and label == 1
        a, b = ((middle, end), (begin, middle)) if swapped else ((begin, middle), (middle, end))
        assert a[0] <= a_start <= a_start + a_length <= a[1]
        if label == 0 or swapped:
            assert b[0] <= b_start <= b_start + b_length <= b[1]


def test_dropping_the_tail_gives_nsp_the_runs_of_sop() -> None:
    store = make_store([[4, 7, 9, 3, 8, 6, 5, 9] * 3] * 20)
    sop, nsp = (build_pairs(store, o, pair_settings(nsp_tail="drop", max_length=512), 0, 0) for o in (SOP, NSP))
    mine = {row[:2]: row[2:] for row in rows(nsp)}
    for document, ordinal, *row in rows(sop):
        a_start, a_length, b_start, b_length, label = mine[document, ordinal]
        if label == 0 and row[-1] == 0:
            assert [a_start, a_length, b_start, b_length, label] == row


@pytest.mark.parametrize(("single", "documents"), [("extend", [0, 0]), ("skip", [])])
def test_a_run_of_one_sentence(single: str, documents: list[int]) -> None:
    store = make_store([[40, 40, 40, 40, 40], [6]])  # every sentence alone fills the target of 29
    chosen = pair_settings(single_sentence=single, short_probability=0.0)
    pairs = build_pairs(store, SOP, chosen, 0, 0)
    assert pairs.document.tolist() == documents
    assert lone_sentences(store, SOP, chosen, 0, 0) == (2 if single == "extend" else 6)


def test_the_released_habit_pairs_a_lone_sentence_with_another_document() -> None:
    store = make_store([[40, 40], [6, 5], [7]])
    pairs = build_pairs(store, SOP, pair_settings(single_sentence="released", short_probability=0.0), 0, 0)
    lone = np.isin(pairs.document, [0, 2])
    assert lone.sum() == 3
    assert (pairs.label[lone] == 1).all()
    assert (pairs.b_document[lone] != pairs.document[lone]).all()
    assert (pairs.b_document[~lone] == pairs.document[~lone]).all()


@pytest.mark.parametrize("objective", EVERY)
def test_an_objective_says_what_its_pairs_show(objective: Objective) -> None:
    pairs = build_pairs(random_store(), objective, pair_settings(), 0, 0)
    assert (pairs.b_document != pairs.document).any() == objective.needs_second_document
    assert pairs.label.any() == objective.trains_sentences


@pytest.mark.parametrize("objective", EVERY)
@pytest.mark.parametrize("single", ["extend", "skip", "released", "alone"])
def test_a_second_document_is_asked_for_where_second_segments_come_from_one(objective: Objective, single: str) -> None:
    chosen = pair_settings(single_sentence=single)
    pairs = build_pairs(random_store(), objective, chosen, 0, 0)
    assert (pairs.b_document != pairs.document).any() == needs_second_document(objective, chosen)


# --- lengths --------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    documents=st.lists(st.lists(st.integers(1, 60), min_size=1, max_size=12), min_size=2, max_size=8),
    objective=st.sampled_from(EVERY),
    single=st.sampled_from(["extend", "skip", "released"]),
    length=st.integers(8, 64),
    seed=st.integers(0, 2**31),
)
def test_segments_always_fit_and_are_never_empty(
    documents: list[list[int]], objective: Objective, single: str, length: int, seed: int
) -> None:
    store = make_store(documents)
    pairs = build_pairs(store, objective, pair_settings(max_length=length, single_sentence=single), seed, 0)
    assert (pairs.a_length + pairs.b_length <= length - 3).all()
    assert (pairs.a_length >= 1).all()
    assert (pairs.b_length >= 1).all()
    assert (document_of(store, pairs.a_start + pairs.a_length - 1) == document_of(store, pairs.a_start)).all()
    assert (document_of(store, pairs.b_start + pairs.b_length - 1) == pairs.b_document).all()


@pytest.mark.parametrize(("a", "b"), [(40, 3), (3, 40), (30, 30), (31, 30), (30, 31), (50, 20), (29, 1)])
def test_truncation_ends_where_the_reference_does(a: int, b: int) -> None:
    budget, x, y = 29, a, b
    while x + y > budget:  # one token at a time from the longer, the second where they tie
        if x > y:
            x -= 1
        else:
            y -= 1
    store = make_store([[a, b]] * 40)
    pairs = build_pairs(store, NONE, pair_settings(short_probability=0.0), 0, 0)
    assert set(zip(pairs.a_length.tolist(), pairs.b_length.tolist(), strict=True)) == {(x, y)}


def test_each_dropped_token_leaves_from_front_or_back_by_a_fair_coin() -> None:
    store = make_store([[50, 1]] * 4000)
    pairs = build_pairs(store, NONE, pair_settings(short_probability=0.0), 0, 0)
    front = pairs.a_start - store.sentences[store.documents[pairs.document]]
    expected = stats.binom(22, 0.5)  # 50 + 1 tokens, 29 fit
    observed = np.bincount(front, minlength=23)
    middle = slice(7, 16)
    tails = lambda counts: [counts[:7].sum(), *counts[middle], counts[16:].sum()]  # noqa: E731
    assert stats.chisquare(tails(observed), tails(expected.pmf(np.arange(23)) * 4000)).pvalue > 1e-3


def test_short_targets_are_drawn_once_for_a_document() -> None:
    store = make_store([[3] * 60] * 800)
    pairs = build_pairs(store, NONE, pair_settings(short_probability=0.25), 0, 0)
    total = pairs.a_length + pairs.b_length
    last = pairs.a_start + pairs.a_length + pairs.b_length == store.sentences[store.documents[pairs.document + 1]]
    spread = [np.unique(total[(pairs.document == d) & ~last]) for d in range(800)]
    assert max(len(values) for values in spread) == 1  # all full runs of a document have one length
    short = np.mean([values[0] < 29 for values in spread if len(values)])
    assert 0.15 < short < 0.33


# --- randomness -----------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", EVERY)
def test_an_epoch_is_a_function_of_seed_and_number(objective: Objective) -> None:
    store = random_store()
    first = rows(build_pairs(store, objective, pair_settings(), 5, 2))
    assert first == rows(build_pairs(store, objective, pair_settings(), 5, 2))
    assert first != rows(build_pairs(store, objective, pair_settings(), 6, 2))
    assert first != rows(build_pairs(store, objective, pair_settings(), 5, 3))


def test_the_order_is_shuffled() -> None:
    pairs = build_pairs(random_store(documents=500), SOP, pair_settings(), 0, 0)
    assert abs(stats.spearmanr(np.arange(len(pairs)), pairs.document).statistic) < 0.05


def test_arms_see_common_runs_in_one_order() -> None:
    """NSP puts sentences back and so has more runs; those it shares with SOP come in the same order."""
    store = random_store(documents=200)
    sop, nsp = (build_pairs(store, o, pair_settings(), 0, 0) for o in (SOP, NSP))
    seen = [row[:2] for row in rows(sop)]
    also = [row[:2] for row in rows(nsp)]
    common = set(seen) & set(also)
    assert len(common) > 0.9 * len(seen)
    assert [r for r in seen if r in common] == [r for r in also if r in common]
