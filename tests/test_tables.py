"""The paper's tables: every printed number is the record's, rows and cells agree, every form renders."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from reporthelpers import PAPER_LIKE, cells, loaded, write_cell, write_sweep

from albert_ablate.sweeping.relative import embedding_of, shape_of
from analysis.judge.claims import judge, load_claims
from analysis.judge.metrics import METRICS, unfit, values
from analysis.judge.recipes import SETTINGS, leaderboard, recipe_table, recipes
from analysis.judge.tables import REFERENCES, Table, arms_of, build, configurations
from analysis.parameters import count, overrides_of
from analysis.read import paper
from analysis.read.cells import main_setup, select
from analysis.read.runs import load_runs
from analysis.write import latex, render
from analysis.write.costs import costs

DOWNSTREAM = [*REFERENCES]
#: The tables of ALBERT; ELECTRA's are tested in ``test_electra_report.py``.
ALBERT = [name for name in DOWNSTREAM if paper.of_albert(name)]
FIVE = ("squad11", "squad20", "mnli", "sst2", "race")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return loaded(tmp_path_factory.mktemp("runs"), tasks=FIVE)


def all_tables(runs: pd.DataFrame) -> list[Table]:
    return [
        configurations(lambda terms: count(["scale=paper", *overrides_of(terms)])),
        *(build(runs, n) for n in DOWNSTREAM),
    ]


def test_every_printed_average_is_the_mean_of_its_row() -> None:
    checked = 0
    for table in paper.record()["tables"]:
        for row in table["rows"]:
            if row.get("Avg") is not None and "RACE" in row:
                assert row["Avg"] == pytest.approx(paper.average(row), abs=0.0501), (table["id"], row)
                checked += 1
    assert checked == sum(len(paper.table(name)["rows"]) for name in ALBERT)


@pytest.mark.parametrize("name", ALBERT)
def test_a_sweeps_cells_are_the_papers_rows_in_order(name: str) -> None:
    """At the paper's sizes each cell has the row's E, layers, width, sharing and objective."""
    strategies = {"not-shared": "none", "all-shared": "all", "shared-attention": "attention", "shared-FFN": "ffn"}
    sizes = {"BERT": "none", "ALBERT": "all"}
    arms, printed = arms_of(name), paper.table(name)["rows"]
    assert len(arms) == len(printed) == len(REFERENCES[name])
    for terms, row in zip(arms.values(), printed, strict=True):
        shape = shape_of(terms, 768, 12, 64)
        width = embedding_of(str(terms["embedding"]), 768, shape.hidden)
        found = {"E": width, "hidden": shape.hidden, "layers": shape.layers, "size": terms.get("size")}
        for column in ("E", "hidden", "layers", "size"):
            if column in row and name != "table6":
                assert found[column] == row[column], (name, row)
        if name == "table2":
            assert sizes[row["model"]] == terms["share"]
        if name in ("table3", "table4"):
            assert strategies[row.get("sharing") or row["strategy"]] == terms["share"]
        if name == "table5":
            assert row["SP_task"].lower() == terms["objective"]
        if name == "table6":
            assert row["model"] == ("BERT-" if terms["share"] == "none" else "ALBERT-") + terms["size"]
        if "condition" in row:
            conditions: dict[str, tuple[str, list[Any]]] = {
                "table7": ("corpus", ["base", "more"]), "table8": ("dropout", [0.1, 0.0]),
            }  # fmt: skip
            term, values = conditions[name]
            assert terms[term] == values[printed.index(row)]


def test_every_number_of_the_paper_in_a_table_is_the_records(runs: pd.DataFrame) -> None:
    shown = 0
    for table in all_tables(runs):
        printed = paper.table(table.name)["rows"]
        for row, theirs in zip(table.rows, printed, strict=True):
            for entry in (entry for cell in row.cells for entry in cell):
                column = "parameters_M" if entry.metric == "params" else entry.metric
                assert entry.paper == theirs.get(column), (table.name, row.labels, entry.metric)
                shown += entry.paper is not None
    expected = sum(
        value is not None
        and (column in METRICS or column.startswith("task:") or column in ("parameters_M", "speedup"))
        and (name, column) != ("bigbird_table1", "MLM")  # shown once a run has it
        for name in ("table1", *DOWNSTREAM)
        for row in paper.table(name)["rows"]
        for column, value in row.items()
    )
    assert shown == expected


def test_the_papers_numbers_reach_the_reader_as_printed(runs: pd.DataFrame) -> None:
    """Every cell's brackets in Markdown, against the record once more, as text."""
    table = build(runs, "table2")
    lines = [line for line in render.markdown(table).splitlines() if line.startswith("| ") and "BERT" in line]
    for line, row in zip(lines, paper.table("table2")["rows"], strict=False):
        brackets = re.findall(r"\[([\d./]+)\]", line)
        assert f"{row['SQuAD1.1_F1']:.1f}/{row['SQuAD1.1_EM']:.1f}" in brackets
        assert f"{row['parameters_M']}" in brackets
        assert f"{row['Avg']:.1f}" in brackets
        assert f"{row['speedup']:.1f}" in brackets


