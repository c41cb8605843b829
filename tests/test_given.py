"""The folder that a command is given is what it measures, or it says what the folder is; and where it may write."""

import errno
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from runhelpers import read_json, run, tiny_config, write_corpus
from taskhelpers import TINY, with_tasks, write_sst2

from albert_ablate.commands import evaluate, finetune, import_hf, plan
from albert_ablate.commands.given import open_run
from albert_ablate.data.prepare import prepare
from albert_ablate.errors import RunFolderError
from albert_ablate.experiment import run_folder
from albert_ablate.files import sha256_file, write_json
from albert_ablate.record.folder import RunFolder
from albert_ablate.record.part import write_record
from albert_ablate.record.tasks import UnitManifest
from albert_ablate.tasks.planning import plan_units

SHORT = ["evaluation.max_pairs=16", "evaluation.probe_pairs=16", "evaluation.similarity_pairs=8", "runtime.threads=1"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run and data of a task."""
    folder = tmp_path_factory.mktemp("given")
    run(tiny_config(folder))
    write_sst2(folder / "data")
    return folder


@pytest.fixture
def copy(place: Path, tmp_path: Path) -> RunFolder:
    """The run, copied into a folder of its own."""
    (found,) = (p for p in (place / "runs").iterdir() if not p.name.startswith("."))
    return RunFolder(tmp_path / "runs", shutil.copytree(found, tmp_path / "runs" / found.name).name)


def words(place: Path) -> list[str]:
    return [
        "task=sst2",
        f"task.data_dir={place / 'data'}",
        "tasks.sst2.steps=2",
        f"paths.cache={place / 'cache'}",
        *TINY,
    ]


def refused(place: Path) -> str:
    with pytest.raises(RunFolderError) as caught:
        open_run(place)
    return str(caught.value)


def test_every_way_to_name_a_run(copy: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    os.symlink(copy.path, copy.path.parent / "best")
    (copy.path / "tasks").mkdir()
    monkeypatch.chdir(copy.path)
    for name in (".", "./", "tasks/..", f"../{copy.name}", f"../{copy.name}/", "../best", "../best/", str(copy.path)):
        found = open_run(Path(name))
        assert found.name == copy.name
        assert found.path.samefile(copy.path)
        assert found.identity == copy.identity


def test_what_is_no_run_is_called_what_it_is(copy: RunFolder) -> None:
    runs, unit = copy.path.parent, copy.path / "tasks" / "sst2-s0-abcdef12"
    unit.mkdir(parents=True)
    write_record(unit / "manifest.json", UnitManifest(task="sst2", seed=0, run=copy.name))
    assert f"but the fine-tuning of {copy.path} on sst2, seed 0" in refused(unit)
    moved = shutil.copytree(unit, runs.parent / "moved")
    assert f"but the fine-tuning of {copy.name} on sst2, seed 0" in refused(moved)
    for part in ("checkpoints", "tasks", "config.yaml", "spiece.model", f"checkpoints/{newest(copy).name}"):
        assert refused(copy.path / part).endswith(f"but a part of one. Give the run itself: {copy.path}")
    assert refused(runs).endswith(f"but a folder of 1 run. Name what is in it: {copy.name}.")
    for number in range(9):
        (runs / f"other-{number}").mkdir()
        (runs / f"other-{number}" / "config.yaml").touch()
    assert "a folder of 10 runs" in refused(runs)
    assert refused(runs).endswith("other-6 and 2 more.")
    assert "it does not exist" in refused(runs / "no=thing")
    assert "it has no config.yaml" in refused(runs.parent)
    (runs.parent / "file").touch()
    assert "but a file" in refused(runs.parent / "file")


def newest(folder: RunFolder) -> Path:
    return max(folder.checkpoints.iterdir())


def test_a_copy_under_another_name_is_measured_itself(
    place: Path, copy: RunFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of the run of the same identity beside it is read or written; its fine-tunings count as those of it."""
    other = Path(shutil.copytree(copy.path, copy.path.parent / f"a-copy-{copy.identity}"))
    renamed = Path(shutil.copytree(copy.path, copy.path.parent / "lr=0.1" / "renamed"))
    before = {file: sha256_file(file) for file in copy.path.rglob("*") if file.is_file()}
    monkeypatch.chdir(renamed)
    assert finetune.main([".", *words(place)]) == 0
    monkeypatch.chdir(copy.path.parent)
    assert finetune.main([str(other), *words(place)]) == 0
    (one,), (two,) = ((f / "tasks").glob("sst2-*") for f in (renamed, other))
    assert one.name == two.name, "the same fine-tuning of the same run"
    assert read_json(one / "manifest.json")["run"] == "renamed"
    assert read_json(two / "manifest.json")["run"] == other.name
    capsys.readouterr()
    assert finetune.main(["lr=0.1/renamed", *words(place)]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert evaluate.main(["lr=0.1/renamed", *SHORT]) == 0
    (record,) = (renamed / "evaluations").iterdir()
    assert read_json(record)["run"] == "renamed"
    assert {file: sha256_file(file) for file in copy.path.rglob("*") if file.is_file()} == before


def test_a_cell_is_its_own_folder_and_not_a_copy_of_it(place: Path, copy: RunFolder) -> None:
    shutil.copytree(copy.path, copy.path.parent / f"a-copy-{copy.identity}")
    config = tiny_config(place, f"paths.runs={copy.path.parent}")
    assert run_folder(config, prepare(config), "fp32").path == copy.path
    shutil.rmtree(copy.path)
    assert run_folder(config, prepare(config), "fp32").name == f"a-copy-{copy.identity}"


def test_the_names_of_fine_tunings_are_those_of_before(place: Path, copy: RunFolder) -> None:
    """A run that kept its name, and one whose manifest has no name or cannot be read."""
    config = with_tasks(place, "task=sst2", f"task.data_dir={place / 'data'}")
    names = {plan_units(config, copy, "fp32")[0].folder.name}
    manifest = copy.read("manifest.json")
    write_json(copy.path / "manifest.json", {key: value for key, value in manifest.items() if key != "name"})
    names.add(plan_units(config, copy, "fp32")[0].folder.name)
    copy.write("manifest.json", "{")
    names.add(plan_units(config, copy, "fp32")[0].folder.name)
    assert len(names) == 1


def test_runs_that_are_not_finished_say_so(place: Path, copy: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    copy.set_status("preempted")
    assert finetune.main([str(copy.path), *words(place)]) == 2
    assert f"{copy.path} is preempted, not finished" in capsys.readouterr().err
    assert evaluate.main([str(copy.path), *SHORT]) == 0
    assert "is preempted, not finished: its newest checkpoint is not that of a whole run" in capsys.readouterr().out
    (record,) = (copy.path / "evaluations").iterdir()
    assert read_json(record)["state"] == "preempted"
    (copy.path / "status.json").unlink()
    assert finetune.main([str(copy.path), *words(place)]) == 2
    assert "has no status.json: whether its training ended is not known" in capsys.readouterr().err


def test_every_run_is_looked_at_before_the_first_is_trained(
    place: Path, copy: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert finetune.main([str(copy.path), str(copy.path.parent / "nothing"), *words(place)]) == 2
    assert "nothing: no run folder" in capsys.readouterr().err
    assert not (copy.path / "tasks" / ".locks").exists()


@pytest.mark.parametrize("word", ["lr=0.1/run", "my=runs/x"])
def test_a_path_with_an_equals_sign_that_is_not_there(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert finetune.main([word, "task=sst2"]) == 2
    assert f"{word}: no run folder (it does not exist)" in capsys.readouterr().err


@pytest.mark.parametrize("main", [finetune.main, evaluate.main])
def test_hydra_s_search_path_is_not_shown(main: Any, copy: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    word = "task=nowhere" if main is finetune.main else "data=nowhere"
    assert main([str(copy.path), word]) == 2
    err = capsys.readouterr().err
    assert f"{word}: there is no such option" in err
    assert "earch path" not in err
    assert "pkg://" not in err


# --- where nothing may be written ------------------------------------------------------------------


def read_only(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """As a folder of another user's: a superuser may write anywhere, so the refusal is made here."""
    real = tempfile.TemporaryFile

    def refusing(*args: Any, dir: Path, **more: Any) -> Any:
        if Path(dir).absolute().is_relative_to(folder):
            raise PermissionError(errno.EACCES, "Permission denied", str(dir))
        return real(*args, dir=dir, **more)

    patch.setattr(tempfile, "TemporaryFile", refusing)


def never(*_: Any) -> None:
    raise AssertionError("the work has begun")


def test_a_read_only_run_is_refused_before_the_work(
    place: Path, copy: RunFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read_only(copy.path, monkeypatch)
    monkeypatch.setattr(finetune, "fine_tune_run", never)
    assert finetune.main([str(copy.path), *words(place)]) == 2
    assert f"{copy.path} cannot be written (Permission denied); fine-tunings are kept in" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "evaluate", never)
        assert evaluate.main([str(copy.path), *SHORT]) == 2
    assert "(Permission denied). Keep the record elsewhere: --out FILE.json" in capsys.readouterr().err
    out = copy.path.parent / "record.json"
    assert evaluate.main([str(copy.path), "--out", str(out), *SHORT]) == 0
    assert read_json(out)["run"] == copy.name
    assert not list((copy.path / "evaluations").glob("*")) if (copy.path / "evaluations").exists() else True
    assert evaluate.main([str(copy.path), "--out", str(out), *SHORT]) == 2
    assert "this file exists already" in capsys.readouterr().err


@pytest.mark.parametrize("main", [finetune.main, evaluate.main])
def test_a_cache_that_cannot_be_written_is_found_first(
    main: Any, place: Path, copy: RunFolder, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    more = words(place)[:3] if main is finetune.main else SHORT
    assert main([str(copy.path), *more, f"paths.cache={tmp_path / 'file' / 'cache'}"]) == 2
    err = capsys.readouterr().err
    assert "paths.cache" in err
    assert "Traceback" not in err
    assert main([str(copy.path), *more, "paths.runs=elsewhere"]) == 2
    assert "paths.runs=elsewhere: no effect on a run that is given by its folder" in capsys.readouterr().err


def test_numbers_are_shown_before_they_are_kept(
    copy: RunFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full at the last line costs the file, not the numbers."""

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(evaluate, "write_record", full)
    assert evaluate.main([str(copy.path), *SHORT]) == 28
    shown = capsys.readouterr()
    assert "masked-LM loss" in shown.out
    assert "No space left" in shown.err


def test_plan_and_import_say_what_they_cannot_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert import_hf.main([str(tmp_path), str(tmp_path / "file" / "runs" / "mine")]) == 2
    assert "cannot be written (Not a directory). Name a folder of your own." in capsys.readouterr().err
    words = ["sweep=table1", "--no-time", "--csv", str(tmp_path / "file" / "plan.csv")]
    words += [f"paths.cache={tmp_path / 'cache'}", f"data.path={write_corpus(tmp_path / 'c.txt')}", "data=text"]
    assert plan.main([*words, "tokenizer.vocab_size=200"]) == 1
    shown = capsys.readouterr()
    assert "plan.csv: cannot be written (" in shown.err
    assert shown.out
