"""Effects of a sweep against statsmodels, and what is never judged."""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from reporthelpers import config

from analysis.draw.forest import forest
from analysis.draw.plotting import NothingToDraw
from analysis.judge.claims import Claim, Verdict
from analysis.judge.effects import SweepTable, build_sweep, contrast
from analysis.judge.paper_effects import with_paper
from analysis.judge.statistics import estimate
from analysis.read.cells import largest
from analysis.read.runs import COLUMNS
from analysis.read.sweeps import Group
from analysis.write import own

SHARES, LAYERS = ("all", "none"), (3, 6)


def frame(seeds: int, shares: tuple[str, ...] = SHARES, layers: tuple[int, ...] = LAYERS, **more: Any) -> pd.DataFrame:
    """Runs of a full grid, with masked-LM accuracies around known means."""
    draw = np.random.default_rng(7)
    rows = []
    for seed in range(seeds):
        common = 0.01 * draw.standard_normal()
        for share, depth in itertools.product(shares, layers):
            mean = 0.2 + 0.03 * (share == "none") + 0.02 * (depth == 6) + 0.01 * (share == "none" and depth == 6)
            settings = config({"share": share, "objective": "sop"}, seed)
            settings["model"]["layers"] = depth
            rows.append(
                dict.fromkeys(COLUMNS)
                | {
                    "run": f"{share}-{depth}-{seed}", "state": "finished", "seed": seed, "model": "nano", "E": 32,
                    "share": share, "objective": "sop", "method": "mlm", "hidden": 192, "layers": depth,
                    "base_hidden": 192, "base_layers": 3, "note": "", "tasks": [], "config": settings, "deviations": [],
                    "mlm": mean + common + 0.003 * draw.standard_normal(), "mlm_left_baseline": True, "steps": 100,
                    "tokens_fingerprint": "feed", "precision": "fp32", "updated": pd.Timestamp("2026-11-21"),
                    "path": f"/nowhere/{share}-{depth}-{seed}",
                }
                | more
            )  # fmt: skip
    return pd.DataFrame(rows, columns=list(COLUMNS))


def built(runs: pd.DataFrame, reference: str = "all-3", title: str = "Depth and sharing") -> SweepTable:
    names = [run.rpartition("-")[0] for run in runs["run"]]
    apart = ("share.strategy", "model.layers", "model.base")
    selection = largest(runs, apart, lambda rows: [name.rpartition("-")[0] for name in rows["run"]])
    chosen = frozenset(run for run, name in zip(runs["run"], names, strict=True) if name == reference)
    return build_sweep(Group("mine", title, selection, chosen, tuple(runs["run"])), 1)


def of(sweep: SweepTable, name: str, key: str = "MLM") -> Any:
    (effect,) = [e for e in sweep.effects if e.name == name and e.comparison.metric == key]
    return effect.comparison


@pytest.mark.parametrize("seeds", [2, 3, 8])
def test_the_interaction_is_that_of_statsmodels(seeds: int) -> None:
    runs = frame(seeds)
    found = of(built(runs), "share × layers")
    wide = runs.assign(score=100 * runs["mlm"].astype(float)).pivot_table(
        index="seed", columns=["share", "layers"], values="score"
    )
    sums = wide[("none", 6)] - wide[("all", 6)] - wide[("none", 3)] + wide[("all", 3)]
    fit = smf.ols("sums ~ 1", pd.DataFrame({"sums": sums})).fit()  # one sum for each seed: its mean is the interaction
    low, high = fit.conf_int().loc["Intercept"]
    assert found.difference.mean == pytest.approx(fit.params["Intercept"])
    assert (found.difference.low, found.difference.high) == pytest.approx((low, high))
    assert found.p == pytest.approx(fit.pvalues["Intercept"])
    long = runs.assign(score=100 * runs["mlm"].astype(float), layers=runs["layers"].astype(str))
    crossed = smf.ols("score ~ C(share) * C(layers) + C(seed)", long.astype({"score": float})).fit()
    assert found.difference.mean == pytest.approx(crossed.params["C(share)[T.none]:C(layers)[T.6]"])


def test_differences_are_from_the_reference_and_holm_counts_every_effect() -> None:
    sweep = built(frame(6), reference="none-6")
    assert sweep.reference == "none-6"
    assert sweep.table.rows[0].labels == ("not shared", "6")
    assert sweep.table.label_columns == ("share", "layers")
    names = ["all-3", "all-6", "none-3", "share × layers"]
    assert [effect.name for effect in sweep.effects] == names
    assert of(sweep, "all-6").difference.mean == pytest.approx(-4, abs=0.6)
    p = sorted(effect.comparison.p for effect in sweep.effects)
    smallest = min((effect.comparison for effect in sweep.effects), key=lambda comparison: comparison.p)
    assert smallest.adjusted == pytest.approx(4 * p[0])


