"""Fine-tuning end to end: start, heads, resume, best and last, units, seeds, predictions, the command."""

import csv
import json
import shutil
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runhelpers import command_line, read_json, run_folders, start, tiny_overrides
from safetensors.torch import load_file
from taskhelpers import (
    TINY,
    pretrained,
    task_config,
    tokenizer_of,
    with_tasks,
    write_race,
    write_squad,
    write_sst2,
    write_tsv,
)
from torch.nn import functional as F

from albert_ablate.axes import Share
from albert_ablate.commands import finetune
from albert_ablate.config.schema import RunConfig
from albert_ablate.config.tasks import PAPER_FIVE
from albert_ablate.door.compose import compose, compose_for_run
from albert_ablate.errors import CheckpointError, DataError, DivergedError, PreemptedError, UserError
from albert_ablate.model.architecture import Architecture
from albert_ablate.model.pretraining import initialise
from albert_ablate.record.folder import RunFolder
from albert_ablate.tasks.finetuning import FineTuner, build_task_model, tidy
from albert_ablate.tasks.heads import AnswerableSpanModel, forbidden
from albert_ablate.tasks.load import locate, read
from albert_ablate.tasks.recipe import resolve
from albert_ablate.tasks.squad import metrics as squad_metrics
from albert_ablate.tasks.squad.task import SquadTask
from albert_ablate.tasks.task import Task
from albert_ablate.tasks.units import collect, paper_average, plan_units
from albert_ablate.training.checkpoint import checkpoints
from albert_ablate.training.machine import Machine
from analysis.compare import compare_tasks
from analysis.read.runs import load_runs

