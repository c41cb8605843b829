"""Batches: layout, arithmetic of positions, and what arms have in common."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from datahelpers import make_store, mask_settings, pair_settings, random_store

from albert_ablate.axes import Objective
from albert_ablate.data.batches import Batch, PairBatches
from albert_ablate.data.store import TokenStore
from albert_ablate.data.tokenizer import CLS, SEP

LENGTH = 32


def make(
    store: TokenStore, objective: Objective = Objective.SOP, size: int = 16, seed: int = 0, **masking: object
) -> PairBatches:
    starts = np.ones(int(store.tokens.max()) + 1, dtype=bool)
    pairs = pair_settings(max_length=LENGTH)
    return PairBatches(store, starts, objective, pairs, mask_settings(**masking), size, seed)


def equal(a: Batch, b: Batch) -> bool:
    ours, theirs = a.tensors(), b.tensors()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def originals(batch: Batch) -> torch.Tensor:
    ids = batch.input_ids.clone()
    ids.view(-1)[batch.positions] = batch.targets.int()
    return ids


def test_layout_of_a_sequence() -> None:
    store = random_store()
    batches = make(store)
    batch, (pairs, _) = batches[3], batches.instances(3)
    ids = originals(batch)
    for row in range(16):
        a = store.tokens[pairs.a_start[row] :][: pairs.a_length[row]].tolist()
        b = store.tokens[pairs.b_start[row] :][: pairs.b_length[row]].tolist()
        sequence = [CLS, *a, SEP, *b, SEP]
        padding = [0] * (LENGTH - len(sequence))
        assert ids[row].tolist() == sequence + padding
        assert batch.type_ids[row].tolist() == [0] * (len(a) + 2) + [1] * (len(b) + 1) + padding
        assert batch.mask[row].tolist() == [True] * len(sequence) + [False] * len(padding)
    assert batch.labels.tolist() == pairs.label.tolist()
    assert 0 < batch.labels.sum() < 16  # swapped pairs too: types go by position, not by origin


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    store = random_store()
    assert equal(make(store)[5], make(store)[5])
    assert not equal(make(store)[5], make(store, seed=1)[5])
    assert not equal(make(store)[5], make(store)[6])


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_workers_change_nothing_and_a_position_needs_no_replay(workers: int) -> None:
    batches = make(random_store())
    direct = [batches[step] for step in range(7, 13)]
    streamed = list(batches.from_step(7, 13, workers, pin_memory=False))
    assert len(streamed) == 6
    assert all(equal(a, b) for a, b in zip(direct, streamed, strict=True))


def test_an_epoch_uses_every_pair_once_and_the_next_differs() -> None:
    batches = make(random_store(), size=1)
    n = batches.epoch_size
    epochs = [[batches.instances(step)[0] for step in range(n * e, n * (e + 1))] for e in range(2)]
    runs = [[(int(p.document[0]), int(p.ordinal[0])) for p in epoch] for epoch in epochs]
    assert len(set(runs[0])) == n
    assert runs[0] != runs[1]


def test_a_batch_may_straddle_epochs() -> None:
    store = random_store()
    small, large = make(store, size=1), make(store, size=7)
    step = small.epoch_size // 7
    for row, index in enumerate(range(7 * step, 7 * step + 7)):
        assert torch.equal(large[step].input_ids[row], small[index].input_ids[0])


def test_copies_repeat_the_epochs_exactly() -> None:
    store = make_store([[5, 6, 7, 8] * 4] * 12)
    batches = make(store, size=4, copies=2)
    n = batches.epoch_size
    assert n % 4 == 0
    per_epoch = n // 4
    assert equal(batches[1], batches[1 + 2 * per_epoch])
    assert not equal(batches[1], batches[1 + per_epoch])
    fresh = make(store, size=4)
    assert not equal(fresh[1], fresh[1 + 2 * per_epoch])


def test_masks_are_new_in_every_epoch() -> None:
    store = make_store([[10, 10]] * 40)  # one pair a document: the same runs in every epoch
    batches = make(store, Objective.NONE, size=40)
    first, second = batches[0], batches[1]
    masks = [
        {tuple(originals(b)[r].tolist()): tuple(b.input_ids[r].tolist()) for r in range(40)} for b in (first, second)
    ]
    same = [masks[0][key] == masks[1][key] for key in masks[0].keys() & masks[1].keys()]
    assert len(same) > 20
    assert np.mean(same) < 0.2


@pytest.mark.parametrize("size", [1, 3, 16, 50])
def test_micro_batches_add_up(size: int) -> None:
    batch = make(random_store())[0]
    parts = list(batch.micro(size))
    assert [len(p) for p in parts[:-1]] == [size] * (len(parts) - 1)
    assert torch.equal(torch.cat([p.input_ids for p in parts]), batch.input_ids)
    assert torch.equal(torch.cat([p.labels for p in parts]), batch.labels)
    assert torch.equal(torch.cat([p.targets for p in parts]), batch.targets)
    for part in parts:
        assert torch.equal(originals(part).view(-1)[part.positions].long(), part.targets)


def test_none_sees_what_sop_sees() -> None:
    store = random_store()
    sop, none = make(store, Objective.SOP), make(store, Objective.NONE)
    for step in (0, 4, 30):
        a, b = sop[step], none[step]
        kept = (a.labels == 0) & (a.mask.sum(1) == b.mask.sum(1))
        assert torch.equal(a.input_ids[kept], b.input_ids[kept])  # the same tokens under the same masks
        for field in ("document", "ordinal"):
            left, right = (getattr(x.instances(step)[0], field) for x in (sop, none))
            np.testing.assert_array_equal(left, right)


def test_short_documents_fill_an_epoch() -> None:
    """Epochs differ in their number of pairs; an epoch always has that of the first."""
    store = random_store(documents=5)
    batches = make(store, Objective.NSP, size=3)
    assert all(len(batches[step]) == 3 for step in range(4 * batches.epoch_size // 3))


def test_settings_reach_the_pairs() -> None:
    store = random_store()
    batches = make(store)
    batches.settings = replace(batches.settings, max_length=16)
    assert batches[40 * batches.epoch_size].input_ids.shape == (16, 16)
