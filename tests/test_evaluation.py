"""Intervals, baselines and fitted heads, against formulas, simulations and planted answers."""

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from runhelpers import ROOT, batch_arrays, equal, held_out_of, one_thread, tiny_config
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from albert_ablate.axes import Objective
from albert_ablate.data.batches import Batch, masked_rows
from albert_ablate.data.store import TokenStore
from albert_ablate.errors import DataError
from albert_ablate.evaluation import baselines as baselines_module
from albert_ablate.evaluation import fitted, heldout, intrinsic, passes
from albert_ablate.evaluation.baselines import PLATEAU_MARGIN, NgramBaselines, OtherDocuments
from albert_ablate.evaluation.heldout import HeldOut
from albert_ablate.evaluation.intervals import clustered_mean, proportion
from albert_ablate.evaluation.intrinsic import Evaluator
from albert_ablate.model.pretraining import build_model
from albert_ablate.training.machine import Machine

CPU = Machine(torch.device("cpu"), "fp32")

# --- intervals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("hits", "count"), [(0, 10), (10, 10), (1, 2), (5, 10), (33, 64), (1990, 4096), (4095, 4096)])
def test_proportion_is_wilsons_interval(hits: int, count: int) -> None:
    z, p = 1.959963984540054, hits / count
    centre = (p + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count))
    record = proportion(hits, count)
    assert record["accuracy"] == p
    assert record["examples"] == count
    low, high = record["interval"]
    assert low == pytest.approx(centre - half, abs=1e-9)
    assert high == pytest.approx(centre + half, abs=1e-9)
    assert 0 <= low < high <= 1


def test_clustered_mean_by_hand() -> None:
    """Three sequences with 1, 2 and 3 masked positions."""
    mean, interval = clustered_mean(np.array([2.0, 2.0, 9.0]), np.array([1, 2, 3]))
    assert mean == pytest.approx(13 / 6)
    residuals = [2 - 13 / 6, 2 - 26 / 6, 9 - 39 / 6]
    error = math.sqrt(sum(r * r for r in residuals) * 3 / 2) / 6
    t = 4.302652729911275  # 97.5% quantile with two degrees of freedom
    assert interval == pytest.approx([mean - t * error, mean + t * error])


def test_clustered_mean_of_equal_clusters_is_the_ordinary_t_interval() -> None:
    values = np.array([1.0, 4.0, 2.0, 7.0, 6.0])
    mean, (low, high) = clustered_mean(values * 3, np.full(5, 3))
    half = 2.7764451051977987 * values.std(ddof=1) / math.sqrt(5)
    assert (mean, low, high) == pytest.approx((values.mean(), values.mean() - half, values.mean() + half))


def test_clustered_mean_of_one_cluster_claims_no_width() -> None:
    assert clustered_mean(np.array([6.0]), np.array([3])) == (2.0, [2.0, 2.0])


def test_interval_covers_the_truth_where_positions_of_a_sequence_agree() -> None:
    """An interval over single positions would cover it far too seldom."""
    draw = np.random.default_rng(0)
    covered = naive = 0
    trials, clusters, truth = 1500, 40, 3.0
    for _ in range(trials):
        counts = draw.integers(2, 9, clusters)
        shift = draw.normal(0, 1, clusters)
        groups = [truth + shift[i] + draw.normal(0, 0.5, n) for i, n in enumerate(counts)]
        _, (low, high) = clustered_mean(np.array([g.sum() for g in groups]), counts)
        covered += low <= truth <= high
        flat = np.concatenate(groups)
        margin = 1.96 * flat.std(ddof=1) / math.sqrt(len(flat))
        naive += abs(flat.mean() - truth) <= margin
    assert 0.93 <= covered / trials <= 0.97
    assert naive / trials < 0.75


# --- baselines -----------------------------------------------------------------------------------


