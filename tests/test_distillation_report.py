"""Tables, claims, retention and figures of students, on made-up runs; the audit derives every number again."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import reporthelpers
from reporthelpers import cells, config, write_cell

from albert_ablate.door.compose import compose
from analysis import audit
from analysis.draw.findings import finding
from analysis.draw.students import non_dominated
from analysis.figures import draw_all, draw_forests
from analysis.judge.claims import DISTILLATION, ELECTRA, Verdict, in_question, judge, load_all, load_claims
from analysis.judge.metrics import FOUR, metric, summarised, unfit, values
from analysis.judge.students import same_size
from analysis.judge.tables import REFERENCES, arms_of, build
from analysis.read import paper
from analysis.read.cells import select
from analysis.read.runs import load_runs
from analysis.read.students import inference_flops
from analysis.recount.checks import DISAGREES
from analysis.recount.parameters import _by_formula
from analysis.recount.runs import Run
from analysis.report import gather
from analysis.write.content import Report
from analysis.write.own import about_students, answer
from analysis.write.page import html, markdown

TABLES = tuple(name for name in REFERENCES if paper.family(name) in ("distilbert", "tinybert"))
#: (Setting, value) -> what it adds to a share, in the papers' order.
LAW: dict[tuple[str, Any], float] = {
    ("depth", 1): 0.06, ("depth", "1/3"): -0.02, ("method", "distilbert"): 0.04, ("method", "tinybert"): 0.05,
    ("method.kl_weight", 0.0): -0.02, ("method.cosine_weight", 0.0): -0.012, ("method.mlm_weight", 0.0): -0.003,
    ("method.start", "random"): -0.03, ("method.embedding_weight", 0.0): -0.004, ("method.layer_map", "top"): -0.02,
    ("method.layer_map", "bottom"): -0.015, ("method.attention_weight", 0.0): -0.02,
    ("method.hidden_weight", 0.0): -0.012, ("task.start", "random"): -0.02, ("task.distil.teacher", None): -0.04,
    ("task.augment.copies", 0): -0.03, ("task.distil.predictions", "gold"): -0.01,
}  # fmt: skip


def write(
    root: Path, names: Iterable[str] = TABLES, seeds: int = 3, tasks: Iterable[str] = ("word_order",),
    changed: Mapping[str, Any] | None = None,
) -> Path:  # fmt: skip
    """The cells of these sweeps: one run for each pretraining and seed, with the fine-tunings of its cells.

    ``changed``: replaces parts of ``inference`` in the records of students.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for terms in cells(*names):
        groups.setdefault(repr(config(pretraining(terms), 0)), []).append(terms)
    for seed in range(seeds):
        teacher = None
        for variants in groups.values():
            terms = pretraining(variants[0])
            folder = write_cell(root, terms, seed, noise=0.0001, law=LAW)
            settings = config(terms, seed)
            layers = settings["model"]["layers"]
            is_student = terms["method"] in ("distilbert", "tinybert")
            teacher = folder if layers == 6 else teacher
            of_teacher = taught(teacher) if is_student else None
            amend(folder / "manifest.json", parameters=parameters(layers), teacher=of_teacher)
            timed = {"milliseconds": (0.45 + 0.001 * seed) * layers, "sequences": 1, "length": 64, "device": "cpu",
                     "threads": 2, "precision": "bf16"}  # fmt: skip
            entries = [entry(task, variant, seed) for task in tasks for variant in variants]
            distinct = list({json.dumps(found, sort_keys=True): found for found in entries}.values())
            amend(
                folder / "results.json", tasks=distinct,
                inference=timed | (dict(changed or {}) if is_student else {}),
            )  # fmt: skip
    return root


def pretraining(terms: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in terms.items() if not key.startswith("task.")}


def parameters(layers: int) -> dict[str, int]:
    count = 400_000 + 445_000 * layers
    return {"encoder": count, "with_pooler": count + 37_000, "with_heads": count + 70_000}


def taught(teacher: Path | None) -> dict[str, Any]:
    assert teacher is not None, "the teacher is the first cell of its sweep"
    return {
        "run": teacher.name, "identity": teacher.name.rpartition("-")[2], "flops_per_step": 4e9,
        "training_flops": 1e10 * 3500,
    }  # fmt: skip


