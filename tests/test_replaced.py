"""The replaced-token probe: its text, its scores, and what an encoder must know to beat its baselines."""

import threading
from collections import Counter
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from runhelpers import held_out_of, tiny_config
from test_evaluation import CPU, documents_of
from torch import Tensor, nn

from albert_ablate.data.tokenizer import FIRST_PIECE, UNK
from albert_ablate.evaluation import fitted, replaced
from albert_ablate.evaluation.baselines import BIGRAM_PRIOR, NgramBaselines, NgramTables
from albert_ablate.evaluation.corruption import BY_BIGRAM, BY_UNIGRAM, ORIGINAL, Draws, corrupted
from albert_ablate.evaluation.heldout import HeldOut, PairSet
from albert_ablate.evaluation.intervals import clustered_auc
from albert_ablate.evaluation.intrinsic import Evaluator
from albert_ablate.evaluation.replaced import odds_by_piece, replaced_tokens
from albert_ablate.model.pretraining import build_model
from albert_ablate.record.results import ReplacedTokens
from albert_ablate.training.distributed import World
from albert_ablate.training.machine import Machine

_PIECES = 200


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("replaced")


def sets_of(folder: Path, *more: str) -> HeldOut:
    whole = ("evaluation.max_pairs=500", "evaluation.probe_pairs=500")
    held_out = held_out_of(tiny_config(folder, *whole, *more))[1]
    assert isinstance(held_out, HeldOut)
    return held_out


def draws_of(held_out: HeldOut) -> Draws:
    assert held_out.plain_training is not None
    return Draws(NgramTables.of([held_out.plain_training.store], _PIECES))


def text_of(pairs: PairSet, draws: Draws, side: str = "held-out") -> list[list[int]]:
    """The shown ids and the kinds of all tokens, sequence by sequence."""
    rows = []
    for part in pairs.parts():
        text = corrupted(pairs, part, draws, side)
        kinds = np.full(text.ids.size, -1)
        kinds[text.text] = text.kinds
        rows += np.concatenate([text.ids, kinds.reshape(text.ids.shape)], axis=1).tolist()
    return rows


# --- the text ---------------------------------------------------------------------------------------


