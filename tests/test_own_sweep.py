"""A sweep of one's own from its file to the first section of the report, and its claim beside it."""

import csv
import json
import random
import re
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import statsmodels.formula.api as smf
import yaml
from reporthelpers import write_cell
from runhelpers import command_line, tiny_overrides

from albert_ablate.errors import ConfigError
from albert_ablate.sweeping.definition import rows
from analysis import report as command
from analysis.audit import Reported, audit
from analysis.compare import compare, compare_tasks
from analysis.draw.arms import learning_curves
from analysis.judge.claims import load_claims
from analysis.judge.statistics import seeds_needed
from analysis.read.runs import load_runs
from analysis.read.sweeps import groups
from analysis.recount.checks import DISAGREES
from analysis.report import gather
from analysis.write import content, page
from analysis.write.answer import PLATEAU_TOKENS

SWEEP: dict[str, Any] = {
    "title": "Does sharing hurt more with three layers than with two?",
    "settings": {"seed": [0, 1]},
    "cells": [{"share": ["all", "none"], "model.layers": [2, 3]}],
    "reference": {"share": "none", "model.layers": 2},
}
CLAIM = {
    "id": "more-with-depth", "claim": "Sharing costs more with three layers than with two.", "scores": ["MLM loss"],
    "arms": {f"{share}{n}": {"share": share, "model.layers": n} for share in ("all", "none") for n in (2, 3)},
    "effect": {"all3": 1, "none3": -1, "all2": -1, "none2": 1}, "above": 0,
}  # fmt: skip


