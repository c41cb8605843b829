"""Named randomness."""

import random

import numpy as np
import pytest
import torch
from scipy import stats

from albert_ablate import streams


def test_names_counters_and_seeds_give_different_keys() -> None:
    keys = [
        streams.key(s, name, *counters)
        for s in range(3)
        for name in ("mask", "pairs", "mask1")
        for counters in ((), (0,), (1,), (0, 1), (1, 0), ("0",))
    ]
    assert len(set(keys)) == 3 * 3 * 5  # the counter 0 and the text "0" are one


def test_an_element_depends_on_its_own_counters_alone() -> None:
    key = streams.key(0, "test")
    whole = streams.uniform(key, np.arange(1000), 3)
    np.testing.assert_array_equal(whole[500:], streams.uniform(key, np.arange(500, 1000), 3))
    np.testing.assert_array_equal(whole[::-1], streams.uniform(key, np.arange(1000)[::-1], 3))
    grid = streams.uniform(key, np.arange(5)[:, None], np.arange(7))
    assert grid[2, 3] == streams.uniform(key, 2, 3)
    assert grid[2, 3] != grid[3, 2]


@pytest.mark.parametrize("step", [1, 2, 1024, 2**40])
def test_draws_are_uniform_and_uncorrelated(step: int) -> None:
    draws = streams.uniform(streams.key(0, "test"), np.arange(100_000) * step)
    assert stats.kstest(draws, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 0.015
    other = streams.uniform(streams.key(1, "test"), np.arange(100_000) * step)
    assert abs(np.corrcoef(draws, other)[0, 1]) < 0.015


def test_integers_cover_their_range_evenly() -> None:
    found = streams.integers(streams.key(0, "test"), 3, 10, np.arange(70_000))
    assert stats.chisquare(np.bincount(found, minlength=10)[3:]).pvalue > 1e-3
    assert found.min() == 3
    assert found.max() == 9


@pytest.mark.parametrize("trials", [0, 1, 22, 64, 65, 200])
def test_fair_binomial_is_binomial(trials: int) -> None:
    found = streams.fair_binomial(streams.key(0, "test"), np.full(20_000, trials), np.arange(20_000))
    assert found.min() >= 0
    assert found.max() <= trials
    assert found.mean() == pytest.approx(trials / 2, abs=0.1 + 1e-9)
    assert found.var() == pytest.approx(trials / 4, rel=0.05, abs=1e-9)


def test_generators_repeat_and_touch_no_global_state() -> None:
    before = (random.getstate(), np.random.get_state(legacy=False)["state"]["key"].tolist(), torch.get_rng_state())  # noqa: NPY002
    a, b = streams.generator(0, "x", 1), streams.generator(0, "x", 1)
    assert a.random(5).tolist() == b.random(5).tolist()
    assert a.random() != streams.generator(0, "x", 2).random()
    c, d = (torch.rand(5, generator=streams.torch_generator(0, "x")) for _ in range(2))
    assert torch.equal(c, d)
    streams.uniform(1, np.arange(10))
    assert random.getstate() == before[0]
    assert np.random.get_state(legacy=False)["state"]["key"].tolist() == before[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[2])
