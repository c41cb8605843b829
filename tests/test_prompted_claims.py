"""Claims on scores by prompts: judged above chance, withheld at chance, and derived again by the audit."""

import math
from pathlib import Path

import pandas as pd
import pytest
from causalhelpers import causal_cell, entry

from analysis import audit, report
from analysis.judge import prompted_scores
from analysis.judge.claims import CAUSAL, judge, load_claims
from analysis.judge.metrics import metric, resolution, unfit, values
from analysis.read.runs import load_runs


@pytest.fixture
def ladder(tmp_path: Path) -> Path:
    """Three widths, three seeds: minimal pairs are better with size, a task is above chance at the last only."""
    for seed in range(3):
        for number, width in enumerate(("1/3", "1", "4/3")):
            few = 0.51 if width != "4/3" else 0.70
            kshot = [
                entry("minimal_pairs", 0, {"sum": 0.60 + 0.05 * number + 0.002 * seed}, majority=None),
                entry("word_order", 0, {"sum": 0.50, "token": 0.50 + 0.001 * seed, "calibrated": 0.51}),
                entry("word_order", 1, {"sum": 0.9, "token": 0.9, "calibrated": 0.9}),
                entry("word_order", 4, {"sum": few, "token": few + 0.001 * seed**2, "calibrated": few + 0.05}),
            ]
            if width == "1/3":
                kshot.append(entry("rte", 4, {"token": 0.505 + 0.002 * seed}))
            causal_cell(tmp_path / "runs", width, seed, kshot=kshot)
    return tmp_path / "runs"


def test_claims_are_judged_above_chance_and_withheld_at_chance(ladder: Path) -> None:
    verdicts = {v.claim.id: v for v in judge(load_runs(ladder), load_claims(CAUSAL))}
    pairs = verdicts["pairs-scale"]
    assert pairs.effect is not None
    assert (pairs.verdict, pairs.score) == ("reproduced", "minimal pairs")
    assert pairs.effect.mean == pytest.approx(10.0)
    few = verdicts["fewshot-beats-zero"]
    assert (few.verdict, few.score, few.reason) == (
        "not tested", "few-shot gain:word_order", "causal: at chance in 3 of 3 seeds",
    )  # fmt: skip
    assert verdicts["kshot-scale"].reason == "small: at chance in 3 of 3 seeds"
    small = verdicts["chance-small"]  # a claim about chance itself is not withheld
    assert small.effect is not None
    assert small.score == "few-shot over chance:rte"
    assert small.effect.mean == pytest.approx(0.7)
    assert verdicts["calibration-helps"].effect is not None  # calibrated it is above chance
    assert verdicts["pll-beats-ll"].verdict == "not tested"


def test_the_report_and_its_audit_agree(ladder: Path, tmp_path: Path) -> None:
    assert report.main([str(ladder), "--out", str(tmp_path / "out")]) == 0
    card = pd.read_csv(tmp_path / "out" / "scorecard.csv").set_index("id")
    assert card.loc["pairs-scale", "verdict"] == "reproduced"
    assert audit.main([str(ladder), "--report", str(tmp_path / "out")]) == 0
    card["effect"] += (card.index == "pairs-scale").astype(float)
    card.reset_index().to_csv(tmp_path / "out" / "scorecard.csv", index=False)
    assert audit.main([str(ladder), "--report", str(tmp_path / "out")]) == 1


def test_each_kind_of_score(tmp_path: Path) -> None:
    kshot = [
        entry("minimal_pairs", 0, {"sum": 0.7}),
        entry("sst2", 0, {"token": 0.55, "sum": 0.52}),
        entry("sst2", 1, {"token": 0.56, "sum": 0.53}),
        entry("sst2", 16, {"token": 0.65, "sum": 0.60, "calibrated": 0.62}),
    ]
    runs = load_runs(causal_cell(tmp_path, "1", 0, kshot=kshot))
    expected = {
        "minimal pairs": 70, "zero-shot:sst2": 55, "few-shot:sst2": 65, "few-shot gain:sst2": 10,
        "few-shot over chance:sst2": 15, "calibration gain:sst2": 2,
    }  # fmt: skip
    for key, value in expected.items():
        assert 100 * values(runs, key)[0] == pytest.approx(value)
        assert metric(key).unit == "%"
        assert unfit(runs, key) is None
    one = 2 / 1.959964  # standard error of one part in points
    assert resolution(runs, "few-shot:sst2") == pytest.approx(one)
    assert resolution(runs, "few-shot gain:sst2") == pytest.approx(math.sqrt(2) * one)
    assert len(values(runs, "few-shot:rte")) == 0


def test_several_settings_of_a_task_are_no_score(tmp_path: Path) -> None:
    twice = [entry("minimal_pairs", 0, {"sum": 0.7}), entry("minimal_pairs", 0, {"sum": 0.6}, group="other")]
    runs = load_runs(causal_cell(tmp_path, "1", 0, kshot=twice))
    assert len(values(runs, "minimal pairs")) == 0
    assert unfit(runs, "minimal pairs") is None


def test_a_score_at_chance_on_the_edge(tmp_path: Path) -> None:
    run = {"kshot": [entry("minimal_pairs", 0, {"sum": 0.52})]}  # 0.50 to 0.54
    assert prompted_scores.at_chance(run, "minimal pairs")
    run = {"kshot": [entry("minimal_pairs", 0, {"sum": 0.5201})]}
    assert not prompted_scores.at_chance(run, "minimal pairs")
