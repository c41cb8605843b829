"""MobileBERT in the report and in the audit, on made-up runs: tables, claims, parameters and FLOPs."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from reporthelpers import cells, write_cell

from albert_ablate.door.compose import compose
from albert_ablate.methods import method_of
from albert_ablate.training.budget import step_flops
from analysis import audit
from analysis.judge.claims import MOBILEBERT, Verdict, judge, load_all, load_claims
from analysis.judge.tables import REFERENCES, arms_of, build
from analysis.read import paper
from analysis.read.runs import load_runs
from analysis.recount.checks import AGREES, DISAGREES, OPEN
from analysis.recount.parameters import _by_formula, check, check_flops
from analysis.recount.runs import Run
from analysis.report import gather
from analysis.write.content import Report
from analysis.write.page import html, markdown

TABLES = tuple(name for name in REFERENCES if paper.family(name) == "mobilebert")
#: (Setting, value) -> what it adds to a share, in the paper's order.
LAW: dict[tuple[str, Any], float] = {
    ("model.hidden", 384): 0.003, ("model.hidden", 96): -0.01, ("model.block_width", 384): 0.08,
    ("model.block_width", 192): 0.03, ("model.feed_forwards", 2): 0.02, ("model.feed_forwards", 4): 0.02,
    ("model.norm_type", "layer_norm"): 0.005, ("model.activation", "gelu_tanh"): 0.005, ("method", "mobilebert"): 0.01,
    ("method.transfer", "progressive"): 0.02, ("method.transfer", "joint"): 0.015,
    ("method.transfer", "auxiliary"): 0.005, ("method.map_weight", 1.0): 0.005,
}  # fmt: skip
_TAUGHT = compose(["model=mobilebert_nano", "share=none", "embed=e48", "method=mobilebert"]).method


def write(root: Path, names: Iterable[str] = TABLES, law: Mapping[Any, float] = LAW, seeds: int = 4) -> Path:
    """The cells of these sweeps, fine-tuned on SST-2; a cell of two sweeps is one run."""
    taught = {f"method.{key}": getattr(_TAUGHT, key) for key in ("transfer", "map_weight")}
    listed = [taught | terms if terms["method"] == "mobilebert" else terms for terms in cells(*names)]
    for number, terms in enumerate(listed):
        for seed in range(0 if terms in listed[:number] else seeds):
            amended(write_cell(root, terms, seed, 0.0001, law, tasks=("sst2",), task_noise=0.0001), terms)
    return root


def amended(folder: Path, terms: Mapping[str, Any]) -> None:
    """Give a run the settings of its cell that only these layers have."""
    file = folder / "config.yaml"
    settings = yaml.safe_load(file.read_text())
    settings["block"] = {"type": terms["block"]}
    settings["embed"] = {"size": terms["embed.size"]}
    if terms["method"] == "mobilebert":
        settings["method"]["start"] = "teacher"  # as method=mobilebert sets it
    settings["model"] |= {key.partition(".")[2]: value for key, value in terms.items() if key.startswith("model.")}
    file.write_text(yaml.safe_dump(settings))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("mobilebert"))


@pytest.fixture(scope="module")
def report(runs: Path) -> Report:
    return gather(load_runs(runs), load_all([audit._CONTROLS]), draw=False)


def verdicts(root: Path) -> dict[str, Verdict]:
    """Without those on latency, which test_latency_report.py judges."""
    claims = [claim for claim in load_claims(MOBILEBERT) if not claim.id.startswith("mobile-latency")]
    return {verdict.claim.id: verdict for verdict in judge(load_runs(root), claims)}


def test_the_papers_numbers() -> None:
    """The rows of the sweeps against Tables 7, 8 and 9 as printed."""
    times = [row["milliseconds"] for row in paper.table("mobilebert_table7")["rows"]]
    operational = paper.table("mobilebert_table_operational")["rows"]
    assert [row["time there"] for row in operational[:4]] == [f"{time} ms" for time in times] == [
        "192 ms", "167 ms", "92 ms", "62 ms",
    ]  # fmt: skip
    rows = paper.table("mobilebert_table_transfer")["rows"]
    printed = paper.table("mobilebert_table9")["rows"]
    columns = {"MNLI": "MNLI", "task:qnli": "QNLI", "SST-2": "SST-2"}
    for row, as_printed in zip(rows[:5], (printed[1], *printed[3:]), strict=True):
        assert [row[ours] for ours in columns] == [as_printed[theirs] for theirs in columns.values()]
    auxiliary, joint, progressive = paper.table("mobilebert_table8")["rows"]
    for row, strategy in ((rows[5], joint), (rows[6], auxiliary)):
        for ours, theirs in (*columns.items(), ("SQuAD1.1_F1", "SQuAD1.1_F1")):
            assert row[ours] - rows[4][ours] == pytest.approx(strategy[theirs] - progressive[theirs])


def test_rows_are_named_as_their_cells() -> None:
    """Our widths are 3/8 of the paper's; norms and activations are those of the cell."""

    def said(terms: Mapping[str, Any]) -> tuple[int, int, int]:
        hidden, width = (round(terms[f"model.{key}"] * 8 / 3) for key in ("hidden", "block_width"))
        return hidden, width, terms["model.heads"]

    rows = [row["row"] for row in paper.table("mobilebert_table2")["rows"]]
    for row, letter, terms in zip(rows, "abcdefghi", arms_of("mobilebert_table2").values(), strict=True):
        hidden, width, heads = said(terms)
        assert row == f"{letter}: H {hidden}, W {width}, {heads} heads"
    rows = [row["row"] for row in paper.table("mobilebert_table3")["rows"]]
    for row, terms in zip(rows, arms_of("mobilebert_table3").values(), strict=True):
        _, width, heads = said(terms)
        networks = terms["model.feed_forwards"]
        assert row == f"W {width}, {heads} heads, {networks} network{'s' if networks > 1 else ''}"
    names = {"layer_norm": "LayerNorm", "no_norm": "NoNorm", "gelu_tanh": "GELU", "relu": "ReLU"}
    rows = [row["arm"] for row in paper.table("mobilebert_table_operational")["rows"]]
    for row, terms in zip(rows, arms_of("mobilebert_table_operational").values(), strict=True):
        alone = "" if terms["method"] == "mobilebert" else ", without a teacher"
        assert row == f"{names[terms['model.norm_type']]}, {names[terms['model.activation']]}{alone}"


