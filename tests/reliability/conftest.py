"""A corpus for each module, and cells on it whose runs stand in a folder of their own."""

from collections.abc import Callable
from pathlib import Path

import pytest
from runhelpers import tiny_config

from albert_ablate.config.schema import RunConfig


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the corpus and its cache."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture
def cell(shared: Path, tmp_path: Path) -> Callable[..., RunConfig]:
    """The tiny cell with other settings."""
    return lambda *more: tiny_config(shared, *more, f"paths.runs={tmp_path / 'runs'}")
