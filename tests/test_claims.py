"""The scorecard: what is judged, on what, and what is refused."""

import re
from pathlib import Path

import pandas as pd
import pytest
import yaml
from reporthelpers import cells, loaded, write_cell, write_sweep

from albert_ablate.errors import ConfigError
from analysis import paper
from analysis.claims import Claim, judge, load_claims, scorecard
from analysis.metrics import roughness
from analysis.runs import COLUMNS, load_runs


def of(verdicts: list, name: str):
    return next(v for v in verdicts if v.claim.id == name)


def test_every_claim_names_its_source_and_holds_in_the_papers_own_numbers() -> None:
    claims = load_claims()
    assert len({claim.id for claim in claims}) == len(claims) >= 20
    judged = judge(load_runs_of_nothing(), claims)
    for verdict in judged:
        claim = verdict.claim
        assert claim.source
        assert verdict.verdict == "not tested"
        assert verdict.paper is not None, claim.id
        low, high = claim.between or (claim.above, float("inf"))
        assert low < verdict.paper < high, (claim.id, verdict.paper)


def load_runs_of_nothing() -> pd.DataFrame:
    return pd.DataFrame(columns=list(COLUMNS))


def test_the_papers_effects_are_sums_of_its_printed_numbers() -> None:
    judged = judge(load_runs_of_nothing(), load_claims())
    rows = paper.table("table4")["rows"]
    assert of(judged, "sharing-costs").paper == pytest.approx(rows[7]["Avg"] - rows[4]["Avg"])
    assert of(judged, "sop-solves-nsp").paper == pytest.approx(paper.table("table5")["rows"][2]["NSP"] - 50)
    curves = paper.figure("figure1")["L2"]["series"]
    smooth = roughness(curves["BERT-large"][1:]) - roughness(curves["ALBERT-large"][1:])
    assert of(judged, "smoother").paper == pytest.approx(smooth)


def test_a_sweep_with_the_papers_effects_reproduces_them(tmp_path: Path) -> None:
    judged = judge(loaded(tmp_path, noise=0.0002, seeds=4), load_claims())
    for name in ("sharing-costs", "attention-cheaper", "mostly-ffn", "sop-solves-nsp", "smoother", "sop-learns-order"):
        assert of(judged, name).verdict == "reproduced", of(judged, name)
    found = of(judged, "sharing-costs")
    assert found.score == "MLM"
    assert found.paper_score == "Avg"
    assert found.stand_in
    assert found.effect.mean == pytest.approx(2.0, abs=0.1)
    assert not of(judged, "sop-solves-nsp").stand_in


def test_reversed_effects_are_contradicted(tmp_path: Path) -> None:
    law = {("share", "all"): 0.02, ("share", "ffn"): 0.02}
    judged = judge(loaded(tmp_path, noise=0.0002, seeds=4, law=law), load_claims())
    assert of(judged, "sharing-costs").verdict == "contradicted"
    assert of(judged, "attention-cheaper").verdict == "contradicted"


def test_an_undecided_claim_says_how_many_seeds_would_decide_it(tmp_path: Path) -> None:
    judged = judge(loaded(tmp_path, noise=0.01), load_claims())
    found = of(judged, "mostly-ffn")
    assert found.verdict == "inconclusive"
    assert found.seeds_needed is None or found.seeds_needed > 3
    assert "seeds" in found.reason


def test_one_seed_decides_nothing(tmp_path: Path) -> None:
    judged = judge(loaded(tmp_path, seeds=1), load_claims())
    assert {v.verdict for v in judged} <= {"inconclusive", "not tested"}
    assert "one seed" in of(judged, "sharing-costs").reason


def test_an_arm_on_its_plateau_is_not_judged(tmp_path: Path) -> None:
    write_sweep(tmp_path / "a", noise=0.0002)
    flat = next(terms for terms in cells("table4") if terms["share"] == "ffn" and terms["embedding"] == "H/6")
    write_cell(tmp_path / "a", flat, 3, left=False)
    judged = judge(load_runs(tmp_path / "a"), load_claims())
    found = of(judged, "attention-cheaper")
    assert found.verdict == "not tested"
    assert "ffn: not better than the unigram baseline of masked LM in 1 of 4 seeds" in found.reason
    assert of(judged, "sharing-costs").verdict == "reproduced"


def test_downstream_scores_are_preferred_where_every_arm_has_them(tmp_path: Path) -> None:
    five = ("squad11", "squad20", "mnli", "sst2", "race")
    judged = judge(loaded(tmp_path, noise=0.0002, tasks=five), load_claims())
    found = of(judged, "sharing-costs")
    assert (found.score, found.paper_score) == ("Avg", "Avg")
    assert not found.stand_in
    assert of(judged, "sop-better-downstream").verdict != "not tested"


def test_claims_of_a_user(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    arms = {
        name: {"share": share, "embed.size": 32, "objective": "sop"} for name, share in (("a", "none"), ("b", "all"))
    }
    entry = {"id": "mine", "claim": "SST-2 gains from not sharing.", "arms": arms, "effect": {"a": 1, "b": -1}}
    file.write_text(yaml.safe_dump([entry | {"above": 0, "scores": ["task:sst2"]}]))
    (found,) = judge(loaded(tmp_path / "runs", noise=0.0002, tasks=("sst2",)), load_claims(file))
    assert found.verdict == "reproduced"
    assert found.score == "task:sst2"
    assert found.paper is None
    assert scorecard([found])["paper_effect"].isna().all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"effect": {"x": 1}}, "effect names x; arms are a"),
        ({"scores": ["nothing"]}, "scores: nothing; there are SQuAD1.1_F1"),
        ({"above": None}, "say above or between"),
        ({"arms": {"a": "table4.99"}}, "no row table4.99"),
        ({"arms": {"a": "tabel4"}}, "no row tabel4"),
        ({"why": 1}, "why"),
    ],
)
def test_a_wrong_claims_file_is_refused_in_words(change: dict, words: str, tmp_path: Path) -> None:
    entry = {"id": "mine", "claim": "c", "arms": {"a": "table4.1"}, "effect": {"a": 1}, "scores": ["MLM"], "above": 0}
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump([entry | change]))
    with pytest.raises(ConfigError, match="mine") as caught:
        load_claims(file)
    assert words in str(caught.value)


def test_the_claim_in_the_docs_is_one(tmp_path: Path) -> None:
    text = (Path(__file__).parent.parent / "docs" / "analysis.md").read_text()
    (tmp_path / "mine.yaml").write_text(re.search(r"```yaml\n(.*?)```", text, re.S)[1])
    (found,) = judge(load_runs_of_nothing(), load_claims(tmp_path / "mine.yaml"))
    assert found.claim.id == "ngram"
    assert found.verdict == "not tested"


def test_a_missing_claims_file_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_claims(tmp_path / "none.yaml")


def test_bounds_on_both_sides() -> None:
    with pytest.raises(ValueError, match="above or between"):
        Claim("c", "c", {"a": "table4.1"}, {"a": 1}, ["MLM"], above=0, between=(0, 1))
