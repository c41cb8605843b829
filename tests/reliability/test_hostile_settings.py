"""Settings of the wrong kind, out of place, or meant to lead out of the folders: each refused before anything runs."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from runhelpers import command_line, run, run_folders, tiny_config, tiny_overrides

from albert_ablate.config.parse import parse
from albert_ablate.door.compose import compose, compose_for_run
from albert_ablate.errors import ConfigError, RunFolderError

NAME = ["becomes part of a folder's name", "no /"]
LONG = "x" * 101
#: A number no computer word holds.
VAST = "9" * 40

#: (field, value as Python has it, words of the message besides field and value)
WRONG: list[tuple[str, Any, list[str]]] = [
    # names that would lead out of a folder
    ("model.name", "../../out", NAME),
    ("model.name", "/etc", NAME),
    ("model.name", "..", NAME),
    ("model.name", ".", NAME),
    ("model.name", "", NAME),
    ("model.name", "a\\b", NAME),
    ("model.name", "a\0b", NAME),
    ("model.name", "a\nb", NAME),
    ("model.name", "\x1b[31m", NAME),
    ("model.name", LONG, NAME),
    ("model.name", "😀" * 26, NAME),  # 104 bytes
    ("data.name", "../../out", NAME),
    ("tokenizer.name", "../../out", ["'unigram', 'bpe' or 'wordpiece'"]),
    ("scale.name", "../../out", NAME),
    ("tracker.project", "../../out", NAME),
    ("tasks.sst2.name", "../../out", ["a task must have the name of its settings", "Leave it at sst2"]),
    ("tasks.sst2.name", "mnli", ["Leave it at sst2"]),
    # paths out of place
    ("paths.runs", "", ["at least 1 character"]),
    ("paths.cache", "", ["at least 1 character"]),
    ("paths.runs", __file__, ["is a file", "Give a folder"]),
    ("paths.runs", f"{__file__}/deeper", ["is a file", "Give a folder"]),
    ("paths.cache", __file__, ["is a file", "Give a folder"]),
    ("paths.runs", None, ["valid string"]),
    ("paths.runs", ["runs"], ["valid string"]),
    ("data.path", "", ["at least 1 character"]),
    ("tokenizer.model_path", "", ["at least 1 character"]),
    ("tokenizer.model_path", 5, ["valid string"]),
    ("data.language", "../en", ["a language's code", "en or pt-br"]),
    ("data.language", "", ["a language's code"]),
    # the wrong kind
    ("seed", True, ["a number is expected, not yes"]),
    ("seed", False, ["a number is expected, not no"]),
    ("model.layers", True, ["a number is expected"]),
    ("optimizer.learning_rate", True, ["a number is expected"]),
    ("warm_start.layers", [True], ["warm_start.layers.0", "a number is expected"]),
    ("task.seeds", [False], ["task.seeds.0", "a number is expected"]),
    ("budget.seconds", True, ["a number is expected"]),
    ("seed", [1], ["valid integer"]),
    ("seed", {"a": 1}, ["valid integer"]),
    ("seed", 1.5, ["integer"]),
    ("seed", "0x10", ["valid integer"]),
    ("seed", float("nan"), ["finite number"]),
    ("model", None, ["dictionary"]),
    ("model", "nano", ["dictionary"]),
    ("model", [], ["dictionary"]),
    ("tasks", [], ["dictionary"]),
    ("tasks", {"sst2": None}, ["tasks.sst2"]),
    ("tasks", {"sst2": {"kind": "unknown"}}, ["tasks.sst2", "unknown"]),
    ("tasks", {"sst2": {}}, ["tasks.sst2", "kind"]),
    ("tokenizer.lowercase", "maybe", ["valid boolean"]),
    ("tokenizer.lowercase", 2, ["valid boolean"]),
    ("warm_start.layers", "1,2", ["valid tuple"]),
    ("data.hub", {"path": "x"}, ["valid tuple"]),
    ("data.hub", [{"path": "x"}], ["missing"]),
    ("share.strategy", ["all"], ["'all'"]),
    ("objective.name", None, ["'sop'"]),
    # numbers beyond all use
    ("seed", int(VAST), ["too large (at most 9223372036854775807)"]),
    ("task.seeds", [int(VAST)], ["task.seeds.0", "too large (at most 9223372036854775807)"]),
    ("budget.steps", int(VAST), ["too large (at most 9223372036854775807)"]),
    ("optimizer.learning_rate", float("inf"), ["finite number"]),
    ("runtime.threads", 100_000, ["less than or equal to 1024"]),
    ("runtime.workers", 100_000, ["less than or equal to 1024"]),
    ("runtime.workers", -1, ["greater than or equal to 0"]),
]


@pytest.fixture(scope="module")
def good() -> str:
    """The values of a run with a task, as JSON, so that every test has its own copy."""
    return json.dumps(compose(["data=text", "data.path=corpus.txt", "task=sst2"]).as_dict())


@pytest.mark.parametrize("case", range(len(WRONG)), ids=lambda n: f"{n}: {WRONG[n][0]}={str(WRONG[n][1])[:20]!r}")
def test_a_hostile_setting_is_refused_in_words(case: int, good: str) -> None:
    field, value, words = WRONG[case]
    values = json.loads(good)
    *groups, last = field.split(".")
    place = values
    for group in groups:
        place = place[group]
    place[last] = value
    with pytest.raises(ConfigError) as caught:
        parse(values)
    assert caught.value.exit_code == 2
    message = str(caught.value)
    for word in [field, *words]:
        assert word in message
    assert "\0" not in message
    assert "\x1b" not in message


def test_the_table_is_long_enough_and_its_base_is_right(good: str) -> None:
    assert len(WRONG) >= 30
    assert parse(json.loads(good)).tasks["sst2"].name == "sst2"


@pytest.mark.parametrize("name", ["nano", "a..b", "my model", "größe", "<b>bold<b>", "x" * 100, "$HOME", "-rf", "*"])
def test_a_name_that_stays_in_its_folder_is_taken(name: str, good: str) -> None:
    values = json.loads(good)
    values["model"]["name"] = name
    assert parse(values).model.name == name


@pytest.mark.parametrize("name", ["<b>bold<b>", "*", "[a]", "$HOME", "-rf", "größe 😀"])
def test_a_run_with_an_odd_name_has_one_folder_and_is_found_again(name: str, tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, name=name))
    first = run(config)
    assert first.path.parent == tmp_path / "runs"
    assert name in first.name
    written = (first.path / "results.json").stat().st_mtime_ns
    assert run(config).path == first.path
    assert (first.path / "results.json").stat().st_mtime_ns == written, "finished: not trained again"


def test_a_recorded_configuration_with_a_path_for_a_name_is_refused(tmp_path: Path) -> None:
    """The folder of a stranger, fine-tuned or exported, must not choose where things are written."""
    values = tiny_config(tmp_path).as_dict()
    values["model"]["name"] = "../../../out"
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(RunFolderError, match=r"model\.name='\.\./\.\./\.\./out'"):
        compose_for_run(tmp_path / "config.yaml", [])


COMMANDS = [
    "model.name='../../out'", "data.name='../../out'", "tokenizer.name='../../out'", "seed=true", f"seed={VAST}",
    "paths.runs=", "runtime.threads=100000", "+model.__class__=x", "embed.size=[1,2]", "data.format=xml",
]  # fmt: skip


@pytest.mark.parametrize("word", COMMANDS)
def test_at_the_command_line_it_ends_with_2_and_nothing_is_written(word: str, tmp_path: Path) -> None:
    place = tmp_path / "a" / "b"
    place.mkdir(parents=True)
    overrides = tiny_overrides(place)
    before = sorted(tmp_path.rglob("*"))
    done = command_line(*overrides, word, cwd=place)
    output = done.stdout + done.stderr
    assert done.returncode == 2, output
    assert "Traceback" not in output
    assert word.partition("=")[0].lstrip("+") in output
    assert sorted(tmp_path.rglob("*")) == before
    assert not run_folders(place / "runs")


def test_bytes_that_are_no_text_on_the_command_line_are_refused(tmp_path: Path) -> None:
    done = command_line(*tiny_overrides(tmp_path), f"model.name='{os.fsdecode(bytes([255]))}'", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