def test_three_values_give_an_interaction_each() -> None:
    sweep = built(frame(3, shares=("all", "attention", "none")))
    assert [effect.name for effect in sweep.interactions] == [
        "share × layers (shared attention, layers=6)", "share × layers (not shared, layers=6)",
    ]  # fmt: skip


def test_an_incomplete_grid_has_no_interaction() -> None:
    runs = frame(3)
    sweep = built(runs[~runs["run"].str.startswith("none-6")].reset_index(drop=True))
    assert [effect.name for effect in sweep.effects] == ["all-6", "none-3"]


def test_an_arm_below_its_baseline_is_never_judged() -> None:
    runs = frame(3)
    runs.loc[runs["run"].str.startswith("none-3"), "mlm_left_baseline"] = False
    sweep = built(runs)
    assert of(sweep, "none-3").verdict == "below its baseline"
    assert of(sweep, "share × layers").verdict == "below its baseline"
    assert of(sweep, "all-6").verdict != "below its baseline"
    drawn = forest(sweep)
    assert set(drawn.data["effect"]) == {"all-6", "none-6"}
    assert "2 effects are not judged" in own.answer(sweep)
    everything = built(frame(3, mlm_left_baseline=False))
    with pytest.raises(NothingToDraw):
        forest(everything)
    assert own.answer(everything).startswith("Nothing can be compared: not better than the unigram baseline")


def test_one_seed_gives_no_interval_and_no_figure() -> None:
    sweep = built(frame(1))
    assert {effect.comparison.verdict for effect in sweep.effects} == {"one seed"}
    with pytest.raises(NothingToDraw):
        forest(sweep)


def stated(factors: Mapping[str, float], runs: pd.DataFrame, **more: Any) -> Verdict:
    """A judged claim with the paper's value 1.5."""
    claim = Claim("x", "x", dict.fromkeys(factors, "table4.8"), dict(factors), ["MLM"], above=0.0, **more)
    arms = {arm: tuple(run for run in runs["run"] if run.startswith(f"{arm}-")) for arm in factors}
    return Verdict(claim, "reproduced", score="MLM", paper=1.5, paper_score="Avg", judged=True, arms=arms)


def test_the_papers_value_is_where_a_judged_claim_has_one() -> None:
    runs = frame(3)
    sweep = built(runs)
    paper = with_paper(sweep, [stated({"none-3": 1, "all-3": -1}, runs)])
    assert of(paper, "none-3").paper == 1.5
    assert [effect.comparison.paper for effect in paper.effects].count(None) == len(paper.effects) - 1
    assert "Hollow" in forest(paper).caption
    assert "Hollow" not in forest(sweep).caption
    turned = with_paper(sweep, [stated({"none-3": -0.5, "all-3": 0.5}, runs)])
    assert of(turned, "none-3").paper == -3.0
    for other in (stated({"none-3": 1, "all-3": -1}, runs, constant=1.0), stated({"none-3": 1, "all-3": -0.5}, runs)):
        assert of(with_paper(sweep, [other]), "none-3").paper is None


def test_a_contrast_counts_only_whole_seeds() -> None:
    runs = frame(4)
    arms = {name: runs[runs["run"].str.startswith(name)] for name in ("none-3", "all-3")}
    arms["none-3"] = arms["none-3"].iloc[:3]
    found = contrast(arms, {"none-3": 1.0, "all-3": -1.0}, "MLM", constant=2.0)
    assert found is not None
    assert found.n == 3
    values = 100 * (arms["none-3"]["mlm"].to_numpy(float) - arms["all-3"]["mlm"].to_numpy(float)[:3]) + 2.0
    expected = estimate(list(values))
    assert expected is not None
    assert (found.mean, found.low) == pytest.approx((expected.mean, expected.low))


def test_seeds_of_the_selection_are_counted() -> None:
    runs = frame(3)
    runs.loc[runs["run"] == "none-6-2", "state"] = "failed"
    sweep = built(runs)
    row = next(row for row in sweep.table.rows if row.labels == ("not shared", "6"))
    assert row.counted == "2 of 3"
    assert any("none-6: seed 2 failed" in note for note in sweep.table.notes)
