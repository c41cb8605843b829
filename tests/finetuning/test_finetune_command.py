"""The command that fine-tunes finished runs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from finetunehelpers import entries, gold_outputs, make, run_of
from taskhelpers import (
    task_config,
    with_tasks,
    write_squad,
    write_sst2,
)

from albert_ablate.axes import Share
from albert_ablate.commands import finetune
from albert_ablate.door.compose import compose_for_run
from albert_ablate.model.architecture import Architecture
from albert_ablate.model.pretraining import initialise
from albert_ablate.tasks.collected import collect
from albert_ablate.tasks.heads import AnswerableSpanModel
from albert_ablate.tasks.squad.task import SquadTask


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
