"""Intervals of shares stay within 0 and 100%, those of their differences within 100 points, wherever they are shown."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from reporthelpers import cells, write_cell

from albert_ablate.evaluation.intervals import SHARE, clustered_mean
from analysis.compare import changes, compare
from analysis.judge import numbers
from analysis.judge.claims import Claim, judge, load_claims
from analysis.judge.metrics import within
from analysis.judge.statistics import estimate, p_above, paired
from analysis.read.runs import load_runs
from analysis.report import gather, write

TASKS = ("sst2", "squad11")


@pytest.fixture(scope="module")
def extreme(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds an arm, whose scores lie near 0 in one arm and near 100% in the others, far apart."""
    root = tmp_path_factory.mktemp("extreme")
    for seed in range(2):
        for place, arm in enumerate(cells("table5")):
            folder = write_cell(root / "runs", arm, seed, tasks=TASKS)
            share = (0.007, 0.049)[seed] if place == 0 else (0.999, 0.951)[seed]
            results = json.loads((folder / "results.json").read_text())
            results["masked_lm"].update(accuracy=share, loss=(0.02, 0.4)[seed])
            for name in ("nsp", "sop"):
                results[name].update(accuracy=share, interval=[max(0, share - 0.1), min(1, share + 0.01)])
            for task in results["tasks"]:
                task.update(score=share, spread=[share, share], last_score=share, average=share)
                for found in task["sets"]["dev"].values():
                    if isinstance(found, dict):
                        found.update(value=share, interval=[max(share, 0.5), 1.0])
            (folder / "results.json").write_text(json.dumps(results))
            points = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
            points = [p | {"held_out_mlm_accuracy": share, "held_out_sentence_accuracy": share} for p in points]
            (folder / "metrics.jsonl").write_text("".join(json.dumps(p) + "\n" for p in points))
    write(gather(load_runs(root / "runs"), load_claims()), root / "out")
    return root


def test_every_table_of_a_report(extreme: Path) -> None:
    seen = 0
    for file in sorted((extreme / "out").rglob("*.csv")):
        frame = pd.read_csv(file)
        if not {"low", "high"} <= set(frame):
            continue
        if "unit" in frame:
            frame = frame[frame["unit"] == "%"]
        elif file.name == "scorecard.csv":
            frame = frame[frame["score"].isin(["MLM", "Avg", "NSP", "SOP"])]
        least = -100 if {"difference"} & set(frame) or file.name == "scorecard.csv" else 0
        low, high = frame["low"].dropna(), frame["high"].dropna()
        assert (low >= least).all(), file
        assert (high <= 100).all(), file
        seen += len(low)
    assert seen > 30


def test_what_is_printed(extreme: Path) -> None:
    text = (extreme / "out" / "tables" / "table5.md").read_text()
    assert "2.8 (0.0 to 29.5)" in text
    assert "97.5 (67.0 to 100.0)" in text
    assert "in round brackets: the 95% interval where it ends at a bound" in text
    for name in ("report.md", "index.html", "tables/table5.md", "tables/table5.tex"):
        for mean, half in re.findall(r"(\d+\.\d) ± (\d+\.\d)", (extreme / "out" / name).read_text()):
            assert float(mean) - float(half) + 0.05 >= 0, (name, mean, half)
            assert float(mean) + float(half) <= 100.05, (name, mean, half)
    assert "0.210 (0.000 to " in text, "nor is a loss negative"
    matrix = (extreme / "out" / "figures" / "objectives.svg").read_text()
    assert "(0.0 to 29.5)" in matrix


def test_side_by_side_and_between_collections(extreme: Path) -> None:
    runs = load_runs(extreme / "runs")
    assert "0.7% (0.0 to 1.7)" in compare(runs)["NSP"].str.rstrip("*").tolist()
    table, _ = changes(runs, runs)
    for c in table.comparisons:
        assert not c.difference.low < -100
        assert not c.difference.high > 100


def test_a_cut_interval_changes_no_test() -> None:
    cut, whole = estimate([0.7, 4.9], (0, 100)), estimate([0.7, 4.9])
    assert cut is not None
    assert whole is not None
    assert (cut.low, cut.high) == (0, whole.high)
    assert whole.low < 0
    assert p_above(cut) == p_above(whole)
    assert cut.margin is None
    assert numbers.number("MLM", cut) == "2.8 (0.0 to 29.5)"
    assert numbers.number("MLM", estimate([50.0, 51.0], (0, 100))) == "50.5 ± 6.4"
    even = estimate([0.0, 0.0], (0, 100), exact=True)
    assert even is not None
    assert even.margin == 0
    found = paired(pd.Series({0: 99.0, 1: 20.0}), pd.Series({0: 1.0, 1: 1.0}), (0, 100))
    assert found is not None
    assert (found.low, found.high) == (-100, 100)


def test_the_sum_of_a_claim_has_the_bounds_of_its_arms(extreme: Path) -> None:
    runs = load_runs(extreme / "runs")
    claim = Claim("c", "c", {"a": "table5.1"}, {"a": 1}, ["MLM"], constant=-50, between=(-3, 3))
    (verdict,) = judge(runs, [claim])
    assert verdict.effect is not None
    assert verdict.effect.low == -50
    half = Claim("h", "h", {"a": "table5.1", "b": "table5.2"}, {"a": 0.5, "b": -0.5}, ["MLM"], above=0)
    (verdict,) = judge(runs, [half])
    assert verdict.effect is not None
    assert verdict.effect.low == -50


def test_a_correlation_may_be_negative(tmp_path: Path) -> None:
    folder = write_cell(tmp_path, cells("table5")[0], 0, tasks=("stsb", "mrpc", "own"))
    results = json.loads((folder / "results.json").read_text())
    for task, metric in zip(results["tasks"], ("pearson and spearman", "f1 and accuracy", "error"), strict=True):
        task["metric"] = metric
    (folder / "results.json").write_text(json.dumps(results))
    runs = load_runs(tmp_path)
    assert within("task:stsb", runs) == (-100, 100)
    assert within("task:mrpc", runs) == (0, 100)
    assert within("task:own", runs) == (-np.inf, np.inf)


def test_a_share_over_clusters_of_examples() -> None:
    hits, counts = np.array([0.0, 0.0, 2.0]), np.array([10.0, 10.0, 10.0])
    mean, (low, high) = clustered_mean(hits, counts, SHARE)
    assert mean == pytest.approx(2 / 30)
    assert low == 0
    assert clustered_mean(hits, counts)[1][0] < 0
    assert clustered_mean(counts - hits, counts, SHARE)[1] == [pytest.approx(1 - high), 1]
