"""Heads of tasks under bf16: they answer in fp32, and fine-tunings of before are told apart and scored again."""

import json
import random
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reporthelpers import write_cell
from taskhelpers import TINY, pretrained, with_tasks, write_tsv
from torch import Tensor, nn
from torch.nn import functional as F

from albert_ablate.axes import Share
from albert_ablate.commands import finetune
from albert_ablate.files import write_json
from albert_ablate.model.architecture import Architecture
from albert_ablate.model.pretraining import initialise
from albert_ablate.model.rows import first_rows
from albert_ablate.record.folder import RunFolder
from albert_ablate.tasks import heads
from albert_ablate.tasks.collected import collect, paper_average
from albert_ablate.tasks.heads import AnswerableSpanModel, PooledModel, SpanModel, forbidden
from albert_ablate.tasks.planning import plan_units
from albert_ablate.tasks.task import HeadSettings, TaskBatch
from albert_ablate.training.precision import autocast
from analysis.compare import changes, compare_tasks
from analysis.judge.metrics import values
from analysis.read.cells import main_selection
from analysis.read.heads import sentences
from analysis.read.runs import load_runs

#: Enough to learn something from 48 pairs.
STSB = ["tasks.stsb.steps=40", "tasks.stsb.learning_rate=0.003"]
SHAPE = Architecture(64, 8, 16, 2, 2, 32, 24, Share.ALL, initializer_range=0.3)
CPU = torch.device("cpu")


def batch(examples: int, choices: int = 1) -> TaskBatch:
    """Random sequences, the last ones padded."""
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 64, (examples * choices, 20), generator=draw, dtype=torch.int32)
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[-1, 12:] = False
    types = (torch.arange(20) >= 8).int().expand_as(ids) * mask
    return TaskBatch(ids, types, mask, torch.zeros(examples, 1), choices)


def made(model: nn.Module) -> Any:
    initialise(model, 0.3, 0)
    return model.eval()


def is_rounded(x: Tensor) -> bool:
    """Whether every value is one of bf16."""
    return bool((x.bfloat16().float() == x.float()).all())


def outputs(model: Any, b: TaskBatch) -> list[Tensor]:
    found = model(b)
    if isinstance(model, AnswerableSpanModel):
        hidden, start, null = found
        return [start, null, model.ends(hidden, start.topk(3).indices, b)]
    return [found] if isinstance(found, Tensor) else list(found)


