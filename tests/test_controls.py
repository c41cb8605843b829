"""Controls on planted text: judged, shown in a section of their own, and kept out of everything else."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from reporthelpers import cells, write_cell, write_sweep

from albert_ablate.door.cells import expand, read_command_line
from albert_ablate.door.compose import compose
from albert_ablate.sweeping.definition import rows as sweep_rows
from analysis import compare, report
from analysis.figures import draw_all
from analysis.judge.claims import load_all, load_claims
from analysis.judge.controls import CLAIMS, controls_of, divided, frame, without_structure
from analysis.judge.tables import build
from analysis.read.planted import strengths
from analysis.read.runs import load_runs
from analysis.write.costs import costs

STRONG = {"data.planted.topic": 0.9, "data.planted.order": 0.6, "data.planted.local": 0.6}
BLANK = dict.fromkeys(STRONG, 0)
#: Achievable on text with structure, and on text without.
BEST = {
    0.9: {"masked_lm": {"loss": 1.5, "accuracy": 0.6, "chance_loss": 4.0}, "nsp": {"accuracy": 0.97},
          "sop": {"accuracy": 0.99}},
    0: {"masked_lm": {"loss": 4.0, "accuracy": 0.11, "chance_loss": 4.01}, "nsp": {"accuracy": 0.52},
        "sop": {"accuracy": 0.5}},
}  # fmt: skip


def write_control(root: Path, text: dict[str, Any], objective: str, seed: int, **scores: float) -> Path:
    """A finished cell on planted text; ``scores`` are masked-LM loss, NSP and SOP."""
    own = np.random.default_rng([seed, len(objective), int(10 * text["data.planted.topic"])])
    terms = text | {"share": "all", "objective": objective, "embedding": "H/12"}  # E = 16
    found: dict[str, Any] = {
        "masked_lm": {"loss": scores["mlm"] + 0.01 * own.standard_normal()},
        "achievable": BEST[text["data.planted.topic"]],
    }
    for task in ("nsp", "sop"):
        value = scores[task] + 0.004 * own.standard_normal()
        found[task] = {
            "accuracy": value, "interval": [value - 0.001, value + 0.001], "majority_class": 0.51,
            "left_baseline": value > 0.54,
            "own_head": {"accuracy": 0.501 + 0.0004 * seed, "interval": [0.5, 0.502]},
            "head": "trained" if task == objective else "fitted on the frozen encoder",
        }  # fmt: skip
    return write_cell(root, terms, seed, scores=found)


def write_controls(root: Path, blank_sop: float = 0.5) -> Path:
    """Three seeds of five cells that come out as they must, but for ``blank_sop``."""
    for seed in range(3):
        write_control(root, STRONG, "none", seed, mlm=2.2, nsp=0.65, sop=0.8)
        write_control(root, STRONG, "nsp", seed, mlm=2.4, nsp=0.9, sop=0.55)
        write_control(root, STRONG, "sop", seed, mlm=2.4, nsp=0.72, sop=0.98)
        write_control(root, BLANK, "nsp", seed, mlm=4.02, nsp=0.515, sop=0.5)
        write_control(root, BLANK, "sop", seed, mlm=4.02, nsp=0.5, sop=blank_sop)
    return root


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with Tables 3 to 5 on natural text and the controls."""
    root = tmp_path_factory.mktemp("controls")
    return write_controls(write_sweep(root / "runs"))


def test_the_sweep_has_the_cells_that_the_claims_are_about() -> None:
    claims = load_claims(CLAIMS)
    rows = [row.terms for row in sweep_rows(["controls"])]
    default = compose(["scale=controls"])
    assert default.data.planted is not None
    plain = {f"data.planted.{name}": getattr(default.data.planted, name) for name in ("topic", "order", "local")}
    there = [{**plain, **row} for row in rows]
    for claim in claims:
        for arm in claim.arms.values():
            assert isinstance(arm, dict)
            wanted = {key: value for key, value in arm.items() if key != "embed"}
            assert arm["embed"] == f"e{default.embed.size}"
            assert any(all(row[key] == value for key, value in wanted.items()) for row in there), claim.id
    assert {claim.id.split("-")[0] for claim in claims} == {"planted", "blank"}
    assert [without_structure(claim) for claim in claims] == [claim.id.startswith("blank") for claim in claims]


