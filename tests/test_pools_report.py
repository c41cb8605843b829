"""A sweep of poolings: each is an arm of its table, in the report and in the audit."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import yaml
from runhelpers import command_line, tiny_overrides
from taskhelpers import write_sst2

from albert_ablate.config.labels import TUNED, arm_labels
from albert_ablate.door.compose import compose
from albert_ablate.tasks.unit_settings import common_settings
from analysis.judge.effects import build_sweep
from analysis.read import tunings
from analysis.read.runs import load_runs
from analysis.read.sweeps import groups
from analysis.read.task_setups import one_setup_each
from analysis.recount import tunings as again
from analysis.write import own


def entry(pool: str, score: float, head: str = "bare") -> dict[str, Any]:
    """What a run records of a fine-tuning."""
    config = compose(["task=word_order", f"task.pool={pool}", f"task.head={head}"])
    common = common_settings(config.task, config.tasks["word_order"], None)
    return {
        "task": "word_order", "start": "pretrained", "score": score, "metric": "accuracy", "seeds": [0], "recipe": {},
        "set_up": {"all_tasks": common, "task": {}, "data": "feed", "precision": "fp32"},
    }  # fmt: skip


def frame(*tasks: list[dict[str, Any]]) -> pd.DataFrame:
    configs = [compose(["task=word_order", f"seed={seed}"]).as_dict() for seed in range(len(tasks))]
    return pd.DataFrame({"config": configs, "tasks": list(tasks)})


def test_each_pooling_of_a_run_is_an_arm() -> None:
    pools = ("first", "mean", "last")
    runs = tunings.in_kinds(frame([entry(pool, 0.1 * n) for n, pool in enumerate(pools)], [entry("mean", 0.5)]))
    assert [config[TUNED]["pool"] for config in runs["config"]] == ["first", "mean", "last", "mean"]
    assert "head" not in runs["config"].iloc[0][TUNED]
    labels = arm_labels([dict(config) for config in runs["config"]])
    assert labels == ["pool=first", "pool=mean", "pool=last", "pool=mean"]
    kept, notes = one_setup_each({"all": runs}, tunings.open_between(runs))
    assert notes == ()
    assert [[e["score"] for e in tasks] for tasks in kept["all"]["tasks"]] == [[0.0], [0.1], [0.2], [0.5]]
    run = SimpleNamespace(tasks=[entry(pool, 0.1 * n) for n, pool in enumerate(pools)])
    for kind, score in zip(runs["config"], (0.0, 0.1, 0.2), strict=False):
        (found,) = again.of_kind([run], json.dumps(kind[TUNED], sort_keys=True))  # type: ignore[list-item]
        assert [e["score"] for e in found.tasks] == [score]
    assert "set_up.all_tasks.pool" in again.between([json.dumps(runs["config"].iloc[0][TUNED])])


def test_runs_of_one_pooling_each_have_no_kinds() -> None:
    """Then a pooling is a set-up, and fine-tunings of another one are left out as before."""
    runs = frame([entry("mean", 0.5)], [entry("mean", 0.5)], [entry("first", 0.5)])
    assert tunings.in_kinds(runs) is runs
    assert tunings.open_between(runs) == ()
    kept, notes = one_setup_each({"all": runs})
    assert [len(tasks) for tasks in kept["all"]["tasks"]] == [1, 1, 0]
    assert "1 of another set-up is left out" in notes[0]


def test_a_sentence_is_about_the_score_that_most_arms_have() -> None:
    """Masked arms alone have a masked-LM score, causal runs alone bits per byte."""

    def effects(**counts: int) -> list[Any]:
        made = [SimpleNamespace(metric=key.replace("_", " "), mark=None) for key in counts for _ in range(counts[key])]
        return [SimpleNamespace(comparison=comparison) for comparison in made]

    assert own._score_of([*effects(MLM=2, bits_per_byte=3), *effects(**{"SST-2": 6})]) == "SST-2"
    assert own._score_of(effects(context_gain=4, bits_per_byte=4, NSP=4)) == "bits per byte"
    assert own._score_of(effects(MLM=4, MLM_loss=4, bits_per_byte=2)) == "MLM"


@pytest.mark.slow
def test_a_sweep_of_fine_tunings_is_compared_in_their_scores_with_its_reference(tmp_path: Path) -> None:
    """One pretraining of each seed: its own scores are the same in all arms, and the reference is not the first."""
    sweep = {
        "title": "Where is the sentence?", "settings": {"seed": [0, 1], "task.head": "bare"},
        "cells": [{"task.pool": ["first", "mean", "last"]}], "reference": {"task.pool": "last"},
    }  # fmt: skip
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(sweep))
    write_sst2(tmp_path / "data", train=64, dev=16)
    given = tiny_overrides(
        tmp_path, "budget.steps=4", "task=sst2", "tasks.sst2.steps=3", f"task.data_dir={tmp_path / 'data'}"
    )
    done = command_line("-m", f"sweep={tmp_path / 'mine.yaml'}", *given, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    runs = load_runs(tmp_path / "runs")
    assert len(runs) == 2
    (built,) = [build_sweep(group, number) for number, group in enumerate(groups(runs), 1)]
    assert built.reference == "pool=last"
    assert [row.labels for row in built.table.rows] == [("last",), ("first",), ("mean",)]
    assert {effect.comparison.metric for effect in built.effects} == {"SST-2"}
    assert {effect.against for effect in built.effects} == {"pool=last"}
    assert own._score_of(built.effects) == "SST-2"
