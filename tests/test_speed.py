"""Inference speed: what is measured, for how long, and that nothing else changes."""

import copy
import time
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest
import torch
from runhelpers import run, tiny_config
from test_huggingface_parity import architecture

from albert_ablate.axes import Share
from albert_ablate.evaluation.speed import inference_speed
from albert_ablate.model.pretraining import build_model
from albert_ablate.record.results import Inference, Results
from albert_ablate.training.machine import Machine

MACHINE = Machine(torch.device("cpu"), "fp32")


class Timed(torch.nn.Module):
    """Stands in for an encoder; each pass moves the clock by the next of ``seconds``, the last one for ever."""

    def __init__(self, *seconds: float) -> None:
        super().__init__()
        self.shape = architecture(Share.ALL, 16)
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.now, self._seconds = 0.0, chain(seconds, repeat(seconds[-1]))
        self.read: list[Any] = []

    def forward(self, ids: torch.Tensor, types: torch.Tensor) -> None:
        self.now += next(self._seconds)
        self.read.append((ids, types, torch.is_grad_enabled(), self.training))


def measured(encoder: Any, monkeypatch: pytest.MonkeyPatch, length: int = 40) -> Inference:
    with monkeypatch.context() as patched:
        patched.setattr(time, "perf_counter", lambda: encoder.now)
        return inference_speed(encoder, length, MACHINE)


@pytest.mark.parametrize(("seconds", "passes"), [(0.001, 200), (0.03125, 26), (5.0, 5)])
def test_it_ends_after_most_of_a_second_or_many_passes(
    seconds: float, passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = Timed(seconds)
    found = measured(encoder, monkeypatch)
    assert (found.repetitions, len(encoder.read)) == (passes, passes + 3)
    assert found.milliseconds == pytest.approx(1000 * seconds)


def test_the_warm_up_does_not_count_and_the_median_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    found = measured(Timed(9, 9, 9, 1, 2, 3, 4, 90), monkeypatch)
    assert (found.repetitions, found.milliseconds) == (5, 3000)
    assert found.percentiles == pytest.approx([1400, 55600])  # linear between 1 and 2, and between 4 and 90


def test_one_full_sequence_without_gradients_in_evaluation_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = Timed(0.5)
    found = measured(encoder, monkeypatch)
    for ids, types, gradients, training in encoder.read:
        assert ids.shape == types.shape == (1, 40)
        assert 0 <= ids.min() <= ids.max() < encoder.shape.vocab_size
        assert not gradients
        assert not training
    assert (found.sequences, found.length, found.precision, found.device) == (1, 40, "fp32", "cpu")
    assert found.threads == torch.get_num_threads()


def test_a_sequence_longer_than_the_vocabulary_repeats_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = Timed(0.5)
    measured(encoder, monkeypatch, length=500)
    assert encoder.read[0][0].max() == encoder.shape.vocab_size - 1


def test_neither_weights_nor_random_numbers_change() -> None:
    model = build_model(architecture(Share.ALL, 16, hidden_dropout=0.5), seed=3)
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    inference_speed(model.encoder, 16, MACHINE)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_run_records_it(tmp_path: Path) -> None:
    folder = run(tiny_config(tmp_path, "budget.steps=2", "budget.warmup_steps=1", "pairs.max_length=24"))
    found = folder.load("results.json", Results).inference
    assert found is not None
    assert (found.length, found.precision, found.threads) == (24, "fp32", 1)
    assert found.percentiles is not None
    assert 0 < found.percentiles[0] <= found.milliseconds <= found.percentiles[1]
