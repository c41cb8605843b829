"""Task distillation: both stages, what they learn from, and what is refused."""

import os
import shutil
import signal
from copy import deepcopy
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from finetunehelpers import make
from runhelpers import read_json, run, run_folders, start, tiny_config, tiny_overrides
from safetensors.torch import load_file
from taskhelpers import TINY, pretrained, with_tasks, write_race, write_squad, write_sst2, write_tsv
from torch.nn import functional as F

from albert_ablate.commands.finetune import fine_tune_run
from albert_ablate.config.schema import RunConfig
from albert_ablate.door.compose import compose, compose_for_run
from albert_ablate.errors import ConfigError, DataError, PreemptedError
from albert_ablate.loading import LoadedRun
from albert_ablate.record.folder import RunFolder
from albert_ablate.record.tasks import UnitResults
from albert_ablate.tasks.distilling import Teacher, goal
from albert_ablate.tasks.finetuning import FineTuner, build_task_model
from albert_ablate.tasks.kept_outputs import keep_outputs
from albert_ablate.tasks.layers import LayerTuner
from albert_ablate.tasks.planning import plan_units
from albert_ablate.tasks.recipe import resolve
from albert_ablate.tasks.soft import soft_loss
from albert_ablate.training.checkpoint import Owner
from albert_ablate.training.machine import Machine

CPU = Machine(torch.device("cpu"), "fp32")
#: Both stages in a second.
SHORT = ["task.distil.epochs=1", "tasks.sst2.steps=6", "task.head=relu"]
WORDS = ["fine", "lovely", "great", "superb", "film", "story", "plot", "awful", "dull", "bad", "poor"]


@lru_cache
def teacher_of(folder: Path, *more: str) -> RunFolder:
    """A finished run of twice the layers and another width, on the corpus of ``folder``."""
    runs = f"teachers{len(more)}"
    return run(tiny_config(folder, "model.layers=4", "model.hidden=48", "model.intermediate=96", *more, runs=runs))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, a teacher, and files of two tasks."""
    folder = tmp_path_factory.mktemp("distilled")
    pretrained(folder)
    teacher_of(folder)
    write_race(write_squad(write_sst2(folder / "data"), "2.0"))
    header = ["index", "sentence1", "sentence2", "score"]
    for name, count in (("train", 24), ("dev", 8)):
        rows = [[i, f"a film {i % 5}", f"the story {i % 3}", (i % 5) / 2] for i in range(count)]
        write_tsv(folder / "data" / "STS-B" / f"{name}.tsv", header, rows)
    draw = np.random.default_rng(0)
    vectors = [" ".join([word, *(f"{x:.3f}" for x in draw.normal(size=4))]) for word in WORDS]
    (folder / "vectors.txt").write_text("\n".join(vectors) + "\n")
    return folder


def configured(place: Path, *words: str, task: str = "sst2", teacher: RunFolder | None = None) -> RunConfig:
    named = [] if any(w.startswith("task.distil.teacher=") for w in words) else [
        f"task.distil.teacher={(teacher or teacher_of(place)).path}"
    ]  # fmt: skip
    short = [word.replace("sst2", task) for word in SHORT]
    return with_tasks(place, f"task={task}", f"task.data_dir={place / 'data'}", *short, *named, *words)


def student(place: Path) -> RunFolder:
    return pretrained(place)[1]


def fine_tuned(place: Path, *words: str, task: str = "sst2") -> RunFolder:
    """The finished student's folder."""
    config = configured(place, *words, task=task)
    assert start(config) == 0
    (unit,) = plan_units(config, student(place), "fp32")
    assert unit.folder.state() == "finished"
    return unit.folder


def unit_name(place: Path, *words: str) -> str:
    (unit,) = plan_units(configured(place, *words), student(place), "fp32")
    return unit.folder.name


