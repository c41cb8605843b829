"""The table of axes, whatever stands in it: files, fields, identities, names, the report; and how one is added."""

import json
from dataclasses import fields, is_dataclass
from pathlib import Path

import pandas as pd
import pytest
import yaml
from golden.identities import FILE, named, rows
from recipes import blocks, copied, inside, touched
from runhelpers import run, tiny_config, tiny_overrides

from albert_ablate.axes import AXES, Axis
from albert_ablate.config.identity import BEFORE
from albert_ablate.config.schema import CONF, RunConfig
from albert_ablate.door.compose import compose
from analysis.compare import compare
from analysis.judge.terms import settings_of
from analysis.read.arms import arm_names, in_order
from analysis.read.runs import COLUMNS, load_runs

RECIPE = "How to add an axis"
GOLDEN = pd.read_csv(FILE, dtype=str).to_dict("records")
NAMED = [axis for axis in AXES if axis.labels]
#: Settings with which every value of an axis is valid.
BESIDE = {"embed": ["model=base"], "method": ["objective=none", "share=none"]}


@pytest.mark.parametrize("row", GOLDEN, ids=lambda row: row["overrides"].replace(" ", ","))
def test_runs_that_exist_keep_their_names(row: dict[str, str]) -> None:
    assert named({key: row[key] for key in ("overrides", "tokens", "precision")}) == row


def test_every_published_run_and_every_preset_has_its_golden_identity() -> None:
    recorded = [{key: row[key] for key in ("overrides", "tokens", "precision")} for row in GOLDEN]
    assert [row for row in rows() if row not in recorded] == []
    assert sum("budget.steps=3500" in row["overrides"] for row in GOLDEN) == 42


@pytest.mark.parametrize("axis", AXES, ids=lambda axis: axis.group)
def test_field_folder_and_table_agree(axis: Axis) -> None:
    (group,) = [field.type for field in fields(RunConfig) if field.name == axis.group]
    assert is_dataclass(group)
    assert axis.setting in {field.name for field in fields(group)}
    options = sorted((CONF / axis.group).glob("*.yaml"))
    if axis.labels:
        assert {file.stem for file in options} == set(axis.labels)
    for file in options:
        found = yaml.safe_load(file.read_text())[axis.setting]
        assert found == file.stem or not axis.labels
        config = compose([*BESIDE.get(axis.group, []), f"{axis.group}={file.stem}"])
        assert axis.of(config.as_dict()) == axis.value(config)
    assert f"- {axis.group}: " in (CONF / "config.yaml").read_text()
    assert axis.name in COLUMNS


@pytest.mark.parametrize("axis", NAMED, ids=lambda axis: axis.group)
def test_values_are_told_apart_everywhere(axis: Axis) -> None:
    rows = []
    for value in reversed(list(axis.labels)):
        config = compose([*BESIDE.get(axis.group, []), f"{axis.group}={value}"])
        shape = {"hidden": 192, "layers": 3, "seed": 0}
        rows.append({other.name: other.value(config) for other in AXES} | shape)
        assert settings_of({axis.group: value}) == {axis.path: value}
    runs = pd.DataFrame(rows)
    assert len(set(arm_names(runs))) == len(axis.labels)
    assert list(in_order(runs)[axis.name]) == [str(value) for value in axis.labels]


def test_a_table_of_runs_has_no_column_for_an_axis_that_nothing_is_said_of(tmp_path: Path) -> None:
    """One that came later, where every run has its value of before: the table fits a terminal as it did."""
    run(tiny_config(tmp_path))
    shown = {axis.name for axis in AXES if axis.before is None}
    assert {axis.name for axis in AXES} & set(compare(load_runs(tmp_path / "runs"))) == shown


def test_what_came_later_has_a_value_of_before() -> None:
    for axis in AXES:
        if axis.before is not None:
            assert axis.before in axis.labels
            assert BEFORE[axis.path] == axis.before
            assert axis.of({}) == axis.before
            assert not axis.shown(axis.before)


# CONTRIBUTING's recipe, step by step, in a copy.


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree with the recipe applied."""
    return copied(tmp_path_factory.mktemp("copy"), blocks(RECIPE))


def test_the_recipe_touches_few_files() -> None:
    assert len(touched(blocks(RECIPE))) <= 6


def test_a_new_axis_keeps_every_run_that_exists(copy: Path) -> None:
    found = inside(copy, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "tests/test_axes.py", "-k",
                   "keep_their_names or agree or apart or before")  # fmt: skip
    expected = len(GOLDEN) + len(AXES) + len(NAMED) + 3  # of those two the new axis adds one each; and one of "before"
    assert found.count(".") == expected, found


def test_a_new_axis_is_trained_and_reported(copy: Path, tmp_path: Path) -> None:
    for value in ("one", "root"):
        for seed in (0, 1):
            inside(copy, "run.py", *tiny_overrides(tmp_path, f"word_scale={value}", f"seed={seed}"))
    names = sorted(folder.name.rpartition("-")[0] for folder in (tmp_path / "runs").glob("[!.]*"))
    assert names == [f"e16-all-sop-{arm}nano-s{seed}" for arm in ("", "rootx-") for seed in (0, 1)]
    losses = {
        folder.name.split("-s0-")[0]: json.loads((folder / "results.json").read_text())["masked_lm"]["loss"]
        for folder in (tmp_path / "runs").glob("*-s0-*")
    }
    assert len(set(losses.values())) == 2
    arms = {"times √E": {"word_scale": "root"}, "as they are": {"word_scale": "one"}}
    claim = {
        "id": "scale", "claim": "Scaling helps.", "arms": arms, "effect": {"times √E": 1, "as they are": -1},
        "above": 0, "scores": ["MLM"],
    }  # fmt: skip
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump([claim]))
    inside(copy, "-m", "analysis.report", str(tmp_path / "runs"), "--out", str(tmp_path / "report"), "--claims",
           str(tmp_path / "mine.yaml"), "--compact")  # fmt: skip
    report = (tmp_path / "report" / "report.md").read_text()
    card = pd.read_csv(tmp_path / "report" / "scorecard.csv").set_index("id")
    assert "no run of this cell" not in str(card.loc["scale", "reason"])
    costs = report[report.index("## What each arm cost") : report.index("## What is missing")]
    assert "| E=16, all shared, SOP | 2 |" in costs
    assert "| E=16, all shared, SOP, words × √E | 2 |" in costs
    runs = pd.read_csv(tmp_path / "report" / "runs.csv")
    assert sorted(runs["word_scale"]) == ["one", "one", "root", "root"]
