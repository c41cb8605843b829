"""All fine-tunings of a run: what is planned, skipped, collected."""

import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from finetunehelpers import entries, run_of
from runhelpers import only_folder, start
from taskhelpers import (
    TINY,
    pretrained,
    task_config,
    with_tasks,
    write_squad,
    write_sst2,
    write_tsv,
)

from albert_ablate.commands import finetune
from albert_ablate.config.tasks import PAPER_FIVE
from albert_ablate.errors import DataError, UserError
from albert_ablate.files import read_json, write_json
from albert_ablate.tasks.collected import paper_average
from albert_ablate.tasks.finetuning import FineTuner
from albert_ablate.tasks.planning import plan_units
from albert_ablate.tasks.unit_settings import common_settings
from analysis.compare import compare_tasks
from analysis.read.runs import load_runs


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
        ("task.pool=first", True), ("task.pool=mean", False), ("task.head=bare", False),
    ],
)  # fmt: skip
def test_identity_of_a_unit(folder: Path, word: str, same: bool) -> None:
    assert (unit_names(folder) == unit_names(folder, word)) is same


def test_older_fine_tunings_keep_their_names(folder: Path) -> None:
    """A setting at the value that they had implicitly is not part of an identity."""
    settings = common_settings(with_tasks(folder).task, task_config("sst2"))
    assert not {"pool", "head"} & settings.keys()
    assert not [name for name in settings["optimizer"] if name.startswith("layer")]
    assert settings["optimizer"]["decay_from"] == "start"


@pytest.mark.parametrize(("task", "same"), [("squad11", True), ("squad20", True), ("race", False), ("sst2", False)])
def test_pooling_is_no_setting_of_heads_on_all_tokens(folder: Path, task: str, same: bool) -> None:
    def name(*words: str) -> str:
        config = with_tasks(folder, f"task={task}", f"task.data_dir={folder / 'data'}", *words)
        (unit,) = plan_units(config, run_of(folder), "fp32")
        return unit.folder.name

    assert (name() == name("task.pool=last", "task.head=bare")) is same


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


def test_a_process_that_ended_right_after_its_last_fine_tuning_loses_no_score(tmp_path: Path) -> None:
    """Killed between a unit's end and the run's record: the next start completes the record."""
    words = [*TINY, "task=sst2", f"task.data_dir={write_sst2(tmp_path / 'data')}", "tasks.sst2.steps=4"]
    config = with_tasks(tmp_path, *words)
    assert start(config) == 0
    run = only_folder(config)
    (unit,) = plan_units(config, run, "fp32")
    whole = read_json(run.path / "results.json")
    command = [str(run.path), *words, f"paths.cache={tmp_path / 'cache'}", "runtime.precision=fp32"]
    for again in (lambda: start(config), lambda: finetune.main(command)):
        (unit.folder.checkpoints / "step_00000004").mkdir(parents=True)
        write_json(run.path / "results.json", {key: value for key, value in whole.items() if key != "tasks"})
        assert again() == 0
        assert read_json(run.path / "results.json") == whole
        assert not unit.folder.checkpoints.exists()
