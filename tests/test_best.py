"""Which arms a table prints in bold."""

import re
from pathlib import Path

import pytest
from reporthelpers import cells, loaded, write_cell

from analysis.judge.best import best_arms
from analysis.judge.tables import build
from analysis.read.runs import load_runs
from analysis.write import latex, web


def test_arms_within_noise_of_the_best_are_best_too(tmp_path: Path) -> None:
    """By the law of the simulated runs, not shared and shared attention lie 0.2 points apart, all shared 2 points."""
    table = build(loaded(tmp_path, seeds=4, noise=0.001), "table4")
    best = best_arms(table)["MLM"]
    unshared, shared = ("table4.8", "table4.4"), ("table4.5", "table4.1")
    assert best & set(unshared)
    assert not best & set(shared)
    means = {row.arm: entry.ours.mean for row in table.rows for cell in row.cells for entry in cell
             if entry.metric == "MLM" and entry.ours is not None}  # fmt: skip
    assert max(means, key=lambda arm: means[arm]) in best
    assert "params" not in best_arms(table)
    assert "tokens/s" not in best_arms(table)


def test_a_lower_loss_is_better(tmp_path: Path) -> None:
    table = build(loaded(tmp_path, seeds=4, noise=0.001), "table4")
    assert best_arms(table)["MLM loss"] == best_arms(table)["MLM"]


def test_one_seed_has_no_best(tmp_path: Path) -> None:
    assert best_arms(build(loaded(tmp_path, seeds=1), "table4")) == {}


def test_an_arm_that_must_not_be_compared_is_never_best(tmp_path: Path) -> None:
    chosen = cells("table4")
    for seed in range(4):
        for terms in chosen:
            write_cell(tmp_path, terms, seed, noise=0.001, left=terms["share"] != "none")
    best = best_arms(build(load_runs(tmp_path), "table4"))["MLM"]
    assert best
    assert not best & {arm for arm, terms in zip(("table4.4", "table4.8"), chosen[3::4], strict=True)}


@pytest.mark.parametrize("written", [web.html, latex.latex])
def test_bold_numbers_are_those_of_the_best_arms(tmp_path: Path, written: object) -> None:
    table = build(loaded(tmp_path, seeds=4, noise=0.001), "table4")
    assert callable(written)
    bold = re.findall(r"<b>([\d.]+)|\\bfseries ([\d.]+)", written(table))
    best = best_arms(table)
    expected = [
        f"{entry.ours.mean:.{3 if entry.metric == 'MLM loss' else 1}f}"
        for row in table.rows
        for cell in row.cells
        for entry in cell
        if entry.ours is not None and row.arm in best.get(entry.metric, ())
    ]
    assert [float(first or second) for first, second in bold] == pytest.approx([float(e) for e in expected], abs=0.06)
