"""Trackers mirror the record; they never change or stop a run."""

import json
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from runhelpers import tiny_overrides

from albert_ablate.door.compose import compose, paper_setup
from albert_ablate.errors import DivergedError
from albert_ablate.experiment import run_cell
from albert_ablate.training import trackers


class _Settings:
    def __init__(self, **_: object) -> None:
        pass


class _Run:
    def __init__(self, broken: bool) -> None:
        self.broken = broken
        self.lines: list[tuple[int | None, dict[str, Any]]] = []
        self.summary: dict[str, Any] = {}
        self.finished: list[int] = []

    def log(self, values: dict[str, Any], step: int | None = None) -> None:
        if self.broken:
            raise RuntimeError("no route")
        self.lines.append((step, values))

    def finish(self, exit_code: int) -> None:
        self.finished.append(exit_code)


def fake_wandb(monkeypatch: pytest.MonkeyPatch, *, broken: bool, starts: bool = True) -> dict[str, Any]:
    """A stand-in module; returns what ``init`` was called with and the run it gave."""
    seen: dict[str, Any] = {}

    def init(**options: object) -> _Run:
        if not starts:
            raise ConnectionError("no route")
        seen.update(options, run=_Run(broken))
        return seen["run"]

    module = types.SimpleNamespace(
        init=init, Settings=_Settings, Table=lambda **content: content, Image=lambda figure: figure
    )
    monkeypatch.setitem(sys.modules, "wandb", module)
    return seen


def run(folder: Path, *more: str) -> dict[str, Any]:
    config = compose(tiny_overrides(folder, *more))
    results = run_cell(config, paper_setup(config)).read("results.json")
    del results["training"], results["evaluation"], results["inference"]  # a clock's numbers
    return results


def test_wandb_gets_every_logged_step_and_the_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = fake_wandb(monkeypatch, broken=False)
    results = run(tmp_path, "tracker=wandb", "sweep=table4")
    (folder,) = (tmp_path / "runs").glob("*/results.json")
    assert seen["mode"] == "offline"
    assert (seen["group"], seen["job_type"]) == ("table4", "pretrain")
    assert folder.parent.name.endswith(seen["id"])
    steps = [step for step, _ in seen["run"].lines if step is not None]
    assert steps == sorted(set(steps))
    assert steps[-1] == 12
    assert seen["run"].summary["sop"] == results["sop"]
    (last,) = [values for step, values in seen["run"].lines if step is None]
    assert [row[0] for row in last["held_out"]["data"]] == ["masked_lm", "nsp", "sop"]
    assert last["layers"].axes[0].get_ylabel() == "L2 distance"
    assert seen["run"].finished == [0]


def test_a_failed_run_is_finished_as_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = fake_wandb(monkeypatch, broken=False)
    with pytest.raises(DivergedError):
        run(tmp_path, "tracker=wandb", "optimizer.learning_rate=1e30", "optimizer.clip_norm=null")
    assert seen["run"].finished == [1]


@pytest.mark.parametrize("starts", [True, False])
@pytest.mark.filterwarnings("error:tracker")
def test_a_broken_tracker_changes_nothing_and_is_named_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], starts: bool
) -> None:
    plain = run(tmp_path / "plain")
    fake_wandb(monkeypatch, broken=True, starts=starts)
    tracked = run(tmp_path / "tracked", "tracker=[wandb,tensorboard]")
    said = [line for line in capsys.readouterr().out.splitlines() if "tracker" in line and "no route" in line]
    assert len(said) == 1
    (log,) = (tmp_path / "tracked" / "runs").glob("*/log.txt")
    assert said[0] in log.read_text()  # also of a cell, which prints nothing
    assert plain == tracked
    assert list((tmp_path / "tracked" / "runs").glob("*/tensorboard/events*"))  # the other one goes on


@pytest.mark.parametrize("module", ["wandb", "torch.utils.tensorboard"])
def test_a_missing_tracker_is_named_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    name = module.rpartition(".")[2]
    run(tmp_path, f"tracker={name}")
    assert f"pip install {name}`. The run goes on without it" in capsys.readouterr().out


