"""A tracker mirrors the record; it never changes or stops a run."""

import json
import sys
import types
from pathlib import Path

import pytest
from runhelpers import tiny_overrides

from albert_ablate.errors import ConfigError
from albert_ablate.experiment import run_cell
from albert_ablate.hydra_app import compose, paper_setup


class _Settings:
    def __init__(self, **_: object) -> None:
        pass


class _Run:
    def __init__(self, broken: bool) -> None:
        self.broken = broken
        self.lines: list[tuple[int, dict]] = []
        self.summary: dict = {}
        self.finished = False

    def log(self, values: dict, step: int) -> None:
        if self.broken:
            raise RuntimeError("no route")
        self.lines.append((step, values))

    def finish(self) -> None:
        if self.broken:
            raise RuntimeError("no route")
        self.finished = True


def fake_wandb(monkeypatch: pytest.MonkeyPatch, *, broken: bool) -> dict:
    """A stand-in module; returns what ``init`` was called with and the run it gave."""
    seen: dict = {}

    def init(**options: object) -> _Run:
        seen.update(options, run=_Run(broken))
        return seen["run"]

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init, Settings=_Settings))
    return seen


def run(folder: Path, *more: str) -> dict:
    config = compose(tiny_overrides(folder, *more))
    assert run_cell(config, paper_setup(config)) == 0
    (found,) = (folder / "runs").glob("*/results.json")
    return json.loads(found.read_text())


def test_wandb_gets_every_logged_step_and_the_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = fake_wandb(monkeypatch, broken=False)
    results = run(tmp_path, "tracker=wandb")
    assert seen["mode"] == "offline"
    assert [step for step, _ in seen["run"].lines] == sorted({step for step, _ in seen["run"].lines})
    assert seen["run"].lines[-1][0] == 12
    assert seen["run"].summary["sop"] == results["sop"]
    assert seen["run"].finished


def test_a_broken_tracker_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = run(tmp_path / "plain")
    fake_wandb(monkeypatch, broken=True)
    with pytest.warns(UserWarning, match="wandb did not"):
        tracked = run(tmp_path / "tracked", "tracker=wandb")
    for record in (plain, tracked):
        del record["training"]
    assert plain == tracked


def test_a_missing_tracker_is_refused_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"tracker=wandb.*pip install wandb"):
        run(tmp_path, "tracker=wandb")


def test_the_real_wandb_needs_no_account(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    run(tmp_path, "tracker=wandb")
    assert list((tmp_path / "runs").glob("*/wandb/offline-run-*"))