def entry(task: str, terms: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The fine-tuning of a cell, as it is recorded: groups without effect are left out."""
    gain = gain_of(terms)
    noise = 0.0001 * np.random.default_rng([seed, reporthelpers.hash_of(dict(terms))]).standard_normal()
    made = reporthelpers._task(task, 0.05 + gain, noise)
    common: dict[str, Any] = {"start": terms.get("task.start", "pretrained")}
    common |= {"head": terms["task.head"]} if terms.get("task.head", "pooled") != "pooled" else {}
    if terms.get("task.distil.teacher"):
        defaults: dict[str, Any] = {f"{kind}_weight": 1.0 for kind in ("embedding", "hidden", "attention")}
        defaults |= {"predictions": "soft", "layer_map": "uniform"}
        common["distil"] = defaults | {key.rpartition(".")[2]: value for key, value in terms.items()
                            if key.startswith("task.distil.") and key != "task.distil.teacher"}  # fmt: skip
    if copies := terms.get("task.augment.copies", 0):
        common["augment"] = {"copies": copies, "candidates": 15}
    return made | {
        "start": common["start"], "recipe": {"steps": 100 * (1 + copies), "warmup_steps": 10 * (1 + copies)},
        "set_up": {"task": {"name": task}, "data": "feed", "all_tasks": common},
    }  # fmt: skip


def gain_of(terms: Mapping[str, Any]) -> float:
    """What the settings of a cell add to a share; steps of TinyBERT's procedure that it does not say are left out."""
    steps = {"task.start": "pretrained", "task.distil.teacher": None, "task.augment.copies": 0}
    known = {**steps, **terms} if terms["method"] == "tinybert" else terms
    return sum(LAW.get(pair, 0.0) for pair in known.items())


def amend(file: Path, **values: Any) -> None:
    known = json.loads(file.read_text())
    file.write_text(json.dumps(known | {key: value for key, value in values.items() if value is not None}))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("students"))


@pytest.fixture(scope="module")
def report(runs: Path) -> Report:
    return gather(load_runs(runs), load_all([audit._CONTROLS]), draw=False)


def verdicts(root: Path) -> dict[str, Verdict]:
    return {verdict.claim.id: verdict for verdict in judge(load_runs(root), load_claims(DISTILLATION))}


def wrong(report: Report, root: Path) -> list[str]:
    reported = audit.Reported.made(report)
    checks = audit.audit(reported, reported.runs_of([root]), audit._claims([]))
    return [f"{check.where}: {check.reported}, {check.derived}" for check in checks if check.state == DISAGREES]


def test_the_papers_numbers() -> None:
    """Tables 1 to 4 of DistilBERT, and 2 to 4 and 7 of TinyBERT, as recorded from the papers."""
    changes = [row["GLUE"] - 77.0 for row in paper.table("distilbert_table4")["rows"] if row["GLUE"]][1:]
    assert changes == pytest.approx([0.0, -2.96, -1.46, -0.31, -3.69])
    averages = {name: [row.get(FOUR) for row in paper.table(name)["rows"]] for name in TABLES if "tiny" in name}
    assert averages == {
        "tinybert_table2": [None, 75.6, 72.5, 68.5, 68.4],
        "tinybert_table3": [75.6, 74.1, 73.5, 56.3, 71.0, 72.9],
        "tinybert_table4": [75.6, 70.9, 71.3],
        "tinybert_table7": [63.9, 61.1, 68.4],
    }
    for name in averages:
        for row in paper.table(name)["rows"]:
            if FOUR in row:
                assert (row["MNLI"] + row["MNLI-mm"] + row["MRPC"] + row["CoLA"]) / 4 == pytest.approx(
                    row[FOUR], abs=0.1
                )
    seconds = {row["model"]: row["seconds"] for row in paper.table("distilbert_table3")["rows"]}
    assert seconds["BERT-base"] / seconds["DistilBERT"] == pytest.approx(1.63, abs=0.01)


@pytest.mark.parametrize("name", TABLES)
def test_every_row_is_filled_by_its_own_fine_tunings(runs: Path, name: str) -> None:
    table = build(load_runs(runs), name)
    chosen = select(load_runs(runs), arms_of(name))
    for row, (arm, terms) in zip(table.rows, arms_of(name).items(), strict=True):
        assert len(row.runs) == 3, row.labels
        own = values(chosen.runs[arm], "task:word_order").mean()
        assert own == pytest.approx(0.6 + gain_of(terms), abs=0.001)