# the soft loss


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_the_soft_loss_has_the_gradient_of_its_closed_form(temperature: float) -> None:
    """T (softmax(s / T) - softmax(t / T)) for each example; the loss is T² KL, and T² (soft CE - entropy)."""
    draw = torch.Generator().manual_seed(0)
    s, t = (torch.randn(6, 4, generator=draw, dtype=torch.float64).float() for _ in range(2))
    s.requires_grad_()
    loss = soft_loss(s, t, "classes", temperature, "examples")
    loss.backward()
    p, q = torch.softmax(t / temperature, 1), torch.softmax(s.detach() / temperature, 1)
    assert s.grad is not None
    assert torch.allclose(s.grad, temperature * (q - p), atol=1e-6)
    divergence = temperature**2 * sum(
        (p[i, c] * (p[i, c].log() - q[i, c].log())).item() for i in range(6) for c in range(4)
    )
    assert loss.item() == pytest.approx(divergence, rel=1e-5)
    cross = F.cross_entropy(s.detach() / temperature, p, reduction="sum")
    entropy = -(p * p.log()).sum()
    assert loss.item() == pytest.approx((temperature**2 * (cross - entropy)).item(), rel=1e-4)


def test_the_released_mean_is_over_classes_too() -> None:
    s, t = torch.tensor([[1.0, 0.0, -1.0]]), torch.tensor([[0.0, 2.0, 0.0]])
    whole = soft_loss(s, t, "classes", 1.0, "examples")
    assert soft_loss(s, t, "classes", 1.0, "classes").item() == pytest.approx(whole.item() / 3)


def test_shifted_logits_and_equal_ones_cost_nothing() -> None:
    t = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    assert soft_loss(t + 3, t, "classes", 2.0, "examples").item() == pytest.approx(0, abs=1e-5)
    assert soft_loss(t, t, "labels", 2.0, "examples").item() == pytest.approx(0, abs=1e-6)
    assert soft_loss(t + 3, t, "labels", 2.0, "examples").item() > 0.1


def test_labels_have_a_distribution_each() -> None:
    s, t = torch.tensor([[0.3, -1.0]]), torch.tensor([[2.0, 0.5]])
    expected = 0.0
    for x, y in zip(s[0], t[0], strict=True):
        p, q = torch.sigmoid(y / 2).item(), torch.sigmoid(x / 2).item()
        expected += p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    assert soft_loss(s, t, "labels", 2.0, "examples").item() == pytest.approx(4 * expected / 2, rel=1e-5)


# a student from beginning to end


