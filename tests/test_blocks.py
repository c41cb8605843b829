"""Causal LM's text: documents one after another, cut into blocks; and the sequences of masked LM without masks."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from runhelpers import make_batches, tiny_config

from albert_ablate.data.batches import NO_TARGET
from albert_ablate.data.blocks import BlockBatches, NextBatch, Stream
from albert_ablate.data.store import TokenStore, offsets
from albert_ablate.data.tokenizer import MASK, SEP
from albert_ablate.errors import DataError

LENGTH = 8


def store_of(lengths: list[int]) -> TokenStore:
    """Documents of these lengths, each of one sentence; all tokens differ."""
    tokens = np.arange(100, 100 + sum(lengths), dtype=np.uint16)
    return TokenStore(tokens, offsets(np.array(lengths)), np.arange(len(lengths) + 1), "made up")


def stream_by_hand(store: TokenStore, order: list[int]) -> list[int]:
    ids: list[int] = []
    for document in order:
        first, last = store.documents[document : document + 2]
        ids += [SEP, *store.tokens[store.sentences[first] : store.sentences[last]].tolist()]
    return ids


#: Documents shorter than a block, empty, of exactly one block, and longer.
LENGTHS = [3, 0, LENGTH, 1, 2 * LENGTH + 5, LENGTH - 1]


@given(st.lists(st.integers(0, 30), min_size=1, max_size=12).filter(lambda lengths: sum(lengths) + len(lengths) > 8))
def test_every_token_but_the_first_is_a_target_once(lengths: list[int]) -> None:
    store = store_of(lengths)
    ids = stream_by_hand(store, list(range(len(lengths))))
    stream = Stream(store, np.arange(len(lengths)), LENGTH)
    assert stream.size == len(ids) == sum(lengths) + len(lengths)
    assert len(stream) == (len(ids) - 1) // LENGTH
    assert stream.dropped == (len(ids) - 1) % LENGTH
    batch = stream.blocks(np.arange(len(stream)))
    used = len(stream) * LENGTH
    assert batch.input_ids.flatten().tolist() == ids[:used]
    assert batch.targets.flatten().tolist() == ids[1 : used + 1]
    assert not batch.type_ids.any()
    assert batch.counts() == {"targets": used, "sequences": len(stream), "tokens": used}


def test_an_epoch_has_each_block_of_its_order_once() -> None:
    store = store_of(LENGTHS)
    batches = BlockBatches(store, LENGTH, batch_size=1, seed=3)
    rows = [batches[step] for step in range(2 * batches.epoch_size)]
    epochs = rows[: batches.epoch_size], rows[batches.epoch_size :]
    assert batches.record == {"blocks_per_epoch": len(epochs[0]), "tokens_dropped_per_epoch": 5}
    wanted = sorted(stream_by_hand(store, list(range(len(LENGTHS)))))
    for epoch in epochs:
        found = sorted(token for row in epoch for token in row.targets[0].tolist())
        assert len(found) == len(wanted) - 1 - 5
        texts = [token for token in found if token != SEP]
        assert len(texts) == len(set(texts))
        assert set(texts) < set(wanted)
    first, second = ([row.targets.tolist() for row in epoch] for epoch in epochs)
    assert sorted(first) != sorted(second)  # another order of documents


def test_a_batch_depends_on_seed_and_step_only() -> None:
    store = store_of(LENGTHS * 9)
    whole = BlockBatches(store, LENGTH, batch_size=6, seed=1)
    again = pickle.loads(pickle.dumps(BlockBatches(store, LENGTH, batch_size=6, seed=1)))
    for step in (17, 0, 5):
        assert torch.equal(again[step].targets, whole[step].targets)
    assert not torch.equal(BlockBatches(store, LENGTH, 6, 2)[0].targets, whole[0].targets)
    halves = [BlockBatches(store, LENGTH, 6, 1, share=(rank, 2)) for rank in range(2)]
    for step in (0, 7):
        taken = torch.stack([half[step].input_ids for half in halves], 1).flatten(0, 1)
        assert torch.equal(taken, whole[step].input_ids)
    parts = list(whole[3].micro(4))
    assert [len(part) for part in parts] == [4, 2]
    assert torch.equal(torch.cat([part.targets for part in parts]), whole[3].targets)
    loaded = list(whole.from_step(2, 5, workers=0, pin_memory=False))
    assert all(torch.equal(one.input_ids, whole[2 + n].input_ids) for n, one in enumerate(loaded))


def test_less_text_than_a_block_is_refused() -> None:
    with pytest.raises(DataError, match="have 8 tokens with their separators, and a block needs 9"):
        BlockBatches(store_of([3, 3]), LENGTH, 2, 0)
    assert BlockBatches(store_of([3, 4]), LENGTH, 2, 0).epoch_size == 1


def test_pairs_are_the_sequences_of_masked_lm_without_masks(tmp_path: Path) -> None:
    causal = make_batches(tiny_config(tmp_path, "method=causal", "objective=none", "method.blocks=pairs"))
    masked = make_batches(tiny_config(tmp_path, "objective=none"))
    for step in (0, 40):
        ours, theirs = causal[step], masked[step]
        ids = theirs.input_ids.flatten().scatter(0, theirs.positions, theirs.targets.int()).view(ours.input_ids.shape)
        assert isinstance(ours, NextBatch)
        assert torch.equal(ours.input_ids, ids)
        assert torch.equal(ours.type_ids, theirs.type_ids)
        assert ours.mask is not None
        assert torch.equal(ours.mask, theirs.mask)
        assert (ours.input_ids == MASK).sum() == 0
        for row, real, targets in zip(ids.tolist(), theirs.mask.sum(1).tolist(), ours.targets.tolist(), strict=True):
            assert targets == row[1:real] + [NO_TARGET] * (len(row) - real + 1)
    assert causal.record == masked.record
