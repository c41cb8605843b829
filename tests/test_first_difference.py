"""The first step at which two runs differ is named, and equal runs are called equal."""

import json
from pathlib import Path

import pytest
from runhelpers import run, tiny_config

from albert_ablate.record.folder import RunFolder
from analysis.first_difference import first_difference, main


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("difference")


@pytest.fixture(scope="module")
def whole(place: Path) -> RunFolder:
    return run(tiny_config(place, "runtime.log_every=1", runs="whole"))


def test_two_runs_of_one_seed_have_none(place: Path, whole: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    again = run(tiny_config(place, "runtime.log_every=1", "runtime.checkpoint_every=3", runs="again"))
    capsys.readouterr()
    assert main([str(whole.path), str(again.path)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "no metric differs up to step 12", "the newest weights are equal to the byte"
    ]  # fmt: skip


def test_another_seed_differs_from_the_first_step_on(
    place: Path, whole: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    other = run(tiny_config(place, "runtime.log_every=1", "seed=1", runs="other"))
    capsys.readouterr()
    assert main([str(whole.path), str(other.path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "setting seed: 0, not 1" in lines
    assert "first differing step: 1" in lines
    assert any(line.startswith("  mlm_loss: ") for line in lines)


def test_the_step_is_the_first_one(whole: RunFolder, tmp_path: Path) -> None:
    lines = whole.metrics()
    for step, key, factor in ((5, "mlm_loss", 1.001), (12, "gradient_norm", 2.0)):
        changed = [line | {key: line[key] * factor} if line["step"] >= step else line for line in lines]
        folder = tmp_path / f"{step}"
        folder.mkdir()
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in changed))
        found = first_difference(whole.path, folder)
        assert found is not None
        assert found["step"] == step
        assert set(found["values"]) == {key}
        assert (first_difference(whole.path, folder, tolerance=0.01) is None) == (factor < 1.01)


def test_a_missing_line_is_a_difference_and_a_shorter_run_is_none(whole: RunFolder, tmp_path: Path) -> None:
    lines = whole.metrics()
    for name, kept in (("gap", lines[:4] + lines[5:]), ("short", lines[:7])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept))
    assert first_difference(whole.path, tmp_path / "gap") == {"step": 5, "values": {"line": (True, False)}}
    assert first_difference(whole.path, tmp_path / "short") is None


def test_a_folder_that_is_none(whole: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(whole.path), str(tmp_path)]) == 2
    assert "no run folder" in capsys.readouterr().err