def test_the_sweep_fits_a_quarter_of_an_hour_of_cells() -> None:
    found = expand(read_command_line(["sweep=controls"]))
    assert len(found) == 27
    assert {cell.config.data.source for cell in found} == {"planted"}
    assert {cell.config.share.strategy.value for cell in found} == {"all", "attention", "ffn", "none"}


def test_controls_are_judged_by_the_share_of_the_way(mixed: Path) -> None:
    found = controls_of(load_runs(mixed), load_claims(CLAIMS))
    table = frame(found).set_index(["planted_text", "arm", "score"])
    strong, blank = "topic 0.9, order 0.6, local 0.6", "topic 0, order 0, local 0"
    sop: Any = table.loc[(strong, "E=16, all shared, SOP", "SOP"), :]
    assert (sop["control"], sop["verdict"], sop["n"]) == ("positive", "pass", 3)
    assert sop["way_percent"] == pytest.approx(100 * 0.47 / 0.48, abs=2)
    mlm: Any = table.loc[(strong, "E=16, all shared, no sentence task", "MLM loss"), :]
    assert mlm["way_percent"] == pytest.approx(100 * 1.8 / 2.5, abs=1)
    assert mlm["verdict"] == "pass"
    fitted: Any = table.loc[(strong, "E=16, all shared, NSP", "SOP"), :]
    assert (fitted["control"], fitted["verdict"]) == ("", "")
    assert set(table.loc[blank]["control"]) == {"negative"}
    assert set(table.loc[blank]["verdict"]) == {"pass"}
    assert found.counted("positive") == {"pass": 5, "fail": 0, "not settled": 0}
    assert found.counted("negative") == {"pass": 6, "fail": 0, "not settled": 0}


@pytest.mark.parametrize(("sop", "verdict"), [(0.50, "pass"), (0.60, "fail"), (0.562, "not settled")])
def test_a_negative_control_fails_where_something_is_seen(tmp_path: Path, sop: float, verdict: str) -> None:
    found = controls_of(load_runs(write_controls(tmp_path, blank_sop=sop)), load_claims(CLAIMS))
    control = next(
        c for c in found.scores if c.text.startswith("topic 0,") and c.arm.endswith(" SOP") and c.score == "SOP"
    )
    assert control.verdict == verdict


def test_a_positive_control_fails_where_nothing_is_learned(tmp_path: Path) -> None:
    for seed in range(3):
        write_control(tmp_path, STRONG, "sop", seed, mlm=3.5, nsp=0.5, sop=0.6)
    found = controls_of(load_runs(tmp_path), [])
    assert found.counted("positive") == {"pass": 0, "fail": 2, "not settled": 0}
    assert controls_of(load_runs(tmp_path).iloc[:1], []).counted("positive")["not settled"] == 2


def test_claims_on_planted_text_are_a_family_of_their_own(mixed: Path) -> None:
    runs = load_runs(mixed)
    found = report.gather(runs, load_all([CLAIMS]))
    alone = report.gather(runs[[strengths(c) is None for c in runs["config"]]], load_all([]))
    assert [(v.verdict, v.adjusted) for v in found.verdicts] == [(v.verdict, v.adjusted) for v in alone.verdicts]
    verdicts = {v.claim.id: v.verdict for v in found.controls.verdicts}
    assert verdicts["planted-sop-learns-order"] == "reproduced"
    assert verdicts["planted-nsp-head-blind-to-order"] == "reproduced"
    assert verdicts["planted-nsp-blind-to-order"] == "contradicted"
    blank = {verdict for name, verdict in verdicts.items() if name.startswith("blank")}
    assert blank == {"not tested"}
    papers, ours = divided(load_all([CLAIMS]))
    assert {claim.id for claim in ours} == set(verdicts)
    assert not {claim.id for claim in papers} & set(verdicts)