def store_of(tokens: list[int]) -> TokenStore:
    return TokenStore(np.array(tokens, dtype=np.uint16), np.array([0, len(tokens)]), np.array([0, 1]), "by hand")


def test_unigram_by_hand() -> None:
    baselines = NgramBaselines(store_of([5, 5, 6, 5]), vocab_size=8)
    wanted = np.array([1, 1, 1, 1, 1, 4, 2, 1]) / 12  # one added to each count
    loss = baselines.unigram_loss(np.arange(8))
    np.testing.assert_allclose(loss, -np.log(wanted))
    assert baselines.most_frequent == 5
    assert np.exp(-loss).sum() == pytest.approx(1.0)


def test_bigram_by_hand() -> None:
    baselines = NgramBaselines(store_of([5, 6, 5, 6, 5, 7]), vocab_size=8)
    unigram = np.array([1, 1, 1, 1, 1, 4, 3, 2]) / 14
    # After 5: 6 twice, 7 once; the unigram enters with the weight of 50 tokens.
    wanted = [(2 + 50 * unigram[6]) / 53, (1 + 50 * unigram[7]) / 53, (0 + 50 * unigram[5]) / 53]
    np.testing.assert_allclose(
        baselines.bigram_loss(np.array([5, 5, 5]), np.array([6, 7, 5])), -np.log(wanted), rtol=1e-6
    )
    # Nothing was ever seen after 3 (a separator): the unigram alone.
    np.testing.assert_allclose(baselines.bigram_loss(np.array([3]), np.array([5])), -np.log(unigram[5:6]))
    for left in range(8):
        losses = baselines.bigram_loss(np.full(8, left), np.arange(8))
        assert np.exp(-losses).sum() == pytest.approx(1.0)


def test_baselines_of_a_long_store_are_those_of_its_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = np.random.default_rng(0).integers(0, 20, 1000).tolist()
    whole = NgramBaselines(store_of(tokens), 20).unigram_loss(np.arange(20))
    monkeypatch.setattr("albert_ablate.evaluation.baselines._BIGRAM_TOKENS", 64)
    np.testing.assert_allclose(NgramBaselines(store_of(tokens), 20).unigram_loss(np.arange(20)), whole)


def test_tables_of_a_long_text_are_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_of(np.random.default_rng(0).integers(0, 20, 1000).tolist())
    left, targets = np.random.default_rng(1).integers(0, 20, (2, 500))
    expected = NgramBaselines(store, 20).scores(left, targets, targets)
    assert NgramBaselines(store, 20, cache=tmp_path).probabilities.sum() == pytest.approx(1)
    assert not list(tmp_path.iterdir()), "a short text is counted again"
    monkeypatch.setattr(baselines_module, "_KEPT_FROM", 1000)
    NgramBaselines(store, 20, cache=tmp_path)
    monkeypatch.setattr(np, "unique", None)  # would count again
    again = NgramBaselines(store, 20, cache=tmp_path).scores(left, targets, targets)
    for name, values in expected.items():
        assert np.array_equal(values, again[name]), name
    monkeypatch.undo()
    monkeypatch.setattr(baselines_module, "_KEPT_FROM", 1000)
    NgramBaselines(store, 21, cache=tmp_path)
    assert len(list((tmp_path / "ngrams").iterdir())) == 2, "another vocabulary, other tables"
    for file in (tmp_path / "ngrams").rglob("pairs.npy"):
        file.write_bytes(b"")
    with pytest.raises(DataError, match="damaged"):
        NgramBaselines(store, 20, cache=tmp_path)


# --- held-out batches ------------------------------------------------------------------------------