def test_cells_that_differ_in_fine_tuning_share_their_runs(runs: Path) -> None:
    rows = build(load_runs(runs), "tinybert_table2").rows
    assert len({row.runs for row in rows[1:]}) == 1


def test_claims_follow_the_law(runs: Path) -> None:
    found = {name: verdict.verdict for name, verdict in verdicts(runs).items()}
    assert set(found.values()) == {"reproduced"}, found
    assert verdicts(runs)["distil-ce"].paper == pytest.approx(2.96)
    assert verdicts(runs)["tiny-da"].paper == pytest.approx(7.2)
    assert verdicts(runs)["distil-faster"].score == "inference"
    assert verdicts(runs)["tiny-td-over-gd"].stand_in


def test_claims_are_in_question_where_a_run_learned_from_a_teacher(runs: Path, tmp_path: Path) -> None:
    for terms in cells("table5"):
        write_cell(tmp_path, terms, 0)
    every = load_all([])
    assert in_question(load_runs(tmp_path), every) == load_claims()
    assert in_question(load_runs(runs), every) == load_claims() + load_claims(DISTILLATION)
    assert not {claim.id for claim in load_claims(ELECTRA)} & {v.claim.id for v in judge(load_runs(runs), in_question(
        load_runs(runs), every))}  # fmt: skip


def test_the_audit_confirms_every_number(report: Report, runs: Path) -> None:
    assert wrong(report, runs) == []


def test_the_audit_finds_a_wrong_part_of_the_teachers_score(report: Report, runs: Path) -> None:
    reported = audit.Reported.made(report)
    name = next(name for name in reported.files if name.endswith("-students.csv"))
    row = next(row for row in reported.files[name] if row["score"].startswith("kept") and row["mean"])
    row["mean"] = str(float(row["mean"]) + 0.5)
    checks = audit.audit(reported, reported.runs_of([runs]), audit._claims([]))
    assert [check.where for check in checks if check.state == DISAGREES] == [f"{_place(reported, name, row)} · mean"]


def _place(reported: audit.Reported, name: str, row: Mapping[str, str]) -> str:
    """Where the audit finds a row of a table of arms: ``arm 2 · kept task:era``."""
    rows = reported.files[name]
    place = sum(other["score"] == rows[0]["score"] for other in rows[: rows.index(dict(row)) + 1])
    return f"arm {place} · {row['score']}"


def test_a_student_keeps_a_part_of_its_own_teachers_score(tmp_path: Path) -> None:
    """Seed by seed, as results.json of both has it, without the functions that the report uses."""
    known = load_runs(write(tmp_path, ("distilbert",), tasks=("word_order", "era")))
    students = known[(known["method"] == "distilbert") & (known["layers"] == 3)]
    teachers = known[known["layers"] == 6].set_index("seed")
    shares = {
        run["seed"]: [
            100
            * own["score"]
            / next(e["score"] for e in teachers.loc[run["seed"], "tasks"] if e["task"] == own["task"])
            for own in run["tasks"]
        ]
        for run in students.to_dict("records")
    }
    assert dict(values(students, "kept task:word_order")) == pytest.approx({s: v[0] for s, v in shares.items()})
    assert dict(values(students, "kept")) == pytest.approx({seed: sum(v) / 2 for seed, v in shares.items()})
    measured = summarised(students, "kept")
    assert measured is not None
    assert measured.n == 3
    assert 90 < measured.mean < 100
    assert not len(values(known[known["method"] == "mlm"], "kept")), "without a teacher there is nothing to keep"
    assert dict(values(students, "FLOPs alone")) == dict.fromkeys(range(3), 10000000000.0 * 3500 - 3500 * 4000000000.0)
    assert dict(values(students, "FLOPs with teacher")) == dict.fromkeys(range(3), 2 * 10000000000.0 * 3500)
    assert dict(values(students, "times faster")) == pytest.approx(dict.fromkeys(range(3), 2.0))