def test_planted_runs_enter_no_table_figure_or_cost(mixed: Path) -> None:
    runs = load_runs(mixed)
    natural = runs[runs["planted"].isna()]
    assert len(runs) == len(natural) + 15
    for name in ("table3", "table5"):
        ours, alone = build(runs, name), build(natural, name)
        assert [row.runs for row in ours.rows] == [row.runs for row in alone.rows]
        assert ours.selection.left_out == 0
    drawn, _ = draw_all(runs)
    expected, _ = draw_all(natural)
    assert [d.name for d in drawn] == [d.name for d in expected]
    for one, other in zip(drawn, expected, strict=True):
        pd.testing.assert_frame_equal(one.data, other.data)
    pd.testing.assert_frame_equal(costs(runs), costs(natural))
    assert build(runs[runs["planted"].notna()], "table5").filled is False
    assert set(compare.compare(runs)["planted text"]) == {
        "", "topic 0.9, order 0.6, local 0.6", "topic 0, order 0, local 0"
    }  # fmt: skip


def test_the_report_has_both_sections(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = mixed.parent / "out"
    assert report.main([str(mixed), "--out", str(out)]) == 0
    assert "planted text: 5 of 5 positive controls pass." in capsys.readouterr().out
    for name in ("report.md", "index.html"):
        text = (out / name).read_text()
        assert "Controls (planted text)" in text
        assert "6 of 6 negative controls pass." in text
        assert "Of 4 claims on text without structure none is reproduced, as it must be." in text
        assert "Table 5" in text
    scores = pd.read_csv(out / "scorecard.csv")
    planted = scores[scores["text"] == "planted"]
    assert set(planted["id"]) == {claim.id for claim in load_claims(CLAIMS)}
    assert not scores[scores["text"] == "natural"]["id"].str.startswith(("planted-", "blank-")).any()
    assert (pd.read_csv(out / "controls.csv")["achievable"] > 0).all()
    listed = pd.read_csv(out / "runs.csv").set_index("run")["planted"]
    assert listed.notna().sum() == 15
    assert report.main([str(mixed), "--out", str(out)]) == 0, "an earlier report is written over"


def test_either_kind_alone_gives_its_own_section(tmp_path: Path) -> None:
    assert report.main([str(write_controls(tmp_path / "planted")), "--out", str(tmp_path / "a"), "--compact"]) == 0
    text = (tmp_path / "a" / "report.md").read_text()
    assert "Every finished run is of planted text: these are controls." in text
    assert "Controls (planted text)" in text
    write_cell(tmp_path / "natural", cells("table5")[0], 0)
    assert report.main([str(tmp_path / "natural"), "--out", str(tmp_path / "b"), "--compact"]) == 0
    assert "planted" not in (tmp_path / "b" / "report.md").read_text()
    assert not (tmp_path / "b" / "controls.csv").exists()


def test_a_natural_claim_is_never_judged_on_planted_text(tmp_path: Path) -> None:
    runs = load_runs(write_controls(tmp_path))
    found = report.gather(runs, load_all([CLAIMS]))
    assert {v.verdict for v in found.verdicts} == {"not tested"}


def test_records_of_planted_runs_are_checked(tmp_path: Path) -> None:
    folder = write_control(tmp_path, STRONG, "sop", 0, mlm=2.0, nsp=0.5, sop=0.9)
    results = json.loads((folder / "results.json").read_text())
    results["achievable"]["masked_lm"]["loss"] = "low"
    (folder / "results.json").write_text(json.dumps(results))
    found = load_runs(tmp_path)
    assert "results.json is broken: achievable.masked_lm.loss" in found["note"].iloc[0]
