"""The scorecard: what is judged, on what, and what is refused."""

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from reporthelpers import cells, loaded, write_cell, write_sweep

from albert_ablate.errors import ConfigError
from analysis.judge.claims import (
    BIGBIRD,
    CAUSAL,
    DISTILLATION,
    ELECTRA,
    FACTS,
    MOBILEBERT,
    QUEST,
    Claim,
    Verdict,
    judge,
    load_all,
    load_claims,
    scorecard,
)  # fmt: skip
from analysis.judge.metrics import roughness
from analysis.read import paper
from analysis.read.runs import COLUMNS, load_runs


def of(verdicts: list[Verdict], name: str) -> Verdict:
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
        assert low is not None
        assert low < verdict.paper < high, (claim.id, verdict.paper)


def load_runs_of_nothing() -> pd.DataFrame:
    return pd.DataFrame(columns=list(COLUMNS))


def test_the_papers_effects_are_sums_of_its_printed_numbers() -> None:
    judged = judge(load_runs_of_nothing(), load_claims())
    rows = paper.table("table4")["rows"]
    assert of(judged, "sharing-costs").paper == pytest.approx(rows[7]["Avg"] - rows[4]["Avg"])
    assert of(judged, "sop-solves-nsp").paper == pytest.approx(paper.table("table5")["rows"][2]["NSP"] - 50)
    curves = paper.figure("figure1")["L2"]["series"]
    bert, albert = (roughness(curves[name][1:]) for name in ("BERT-large", "ALBERT-large"))
    assert bert is not None
    assert albert is not None
    assert of(judged, "smoother").paper == pytest.approx(bert - albert)


def test_a_sweep_with_the_papers_effects_reproduces_them(tmp_path: Path) -> None:
    judged = judge(loaded(tmp_path, noise=0.0002, seeds=4), load_claims())
    for name in ("sharing-costs", "attention-cheaper", "mostly-ffn", "sop-solves-nsp", "smoother", "sop-learns-order"):
        assert of(judged, name).verdict == "reproduced", of(judged, name)
    found = of(judged, "sharing-costs")
    assert found.score == "MLM"
    assert found.paper_score == "Avg"
    assert found.stand_in
    assert found.effect is not None
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
        ({"scores": ["nothing"]}, "scores: nothing; known scores are SQuAD1.1_F1"),
        ({"above": None}, "give either above or between"),
        ({"arms": {"a": "table4.99"}}, "no row table4.99"),
        ({"arms": {"a": "tabel4"}}, "no row tabel4"),
        ({"why": 1}, "why"),
    ],
)
def test_a_wrong_claims_file_is_refused_in_words(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    entry = {"id": "mine", "claim": "c", "arms": {"a": "table4.1"}, "effect": {"a": 1}, "scores": ["MLM"], "above": 0}
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump([entry | change]))
    with pytest.raises(ConfigError, match="mine") as caught:
        load_claims(file)
    assert words in str(caught.value)


def test_the_claim_in_the_docs_is_one(tmp_path: Path) -> None:
    text = (Path(__file__).parent.parent / "docs" / "analysis.md").read_text()
    block = re.search(r"```yaml\n(.*?)```", text, re.S)
    assert block is not None
    (tmp_path / "mine.yaml").write_text(block[1])
    (found,) = judge(load_runs_of_nothing(), load_claims(tmp_path / "mine.yaml"))
    assert found.claim.id == "ngram"
    assert found.verdict == "not tested"


def test_a_missing_claims_file_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_claims(tmp_path / "none.yaml")


def test_bounds_on_both_sides() -> None:
    with pytest.raises(ValueError, match="above or between"):
        Claim("c", "c", {"a": "table4.1"}, {"a": 1}, ["MLM"], above=0, between=(0, 1))


# --- mistakes in a claims file ---------------------------------------------------------------------------

OWN = {
    "id": "own", "claim": "x is more", "arms": {"x": {"share": "none"}, "y": {"share": "all"}},
    "effect": {"x": 1, "y": -1}, "scores": ["MLM"], "above": 0,
}  # fmt: skip