def test_held_out_batches_are_assembled_once_and_within_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(tmp_path, "batch.micro_size=4", "evaluation.max_pairs=16")
    made = []

    def noted(*values: Any) -> Batch:
        made.append(values)
        return masked_rows(*values)

    monkeypatch.setattr(heldout, "masked_rows", noted)
    _, held_out = held_out_of(config)
    first = [batch_arrays(batch) for batch in held_out.plain.batches(7)]
    assert [len(labels) for *_, labels in first] == [4, 3]
    assert len(made) == 2
    assert [batch_arrays(batch) for batch in held_out.plain.batches(7)] == first
    assert len(made) == 2, "the same batches"
    whole = list(held_out.plain.batches())
    assert (len(whole), len(made)) == (4, 2 + 3), "one of them was a whole one"
    size = sum(tensor.nbytes for tensor in whole[0].tensors().values())
    monkeypatch.setattr(heldout, "_KEPT_BYTES", 2.5 * size)
    made.clear()
    _, bounded = held_out_of(config)
    again = [batch_arrays(batch) for _ in range(2) for batch in bounded.plain.batches()]
    assert again == 2 * [batch_arrays(batch) for batch in whole]
    assert len(made) == 4 + 2, "two had room"


def test_a_curve_point_scores_no_baselines(tmp_path: Path) -> None:
    """They do not change along the curve, and a search for every neighbour takes as long as the model."""
    config = tiny_config(tmp_path)
    prepared, held_out = held_out_of(config)
    baselines = NgramBaselines(prepared.train, 200)
    baselines.scores = None  # type: ignore[assignment, method-assign]
    evaluator = Evaluator(build_model(config.architecture(), 0), held_out, Objective.SOP, baselines, CPU)
    assert set(evaluator.curve_point(16)) == {"mlm_loss", "mlm_accuracy", "sentence_accuracy"}
    with pytest.raises(TypeError):
        evaluator.results()


# --- heads fitted on a frozen encoder, with a planted answer --------------------------------------


def documents_of(*documents: list[int]) -> TokenStore:
    """A store of documents of one sentence each."""
    lengths = np.cumsum([0, *map(len, documents)])
    tokens = np.array([token for document in documents for token in document], dtype=np.uint16)
    return TokenStore(tokens, lengths, np.arange(len(documents) + 1), "")


TEXT = [[5, 6, 7, 5, 6], [6, 6, 5], [7, 5, 6, 5, 6, 7, 7], [5], [6, 7, 6]]


@pytest.mark.parametrize("scored", [5, 2])
def test_a_document_is_scored_against_all_others(scored: int) -> None:
    """By hand: no token of a document, and no neighbours that touch it, count for its own bar."""
    baselines = OtherDocuments(documents_of(*TEXT[:scored]), documents_of(*TEXT[scored:]), 8)
    whole = [token for document in TEXT for token in document]
    place = [number for number, document in enumerate(TEXT) for _ in document]
    rows = [(1, 5, 1), (5, 6, 0), (6, 6, 1), (4, 7, 0), (5, 6, 1), (6, 5, 0)]
    left, targets, documents = (np.array(column) for column in zip(*rows, strict=True))
    found = baselines.scores(left, targets, documents)
    for row, (before, target, document) in enumerate(rows):
        others = [token for token, number in zip(whole, place, strict=True) if number != document]
        frequency = {piece: (1 + others.count(piece)) / (8 + len(others)) for piece in range(8)}
        pairs = [(a, b) for (a, i), (b, j) in pairwise(zip(whole, place, strict=True)) if document not in (i, j)]
        together, followed = pairs.count((before, target)), sum(a == before for a, _ in pairs)
        assert found["unigram"][row] == pytest.approx(-math.log(frequency[target]))
        expected = (together + 50 * frequency[target]) / (followed + 50)
        assert found["bigram"][row] == pytest.approx(-math.log(expected))
        assert found["frequent"][row] == (target == max(frequency, key=lambda piece: frequency[piece]))


def test_the_bar_does_not_depend_on_what_is_held_out() -> None:
    row = (np.array([5, 1]), np.array([6, 7]), np.array([0, 1]))
    few = OtherDocuments(documents_of(*TEXT[:2]), documents_of(*TEXT[2:]), 8).scores(*row)
    all_of_it = OtherDocuments(documents_of(*TEXT), documents_of(), 8).scores(*row)
    for name in ("unigram", "bigram", "frequent"):
        np.testing.assert_array_equal(few[name], all_of_it[name])