RELEASED = HeadSettings(0.1, "first", "pooled")
MODELS: dict[str, Callable[[], nn.Module]] = {
    "regression": lambda: PooledModel(SHAPE, 1, RELEASED),
    "classification": lambda: PooledModel(SHAPE, 3, RELEASED),
    "choices": lambda: PooledModel(SHAPE, 1, RELEASED),
    "spans": lambda: SpanModel(SHAPE),
    "spans or none": lambda: AnswerableSpanModel(SHAPE, 0.1),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_head_answers_in_fp32_where_the_encoder_computes_in_bf16(name: str) -> None:
    model, b = made(MODELS[name]()), batch(16, choices=4 if name == "choices" else 1)
    with torch.no_grad(), autocast("bf16", CPU):
        found = outputs(model, b)
        assert model.encoder(b.input_ids, b.type_ids, b.mask).dtype == torch.bfloat16
    for x in found:
        assert x.dtype == torch.float32
        assert not is_rounded(x[x > -1e29])
    if name == "choices":
        assert found[0].shape == (16, 4)


def test_the_released_head_of_tinybert() -> None:
    """A linear layer on ReLU(tanh(pooler)), without dropout in training too."""
    model, b = made(PooledModel(SHAPE, 3, HeadSettings(0.9, "first", "relu"))), batch(6)
    with torch.no_grad():
        first = model.encoder(b.input_ids, b.type_ids, b.mask)[:, 0]
        pooled = torch.tanh(first @ model.pooler.dense.weight.T + model.pooler.dense.bias)
        expected = pooled.clamp(min=0) @ model.classifier.weight.T + model.classifier.bias
        assert torch.allclose(model(b), expected, atol=1e-6)
        model.train()
        assert torch.allclose(model(b), expected, atol=1e-6)
    assert set(model.state_dict()) == set(PooledModel(SHAPE, 3, HeadSettings(0.9, "first", "pooled")).state_dict())


def test_distinct_texts_get_distinct_numbers() -> None:
    """A number near 2.5 of a head in bf16 is one of steps of 1/64."""
    model, b = made(MODELS["regression"]()), batch(400)
    nn.init.constant_(model.classifier.bias, 2.5)
    model.classifier.weight.data *= 0.02
    with torch.no_grad(), autocast("bf16", CPU):
        found = model(b)
    assert len(found.unique()) > 390
    assert len(found.bfloat16().unique()) < 20


@pytest.mark.parametrize("name", MODELS)
def test_training_sees_the_same_numbers(name: str) -> None:
    """The gradient of a head is that of fp32 on the encoder's output, pooler included."""
    model, b = made(MODELS[name]()), batch(8, choices=4 if name == "choices" else 1)
    states: list[Tensor] = []
    model.encoder.register_forward_hook(lambda module, args, y: states.append(y.detach().float()))
    with autocast("bf16", CPU):
        loss = sum(x[x > -1e29].square().sum() for x in outputs(model, b))
    assert isinstance(loss, Tensor)
    loss.backward()
    parameters = {name: p for name, p in model.named_parameters() if not name.startswith("encoder.")}
    own = {name: p.grad.clone() for name, p in parameters.items() if p.grad is not None}
    assert "pooler.dense.weight" in own or isinstance(model, SpanModel | AnswerableSpanModel)
    model.zero_grad()
    model.encoder.forward = lambda *_, **__: states[0]
    expected = sum(x[x > -1e29].square().sum() for x in outputs(model, b))
    assert isinstance(expected, Tensor)
    expected.backward()
    assert torch.equal(loss, expected)
    for parameter, gradient in own.items():
        assert torch.equal(gradient, parameters[parameter].grad)


def test_in_fp32_the_bits_are_those_of_before() -> None:
    """So that fine-tunings in fp32 keep their identity: the heads as they were written."""
    b = batch(8)
    pooled, span, answerable = (made(MODELS[name]()) for name in ("classification", "spans", "spans or none"))
    with torch.no_grad():
        first = pooled.encoder(b.input_ids, b.type_ids, b.mask, rows=first_rows(b.input_ids))
        assert torch.equal(pooled(b), pooled.classifier(pooled.pooler(first[:, None])).float())
        hidden = span.encoder(b.input_ids, b.type_ids, b.mask)
        expected = span.span(hidden).float().masked_fill(~b.mask[:, :, None], -1e30)
        assert torch.equal(torch.stack(span(b), -1), expected)
        hidden = answerable.encoder(b.input_ids, b.type_ids, b.mask)
        start = F.log_softmax(answerable.start(hidden)[..., 0].float() + forbidden(b), -1)
        assert torch.equal(answerable(b)[1], start)


# --- fine-tunings of before ------------------------------------------------------------------------


def write_pairs(folder: Path, task: str, train: int = 48, dev: int = 40) -> None:
    """STS-B or MRPC made of places: how many words two texts share."""
    draw = random.Random(5)
    words = ["bado", "fela", "koto", "sata", "meno", "gora", "dela", "taso", "pomo", "neko", "rava", "lobe"]
    for side, count in (("train", train), ("dev", dev)):
        rows = []
        for _ in range(count):
            a, b = draw.sample(words, 5), draw.sample(words, 5)
            shared = len(set(a) & set(b))
            rows.append([" ".join(a), " ".join(b), float(shared) if task == "stsb" else int(shared > 2)])
        target = "score" if task == "stsb" else "label"
        place = {"stsb": "STS-B", "mrpc": "MRPC"}[task]
        write_tsv(folder / place / f"{side}.tsv", ["sentence1", "sentence2", target], rows)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("heads")
    pretrained(place)
    for task in ("stsb", "mrpc"):
        write_pairs(place / "data", task)
    return place


def words(folder: Path, *more: str) -> list[str]:
    return [*TINY, f"task.data_dir={folder / 'data'}", "runtime.threads=1", *more]


def old_unit(folder: Path, run: RunFolder, name: str, monkeypatch: pytest.MonkeyPatch, *more: str) -> RunFolder:
    """A fine-tuning as an older version left it: its head under autocast, and nothing said of it."""
    given = [*words(folder, f"task={name}", "runtime.precision=bf16"), *more]
    with monkeypatch.context() as patched:
        patched.setattr(heads, "full_precision", lambda device: nullcontext())
        assert finetune.main([str(run.path), *given]) == 0
    config = with_tasks(folder, *given)
    (unit,) = plan_units(config, run, "bf16")
    assert unit.older is not None
    unit.folder.path.rename(unit.older.path)
    for file in ("manifest.json", "results.json"):
        record = unit.older.read(file)
        record["group"] = "0123abcd"
        record.pop("heads", None)
        record.get("recipe", {}).pop("heads", None)
        write_json(unit.older.path / file, record)
    collect(run)
    return unit.older


@pytest.fixture
def run(folder: Path, tmp_path: Path) -> RunFolder:
    """A copy of the finished run, without fine-tunings."""
    known = pretrained(folder)[1]
    shutil.copytree(known.path, tmp_path / "runs" / known.name, ignore=shutil.ignore_patterns("tasks"))
    return RunFolder(tmp_path / "runs", known.name)


def test_a_unit_in_fp32_keeps_its_name_and_one_in_bf16_gets_another(folder: Path, run: RunFolder) -> None:
    config = with_tasks(folder, *words(folder, "task=stsb"))
    (fp32,), (bf16,) = (plan_units(config, run, precision) for precision in ("fp32", "bf16"))
    assert fp32.older is None
    assert bf16.older is not None
    names = {fp32.folder.name, bf16.folder.name, bf16.older.name}
    assert len(names) == 3
    assert fp32.group != bf16.group


def test_a_fine_tuning_of_before_is_told_apart_and_scored_again(
    folder: Path, run: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    older = old_unit(folder, run, "stsb", monkeypatch, *STSB)
    before = older.read("results.json")
    predicted = (older.path / "predictions" / "STS-B.tsv").read_text()
    assert run.read("results.json")["tasks"][0]["recipe"]["heads"] == "bf16"
    capsys.readouterr()

    # A new one is trained, and the user is told why.
    again = [str(run.path), *words(folder, "task=stsb", *STSB, "runtime.precision=bf16")]
    assert finetune.main(again) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"! stsb, seed 0: in {older.path} the head answered in bf16" in said
    assert "--reread" in said
    assert "stsb 0123, bf16" in said
    assert finetune.main(again) == 0
    assert "nothing to do" in capsys.readouterr().out
    entries = run.read("results.json")["tasks"]
    assert sorted(entry["recipe"]["heads"] for entry in entries) == ["bf16", "fp32"]
    assert {tuple(entry["seeds"]) for entry in entries} == {(0,)}, "never in one median"

    # The report takes one of the two, says so, and shows both side by side.
    runs = load_runs(run.path.parent)
    (new,) = (entry for entry in entries if entry["recipe"]["heads"] == "fp32")
    assert list(values(runs, "task:stsb")) == [new["score"]]
    (told,) = main_selection(runs).tasks
    assert "on stsb 1 of another set-up is left out (heads fp32, elsewhere bf16" in told
    assert sorted(compare_tasks(runs)["start"]) == ["pretrained", "pretrained, bf16 head"]

    # The old weights are scored again.
    assert finetune.main([str(run.path), *words(folder), "--reread"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    now = older.read("results.json")
    assert now["before"]["best"] == before["best"]
    assert now["before"]["last"] == before["last"]
    assert now["best"]["step"] == before["best"]["step"]
    assert now["best"]["score"] != before["best"]["score"]
    assert now["recipe"]["heads"] == "fp32, trained in bf16"
    for which in ("best", "last"):
        a, b = before[which]["score"], now[which]["score"]
        assert f"{which} {a:.2%} {b:.2%} {100 * (b - a):+.2f}" in shown
    assert (older.path / "predictions-bf16" / "STS-B.tsv").read_text() == predicted
    assert (older.path / "predictions" / "STS-B.tsv").read_text() != predicted
    formats = sorted(entry["recipe"]["heads"] for entry in run.read("results.json")["tasks"])
    assert formats == ["fp32", "fp32, trained in bf16"]
    stamp = (older.path / "results.json").stat().st_mtime_ns
    assert finetune.main([str(run.path), "--reread"]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert (older.path / "results.json").stat().st_mtime_ns == stamp


def test_a_score_read_again_is_that_of_the_kept_weights(
    folder: Path, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fine-tuning of now that is called one of before gives its own score back."""
    given = words(folder, "task=mrpc", "runtime.precision=bf16", "tasks.mrpc.steps=6")
    assert finetune.main([str(run.path), *given]) == 0
    (file,) = run.path.glob("tasks/*/results.json")
    unit = RunFolder(file.parent.parent, file.parent.name)
    known = unit.read("results.json")
    write_json(unit.path / "results.json", known | {"recipe": known["recipe"] | {"heads": "bf16"}})
    assert finetune.main([str(run.path), *words(folder), "--reread"]) == 0
    assert {k: unit.read("results.json")[k] for k in ("best", "last")} == {k: known[k] for k in ("best", "last")}


def test_what_cannot_be_read_again_is_said_and_kept(
    folder: Path, run: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    older = old_unit(folder, run, "stsb", monkeypatch, "tasks.stsb.steps=2", "task.keep_weights=false")
    before = older.read("results.json")
    assert finetune.main([str(run.path), *words(folder), "--reread"]) == 2
    assert "its weights are not there (task.keep_weights=false)" in capsys.readouterr().err
    shutil.rmtree(older.path)
    older = old_unit(folder, run, "stsb", monkeypatch, "tasks.stsb.steps=2")
    write_pairs(tmp_path / "other", "stsb", dev=20)
    words_of_other = [w for w in words(folder) if not w.startswith("task.data_dir")]
    assert finetune.main([str(run.path), *words_of_other, f"task.data_dir={tmp_path / 'other'}", "--reread"]) == 2
    assert "not those that it was fine-tuned on" in capsys.readouterr().err
    assert older.read("results.json")["recipe"] == before["recipe"]
    assert finetune.main([str(run.path), "--reread", "task=stsb"]) == 2
    assert "no effect with --reread" in capsys.readouterr().err


def test_avg_is_of_one_format() -> None:
    def entry(task: str, value: float, answered: str) -> dict[str, Any]:
        return {"task": task, "average": value, "start": "pretrained", "recipe": {"heads": answered}}

    five = ("squad11", "squad20", "mnli", "sst2", "race")
    old = [entry(task, 0.5, "bf16") for task in five]
    mixed = [*old[1:], entry("squad11", 0.7, "fp32")]
    assert paper_average(mixed) is None
    both = paper_average([*old, *(entry(task, 0.7, "fp32") for task in five)])
    assert both is not None
    assert (both["value"], both["heads"]) == (pytest.approx(0.7), "fp32")


# --- one metric a line -----------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["mrpc", "stsb"])
def test_each_metric_has_a_line_with_its_own_numbers(
    task: str, folder: Path, run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert finetune.main([str(run.path), *words(folder, f"task={task}", f"tasks.{task}.steps=12")]) == 0
    printed = " ".join(capsys.readouterr().out.split()).replace(" to beat: ", " ")  # below the score where it is long
    (file,) = run.path.glob("tasks/*/results.json")
    found = json.loads(file.read_text())
    best, last = found["best"]["sets"]["dev"], found["last"]["sets"]["dev"]
    bars = {
        metric: " · ".join(f"{value:.1%}" for value in found["to_beat_each"]["dev"][metric].values())
        for metric in found["metric"].split(" and ")
    }
    score = " · ".join(f"{v:.1%}" for v in found["to_beat"]["dev"].values())
    expected = [f"{task} mean of both {found['best']['score']:.1%} — {found['last']['score']:.1%} {score}"]
    for metric in found["metric"].split(" and "):
        low, high = best[metric]["interval"]
        shown = f"{best[metric]['value']:.1%} {low:.1%} to {high:.1%} {last[metric]['value']:.1%}"
        expected.append(f"{metric} {shown} {bars[metric]}")
    assert [line for line in expected if line not in printed] == []
    assert np.mean([last[m]["value"] for m in found["metric"].split(" and ")]) == pytest.approx(found["last"]["score"])


# --- the report -----------------------------------------------------------------------------------


def write_run(root: Path, seed: int, *answered: str | None, units: Any = None) -> Path:
    """A finished run that was fine-tuned on SST-2 once for each number format of its head; None: not recorded."""
    terms = {"size": "base", "embedding": "H/6", "share": "all", "objective": "sop"}
    folder = write_cell(root, terms, seed, tasks=("sst2",))
    results = json.loads((folder / "results.json").read_text())
    (entry,) = results["tasks"]
    results["tasks"] = [
        entry | {"score": 0.6 + 0.1 * place, "recipe": {"steps": 100} | ({"heads": a} if a else {}), "units": units}
        for place, a in enumerate(answered)
    ]
    (folder / "results.json").write_text(json.dumps(results))
    return folder


def test_a_report_takes_the_format_that_most_runs_have(tmp_path: Path) -> None:
    write_run(tmp_path, 0, "bf16", "fp32")
    write_run(tmp_path, 1, "bf16")
    write_run(tmp_path, 2, "bf16", "fp32, trained in bf16")
    runs = load_runs(tmp_path)
    assert values(runs, "task:sst2").to_dict() == {0: 0.6, 1: 0.6, 2: 0.6}
    (told,) = main_selection(runs).tasks
    assert told.startswith(
        "Of the fine-tunings on sst2 2 of another set-up are left out (heads bf16, elsewhere fp32 and"
    )
    (said,) = sentences(runs)
    assert "Heads of sst2 answered in bf16" in said
    assert "finetune RUN --reread" in said
    write_run(tmp_path / "b", 0, "fp32")
    _, words = changes(runs, load_runs(tmp_path / "b"))
    assert "sst2: heads fp32, there bf16" in words["settings"]


@pytest.mark.parametrize("units", [["sst2-s0-01234567"], None, ["../../elsewhere"], [3], "sst2-s0-01234567"])
def test_an_older_folder_says_its_format_by_its_precision(units: Any, tmp_path: Path) -> None:
    folder = write_run(tmp_path, 0, None, units=units)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"precision": "bf16"}))
    unit = folder / "tasks" / "sst2-s0-01234567"
    unit.mkdir(parents=True)
    (unit / "manifest.json").write_text(json.dumps({"precision": "fp32"}))
    ((entry,),) = load_runs(tmp_path)["tasks"]
    assert entry["recipe"]["heads"] == ("fp32" if units == ["sst2-s0-01234567"] else "bf16")