def test_times_that_were_measured_differently_are_not_compared(tmp_path: Path) -> None:
    known = load_runs(write(tmp_path, ("distilbert_table4",), seeds=2, changed={"threads": 4}))
    students = known[known["method"] == "distilbert"]
    assert not len(values(students, "times faster"))
    assert unfit(students, "inference") is None
    assert "measured in different ways" in str(unfit(known, "inference"))
    verdict = verdicts(tmp_path)["distil-faster"]
    assert (verdict.verdict, "4 threads" in verdict.reason) == ("not tested", True)
    made = gather(known, load_all([audit._CONTROLS]))
    assert "Do not compare times of inference: inference was measured in different ways" in markdown(made)
    assert "inference_ms" not in next(d for d in made.drawings if d.name == "students").figure.axes[-1].get_xlabel()
    assert wrong(made, tmp_path) == []


def test_a_disturbed_measurement_of_inference_decides_nothing(tmp_path: Path) -> None:
    write(tmp_path, ("distilbert_table4",), seeds=2, changed={"percentiles": [1.0, 2.5]})
    known = load_runs(tmp_path)
    assert "varied within a measurement" in str(unfit(known[known["method"] == "distilbert"], "times faster"))
    assert unfit(known[known["method"] == "mlm"], "inference") is None
    assert verdicts(tmp_path)["distil-faster"].verdict == "not tested"
    assert wrong(gather(known, load_all([audit._CONTROLS]), draw=False), tmp_path) == []


def test_older_runs_have_no_inference_and_no_teacher(tmp_path: Path) -> None:
    for terms in cells("distilbert"):
        write_cell(tmp_path, terms, 0)
    made = gather(load_runs(tmp_path), load_all([audit._CONTROLS]))
    assert made.sweeps[0].students is not None
    assert "its teacher is not among these runs" in markdown(made)
    assert wrong(made, tmp_path) == []


def test_the_answer_is_about_students_against_models_of_their_size(tmp_path: Path) -> None:
    made = gather(load_runs(write(tmp_path, ("distilbert",))), [], draw=False)
    (sweep,) = made.sweeps
    pairs = {(effect.name, effect.against) for effect in sweep.matched}
    assert pairs == {
        (f"DistilBERT, model=nano-{n}x192, token_types=false", f"masked LM, model=nano-{n}x192, token_types=false")
        for n in (2, 3)
    }
    assert (
        "DistilBERT, model=nano-3x192, token_types=false against masked LM, model=nano-3x192, token_types=false: +4."
        in answer(sweep)
    )
    assert about_students(sweep).startswith("Against a model of the same size without a teacher, MLM: DistilBERT")
    effect = next(e for e in sweep.matched if e.comparison.metric == "task:word_order")
    assert effect.comparison.difference.mean == pytest.approx(4.0, abs=0.1)
    assert effect.comparison.verdict == "differs"
    assert "squares: a student's from a model of its size" in draw_forests(made.sweeps)[sweep.table.name].caption


def test_without_a_model_of_its_size_the_report_says_so(tmp_path: Path) -> None:
    write(tmp_path, ("tinybert_table2",))
    (sweep,) = gather(load_runs(tmp_path), [], draw=False).sweeps
    assert sweep.matched == []
    assert about_students(sweep).startswith("No model of a student's size learned without a teacher here")


def test_a_sweep_shows_arms_that_differ_in_fine_tuning(tmp_path: Path) -> None:
    """Steps of TinyBERT's procedure share runs; the sweep has a row for each, with its own scores."""
    made = gather(load_runs(write(tmp_path, ("tinybert_table2",))), load_all([audit._CONTROLS]), draw=False)
    (sweep,) = made.sweeps
    assert sweep.students is not None
    shown = {
        row.labels[0]: next(e.ours.mean for cell in row.cells for e in cell if e.metric == "task:word_order" and e.ours)
        for row in sweep.table.rows
    }
    rows = [(row.labels, row.runs) for row in sweep.table.rows]
    assert len(rows) == 5, shown
    assert len({runs for _, runs in rows}) == 2
    kept = [e.ours.mean for row in sweep.students.rows for (e,) in row.cells if e.metric.startswith("kept") and e.ours]
    wanted = [100 * (0.6 + gain_of(terms)) / 0.66 for terms in cells("tinybert_table2")[1:]]
    assert sorted(kept) == pytest.approx(sorted(wanted), abs=0.1)
    assert wrong(made, tmp_path) == []


