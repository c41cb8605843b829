"""What every test process needs, and the tiny cells that tests share."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from runhelpers import run, tiny_config

from albert_ablate.config.schema import RunConfig
from albert_ablate.data.prepare import prepare
from albert_ablate.record.folder import RunFolder


def pytest_configure() -> None:
    """Take Ctrl-C: what a shell starts in the background ignores it, and so would everything that tests start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # nohup
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest: a file is run by one process, so that its fixtures are made once."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path.name != "test_readme.py", item.path not in slow))


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus and its cache, for all tests of the process; each test has a ``runs`` of its own."""
    folder = tmp_path_factory.mktemp("shared")
    prepare(tiny_config(folder))
    return folder


@pytest.fixture
def cell(shared: Path, tmp_path: Path) -> Callable[..., RunConfig]:
    """``cell("seed=1", runs="b")``: a tiny configuration with run folders of this test's own."""
    return lambda *more, runs="runs": tiny_config(shared, *more, f"paths.runs={tmp_path / runs}")


@pytest.fixture(scope="session")
def finished(shared: Path) -> RunFolder:
    """A finished run of the default tiny cell, to read and compare, never to change."""
    return run(tiny_config(shared, runs="reference"))


@pytest.fixture(scope="session")
def by_objective(shared: Path, finished: RunFolder) -> dict[str, RunFolder]:
    """One finished run for each objective."""
    made = {o: run(tiny_config(shared, f"objective={o}", runs=f"reference-{o}")) for o in ("nsp", "none")}
    return made | {"sop": finished}
