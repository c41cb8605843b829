"""Run folders as data, side by side and as figures."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from reporthelpers import cells, loaded, write_cell, write_sweep
from test_copies import edit

from albert_ablate.files import read_json
from analysis.compare import changes, compare, compare_tasks
from analysis.compare import main as compare_command
from analysis.draw.plotting import NothingToDraw
from analysis.draw.style import MUTED, inline, write
from analysis.figures import FIGURES, draw_all
from analysis.judge.tables import arms_of
from analysis.parameters import paper_cells
from analysis.read.runs import COLUMNS, load_metrics, load_runs
from analysis.write.costs import costs

ROOT = Path(__file__).resolve().parent.parent
SOP = {"size": "base", "embedding": "H/6", "share": "all", "objective": "sop"}


def test_one_row_a_run_with_the_documented_columns(tmp_path: Path) -> None:
    write_cell(tmp_path, SOP, 1)
    write_cell(tmp_path, SOP | {"embedding": "H"}, 0)
    runs = load_runs(tmp_path)
    assert list(runs.columns) == list(COLUMNS)
    assert list(runs["E"]) == [192, 32]
    assert list(runs["seed"]) == [0, 1]
    assert runs["tokens_fingerprint"].eq("feed").all()
    assert runs["commit"].eq("a" * 40).all()
    assert runs["nsp_left_baseline"].all()
    assert load_runs(next(tmp_path.iterdir()))["run"].tolist() == [next(tmp_path.iterdir()).name]


def test_unfinished_failed_and_broken_runs_are_rows_that_say_so(tmp_path: Path) -> None:
    folders = [write_cell(tmp_path, SOP, seed) for seed in range(5)]
    (folders[0] / "status.json").write_text(json.dumps({"state": "failed", "reason": "the loss is not finite\nat 3"}))
    (folders[1] / "status.json").write_text(json.dumps({"state": "running", "reason": None}))  # its process is gone
    (folders[2] / "manifest.json").unlink()
    (folders[3] / "results.json").write_text("{ broken")
    runs = load_runs(tmp_path).set_index("seed")
    assert runs["state"].tolist() == ["failed", "preempted", "finished", "finished", "finished"]
    assert runs["note"].tolist() == ["the loss is not finite", "", "no manifest.json", "results.json is broken", ""]
    assert runs["mlm"].isna().tolist() == [True, True, False, True, False]
    assert runs["params_with_pooler"].isna()[2]


def test_a_comparison_fits_eighty_columns_and_breaks_no_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    runs = [write_cell(tmp_path, SOP, seed) for seed in range(2)]
    (runs[1] / "status.json").write_text(json.dumps({"state": "preempted", "reason": "stopped"}))
    table = compare(load_runs(tmp_path))
    assert [str(steps) for steps in table["steps"]] == ["3500", "3500"]
    assert compare_command([str(tmp_path)]) == 0
    text = capsys.readouterr().out
    for words in (table.columns, table.iloc[0]):
        assert {word for cell in words for word in str(cell).split()} <= set(text.split())
    assert max(map(len, text.splitlines())) <= 80
    monkeypatch.setenv("COLUMNS", "50")
    assert compare_command([str(tmp_path)]) == 0
    assert "…" in capsys.readouterr().out.splitlines()[1], "what is cut says so"


def test_a_folder_of_an_older_version_is_read(tmp_path: Path) -> None:
    folder = write_cell(tmp_path, SOP, 0)
    results = read_json(folder / "results.json")
    del results["tasks"], results["evaluation"]
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "similarity.json").unlink()
    config = (folder / "config.yaml").read_text().replace("warm_start:\n  layers: []\n", "")
    (folder / "config.yaml").write_text(config)
    runs = load_runs(tmp_path)
    assert runs["tasks"].tolist() == [[]]
    drawings, undrawn = draw_all(runs)
    assert "figure1" in undrawn
    assert {d.name for d in drawings} >= {"cost", "seeds"}


def test_a_folder_without_runs_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no run folders"):
        load_runs(tmp_path)


def test_comparison_marks_fitted_heads_and_missing_numbers(tmp_path: Path) -> None:
    write_cell(tmp_path, SOP | {"embedding": "H/12"}, 0)
    failed = write_cell(tmp_path, SOP, 0)
    (failed / "status.json").write_text(json.dumps({"state": "failed", "reason": "x"}))
    write_cell(tmp_path, SOP | {"embedding": "H"}, 0, left=False)
    table = compare(load_runs(tmp_path))
    assert list(table["E"]) == [16, 32, 192]
    assert table["MLM"][1] == "failed"
    assert table["MLM"].str.endswith("!").tolist() == [False, False, True]
    assert table["SOP"][0].endswith("±2.0")
    assert table["NSP"][0].endswith("*")
    assert table["SOP"][1] == "—"


def test_tasks_side_by_side(tmp_path: Path) -> None:
    write_cell(tmp_path, SOP, 0, tasks=("sst2",))
    (row,) = compare_tasks(load_runs(tmp_path)).to_dict("records")
    assert row["task"] == "sst2"
    assert row["to beat"] == "40.0%"


def test_what_changed_between_two_collections_is_paired_by_seed(tmp_path: Path) -> None:
    before = loaded(tmp_path / "a")
    write_sweep(tmp_path / "b", law={("share", "all"): 0.05})
    after = load_runs(tmp_path / "b")
    table, words = changes(before, after)
    found = {(c.arm, c.metric): c for c in table.comparisons}
    gained = found["E=32, all shared, SOP", "MLM"]
    assert gained.difference.mean == pytest.approx(5.0)
    assert gained.verdict == "differs"
    assert found["E=32, shared attention, SOP", "MLM"].difference.mean == pytest.approx(-1.8)
    assert words == {"only in A": [], "only in B": [], "settings": []}


def test_collections_that_differ_in_cells_and_settings_say_so(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_cell(tmp_path / "a", SOP, seed)
        write_cell(tmp_path / "a", SOP | {"share": "none"}, seed)
        write_cell(tmp_path / "b", SOP, seed, steps=7000)
        write_cell(tmp_path / "b", SOP | {"share": "ffn"}, seed, steps=7000)
    _, words = changes(load_runs(tmp_path / "a"), load_runs(tmp_path / "b"))
    assert words["only in A"] == ["E=32, not shared, SOP"]
    assert words["only in B"] == ["E=32, shared FFN, SOP"]
    assert "budget.steps: 7000, there 3500" in words["settings"]


def test_losses_of_unlike_sequences_are_not_shown_without_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_cell(tmp_path, SOP, 0)
    folder = write_cell(tmp_path, SOP, 1)
    assert compare_command([str(tmp_path)]) == 0
    assert "not comparable" not in capsys.readouterr().out
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    settings["pairs"]["max_length"] = 512
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    edit(folder / "manifest.json", lambda found: found["data"].update(tokens={"fingerprint": "beef"}))
    assert compare_command([str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert (
        "scored on sequences of different length (pairs.max_length 64 and 512). Their losses are not comparable."
        in said
    )
    assert "The runs are scored on 2 different texts, or on one text in different pieces." in said


def test_metrics_survive_a_last_line_cut_short(tmp_path: Path) -> None:
    folder = write_cell(tmp_path, SOP, 0)
    with (folder / "metrics.jsonl").open("a") as out:
        out.write('{"step": 9')
    assert len(load_metrics(folder)) == 7
    (folder / "metrics.jsonl").unlink()
    assert load_metrics(folder).empty


def test_metrics_of_a_folder_of_runs_are_refused_in_words(tmp_path: Path) -> None:
    folder = write_cell(tmp_path, SOP, 0)
    with pytest.raises(FileNotFoundError, match=rf"a folder of 1 runs; load_metrics reads one .*{folder.name}"):
        load_metrics(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        load_metrics(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"it is a file\. Name the run folder"):
        load_metrics(folder / "results.json")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return loaded(tmp_path_factory.mktemp("runs"))


def test_every_figure_is_drawn_with_its_numbers(sweep: pd.DataFrame, tmp_path: Path) -> None:
    drawings, undrawn = draw_all(sweep)
    assert {d.name for d in drawings} == set(FIGURES) - {"figure2", "generators", "replaced", "students", "sizes"}
    assert "dropout" in undrawn["figure2"]
    for drawing in drawings:
        write(drawing, tmp_path)
        for form in ("png", "svg", "pdf", "csv"):
            assert (tmp_path / f"{drawing.name}.{form}").stat().st_size > 200
        assert drawing.caption
        svg = inline(drawing)
        assert svg.startswith("<svg")
        assert "var(--ink)" in svg
        assert MUTED not in svg
    layers = pd.read_csv(tmp_path / "figure1.csv")
    one = layers[(layers["arm"] == "all shared") & (layers["seed"] == 0) & (layers["measure"] == "l2")]
    run = sweep[(sweep["share"] == "all") & (sweep["E"] == 32) & (sweep["objective"] == "sop") & (sweep["seed"] == 0)]
    assert one["value"].tolist() == pytest.approx(run["l2"].iloc[0])
    caption = next(drawing.caption for drawing in drawings if drawing.name == "figure1")
    assert "held-out sequences of up to 64 tokens" in caption
    matrix = pd.read_csv(tmp_path / "objectives.csv", keep_default_na=False)
    assert matrix[(matrix["trained_on"] == "SOP") & (matrix["tested_on"] == "NSP")]["paper"].item() == 78.9


def test_many_curves_have_a_legend_of_colours_and_one_of_dashes(sweep: pd.DataFrame) -> None:
    drawing = FIGURES["curves"](sweep)
    words = [text.get_text() for text in drawing.figure.legends[0].get_texts()]
    assert set(words[:-4]) == {
        "all shared", "all shared, NSP", "all shared, no sentence task", "shared attention", "shared FFN", "not shared",
    }  # fmt: skip
    assert words[-4:] == ["E=16", "E=32", "E=64", "E=192"], "as numbers"
    arms = drawing.data["arm"].drop_duplicates().tolist()
    assert [arm.split(",")[0] for arm in arms] == ["E=16"] * 2 + ["E=32"] * 6 + ["E=64"] * 2 + ["E=192"] * 4
    assert costs(sweep)["arm"].tolist() == arms


def test_the_cost_of_disturbed_runs_is_drawn_and_not_counted(sweep: pd.DataFrame) -> None:
    disturbed = sweep["run"].isin(sweep["run"].iloc[:5])
    slow = sweep.assign(seconds=sweep["seconds"] * (1 + 9 * disturbed), speed_spread=disturbed.map({True: 3.0}))
    one, other = FIGURES["cost"](sweep[~disturbed].reset_index(drop=True)), FIGURES["cost"](slow)
    assert other.data["steady"].value_counts().to_dict() == {True: len(sweep) - 5, False: 5}
    assert (
        other.caption
        == f"{one.caption} Hollow, and not counted here: 5 runs during which something else used the machine."
    )


def test_a_figures_bytes_follow_from_the_runs(sweep: pd.DataFrame, tmp_path: Path) -> None:
    for name in ("a", "b"):
        drawing = FIGURES["pareto"](sweep)
        write(drawing, tmp_path / name)
    for form in ("png", "svg", "pdf", "csv"):
        assert (tmp_path / "a" / f"pareto.{form}").read_bytes() == (tmp_path / "b" / f"pareto.{form}").read_bytes()


def test_figure_2_has_both_panels_and_the_papers(tmp_path: Path) -> None:
    for terms in list(arms_of("figure2").values())[2:]:
        for seed in (0, 1):
            write_cell(tmp_path, terms, seed)
    drawing = FIGURES["figure2"](load_runs(tmp_path))
    assert set(drawing.data["panel"]) == {"b"}
    texts = [text.get_text() for axes in drawing.figure.axes for text in axes.texts]
    assert texts == ["no such pair of runs"]
    assert len(drawing.figure.axes[3].lines) == 2


def test_a_figure_without_its_runs_says_why(tmp_path: Path) -> None:
    write_cell(tmp_path, SOP, 0)
    with pytest.raises(NothingToDraw, match="fewer than two arms"):
        FIGURES["pareto"](load_runs(tmp_path))


@pytest.mark.parametrize("module", ["analysis.compare", "analysis.figures", "analysis.report"])
def test_commands_say_where_nothing_is(module: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2
    assert "no run folders" in done.stderr
    assert "Traceback" not in done.stderr


def test_two_collections_on_the_command_line(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for seed in (0, 1):
            for terms in cells("table5"):
                write_cell(tmp_path / name, terms, seed)
    command = [sys.executable, "-m", "analysis.compare", str(tmp_path / "a"), str(tmp_path / "b")]
    done = subprocess.run(
        [*command, "--csv", str(tmp_path / "c.csv")], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "within noise" in done.stdout
    assert pd.read_csv(tmp_path / "c.csv")["difference"].abs().max() == 0


def test_counts_round_to_the_papers_numbers_by_the_stated_rule() -> None:
    cells = paper_cells()
    assert len(cells) == 16
    for cell in cells.to_dict("records"):
        counts = {rule: round(cell[rule] / 1e6) for rule in ("encoder", "with_pooler")}
        if cell["rule"] == "neither":
            assert cell["millions"] not in counts.values()
        else:
            assert counts[cell["rule"]] == cell["millions"], cell