def test_the_report_shows_both_budgets(report: Report) -> None:
    text = markdown(report)
    assert "### Students and their teachers." in text
    for head in ("training alone, TFLOPs", "with the teacher's, TFLOPs", "inference, ms", "faster than its teacher"):
        assert head in text, head
    assert "FLOPs with its teacher's" in text
    page = html(report)
    assert "Students and their teachers" in page
    assert "Sanh et al., DistilBERT" in page
    assert "sweep=electra" in page
    assert "DistilBERT, Table 4. Losses and first weights" in page


def test_the_figure_of_students(tmp_path: Path) -> None:
    (drawing,), undrawn = draw_all(load_runs(write(tmp_path, ("distilbert",))), ["students"])
    assert not undrawn
    data = drawing.data.set_index("arm")
    assert list(data["method"]) == ["masked LM"] * 3 + ["DistilBERT"] * 2 or len(data) == 5
    assert data["inference_ms"].max() == pytest.approx(6 * 0.451)
    assert [axes.get_xlabel().split()[0] for axes in drawing.figure.axes] == ["parameters,", "FLOPs", "time"]
    assert finding(drawing).startswith("From the best to the worst: masked LM, model=nano-6x192")


def test_only_arms_that_nothing_as_cheap_beats_are_on_the_line() -> None:
    data = pd.DataFrame({"cost": [1, 2, 2, 3, 4], "mean": [50.0, 55.0, 60.0, 58.0, 61.0]})
    assert list(non_dominated(data, "cost", better=True)["mean"]) == [50.0, 60.0, 61.0]
    assert list(non_dominated(data, "cost", better=False)["mean"]) == [50.0]


def test_the_figure_without_students_says_why(tmp_path: Path) -> None:
    write_cell(tmp_path, {"share": "all"}, 0)
    _, undrawn = draw_all(load_runs(tmp_path), ["students"])
    assert undrawn == {"students": "no run learned from a teacher (method=distilbert or tinybert)"}


def test_same_size_means_equal_parameters(tmp_path: Path) -> None:
    known = load_runs(write(tmp_path, ("distilbert",), seeds=1))
    frames = {run["run"]: known[known["run"] == run["run"]] for run in known.to_dict("records")}
    pairs = same_size(frames, ("method.name", "model.layers"))
    layers = {name: frame["layers"].iloc[0] for name, frame in frames.items()}
    assert sorted(layers[a] for a, _ in pairs) == [2, 3]
    assert all(layers[a] == layers[b] for a, b in pairs)


@pytest.mark.parametrize(
    "words", [(), ("embed=full", "share=none"), ("model=mini", "model.projection=always", "embed=full"), ("embed=e64",)]
)
def test_flops_of_inference_are_those_of_the_encoder(words: tuple[str, ...]) -> None:
    settings = compose(list(words))
    counted = settings.architecture().encoder_flops(settings.pairs.max_length)
    assert inference_flops(settings.as_dict()) == pytest.approx(counted)


@pytest.mark.parametrize(
    "words",
    [
        ("method.token_types=false", "objective=none"), ("method.pooler=trained", "objective=none"),
        ("method.token_types=false", "method.pooler=trained", "objective=none", "embed=full", "share=none"),
        ("method.pooler=trained", "objective=sop"), (), ("model.norm=pre",),
        ("model=gpt2_nano", "method=causal", "objective=none", "embed.size=32", "share=ffn"),
    ],
)  # fmt: skip
def test_parameters_are_counted_again_without_types_and_pooler(words: tuple[str, ...], tmp_path: Path) -> None:
    settings = compose(list(words))
    folder = write_cell(tmp_path, {"share": "all"}, 0)
    run = Run(folder)
    run.config = settings.as_dict()
    run.manifest["data"]["tokenizer"] = {"vocab_size": settings.tokenizer.vocab_size}
    from albert_ablate.methods.mlm import model_parameters

    counted = model_parameters(settings)
    assert _by_formula(run) == {"encoder": counted.encoder, "with_pooler": counted.with_pooler}


def test_the_mean_of_four_tasks(tmp_path: Path) -> None:
    write(tmp_path, ("tinybert_table2",), seeds=2, tasks=("mnli", "mrpc", "cola"))
    known = load_runs(tmp_path)
    assert not len(values(known, FOUR)), "these made-up tasks have no mismatched set and no F1"
    assert metric(FOUR).scale == 100