def test_labels_say_which_tokens_of_text_differ(folder: Path) -> None:
    held_out = sets_of(folder)
    draws, counts = draws_of(held_out), Counter[int]()
    for masked, part in zip(held_out.plain.batches(), held_out.plain.parts(), strict=True):
        original = masked.input_ids.clone().flatten()
        original[masked.positions] = masked.targets.int()
        text = corrupted(held_out.plain, part, draws, "held-out")
        shown, batch = text.ids.reshape(-1), text.batch()
        ordinary = [i for i, piece in enumerate(original.tolist()) if piece >= FIRST_PIECE or piece == UNK]
        assert text.text.tolist() == batch.positions.tolist() == ordinary
        assert batch.targets.tolist() == [int(shown[i] != original[i]) for i in ordinary]
        assert (batch.targets.numpy() == (text.kinds != ORIGINAL)).all()
        rest = np.setdiff1d(np.arange(shown.size), ordinary)
        assert (shown[rest] == original.numpy()[rest]).all(), "[CLS], [SEP] and padding stay"
        assert torch.equal(batch.type_ids, masked.type_ids)
        assert torch.equal(batch.mask, masked.mask)
        assert (text.pieces == shown[ordinary]).all()
        assert (text.pieces >= FIRST_PIECE).all(), "no special piece is drawn"
        assert text.rows.tolist() == [i // 32 for i in ordinary]
        counts.update(text.kinds.tolist())
    share = 1 - counts[ORIGINAL] / counts.total()
    assert counts.total() > 1500
    assert 0.09 < share < 0.15, "0.15, less the draws that gave the original piece"
    assert 0.35 < counts[BY_BIGRAM] / (counts[BY_UNIGRAM] + counts[BY_BIGRAM]) < 0.55


def test_pieces_are_drawn_from_the_models() -> None:
    documents = [[5, 6, 7, 5, 6, 6, 5], [7, 5, 6, 5, 6, 7, 7], [8, 6, 7, 6]]
    tokens = [token for document in documents for token in document]
    draws = Draws(NgramTables.of([documents_of(*documents)], 10))
    random = np.random.default_rng(0)
    count = 200_000
    frequency = np.bincount(tokens, minlength=10) / len(tokens)
    found = np.bincount(draws.unigram(random.random(count)), minlength=10) / count
    np.testing.assert_allclose(found, frequency, atol=0.005)
    assert found[frequency == 0].sum() == 0
    neighbours = list(pairwise(tokens))
    for left in (5, 6, 8, 3):  # nothing ever follows 3, a separator
        followed = [b for a, b in neighbours if a == left]
        expected = (np.bincount(followed, minlength=10) + BIGRAM_PRIOR * frequency) / (len(followed) + BIGRAM_PRIOR)
        pieces = draws.bigram(np.full(count, left), random.random(count), random.random(count))
        np.testing.assert_allclose(np.bincount(pieces, minlength=10) / count, expected, atol=0.005)
    extremes = np.array([0.0, np.nextafter(1.0, 0.0)])
    assert draws.unigram(extremes).tolist() == [5, 8]
    assert draws.bigram(np.array([6, 6]), np.full(2, extremes[1]), extremes).tolist() == [5, 7]


def test_a_bigram_draw_follows_its_left_neighbour() -> None:
    """After 5 always 6, after 6 always 5: with thousands of pairs the prior hardly counts."""
    draws = Draws(NgramTables.of([documents_of([5, 6] * 5000)], 8))
    random = np.random.default_rng(1)
    left = np.array([5, 6] * 500)
    pieces = draws.bigram(left, random.random(1000), random.random(1000))
    assert (pieces == 11 - left).mean() > 0.97
    assert 0.4 < (draws.unigram(random.random(1000)) == 5).mean() < 0.6


def test_the_text_is_the_same_for_every_arm_seed_and_division(folder: Path) -> None:
    held_out = sets_of(folder)
    draws = draws_of(held_out)
    whole = text_of(held_out.plain, draws)
    other = ("batch.micro_size=5", "seed=7", "objective=nsp", "share=none", "embed.size=8", "masking.probability=0.3")
    assert text_of(sets_of(folder, *other).plain, draws) == whole
    assert text_of(sets_of(folder, "evaluation.max_pairs=20").plain, draws) == whole[:20]


def test_the_sides_do_not_share_draws(folder: Path) -> None:
    held_out = sets_of(folder)
    draws = draws_of(held_out)
    a, b = (np.array(text_of(held_out.plain, draws, side)) for side in ("held-out", "training"))
    replaced_a, replaced_b = (rows[:, 32:] > ORIGINAL for rows in (a, b))
    both = (replaced_a & replaced_b).mean() / (replaced_a.mean() * replaced_b.mean())
    assert both < 3, "independent draws rarely replace the same token"
    assert (a != b).any()


# --- the measures -----------------------------------------------------------------------------------


def test_auc_is_the_share_of_ordered_pairs() -> None:
    draw = np.random.default_rng(0)
    scores, labels = draw.integers(0, 12, 300).astype(float), draw.integers(0, 2, 300)
    ones, zeros = scores[labels == 1], scores[labels == 0]
    wins = sum(float(a > b) + float(a == b) / 2 for a in ones for b in zeros)
    area, (low, high) = clustered_auc(scores, labels, np.arange(300))
    assert area == pytest.approx(wins / (len(ones) * len(zeros)))
    assert low < area < high
    perfect = clustered_auc(labels.astype(float), labels, np.arange(300))
    assert perfect == (1.0, [1.0, 1.0])
    assert clustered_auc(-scores, labels, np.arange(300))[0] == pytest.approx(1 - area)
    assert clustered_auc(scores, labels, np.zeros(300, dtype=int))[1] == [area, area], "one cluster claims no width"


def test_without_clusters_the_error_of_auc_is_delongs() -> None:
    """DeLong et al. (1988), by its double sums."""
    draw = np.random.default_rng(3)
    labels = draw.integers(0, 2, 400)
    scores = draw.normal(size=400) + labels
    ones, zeros = scores[labels == 1], scores[labels == 0]
    wins = (ones[:, None] > zeros).astype(float)
    error = np.sqrt(wins.mean(1).var(ddof=1) / len(ones) + wins.mean(0).var(ddof=1) / len(zeros))
    _, (low, high) = clustered_auc(scores, labels, np.arange(400))
    assert (high - low) / 2 == pytest.approx(1.966 * error, rel=0.01)


def test_the_interval_of_auc_covers_the_truth_where_tokens_of_a_sequence_agree() -> None:
    draw = np.random.default_rng(0)
    covered = naive = 0
    trials, clusters, size = 400, 40, 12
    for _ in range(trials):
        shared = draw.normal(0, 1, clusters)  # moves the scores of the ones of a sequence together; the truth is 0.5
        labels = draw.integers(0, 2, (clusters, size))
        scores = draw.normal(0, 1, (clusters, size)) * np.where(labels, 0.3, np.sqrt(1.09)) + shared[:, None] * labels
        flat = (scores.reshape(-1), labels.reshape(-1))
        _, (low, high) = clustered_auc(*flat, np.repeat(np.arange(clusters), size))
        covered += low <= 0.5 <= high
        _, (low, high) = clustered_auc(*flat, np.arange(clusters * size))
        naive += low <= 0.5 <= high
    assert 0.92 <= covered / trials <= 0.98
    assert naive / trials < 0.8


def test_log_odds_by_piece_by_hand() -> None:
    """Piece 1 is replaced in 3 of 4, piece 2 in none of 5; the base rate is a third."""
    odds = odds_by_piece(np.array([0, 4, 5]), np.array([0, 3, 0]))
    shares = np.array([1 / 3, (3 + 1 / 3) / 5, (1 / 3) / 6])
    np.testing.assert_allclose(odds, np.log(shares / (1 - shares)))


# --- encoders that know something -------------------------------------------------------------------


class Knowing(nn.Module):
    """Its states are a function of the shown ids."""

    def __init__(self, features: Any, width: int) -> None:
        super().__init__()
        self.features, self.shape = features, SimpleNamespace(hidden_size=width)

    def forward(self, ids: Tensor, *_: Tensor) -> Tensor:
        states: Tensor = self.features(ids)
        return states


def pieces_alone(ids: Tensor) -> Tensor:
    """One-hot of the shown piece."""
    return nn.functional.one_hot(ids.long(), _PIECES).float()


def scores_of(encoder: Any, held_out: HeldOut, machine: Machine = CPU) -> ReplacedTokens:
    record = replaced_tokens(encoder, held_out, machine)
    assert isinstance(record, ReplacedTokens), record
    return record


def test_an_encoder_that_shows_the_piece_equals_the_token_only_model(folder: Path) -> None:
    record = scores_of(Knowing(pieces_alone, _PIECES), sets_of(folder)).as_json()
    assert record["auc"] == pytest.approx(record["token_auc"], abs=0.03)
    assert record["left_baseline"] is False
    assert record["base_accuracy"] == pytest.approx(1 - record["replaced"])
    rate = record["replaced"]
    assert record["base_loss"] == pytest.approx(-rate * np.log(rate) - (1 - rate) * np.log(1 - rate))
    assert record["interval"][0] < record["auc"] < record["interval"][1]


def test_an_encoder_that_knows_the_neighbours_beats_what_sees_the_piece_alone(folder: Path) -> None:
    held_out = sets_of(folder)
    assert held_out.plain_training is not None
    baselines = NgramBaselines(held_out.plain_training.store, _PIECES)

    def surprise(ids: Tensor) -> Tensor:
        """Pointwise information of each piece with both neighbours, in nats: high where they fit."""
        left, right = (np.roll(ids.numpy(), shift, axis=1).reshape(-1) for shift in (1, -1))
        here = ids.numpy().reshape(-1)
        before = baselines.unigram_loss(here) - baselines.bigram_loss(left, here)
        after = baselines.unigram_loss(right) - baselines.bigram_loss(here, right)
        return torch.from_numpy(np.stack([before, after], axis=1)).float().reshape(*ids.shape, 2)

    record = scores_of(Knowing(surprise, 2), held_out)
    assert record.auc is not None
    assert record.token_auc is not None
    assert record.auc > record.token_auc + 0.1
    assert record.left_baseline is True
    assert record.loss is not None
    assert record.base_loss is not None
    assert record.loss < record.base_loss
    assert record.unigram_auc is not None
    assert record.bigram_auc is not None
    assert record.unigram_auc > record.bigram_auc > 0.5, "what fits its left neighbour is harder to find"


def test_an_oracle_finds_every_replaced_token(folder: Path) -> None:
    held_out = sets_of(folder)
    draws, known = draws_of(held_out), {}
    for side, pairs in (("held-out", held_out.plain), ("training", held_out.plain_training)):
        assert pairs is not None
        for ids_and_kinds in text_of(pairs, draws, side):
            known[tuple(ids_and_kinds[:32])] = [max(kind, 0) for kind in ids_and_kinds[32:]]

    def told(ids: Tensor) -> Tensor:
        return torch.tensor([known[tuple(row)] for row in ids.tolist()]).gt(0).float()[..., None].expand(-1, -1, 3)

    record = scores_of(Knowing(told, 3), held_out)
    assert (record.auc, record.accuracy, record.recall) == (1.0, 1.0, 1.0)
    assert record.loss == pytest.approx(0, abs=0.05)


def test_an_untrained_encoder_knows_no_more_than_the_piece(folder: Path) -> None:
    encoder = build_model(tiny_config(folder).architecture(), 0).encoder
    record = scores_of(encoder, sets_of(folder))
    assert record.auc is not None
    assert record.token_auc is not None
    assert abs(record.auc - record.token_auc) < 0.06
    assert record.left_baseline is False


def test_the_record_equals_a_plain_loop(folder: Path) -> None:
    """The head's log-odds token by token; counts, loss, accuracy and recall from them."""
    held_out = sets_of(folder, "batch.micro_size=8")
    encoder = Knowing(lambda ids: torch.stack([torch.sin(0.1 * ids), ids / 100], dim=-1), 2)
    record = scores_of(encoder, held_out)
    training, draws = held_out.plain_training, draws_of(held_out)
    assert training is not None
    head = replaced._fit(encoder, training, draws, CPU)  # type: ignore[arg-type]
    assert head is not None
    losses, hits, found, labels = [], [], [], []
    for row in text_of(held_out.plain, draws):
        for piece, kind in zip(row[:32], row[32:], strict=True):
            if kind >= 0:
                odds = head.weights @ np.array([np.sin(0.1 * piece), piece / 100]) + head.intercept
                chance = 1 / (1 + np.exp(-odds))
                losses.append(-np.log(chance if kind else 1 - chance))
                hits.append((chance > 0.5) == (kind > 0))
                labels.append(kind > 0)
                found += [chance > 0.5] if kind else []
    assert record.examples == len(losses)
    assert record.sequences == len(held_out.plain)
    assert record.loss == pytest.approx(np.mean(losses), rel=1e-5)
    assert record.accuracy == pytest.approx(np.mean(hits))
    assert record.recall == pytest.approx(np.mean(found))
    assert record.replaced == pytest.approx(np.mean(labels))


# --- processes, devices, and texts that do not allow it ---------------------------------------------


@dataclass(frozen=True)
class Neighbour(World):
    """One of two processes, here threads."""

    board: Any = None
    barrier: Any = None

    def gather(self, value: Any) -> list[Any]:
        self.barrier.wait()
        self.board[self.rank] = value
        self.barrier.wait()
        return list(self.board)


@pytest.mark.parametrize("pairs", [500, 16])  # 16: two batches, one for each; the last one of 500 is of one process
def test_several_processes_give_the_numbers_of_one(folder: Path, pairs: int) -> None:
    config = tiny_config(folder, f"evaluation.max_pairs={pairs}", f"evaluation.probe_pairs={pairs}")
    held_out = held_out_of(config)[1]
    alone = scores_of(build_model(config.architecture(), 0).encoder, held_out).as_json()
    board, barrier = [None, None], threading.Barrier(2)
    found: dict[int, Any] = {}

    def process(rank: int) -> None:
        machine = replace(CPU, world=Neighbour(rank, 2, board, barrier))
        found[rank] = scores_of(build_model(config.architecture(), 0).encoder, held_out, machine).as_json()

    threads = [threading.Thread(target=process, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == {0: alone, 1: alone}


def test_on_a_gpu_all_batches_have_one_shape_and_give_the_same_numbers(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(folder, "batch.micro_size=5", "evaluation.max_pairs=17", "evaluation.probe_pairs=33")
    held_out, encoder = held_out_of(config)[1], build_model(config.architecture(), 0).encoder
    alone = scores_of(encoder, held_out).as_json()
    shapes: set[tuple[int, ...]] = set()
    forward = encoder.forward

    def seen(*inputs: Tensor) -> Tensor:
        shapes.update(tuple(tensor.shape) for tensor in inputs)
        result: Tensor = forward(*inputs)
        return result

    monkeypatch.setattr(encoder, "forward", seen)
    monkeypatch.setattr(replaced, "moved", lambda batch, device, fill: fill(batch))
    found = scores_of(encoder, held_out).as_json()
    assert shapes == {(5, 32)}
    for name, value in alone.items():
        assert found[name] == pytest.approx(value, rel=1e-5), name


def test_the_head_is_fitted_on_no_more_than_its_share(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held_out, rows, fit = sets_of(folder), [], fitted.head

    def noted(x: np.ndarray, *rest: Any) -> tuple[np.ndarray, float]:
        rows.append(len(x))
        return fit(x, *rest)

    encoder = build_model(tiny_config(folder).architecture(), 0).encoder
    monkeypatch.setattr(fitted, "head", noted)
    for tokens, numbers in ((2**17, 2**26), (640, 2**26), (2**17, 640 * 32)):
        monkeypatch.setattr(replaced, "_FITTED_ON", tokens)
        monkeypatch.setattr(replaced, "_NUMBERS", numbers)
        scores_of(encoder, held_out)
    assert rows[0] > 3000
    assert rows[1] == rows[2], "20 pairs of 32 tokens, by either limit"
    assert 300 < rows[1] < 640


def test_a_text_that_does_not_allow_it_says_why(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, held_out = tiny_config(folder), sets_of(folder)
    model = build_model(config.architecture(), 0)
    evaluator = Evaluator(model, replace(held_out, plain_training=None), config.objective.name, None, CPU)
    results = evaluator.results()
    assert results["replaced_tokens"] is None
    assert results["left_out"] == {"replaced_tokens": "no training documents to fit a head on"}
    training = held_out.plain_training
    assert training is not None
    monotonous = replace(training, store=documents_of([5] * len(training.store.tokens)))
    found = replaced_tokens(model.encoder, replace(held_out, plain_training=monotonous), CPU)
    assert found == "no token of the training pairs was replaced", "every draw gives the original piece"
    none = replace(training, pairs=training.pairs.take(slice(0)))
    found = replaced_tokens(model.encoder, replace(held_out, plain_training=none), CPU)
    assert found == "no training document has two sentences"
    whole = replaced._score(model.encoder, held_out.plain, draws_of(held_out), replaced._Head(
        np.zeros(32), 0.0, np.zeros(_PIECES)
    ), CPU)  # fmt: skip
    for kind, reason in ((ORIGINAL, "no token of the held-out pairs was replaced"), (BY_BIGRAM, "")):
        few = replace(whole, kinds=np.where(whole.kinds == ORIGINAL, ORIGINAL, kind))
        monkeypatch.setattr(replaced, "_score", lambda *_, few=few: few)
        found = replaced_tokens(model.encoder, held_out, CPU)
        if reason:
            assert found == reason
        else:
            assert isinstance(found, ReplacedTokens)
            assert (found.unigram_auc, found.bigram_auc) == (None, found.auc), "a kind that a short text lacks"
