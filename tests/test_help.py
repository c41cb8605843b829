"""The help on groups and settings, and the page that is written from the same comments."""

import sys
from dataclasses import fields

import pytest
from runhelpers import ROOT

from albert_ablate.config.reference import groups, sections, settings
from albert_ablate.config.schema import CONF, RunConfig
from albert_ablate.door import help as door_help
from albert_ablate.door.app import main
from albert_ablate.door.compose import compose


def helped(monkeypatch: pytest.MonkeyPatch, *topics: str) -> int:
    """The exit code of ``run.py --help TOPICS``."""
    monkeypatch.setattr(sys, "argv", ["run.py", "--help", *topics])
    return main()


def names_in(values: object, above: str = "") -> list[str]:
    """Dotted names of nested settings; those of tasks under ``tasks.*``."""
    if not isinstance(values, dict) or not values:
        return [above]
    inner = [names_in(value, f"{above}.{key}".lstrip(".")) for key, value in values.items()]
    if above == "tasks":
        inner = [names_in(value, "tasks.*") for value in values.values()]
    return [name for names in inner for name in names]


def test_the_page_is_what_conf_says() -> None:
    assert (ROOT / "docs" / "settings.md").read_text(encoding="utf-8") == door_help.page(), "make settings"


def test_every_group_option_and_setting_is_explained() -> None:
    assert [setting.name for setting in settings() if not setting.comment] == []
    assert [setting.name for setting in settings() if not setting.values] == []
    folders = {folder.name for folder in CONF.iterdir() if folder.is_dir()}
    assert {group.name for group in groups()} == folders - {"hydra"}
    for group in groups():
        assert group.comment
        assert set(group.options) == {file.stem for file in (CONF / group.name).glob("*.yaml")}
        assert all(group.options.values())


def test_no_setting_is_left_out() -> None:
    every_task = "task=[glue,squad11,squad20,race,era,text_classification,text_regression,quest,ner]"
    composed = compose(["data=planted", every_task, "tasks.text_regression.labels=null"]).as_dict()
    assert {*names_in(composed)} <= {setting.name for setting in settings()}
    assert list(sections()) == [field.name for field in fields(RunConfig)]


def test_a_setting_has_its_own_values_and_comment() -> None:
    known = {setting.name: setting for setting in settings()}
    assert known["runtime.threads"].values == "integer ≥ 1 and ≤ 1,024 or null"
    assert known["data.planted.documents"].values == "integer ≥ 20 and ≤ 10,000,000"
    assert known["tasks.*.dropout"].values == "number ≥ 0 and < 1 or null"
    assert known["tasks.*.version"].values == "1.1, 2.0"
    assert known["share.strategy"].values == "all, attention, ffn, none"
    assert known["task.seeds"].values == "list of integer ≥ 0"
    kinds = ["glue", "text_classification", "text_regression", "generated", "facts", "squad", "race", "quest", "ner"]
    assert known["tasks.*.kind"].values.split(", ") == kinds
    assert known["data.planted.topic"].comment == "probability that a word belongs to its document's topic"
    assert known["data.hub.*.split"].comment == "of the training documents"
    assert known["batch.size"].comment == "sequences in an optimizer step"


def test_help_has_a_line_for_every_group(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert helped(monkeypatch) == 0
    said = capsys.readouterr().out
    for group in groups():
        assert f"  {group.name:<12}{group.comment}\n" in said
    assert "task/kind" not in said
    assert "python run.py --help GROUP" in said


TOPICS = [
    ("embed", ["embed: axis 1", "embed=e16 ", "size: 16", "embed.size=128  (integer ≥ 1)\n      E, the width"]),
    ("batch.size", ["batch.size=64  (integer ≥ 1)\n      sequences in an optimizer step\n"]),
    ("batch", ["batch.size=64", "batch.micro_size=64"]),
    ("learning_rate", ["optimizer.learning_rate=0.004", "task.scaling.learning_rate=5.0"]),
    ("tasks.squad11.beam", ["tasks.*.beam  (integer ≥ 1)"]),
    ("task=sst2", ["task=sst2", "GLUE, SST-2", "task.seeds=[0]"]),
    ("settings", ["seed=0", "paths.cache=cache", "data.hub.*.split"]),
]


@pytest.mark.parametrize(("topic", "said"), TOPICS, ids=[topic for topic, _ in TOPICS])
def test_help_on_a_topic(
    topic: str, said: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert helped(monkeypatch, topic) == 0
    printed = capsys.readouterr().out
    for part in said:
        assert part in printed


@pytest.mark.parametrize(
    ("topic", "said"),
    [
        ("embd", "Did you mean embed?"),
        ("batch.sze", "Did you mean batch.size?"),
        ("xyz", "There is help on settings,"),
    ],
)
def test_help_on_an_unknown_name(
    topic: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert helped(monkeypatch, topic) == 2
    error = capsys.readouterr().err
    assert f"--help {topic}: there is no such group or setting. " in error
    assert said in error


def test_the_version_is_ours(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["run.py", "--version"])
    with pytest.raises(SystemExit) as left:
        main()
    assert (left.value.code, capsys.readouterr().out) == (0, "albert-ablate 0.1.0\n")
