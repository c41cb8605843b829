"""Whole runs of students: the teacher comes first or is named, stops, identities, records, refusals."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from runhelpers import (
    newest_checkpoint,
    run_folders,
    start,
    stopped_in,
    timeless,
    tiny_config,
    tiny_overrides,
    weights_of,
)
from safetensors.torch import load_file, save_file

from albert_ablate.config.identity import settings_digest
from albert_ablate.door.cells import expand, read_command_line
from albert_ablate.errors import ConfigError
from albert_ablate.loading import LoadedRun
from albert_ablate.model.student import load_teacher
from albert_ablate.record.folder import RunFolder

STUDENT = ("method=distilbert", "objective=none", "share=none")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("students")


@pytest.fixture(scope="module")
def both(shared: Path) -> dict[str, RunFolder]:
    """A student and its teacher, which was trained first."""
    assert start(tiny_config(shared, *STUDENT, runs="both")) == 0
    found = [RunFolder(path.parent, path.name) for path in run_folders(shared / "both")]
    return {"student" if "distilbert" in folder.name else "teacher": folder for folder in found}


def test_the_teacher_is_masked_lm_with_the_students_settings(both: dict[str, RunFolder], shared: Path) -> None:
    cell = tiny_config(shared, "objective=none", "share=none", "model.layers=4")
    teacher = both["teacher"]
    assert teacher.identity == both["teacher"].read("manifest.json")["identity"]
    assert teacher.read("manifest.json")["parameters"]["pooler"] > 0
    assert both["student"].read("manifest.json")["parameters"]["pooler"] == 0
    taught = expand(read_command_line(tiny_overrides(shared, *STUDENT)))
    assert [c.config.model.layers for c in taught] == [4, 2]
    assert settings_digest(taught[0].config) == settings_digest(cell)


def test_a_teacher_that_is_a_cell_of_the_sweep_is_that_cell(shared: Path) -> None:
    """Its cell is not planned twice, and keeps its row."""
    words = [w for w in tiny_overrides(shared, *STUDENT) if not w.startswith(("method=", "model.layers="))]
    cells = expand(read_command_line([*words, "method=mlm,distilbert", "model.layers=4,2"]))
    shapes = [(str(c.config.method.name), c.config.model.layers) for c in cells]
    assert sorted(shapes) == [("distilbert", 2), ("distilbert", 4), ("mlm", 2), ("mlm", 4), ("mlm", 8)]
    assert shapes.index(("mlm", 4)) < shapes.index(("distilbert", 2))


def test_a_named_teacher_teaches_as_the_one_trained_first(both: dict[str, RunFolder], shared: Path) -> None:
    """The same student, but for its identity: whose teacher is a run, wherever it lies."""
    named = tiny_config(shared, *STUDENT, f"method.teacher={both['teacher'].path}", runs="named")
    assert named.method.teacher_run == both["teacher"].identity
    assert start(named) == 0
    (path,) = run_folders(shared / "named")
    student = RunFolder(path.parent, path.name)
    assert weights_of(student) == weights_of(both["student"])
    assert student.identity != both["student"].identity
    moved = shared / "elsewhere" / both["teacher"].name
    shutil.copytree(both["teacher"].path, moved)
    other = tiny_config(shared, *STUDENT, f"method.teacher={moved}", runs="named")
    assert settings_digest(other) == settings_digest(named)


def test_the_student_begins_with_the_teachers_layers_and_the_teacher_stays(both: dict[str, RunFolder]) -> None:
    teacher = load_file(newest_checkpoint(both["teacher"]) / "model.safetensors")
    student = load_file(newest_checkpoint(both["student"]) / "model.safetensors")
    assert student.keys() < teacher.keys()
    assert "encoder.embedding.token_type.weight" not in student
    near = torch.nn.functional.cosine_similarity
    for ours, theirs in (("0", "0"), ("1", "3")):
        a, b = (s[f"encoder.ffn.{n}.inner.weight"].flatten() for s, n in ((student, ours), (teacher, theirs)))
        assert 0.9 < near(a, b, dim=0) < 1


@pytest.mark.parametrize("stop", [3, 9])
def test_a_stopped_student_ends_as_one_that_was_not(
    shared: Path, both: dict[str, RunFolder], stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropout = ("model.hidden_dropout=0.1", "model.attention_dropout=0.1")
    settings = (*STUDENT, *dropout, f"method.teacher={both['teacher'].path}")
    assert start(tiny_config(shared, *settings, runs="whole")) == 0
    config = tiny_config(shared, *settings, runs=f"parts{stop}")
    stopped_in(stop, config, monkeypatch)
    assert start(config) == 0
    whole, parts = (RunFolder(p.parent, p.name) for r in ("whole", f"parts{stop}") for p in run_folders(shared / r))
    assert timeless(whole.metrics()) == timeless(parts.metrics())
    assert weights_of(whole) == weights_of(parts)


def test_a_finished_student_needs_its_teacher_no_more(
    shared: Path, both: dict[str, RunFolder], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shared / "gone" / both["teacher"].name
    shutil.copytree(both["teacher"].path, folder)
    config = tiny_config(shared, *STUDENT, f"method.teacher={folder}", runs="orphan")
    assert start(config) == 0
    shutil.rmtree(folder)
    capsys.readouterr()
    assert start(config) == 0
    assert "nothing to do" in capsys.readouterr().out
    (path,) = run_folders(shared / "orphan")
    pieces = LoadedRun(RunFolder(path.parent, path.name)).fill_mask("It is a [MASK].", top=2)
    assert len(pieces[0]) == 2


def test_another_run_in_the_teachers_place_is_refused(shared: Path, both: dict[str, RunFolder]) -> None:
    folder = shared / "swapped" / "teacher"
    shutil.copytree(both["teacher"].path, folder)
    config = tiny_config(shared, *STUDENT, f"method.teacher={folder}", runs="swapped-runs")
    shutil.rmtree(folder)
    assert start(tiny_config(shared, "objective=none", "share=none", "seed=5", runs="swapped-in")) == 0
    (other,) = run_folders(shared / "swapped-in")
    shutil.copytree(other, folder)
    with pytest.raises(ConfigError, match="now another one lies there"):
        start(config)


def test_an_unfinished_teacher_and_one_with_another_tokenizer_are_refused(
    shared: Path, both: dict[str, RunFolder]
) -> None:
    unfinished = shared / "unfinished" / both["teacher"].name
    shutil.copytree(both["teacher"].path, unfinished)
    RunFolder(unfinished.parent, unfinished.name).set_status("preempted", "stopped")
    with pytest.raises(ConfigError, match=r"that run is preempted\. A teacher must be finished"):
        tiny_config(shared, *STUDENT, f"method.teacher={unfinished}")
    named = f"method.teacher={both['teacher'].path}"
    with pytest.raises(ConfigError, match=r"tokenizer.vocab_size=150: the teacher has 200 pieces"):
        start(tiny_config(shared, *STUDENT, named, "tokenizer.vocab_size=150", runs="other"))
    with pytest.raises(ConfigError, match="it reads another tokenizer's pieces"):
        start(tiny_config(shared, *STUDENT, named, "tokenizer=bpe", runs="other"))
    assert not run_folders(shared / "other")


def test_students_of_a_process_share_their_teacher_until_it_is_another(
    tmp_path: Path, both: dict[str, RunFolder], shared: Path
) -> None:
    shape = tiny_config(shared, "objective=none", "share=none", "model.layers=4").architecture()
    checkpoint = tmp_path / "step"
    shutil.copytree(newest_checkpoint(both["teacher"]), checkpoint)
    first = load_teacher(checkpoint, shape)
    assert load_teacher(checkpoint, shape) is first
    file = checkpoint / "model.safetensors"
    save_file({name: tensor + 1 for name, tensor in load_file(file).items()}, file)
    os.utime(file, ns=(1, file.stat().st_mtime_ns + 1))
    again = load_teacher(checkpoint, shape)
    torch.testing.assert_close(again.mlm_head.bias, first.mlm_head.bias + 1)  # type: ignore[operator]
