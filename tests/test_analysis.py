"""Run folders as tables and curves, from folders written by hand."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from analysis.compare import compare
from analysis.curves import curves, draw
from analysis.parameters import paper_cells
from analysis.runs import load_metrics, load_runs

ROOT = Path(__file__).resolve().parent.parent


def write_run(
    root: Path, name: str, *, embed: int = 128, state: str = "finished", sop: float = 0.6, left: bool = True
) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "status.json").write_text(json.dumps({"state": state, "reason": None}))
    (folder / "config.yaml").write_text(
        f"seed: 0\nembed: {{size: {embed}}}\nshare: {{strategy: all}}\n"
        "objective: {name: sop}\nmodel: {name: nano}\nbudget: {steps: 3}\n"
    )
    lines = [{"step": s, "tokens": 1000 * s, "mlm_loss": 6.0 - s / 10} for s in (1, 2, 3)]
    lines[-1] |= {"held_out_mlm_loss": 5.5, "held_out_sentence_accuracy": sop}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if state == "finished":
        task = {"accuracy": sop, "interval": [sop - 0.02, sop + 0.02], "examples": 2000}
        results = {
            "masked_lm": {"loss": 5.5, "unigram_loss": 6.0, "bigram_loss": 5.4, "left_baseline": left},
            "sop": task | {"head": "trained"},
            "nsp": task | {"head": "fitted on the frozen encoder"},
        }
        (folder / "results.json").write_text(json.dumps(results))
        (folder / "manifest.json").write_text(json.dumps({"parameters": {"with_pooler": 830_000}}))
    return folder


def test_one_row_a_run_with_dotted_columns(tmp_path: Path) -> None:
    write_run(tmp_path, "b")
    write_run(tmp_path, "a", embed=64)
    runs = load_runs(tmp_path)
    assert list(runs["name"]) == ["a", "b"]
    assert list(runs["config.embed.size"]) == [64, 128]
    assert list(runs["results.sop.accuracy"]) == [0.6, 0.6]


def test_unfinished_runs_are_kept_with_empty_results(tmp_path: Path) -> None:
    write_run(tmp_path, "a")
    write_run(tmp_path, "b", state="running")
    runs = load_runs(tmp_path).set_index("name")
    assert runs.loc["b", "status.state"] == "running"
    assert pd.isna(runs.loc["b", "results.sop.accuracy"])


def test_a_folder_without_runs_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no run folders"):
        load_runs(tmp_path)


def test_comparison_marks_fitted_heads_and_missing_numbers(tmp_path: Path) -> None:
    write_run(tmp_path, "a", embed=64)
    write_run(tmp_path, "b", state="failed")
    write_run(tmp_path, "c", embed=256, left=False)
    table = compare(load_runs(tmp_path))
    assert list(table["E"]) == [64, 128, 256]
    assert table["MLM"].tolist() == ["5.500", "failed", "5.500 !"]
    assert table["SOP"][0] == "60.0% ±2.0"
    assert table["NSP"][0].endswith("*")
    assert table["SOP"][1] == "—"
    assert table["params"].tolist() == ["0.83M", "—", "0.83M"]


def test_curves_take_held_out_points_only(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "a")
    write_run(tmp_path, "b", state="running")
    assert len(load_metrics(folder)) == 3
    runs = load_runs(tmp_path)
    points = curves(runs)
    assert points[["name", "step", "mlm_loss"]].values.tolist() == [["a", 3, 5.5], ["b", 3, 5.5]]
    left, right = draw(points, runs).axes
    assert {line.get_label() for line in left.lines} >= {"a, 3 steps", "b, 3 steps"}
    assert right.lines[0].get_ydata().tolist() == pytest.approx([60.0])


@pytest.mark.parametrize("module", ["analysis.compare", "analysis.curves"])
def test_commands_say_where_nothing_is(module: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert "no run folders" in done.stderr
    assert "Traceback" not in done.stderr


def test_counts_round_to_the_papers_numbers_by_the_stated_rule() -> None:
    cells = paper_cells()
    assert len(cells) == 16
    for cell in cells.to_dict("records"):
        counts = {rule: round(cell[rule] / 1e6) for rule in ("encoder", "with_pooler")}
        if cell["rule"] == "neither":
            assert cell["millions"] not in counts.values()
        else:
            assert counts[cell["rule"]] == cell["millions"], cell