def test_a_model_can_be_scored_without_bars(folder: Path) -> None:
    evaluator = evaluator_of(folder, "sop")
    whole = evaluator.results()["masked_lm"]
    evaluator.baselines = None
    assert evaluator.results()["masked_lm"].items() <= whole.items()
    assert "unigram_loss" not in evaluator.results()["masked_lm"]


@dataclass(frozen=True)
class PlantedPairs:
    """Pairs whose second token is a noisy copy of the label, or of another coin."""

    labels: np.ndarray
    signal: np.ndarray  # (n,) of 0 and 1

    def __len__(self) -> int:
        return len(self.labels)

    def filled(self, batch: Batch) -> Batch:
        return batch

    def batches(self, limit: int | None = None) -> Iterator[Batch]:
        count = len(self) if limit is None else min(limit, len(self))
        for start in range(0, count, 50):
            rows = slice(start, min(start + 50, count))
            n = rows.stop - rows.start
            ids = torch.from_numpy(np.stack([np.arange(rows.start, rows.stop), self.signal[rows]], axis=1))
            empty = torch.zeros(0, dtype=torch.int64)
            yield Batch(
                ids, torch.zeros(n, 2), torch.ones(n, 2, dtype=torch.bool), empty, empty,
                torch.from_numpy(self.labels[rows]),
            )  # fmt: skip


class PlantedEncoder(nn.Module):
    """[CLS] state: noise in 16 directions, and the signal along one more that no axis shows."""

    def __init__(self) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.noise = nn.Parameter(torch.randn(4000, 16, generator=draw))
        self.direction = nn.Parameter(torch.randn(16, generator=draw))
        self.shape = SimpleNamespace(pattern="full")

    def forward(self, ids: Tensor, *_: Tensor, rows: Tensor) -> Tensor:
        states = self.noise[ids[:, 0]] + 2.5 * (ids[:, 1:].float() - 0.5) * self.direction
        return states[:, None].expand(-1, 2, -1).flatten(0, 1)[rows]