def test_leaderboards_and_hyperparameters_are_the_records(runs: pd.DataFrame) -> None:
    for name in ("table9", "table10"):
        frame = leaderboard(name)
        for shown, row in zip(frame.to_dict("records"), paper.table(name)["rows"], strict=True):
            for column, value in row.items():
                expected = "—" if value is None else f"{value:.1f}" if isinstance(value, float) else value
                assert shown[column.replace("_", " ")] == expected
    found = recipes(runs)
    for row in paper.table("table14")["rows"]:
        for column, setting in SETTINGS.items():
            entry = found[(found["task"] == row["task"]) & (found["setting"] == setting.replace("_", " "))]
            assert entry["paper"].item() == row[column]
    assert recipe_table(runs).set_index("task").at["SQuAD v1.1", "steps"] == "100 [3649]"
    assert recipe_table(runs).set_index("task").at["CoLA", "steps"] == "5336"


def test_ours_are_means_over_seeds_and_differences_are_paired(runs: pd.DataFrame) -> None:
    table = build(runs, "table4")
    row = table.rows[7]
    entry = next(e for cell in row.cells for e in cell if e.metric == "MLM")
    own = runs[(runs["share"] == "none") & (runs["E"] == 32)]
    assert entry.ours is not None
    assert entry.ours.mean == pytest.approx(100 * own["mlm"].mean())
    assert row.seeds == 3
    assert row.labels == ("32 [128]", "not shared")
    c = next(c for c in table.comparisons if c.arm == "table4.5" and c.metric == "MLM")
    other = runs[(runs["share"] == "all") & (runs["E"] == 32) & (runs["objective"] == "sop")]
    pairs = 100 * (other.set_index("seed")["mlm"] - own.set_index("seed")["mlm"])
    assert sorted(c.difference.values) == pytest.approx(sorted(pairs))
    assert c.reference == "table4.8"
    average = next(c for c in table.comparisons if c.arm == "table4.5" and c.metric == "Avg")
    rows = paper.table("table4")["rows"]
    assert average.paper == pytest.approx(rows[4]["Avg"] - rows[7]["Avg"])
    assert c.adjusted >= c.p
    assert {c.verdict for c in table.comparisons} >= {"within noise"}


def test_average_is_the_papers_mean_of_five(runs: pd.DataFrame) -> None:
    frame = runs.iloc[:1]
    entries = {entry["task"]: entry["average"] for entry in frame["tasks"].iloc[0]}
    assert values(frame, "Avg").iloc[0] == pytest.approx(sum(entries.values()) / 5)
    assert values(frame, "SQuAD1.1_EM").iloc[0] < values(frame, "SQuAD1.1_F1").iloc[0]


def test_missing_numbers_say_why(tmp_path: Path) -> None:
    chosen = cells("table4")
    for terms in chosen[4:7]:
        write_cell(tmp_path, terms, 0)
    folder = write_cell(tmp_path, chosen[7], 0)
    (folder / "status.json").write_text('{"state": "failed", "reason": "the loss is not finite"}')
    text = render.markdown(build(load_runs(tmp_path), "table4"))
    assert "no run of this cell" in text
    assert "failed: the loss is not finite" in text
    assert "not fine-tuned on this task" in text
    assert "One seed has no interval" in text
    assert "one seed" not in latex.latex(build(load_runs(tmp_path), "table4")).split("Differences")[0]


def test_an_arm_on_its_plateau_is_marked_and_not_compared(tmp_path: Path) -> None:
    for seed in (0, 1):
        for place, terms in enumerate(cells("table5")):
            write_cell(tmp_path, terms, seed, left=place != 0)
    table = build(load_runs(tmp_path), "table5")
    assert "†" in render.markdown(table)
    assert {c.verdict for c in table.comparisons if "table5.1" in (c.arm, c.reference)} == {"below its baseline"}


