"""The scores that a sweep ends with: a row for each arm, marks where an arm may not be compared, and tested claims."""

import json
from pathlib import Path

import pytest
from reporthelpers import write_cell

from albert_ablate import command_line
from albert_ablate.sweeping import engine
from analysis.scores import main

SOP = {"size": "base", "embedding": "H/6", "share": "all", "objective": "sop"}


@pytest.fixture
def shown(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """Two arms with three seeds; in one seed of the second masked LM is not better than its baseline."""
    monkeypatch.setenv("COLUMNS", "80")
    for seed in range(3):
        write_cell(tmp_path, SOP, seed, tasks=("sst2",))
        write_cell(tmp_path, SOP | {"share": "none"}, seed, left=seed > 0)
    failed = write_cell(tmp_path, SOP | {"share": "ffn"}, 0)
    (failed / "status.json").write_text(json.dumps({"state": "failed", "reason": "no memory"}))
    assert main([str(tmp_path)]) == 0
    return capsys.readouterr().out


def test_every_arm_has_its_means_over_seeds(shown: str) -> None:
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert lines[0] == "arm MLM loss NSP SOP sst2 runs"
    (row,) = (line.removeprefix("all shared ") for line in lines if line.startswith("all shared "))
    mean, sign, margin, *_ = row.split()
    assert sign == "±"
    assert float(mean) == pytest.approx(6.0 - 4 * (0.18 - 0.05), abs=0.05)
    assert 0 < float(margin) < 0.1
    assert row.endswith(" 3")
    assert "shared FFN — — — — 0 of 1" in lines


def test_an_arm_below_its_baseline_is_marked_with_the_reason(shown: str) -> None:
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    marked = {line.partition(" shared ")[0]: " !" in line for line in lines if " shared " in line and " ± " in line}
    assert marked == {"all": False, "not": True}
    words = " ".join(shown.split())
    assert "! not shared: not better than the unigram baseline of masked LM in 1 of 3 seeds" in words
    assert "±: 95% interval over seeds · !: below its baseline, so not compared · *: head fitted" in words


def test_the_table_fits_eighty_columns(shown: str) -> None:
    assert max(map(len, shown.splitlines())) <= 80


def test_tested_claims_have_their_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(4):
        for share in ("all", "none"):
            write_cell(tmp_path / "runs", SOP | {"share": share}, seed)
    claims = tmp_path / "claims.yaml"
    claims.write_text(
        "- {id: mine, claim: Sharing costs masked LM, arms: {a: {share: none}, b: {share: all}}, "
        "effect: {a: 1, b: -1}, scores: [MLM], above: 0.5}\n"
    )
    assert main([str(tmp_path / "runs"), "--claims", str(claims)]) == 0
    text = capsys.readouterr().out
    assert "reproduced    Sharing costs masked LM" in text
    assert "not tested" not in text


def test_without_a_finished_run_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_cell(tmp_path, SOP, 0)
    (folder / "status.json").write_text(json.dumps({"state": "failed", "reason": "no memory"}))
    assert main([str(tmp_path)]) == 0
    assert capsys.readouterr().out == "No run has finished yet.\n"


def test_scores_that_cannot_be_computed_end_no_sweep(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_cell(tmp_path, SOP, 0)

    def fails(*_: object) -> int:
        raise ValueError("a bug")

    monkeypatch.setattr(engine, "call", fails)
    engine._show_scores([folder])
    assert "The scores could not be computed (ValueError: a bug)" in capsys.readouterr().out
    monkeypatch.setattr(engine, "call", command_line.call)
    engine._show_scores([folder, folder, tmp_path / "never-started"])
    text = capsys.readouterr().out
    assert "MLM loss" in text
    assert "could not" not in text
