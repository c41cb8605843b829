"""What a student's record says of its teacher's cost, by independent formulas."""

from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from runhelpers import tiny_config

from albert_ablate.axes import MethodName
from albert_ablate.commands.export import main as export
from albert_ablate.commands.import_hf import main as import_model
from albert_ablate.door.compose import paper_setup
from albert_ablate.experiment import run_cell
from albert_ablate.methods import METHODS, method_of
from albert_ablate.record.folder import RunFolder
from albert_ablate.record.manifest import Manifest
from albert_ablate.record.results import Results
from albert_ablate.record.summary import summary

WORDS = ("share=none", "objective=none", "embed.size=32", "model.activation=gelu_erf")
SHORT = ("budget.steps=2", "budget.warmup_steps=1")
#: Sizes of ``tiny_config``: width, inner width, tokens, vocabulary, sequences of a step.
H, INNER, T, V, B = 32, 64, 32, 200, 8

Cell = Callable[..., RunFolder]


@pytest.fixture
def cell(tmp_path: Path) -> Cell:
    def run(*words: str) -> RunFolder:
        config = tiny_config(tmp_path, *WORDS, *SHORT, *words)
        return run_cell(config, paper_setup(config))

    return run


def encoder(layers: int) -> int:
    """FLOPs of a pass over a sequence: four H x H and two H x I products, scores and their mean, for each token."""
    return layers * T * (2 * (4 * H * H + 2 * H * INNER) + 4 * T * H)


def head(positions: float) -> float:
    return positions * 2 * (H * H + H * V)


def shown(folder: RunFolder) -> str:
    out = StringIO()
    Console(file=out, width=80).print(summary(folder))
    return out.getvalue()


def manifest_of(folder: RunFolder) -> Manifest:
    return folder.load("manifest.json", Manifest)


def spent(folder: RunFolder) -> float:
    training = folder.load("results.json", Results).training
    assert training is not None
    assert training.flops is not None
    return training.flops


def test_a_student_records_what_its_teacher_costs(cell: Cell) -> None:
    student = cell("method=distilbert", "model.layers=1", "masking.max_predictions=4")
    manifest = manifest_of(student)
    teacher = manifest.teacher
    assert teacher is not None
    folder = RunFolder(student.path.parent, teacher.run)
    assert (teacher.identity, teacher.training_flops) == (folder.identity, spent(folder))
    assert teacher.training_flops == 2 * B * 3 * (encoder(2) + head(4) + 2 * H * H)  # with a pooler
    tables, layer = (V + 32 + 2) * H, 4 * (H * H + H) + 2 * H * INNER + INNER + H + 4 * H
    assert teacher.parameters == tables + 2 * H + 2 * layer + H * H + H
    assert teacher.flops_per_step == B * (encoder(2) + head(T))
    own = B * 3 * (encoder(1) + head(T) + head(4))
    assert manifest.flops_per_step == own + teacher.flops_per_step
    assert spent(student) == 2 * manifest.flops_per_step
    text = shown(student)
    assert f"{2 * own:.3g} student alone" in text
    assert f"{spent(student) + spent(folder):.3g} with its teacher" in text
    assert max(map(len, text.splitlines()[:8])) <= 80
    assert manifest_of(folder).teacher is None
    assert "student alone" not in shown(folder)


def test_tinybert_passes_its_teacher_up_to_the_last_layer_it_reads(cell: Cell) -> None:
    manifest = manifest_of(cell("method=tinybert", "model.layers=1", "method.attention_weight=0"))
    assert manifest.teacher is not None
    assert manifest.teacher.flops_per_step == B * encoder(2)
    assert manifest.flops_per_step is not None
    projections = 2 * T * 2 * H * H  # of the embedding and of one layer
    assert manifest.flops_per_step - manifest.teacher.flops_per_step == B * 3 * (encoder(1) + projections + 2 * H * H)


def test_without_losses_of_the_teacher_it_makes_no_pass(cell: Cell) -> None:
    words = ("method.kl_weight=0", "method.cosine_weight=0")
    teacher = manifest_of(cell("method=distilbert", "model.layers=1", *words)).teacher
    assert teacher is not None
    assert teacher.flops_per_step == 0


def test_the_cost_of_a_teacher_that_was_a_student_has_its_own_teacher_s(cell: Cell) -> None:
    first = cell("method=distilbert", "model.layers=2", "method.token_types=true")
    of_first = manifest_of(first).teacher
    assert of_first is not None
    assert of_first.training_flops is not None
    second = manifest_of(cell("method=distilbert", "model.layers=1", f"method.teacher={first.path}")).teacher
    assert second is not None
    assert (second.run, second.training_flops) == (first.name, spent(first) + of_first.training_flops)


def test_the_training_of_an_imported_teacher_is_not_known(cell: Cell, tmp_path: Path) -> None:
    teacher = cell()
    assert export([str(teacher.path), str(tmp_path / "out")]) == 0
    assert import_model([str(tmp_path / "out"), str(tmp_path / "again" / "back")]) == 0
    words = (f"method.teacher={tmp_path / 'again' / 'back'}", "model.layers=1")
    student = cell("method=distilbert", *words, f"tokenizer.model_path={teacher.path / 'spiece.model'}")
    entry = manifest_of(student).teacher
    assert entry is not None
    assert (entry.run, entry.training_flops) == ("back", None)
    assert '"training_flops": null' in (student.path / "manifest.json").read_text()
    assert "its training is unknown" in " ".join(shown(student).split())


def test_a_method_without_a_teacher_counts_no_pass_of_one(tmp_path: Path) -> None:
    for name in METHODS:
        method = method_of(tiny_config(tmp_path, *WORDS, *_named(name)))
        assert (method.teacher_flops() > 0) == name.distils


def _named(name: MethodName) -> list[str]:
    if name is MethodName.MLM:
        return []
    layers = ["block=mobilebert", "share=none"] if name.transfers else []
    return [f"method={name}", *layers, *(["objective=none"] if name.predicts_next else [])]
