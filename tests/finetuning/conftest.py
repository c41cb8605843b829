"""A finished run and the files of its tasks, for all tests here."""

from pathlib import Path

import pytest
from taskhelpers import (
    pretrained,
    write_race,
    write_squad,
    write_sst2,
)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run and files of four tasks."""
    place = tmp_path_factory.mktemp("finetuning")
    pretrained(place)
    data = write_race(write_squad(write_squad(write_sst2(place / "data")), "2.0"))
    assert data.is_dir()
    return place