#: Table 14 of the paper: rate, batch, encoder dropout, steps, warm-up, length, and official training examples.
TABLE14 = {
    "cola": (1e-5, 16, 0, 5336, 320, 512, 8551), "stsb": (2e-5, 16, 0, 3598, 214, 512, 5749),
    "sst2": (1e-5, 32, 0, 20935, 1256, 512, 67349), "mnli": (3e-5, 128, 0, 10000, 1000, 512, 392702),
    "qnli": (1e-5, 32, 0, 33112, 1986, 512, 104743), "qqp": (5e-5, 128, 0.1, 14000, 1000, 512, 363846),
    "rte": (3e-5, 32, 0.1, 800, 200, 512, 2490), "mrpc": (2e-5, 32, 0, 800, 200, 512, 3668),
    "wnli": (2e-5, 16, 0.1, 2000, 250, 512, 635), "squad11": (5e-5, 48, 0, 3649, 365, 384, 87599),
    "squad20": (3e-5, 48, 0, 8144, 814, 512, 130319), "race": (2e-5, 32, 0.1, 12000, 1000, 512, 87866),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run and files of four tasks."""
    place = tmp_path_factory.mktemp("finetuning")
    pretrained(place)
    data = write_race(write_squad(write_squad(write_sst2(place / "data")), "2.0"))
    assert data.is_dir()
    return place


def run_of(folder: Path) -> RunFolder:
    return pretrained(folder)[1]


def entries(run: RunFolder) -> dict[str, dict[str, Any]]:
    return {entry["task"]: entry for entry in run.read("results.json")["tasks"]}


def tuner(folder: Path, name: str, place: Path, *words: str, seed: int = 0) -> FineTuner:
    """A fine-tuning by hand, in ``place``."""
    data = [] if any(word.startswith("task.data_dir=") for word in words) else [f"task.data_dir={folder / 'data'}"]
    config = with_tasks(folder, f"task={name}", *data, *words)
    task = make(config, name, folder)
    recipe = resolve(config.tasks[name], config.task.scaling, task.examples, 32)
    shape = replace(config.architecture(), hidden_dropout=recipe.dropout, attention_dropout=recipe.dropout)
    found = checkpoints(run_of(folder).checkpoints)[-1] if config.task.start == "pretrained" else None
    model = build_task_model(task, shape, recipe, seed, found, 0.05)
    run = RunFolder(place, f"{name}-s{seed}-abcdef")
    run.path.mkdir(parents=True, exist_ok=True)
    runtime = replace(config.runtime, log_every=2)
    return FineTuner(task, model, recipe, config.task, seed, run, Machine(torch.device("cpu"), "fp32"), runtime)


def make(config: RunConfig, name: str, folder: Path) -> Task:
    return read(locate(config.task, config.tasks[name]))(tokenizer_of(folder), 32)


# --- recipes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TABLE14)
def test_the_paper_preset_is_table_14(name: str) -> None:
    rate, batch, dropout, steps, warmup, length, examples = TABLE14[name]
    config = compose(["scale=paper", f"task={name}"])
    found = resolve(config.tasks[name], config.task.scaling, 123, 512)
    assert (found.learning_rate, found.batch_size, found.dropout) == (rate, batch, dropout)
    assert (found.steps, found.warmup_steps, found.max_length, found.classifier_dropout) == (steps, warmup, length, 0.1)
    recipe = config.tasks[name].recipe
    assert recipe.epochs == pytest.approx(steps * batch / examples, abs=0.006)
    assert recipe.warmup == pytest.approx(warmup / steps, abs=6e-4)
    optimizer = config.task.optimizer
    assert (optimizer.weight_decay, optimizer.epsilon, optimizer.bias_correction) == (0.01, 1e-6, False)
    assert config.task.evaluate_every == 100


def test_small_scales_keep_the_proportions() -> None:
    config = compose(["scale=cpu", "task=[mnli,sst2]"])
    scaling = config.task.scaling
    found = resolve(config.tasks["mnli"], scaling, 25_000, 512)
    assert found.batch_size == scaling.batch_size == 64
    assert found.steps == int(25_000 * 3.26 * scaling.epochs / 64)
    assert found.warmup_steps == int(0.1 * found.steps)
    assert found.learning_rate == pytest.approx(3e-5 * scaling.learning_rate)
    assert resolve(config.tasks["sst2"], scaling, 10, 100).max_length == 100, "no more than the model has positions"


def test_what_the_user_sets_is_not_scaled() -> None:
    own = ["learning_rate=0.001", "steps=77", "batch_size=5", "dropout=0.3", "warmup_steps=7"]
    words = [f"tasks.sst2.{word}" for word in own]
    for scale in ("paper", "demo"):
        config = compose([f"scale={scale}", "task=sst2", *words])
        found = resolve(config.tasks["sst2"], config.task.scaling, 1000, 512)
        assert (found.learning_rate, found.steps, found.batch_size) == (0.001, 77, 5)
        assert (found.dropout, found.warmup_steps) == (0.3, 7)


# --- the model -------------------------------------------------------------------------------------


def test_the_encoder_starts_with_the_pretrained_weights(folder: Path, tmp_path: Path) -> None:
    own = load_file(checkpoints(run_of(folder).checkpoints)[-1] / "model.safetensors")
    found = tuner(folder, "sst2", tmp_path).model.state_dict()
    shared = [name for name in found if name.startswith(("encoder.", "pooler."))]
    assert shared
    assert all(torch.equal(found[name], own[name]) for name in shared)
    random = tuner(folder, "sst2", tmp_path / "r", "task.start=random").model.state_dict()
    assert not torch.equal(random["encoder.embedding.word.weight"], own["encoder.embedding.word.weight"])
    assert torch.equal(random["classifier.weight"], found["classifier.weight"]), "the head starts equal in both arms"


def test_another_encoder_is_refused(folder: Path, tmp_path: Path) -> None:
    config = with_tasks(folder, "task=sst2", f"task.data_dir={folder / 'data'}")
    task = make(config, "sst2", folder)
    recipe = resolve(config.tasks["sst2"], config.task.scaling, 10, 32)
    shape = replace(config.architecture(), embedding_size=8)
    with pytest.raises(CheckpointError, match=r"lacks tensors of this encoder: .*encoder.embedding.word.weight"):
        build_task_model(task, shape, recipe, 0, checkpoints(run_of(folder).checkpoints)[-1], 0.05)


def test_padding_does_not_change_the_outputs(folder: Path, tmp_path: Path) -> None:
    for name in ("sst2", "squad11", "squad20", "race"):
        t = tuner(folder, name, tmp_path)
        (features,) = t.task.dev.values()
        together = t.predict(features)
        for number in (0, len(features) - 1):
            t.model.eval()
            with torch.no_grad():
                alone = t.task.outputs(t.model, features.batch(np.array([number])))
            for key, value in alone.items():
                if value.is_floating_point():
                    torch.testing.assert_close(
                        value[0].float(), torch.as_tensor(together[key][number]), rtol=1e-4, atol=1e-5
                    )


def test_the_loss_of_20_by_hand(folder: Path, tmp_path: Path) -> None:
    """.5 (start + end given the gold start) + .5 BCE, with start and end over [CLS] and the paragraph alone."""
    t = tuner(folder, "squad20", tmp_path)
    t.model.eval()
    model = t.model
    assert isinstance(model, AnswerableSpanModel)
    batch = t.task.train.batch(np.arange(4))
    with torch.no_grad():
        found = t.task.loss(model, batch)
        hidden = model.encoder(batch.input_ids, batch.type_ids, batch.mask)
        expected = 0.0
        for i, (start, end, none) in enumerate(batch.targets.tolist()):
            length = int(batch.mask[i].sum())
            allowed = [0, *(j for j in range(length - 1) if batch.type_ids[i, j] == 1)]
            h = hidden[i]
            starts = torch.stack([(h[j] * model.start.weight[0]).sum() + model.start.bias[0] for j in allowed])
            chance = torch.softmax(starts, 0)
            ends = []
            for j in allowed:
                x = torch.tanh(model.end_hidden(torch.cat([h[j], h[start]])))
                ends.append(model.end(model.end_norm(x))[0])
            summary = sum(p * h[j] for p, j in zip(chance, allowed, strict=True))
            logit = model.answer(torch.tanh(model.answer_hidden(torch.cat([summary, h[0]]))))[0]
            expected += 0.5 * float(F.cross_entropy(starts[None], torch.tensor([allowed.index(start)])))
            expected += 0.5 * float(F.cross_entropy(torch.stack(ends)[None], torch.tensor([allowed.index(end)])))
            expected += 0.5 * float(F.binary_cross_entropy_with_logits(logit, torch.tensor(float(none))))
    assert float(found) == pytest.approx(expected, rel=1e-4)
    assert set(forbidden(batch).unique().tolist()) == {0.0, -1.0000000150474662e30}


def test_micro_batches_give_the_same_gradient(folder: Path, tmp_path: Path) -> None:
    for name in ("sst2", "race", "squad20"):
        gradients = []
        for micro in ("null", "4"):
            still = [f"tasks.{name}.dropout=0", f"tasks.{name}.classifier_dropout=0", f"task.micro_size={micro}"]
            t = tuner(folder, name, tmp_path / micro, *still)
            t.optimizer.step = lambda closure=None: None  # type: ignore[assignment,method-assign]
            t.update(0, t.batches[0])
            gradients.append({n: p.grad.clone() for n, p in t.model.named_parameters() if p.grad is not None})
        assert gradients[0].keys() == gradients[1].keys()
        for key in gradients[0]:
            torch.testing.assert_close(gradients[0][key], gradients[1][key], rtol=1e-4, atol=1e-6)


# --- decoding --------------------------------------------------------------------------------------


def gold_outputs(task: SquadTask) -> dict[str, np.ndarray]:
    """Outputs of a model that knows: the gold positions first, all else hopeless."""
    targets = task.windows.features.targets
    count = len(targets)
    k = 5 if task.answerable else 20
    starts, ends = np.zeros((count, k), np.int64), np.zeros((count, k, k), np.int64)
    scores = np.full((count, k, k), -1e4, np.float32)
    starts[:, 0], ends[:, 0, 0] = targets[:, 0], targets[:, 1]
    scores[:, 0, 0] = np.where(targets[:, 2] == 1, -50.0, 10.0)
    return {"starts": starts, "ends": ends, "scores": scores, "null": targets[:, 2] * 6.0 - 3.0}


@pytest.mark.parametrize("name", ["squad11", "squad20"])
def test_a_model_that_knows_the_answers_is_right(folder: Path, name: str) -> None:
    config = with_tasks(folder, f"task={name}", f"task.data_dir={folder / 'data'}", f"tasks.{name}.max_answer=40")
    task = make(config, name, folder)
    assert isinstance(task, SquadTask)
    found = task.scores("dev", gold_outputs(task))
    lost = 1 - found.metrics["exact"]["value"]
    assert found.metrics["f1"]["value"] >= 0.85, "some answers lie across two windows' edges at 32 tokens"
    assert lost <= 0.25
    files = task.files("dev", gold_outputs(task))
    assert set(json.loads(files["predictions.json"])) == {q.id for q in task.dev_questions.questions}


def test_decoding_equals_a_plain_loop(folder: Path) -> None:
    """Against the released rule, candidate by candidate, on random scores."""
    config = with_tasks(folder, "task=squad11", f"task.data_dir={folder / 'data'}", "tasks.squad11.max_answer=4")
    task = make(config, "squad11", folder)
    assert isinstance(task, SquadTask)
    w, draw = task.windows, np.random.default_rng(0)
    t = 32
    starts = np.stack([draw.permutation(t)[:20] for _ in w.question])
    ends = np.repeat(np.stack([draw.permutation(t)[:20] for _ in w.question])[:, None], 20, axis=1)
    scores = draw.normal(size=(len(starts), 20, 20)).astype(np.float32)
    found = task.candidates({"starts": starts, "ends": ends, "scores": scores, "null": np.zeros(len(starts))}, 20)
    for number, question in enumerate(task.dev_questions.questions):
        document, text = w.pieces[question.paragraph], task.dev_questions.paragraphs[question.paragraph]
        mine = [row for row in range(len(w.question)) if w.question[row] == number]
        spans = [(int(w.offset[r]), int(w.length[r])) for r in mine]
        options = []
        for index, row in enumerate(mine):
            for i, s in enumerate(starts[row]):
                for j, e in enumerate(ends[row, i]):
                    first, last = int(s - w.first[row]), int(e - w.first[row])
                    if not (0 <= first < w.length[row] and first <= last < w.length[row] and last - first + 1 <= 4):
                        continue
                    place = first + int(w.offset[row])
                    context = [
                        min(place - b, b + n - 1 - place) + 0.01 * n if b <= place < b + n else -1.0 for b, n in spans
                    ]
                    if context.index(max(context)) != index:
                        continue
                    a, b = document.start[place], document.end[last + int(w.offset[row])]
                    options.append((float(scores[row, i, j]), text[a:b].strip()))
        options.sort(key=lambda option: -option[0])
        best = list(dict.fromkeys(answer for _, answer in options))[:20]
        assert [answer for answer, _ in found[number]] == (best or [""])


# --- running ---------------------------------------------------------------------------------------


def test_tasks_after_pretraining_and_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``run.py ... task=`` on a finished run fine-tunes only; the second time nothing is done."""
    run = run_of(folder)
    weights = checkpoints(run.checkpoints)[-1].joinpath("model.safetensors").stat().st_mtime_ns
    config = with_tasks(folder, "task=[sst2,race]", f"task.data_dir={folder / 'data'}", "task.seeds=[0,1,2]")
    assert start(config) == 0
    found = entries(run)
    for name in ("sst2", "race"):
        entry = found[name]
        assert entry["seeds"] == [0, 1, 2]
        assert entry["score"] == statistics.median(entry["scores"])
        assert entry["spread"] == [min(entry["scores"]), max(entry["scores"])]
        assert all(b >= a for a, b in zip(entry["last_scores"], entry["scores"], strict=True)), (
            "best of all evaluations"
        )
        assert "dev set that is reported" in entry["selection"]
        (first, *_) = entry["sets"].values()
        low, high = first["accuracy"]["interval"]
        assert low <= first["accuracy"]["value"] <= high
        assert first["n"] == {"sst2": 32, "race": 16}[name]
        assert 0 < entry["to_beat"][next(iter(entry["sets"]))]["majority"] <= 1
    assert found["race"]["sets"]["all"]["middle"]["n"] == found["race"]["sets"]["all"]["high"]["n"] == 8
    assert found["sst2"]["to_beat"]["dev"]["bag_of_words"] > 0.9
    stamps = {p: p.stat().st_mtime_ns for p in run.path.glob("tasks/*/results.json")}
    assert len(stamps) == 6
    for manifest in run.path.glob("tasks/*/manifest.json"):
        notes = read_json(manifest)["data"]["notes"]
        assert notes
        assert len(notes) == len(set(notes)), "once, whichever seed it is"
    capsys.readouterr()
    assert start(config) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert stamps == {p: p.stat().st_mtime_ns for p in run.path.glob("tasks/*/results.json")}
    assert weights == checkpoints(run.checkpoints)[-1].joinpath("model.safetensors").stat().st_mtime_ns


def test_predictions_and_weights_are_those_of_the_reported_score(folder: Path, tmp_path: Path) -> None:
    t = tuner(folder, "sst2", tmp_path)
    record = t.fit()
    t.keep_weights()
    tidy(t.folder)
    assert not t.folder.checkpoints.exists()
    with (t.folder.path / "predictions" / "SST-2.tsv").open() as lines:
        rows = list(csv.DictReader(lines, delimiter="\t"))
    assert [row["index"] for row in rows] == [str(i) for i in range(32)]
    gold = [e.target for e in t.task.sets.dev["dev"]]  # type: ignore[attr-defined]
    right = statistics.mean(int(row["prediction"]) == g for row, g in zip(rows, gold, strict=True))
    assert right == record["best"]["score"]
    for which in ("best", "last"):
        other = tuner(folder, "sst2", tmp_path / which)
        other.model.load_state_dict(load_file(t.folder.path / f"{which}.safetensors"))
        assert other._evaluate(1) == record[which]["score"]


def test_squad_files_in_the_official_form(folder: Path, tmp_path: Path) -> None:
    t = tuner(folder, "squad20", tmp_path)
    record = t.fit()
    predictions = read_json(t.folder.path / "predictions" / "predictions.json")
    null = read_json(t.folder.path / "predictions" / "null_scores.json")
    golds = {q.id: q.answers for q in t.task.dev_questions.questions}  # type: ignore[attr-defined]
    assert predictions.keys() == null.keys() == golds.keys()
    exact = squad_metrics.mean(squad_metrics.scores_20(golds, predictions).exact)
    found = record["best"]["sets"]["dev"]
    assert exact == pytest.approx(found["exact"]["value"]), "the file scores what the record says, without a threshold"
    assert found["threshold_was_searched_on_this_set"] is True
    assert found["has_answer"]["n"] + found["no_answer"]["n"] == found["n"] == 8
    assert found["best_f1"] >= found["at_threshold_0"]["f1"]
    assert record["best"]["average"] == pytest.approx((found["exact"]["value"] + found["f1"]["value"]) / 2)


@pytest.mark.parametrize("stop_at", [1, 3, 5])
def test_a_stopped_fine_tuning_ends_with_the_same_bits(folder: Path, tmp_path: Path, stop_at: int) -> None:
    whole = tuner(folder, "sst2", tmp_path / "whole", "tasks.sst2.steps=8")
    expected = whole.fit()
    halted = tuner(folder, "sst2", tmp_path / "parts", "tasks.sst2.steps=8")

    update = halted.update

    def interrupted(step: int, *rest: Any) -> Any:
        if step == stop_at:
            import os
            import signal

            os.kill(os.getpid(), signal.SIGTERM)
        return update(step, *rest)

    halted.update = interrupted  # type: ignore[method-assign]
    with pytest.raises(PreemptedError, match=f"after step {stop_at + 1} of 8"):
        halted.fit()
    again = tuner(folder, "sst2", tmp_path / "parts", "tasks.sst2.steps=8")
    found = again.fit()
    assert {k: v for k, v in found.items() if k != "training"} == {k: v for k, v in expected.items() if k != "training"}
    for t in (whole, again):
        t.keep_weights()
    for name in ("best.safetensors", "last.safetensors"):
        assert (whole.folder.path / name).read_bytes() == (again.folder.path / name).read_bytes()


def test_a_kill_between_the_best_weights_and_the_checkpoint(folder: Path, tmp_path: Path) -> None:
    """The newest best file then belongs to a step that is trained again."""
    whole = tuner(folder, "sst2", tmp_path / "whole", "tasks.sst2.steps=6", "task.evaluate_every=2")
    expected = whole.fit()
    parts = tuner(folder, "sst2", tmp_path / "parts", "tasks.sst2.steps=6", "task.evaluate_every=2")
    save, saved = parts._save, []

    def killed(saver: Any, step: int, *rest: Any) -> None:
        if step == 4:
            raise KeyboardInterrupt
        saved.append(step)
        save(saver, step, *rest)

    parts._save = killed  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        parts.fit()
    found = tuner(folder, "sst2", tmp_path / "parts", "tasks.sst2.steps=6", "task.evaluate_every=2").fit()
    assert saved == [2]
    assert found["best"] == expected["best"]
    assert found["last"] == expected["last"]


def test_micro_batches_are_halved_where_that_is_allowed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in pretraining: the record says so; without dropout the weights are those of small parts from the start."""
    still = ("tasks.sst2.dropout=0", "tasks.sst2.classifier_dropout=0", "tasks.sst2.batch_size=8")
    small = tuner(folder, "sst2", tmp_path / "small", *still, "task.micro_size=2")
    small.fit()
    halved = tuner(folder, "sst2", tmp_path / "halved", *still, "runtime.oom_halving=true")
    real = type(halved.model).forward

    def forward(self: Any, batch: Any) -> Any:
        if self.training and len(batch) > 2:
            torch.empty(10**15)  # refused by the allocator
        return real(self, batch)

    monkeypatch.setattr(type(halved.model), "forward", forward)
    assert halved.fit()["training"]["micro_size"] == 2
    for name, tensor in small.model.state_dict().items():
        assert torch.equal(tensor, halved.model.state_dict()[name]), name


def test_keep_weights_false_leaves_none(folder: Path, tmp_path: Path) -> None:
    t = tuner(folder, "sst2", tmp_path, "task.keep_weights=false")
    t.fit()
    t.keep_weights()
    tidy(t.folder)
    assert not list(t.folder.path.rglob("*.safetensors"))


def test_divergence_is_named(folder: Path, tmp_path: Path) -> None:
    t = tuner(folder, "sst2", tmp_path)
    with torch.no_grad():
        next(t.model.parameters()).fill_(float("nan"))
    with pytest.raises(DivergedError, match=r"sst2: the loss is not finite at step 1 .*tasks.sst2.learning_rate"):
        t.fit()
    assert (t.folder.path / "diverged" / "step_00000001" / "batch.safetensors").is_file()


def test_learning_happens(folder: Path, tmp_path: Path) -> None:
    """A word decides the label; a tiny encoder finds it."""
    write_sst2(tmp_path, train=256, dev=64)
    words = ["tasks.sst2.steps=300", "tasks.sst2.learning_rate=0.001", f"task.data_dir={tmp_path}"]
    found = tuner(folder, "sst2", tmp_path / "run", *words).fit()
    assert found["best"]["score"] >= 0.75, "the majority is 56%"


# --- units -----------------------------------------------------------------------------------------


def unit_names(folder: Path, *words: str) -> list[str]:
    config = with_tasks(folder, "task=sst2", f"task.data_dir={folder / 'data'}", *words)
    return [unit.folder.name for unit in plan_units(config, run_of(folder), "fp32")]


@pytest.mark.parametrize(
    ("word", "same"),
    [
        ("task.keep_weights=false", True), ("task.bag_of_words=false", True), ("runtime.threads=2", True),
        ("tasks.sst2.learning_rate=0.01", False), ("task.start=random", False), ("task.evaluations=4", False),
        ("task.scaling.epochs=2", False), ("tasks.sst2.max_train=9", False),
        ("task.optimizer.bias_correction=true", False), ("task.group_by_length=false", False),
    ],
)  # fmt: skip
def test_identity_of_a_unit(folder: Path, word: str, same: bool) -> None:
    assert (unit_names(folder) == unit_names(folder, word)) is same


def test_a_unit_depends_on_its_files(folder: Path, tmp_path: Path) -> None:
    before = unit_names(folder)
    write_sst2(tmp_path, train=65)
    assert unit_names(folder, f"task.data_dir={tmp_path}") != before
    write_sst2(tmp_path)
    assert unit_names(folder, f"task.data_dir={tmp_path}") == before, "files may move"


def test_another_seed_is_another_unit_of_the_same_group(folder: Path) -> None:
    config = with_tasks(folder, "task=sst2", f"task.data_dir={folder / 'data'}", "task.seeds=[0,7]")
    one, two = plan_units(config, run_of(folder), "fp32")
    assert one.folder.name != two.folder.name
    assert one.group == two.group


def test_a_task_that_fails_does_not_stop_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretrained(tmp_path)
    write_squad(write_sst2(tmp_path / "data"))
    update = FineTuner.update

    def broken(self: FineTuner, step: int, *rest: Any) -> Any:
        if self.task.name == "sst2":
            raise RuntimeError("boom")
        return update(self, step, *rest)

    monkeypatch.setattr(FineTuner, "update", broken)
    config = with_tasks(tmp_path, "task=[sst2,squad11]", f"task.data_dir={tmp_path / 'data'}")
    with pytest.raises(UserError, match=r"1 of 2 fine-tunings .* failed; the first: sst2.*boom"):
        start(config)
    run = run_of(tmp_path)
    states = {p.name.split("-")[0]: read_json(p / "status.json")["state"] for p in run.path.glob("tasks/*-*")}
    assert states == {"sst2": "failed", "squad11": "finished"}
    assert set(entries(run)) == {"squad11"}
    monkeypatch.setattr(FineTuner, "update", update)
    assert start(replace(config, rerun="failed")) == 0
    assert set(entries(run)) == {"sst2", "squad11"}


def test_a_bad_task_file_is_refused_before_pretraining(tmp_path: Path) -> None:
    write_sst2(tmp_path / "data")
    with (tmp_path / "data" / "SST-2" / "dev.tsv").open("a") as out:
        out.write("a film\t2\n")
    config = with_tasks(tmp_path, "task=sst2", f"task.data_dir={tmp_path / 'data'}")
    with pytest.raises(DataError, match="unknown label '2'"):
        start(config)
    assert not list((tmp_path / "runs").glob("*/metrics.jsonl"))


def test_test_files_are_predicted_for_submission(tmp_path: Path) -> None:
    pretrained(tmp_path)
    data = write_sst2(tmp_path / "data")
    (data / "SST-2" / "test.tsv").write_text("index\tsentence\n0\ta fine film\n1\tdull\n2\tit\n")
    assert start(with_tasks(tmp_path, "task=sst2", f"task.data_dir={data}")) == 0
    (file,) = run_of(tmp_path).path.glob("tasks/*/predictions/test/SST-2.tsv")
    lines = file.read_text().splitlines()
    assert lines[0] == "index\tprediction"
    assert [line.split("\t")[0] for line in lines[1:]] == ["0", "1", "2"]
    assert {line.split("\t")[1] for line in lines[1:]} <= {"0", "1"}


def test_avg_is_the_papers() -> None:
    """Table 5's SOP row: F1 and EM of each SQuAD are averaged first."""
    rows = {"squad11": (89.3 + 82.3) / 2, "squad20": (80.0 + 77.1) / 2, "mnli": 82.0, "sst2": 90.3, "race": 64.0}
    tasks = [{"task": name, "average": value, "start": "pretrained"} for name, value in rows.items()]
    found = paper_average(tasks)
    assert found is not None
    assert found["value"] == pytest.approx(80.13)
    assert tuple(found["tasks"]) == PAPER_FIVE
    assert paper_average(tasks[1:]) is None
    assert paper_average([*tasks[1:], tasks[0] | {"start": "random"}]) is None


def test_the_papers_five_at_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``task=paper5`` gives the Avg, and summary and comparison show every task."""
    header = ["index", "sentence1", "sentence2", "gold_label"]
    labels = ["contradiction", "entailment", "neutral"]
    for name in ("train", "dev_matched", "dev_mismatched"):
        rows = [[i, f"a film {i}", "a story", labels[i % 3]] for i in range(12)]
        write_tsv(folder / "data" / "MNLI" / f"{name}.tsv", header, rows)
    steps = [f"tasks.{name}.steps=2" for name in PAPER_FIVE]
    assert start(with_tasks(folder, "task=paper5", f"task.data_dir={folder / 'data'}", *steps)) == 0
    run = run_of(folder)
    average = run.read("results.json")["average"]
    assert average["value"] == pytest.approx(statistics.mean(average["tasks"].values()))
    squad = next(e for e in run.read("results.json")["tasks"] if e["task"] == "squad11")["sets"]["dev"]
    assert average["tasks"]["squad11"] == pytest.approx((squad["exact"]["value"] + squad["f1"]["value"]) / 2)
    out = capsys.readouterr().out
    assert f"Avg of the paper's five tasks: {average['value']:.1%}" in out
    assert "mismatched" in out
    table = compare_tasks(load_runs(run.path.parent))
    assert set(PAPER_FIVE) <= set(table["task"])


def test_random_start_is_a_result_of_its_own(folder: Path) -> None:
    words = [f"task.data_dir={folder / 'data'}", "task.start=random", *("task=sst2",)]
    assert start(with_tasks(folder, *words)) == 0
    found = [e for e in run_of(folder).read("results.json")["tasks"] if e["start"] == "random"]
    assert [e["task"] for e in found] == ["sst2"]


# --- sweeps ----------------------------------------------------------------------------------------


def test_a_sweep_carries_tasks(tmp_path: Path) -> None:
    """Two cells with two tasks each; the second time nothing runs; a lost unit alone is done again."""
    data = write_squad(write_sst2(tmp_path / "data"))
    words = [*tiny_overrides(tmp_path), *TINY, f"task.data_dir={data}", "tasks.squad11.steps=4", "tasks.sst2.steps=4"]
    sweep = ["-m", "objective=sop,none", "task=sst2,squad11", *words]
    first = command_line(*sweep, cwd=tmp_path)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "2 cells, 0 finished, 2 to run" in first.stdout
    runs = [RunFolder(p.parent, p.name) for p in run_folders(tmp_path / "runs")]
    assert [set(entries(run)) for run in runs] == [{"sst2", "squad11"}] * 2
    again = command_line(*sweep, cwd=tmp_path)
    assert "2 finished, 0 to run" in again.stdout
    (lost,) = runs[0].path.glob("tasks/sst2-*")
    shutil.rmtree(lost)
    kept = {p: p.stat().st_mtime_ns for run in runs for p in run.path.glob("**/status.json")}
    third = command_line(*sweep, cwd=tmp_path)
    assert "1 finished, 1 to run" in third.stdout, third.stdout + third.stderr
    assert lost.joinpath("results.json").is_file()
    assert all(p.stat().st_mtime_ns == stamp for p, stamp in kept.items())


def test_a_failing_task_in_a_sweep_fails_its_cell_only(tmp_path: Path) -> None:
    """A unit whose folder cannot be written is named; the other cell is finished; exit code 1."""
    data = write_sst2(tmp_path / "data")
    words = [*tiny_overrides(tmp_path), *TINY, f"task.data_dir={data}"]
    assert command_line("-m", "objective=sop,none", *words, cwd=tmp_path).returncode == 0
    sop, none = sorted(run_folders(tmp_path / "runs"), key=lambda p: "none" in p.name)
    for old in (none / "checkpoints").iterdir():
        (old / "model.safetensors").write_bytes(b"broken")
    done = command_line("-m", "objective=sop,none", "task=sst2", *words, cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "no intact checkpoint to start from" in done.stdout
    assert "1 finished, 1 failed" in done.stdout
    assert set(entries(RunFolder(sop.parent, sop.name))) == {"sst2"}


# --- the command -----------------------------------------------------------------------------------


def test_finetune_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(tmp_path)
    write_squad(write_sst2(tmp_path / "data"))
    words = ["task=sst2,squad11", f"task.data_dir={tmp_path / 'data'}", "tasks.sst2.steps=4", "tasks.squad11.steps=4"]
    assert finetune.main([str(run.path), *words, "runtime.threads=1"]) == 0
    assert set(entries(run)) == {"sst2", "squad11"}
    out = capsys.readouterr().out
    assert "SST" not in out
    assert "sst2" in out
    assert finetune.main([str(run.path), *words, "runtime.threads=1"]) == 0
    assert "nothing to do" in capsys.readouterr().out
    (before,) = run.path.glob("tasks/sst2*/results.json")
    assert finetune.main([str(run.path), *words, "rerun=all", "runtime.threads=1"]) == 0
    assert before.is_file()
    assert len(list((run.path / "tasks" / ".replaced").iterdir())) == 2


WRONG_WORDS = {
    "no task": ([], "Which task?"),
    "a setting of the pretraining": (["task=sst2", "embed=e64"], "the run is trained already"),
    "an unknown task": (["task=sst3"], "sst3"),
    "an unknown setting": (["task=sst2", "tasks.sst2.rate=1"], "rate"),
    "a wrong value": (["task=sst2", "tasks.sst2.batch_size=0"], "batch_size=0"),
    "no data": (["task=sst2"], "task.data_dir=FOLDER"),
}


@pytest.mark.parametrize("what", WRONG_WORDS)
def test_wrong_words_are_answered_in_words(folder: Path, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    words, expected = WRONG_WORDS[what]
    assert finetune.main([str(run_of(folder).path), *words]) == 2
    found = capsys.readouterr().err
    assert expected in found
    assert "Traceback" not in found


def test_no_such_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert finetune.main([str(tmp_path / "nothing"), "task=era"]) == 2
    assert "no run folder" in capsys.readouterr().err


def test_an_older_run_folder_without_task_settings(tmp_path: Path) -> None:
    """Its config lacks the newer settings, and it has no copy of the tokenizer."""
    import yaml

    run = run_of(tmp_path)
    recorded = yaml.safe_load((run.path / "config.yaml").read_text())
    del recorded["task"], recorded["tasks"]
    (run.path / "config.yaml").write_text(yaml.safe_dump(recorded))
    (run.path / "spiece.model").unlink()
    config = compose_for_run(run.path / "config.yaml", ["task=sst2"])
    assert config.embed.size == 16
    write_sst2(tmp_path / "data")
    words = ["task=sst2", f"task.data_dir={tmp_path / 'data'}", "tasks.sst2.steps=2", "runtime.threads=1"]
    assert finetune.main([str(run.path), *words]) == 0


def test_results_survive_a_second_collection(folder: Path) -> None:
    run = run_of(folder)
    collect(run)
    once = run.read("results.json")
    collect(run)
    assert run.read("results.json") == once
    assert once["masked_lm"]["loss"] > 0


def test_initialisation_covers_every_parameter() -> None:
    shape = Architecture(50, 8, 16, 2, 2, 32, 16, Share.ALL)
    with torch.device("meta"):
        model = AnswerableSpanModel(shape, 0.1)
    model.to_empty(device="cpu")
    for p in model.parameters():
        p.data.fill_(float("nan"))
    initialise(model, 0.02, 0)
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert task_config("squad20").beam == 5


def test_a_model_that_answers_nothing_right_is_best_off_answering_nothing(folder: Path) -> None:
    """The official threshold is then 0, at which null scores below 0 would answer everything."""
    config = with_tasks(folder, "task=squad20", f"task.data_dir={folder / 'data'}")
    task = make(config, "squad20", folder)
    assert isinstance(task, SquadTask)
    outputs = gold_outputs(task)
    outputs["ends"] = outputs["starts"][:, :, None].repeat(5, 2)  # answers of one piece: all wrong
    outputs["starts"][:, 0] = task.windows.first + 2
    outputs["ends"][:, 0, 0] = task.windows.first + 2
    outputs["null"] = np.full(len(outputs["null"]), -2.0)
    found = task.scores("dev", outputs).metrics
    assert found["best_exact_threshold"] == 0.0
    assert found["exact"]["value"] == found["best_exact"] == found["no_answer"]["n"] / 8
    assert found["at_threshold_0"]["exact"] == 0.0
