"""A run folder has one owner at a time: a lock with an owner and a heartbeat.

``lock.json`` names the process that trains and is rewritten every few seconds with what it is
doing. An owner is dead when its process is gone from this machine, or when its heart has not beaten
for a minute wherever it runs; its folder may then be taken over, and the run continues from its
last checkpoint. Reading and replacing the lock happen under a file lock that the operating system
frees with the process, so two processes never both succeed.
"""

import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from albert_ablate.errors import LockedError, PreemptedError
from albert_ablate.files import read_json, write_json

#: Seconds between two beats.
BEAT_SECONDS = 3.0
#: A heart that has been silent for so many seconds has stopped.
DEAD_SECONDS = 60.0

_FILE = "lock.json"


def owner(folder: Path) -> dict[str, Any] | None:
    """The living owner of ``folder`` (host, pid, since, progress), or None."""
    try:
        lock = read_json(folder / _FILE)
        silent = time.time() - (folder / _FILE).stat().st_mtime
    except (FileNotFoundError, ValueError):
        return None
    if silent > DEAD_SECONDS or (lock["machine"] == _machine() and not _alive(lock["pid"])):
        return None
    return dict(lock)


def require_free(folder: Path) -> None:
    """Raise LockedError while a living process owns ``folder``."""
    other = owner(folder)
    if other is not None:
        raise LockedError(
            f"{folder} is being trained by process {other['pid']} on {other['host']}. Wait for it, or stop it."
        )


class Lock:
    """The hold of one process on a run folder; ``note`` tells what the next beat says."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / _FILE
        self._guard = FileLock(guard_file(folder))
        self._record = {
            "owner": uuid.uuid4().hex,
            "host": socket.gethostname(),
            "machine": _machine(),
            "pid": os.getpid(),
            "since": time.time(),
            "progress": {},
        }
        self._progress: dict[str, Any] = {}
        self._released = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def acquire(self) -> None:
        """Take the folder. Raises LockedError while another process owns it."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        Path(self._guard.lock_file).parent.mkdir(exist_ok=True)
        with self._guard:
            require_free(self._file.parent)
            write_json(self._file, self._record)
        self._heart.start()

    def note(self, **progress: Any) -> None:
        """What this process is doing (phase, step, share of the budget), for the board."""
        self._progress = self._progress | progress

    def release(self) -> None:
        """Give the folder back."""
        self._released.set()
        self._heart.join()
        with self._guard:
            if self._mine():
                self._file.unlink()

    def _mine(self) -> bool:
        try:
            return bool(read_json(self._file)["owner"] == self._record["owner"])
        except (FileNotFoundError, ValueError):
            return False

    def _beat(self) -> None:
        while not self._released.wait(BEAT_SECONDS):
            try:
                with self._guard:
                    mine = self._mine()
                    if mine:
                        write_json(self._file, self._record | {"progress": self._progress})
            except OSError:
                continue  # a full or sleeping disk: the next beat tries again
            if not mine:
                print(f"{self._file.parent}: another process took this run over; leaving.", file=sys.stderr, flush=True)
                os._exit(PreemptedError.exit_code)  # two writers would be worse than a sudden end


@contextmanager
def locked(folder: Path) -> Iterator[Lock]:
    """Own ``folder`` for the length of the body. Raises LockedError while another process owns it."""
    lock = Lock(folder)
    lock.acquire()
    try:
        yield lock
    finally:
        lock.release()


def guard_file(folder: Path) -> Path:
    """Beside the run folders, because deleting a file that others may wait for is not safe."""
    return folder.parent / ".locks" / folder.name


def _machine() -> str:
    """A name under which a process id means one process: host, and the container it is in."""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return f"{socket.gethostname()} {space}".strip()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not _zombie(pid)


def _zombie(pid: int) -> bool:
    """Dead, but not yet collected by its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return False
