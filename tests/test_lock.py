"""One owner at a time, and what happens when it dies."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from albert_ablate.errors import LockedError
from albert_ablate.record import lock as lock_module
from albert_ablate.record.lock import Lock, locked, owner


def backdated(folder: Path, seconds: float, **changes: object) -> None:
    """A lock whose heart stopped ``seconds`` ago."""
    file = folder / "lock.json"
    record = json.loads(file.read_text()) | changes
    file.write_text(json.dumps(record))
    then = time.time() - seconds
    os.utime(file, (then, then))


def owned(folder: Path) -> dict[str, Any]:
    """The living owner of a folder that has one."""
    held = owner(folder)
    assert held is not None
    return held


def left_behind(folder: Path) -> None:
    """The lock of an owner that never came back to free it, and whose heart is still."""
    lock = Lock(folder)
    lock.acquire()
    lock._released.set()
    lock._heart.join()


def test_the_body_owns_the_folder_and_leaves_it_free(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert owner(folder) is None
    with locked(folder):
        assert owned(folder)["pid"] == os.getpid()
        with pytest.raises(LockedError, match=f"process {os.getpid()}"), locked(folder):
            pass
    assert owner(folder) is None
    assert not list(folder.iterdir())


def test_progress_reaches_a_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_module, "BEAT_SECONDS", 0.05)
    with locked(tmp_path / "run") as held:
        held.note(phase="training", step=3)
        held.note(step=4)
        end = time.monotonic() + 10
        while owned(tmp_path / "run")["progress"] != {"phase": "training", "step": 4}:
            assert time.monotonic() < end
            time.sleep(0.01)


def test_a_silent_owner_elsewhere_is_dead_after_a_minute(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    left_behind(folder)
    backdated(folder, 50, machine="another host", pid=1)
    assert owned(folder)["machine"] == "another host"
    backdated(folder, 61, machine="another host", pid=1)
    assert owner(folder) is None
    with locked(folder):
        assert owned(folder)["pid"] == os.getpid()


def test_an_owner_whose_process_is_gone_is_dead_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left_behind(folder)
    backdated(folder, 0, pid=gone.pid)
    assert owner(folder) is None


def test_a_zombie_is_dead(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    zombie = subprocess.Popen([sys.executable, "-c", ""])
    end = time.monotonic() + 10
    while Path(f"/proc/{zombie.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < end
    left_behind(folder)
    backdated(folder, 0, pid=zombie.pid)
    assert owner(folder) is None
    zombie.wait()


def test_a_half_written_lock_holds_nobody_off(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "lock.json").write_text('{"owner": ')
    with locked(folder):
        assert owned(folder)["pid"] == os.getpid()


def test_of_many_that_want_a_dead_owners_folder_one_gets_it(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    left_behind(folder)
    backdated(folder, 100, machine="another host")
    won, lost, ready = [], [], threading.Barrier(8)

    def take() -> None:
        mine = Lock(folder)
        ready.wait()
        try:
            mine.acquire()
            won.append(mine)
        except LockedError:
            lost.append(mine)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 7)
    won[0].release()


def test_an_owner_that_was_taken_over_leaves_at_once(tmp_path: Path) -> None:
    """Asleep for longer than a minute, then awake: two writers would be worse than a sudden end."""
    script = (
        "import sys, time, pathlib, albert_ablate.record.lock as m; m.BEAT_SECONDS = 0.05; "
        "m.Lock(pathlib.Path(sys.argv[1])).acquire(); print('held', flush=True); time.sleep(30)"
    )
    sleeper = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "run")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert sleeper.stdout is not None
    sleeper.stdout.readline()
    file = tmp_path / "run" / "lock.json"
    record = json.loads(file.read_text())
    file.write_text(json.dumps(record | {"owner": "someone else"}))
    _, words = sleeper.communicate(timeout=20)
    assert sleeper.returncode == 75
    assert "took this run over" in words