def repetitive(file: Path) -> Path:
    """Documents of one word each: what a model of a few dozen steps can predict."""
    draw = random.Random(0)
    words = ["".join(random.Random(number).choices("abcdef", k=4)) for number in range(24)]
    documents = [[" ".join([word] * draw.randint(5, 8)) + "." for _ in range(8)] for word in draw.choices(words, k=160)]
    file.write_text("\n\n".join("\n".join(document) for document in documents) + "\n")
    return file


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two strategies at two depths with two seeds, trained, and their report."""
    place = tmp_path_factory.mktemp("own")
    (place / "mine.yaml").write_text(yaml.safe_dump(SWEEP))
    (place / "claims.yaml").write_text(yaml.safe_dump([CLAIM]))
    given = tiny_overrides(
        place, "optimizer=adamw", "optimizer.learning_rate=0.005", "tokenizer.vocab_size=36", "budget.steps=150",
        "evaluation.curve_every=150", "evaluation.max_pairs=64", "runtime.checkpoint_every=1000",
        "runtime.log_every=50", corpus=repetitive(place / "corpus.txt"),
    )  # fmt: skip
    overrides = [override for override in given if not override.startswith("model.layers=")]
    done = command_line("-m", f"sweep={place / 'mine.yaml'}", *overrides, cwd=place)
    assert done.returncode == 0, done.stdout + done.stderr
    options = ["--out", str(place / "report"), "--claims", str(place / "claims.yaml")]
    assert command.main([str(place / "runs"), *options]) == 0
    return place


@pytest.mark.slow
def test_the_first_section_is_the_sweeps(place: Path) -> None:
    text = (place / "report" / "report.md").read_text()
    assert text.startswith("# Does sharing hurt more with three layers than with two?\n")
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings[:3] == [
        f"## {SWEEP['title']}",
        "## Your claims",
        "## What the paper claims, and what these runs say",
    ]
    section = text.split("\n## ")[1]
    assert "| share | layers | n | Parameters, M | MLM loss, nats ↓ |" in section
    arms = [line for line in section.splitlines() if re.match(r"\| (all|not) shared \| \d", line)]
    assert arms[0].startswith("| not shared | 2 | 2 |"), "the reference arm comes first"
    assert len(arms) == 4
    claims = text.split("\n## ")[2]
    (line,) = [line for line in claims.splitlines() if line.startswith("| Sharing costs more")]
    assert any(f" {verdict} |" in line for verdict in ("inconclusive", "reproduced", "contradicted"))
    assert re.search(r"\n\d+ claims of the paper need other runs", text)
    assert text.splitlines()[2].startswith("Your claim “Sharing costs more with three layers than with two” is")
    html = (place / "report" / "index.html").read_text()
    order = [html.index(mark) for mark in (f">{SWEEP['title']}</h2>", 'id="own-claims"', 'id="scorecard"')]
    assert order == sorted(order)
    assert 'id="figure-sweep1-mine"' in html
    assert (place / "report" / "figures" / "sweep1-mine.svg").is_file()


@pytest.mark.slow
def test_the_interaction_on_the_page_is_that_of_statsmodels(place: Path) -> None:
    with (place / "report" / "sweeps" / "sweep1-mine-effects.csv").open() as file:
        (row,) = [r for r in csv.DictReader(file) if (r["effect"], r["score"]) == ("share × layers", "MLM loss")]
    losses = load_runs(place / "runs").pivot_table(index="seed", columns=["share", "layers"], values="mlm_loss")
    sums = losses[("all", 3)] - losses[("none", 3)] - losses[("all", 2)] + losses[("none", 2)]
    fit = smf.ols("sums ~ 1", pd.DataFrame({"sums": sums})).fit()
    low, high = fit.conf_int().loc["Intercept"]
    assert float(row["difference"]) == pytest.approx(fit.params["Intercept"], abs=1e-9)
    # With so few held-out pairs the error of one run's score, not the spread over two seeds, sets the width.
    assert float(row["low"]) <= low + 1e-9
    assert float(row["high"]) >= high - 1e-9
    assert float(row["low"]) + float(row["high"]) == pytest.approx(low + high)
    shown = f"| share × layers |  | MLM loss, nats | {sums.mean():+.3f} |".replace("-", "−")
    assert shown in (place / "report" / "report.md").read_text()
    scores = pd.read_csv(place / "report" / "scorecard.csv").set_index("id")
    assert scores.loc["more-with-depth", "effect"] == pytest.approx(sums.mean())


@pytest.mark.slow
def test_seeds_added_later_belong_to_the_same_table(place: Path) -> None:
    record = json.loads(next((place / "runs" / ".sweeps").glob("*.json")).read_text())
    assert record["title"] == SWEEP["title"]
    assert all("-none-" in folder for folder in record["reference"])
    assert len(record["reference"]) == 2
    assert record["words"][0] == f"sweep={place / 'mine.yaml'}"
    assert not any(word.startswith(("hydra", "rerun")) for word in record["words"])
    (group,) = groups(load_runs(place / "runs"))
    assert len(group.runs) == 8
    assert group.runs["arm"].nunique() == 4


@pytest.mark.slow
def test_the_reference_arm_of_seeds_that_came_one_by_one_has_all_of_them(place: Path, tmp_path: Path) -> None:
    """Also while the last seed has no numbers."""
    shutil.copytree(place / "runs", tmp_path / "runs", ignore=shutil.ignore_patterns("checkpoints"))
    (file,) = (tmp_path / "runs" / ".sweeps").glob("*.json")
    record = json.loads(file.read_text())
    file.unlink()
    for seed in (0, 1, 2):
        cells = [cell for cell in record["cells"] if f"-s{seed}-" in cell["folder"]]
        reference = [folder for folder in record["reference"] if f"-s{seed}-" in folder]
        part = record | {"cells": cells, "reference": reference, "started": record["started"] + seed}
        (file.parent / f"mine-{seed}.json").write_text(json.dumps(part))
    (group,) = groups(load_runs(tmp_path / "runs"))
    assert group.reference == set(record["reference"])
    assert len(group.reference) == 2


def recorded(root: Path, sweeps: dict[str, list[Path]], **more: Any) -> None:
    (root / ".sweeps").mkdir(exist_ok=True)
    for started, (name, folders) in enumerate(sweeps.items()):
        cells = [{"folder": folder.name} for folder in folders]
        record = {"name": name, "title": name.title(), "started": started, "cells": cells, **more}
        (root / ".sweeps" / f"{name}-{started}.json").write_text(json.dumps(record))


def arm(root: Path, seed: int, **terms: Any) -> Path:
    return write_cell(root, {"share": "all", "objective": "sop", "embedding": "H/6", **terms}, seed)


def test_each_sweep_has_a_table_and_other_runs_one_of_their_own(tmp_path: Path) -> None:
    first = [arm(tmp_path, seed, share=share) for seed in (0, 1) for share in ("all", "none")]
    second = [arm(tmp_path, seed, depth=depth) for seed in (0, 1) for depth in (2, 4)]
    arm(tmp_path, 0, objective="nsp")
    arm(tmp_path, 0, share="ffn")
    recorded(tmp_path, {"sharing": first, "depth": second})
    report = gather(load_runs(tmp_path), load_claims(), draw=False)
    assert [sweep.title for sweep in report.sweeps] == ["Depth", "Sharing", "Runs of no recorded sweep"]
    assert [sweep.table.label_columns for sweep in report.sweeps] == [("layers",), ("share",), ("share", "objective")]
    assert [row.labels for row in report.sweeps[0].table.rows] == [("6",), ("12",)]
    assert len({row.arm for sweep in report.sweeps for row in sweep.table.rows}) == 6
    assert content.answer(report).startswith("Depth: MLM: layers=12 against layers=6: ")


def test_the_report_has_the_command_for_more_seeds(tmp_path: Path) -> None:
    folders = [arm(tmp_path, seed, share=share) for seed in (0, 1, 2) for share in ("all", "none")]
    for number, folder in enumerate(folders):  # differences of 0.4, 2.0 and 1.5 points
        results = json.loads((folder / "results.json").read_text())
        results["masked_lm"]["accuracy"] = 0.3 + (0, 0.004, 0, 0.02, 0, 0.015)[number]
        (folder / "results.json").write_text(json.dumps(results))
    recorded(tmp_path, {"mine": folders}, words=["sweep=/somewhere/mine.yaml", "scale=cpu", "seed=0,1,2"])
    report = gather(load_runs(tmp_path), load_claims(), draw=False)
    (sweep,) = report.sweeps
    judged = [e.comparison for e in sweep.effects if e.comparison.judged]
    counts = [seeds_needed(c.difference.mean, c.difference.spread, 0.05 / len(judged)) for c in judged]
    needed = sweep.seeds_needed
    assert needed is not None
    assert needed == min(max(count, 4) for count in counts if count is not None)
    seeds = ",".join(map(str, range(3, min(needed, 20))))
    said = f"About {needed} seeds would settle one of the undecided effects, if it is as large as it seems."
    command = f"python run.py -m sweep=mine.yaml scale=cpu seed={seeds}"
    text = page.markdown(report)
    assert said in text
    assert f"\n    {command}\n" in text
    assert f"<pre><code>{command}</code></pre>" in page.html(report)


def test_where_no_arm_left_its_baseline_that_is_said_first(tmp_path: Path) -> None:
    for seed in (0, 1):
        for share in ("all", "none"):
            write_cell(tmp_path, {"share": share, "objective": "sop", "embedding": "H/6"}, seed, left=False, steps=60)
    report = gather(load_runs(tmp_path), load_claims(), draw=False)
    first = content.answer(report)
    assert first.startswith(
        "All 2 arms are still below the unigram baseline of masked LM after 60 steps (0.24 M tokens)"
    )
    assert "scale=cpu (7,000 steps, 29 M tokens)" in first
    assert "about 6 M tokens" in first
    assert PLATEAU_TOKENS == 6e6
    assert "The plateau ends at about 6 M tokens." in (Path(__file__).parent.parent / "docs" / "scales.md").read_text()
    lines = content.summary(report)
    assert not any("can be compared" in line or "0 claims" in line for line in lines)
    assert page.markdown(report).splitlines()[2] == first
    assert {effect.comparison.verdict for effect in report.sweeps[0].effects} == {"below its baseline"}


def test_an_arm_without_runs_says_what_its_settings_lack(tmp_path: Path) -> None:
    for seed in (0, 1):
        arm(tmp_path / "runs", seed, depth=2)
    claim = CLAIM | {"arms": {"a": {"embed": "e16", "model.layers": 6}, "b": {"model.layers": 6}}}
    claim |= {"effect": {"a": 1, "b": -1}}
    (tmp_path / "claims.yaml").write_text(yaml.safe_dump([claim]))
    (verdict,) = gather(load_runs(tmp_path / "runs"), load_claims(tmp_path / "claims.yaml"), draw=False).verdicts
    assert verdict.reason == "a: no run of this cell (embed.size=16: 0 runs, nearest: 32)"


def test_rows_and_columns_of_the_paper_alone_are_folded_and_audited(tmp_path: Path) -> None:
    for seed in (0, 1):
        for share in ("all", "none"):
            arm(tmp_path, seed, share=share)
    report = gather(load_runs(tmp_path), load_claims(), draw=False)
    text = page.markdown(report)
    table = text.split("### Table 4. ")[1].split("###")[0]
    assert "SQuAD" not in table
    assert "Left out: 6 rows and 6 columns of the paper's table that no run fills." in table
    html = page.html(report)
    assert "Show the paper's empty cells" in html
    assert html.count("SQuAD1.1 F1/EM") >= 1, "they are in the folded table"
    made = Reported.made(report)
    claims = yaml.safe_load((Path(page.__file__).parent.parent / "claims.yaml").read_text())
    checks = audit(made, made.runs_of([tmp_path]), claims)
    assert [check for check in checks if check.state == DISAGREES] == []
    assert any(check.where.startswith("Table 4, ") for check in checks)


WRONG = {
    "there is no such key": ({"model.layer": 2}, "reference: model.layer: the cells do not differ in it"),
    "a value that no cell has": ({"share": "ffn", "model.layers": 2}, "reference: share=ffn: no cell has it"),
    "several arms": ({"share": "all"}, "reference: 2 arms have these values. Add model.layers"),
}


@pytest.mark.parametrize(("reference", "words"), WRONG.values(), ids=WRONG.keys())
def test_a_reference_that_is_no_arm_is_refused(reference: dict[str, Any], words: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(SWEEP | {"reference": reference}))
    with pytest.raises(ConfigError, match=re.escape(words)):
        rows([str(tmp_path / "mine.yaml")])


def test_the_reference_marks_its_cells_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(SWEEP))
    marked = [row.terms for row in rows([str(tmp_path / "mine.yaml")]) if row.reference]
    assert marked == [{"share": "none", "model.layers": 2, "seed": seed} for seed in (0, 1)]


def test_a_run_that_others_start_from_is_no_arm(tmp_path: Path) -> None:
    folders = [arm(tmp_path, 0, depth=depth) for depth in (1, 2, 4)]
    recorded(tmp_path, {"depth": folders})
    (file,) = (tmp_path / ".sweeps").iterdir()
    record = json.loads(file.read_text())
    record["cells"][0]["rows"] = []
    file.write_text(json.dumps(record))
    (group,) = groups(load_runs(tmp_path))
    assert sorted(group.runs["layers"]) == [6, 12]


def test_runs_that_would_look_alike_show_what_differs(tmp_path: Path) -> None:
    for depth in (1, 2):
        for share in ("all", "none"):
            write_cell(tmp_path, {"share": share, "objective": "sop", "depth": depth}, 0, tasks=("era",))
    runs = load_runs(tmp_path)
    table = compare(runs)
    assert list(table["layers"]) == ["3", "6", "3", "6"]
    assert not table[["model", "E", "share", "objective", "layers", "seed"]].duplicated().any()
    assert set(compare_tasks(runs)["run"]) == {f"e32-{s}-sop-s0 layers={n}" for s in ("all", "none") for n in (3, 6)}
    assert "layers" not in compare(runs[runs["layers"] == 3])


def test_no_two_arms_of_a_figure_look_alike(tmp_path: Path) -> None:
    for depth in (1, 2):
        for share in ("all", "none"):
            write_cell(tmp_path, {"share": share, "objective": "sop", "depth": depth}, 0)
    axes = learning_curves(load_runs(tmp_path)).figure.axes[0]
    lines = [line for line in axes.lines if len(line.get_xdata()) > 2]
    looks = {(line.get_color(), str(line.get_linestyle()), str(line._dash_pattern)) for line in lines}
    assert len(looks) == len(lines) == 4
    assert {line.get_label() for line in lines} == {f"{s} shared, layers={n}" for s in ("all", "not") for n in (3, 6)}
    assert len({line.get_color() for line in lines}) == 2


def test_a_shipped_sweep_is_answered_by_the_papers_claims(tmp_path: Path) -> None:
    folders = [arm(tmp_path, seed, share=share) for seed in (0, 1) for share in ("all", "none")]
    recorded(tmp_path, {"table4": folders})
    assert content.answer(gather(load_runs(tmp_path), load_claims(), draw=False)).startswith(
        "Of 25 claims of the paper"
    )
    recorded(tmp_path, {"mine": folders})
    assert content.answer(gather(load_runs(tmp_path), load_claims(), draw=False)).startswith(
        "Mine: MLM: not shared against"
    )


def test_a_text_in_another_folder_makes_no_other_arm(tmp_path: Path) -> None:
    folders = [arm(tmp_path, seed, share=share) for seed in (0, 1) for share in ("all", "none")]
    for folder in folders[2:]:
        settings = yaml.safe_load((folder / "config.yaml").read_text())
        settings["data"]["path"], settings["scale"]["name"] = "/elsewhere/text.txt", "demo"
        (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    recorded(tmp_path, {"mine": folders})
    (group,) = groups(load_runs(tmp_path))
    assert dict(group.runs.groupby("arm")["seed"].nunique()) == {"all shared": 2, "not shared": 2}


def test_a_student_of_a_named_run_is_compared_with_masked_lm(tmp_path: Path) -> None:
    """Its teacher and its start are settings that masked LM does not read, and no reason to leave it out."""
    folders = [arm(tmp_path, seed, share="none", method=method) for seed in (0, 1) for method in ("mlm", "distilbert")]
    for folder in folders[1::2]:
        settings = yaml.safe_load((folder / "config.yaml").read_text())
        settings["method"] |= {"teacher": "runs/teacher", "teacher_run": "0123456789ab", "start": "teacher"}
        (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    recorded(tmp_path, {"mine": folders})
    (group,) = groups(load_runs(tmp_path))
    assert dict(group.runs.groupby("arm")["seed"].nunique()) == {"DistilBERT": 2, "masked LM": 2}
