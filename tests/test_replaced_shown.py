"""The replaced-token probe in summaries, tables and the audit, beside older runs that lack it."""

import copy
import io
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import scipy
from reporthelpers import cells, write_cell
from rich.console import Console, Group
from test_audit import checked, reported, wrong

from albert_ablate.evaluation.foreign import bars_of
from albert_ablate.record.folder import RunFolder
from albert_ablate.record.results import Results
from albert_ablate.record.summary import held_out
from analysis import compare, scores
from analysis.judge.metrics import REPLACED, summarised, unfit
from analysis.judge.tables import build
from analysis.read.runs import load_runs
from analysis.write.render import markdown

TERMS = cells("table5")


def probe(seed: int, left: bool = True) -> dict[str, Any]:
    """A record with an AUC of 60% and a little more for each seed."""
    auc = 0.6 + 0.01 * seed
    bar = auc - 0.05 if left else auc
    return {
        "auc": auc, "interval": [auc - 0.01, auc + 0.01], "loss": 0.35, "accuracy": 0.86, "examples": 5000,
        "replaced": 0.14, "base_loss": float(scipy.stats.entropy([0.14, 0.86])), "base_accuracy": 0.86,
        "token_auc": bar, "left_baseline": left,
    }  # fmt: skip


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Table 5 with three seeds: the first arm older, the second below the baseline of the probe in one seed."""
    root = tmp_path_factory.mktemp("mixed") / "runs"
    for place, terms in enumerate(TERMS):
        for seed in range(3):
            write_cell(
                root, terms, seed, scores={"replaced_tokens": probe(seed, (place, seed) != (1, 2))} if place else {}
            )
    return root


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("older") / "runs"
    for terms in TERMS[:2]:
        for seed in range(2):
            write_cell(root, terms, seed)
    return root


def shown(results: dict[str, Any]) -> str:
    out = io.StringIO()
    Console(file=out, width=80).print(Group(*held_out(results)))
    return out.getvalue()


def test_the_summary_has_a_row_and_an_older_one_none(finished: RunFolder) -> None:
    results = finished.read("results.json")
    record = results["replaced_tokens"]
    (row,) = (line for line in shown(results).splitlines() if "replaced-token" in line)
    assert row.split()[:4] == ["replaced-token", "AUC", "*", f"{record['auc']:.1%}"]
    assert row.split()[-3:] == [f"{record['token_auc']:.1%}", "without", "context"]
    before = {key: value for key, value in results.items() if key != "replaced_tokens"}
    assert "replaced" not in shown(before)
    assert "masked-LM loss" in shown(before)
    left_out = before | {"replaced_tokens": None, "left_out": {"replaced_tokens": "no training documents"}}
    (row,) = (line for line in shown(left_out).splitlines() if "replaced-token" in line)
    assert row.split() == ["replaced-token", "AUC", "—", "—", "no", "training", "documents"]


@pytest.mark.parametrize("left", [True, False])
def test_without_masked_lm_the_verdict_is_that_of_the_probe(finished: RunFolder, left: bool) -> None:
    results = finished.read("results.json") | {"masked_lm": None, "left_out": {"masked_lm": "not trained"}}
    results["replaced_tokens"] = results["replaced_tokens"] | {"left_baseline": left}
    verdict = "✓ Replaced tokens are told apart better" if left else "! Replaced tokens are told apart no better yet"
    assert f"{verdict} than without context." in shown(results)
    del results["replaced_tokens"]
    assert "Replaced tokens" not in shown(results)


def test_on_another_text_the_probe_says_nothing_of_training(finished: RunFolder) -> None:
    results = copy.deepcopy(finished.read("results.json")) | {"masked_lm": None}
    left = results["replaced_tokens"]["left_baseline"]
    bars_of(results, None, None, "", 0)  # type: ignore[arg-type]
    assert "left_baseline" not in results["replaced_tokens"]
    assert results["replaced_tokens"]["above_tokens"] is left
    Results.model_validate(results)
    del results["replaced_tokens"]
    bars_of(results, None, None, "", 0)  # type: ignore[arg-type]


def test_older_runs_have_empty_columns(mixed: Path) -> None:
    runs = load_runs(mixed)
    without = runs[runs["objective"] == "none"]
    for column in ("auc", "interval", "loss", "token_auc", "left_baseline"):
        assert without[f"replaced_{column}"].isna().all()
        assert runs.loc[runs["objective"] != "none", f"replaced_{column}"].notna().all()
    assert summarised(without, REPLACED) is None
    assert unfit(without, REPLACED) is None
    measured = summarised(runs[runs["objective"] == "sop"], REPLACED)
    assert measured is not None
    assert measured.mean == pytest.approx(61)


def test_a_table_has_the_column_only_if_a_run_has_the_score(mixed: Path, older: Path) -> None:
    table, before = build(load_runs(mixed), "table5"), build(load_runs(older), "table5")
    assert (REPLACED,) in table.columns
    assert (REPLACED,) not in before.columns
    text = markdown(table)
    assert "replaced AUC" in text
    assert "replaced tokens not told apart better than without context in 1 of 3 seeds" in text
    assert "replaced" not in markdown(before)
    compared = {(c.arm, c.metric): c for c in table.comparisons}
    assert ("table5.2", REPLACED) not in compared, "its reference is older"
    assert compared["table5.3", REPLACED].verdict == "below its baseline"
    assert compared["table5.3", REPLACED].difference.mean == pytest.approx(0)


@pytest.mark.parametrize("which", ["mixed", "older"])
def test_the_audit_agrees(which: str, request: pytest.FixtureRequest) -> None:
    root = request.getfixturevalue(which)
    checks = checked(reported(root), root)
    assert not wrong(checks)
    seen = {check.where.rpartition(" · ")[2] for check in checks if "replaced tokens" in check.where}
    expected = {"AUC", "hits of 5,000", "base_loss", "base_accuracy", "left_baseline"}
    assert seen == (expected if which == "mixed" else set())


@pytest.mark.parametrize(("key", "value"), [("left_baseline", False), ("accuracy", 0.86001), ("base_loss", 0.41)])
def test_the_audit_finds_a_changed_number(tmp_path: Path, key: str, value: Any) -> None:
    for seed in range(2):
        write_cell(tmp_path, TERMS[1], seed, scores={"replaced_tokens": probe(seed) | {key: value}})
    found = {check.where.rpartition(" · ")[2].split()[0] for check in wrong(checked(reported(tmp_path), tmp_path))}
    assert found == {"hits" if key == "accuracy" else key}


def test_commands_show_it_beside_older_runs(mixed: Path, older: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = compare.compare(load_runs(mixed))
    assert table[REPLACED].str.startswith("6").sum() == 6
    assert (table[REPLACED] == "—").sum() == 3
    assert REPLACED not in compare.compare(load_runs(older))
    shown_scores, notes = scores.table(load_runs(mixed))
    place = shown_scores.head.index(REPLACED)
    assert [row.cells[place].rstrip(" *!").split()[0] for row in shown_scores.rows].count("—") == 1
    assert any("replaced tokens not told apart" in note for note in notes)
    assert REPLACED not in scores.table(load_runs(older))[0].head
    assert compare.main([str(mixed)]) == compare.main([str(mixed), str(older)]) == 0
    assert "replaced" in capsys.readouterr().out
    assert isinstance(table, pd.DataFrame)
