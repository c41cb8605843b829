"""Every call of a save fails in turn; files of a checkpoint are cut and flipped; the disk is full."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from outcomes import shown
from runhelpers import ROOT, newest_checkpoint, only_folder, run, start, status_of, tiny_config, weights_of
from safetensors.torch import save_file

from albert_ablate.config.schema import RunConfig
from albert_ablate.data import prepare
from albert_ablate.errors import CheckpointError, DiskFullError
from albert_ablate.model.pretraining import build_model
from albert_ablate.record.folder import RunFolder
from albert_ablate.training import checkpoint

HERE = Path(__file__).parent
Cell = Callable[..., RunConfig]


@pytest.fixture(scope="module")
def finished(shared: Path) -> RunFolder:
    return run(tiny_config(shared, runs="whole"))


# --- a fault at every call of a save --------------------------------------------------------------


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("needs a C compiler on Linux")
    folder = tmp_path_factory.mktemp("faults")
    library = folder / "faults.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, HERE / "faults.c", "-ldl"], check=True)
    environment = os.environ | {"LD_PRELOAD": str(library), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, HERE / "faulty_save.py", folder / "place"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_after_a_fault_at_any_call_the_old_or_the_new_state_is_there_whole(report: dict[str, Any]) -> None:
    """The weights, moments and numbers of what is loaded were compared where the faults were made."""
    outcomes = report["outcomes"]
    assert len(outcomes) == 4 * len(report["calls"])
    assert {outcome["step"] for outcome in outcomes} == {4, 8}
    assert all(outcome["left"] == ["step_00000012"] for outcome in outcomes), "nothing half written stays"
    for fault in ("input/output error", "short write", "process dies between two calls", "disk full"):
        shown(fault, "saving", "the old or the new checkpoint, whole")
    print(f"\n{len(report['calls'])} calls: {Counter((o['kind'], o['code'], o['step']) for o in outcomes)}")


def test_a_save_that_says_it_is_done_is_done(report: dict[str, Any]) -> None:
    assert all(outcome["step"] == 8 for outcome in report["outcomes"] if outcome["code"] == 0)
    assert {o["code"] for o in report["outcomes"] if o["kind"] == "fail"} <= {0, 1}
    assert {o["code"] for o in report["outcomes"] if o["kind"] == "crash"} == {137}
    assert {o["code"] for o in report["outcomes"] if o["kind"] == "short"} == {0}, "the rest is written too"


def test_a_full_disk_is_known_as_one_whichever_library_meets_it(report: dict[str, Any]) -> None:
    full = [outcome for outcome in report["outcomes"] if outcome["kind"] == "full"]
    writes = [o for o in full if report["calls"][o["call"] - 1].startswith(("write ", "open "))]
    assert len(writes) > 5
    assert {outcome["code"] for outcome in writes} == {28}


def test_files_reach_the_disk_before_their_folder_gets_its_name(report: dict[str, Any]) -> None:
    """Else a power cut could leave a checkpoint with a name and without content."""
    calls = report["calls"]
    named = next(i for i, call in enumerate(calls) if re.match(r"rename .*/step_00000008$", call))
    last_write = max(i for i in range(named) if calls[i].startswith("write ") and ".meta.json" not in calls[i])
    kept = {Path(call.split(" ", 1)[1]).name for call in calls[last_write:named] if call.startswith("fsync ")}
    assert kept >= {checkpoint.WEIGHTS, checkpoint.STATE, "meta.json"}
    assert any(re.match(r"fsync .*/checkpoints$", call) for call in calls[named:])
    removed = [i for i, call in enumerate(calls) if call.startswith(("unlink", "rmdir"))]
    assert min(removed) > named, "the old one goes when the new one is there"


# --- damage ---------------------------------------------------------------------------------------


def copy_of(finished: RunFolder, runs: Path) -> RunFolder:
    shutil.copytree(finished.path, runs / finished.name)
    folder = RunFolder(runs, finished.name)
    folder.set_status("preempted")
    return folder


@pytest.mark.parametrize("name", ["model.safetensors", "state.pt", "meta.json"])
def test_a_checkpoint_cut_anywhere_is_never_used(finished: RunFolder, cell: Cell, tmp_path: Path, name: str) -> None:
    model = build_model(cell().architecture(), 0)
    owner = checkpoint.Owner(finished.identity)
    for tenth in range(10):
        folder = copy_of(finished, tmp_path / f"{name}-{tenth}")
        file = newest_checkpoint(folder) / name
        content = file.read_bytes()
        file.write_bytes(content[: len(content) * tenth // 10])
        meta = checkpoint.load_latest(folder.checkpoints, owner, model)
        assert meta is not None
        assert (meta["step"], meta["damaged"]) == (8, ["step_00000012"])
    shown("checkpoint cut or flipped", "between runs", "named; the one before is used")


@pytest.mark.parametrize("name", ["model.safetensors", "state.pt", "meta.json"])
def test_a_flipped_bit_is_seen_or_changes_nothing(finished: RunFolder, cell: Cell, tmp_path: Path, name: str) -> None:
    """A bit of the numbers in meta.json that no hash covers may be read as another number, never as other weights."""
    model = build_model(cell().architecture(), 0)
    folder = copy_of(finished, tmp_path / "runs")
    file = newest_checkpoint(folder) / name
    content, seen = file.read_bytes(), 0
    for place in range(0, len(content), max(1, len(content) // 40)):
        file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        try:
            meta = checkpoint.load_latest(folder.checkpoints, checkpoint.Owner(finished.identity), model)
        except CheckpointError:
            seen += 1  # the identity itself
            continue
        assert meta is not None
        assert meta["step"] in (8, 12)
        seen += meta["step"] == 8
    assert seen >= (40 if name != "meta.json" else 1)


def test_swapped_checkpoints_are_refused(shared: Path, finished: RunFolder, cell: Cell, tmp_path: Path) -> None:
    other = run(tiny_config(shared, "seed=1", runs="other"))
    folder = copy_of(finished, tmp_path / "runs")
    shutil.rmtree(folder.checkpoints)
    shutil.copytree(other.checkpoints, folder.checkpoints)
    with pytest.raises(CheckpointError, match="seed: 1, not 0"):
        start(cell())
    shown("checkpoint of another run", "between runs", "refused, with what differs")
    assert status_of(folder)["state"] == "failed"


# --- a full disk ----------------------------------------------------------------------------------


def test_no_room_for_a_checkpoint_is_said_before_training(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    full = shutil._ntuple_diskusage(10**9, 10**9 - 1000, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    config = cell()
    with pytest.raises(DiskFullError) as caught:
        start(config)
    assert caught.value.exit_code == 28
    assert "MB left" in str(caught.value)
    assert not only_folder(config).metrics()


def test_a_disk_that_fills_up_keeps_the_last_checkpoint_and_continues(
    cell: Cell, finished: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, real = cell(), save_file

    def full(tensors: Any, path: Path) -> None:
        if "step_00000012" in str(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        real(tensors, path)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save_file", full)
        with pytest.raises(DiskFullError) as caught:
            start(config)
    assert caught.value.exit_code == 28
    folder = only_folder(config)
    assert status_of(folder)["exit_code"] == 28
    assert newest_checkpoint(folder).name == "step_00000008"
    assert [path.name for path in folder.checkpoints.iterdir() if path.name.startswith(".")] == []
    assert run(config).state() == "finished"
    assert weights_of(folder) == weights_of(finished)
    shown("disk full", "training", "exit 28; continues to the same bits when there is space")


def test_a_disk_too_full_for_the_status_itself(
    cell: Cell, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config, real = cell(), RunFolder.append_metrics

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fills(self: RunFolder, line: dict[str, Any]) -> None:
        if line["step"] > 4:
            patched.setattr("albert_ablate.record.folder.write_record", full)
            patched.setattr(RunFolder, "log", full)
            full()
        real(self, line)

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "append_metrics", fills)
        with pytest.raises(DiskFullError):
            start(config)
    assert "status could not be written" in capsys.readouterr().out
    assert only_folder(config).state() == "preempted"
    assert run(config).state() == "finished"


def test_a_disk_that_fills_up_while_data_are_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    config = tiny_config(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(prepare, "get_stores", full)
        with pytest.raises(DiskFullError, match="Nothing half written stays"):
            start(config)
    assert run(config).state() == "finished"
    shown("disk full", "data", "exit 28; nothing half made")
