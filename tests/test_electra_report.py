"""ELECTRA's tables, claims and figures, on made-up runs; reports without its runs stay as they were."""

from pathlib import Path

import pytest
from reporthelpers import cells, config, write_cell, write_sweep

from analysis import audit
from analysis.figures import draw_all
from analysis.judge.claims import ELECTRA, Verdict, in_question, judge, load_all, load_claims
from analysis.judge.metrics import GLUE_SCORES, metric, values
from analysis.judge.tables import REFERENCES, arms_of, build
from analysis.read import paper
from analysis.read.cells import select
from analysis.read.runs import load_runs
from analysis.report import gather
from analysis.write.content import Report
from analysis.write.own import answer
from analysis.write.page import html, markdown

TABLES = tuple(name for name in REFERENCES if paper.of_electra(name))
#: (Setting, value) -> what it adds to accuracy, in the paper's order. Two stages lose some of it by their settings.
LAW = {
    ("method", "replace_mlm"): 0.01, ("method", "all_tokens_mlm"): 0.03, ("method", "electra_15"): 0.01,
    ("method", "electra"): 0.05, ("method", "electra_two_stage"): 0.065, ("method.generator", "unigram"): -0.03,
    ("method.generator_width", 0.125): -0.01, ("method.generator_width", 1.0): -0.015, ("method.tie", "none"): -0.02,
    ("method.tie", "all"): 0.001,
}  # fmt: skip


def write(
    root: Path, names: tuple[str, ...] = TABLES, seeds: int = 3, tasks: tuple[str, ...] = ("word_order",)
) -> Path:
    """The cells of these sweeps, one run for each seed; a cell of several sweeps once."""
    distinct = {repr(config(terms, 0)): terms for terms in cells(*names)}
    for seed in range(seeds):
        for terms in distinct.values():
            write_cell(root, terms, seed, noise=0.0001, law=LAW, tasks=tasks, task_noise=0.0001)
    return root


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("electra"))


@pytest.fixture(scope="module")
def report(runs: Path) -> Report:
    return gather(load_runs(runs), load_all([audit._CONTROLS]), draw=False)


def verdicts(root: Path) -> dict[str, Verdict]:
    return {verdict.claim.id: verdict for verdict in judge(load_runs(root), load_claims(ELECTRA))}


def test_the_papers_numbers() -> None:
    """Table 5, the text of section 3.2, and the digitised curve of width 256, as recorded from the paper."""
    printed = {name: [row["GLUE"] for row in paper.table(name)["rows"]] for name in TABLES}
    assert printed == {
        "electra_table5": [82.2, 82.4, 84.3, 82.4, 85.0],
        "electra_generators": [78.18, 79.4, 79.76, 79.56, 79.08],
        "electra_two_stage": [82.2, 84.1, 85.0],
        "electra_tying": [83.6, 84.3, 84.4],
    }
    curve = paper.figure("electra_generators")["GLUE"]["series"][256]
    assert list(curve.values()) == printed["electra_generators"]
    widths = [terms.get("method.generator_width", 0) for terms in arms_of("electra_generators").values()]
    assert [256 * width for width in widths] == list(curve)


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_filled_by_its_sweep(name: str, runs: Path) -> None:
    table = build(load_runs(runs), name)
    assert [len(row.runs) for row in table.rows] == [3] * len(paper.table(name)["rows"])
    assert table.heading == paper.table(name)["heading"]
    assert table.selection.left_out == 0
    scores = [entry for row in table.rows for column in row.cells for entry in column if entry.metric == "GLUE"]
    assert [entry.paper for entry in scores] == [row["GLUE"] for row in paper.table(name)["rows"]]
    assert {entry.reason for entry in scores} == {"needs eight tasks of GLUE"}
    assert {c.metric for c in table.comparisons} >= {"task:word_order"}
    assert table.deviations == (), "those that runs record are from another paper's set-up"


def test_arms_of_other_papers_are_runs_of_masked_lm(runs: Path) -> None:
    """No table of ALBERT takes a run of ELECTRA, and a claim without a method means masked LM."""
    known = load_runs(runs)
    for name in ("table2", "table4", "table5"):
        methods = {method for frame in select(known, arms_of(name)).runs.values() for method in frame["method"]}
        assert methods <= {"mlm"}
    chosen = select(known, {"any": {"share": "none"}, "electra": {"share": "none", "method": "electra"}}).runs
    assert set(chosen["any"]["method"]) == {"mlm"}
    assert set(chosen["electra"]["method"]) == {"electra"}


def test_half_of_the_flops_is_the_same_comparison(tmp_path: Path) -> None:
    """The second stage has half of the FLOPs. An arm with another amount is not compared with it."""
    write(tmp_path, ("electra_two_stage",), seeds=2)
    assert [len(row.runs) for row in build(load_runs(tmp_path), "electra_two_stage").rows] == [2, 2, 2]
    (tmp_path / "more").mkdir()
    for seed in range(3):
        write_cell(tmp_path / "more", cells("electra_two_stage")[2], seed, steps=7000, tasks=("word_order",))
    table = build(load_runs(tmp_path, tmp_path / "more"), "electra_two_stage")
    assert [len(row.runs) for row in table.rows] == [2, 2, 2]
    assert table.selection.left_out == 3