class _Fake:
    """A tracker that does what ``work`` does, whatever it is told."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._work = work
        self.told = 0

    def __getattr__(self, _: str) -> Callable[..., None]:
        def tell(*_: object) -> None:
            self._work()
            self.told += 1

        return tell


def test_a_tracker_that_hangs_delays_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "_PATIENCE", 0.1)
    said: list[str] = []
    hold = threading.Event()

    def slow_start() -> _Fake:
        hold.wait()
        return _Fake(int)

    for make in (lambda: _Fake(hold.wait), slow_start):
        several = trackers.Trackers(said.append)
        several.start("slow", "json", make)
        for step in range(1000):
            several.log(step, {})
        several.close(failed=False)
    hold.set()
    assert said == ["tracker slow has not answered for 0 s and is left out"] * 2


def test_a_slow_tracker_is_waited_for_as_long_as_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "_PATIENCE", 3.0)
    said: list[str] = []
    fake = _Fake(lambda: time.sleep(0.3))
    several = trackers.Trackers(said.append)
    several.start("slow", "json", lambda: fake)
    for step in range(10):
        several.log(step, {})
    several.close(failed=False)
    assert (fake.told, said) == (11, [])


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_whatever_a_tracker_raises_stays_with_it(error: BaseException) -> None:
    said: list[str] = []

    def fail() -> None:
        raise error

    several = trackers.Trackers(said.append)
    several.start("mine", "json", lambda: _Fake(fail))
    several.log(1, {})
    several.close(failed=False)
    assert len(said) == 1
    assert f"tracker mine failed ({type(error).__name__}" in said[0]


def test_a_tracker_so_late_that_it_would_fill_the_memory_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "_MOST_WAITING", 5)
    said: list[str] = []
    hold = threading.Event()
    several = trackers.Trackers(said.append)
    several.start("slow", "json", lambda: _Fake(hold.wait))
    for step in range(20):
        several.log(step, {})
    hold.set()
    several.close(failed=False)
    assert said == ["tracker slow is 5 messages late and is left out from now on"]


def test_wandb_takes_the_setting_then_the_environment_then_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("WANDB_MODE", "WANDB_PROJECT", "WANDB_DIR", "WANDB_DISABLED")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    assert (trackers.wandb_mode(None), trackers.wandb_project(None)) == ("offline", "albert-ablate")
    assert trackers.wandb_folder(tmp_path) == str(tmp_path)
    for name in names[:2]:
        monkeypatch.setenv(name, "online")
    assert (trackers.wandb_mode(None), trackers.wandb_mode("offline")) == ("online", "offline")
    assert (trackers.wandb_project(None), trackers.wandb_project("mine")) == ("online", "mine")
    monkeypatch.setenv("WANDB_DISABLED", "true")
    assert trackers.wandb_mode(None) == "disabled"
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    assert trackers.wandb_folder(tmp_path / "run") == str(tmp_path)
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "missing"))
    assert trackers.wandb_folder(tmp_path / "run") == str(tmp_path / "run")


def test_wandbs_environment_reaches_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = fake_wandb(monkeypatch, broken=False)
    for name, value in {"PROJECT": "p", "NAME": "n", "TAGS": "a,b", "MODE": "online"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    run(tmp_path, "tracker=wandb")
    assert (seen["project"], seen["name"], seen["mode"], seen["tags"][-2:]) == ("p", "n", "online", ["a", "b"])
    seen.clear()
    monkeypatch.setenv("WANDB_MODE", "disabled")
    run(tmp_path / "disabled", "tracker=wandb")
    assert not seen


def test_tensorboard_files_hold_the_metrics(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run(tmp_path, "tracker=tensorboard")
    (folder,) = (tmp_path / "runs").glob("*/tensorboard")
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    lines = [json.loads(line) for line in (folder.parent / "metrics.jsonl").read_text().splitlines()]
    assert [e.step for e in events.Scalars("mlm_loss")] == [line["step"] for line in lines]
    assert [e.value for e in events.Scalars("mlm_loss")] == pytest.approx([line["mlm_loss"] for line in lines])
    assert "layers" in events.Tags()["images"]


def wandb_records(file: Path) -> Iterator[bytes]:
    """Records of a .wandb file: seven bytes of header, then LevelDB's log format in blocks of 32 KiB."""
    data, parts = file.read_bytes(), b""
    place = 7
    while place + 7 <= len(data):
        room = 32768 - place % 32768
        if room < 7:
            place += room
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def test_the_real_wandb_offline_holds_the_run(tmp_path: Path) -> None:
    """No account, no network; the file is read back."""
    wandb_internal_pb2 = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    run(tmp_path, "tracker=wandb", "sweep=table4", "seed=0")
    (file,) = (tmp_path / "runs").glob("*/wandb/offline-run-*/*.wandb")
    records = []
    for data in wandb_records(file):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        records.append(record)
    (started,) = [r.run for r in records if r.WhichOneof("record_type") == "run"]
    assert (started.run_group, started.job_type) == ("table4", "pretrain")
    assert {item.key for item in started.config.update} >= {"embed", "share", "objective", "seed"}
    history = [
        {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in r.history.item}
        for r in records
        if r.WhichOneof("record_type") == "history"
    ]
    (metrics,) = (tmp_path / "runs").glob("*/metrics.jsonl")
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    losses = [h["mlm_loss"] for h in history if "mlm_loss" in h]
    assert losses == pytest.approx([line["mlm_loss"] for line in lines])
    assert any("held_out" in key for h in history for key in h)
    assert any("layers" in key for h in history for key in h)
    assert any(r.WhichOneof("record_type") == "exit" and r.exit.exit_code == 0 for r in records)
