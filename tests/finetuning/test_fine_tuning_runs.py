"""One fine-tuning: stop, continue, best and last, scores on record."""

import csv
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch
from finetunehelpers import run_of, tuner
from runhelpers import read_json, start
from safetensors.torch import load_file
from taskhelpers import (
    with_tasks,
    write_sst2,
)

from albert_ablate.errors import DivergedError, PreemptedError
from albert_ablate.tasks.finetuning import tidy
from albert_ablate.tasks.planning import plan_units
from albert_ablate.tasks.squad import metrics as squad_metrics
from albert_ablate.training.checkpoint import checkpoints


def test_tasks_after_pretraining_and_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``run.py ... task=`` on a finished run fine-tunes only; the second time nothing is done."""
    run = run_of(folder)
    weights = checkpoints(run.checkpoints)[-1].joinpath("model.safetensors").stat().st_mtime_ns
    config = with_tasks(folder, "task=[sst2,race]", f"task.data_dir={folder / 'data'}", "task.seeds=[0,1,2]")
    assert start(config) == 0
    units = {unit.folder.name for unit in plan_units(config, run, "fp32")}  # other tests may have tuned this run, too
    found = {e["task"]: e for e in run.read("results.json")["tasks"] if units.issuperset(e["units"])}
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
    assert len(units) == len(units & {p.parent.name for p in stamps}) == 6
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

    halted.update = interrupted  # type: ignore[assignment,method-assign]
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

    parts._save = killed  # type: ignore[assignment,method-assign]
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


@pytest.mark.parametrize("head", [(), ("task.pool=mean", "task.head=bare"), ("task.pool=last",)], ids=" ".join)
def test_learning_happens(folder: Path, tmp_path: Path, head: tuple[str, ...]) -> None:
    """A word decides the label; a tiny encoder finds it."""
    write_sst2(tmp_path, train=256, dev=64)
    words = ["tasks.sst2.steps=300", "tasks.sst2.learning_rate=0.001", f"task.data_dir={tmp_path}", *head]
    found = tuner(folder, "sst2", tmp_path / "run", *words).fit()
    assert found["best"]["score"] >= 0.75, "the majority is 56%"