def test_a_student_its_teacher_and_their_record(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unit = fine_tuned(place)
    teacher = teacher_of(place)
    (taught,) = [p for p in run_folders(teacher.path / "tasks") if p.name.startswith("sst2-s0")]
    assert "its teacher is fine-tuned first" in capsys.readouterr().out
    record = unit.load("results.json", UnitResults)
    assert record.teacher is not None
    assert (record.teacher.run, record.teacher.unit) == (teacher.name, taught.name)
    assert record.teacher.predictions == "soft"
    assert record.teacher.score == read_json(taught / "results.json")["best"]["score"]
    assert record.teacher.layers is not None
    assert record.teacher.layers.steps == 64 // 8
    assert set(record.teacher.layers.losses) == {"embedding", "hidden", "attention"}
    assert record.teacher.layers.seconds > 0
    (entry,) = [e for e in student(place).read("results.json")["tasks"] if unit.name in e["units"]]
    assert entry["seconds"] == pytest.approx(record.training.seconds + record.teacher.layers.seconds)
    assert unit.read("manifest.json")["teacher"] == {
        "run": teacher.name, "identity": teacher.identity, "unit": taught.name,
    }  # fmt: skip
    assert not list(unit.path.rglob("checkpoints"))
    lines = RunFolder(unit.path, "layers").metrics()
    assert lines[-1]["step"] == 8
    assert {line["learning_rate"] for line in lines} == {5e-5}, "constant"
    assert lines[-1]["loss"] == pytest.approx(sum(lines[-1][f"{n}_loss"] for n in record.teacher.layers.losses))
    names = load_file(unit.path / "best.safetensors")
    assert not [name for name in names if "imitation" in name or "student" in name]


def test_the_teacher_is_fine_tuned_in_the_usual_way(place: Path) -> None:
    """A fine-tuning of the teacher's run by itself is the same unit, so that it is trained once."""
    fine_tuned(place)
    teacher = teacher_of(place)
    before = run_folders(teacher.path / "tasks")
    config = compose_for_run(
        teacher.path / "config.yaml",
        ["task=sst2", f"task.data_dir={place / 'data'}", *TINY, *SHORT[1:], f"paths.cache={place / 'cache'}",
         "runtime.device=cpu", "runtime.precision=fp32"],
    )  # fmt: skip
    fine_tune_run(teacher, config)
    assert run_folders(teacher.path / "tasks") == before
    stamps = {p: p.stat().st_mtime_ns for folder in before for p in folder.glob("*.json")}
    fine_tuned(place, "task.distil.temperature=3")
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps


def test_predictions_and_rereading_work(place: Path) -> None:
    unit = fine_tuned(place)
    answers = LoadedRun(student(place)).predict(unit.name, ["a fine film", "dull"], f"task.data_dir={place / 'data'}")
    assert set(answers) <= {"negative", "positive", "0", "1"}


def test_gold_learns_from_the_labels_of_the_original_examples(place: Path) -> None:
    soft, gold = fine_tuned(place), fine_tuned(place, "task.distil.predictions=gold")
    assert gold.load("results.json", UnitResults).teacher.predictions == "gold"  # type: ignore[union-attr]
    layers = [[{k: v for k, v in line.items() if "second" not in k} for line in RunFolder(u.path, "layers").metrics()]
              for u in (soft, gold)]  # fmt: skip
    assert layers[0] == layers[1], "the first stage is the same"
    assert load_file(soft.path / "last.safetensors").keys() == load_file(gold.path / "last.safetensors").keys()
    assert soft.metrics()[-1]["loss"] != gold.metrics()[-1]["loss"]


def test_without_a_first_stage_only_the_loss_differs(place: Path) -> None:
    """The record has no first stage, and training starts from the pretrained weights."""
    unit = fine_tuned(place, "task.distil.epochs=0")
    assert unit.load("results.json", UnitResults).teacher.layers is None  # type: ignore[union-attr]
    assert not (unit.path / "layers").exists()


def test_numbers_are_learned_from_gold_values(place: Path) -> None:
    """As in the paper, from the original examples; only the layers are the teacher's."""
    unit = fine_tuned(place, "task.augment.copies=3", f"task.augment.word_vectors={place / 'vectors.txt'}", task="stsb")
    record = unit.load("results.json", UnitResults)
    assert record.teacher is not None
    assert record.teacher.predictions == "gold"
    assert record.teacher.layers is not None
    assert unit.read("manifest.json")["data"]["augmented"] > 24


def test_a_regression_without_a_first_stage_learns_nothing_from_a_teacher(place: Path) -> None:
    with pytest.raises(ConfigError, match=r"task\.distil\.epochs=0 with task=stsb: numbers are learned from"):
        start(configured(place, "task.distil.epochs=0", task="stsb"))


def test_augmented_examples_count_in_both_stages(place: Path) -> None:
    """Epochs and steps are over the examples that are used; gold uses the original ones in the second stage."""
    words = [f"task.augment.word_vectors={place / 'vectors.txt'}", "task.augment.copies=4"]
    words += ["task.scaling.steps=epochs", "tasks.sst2.steps=null", "tasks.sst2.epochs=1"]
    soft, gold = fine_tuned(place, *words), fine_tuned(place, *words, "task.distil.predictions=gold")
    for unit, second in ((soft, None), (gold, 64)):
        record, count = unit.load("results.json", UnitResults), unit.read("manifest.json")["data"]["augmented"]
        assert record.teacher is not None
        assert record.teacher.layers is not None
        assert count > 64
        assert record.teacher.layers.steps == -(-count // 8)
        assert record.training.steps == (second or count) // 8


def test_other_tasks_learn_too(place: Path) -> None:
    """Choices have soft targets; answers in a text are learned from gold after the layers, over windows."""
    race = fine_tuned(place, task="race")
    assert race.load("results.json", UnitResults).teacher.predictions == "soft"  # type: ignore[union-attr]
    squad = fine_tuned(place, "task.distil.predictions=gold", task="squad20")
    assert squad.load("results.json", UnitResults).teacher.predictions == "gold"  # type: ignore[union-attr]


def test_several_labels_have_soft_targets(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def quick(metric: Any, predicted: Any, gold: Any) -> dict[str, Any]:
        return {"value": metric(predicted, gold), "interval": [0.0, 1.0]}

    monkeypatch.setattr("albert_ablate.tasks.metrics.resampled", quick)  # a minute of resampling
    rows = [[f"a film {i % 7}", i % 2, (i // 2) % 2] for i in range(32)]
    path = write_tsv(place / "own.tsv", ["text", "good", "long"], rows)
    own = ["text_columns=[text]", "target_columns=[good,long]", f"train_file={path}", f"dev_file={path}"]
    unit = fine_tuned(place, *(f"tasks.text_classification.{word}" for word in own), task="text_classification")
    assert unit.load("results.json", UnitResults).teacher.predictions == "soft"  # type: ignore[union-attr]


def test_all_seeds_have_one_teacher(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The fine-tuning with the lowest seed."""
    config = configured(place, "task.seeds=[4,2]")
    assert start(config) == 0
    assert capsys.readouterr().out.count("its teacher is fine-tuned first") == 1
    units = plan_units(config, student(place), "fp32")
    names = {unit.folder.load("results.json", UnitResults).teacher.unit for unit in units}  # type: ignore[union-attr]
    assert len(names) == 1
    assert "-s2-" in names.pop()
    assert len({unit.group for unit in units}) == 1


# oracles of both stages


def prepared(place: Path, *words: str, teacher: RunFolder | None = None) -> tuple[RunConfig, Any, Teacher]:
    """Configuration, task, and the teacher in memory; its fine-tuning is trained if need be."""
    config = configured(place, *words, teacher=teacher)
    (unit,) = plan_units(config, student(place), "fp32")
    assert unit.teacher is not None
    if unit.teacher.unit.folder.state() != "finished":
        start(config)
    task = make(config, "sst2", place)
    return config, task, Teacher(unit.teacher, task, CPU)


def new_model(config: RunConfig, task: Any) -> Any:
    """The student with random weights."""
    recipe = resolve(config.tasks["sst2"], config.task.scaling, task.examples, 32)
    return build_task_model(task, config.architecture(), recipe, config.task, 0, None, 0.05)


def layer_tuner(config: RunConfig, task: Any, model: Any, teacher: Teacher, folder: Path) -> LayerTuner:
    recipe = resolve(config.tasks["sst2"], config.task.scaling, task.examples, 32)
    where = RunFolder(folder, "layers")
    where.path.mkdir(parents=True)
    return LayerTuner(
        task, model, teacher.encoder, recipe, config.task, 0, where, Owner("x"), CPU, config.runtime
    )  # fmt: skip


def test_a_student_that_is_its_teacher_has_no_loss(place: Path, tmp_path: Path) -> None:
    """With identity projections; and it answers as its teacher does."""
    config, task, teacher = prepared(place)
    model = deepcopy(teacher.model).requires_grad_(True).eval()
    tuner = layer_tuner(config, task, model, teacher, tmp_path)
    for module in tuner._projections.children():
        torch.nn.init.eye_(module.weight)  # type: ignore[arg-type]
        torch.nn.init.zeros_(module.bias)  # type: ignore[arg-type]
    batch = tuner.batch_of(0)
    terms = {term.name: term for term in tuner.terms(batch)}
    assert set(terms) == {"embedding", "hidden", "attention"}
    assert all(term.loss_sum.item() < 1e-9 for term in terms.values())
    soft, loss = goal(config.task, task, task, teacher)
    assert loss is not None
    assert soft.train.targets.shape == (64, 2)
    answered = soft.train.batch(np.arange(8))
    value = loss(model, answered)
    assert value.item() == pytest.approx(0, abs=1e-6)
    value.backward()
    assert max(p.grad.abs().max().item() for p in model.parameters() if p.grad is not None) < 1e-5


def test_the_first_stage_leaves_teacher_and_head_alone(place: Path, tmp_path: Path) -> None:
    config, task, teacher = prepared(place)
    before = {name: tensor.clone() for name, tensor in teacher.model.state_dict().items()}
    model = new_model(config, task)
    first = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    layer_tuner(config, task, model, teacher, tmp_path).fit()
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.model.state_dict().items())
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, first[name])}
    assert changed
    assert all(name.startswith("encoder.") for name in changed), "pooler and classifier get no gradient"


def test_the_losses_fall(place: Path) -> None:
    unit = fine_tuned(place, "task.distil.epochs=6", "task.distil.learning_rate=0.002")
    lines = RunFolder(unit.path, "layers").metrics()
    assert lines[-1]["loss"] < 0.8 * lines[0]["loss"]


def test_a_student_waits_for_a_teacher_that_another_process_trains(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    looks = iter([{"pid": 7}, {"pid": 7}, None])
    monkeypatch.setattr("albert_ablate.tasks.units.owner", lambda folder: next(looks))
    monkeypatch.setattr("albert_ablate.tasks.units._LOOK_SECONDS", 0.01)
    fine_tuned(place, "task.distil.temperature=4")
    assert capsys.readouterr().out.count("waits for its teacher, which process 7 fine-tunes") == 1


# kept outputs of the teacher


@pytest.mark.parametrize("words", [[], ["task.distil.hidden_weight=0"], ["task.distil.attention_weight=0"],
                                   ["task.distil.attention_target=probabilities"]], ids=" ".join)  # fmt: skip
def test_kept_outputs_are_those_that_a_step_computes(place: Path, tmp_path: Path, words: list[str]) -> None:
    config, task, teacher = prepared(place, *words)
    tuner = layer_tuner(config, task, new_model(config, task), teacher, tmp_path)
    kept = keep_outputs("sst2", tmp_path / "cache", "key", task.train, tuner.compute_shown, CPU.device)
    assert kept is not None
    for step in range(3):
        for part in tuner.batch_of(step).micro(3):
            ours, theirs = kept(part), tuner.compute_shown(part)
            real = part.mask[:, :, None].float()
            pairs = (real * real.transpose(1, 2))[:, None]
            assert len(ours.hidden) == len(theirs.hidden)
            assert len(ours.attention) == len(theirs.attention)
            for a, b in zip((ours.embedding, *ours.hidden), (theirs.embedding, *theirs.hidden), strict=True):
                assert torch.allclose(a, b * real, atol=1e-5)
            for a, b in zip(ours.attention, theirs.attention, strict=True):
                assert torch.allclose(a, b * pairs, atol=1e-5)


def test_outputs_are_kept_only_where_there_is_room(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = fine_tuned(place)
    shutil.rmtree(plain.path)
    capsys.readouterr()
    with monkeypatch.context() as patched:
        patched.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(2**30, 0, 2**30))
        patched.setattr("albert_ablate.tasks.kept_outputs._SPARE_BYTES", 2**30)
        again = fine_tuned(place, "task.distil.cache=true")
    assert "They are computed in every step instead" in capsys.readouterr().out
    assert not (place / "cache" / "teachers").exists()
    losses = [again.load("results.json", UnitResults).teacher.layers.losses]  # type: ignore[union-attr]
    shutil.rmtree(again.path)
    again = fine_tuned(place, "task.distil.cache=true")
    assert "it may be deleted any time" in capsys.readouterr().out
    (kept,) = (place / "cache" / "teachers").iterdir()
    assert (kept / "attention.f32").stat().st_size
    losses.append(again.load("results.json", UnitResults).teacher.layers.losses)  # type: ignore[union-attr]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    shutil.rmtree(kept.parent)


# stop and resume


@pytest.mark.parametrize(("kind", "step"), [(LayerTuner, 3), (LayerTuner, 7), (FineTuner, 0), (FineTuner, 3)])
def test_a_stop_in_either_stage_ends_with_the_same_bits(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Any, step: int
) -> None:
    expected = fine_tuned(place)
    copy = tmp_path / "runs" / student(place).name
    shutil.copytree(student(place).path, copy)
    shutil.rmtree(copy / "tasks")
    config = configured(place, f"paths.runs={tmp_path / 'runs'}")
    update = kind.update

    def interrupted(self: Any, number: int, *rest: Any, **named: Any) -> Any:
        if number == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return update(self, number, *rest, **named)

    with monkeypatch.context() as patched:
        patched.setattr(kind, "update", interrupted)
        with pytest.raises(PreemptedError):
            start(config)
    found = RunFolder(copy / "tasks", expected.name)
    assert found.state() == "preempted"
    assert found.saved_step() > 0
    assert start(config) == 0
    for name in ("best.safetensors", "last.safetensors"):
        assert (found.path / name).read_bytes() == (expected.path / name).read_bytes()
    ours, theirs = (u.load("results.json", UnitResults) for u in (found, expected))
    assert ours.best == theirs.best
    assert ours.last == theirs.last
    assert ours.teacher is not None
    assert theirs.teacher is not None
    assert ours.teacher.layers is not None
    assert ours.teacher.layers.losses == theirs.teacher.layers.losses  # type: ignore[union-attr]
    assert not list(found.path.rglob("checkpoints"))


# identity and refusals


@pytest.mark.parametrize(
    ("word", "same"),
    [
        ("task.distil.cache=true", True), ("task.keep_weights=false", True), ("task.distil.epochs=2", False),
        ("task.distil.predictions=gold", False), ("task.distil.layer_map=top", False),
        ("task.augment.copies=1", False), ("tasks.sst2.steps=7", False),
    ],
)  # fmt: skip
def test_identity_of_a_student(place: Path, word: str, same: bool) -> None:
    assert (unit_name(place) == unit_name(place, word)) is same


def test_another_teacher_is_another_student_and_a_moved_one_is_not(place: Path, tmp_path: Path) -> None:
    teacher = teacher_of(place)
    moved = tmp_path / "elsewhere"
    shutil.copytree(teacher.path, moved)
    assert unit_name(place) == unit_name(place, f"task.distil.teacher={moved}")
    other = teacher_of(place, "seed=3")
    assert unit_name(place) != unit_name(place, f"task.distil.teacher={other.path}")
    plain = with_tasks(place, "task=sst2", f"task.data_dir={place / 'data'}", *SHORT[1:])
    assert unit_name(place) != plan_units(plain, student(place), "fp32")[0].folder.name


@pytest.mark.parametrize(
    ("shape", "words", "message"),
    [
        (["model.layers=3"], [], r"has 3 layers, and the student 2\. task\.distil\.layer_map=uniform needs a multiple"),
        (["model.heads=4"], [], r"has 4 attention heads, and the student 2\. .* or task\.distil\.attention_weight=0"),
        (["model.max_positions=16", "pairs.max_length=16"], [], r"only 16 positions .* tasks\.sst2\.max_length=16"),
        (["tokenizer.vocab_size=150"], [], r"another tokenizer's pieces"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(place: Path, shape: list[str], words: list[str], message: str) -> None:
    teacher = _of_shape(place, *shape)
    with pytest.raises(ConfigError, match=rf"task\.distil\.teacher=.*{message}"):
        unit_name(place, f"task.distil.teacher={teacher.path}", *words)


@lru_cache
def _of_shape(place: Path, *shape: str) -> RunFolder:
    name = "-".join(word.rpartition(".")[2] for word in shape)
    return run(tiny_config(place, *shape, runs=f"shapes-{name}"))


def test_what_does_not_fit_the_layers_fits_without_their_losses(place: Path) -> None:
    teacher = _of_shape(place, "model.layers=3")
    assert unit_name(place, f"task.distil.teacher={teacher.path}", "task.distil.layer_map=top")
    assert unit_name(place, f"task.distil.teacher={teacher.path}", "task.distil.epochs=0")
    other = _of_shape(place, "model.heads=4")
    assert unit_name(place, f"task.distil.teacher={other.path}", "task.distil.attention_weight=0")


def test_no_teacher_where_none_is(place: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"task\.distil\.teacher=nowhere: no run folder"):
        unit_name(place, "task.distil.teacher=nowhere")
    with pytest.raises(ConfigError, match=r"task\.distil\.teacher=pretraining: method=mlm has no teacher\. Name a run"):
        unit_name(place, "task.distil.teacher=pretraining")
    unfinished = tmp_path / "run-abc"
    shutil.copytree(teacher_of(place).path, unfinished)
    (unfinished / "status.json").unlink()
    with pytest.raises(ConfigError, match=r"that run is missing\. A teacher must be finished"):
        unit_name(place, f"task.distil.teacher={unfinished}")


def test_a_teacher_without_its_weights_is_refused(place: Path, tmp_path: Path) -> None:
    fine_tuned(place)
    copy = tmp_path / "run"
    shutil.copytree(teacher_of(place).path, copy)
    for file in copy.glob("tasks/*/best.safetensors"):
        file.unlink()
    config = configured(place, f"task.distil.teacher={copy}", "task.distil.temperature=7")
    with pytest.raises(DataError, match=r"best weights of a teacher .* not kept \(task\.keep_weights=false\)\. Move"):
        start(config)


def test_a_student_that_keeps_no_weights_has_a_teacher_that_does(place: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(teacher_of(place).path, copy)
    shutil.rmtree(copy / "tasks", ignore_errors=True)
    fine_tuned(place, f"task.distil.teacher={copy}", "task.keep_weights=false", "tasks.sst2.steps=5")
    assert list(copy.glob("tasks/*/best.safetensors"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["task=squad11"], r"task\.distil\.predictions=soft with task=squad11: .* Use task\.distil\.predictions=gold"),
        (["task=sst2", "task.distil.embedding_weight=0", "task.distil.hidden_weight=0",
          "task.distil.attention_weight=0"], r"task\.distil\.epochs=20: no loss is left .* Set task\.distil\.epochs=0"),
        (["task=sst2", "task.distil.predictions=gold", "task.distil.epochs=0"], r"nothing is learned from the teacher"),
        (["task=sst2", "task.distil.cache=true", "task.distil.padding=released"], r"Use task\.distil\.padding"),
    ],
)  # fmt: skip
def test_settings_that_contradict_each_other(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compose(["task.distil.teacher=x", *words])


# the teacher of the pretraining


def test_the_teacher_of_the_pretraining(tmp_path: Path) -> None:
    """A student that is pretrained with a teacher is fine-tuned with the same one, beside it."""
    data = write_sst2(tmp_path / "data")
    config = compose(
        [*tiny_overrides(tmp_path, "method=distilbert", "objective=none", "embed.size=32", "share=none"), *TINY,
         "task=sst2", f"task.data_dir={data}", *SHORT, "task.distil.teacher=pretraining", "task.augment.copies=1",
         "task.augment.masked_lm=pretraining"]
    )  # fmt: skip
    assert start(config) == 0
    runs = {path.name.split("-s0-")[0]: path for path in run_folders(tmp_path / "runs")}
    assert len(runs) == 2
    (pupil,) = [path for name, path in runs.items() if "distilbert" in name]
    (teacher,) = [path for path in runs.values() if path != pupil]
    (unit,) = run_folders(pupil / "tasks")
    assert read_json(unit / "manifest.json")["teacher"]["run"] == teacher.name
    assert len(run_folders(teacher / "tasks")) == 1
    again = compose_for_run(
        pupil / "config.yaml",
        ["task=sst2", f"task.data_dir={data}", *TINY, *SHORT, "task.distil.teacher=pretraining",
         "task.augment.copies=1", "task.augment.masked_lm=pretraining", f"paths.runs={tmp_path / 'runs'}"],
    )  # fmt: skip
    (planned,) = plan_units(again, RunFolder(pupil.parent, pupil.name), "fp32")
    assert planned.folder.name == unit.name, "the command of a finished run finds the same teacher"
    assert planned.augmentation is not None
    assert planned.augmentation.run.name == teacher.name, "which also predicts words"


def test_the_defaults_are_those_of_the_paper() -> None:
    distil = asdict(compose(["task=sst2"]).task.distil)
    assert distil["temperature"] == 1.0
    assert (distil["epochs"], distil["learning_rate"]) == (20.0, 5e-5)