def test_a_speed_is_that_of_most_of_training_and_marked_where_the_machine_was_shared(tmp_path: Path) -> None:
    chosen = cells("table5")
    for seed in (0, 1):
        for terms in chosen:
            folder = write_cell(tmp_path, terms, seed)
            slow = terms is chosen[2] and seed == 1
            rates = [40_000.0] * 30 + ([9_000.0] * 20 if slow else [50.0] * 2)  # a pause does not count
            lines = [{"step": 10 * n, "tokens_per_second": rate} for n, rate in enumerate(rates, 1)]
            (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    runs = load_runs(tmp_path)
    assert set(runs["tokens_per_second"]) == {40_000.0}
    assert sorted(runs["speed_spread"].round(2)) == [1.0] * 5 + [4.44]
    table = build(runs, "table5")
    found = [[e for cell in row.cells for e in cell if e.metric in ("tokens/s", "speedup")] for row in table.rows]
    assert [[bool(entry.mark) for entry in row] for row in found] == [[False, False], [False, False], [True, True]]
    assert "† the speed changed" in render.markdown(table)
    assert [bool(note) for note in costs(runs)["note"]] == [True, False, False]
    assert unfit(runs, "tokens/s")
    assert not unfit(runs, "params")
    claim = {
        "id": "faster", "claim": "SOP is as fast.", "source": "us", "arms": {"sop": chosen[2], "none": chosen[0]},
        "effect": {"sop": 1, "none": -1}, "between": [-100, 100], "scores": ["tokens/s"],
    }  # fmt: skip
    (tmp_path / "claims.yaml").write_text(yaml.safe_dump([claim]))
    verdict = judge(runs, load_claims(tmp_path / "claims.yaml"))[0]
    assert verdict.verdict == "not tested"
    assert "a shared machine" in verdict.reason


def test_arms_of_two_set_ups_are_never_mixed(tmp_path: Path) -> None:
    write_sweep(tmp_path, seeds=2)
    for seed in range(3):
        write_cell(tmp_path, cells("table4")[0], seed, steps=200, law={("share", "all"): 0.5} | PAPER_LIKE)
    runs = load_runs(tmp_path)
    selection = select(runs, arms_of("table4"))
    assert {steps for frame in selection.runs.values() for steps in frame["steps"]} == {3500}
    assert selection.left_out == 3
    assert selection.differs["budget.steps"] == "3500, elsewhere 200"
    assert "Left out: 3 runs" in render.markdown(build(runs, "table4"))
    assert set(main_setup(runs)["steps"]) == {3500}


def test_dropout_and_data_arms_are_found_where_only_they_differ(tmp_path: Path) -> None:
    for name in ("table7", "table8"):
        for terms in arms_of(name).values():
            for seed in (0, 1):
                write_cell(tmp_path / name, terms, seed)
        table = build(load_runs(tmp_path / name), name)
        assert [row.seeds for row in table.rows] == [2, 2], name
        assert table.comparisons


def test_depth_and_width_follow_the_scale(tmp_path: Path) -> None:
    seen: set[str] = set()
    for terms in (*arms_of("table11").values(), *arms_of("table12").values()):
        if str(terms) not in seen:
            seen.add(str(terms))
            try:
                write_cell(tmp_path, terms, 0)
            except FileExistsError:  # depths that round to the same number of layers
                continue
    table = build(load_runs(tmp_path), "table11")
    assert all(row.runs for row in table.rows)
    assert table.rows[-1].labels == ("12 [48]",)
    assert build(load_runs(tmp_path), "table12").rows[1].labels == ("512 [2048]",)


def test_csv_has_a_row_for_every_arm_and_score(runs: pd.DataFrame) -> None:
    table = build(runs, "table3")
    frame = render.frame(table)
    assert len(frame) == len(table.rows) * sum(map(len, table.columns))
    assert frame.loc[frame["score"] == "MLM", "n"].eq(3).all()
    found = render.differences(table)
    assert set(found["verdict"]) <= {"differs", "within noise", "not after correction"}
    assert (found["p_holm"] >= found["p"]).all()


def test_a_table_without_runs_still_shows_the_papers_numbers(runs: pd.DataFrame) -> None:
    text = render.markdown(build(runs, "table13"))
    assert "[88.7]" in text
    assert "no run of this cell" in text


def has_latex() -> bool:
    find = shutil.which("kpsewhich")
    return find is not None and subprocess.run([find, "siunitx.sty"], capture_output=True).returncode == 0


@pytest.mark.skipif(not has_latex(), reason="needs pdflatex and siunitx")
def test_latex_compiles_with_booktabs(runs: pd.DataFrame, tmp_path: Path) -> None:
    body = "\n".join(latex.latex(table) for table in all_tables(runs))
    packages = "\\documentclass{article}\\usepackage{booktabs,graphicx,siunitx}"
    assert latex.PACKAGES.split()[2] in packages
    document = f"{packages}\\begin{{document}}\n{body}\\end{{document}}\n"
    (tmp_path / "t.tex").write_text(document)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]
    assert b"Missing character" not in (tmp_path / "t.log").read_bytes()
    assert "\\bfseries" in body
    assert "S[table-format" in body
    assert "\\textsuperscript{a}" in body


def test_latex_escapes_what_it_must() -> None:
    assert latex.tex("50% & a_b ± 1 − 2") == r"50\% \& a\_b $\pm$ 1 $-$ 2"