class PlantedModel(nn.Module):
    """Its own sentence head always answers 0."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = PlantedEncoder()

    def sentence_logits(self, hidden: Tensor) -> Tensor:
        return torch.tensor([1.0, 0.0]).expand(len(hidden), 2)


def planted(signal_is_label: bool, objective: Objective = Objective.NSP, ones: float = 0.5) -> dict[str, Any]:
    """The SOP record of a model whose [CLS] state holds the label, or an unrelated coin."""
    draw = np.random.default_rng(5)

    def pairs(count: int) -> PlantedPairs:
        labels = (draw.random(count) < ones).astype(np.int64)
        return PlantedPairs(labels, labels if signal_is_label else draw.integers(0, 2, count))

    training, test = pairs(2000), pairs(1500)
    held_out = HeldOut(test, {Objective.SOP: test}, {Objective.SOP: training})  # type: ignore[arg-type, dict-item]
    baselines = NgramBaselines(store_of([5, 6]), 8)
    record = Evaluator(PlantedModel(), held_out, objective, baselines, CPU)._task_record(Objective.SOP)
    assert record is not None
    return record


def test_a_planted_feature_is_found() -> None:
    record = planted(signal_is_label=True)
    assert record["accuracy"] > 0.95
    assert record["left_baseline"] is True
    assert record["head"] == "fitted on the frozen encoder"
    assert record["examples"] == 1500


def test_noise_stays_at_chance() -> None:
    record = planted(signal_is_label=False)
    assert 0.46 < record["accuracy"] < 0.54
    assert record["left_baseline"] is False
    assert record["interval"][0] < 0.5 < record["interval"][1]


def test_the_models_own_head_is_reported_beside_the_fitted_one() -> None:
    record = planted(signal_is_label=True)
    assert record["own_head"]["examples"] == 1500
    assert 0.45 < record["own_head"]["accuracy"] < 0.55
    assert "own_head" not in planted(signal_is_label=True, objective=Objective.NONE)


def test_the_trained_head_is_used_for_the_arms_own_task() -> None:
    record = planted(signal_is_label=True, objective=Objective.SOP)
    assert record["head"] == "trained"
    assert 0.45 < record["accuracy"] < 0.55  # that head always answers 0
    assert "own_head" not in record


def test_the_majority_class_is_what_has_to_be_beaten() -> None:
    """A head that always answers the more frequent class has left nothing."""
    record = planted(signal_is_label=False, objective=Objective.SOP, ones=0.2)
    assert record["accuracy"] == pytest.approx(record["majority_class"])
    assert record["majority_class"] == pytest.approx(0.8, abs=0.03)
    assert record["left_baseline"] is False


def test_a_fitted_head_never_sees_a_held_out_label() -> None:
    """Labels of the held-out side turned round turn the accuracy round."""
    draw = np.random.default_rng(1)
    labels = draw.integers(0, 2, 1000)
    training = PlantedPairs(labels, labels)
    right = PlantedPairs(draw.integers(0, 2, 1000), labels)
    baselines = NgramBaselines(store_of([5, 6]), 8)
    accuracies = []
    for test in (right, PlantedPairs(1 - right.labels, right.signal)):
        held_out = HeldOut(test, {Objective.SOP: test}, {Objective.SOP: training})  # type: ignore[arg-type, dict-item]
        record = Evaluator(PlantedModel(), held_out, Objective.NONE, baselines, CPU)._task_record(Objective.SOP)
        assert record is not None
        accuracies.append(record["accuracy"])
    assert sum(accuracies) == pytest.approx(1.0)


@pytest.mark.parametrize(("pairs", "width", "strength"), [(400, 20, 1.0), (300, 10, 8.0), (50, 80, 1.0), (900, 6, 0.0)])
def test_newtons_method_finds_the_head_of_scikit_learn(pairs: int, width: int, strength: float) -> None:
    """Columns that are equal, that are constant, more columns than pairs, labels that can be told apart, and noise."""
    draw = np.random.default_rng(pairs)
    x, asked = draw.normal(3, 2, (2, pairs, width))
    x[:, 1], x[:, 2] = x[:, 0], 7.0
    direction = draw.normal(size=width)
    labels = (draw.random(pairs) < 1 / (1 + np.exp(-strength * (x - 3) @ direction - 1))).astype(np.int64)
    scaler = StandardScaler().fit(x)
    exact = LogisticRegression(C=fitted.C, tol=1e-10, max_iter=100_000).fit(scaler.transform(x), labels)
    weights, intercept = fitted.logistic_regression(
        torch.from_numpy(scaler.transform(x)), torch.from_numpy(labels).double()
    )
    np.testing.assert_allclose(weights, exact.coef_[0], atol=1e-4)
    assert float(intercept) == pytest.approx(exact.intercept_[0], abs=1e-4)
    device = torch.device("cpu")
    mine, theirs = (find(x, labels, asked, device) for find in (fitted._on_device, fitted._on_host))
    near = abs(exact.decision_function(scaler.transform(asked))) < 1e-2  # scikit-learn stops before the minimum
    assert ((mine == theirs) | near).all()
    assert near.mean() < 0.05
    assert mine.dtype == theirs.dtype


def test_scikit_learn_fits_on_a_cpu_and_the_device_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_on_host", "_on_device"):
        monkeypatch.setattr(fitted, name, lambda *_, name=name: name)
    nothing = np.zeros((1, 1))
    assert fitted.predicted(nothing, nothing, nothing, torch.device("cpu")) == "_on_host"
    assert fitted.predicted(nothing, nothing, nothing, torch.device("cuda")) == "_on_device"


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_a_head_for_features_that_are_not_scaled_gives_the_same_log_odds(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = np.random.default_rng(4)
    x, asked = draw.normal(3, [0.1, 1, 20, 0], (2, 600, 4))
    labels = (draw.random(600) < 1 / (1 + np.exp(10 * (x[:, 0] - 3)))).astype(np.int64)
    on_device = fitted._head_on_device
    monkeypatch.setattr(fitted, "_head_on_device", lambda x, labels, _: on_device(x, labels, torch.device("cpu")))
    weights, intercept = fitted.head(x, labels, torch.device(kind))
    scaler = StandardScaler().fit(x)
    exact = LogisticRegression(C=fitted.C, tol=1e-10, max_iter=100_000).fit(scaler.transform(x), labels)
    expected = exact.decision_function(scaler.transform(asked))
    np.testing.assert_allclose(asked @ weights + intercept, expected, atol=2e-3)
    assert abs(expected).max() > 1


def test_a_task_the_text_cannot_give_has_no_record() -> None:
    held_out = HeldOut(None, {}, {})  # type: ignore[arg-type]
    evaluator = Evaluator(PlantedModel(), held_out, Objective.SOP, NgramBaselines(store_of([5]), 8), CPU)
    assert evaluator._task_record(Objective.NSP) is None


# --- a whole record ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("evaluation")


def evaluator_of(folder: Path, objective: str) -> Evaluator:
    config = tiny_config(folder, f"objective={objective}", "evaluation.max_pairs=200", "evaluation.probe_pairs=200")
    prepared, held_out = held_out_of(config)
    model = build_model(config.architecture(), 0)
    return Evaluator(model, held_out, config.objective.name, NgramBaselines(prepared.train, 200), CPU)


@pytest.mark.parametrize("objective", [o.value for o in Objective])
def test_an_untrained_model_has_left_no_baseline(folder: Path, objective: str) -> None:
    results = evaluator_of(folder, objective).results()
    assert set(results) == {"masked_lm", "nsp", "sop", "replaced_tokens"}
    for record in results.values():
        assert record["left_baseline"] is False
    assert results["masked_lm"]["gain_over_unigram"] < PLATEAU_MARGIN


def test_masked_lm_numbers_equal_a_plain_loop(folder: Path) -> None:
    evaluator = evaluator_of(folder, "sop")
    record = evaluator.results()["masked_lm"]
    model, losses, hits, unigram, bigram = evaluator.model.eval(), [], [], [], []
    counts = np.bincount(np.concatenate([np.asarray(evaluator.held_out.probe_training[Objective.SOP].store.tokens)]),
                         minlength=200) + 1.0  # fmt: skip
    probabilities = counts / counts.sum()
    assert evaluator.baselines is not None
    with torch.no_grad():
        for batch in evaluator.held_out.plain.batches():
            hidden = model.encoder(batch.input_ids, batch.type_ids, batch.mask)
            for position, target in zip(batch.positions.tolist(), batch.targets.tolist(), strict=True):
                row, column = divmod(position, 32)
                logits = model.mlm_head(hidden[row, column][None], model.encoder.embedding.word.weight)[0]
                losses.append(-torch.log_softmax(logits.double(), 0)[target].item())
                hits.append(logits.argmax().item() == target)
                unigram.append(-math.log(probabilities[target]))
                left = batch.input_ids[row, column - 1 : column].numpy()
                bigram.append(evaluator.baselines.bigram_loss(left, np.array([target]))[0])
    assert record["examples"] == len(losses) > 100
    assert record["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert record["accuracy"] == pytest.approx(np.mean(hits), abs=1.5 / len(hits))
    assert record["unigram_loss"] == pytest.approx(np.mean(unigram), rel=1e-9)
    assert record["bigram_loss"] == pytest.approx(np.mean(bigram), rel=1e-9)
    assert record["gain_over_unigram"] == pytest.approx(np.mean(unigram) - np.mean(losses), rel=1e-4, abs=1e-6)


def test_a_point_of_the_curve_is_a_prefix_of_the_whole(folder: Path) -> None:
    evaluator = evaluator_of(folder, "nsp")
    results, whole, part = evaluator.results(), evaluator.curve_point(10**6), evaluator.curve_point(16)
    assert whole["mlm_loss"] == pytest.approx(results["masked_lm"]["loss"])
    assert whole["mlm_accuracy"] == pytest.approx(results["masked_lm"]["accuracy"])
    assert whole["sentence_accuracy"] == pytest.approx(results["nsp"]["accuracy"])
    assert part["mlm_loss"] != whole["mlm_loss"]
    assert part["sentence_accuracy"] * 16 == pytest.approx(round(part["sentence_accuracy"] * 16))
    assert "sentence_accuracy" not in evaluator_of(folder, "none").curve_point(16)


def test_on_a_gpu_the_batches_of_a_set_have_one_shape_and_give_the_same_numbers(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluator = evaluator_of(folder, "sop")
    config = tiny_config(folder, "batch.micro_size=5", "evaluation.max_pairs=17")
    evaluator.held_out = held_out_of(config)[1]
    expected = evaluator.results()
    shapes, forward = set(), evaluator.model.encoder.forward

    monkeypatch.setattr(intrinsic, "replaced_tokens", lambda *_: "tested in test_replaced.py")

    def seen(ids: Tensor, types: Tensor, mask: Tensor, rows: Tensor) -> Tensor:
        shapes.add((tuple(ids.shape), tuple(rows.shape)))
        result: Tensor = forward(ids, types, mask, rows=rows)
        return result

    monkeypatch.setattr(evaluator.model.encoder, "forward", seen)
    evaluator.results()
    assert {shape for shape, _ in shapes} == {(5, 32), (2, 32)}, "17 held-out pairs and 32 training pairs"
    shapes.clear()
    monkeypatch.setattr(intrinsic, "moved", lambda batch, device, fill: fill(batch))
    found = evaluator.results()
    assert shapes == {((5, 32), (5 * 5,)), ((5, 32), (5,))}, "masked LM at 15% of 32 tokens, and [CLS]"
    for key, value in expected["masked_lm"].items():
        assert found["masked_lm"][key] == pytest.approx(value, rel=1e-5), key
    assert {task: found[task] for task in ("nsp", "sop")} == {task: expected[task] for task in ("nsp", "sop")}


def test_on_a_gpu_no_batch_waits_for_the_host(tmp_path: Path) -> None:
    """On the accelerator that refuses what would wait; a copy of its batch is all that a forward pass is sent."""
    path = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    script = [sys.executable, str(ROOT / "tests" / "gpu_evaluation.py"), str(tmp_path)]
    done = subprocess.run(script, capture_output=True, text=True, env=one_thread() | path, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    sent = 4 * 6  # the tensors of a batch of masked LM
    assert found == {
        "masked LM": {"from_host": sent, "shapes": [[22], [23], [22], [10]]},
        "sentences": {"from_host": sent, "shapes": [[5, 32], [5, 32], [5, 32], [2, 32]]},
        "replaced tokens, fitting": {"from_host": sent, "shapes": [[145, 32], [145, 32], [145, 32], [58, 32]]},
        "replaced tokens": {"from_host": sent + 1, "shapes": [[5, 32], [5, 32], [5, 32], [2, 32]]},  # the head, once
    }


def test_a_filled_batch_keeps_what_it_has(folder: Path) -> None:
    batch = next(held_out_of(tiny_config(folder))[1].plain.batches(3))
    more = passes.filled(batch, 5, 40)
    masked = len(batch.targets)
    assert [tuple(tensor.shape) for tensor in more.tensors().values()] == [*[(5, 32)] * 3, (40,), (40,), (5,)]
    assert equal(
        [more.input_ids[:3], more.mask[:3], more.targets[:masked]], [batch.input_ids, batch.mask, batch.targets]
    )
    assert not more.mask[3:].any()
    assert not more.positions[masked:].any()
    assert batch_arrays(passes.filled(batch, 2, 1)) == batch_arrays(batch)


def test_results_are_read_many_at_a_time() -> None:
    events = []

    def queued() -> Iterator[tuple[int, list[Tensor]]]:
        for number in range(2 * passes.READ_TOGETHER + 3):
            events.append(f"queued {number}")
            yield number, [torch.tensor(number), torch.tensor([2.0 * number])]

    for about, (one, two) in passes.read(queued()):
        events.append(f"read {about}")
        assert (int(one), two.tolist()) == (about, [2.0 * about])
    every = passes.READ_TOGETHER
    assert events.index("read 0") == every, "nothing is read before as many are queued"
    assert events.index(f"queued {every}") == 2 * every
    assert len(events) == 2 * (2 * every + 3)


def test_evaluation_is_without_dropout_and_repeatable(folder: Path) -> None:
    config = tiny_config(folder, "model.hidden_dropout=0.5", "model.attention_dropout=0.5")
    prepared, held_out = held_out_of(config)
    model = build_model(config.architecture(), 0).train()
    evaluator = Evaluator(model, held_out, Objective.SOP, NgramBaselines(prepared.train, 200), CPU)
    assert evaluator.results() == evaluator.results()


@pytest.mark.parametrize("gain", [-0.5, 0.05, 0.5])
def test_a_run_has_left_its_baseline_only_beyond_the_margin(
    folder: Path, gain: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluator = evaluator_of(folder, "sop")
    draw = np.random.default_rng(0)

    def sums(*_: Any) -> dict[str, np.ndarray]:
        count = np.full(400, 5.0)
        unigram = 25 + draw.normal(0, 0.5, 400)
        loss = unigram - 5 * gain + draw.normal(0, 0.05, 400)
        zero = np.zeros(400)
        sums = {"loss": loss, "unigram": unigram, "bigram": unigram, "hits": zero, "frequent": zero, "count": count}
        return sums | {"late_loss": zero, "late_count": zero}

    monkeypatch.setattr(Evaluator, "_masked_lm", sums)
    record = evaluator._masked_lm_record()
    assert record["gain_over_unigram"] == pytest.approx(gain, abs=0.01)
    assert record["left_baseline"] is (gain > PLATEAU_MARGIN)


def test_long_sequences_are_scored_by_position_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Early and late positions apart, by a plain loop over the held-out batches."""
    monkeypatch.setattr(intrinsic, "LATE", 10)
    evaluator = evaluator_of(folder, "sop")
    record = evaluator._masked_lm_record()
    sides: dict[bool, list[float]] = {False: [], True: []}
    with torch.inference_mode():
        for batch in evaluator.held_out.plain.batches(None):
            states = evaluator.model.encoder(batch.input_ids, batch.type_ids, batch.mask).flatten(0, 1)
            logits = evaluator.model.token_logits(states[batch.positions]).double()
            losses = -logits.log_softmax(-1)[torch.arange(len(batch.targets)), batch.targets]
            for position, loss in zip(
                (batch.positions % batch.input_ids.shape[1]).tolist(), losses.tolist(), strict=True
            ):
                sides[position >= 10].append(loss)
    found = record["by_position"]
    assert found["split"] == 10
    assert found["early"] == pytest.approx(np.mean(sides[False]), abs=1e-4)
    assert found["late"] == pytest.approx(np.mean(sides[True]), abs=1e-4)
    assert found["early_interval"][0] < found["early"] < found["early_interval"][1]
    monkeypatch.setattr(intrinsic, "LATE", 512)
    assert "by_position" not in evaluator._masked_lm_record()
