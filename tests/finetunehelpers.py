"""Fine-tunings of one tiny run, by hand."""

import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from taskhelpers import (
    pretrained,
    tokenizer_of,
    with_tasks,
)

from albert_ablate.config.schema import RunConfig
from albert_ablate.errors import PreemptedError
from albert_ablate.record.folder import RunFolder
from albert_ablate.tasks.finetuning import FineTuner, build_task_model
from albert_ablate.tasks.knowledge.reading import locate_facts
from albert_ablate.tasks.load import locate, read
from albert_ablate.tasks.recipe import resolve
from albert_ablate.tasks.squad.task import SquadTask
from albert_ablate.tasks.task import Task
from albert_ablate.training.checkpoint import checkpoints
from albert_ablate.training.machine import Machine


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
    model = build_task_model(task, shape, recipe, config.task, seed, found, 0.05)
    run = RunFolder(place, f"{name}-s{seed}-abcdef")
    run.path.mkdir(parents=True, exist_ok=True)
    runtime = replace(config.runtime, log_every=2)
    return FineTuner(task, model, recipe, config.task, seed, run, Machine(torch.device("cpu"), "fp32"), runtime)


def make(config: RunConfig, name: str, folder: Path) -> Task:
    facts = locate_facts(config.knowledge, config.tasks[name], Path(config.paths.cache))
    return read(locate(config.task, config.tasks[name], facts))(tokenizer_of(folder), 32)


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


def assert_equal_when_stopped(place: Path, name: str, folder: Path, words: Sequence[str], stop_at: int) -> None:
    """A fine-tuning that is stopped before the step ``stop_at`` and continued gives equal results and equal weights."""
    whole = tuner(place, name, folder / "whole", *words)
    expected = whole.fit()
    halted = tuner(place, name, folder / "parts", *words)
    update = halted.update

    def interrupted(*given: Any) -> Any:
        if given[0] == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return update(*given)

    halted.update = interrupted  # type: ignore[assignment, method-assign]
    with pytest.raises(PreemptedError):
        halted.fit()
    again = tuner(place, name, folder / "parts", *words)
    found = again.fit()
    assert {k: v for k, v in found.items() if k != "training"} == {k: v for k, v in expected.items() if k != "training"}
    for t in (whole, again):
        t.keep_weights()
    for file in ("best.safetensors", "last.safetensors"):
        assert (whole.folder.path / file).read_bytes() == (again.folder.path / file).read_bytes()
