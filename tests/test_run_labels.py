"""Labels of runs that are shown together: two runs of a sweep never share one."""

import pytest

from albert_ablate.config.labels import arm_labels, key_name, run_labels, varying
from albert_ablate.door.cells import expand, read_command_line
from albert_ablate.sweeping.cells import labels


def plain(*overrides: str) -> list[dict[str, object]]:
    return [cell.config.as_dict() for cell in expand(read_command_line(list(overrides)))]


def test_a_label_has_every_setting_that_varies_and_no_other() -> None:
    runs = plain("scale=demo", "share=all,none", "model.layers=3,6", "seed=0,1")
    assert varying(runs) == ("share.strategy", "model.layers")
    assert set(arm_labels(runs)) == {f"{share}, layers={n}" for share in ("all shared", "not shared") for n in (3, 6)}
    assert len(set(run_labels(runs))) == 8
    assert "all shared, layers=3, seed 1" in run_labels(runs)


CASES = {
    "embed=e16,e32": ["E=16", "E=32"],
    "optimizer=lamb,adamw": ["optimizer=lamb", "optimizer=adamw"],
    "optimizer.learning_rate=0.001,0.002": ["learning_rate=0.001", "learning_rate=0.002"],
    "model=nano,mini": ["model=nano", "model=mini"],
    "scale=demo,cpu": ["scale=demo", "scale=cpu"],
    "seed=0,1": ["seed 0", "seed 1"],
    "batch.size=64,128": ["size=64", "size=128"],
    "model.hidden_dropout=0,0.1": ["hidden_dropout=0.0", "hidden_dropout=0.1"],
    "task=era tasks.era.learning_rate=0.001,0.002": ["learning_rate=0.001", "learning_rate=0.002"],
}


@pytest.mark.parametrize(("swept", "expected"), CASES.items())
def test_what_follows_from_a_choice_is_not_shown_beside_it(swept: str, expected: list[str]) -> None:
    assert run_labels(plain(*([] if swept.startswith("scale") else ["scale=demo"]), *swept.split())) == expected


def test_two_settings_of_one_name_are_told_apart() -> None:
    assert key_name("batch.size") == "size"
    assert key_name("batch.size", ("batch.size", "store.size")) == "batch.size"
    assert key_name("share.strategy", ("batch.size",)) == "share"


def test_a_run_older_than_an_axis_has_its_implicit_value() -> None:
    new, old = plain("scale=demo")[0], plain("scale=demo")[0]
    del old["method"]
    assert varying([new, old]) == ()


def test_the_board_names_a_single_cell_as_its_folder() -> None:
    assert labels(expand(read_command_line(["scale=demo"]))) == ["e128-all-sop-nano-s0"]
