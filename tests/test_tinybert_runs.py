"""Whole runs of TinyBERT: a teacher that is trained first or named, stops, and use without the teacher."""

import shutil
from pathlib import Path

import pytest
import torch
from runhelpers import (
    newest_checkpoint,
    read_json,
    run,
    run_folders,
    start,
    stopped_in,
    timeless,
    tiny_config,
    tiny_overrides,
    weights_of,
)
from safetensors.torch import load_file

import albert_ablate as aa
from albert_ablate.commands.evaluate import main as evaluate
from albert_ablate.config.schema import RunConfig
from albert_ablate.door.compose import compose
from albert_ablate.errors import DataError
from albert_ablate.files import sha256_file
from albert_ablate.record.folder import RunFolder

DROPOUT = ("model.hidden_dropout=0.1", "model.attention_dropout=0.1")
ON_CPU = ("runtime.threads=1", "runtime.precision=fp32", "runtime.device=cpu")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tinybert_runs")


@pytest.fixture(scope="module")
def teacher(shared: Path) -> RunFolder:
    """Masked LM of four layers, as wide as the student; with dropout, which a teacher never uses."""
    return run(tiny_config(shared, "model.layers=4", *DROPOUT, runs="teacher"))


@pytest.fixture(scope="module")
def student(shared: Path, teacher: RunFolder) -> RunFolder:
    """A finished student of ``teacher``."""
    return run(tiny_config(shared, "method=tinybert", f"method.teacher={teacher.path}", runs="student"))


def test_a_stopped_run_ends_as_one_that_was_not(
    shared: Path, teacher: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sha256_file(newest_checkpoint(teacher) / "model.safetensors")

    def config(name: str) -> RunConfig:
        words = ("method=tinybert", f"method.teacher={teacher.path}", *DROPOUT, f"paths.runs={tmp_path / name}")
        return tiny_config(shared, *words)

    whole = run(config("whole"))
    stopped_in(5, config("parts"), monkeypatch)
    parts = run(config("parts"))
    assert timeless(whole.metrics()) == timeless(parts.metrics())
    assert weights_of(whole) == weights_of(parts)
    assert sha256_file(newest_checkpoint(teacher) / "model.safetensors") == before


def test_a_run_saves_its_projections_and_not_its_teacher(student: RunFolder, teacher: RunFolder) -> None:
    ours, theirs = (load_file(newest_checkpoint(run) / "model.safetensors") for run in (student, teacher))
    projections = {f"imitation.{which}.{part}" for which in ("embedding", "hidden") for part in ("weight", "bias")}
    assert ours.keys() == theirs.keys() | projections  # share=all: as many blocks
    results = read_json(student.path / "results.json")
    assert results["masked_lm"] is None
    assert "not trained by this method" in results["left_out"]["masked_lm"]


@pytest.mark.parametrize(
    "settings",
    [
        ("share=none", "objective=none", "method.pooler=trained", "embed=full"),
        ("share=all", "method.teacher_width=2", "method.projections=shared", "method.padding=released"),
        ("method.attention_target=probabilities", "method.inputs=masked", "method.projections=per_layer"),
    ],
)
def test_a_teacher_is_trained_first(shared: Path, tmp_path: Path, settings: tuple[str, ...]) -> None:
    config = tiny_config(shared, "method=tinybert", *settings, f"paths.runs={tmp_path}")
    assert start(config) == 0
    student, teacher = sorted(run_folders(tmp_path), key=lambda path: "tinybert" not in path.name)
    lines = RunFolder(tmp_path, student.name).metrics()
    for name in ("embedding", "hidden"):
        assert 0 < lines[-1][f"{name}_loss"] < lines[0][f"{name}_loss"], name
    assert lines[-1]["attention_loss"] > 0
    assert "4x" in teacher.name
    assert read_json(teacher / "results.json")["masked_lm"] is not None
    assert start(config) == 0  # both are finished
    assert len(run_folders(tmp_path)) == 2


def test_the_embedded_corpus_teaches_too(tmp_path: Path) -> None:
    words = [word for word in tiny_overrides(tmp_path, "method=tinybert") if not word.startswith("data")]
    assert start(compose([*words, "data=embedded"])) == 0
    assert len(run_folders(tmp_path / "runs")) == 2


def test_a_student_is_used_without_its_teacher(
    student: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = (student.path / "config.yaml").read_text()
    copy = tmp_path / "runs" / student.name
    shutil.copytree(student.path, copy)
    gone = config.replace(str(Path(student.path).parent.parent / "teacher"), str(tmp_path / "gone"))
    assert gone != config
    (copy / "config.yaml").write_text(gone)
    loaded = aa.load(copy)
    assert loaded.embed(["a word"]).shape == (1, 32)
    assert not any(name.startswith("imitation") for name in loaded.model.state_dict())
    weights = load_file(newest_checkpoint(student) / "model.safetensors")
    assert torch.equal(loaded.model.encoder.embedding.word.weight, weights["encoder.embedding.word.weight"])
    with pytest.raises(DataError, match="no trained masked-LM head"):
        loaded.fill_mask("a [MASK]")
    assert evaluate([str(copy), *ON_CPU]) == 0
    assert "masked LM" in capsys.readouterr().out


def test_another_teacher_is_another_student(shared: Path, student: RunFolder, tmp_path: Path) -> None:
    other = run(tiny_config(shared, "model.layers=4", "seed=1", f"paths.runs={tmp_path / 'teacher'}"))
    words = ("method=tinybert", f"method.teacher={other.path}", f"paths.runs={tmp_path / 'student'}")
    made = run(tiny_config(shared, *words))
    assert made.identity != student.identity
    assert weights_of(made) != weights_of(student)
