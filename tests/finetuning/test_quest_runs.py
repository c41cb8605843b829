"""Fine-tunings on Google QUEST's format: learned, stopped and continued, recorded, counted again."""

import csv
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from finetunehelpers import assert_equal_when_stopped, entries, run_of, tuner
from runhelpers import read_json, start, write_corpus
from taskhelpers import pretrained, with_tasks

from albert_ablate.record.tasks import direction
from albert_ablate.tasks.planning import plan_units
from albert_ablate.tasks.quest.generated import quest_table
from albert_ablate.tasks.quest.task import QuestTask
from albert_ablate.training.checkpoint import checkpoints
from analysis.compare import compare_tasks
from analysis.judge.metrics import metric, unfit, values
from analysis.read.runs import load_runs
from analysis.recount.checks import AGREES, DISAGREES
from analysis.recount.fine_tunings import check
from analysis.recount.runs import Run

NAME = "quest_generated"
SHORT = [f"tasks.{NAME}.questions=30", f"tasks.{NAME}.steps=8", f"tasks.{NAME}.pool=first"]


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose pieces are those of the generated questions."""
    folder = tmp_path_factory.mktemp("questions")
    corpus = write_corpus(folder / "corpus.txt")
    rows = csv.DictReader(io.StringIO(quest_table(100)))
    texts = [f"{row['question_title']}\n{row['question_body']}".replace("\n\n", "\n") for row in rows]
    corpus.write_text("\n\n".join([corpus.read_text(encoding="utf-8").strip(), *texts]) + "\n", encoding="utf-8")
    pretrained(folder)
    return folder


def test_the_generated_targets_are_learned(asked: Path, tmp_path: Path) -> None:
    """Better than the mean of the training targets, by the interval; the best of all evaluations is the least."""
    t = tuner(
        asked, NAME, tmp_path, f"tasks.{NAME}.questions=120", "task.start=random", f"tasks.{NAME}.learning_rate=0.001",
        f"tasks.{NAME}.epochs=18", f"tasks.{NAME}.dropout=0",
    )  # fmt: skip
    record = t.fit()
    scores, floor = record["best"]["sets"]["dev"], t.task.baselines(False)["dev"]["score"]["majority"]
    assert record["metric"] == "mean_squared_error"
    assert scores["mean_squared_error"]["interval"][1] < floor
    assert record["best"]["score"] == scores["mean_squared_error"]["value"] < 0.6 * floor
    assert scores["r2"]["interval"][0] > 0
    assert scores["spearman"]["interval"][0] > 0.2
    assert record["best"]["score"] <= record["last"]["score"]


def test_the_least_error_is_the_best(asked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (direction("mean_squared_error"), direction("spearman")) == (-1, 1)
    t = tuner(asked, NAME, tmp_path, *SHORT, "task.evaluate_every=2")
    errors = iter([0.3, 0.1, 0.2, 0.4])
    real = QuestTask.scores

    def scores(self: QuestTask, name: str, outputs: Any) -> Any:
        made = real(self, name, outputs)
        return type(made)(made.metrics, next(errors, 0.4), made.average)

    monkeypatch.setattr(QuestTask, "scores", scores)
    assert t.progress() == {"best_step": 0, "best_score": 1e308}
    assert t.fit()["best"]["step"] == 4


@pytest.mark.parametrize("stop_at", [2, 5])
def test_stopped_and_continued_gives_equal_bits(asked: Path, tmp_path: Path, stop_at: int) -> None:
    words = [*SHORT, "task.evaluate_every=3"]
    assert_equal_when_stopped(asked, NAME, tmp_path, words, stop_at)


def test_the_head_reads_both_passes(asked: Path, tmp_path: Path) -> None:
    """The logits are those of the states of both passes, computed one by one."""
    t = tuner(asked, NAME, tmp_path, *SHORT)
    batch = t.task.train.batch(np.arange(3))
    model = t.model.eval()
    with torch.inference_mode():
        logits = model(batch)
        states = []
        for rows in (slice(0, None, 2), slice(1, None, 2)):
            ids, types, mask = batch.input_ids[rows], batch.type_ids[rows], batch.mask[rows]
            states.append(model.encoder(ids, types, mask)[:, 0])  # type: ignore[operator]
        by_hand = torch.cat(states, 1) @ model.classifier.weight.T + model.classifier.bias  # type: ignore[operator,union-attr]
    assert model.classifier.weight.shape == (20, 64)  # type: ignore[union-attr]
    assert torch.allclose(logits, by_hand, atol=1e-5)
    single = tuner(asked, NAME, tmp_path / "single", *SHORT, f"tasks.{NAME}.title_pass=false")
    assert single.model.classifier.weight.shape == (20, 32)  # type: ignore[union-attr]


def test_padding_does_not_reach_the_mean(asked: Path, tmp_path: Path) -> None:
    """An example has the same logits alone and beside longer ones."""
    t = tuner(asked, NAME, tmp_path, *SHORT, f"tasks.{NAME}.pool=mean")
    order = np.argsort(t.task.train.lengths)
    short, long = order[:1], order[-3:]
    model = t.model.eval()
    with torch.inference_mode():
        alone = model(t.task.train.batch(short))
        together = model(t.task.train.batch(np.concatenate([short, long])))[:1]
    assert torch.allclose(alone, together, atol=1e-5)


def test_a_recorded_fine_tuning(asked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Results, files, tables and the second count of the audit, for two seeds and a file of the user with test.csv."""
    data = asked / "data"
    data.mkdir()
    rows = list(csv.reader(io.StringIO(quest_table(30))))
    for name, part in (("train.csv", rows[:-6]), ("test.csv", [row[:11] for row in [rows[0], *rows[-6:]]])):
        with (data / name).open("w", encoding="utf-8", newline="") as lines:
            csv.writer(lines, lineterminator="\n").writerows(part)
    config = with_tasks(
        asked, "task=quest", f"task.data_dir={data}", "task.seeds=[0,1]", "tasks.quest.steps=6",
        "tasks.quest.discretise=ranks",
    )  # fmt: skip
    run = run_of(asked)
    assert start(config) == 0
    shown = capsys.readouterr().out
    entry = entries(run)["quest"]
    assert entry["metric"] == "mean_squared_error"
    assert 0 < entry["score"] < 1
    assert f"{entry['scores'][entry['seeds'].index(entry['sets_of_seed'])]:.4f}" in shown
    assert all(best <= last for best, last in zip(entry["scores"], entry["last_scores"], strict=True))
    scores = entry["sets"]["dev"]
    assert len(scores["by_target"]) == 20
    assert "quest, by target" in shown
    assert "question type reason explanation" in shown
    assert scores["targets_scored_by_spearman"] <= 19
    assert scores["by_target"]["question_not_really_a_question"]["spearman"] is None
    assert set(entry["to_beat_each"]["dev"]["mean_squared_error"]) == {"majority", "bag_of_words"}
    unit = run.path / "tasks" / entry["units"][0]
    assert read_json(unit / "manifest.json")["data"]["questions"]["train"] > 0
    submission = list(csv.reader((unit / "predictions" / "test" / "test.csv").open(encoding="utf-8")))
    assert submission[0] == ["qa_id", *(name for name in rows[0][11:32] if name != "question_body_critical")]
    assert [row[0] for row in submission[1:]] == [row[0] for row in rows[-6:]]
    assert (unit / "predictions" / "dev_by_target.csv").is_file()

    runs = load_runs(asked / "runs")
    assert metric("task:quest").higher_is_better is False
    assert values(runs, "task:quest").iloc[0] == entry["score"]
    assert values(runs, "QUEST R2").iloc[0] == scores["r2"]["value"]
    assert values(runs, "QUEST ties").iloc[0] == scores["discretising_gain"]["value"]
    assert f"{entry['score']:.4f}" in compare_tasks(runs)["best"].tolist()
    checks = [c for c in check(Run(run.path), data) if "quest" in c.where]
    again = {c.where.rpartition("·")[2].strip(): c.state for c in checks}
    assert [(c.where, c.reported, c.derived) for c in checks if c.state == DISAGREES] == []
    for name in ("mean_squared_error.value", "mean_squared_error.interval", "r2.value", "spearman.value"):
        assert again[f"dev.{name}"] == AGREES, name