def test_every_claim_is_true_of_the_papers_numbers_and_reproduced_where_runs_follow_them(runs: Path) -> None:
    judged = verdicts(runs)
    assert len(judged) == 13
    for verdict in judged.values():
        low, high = verdict.claim.between or (verdict.claim.above, float("inf"))
        assert verdict.paper is not None
        assert low is not None
        assert low < verdict.paper < high, verdict.claim.id
        assert verdict.claim.source.startswith("ELECTRA, ")
        assert verdict.score == "task:word_order"
        assert verdict.stand_in
    assert {id_: v.verdict for id_, v in judged.items() if v.verdict != "reproduced"} == {}


def test_the_opposite_is_contradicted(tmp_path: Path) -> None:
    law = {setting: -gain for setting, gain in LAW.items()}
    for seed in range(3):
        for terms in cells("electra_table5"):
            write_cell(tmp_path, terms, seed, noise=0.0001, law=law, tasks=("word_order",), task_noise=0.0001)
    judged = verdicts(tmp_path)
    assert judged["electra-beats-mlm"].verdict == "contradicted"
    assert judged["tie-embeddings"].verdict == "not tested"


def test_glue_is_the_mean_of_eight_tasks(tmp_path: Path) -> None:
    write(tmp_path, ("electra_tying",), seeds=2, tasks=tuple(GLUE_SCORES))
    known = load_runs(tmp_path)
    expected = [
        sum(entry["sets"]["matched" if entry["task"] == "mnli" else "dev"][GLUE_SCORES[entry["task"]]]["value"]
            for entry in tasks) / 8
        for tasks in known["tasks"]
    ]  # fmt: skip
    assert list(values(known, "GLUE")) == pytest.approx(expected)
    assert metric("GLUE").scale == 100
    fewer = known.assign(tasks=[tasks[1:] for tasks in known["tasks"]])
    assert not len(values(fewer, "GLUE"))
    assert verdicts(tmp_path)["tie-embeddings"].score == "GLUE"
    assert wrong(gather(known, load_all([audit._CONTROLS]), draw=False), tmp_path) == []


def wrong(report: Report, root: Path) -> list[str]:
    """Numbers of a report that the second derivation does not confirm."""
    reported = audit.Reported.made(report)
    checks = audit.audit(reported, reported.runs_of([root]), audit._claims([]))
    assert sum(check.state == "agrees" for check in checks) > 500
    return [f"{c.where}: {c.reported}, {c.derived}" for c in checks if c.state == "disagrees"]


def test_the_audit_confirms_every_number(report: Report, runs: Path) -> None:
    assert wrong(report, runs) == []


def test_claims_are_in_question_where_a_run_has_the_methods(runs: Path, tmp_path: Path) -> None:
    for terms in cells("table5"):
        write_cell(tmp_path, terms, 0)
    both = load_all([])
    assert in_question(load_runs(tmp_path), both) == load_claims()
    assert in_question(load_runs(runs), both) == load_claims() + load_claims(ELECTRA)
    report = gather(load_runs(tmp_path), both, draw=False)
    assert "both papers" not in markdown(report)
    page = html(report)
    assert "ELECTRA, Table 5. Compute-efficiency experiments" in page
    assert "sweep=electra_table5" in page
    assert "Clark et al." not in page


def test_a_report_names_both_papers(report: Report) -> None:
    text = markdown(report)
    assert "Of 38 claims of both papers these runs can test 13: 13 reproduced." in text
    assert "### ELECTRA, Table 5. Compute-efficiency experiments" in text
    assert "(ELECTRA, section 3.2)" in text
    assert "Clark et al., ELECTRA: Pre-training Text Encoders" in html(report)


def test_the_figures(runs: Path) -> None:
    drawings, undrawn = draw_all(load_runs(runs), ["generators", "replaced"])
    assert not undrawn
    sizes, found = (drawing.data for drawing in drawings)
    assert list(sizes[sizes["curve"] == "ours"].sort_values("tick")["width"]) == [0, 0.125, 0.25, 0.5, 1]
    assert set(sizes["curve"]) == {"ours", "encoder of width 768", "encoder of width 512", "encoder of width 256"}
    ours = sizes[sizes["curve"] == "ours"].set_index("width")["mean"]
    assert ours[0.25] > ours[1] > ours[0]
    last = found[found["step"] == found["step"].max()]
    assert (last["accuracy"] > 1 - last["fake_rate"]).all()
    assert found["seed"].nunique() == 3


def test_figures_without_runs_are_absent_with_the_reason(tmp_path: Path) -> None:
    write_sweep(tmp_path, seeds=1)
    drawings, undrawn = draw_all(load_runs(tmp_path), ["generators", "replaced"])
    assert drawings == []
    assert undrawn["generators"] == "no run with a generator of one of the sizes in sweeps/electra_generators.yaml"
    assert undrawn["replaced"].startswith("no run has held-out scores of finding replaced tokens")


def test_the_answer_is_about_the_fine_tuned_score_that_all_arms_have(tmp_path: Path) -> None:
    """Official tasks have a name of their own in tables: SST-2."""
    made = gather(load_runs(write(tmp_path, ("electra_two_stage",), tasks=("sst2",))), [], draw=False)
    assert [answer(sweep).partition(":")[0] for sweep in made.sweeps if len(sweep.table.rows) > 1] == ["SST-2"]