@pytest.mark.parametrize("name", TABLES)
def test_every_row_has_its_own_runs(runs: Path, name: str) -> None:
    table = build(load_runs(runs), name)
    assert [len(row.runs) for row in table.rows] == [4] * len(table.rows)
    assert len({row.runs for row in table.rows}) == len(table.rows)


def test_claims_follow_the_law(runs: Path) -> None:
    found = verdicts(runs)
    assert {verdict.verdict for verdict in found.values()} == {"reproduced"}, found
    assert {verdict.score for verdict in found.values()} == {"SST-2"}
    assert found["mobile-features"].paper == pytest.approx(0.5)
    assert found["mobile-transfer"].paper == pytest.approx(2.4)


def test_claims_that_the_runs_contradict(tmp_path: Path) -> None:
    other = {
        **LAW, ("model.hidden", 384): 0.1, ("method.transfer", "progressive"): -0.02, ("model.feed_forwards", 2): -0.01,
        ("method.map_weight", 1.0): -0.005, ("model.norm_type", "layer_norm"): -0.02,
    }  # fmt: skip
    found = {name: verdict.verdict for name, verdict in verdicts(write(tmp_path, law=other)).items()}
    contradicted = {
        "mobile-operational", "mobile-two-networks", "mobile-narrow-inside", "mobile-progressive", "mobile-features",
        "mobile-attention", "mobile-transfer",
    }  # fmt: skip
    assert {name for name, verdict in found.items() if verdict == "contradicted"} == contradicted
    assert {name for name, verdict in found.items() if verdict == "reproduced"} == set(found) - contradicted