def test_a_score_that_is_not_better_than_the_mean_is_not_compared(asked: Path) -> None:
    runs = load_runs(asked / "runs").copy()
    (entry,) = (e for e in runs["tasks"].iloc[0] if e["task"] == "quest")
    for high, marked in ((0.05, False), (0.2, True)):
        scores = {"mean_squared_error": {"value": 0.04, "interval": [0.03, high]}}
        changed = entry | {"sets": {"dev": scores}, "to_beat": {"dev": {"majority": 0.1}}}
        runs["tasks"] = [[changed]] * len(runs)
        runs["mlm_left_baseline"] = True
        reason = unfit(runs, "task:quest")
        assert (reason is not None) is marked
        assert not marked or "mean of the training set" in str(reason)


def test_the_shared_head_settings_have_no_effect(asked: Path) -> None:
    def name(*words: str) -> str:
        config = with_tasks(asked, f"task={NAME}", *words)
        return plan_units(config, run_of(asked), "fp32")[0].folder.name

    assert name() == name("task.pool=last") == name("task.head=relu")
    assert name() != name(f"tasks.{NAME}.pool=first")
    assert name() != name(f"tasks.{NAME}.fold=1")
    assert name() != name(f"tasks.{NAME}.questions=50")


def test_the_rate_stays_constant_with_decay_from_never(asked: Path, tmp_path: Path) -> None:
    t = tuner(asked, NAME, tmp_path, *SHORT, "task.optimizer.decay_from=never", "runtime.log_every=1")
    t.fit()
    lines = (tmp_path / f"{NAME}-s0-abcdef" / "metrics.jsonl").read_text().splitlines()
    rates = {line.partition('"learning_rate": ')[2].partition(",")[0] for line in lines}
    assert len(rates) == 1
    assert math.isclose(float(rates.pop()), t.recipe.learning_rate)
    assert checkpoints(t.folder.checkpoints)
