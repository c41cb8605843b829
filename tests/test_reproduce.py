"""The command of a run in the provenance dialog gives the settings that were recorded."""

import shlex
from pathlib import Path

import pytest

from albert_ablate.config.identity import comparable
from albert_ablate.door.compose import compose
from analysis.write.reproduce import command, commands


@pytest.mark.parametrize(
    "overrides",
    [
        ("scale=cpu", "embed=full", "share=ffn", "objective=none", "seed=7"),
        ("scale=demo", "model=mini", "optimizer=adamw", "model.hidden_dropout=0.1", "budget.steps=12"),
        ("scale=controls", "data.planted.order=0", "share=attention"),
        ("scale=demo", "budget=seconds", "warm_start.layers=[1]", "model.layers=2"),
        ("scale=demo", "tokenizer=wordpiece", "data.fraction=0.5"),
    ],
)  # fmt: skip
def test_the_command_composes_to_the_recorded_settings(overrides: tuple[str, ...]) -> None:
    recorded = compose(overrides).as_dict()
    text = command(recorded)
    assert text is not None
    python, script, *words = shlex.split(text)
    assert (python, script) == ("python", "run.py")
    again = compose(words).as_dict()
    assert comparable(again) == comparable(recorded)
    assert {group: again[group] for group in ("data", "tokenizer", "seed")} == {
        group: recorded[group] for group in ("data", "tokenizer", "seed")
    }


def test_files_lose_their_folder(tmp_path: Path) -> None:
    corpus = tmp_path / "my corpus.txt"
    corpus.write_text("One.\n")
    text = command(compose(["scale=demo", "data=text", f"data.path={corpus}"]).as_dict())
    assert text is not None
    assert "data.path=my corpus.txt" in shlex.split(text)
    assert str(tmp_path) not in text


def test_settings_that_no_longer_exist_have_no_command() -> None:
    recorded = compose(["scale=demo"]).as_dict()
    changed = recorded | {"model": recorded["model"] | {"gone": 1}}
    assert command(changed) is None
    assert command({}) is None or command({}) == "python run.py"
    assert commands([{"run": "a", "config": recorded}, {"run": "b", "config": changed}]).keys() == {"a"}