def test_the_report_shows_tables_and_verdicts(report: Report) -> None:
    text, page = markdown(report), html(report)
    for heading in ("MobileBERT, Table 2", "MobileBERT, Table 3", "MobileBERT, Tables 4, 5 and 7"):
        assert f"### {heading}. " in text
    assert "### MobileBERT, Tables 8 and 9. Losses and strategies of the knowledge transfer" in text
    assert "| c: H 512, W 1024, 16 heads |" in text
    assert "| LayerNorm, GELU | 192 ms |" in text
    assert "12 reproduced" in text
    assert "s: Sun et al., MobileBERT: a Compact Task-Agnostic BERT" in page
    assert "s: Sanh et al." not in page
    assert "DistilBERT, Tables 1 and 3" not in page


def test_the_audit_confirms_every_number(report: Report, runs: Path) -> None:
    reported = audit.Reported.made(report)
    checks = audit.audit(reported, reported.runs_of([runs]), audit._claims([]))
    assert [f"{c.where}: {c.reported}, {c.derived}" for c in checks if c.state == DISAGREES] == []


def recorded(folder: Path, words: Iterable[str]) -> Run:
    """A made-up run with these settings, whose manifest has what such a run records."""
    settings = compose(list(words))
    run = Run(write_cell(folder, {"share": "all"}, 0))
    run.config = settings.as_dict()
    run.manifest["data"]["tokenizer"] = {"vocab_size": settings.tokenizer.vocab_size}
    run.manifest["parameters"] = method_of(settings).parameters().as_dict()
    run.manifest["flops_per_step"] = step_flops(settings)
    return run


@pytest.mark.parametrize(
    ("preset", "parameters"),
    [
        ("mobilebert", 25_359_104), ("mobilebert_released", 24_581_888), ("mobilebert_tiny", 15_485_696),
        ("ib_bert_large", 294_205_184),
    ],
)  # fmt: skip
def test_the_papers_sizes_by_the_formula_of_the_audit(preset: str, parameters: int, tmp_path: Path) -> None:
    """Counted from the settings alone, without a model."""
    settings = f"scale=paper block=mobilebert model={preset} embed=e128 share=none tokenizer.vocab_size=30522"
    run = recorded(tmp_path, settings.split())
    counted = _by_formula(run)
    assert counted is not None
    assert counted["encoder"] == parameters
    run.manifest["parameters"] = {**run.manifest["parameters"], "encoder": parameters + 1}
    found = {c.where.rpartition(".")[2]: c.state for c in check(run)}
    assert found == {"encoder": DISAGREES, "with_pooler": AGREES, "with_heads": OPEN}


@pytest.mark.parametrize(
    "words",
    [
        ("model=mobilebert_nano", "share=none", "embed=e48", "objective=nsp"),
        ("model=mobilebert_nano", "share=ffn", "embed=e48", "model.attention_input=shared", "model.pooler=tanh"),
        ("model=mobilebert_nano", "share=attention", "embed=full", "model.attention_input=bottleneck"),
        ("model=mobilebert_nano", "share=all", "embed=e32", "model.trigram=false", "model.lm_head=transform"),
        ("model=mobilebert_nano", "share=none", "embed=e32", "model.table_width=embedding", "objective=none"),
        ("block=mobilebert", "share=none", "model.feed_forwards=3"), ("model=mobilebert_nano", "share=none",
        "embed=e48", "method=mobilebert"), ("share=none",), ("share=all", "embed=full", "objective=none"),
    ],
)  # fmt: skip
def test_parameters_and_flops_are_counted_again(words: tuple[str, ...], tmp_path: Path) -> None:
    run = recorded(tmp_path, words)
    states = [c.state for c in check(run)]
    assert states == [AGREES, AGREES, OPEN]
    flops = check_flops(run)
    assert [c.state for c in flops] == ([] if "method=mobilebert" in words else [AGREES])
    run.manifest["flops_per_step"] += 1
    assert all(c.state == DISAGREES for c in check_flops(run))


def test_flops_of_other_attention_are_not_counted(tmp_path: Path) -> None:
    words = ["attention=bigbird", "attention.block=4", "objective=none", "share=none"]
    run = recorded(tmp_path, words)
    assert check_flops(run) == []
    assert [c.state for c in check(run)] == [AGREES, AGREES, OPEN]
