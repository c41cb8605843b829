"""Folders that the analysis commands are given, and places they write to: what they want, or words."""

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from reporthelpers import cells, write_cell

from analysis import compare, figures, first_difference, report, similarity
from analysis.read.runs import load_runs

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = ("report", "compare", "figures")


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two runs, one with the folder of a fine-tuning."""
    folders = [write_cell(tmp_path / "runs", cells("table5")[0], seed) for seed in range(2)]
    unit = folders[0] / "tasks" / "sst2-s0-000000000001"
    unit.mkdir(parents=True)
    (unit / "status.json").write_text(json.dumps({"state": "finished", "updated": "2026-11-21T10:00:00+00:00"}))
    (unit / "manifest.json").write_text(json.dumps({"task": "sst2", "run": folders[0].name}))
    (unit / "metrics.jsonl").write_text("")
    (folders[0] / "checkpoints").mkdir()
    return tmp_path / "runs"


def call(name: str, *words: str) -> int:
    return int(importlib.import_module(f"analysis.{name}").main([*words]))


def places(runs: Path) -> dict[str, tuple[Path, str]]:
    run = next(path for path in runs.iterdir() if (path / "tasks").is_dir())
    (runs.parent / "empty").mkdir(exist_ok=True)
    unit = next((run / "tasks").iterdir())
    return {
        "nowhere": (runs / "typo", "there is no such folder"),
        "empty": (runs.parent / "empty", "a run folder holds status.json"),
        "a file of a run": (run / "results.json", f"it is a file. Name the run folder, {run}"),
        "a fine-tuning": (unit, "but a fine-tuning of one. Name the run folder"),
        "the fine-tunings": (run / "tasks", "but a fine-tuning of one. Name the run folder"),
        "a part of a run": (run / "checkpoints", f"it is a part of the run {run}"),
        "above the runs": (runs.parent, f"There are some in {runs}"),
    }


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    "kind",
    ["nowhere", "empty", "a file of a run", "a fine-tuning", "the fine-tunings", "a part of a run", "above the runs"],
)
def test_a_folder_that_holds_no_runs_is_refused_in_words(
    command: str, kind: str, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place, words = places(runs)[kind]
    more = [] if command == "compare" else ["--out", str(runs.parent / "out")]
    assert call(command, str(place), *more) == 2
    err = capsys.readouterr().err
    assert "no run folders there" in err
    assert words in err
    assert not (runs.parent / "out").exists()


def test_a_misspelt_folder_beside_a_right_one_is_told(runs: Path) -> None:
    with pytest.raises(FileNotFoundError, match="typo: no run folders there"):
        load_runs(runs, runs / "typo")
    assert len(load_runs(runs, next(runs.iterdir()))) == 2


@pytest.mark.parametrize("kind", ["nowhere", "a fine-tuning", "the fine-tunings", "a part of a run", "above the runs"])
def test_first_difference_wants_two_run_folders(kind: str, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place, _ = places(runs)[kind]
    assert first_difference.main([str(place), str(next(runs.iterdir()))]) == 2
    assert str(place) in capsys.readouterr().err
    assert first_difference.main([str(runs), str(runs)]) == 2
    assert "a folder of 2. Name one" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["a fine-tuning", "the fine-tunings", "a part of a run", "empty"])
def test_similarity_measures_what_it_is_given_or_nothing(
    kind: str, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place, _ = places(runs)[kind]
    assert similarity.main([str(place), "--text", "x.txt"]) == 2
    assert f"{place}: neither a run folder" in capsys.readouterr().err
    assert similarity.main([str(runs), "--text", "x.txt"]) == 2
    assert "It is a folder of 2 runs: name them" in capsys.readouterr().err


# --- where results go ------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["report", "figures"])
def test_a_place_that_cannot_be_written_is_found_before_the_work(
    command: str, runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (runs.parent / "file").touch()
    monkeypatch.setattr("analysis.read.runs._row", lambda _: pytest.fail("runs were read before"))
    for out in (runs.parent / "file", runs.parent / "file" / "deep" / "out"):
        assert call(command, str(runs), "--out", str(out)) == 1
        assert f"--out {out}: cannot be written" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
@pytest.mark.parametrize("command", ["report", "figures", "similarity"])
def test_a_read_only_place(command: str, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--text", "x.txt"] if command == "similarity" else []
    assert call(command, str(runs), "--out", "/proc/out", *more) == 1
    assert "--out /proc/out: cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["index.html", "report.md", "runs.csv", "tables", "figures"])
def test_a_report_never_takes_the_place_of_other_files(
    name: str, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = runs.parent / "site"
    out.mkdir()
    (out / name).mkdir() if "." not in name else (out / name).write_text("mine")
    assert report.main([str(runs), "--out", str(out)]) == 2
    assert f"it holds {name}, which this command did not write" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == [name]


def test_a_report_is_written_over_an_earlier_one_and_beside_other_files(runs: Path) -> None:
    out = runs.parent / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    for _ in range(2):
        assert report.main([str(runs), "--out", str(out), "--compact"]) == 0
    assert (out / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("command", ["report", "figures"])
def test_nothing_is_written_among_runs(command: str, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place in (runs, next(runs.iterdir())):
        before = sorted(place.iterdir())
        assert call(command, str(runs), "--out", str(place)) == 2
        assert "it holds run folders. Name another folder" in capsys.readouterr().err
        assert sorted(place.iterdir()) == before


def test_a_figure_never_takes_the_place_of_another_picture(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = runs.parent / "paper"
    out.mkdir()
    (out / "cost.png").write_text("mine")
    assert figures.main([str(runs), "--out", str(out), "--only", "cost"]) == 2
    assert "it holds cost.png, which this command did not write" in capsys.readouterr().err
    for _ in range(2):
        assert figures.main([str(runs), "--out", str(out), "--only", "seeds"]) == 0
    assert (out / "cost.png").read_text() == "mine"


def test_the_table_of_compare(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, mine = runs.parent / "t.csv", runs.parent / "mine.csv"
    for _ in range(2):
        assert compare.main([str(runs), "--csv", str(table)]) == 0
    mine.write_text("name,age\n")
    assert compare.main([str(runs), "--csv", str(mine)]) == 2
    assert "it exists and is not a table of this command" in capsys.readouterr().err
    assert mine.read_text() == "name,age\n"
    assert compare.main([str(runs), "--csv", str(runs)]) == 2
    assert compare.main([str(runs), "--csv", str(mine / "x.csv")]) == 1
    assert "cannot be written" in capsys.readouterr().err


# --- matplotlib of the user --------------------------------------------------------------------------------


def python(code: str, folder: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=300,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_users_backend_style_and_home_change_no_figure(runs: Path) -> None:
    """A notebook's backend that is not installed here, a style that sets TeX and more, a home that is not writable."""
    style = runs.parent / "style"
    style.mkdir()
    (style / "matplotlibrc").write_text(
        "text.usetex: True\nsavefig.bbox: tight\naxes.grid: True\nfont.family: serif\nlines.marker: x\n"
    )
    assert figures.main([str(runs), "--out", str(runs.parent / "plain"), "--only", "cost"]) == 0
    code = (
        "import sys; from analysis import figures; sys.exit(figures.main(['runs', '--out', 'out', '--only', 'cost']))"
    )
    nowhere = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"), "/proc/nowhere")
    backend = "module://no_such_notebook.backend_inline"
    python(code, runs.parent, MPLBACKEND=backend, MATPLOTLIBRC=str(style), **nowhere)
    for form in ("png", "svg", "pdf", "csv"):
        ours, plain = (runs.parent / place / f"cost.{form}" for place in ("out", "plain"))
        assert ours.read_bytes() == plain.read_bytes(), form


def test_the_backend_of_a_notebook_stays_its_own() -> None:
    code = (
        "import os, runpy, sys; runpy.run_path('albert_ablate/drawing_library.py'); import matplotlib;"
        "print(matplotlib.rcParams._get('backend'), os.environ['MPLBACKEND'], 'matplotlib.pyplot' in sys.modules)"
    )
    assert python(code, ROOT, MPLBACKEND="svg").split() == ["svg", "svg", "False"]
    before = "import matplotlib; matplotlib.use('pdf'); "
    assert python(before + code, ROOT, MPLBACKEND="svg").split() == ["pdf", "svg", "False"]
    assert python(code, ROOT, MPLBACKEND="nonsense").split()[-2:] == ["nonsense", "False"]


def test_only_one_module_loads_matplotlib() -> None:
    files = [file for folder in ("albert_ablate", "analysis") for file in (ROOT / folder).rglob("*.py")]
    found = [file.name for file in files if re.search("(import|from) matplotlib", file.read_text(encoding="utf-8"))]
    assert found == ["drawing_library.py"]
