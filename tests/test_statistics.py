"""Intervals and verdicts against what they promise, over hundreds of simulated sweeps."""

import math

import numpy as np
import pandas as pd
import pytest
from reporthelpers import simulated
from scipy import stats
from statsmodels.stats.multitest import multipletests

from analysis.judge.claims import Claim, judge
from analysis.judge.statistics import estimate, holm, p_above, p_below, p_two_sided, paired, seeds_needed
from analysis.judge.tables import arms_of, compare_arms
from analysis.read.cells import select

SWEEPS = 500


ARMS = {share: arms_of("table4")[f"table4.{row}"] for share, row in (("all", 5), ("attention", 6), ("none", 8))}
CLAIM = Claim("c", "c", {"none": "table4.8", "all": "table4.5"}, {"none": 1, "all": -1}, ["MLM"], above=0)


def test_an_interval_is_students() -> None:
    found = estimate([1.0, 2.0, 4.0])
    assert found is not None
    low, high = stats.t.interval(0.95, 2, 7 / 3, stats.sem([1.0, 2.0, 4.0]))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.n == 3
    test = stats.ttest_1samp([1.0, 2.0, 4.0], 0)
    assert p_two_sided(found) == pytest.approx(test.pvalue)
    assert p_above(found, 1.0) == pytest.approx(stats.ttest_1samp([1.0, 2.0, 4.0], 1.0, alternative="greater").pvalue)
    assert p_below(found, 1.0) == pytest.approx(1 - p_above(found, 1.0))


def test_one_seed_has_no_interval_and_decides_nothing() -> None:
    found = estimate([2.0])
    assert found is not None
    assert math.isnan(found.low)
    assert not found.excludes_zero
    assert p_two_sided(found) == 1
    assert estimate([]) is None
    assert estimate([float("nan")]) is None


def test_pairs_are_the_seeds_that_both_have() -> None:
    ours, theirs = pd.Series({0: 5.0, 1: 6.0, 2: 9.0}), pd.Series({1: 4.0, 2: 5.0, 3: 1.0})
    found = paired(ours, theirs)
    assert found is not None
    assert found.values == (2.0, 4.0)
    assert paired(pd.Series({0: 1.0}), pd.Series({1: 1.0})) is None


@pytest.mark.parametrize("count", [1, 2, 25, 200])
def test_holms_correction_is_that_of_statsmodels(count: int) -> None:
    draw = np.random.default_rng(count)
    p = [*draw.uniform(0, 1, count), *draw.uniform(0, 0.01, count), 1.0, 0.0, 0.03, 0.03]
    assert holm(p) == multipletests(p, method="holm")[1].tolist()


def test_holms_correction_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


@pytest.mark.parametrize(("effect", "sd"), [(1.0, 1.0), (0.5, 1.0), (3.0, 0.4)])
def test_so_many_seeds_see_the_effect_and_fewer_do_not(effect: float, sd: float) -> None:
    n = seeds_needed(effect, sd)
    assert n is not None
    draws = np.random.default_rng(0).normal(effect, sd, (4000, n))
    assert np.mean(stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05) >= 0.78
    if n > 2:
        assert np.mean(stats.ttest_1samp(draws[:, : n - 1], 0, axis=1).pvalue < 0.05) < 0.82
    assert seeds_needed(0.0, 1.0) is None
    assert seeds_needed(0.001, 1.0) is None


@pytest.mark.parametrize("seeds", [3, 5])
def test_intervals_cover_the_truth_as_often_as_they_say(seeds: int) -> None:
    means = {"all": 0.18, "attention": 0.199, "none": 0.20}
    covered: dict[str, int] = dict.fromkeys(("all", "attention", "mean"), 0)
    for sweep in range(SWEEPS):
        runs = simulated(means, seeds, np.random.default_rng([sweep, seeds]), noise=0.01)
        found = select(runs, ARMS).runs
        for share in ("all", "attention"):
            difference = compare_arms(found[share], found["none"], "MLM")
            assert difference is not None
            covered[share] += difference.low <= 100 * (means[share] - means["none"]) <= difference.high
        mean = estimate(100 * found["none"]["mlm"])
        assert mean is not None
        covered["mean"] += mean.low <= 20 <= mean.high
    for count in covered.values():
        assert 0.93 <= count / SWEEPS <= 0.97, covered


def verdicts(effect: float, seeds: int, claims: list[Claim], sweeps: int = SWEEPS) -> list[list[str]]:
    means = {"all": 0.18, "none": 0.18 + effect, "attention": 0.18, "ffn": 0.18}
    return [
        [v.verdict for v in judge(simulated(means, seeds, np.random.default_rng([sweep, 7]), 0.01), claims)]
        for sweep in range(sweeps)
    ]


def power(effect: float, n: int) -> float:
    """Of a two-sided t test, in the right direction."""
    return float(stats.nct.sf(stats.t.ppf(0.975, n - 1), n - 1, effect * math.sqrt(n)))


def test_a_planted_effect_is_reproduced_and_its_reversal_contradicted_at_the_tests_power() -> None:
    seeds, sweeps = 4, SWEEPS // 2
    expected = power(2.0, seeds)
    room = 3 * math.sqrt(expected * (1 - expected) / sweeps)
    forward = [v[0] for v in verdicts(0.02, seeds, [CLAIM], sweeps)]
    backward = [v[0] for v in verdicts(-0.02, seeds, [CLAIM], sweeps)]
    assert forward.count("reproduced") / sweeps == pytest.approx(expected, abs=room)
    assert backward.count("contradicted") / sweeps == pytest.approx(expected, abs=room)
    assert forward.count("contradicted") == backward.count("reproduced") == 0


def test_no_effect_stays_inconclusive_in_19_of_20_sweeps() -> None:
    found = [v[0] for v in verdicts(0.0, 3, [CLAIM])]
    assert 0.93 <= found.count("inconclusive") / SWEEPS <= 0.97
    assert found.count("reproduced") > 0
    assert found.count("contradicted") > 0


def test_several_true_nulls_together_are_all_inconclusive_in_19_of_20_sweeps() -> None:
    others = [
        Claim(f"c{row}", "c", {"a": f"table4.{row}", "b": "table4.5"}, {"a": 1, "b": -1}, ["MLM"], above=0)
        for row in (6, 7)
    ]
    sweeps = SWEEPS // 2
    found = verdicts(0.0, 3, [CLAIM, *others], sweeps)
    assert sum(set(v) == {"inconclusive"} for v in found) / sweeps >= 0.92