def arm(**terms: object) -> dict[str, Any]:
    return {"arms": {"x": {name.replace("__", "."): value for name, value in terms.items()}, "y": {}}}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (arm(embeding="H/6"), "arm x: embeding: there is no such setting. Did you mean embedding"),
        (arm(objective="sopp"), "arm x: objective=sopp: must be one of none, nsp, sop. Did you mean sop?"),
        (arm(share="al"), "arm x: share=al: must be one of all, attention, ffn, none. Did you mean all?"),
        (arm(embedding="e128"), "arm x: embedding=e128: say H, or H/12"),
        (arm(embed="e129"), "arm x: embed=e129: must be one of "),
        (arm(size="huge"), "arm x: size=huge: there are base, large"),
        (arm(depth=0), "arm x: depth=0: say a positive multiple"),
        (arm(dropout=2), "arm x: dropout=2: "),
        (arm(corpus="most"), "arm x: corpus=most: must be one of base, more"),
        (arm(length=2), "arm x: length: a run's length is part of its set-up"),
        (arm(pairs__max_ngram=3), "pairs.max_ngram: there is no such setting. Did you mean masking.max_ngram?"),
        (arm(max_ngram=3), "max_ngram: there is no such setting. Did you mean masking.max_ngram?"),
        (arm(masking__max_ngrm=3), "Did you mean masking.max_ngram or "),
        (arm(masking__max_ngram="three"), "masking.max_ngram=three: input should be a valid integer"),
        (arm(masking__max_ngram=True), "masking.max_ngram=True: "),
        (arm(budget__steps=-5), "budget.steps=-5: "),
        (arm(share__strategy="some"), "share.strategy=some: "),
        (arm(masking=3), "masking: a group of settings. Name them one by one: masking.probability"),
        (arm(model={"layers": 3}), "model: a group of settings. Name them one by one: model.name"),
        (arm(seed=[0, 1]), "seed=[0, 1]: an arm is one cell"),
        (arm(task="sst2"), "task: arms cannot differ in fine-tuning; name the task under scores"),
        (arm(runtime__threads=1), "runtime.threads: it changes no numbers"),
        (arm(embed="e64", embedding="H/6"), "embedding and embed both set embed.size"),
        (arm(share="all", share__strategy="none"), "share.strategy and share both set share.strategy"),
        ({"arms": {"x": {"share": "all"}, "y": {"share": "all"}}}, "arms x and y are the same cell"),
        ({"arms": {"x": "table9.1", "y": {}}}, "arm x: there is no row table9.1"),
        ({"arms": {"x": "tabel4.5", "y": {}}}, "there is no row tabel4.5. Did you mean table4.5?"),
        ({"arms": {"x": 3, "y": {}}}, "arms.x: give a row such as table4.6"),
        ({"effect": {"x": 1, "y": 0}}, "the factor of y is 0"),
        ({"effect": {"x": 1, "z": -1}}, "effect names x, z; arms are x, y"),
        ({"scores": ["MML"]}, "scores: MML (did you mean MLM?)"),
        ({"scores": ["task:sst3"]}, "scores: task:sst3 (did you mean task:sst2?)"),
        ({"paper_score": "Agv"}, "paper_score: Agv (did you mean Avg?)"),
        ({"scors": ["MLM"]}, "scors: there is no such field. Did you mean scores?"),
        ({"id": ""}, "id and claim must not be empty"),
        ({"between": [0, 1]}, "give either above or between"),
    ],
)  # fmt: skip
def test_a_mistake_is_refused_with_file_claim_and_what_was_meant(
    change: dict[str, Any], words: str, tmp_path: Path
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump([OWN | change]))
    with pytest.raises(ConfigError) as refused:
        load_claims(file)
    assert refused.value.exit_code == 2
    assert words in str(refused.value)
    assert all(line.startswith(f"{file}: claim {(OWN | change)['id'] or ''}") for line in refused.value.problems)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (yaml.safe_dump([OWN, OWN | {"claim": "other"}]), "claim own: the id is given twice"),
        (yaml.safe_dump([OWN]) + "  above: 3\n", "above is given twice"),
        ("[]", "it holds no claims"),
        ("a: 1", "a list of claims is expected"),
        ("", "a list of claims is expected"),
    ],
)
def test_a_file_that_holds_no_list_of_claims_is_refused(text: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=words) as refused:
        load_claims(file)
    assert str(file) in str(refused.value)


def test_an_id_of_two_files_is_refused(tmp_path: Path) -> None:
    for name, claim in (("a", OWN), ("b", OWN), ("c", OWN | {"id": "sharing-costs"})):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump([claim]))
    with pytest.raises(ConfigError, match=r"b\.yaml: claim own: the id is taken, by a claim of .*a\.yaml"):
        load_all([tmp_path / "a.yaml", tmp_path / "b.yaml"])
    with pytest.raises(ConfigError, match="taken, by a claim of the paper's"):
        load_all([tmp_path / "c.yaml"])
    further = (ELECTRA, DISTILLATION, QUEST, FACTS, CAUSAL, MOBILEBERT, BIGBIRD)
    shipped = [*load_claims(), *(claim for file in further for claim in load_claims(file))]
    assert len(load_all([tmp_path / "a.yaml"])) == 1 + len(shipped)


def test_options_of_a_sweep_file_name_the_cells_they_train(tmp_path: Path) -> None:
    """``embed: e32`` is E = 32, ``model: nano`` its shape, ``1e-3`` a number though YAML takes it for a word."""
    for seed in range(3):
        for share in ("all", "none"):
            write_cell(tmp_path / "runs", {"size": "base", "share": share, "objective": "sop"}, seed, noise=0.0002)
    runs = load_runs(tmp_path / "runs")
    for common in (
        {"embed": "e32"}, {"embed": 32}, {"embed.size": 32}, {"embedding": "H/6"}, {"model": "nano", "embed": "e32"},
        {"data.fraction": "1e0", "embed": "e32"}, {"optimizer.skip_spikes": None}, {"share.inner": 1},
        {"budget": "steps"}, {"scale": "cpu"}, {"data": "embedded"}, {"objective": "sop"},
    ):  # fmt: skip
        claim = OWN | {"arms": {"x": {"share": "none", **common}, "y": {"share": "all", **common}}}
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump([claim]))
        (verdict,) = judge(runs, load_claims(tmp_path / "mine.yaml"))
        assert verdict.verdict == "reproduced", (common, verdict.reason)


def test_a_right_claim_without_runs_says_what_no_run_has(tmp_path: Path) -> None:
    write_cell(tmp_path / "runs", cells("table5")[0], 0)
    claim = OWN | {"arms": {"x": {"masking.max_ngram": 7, "objective": "none"}, "y": {"objective": "sop"}}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump([claim]))
    (verdict,) = judge(load_runs(tmp_path / "runs"), load_claims(tmp_path / "mine.yaml"))
    assert verdict.verdict == "not tested"
    assert "x: no run of this cell (masking.max_ngram=7: 0 runs" in verdict.reason
