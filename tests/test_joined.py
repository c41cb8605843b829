"""Joined documents: sequences of masked LM that documents fill one after another."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from datahelpers import make_store, pair_settings
from runhelpers import run, tiny_config, tiny_overrides

from albert_ablate.axes import Objective
from albert_ablate.config.schema import MaskingConfig
from albert_ablate.data.batches import Batch
from albert_ablate.data.joined import Joined, JoinedBatches, longer_documents
from albert_ablate.data.tokenizer import CLS, SEP
from albert_ablate.door.compose import compose
from albert_ablate.errors import ConfigError, DataError
from albert_ablate.files import read_json

LENGTH = 12
#: Documents of 6, 25, 3 and 10 tokens; ids count on, so that each says where it is from.
SIZES = ([4, 2], [9, 9, 7], [3], [5, 5])
STARTS = np.ones(200, dtype=bool)


def store() -> Any:
    return make_store([list(sizes) for sizes in SIZES])


def plain_stream(order: list[int]) -> list[int]:
    """[SEP] before each document, by a plain loop."""
    whole = store()
    found = []
    for document in order:
        first, last = whole.documents[document], whole.documents[document + 1]
        found += [SEP, *whole.tokens[whole.sentences[first] : whole.sentences[last]].tolist()]
    return found


def masking(**other: Any) -> MaskingConfig:
    values = {
        "probability": 0.15, "max_ngram": 1, "max_predictions": None, "copies": None, "long_words": "pieces",
        "fill": "auto", "draw": "spans", "smoothing": 0.7,
    }  # fmt: skip
    return MaskingConfig(**{**values, **other})


def batches(size: int = 3, seed: int = 0, share: tuple[int, int] = (0, 1), **other: Any) -> JoinedBatches:
    settings = pair_settings(max_length=LENGTH, join_documents=True)
    return JoinedBatches(store(), STARTS, Objective.NONE, settings, masking(**other), size, seed, share)


def originals(batch: Batch) -> np.ndarray:
    """(B, T) ids before masking."""
    ids = batch.input_ids.numpy().copy()
    ids.reshape(-1)[batch.positions.numpy()] = batch.targets.numpy()
    return ids


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [2, 0, 3, 1]])
def test_sequences_hold_the_stream_once(order: list[int]) -> None:
    stream = plain_stream(order)
    rows = Joined(store(), np.array(order), LENGTH)
    assert len(rows) == (len(stream) - 1) // (LENGTH - 2)
    assert rows.stream.dropped == (len(stream) - 1) % (LENGTH - 2)
    ids, starts, lengths = rows.grid(rows.pairs(np.arange(len(rows))))
    assert (ids[:, 0] == CLS).all()
    assert (ids[:, -1] == SEP).all()
    assert ids[:, 1:-1].reshape(-1).tolist() == stream[1 : 1 + len(rows) * (LENGTH - 2)]
    assert lengths.tolist() == [LENGTH] * len(rows)
    assert starts.tolist() == [[1, LENGTH]] * len(rows)


def test_each_token_knows_its_document() -> None:
    order = np.array([2, 0, 3, 1])
    rows = Joined(store(), order, LENGTH)
    expected = [document for document in order for _ in range(1 + sum(SIZES[document]))]
    for number in range(len(rows)):
        pairs, column = rows.pairs(np.array([number])), np.arange(1, LENGTH - 1)
        begin = 1 + number * (LENGTH - 2)
        found = rows.document(pairs, np.zeros_like(column), column)
        assert found.tolist() == expected[begin : begin + LENGTH - 2]
        assert rows.documents(pairs).tolist() == sorted({*found.tolist()})


def test_long_documents_are_counted() -> None:
    assert longer_documents(store(), LENGTH) == 1
    assert longer_documents(store(), 5) == 3
    assert longer_documents(store(), 12) == 1
    assert longer_documents(store(), 11) == 2


def test_an_epoch_reads_every_sequence_once_and_the_next_joins_anew() -> None:
    made = batches(size=1)
    n = made.epoch_size
    epochs = [[originals(made[epoch * n + i])[0].tolist() for i in range(n)] for epoch in (0, 1)]
    for epoch in epochs:
        tokens = [id for row in epoch for id in row[1:-1] if id != SEP]
        assert len(set(tokens)) == len(tokens)
    assert sorted(epochs[0]) != sorted(epochs[1])
    assert made.record == {
        "sequences_per_epoch": n, "tokens_dropped_per_epoch": (sum(map(sum, SIZES)) + 3) % 10, "documents_cut": 1,
    }  # fmt: skip


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    made = batches()
    late = made[7]
    again = batches()
    assert all(np.array_equal(a, b) for a, b in zip(late.tensors().values(), again[7].tensors().values(), strict=True))
    copied = pickle.loads(pickle.dumps(made))
    assert np.array_equal(copied[7].input_ids, late.input_ids)
    assert not np.array_equal(batches(seed=1)[7].input_ids, late.input_ids)


def test_processes_share_a_batch() -> None:
    whole = originals(batches(size=4)[2])
    parts = [originals(batches(size=4, share=(rank, 2))[2]) for rank in (0, 1)]
    assert np.array_equal(np.stack(parts, axis=1).reshape(whole.shape), whole)


def test_separators_are_never_masked() -> None:
    made = batches(size=8, probability=0.5)
    targets = np.concatenate([made[step].targets.numpy() for step in range(20)])
    assert len(targets) == 20 * 8 * 6
    assert not np.isin(targets, (CLS, SEP)).any()


def test_too_little_text_is_refused() -> None:
    settings = pair_settings(max_length=64, join_documents=True)
    with pytest.raises(DataError, match=r"pairs\.max_length=64"):
        JoinedBatches(store(), STARTS, Objective.NONE, settings, masking(), 2, 0)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["objective=sop"], "Use objective=none"),
        (["objective=none", "method=causal"], "method.blocks=packed"),
        (["objective=none", "method=electra"], "replaced tokens are drawn for pairs only"),
        (["objective=none", "scale=controls"], "known for pairs only"),
    ],
)
def test_what_needs_pairs_is_refused(overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        compose([*overrides, "pairs.join_documents=true"])


def test_a_run_on_joined_documents(tmp_path: Path) -> None:
    overrides = tiny_overrides(tmp_path, "objective=none", "pairs.join_documents=true")
    folder = run(compose(overrides))
    manifest, results = folder.read("manifest.json"), folder.read("results.json")
    assert manifest["data"]["sequences_per_epoch"] > 0
    assert manifest["data"]["documents_cut"] > 0
    assert manifest["data"]["masking"]["tokens_per_row"] == 32
    assert results["training"]["tokens"] == 12 * 8 * 32  # no padding
    assert results["masked_lm"]["examples"] >= 5 * results["masked_lm"]["sequences"] - 1
    assert results["replaced_tokens"]["auc"] > 0
    assert "documents are longer than one" in (folder.path / "log.txt").read_text()


# --- a start from a run on shorter sequences ------------------------------------------------------

SHORT = ("objective=none", "pairs.join_documents=true", "warm_start.length=8")
BLOCKS = ("attention=bigbird", "attention.block=2", "attention.random=1")


def test_both_arms_start_from_one_shorter_run_and_its_positions_are_repeated(tmp_path: Path) -> None:
    run_of = {}
    for arm in ((), BLOCKS):
        config = tiny_config(tmp_path, *SHORT, *arm, "batch.size=4", "batch.micro_size=4", "budget.steps=4",
                             "budget.warmup_steps=1")  # fmt: skip
        run_of[arm] = _started(config)
    starts = {read_json(path / "warm_start.json")["from"] for path in run_of.values()}
    assert len(starts) == 1
    parent = tmp_path / "runs" / starts.pop()
    settings = yaml.safe_load((parent / "config.yaml").read_text())
    assert settings["attention"]["name"] == "full"
    assert (settings["pairs"]["max_length"], settings["model"]["max_positions"]) == (8, 8)
    assert (settings["batch"]["size"], settings["warm_start"]["length"]) == (16, None)
    for path in run_of.values():
        record = read_json(path / "warm_start.json")
        assert record["tensors_repeated"] == ["encoder.embedding.position.weight"]
        assert record["tensors_of_its_own"] == []


def test_repeated_rows_are_those_of_the_shorter_run(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    from albert_ablate.model.pretraining import build_model
    from albert_ablate.training.checkpoint import load_extended

    short, long = (tiny_config(tmp_path, f"model.max_positions={p}", "pairs.max_length=8").architecture()
                   for p in (8, 20))  # fmt: skip
    given, model = build_model(short, 1), build_model(long, 0)
    save_file(
        {name: tensor.contiguous() for name, tensor in given.state_dict().items()}, tmp_path / "model.safetensors"
    )
    assert load_extended(tmp_path, model) == ([], ["encoder.embedding.position.weight"])
    rows = model.encoder.embedding.position.weight
    for row in range(20):
        assert torch.equal(rows[row], given.encoder.embedding.position.weight[row % 8])
    assert torch.equal(model.encoder.embedding.word.weight, given.encoder.embedding.word.weight)


def _started(config: Any) -> Path:
    from albert_ablate.door.compose import paper_setup
    from albert_ablate.experiment import run_cell

    return run_cell(config, paper_setup(config)).path


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["warm_start.length=100"], "must be a multiple"),
        (["warm_start.length=64"], "must be a multiple"),
        (["warm_start.length=32", "warm_start.layers=[1]"], "Leave one of them empty"),
    ],
)
def test_starts_that_do_not_fit_are_refused(overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        compose(overrides)
