"""A run folder has one owner at a time: a lock with an owner and a heartbeat.

``lock.json`` names the training process and is rewritten every few seconds with its progress. An owner
is dead if its process is gone from this machine or, on any machine, after a minute without a heartbeat.
Then another process may take the folder over and continue from the last checkpoint. The lock is read
and replaced under a file lock, which the operating system frees with the process, so two processes
never both succeed.
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

#: Seconds between two heartbeats.
BEAT_SECONDS = 3.0
#: Seconds without a heartbeat after which an owner is dead.
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
    """Raises LockedError while a living process owns ``folder``."""
    holder = owner(folder)
    if holder is not None:
        raise LockedError(
            f"{folder} is being trained by process {holder['pid']} on {holder['host']}. Wait for it, or stop it."
        )


class Lock:
    """One process's lock on a run folder; the next heartbeat writes what ``note`` was given."""

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
        """Set the progress of this process (phase, step, share of the budget), shown on the board."""
        self._progress = self._progress | progress

    def release(self) -> None:
        """Give the folder back."""
        self._released.set()
        self._heart.join()
        with self._guard:
            if self._is_ours():
                self._file.unlink()

    def _is_ours(self) -> bool:
        try:
            return bool(read_json(self._file)["owner"] == self._record["owner"])
        except (FileNotFoundError, ValueError):
            return False

    def _beat(self) -> None:
        while not self._released.wait(BEAT_SECONDS):
            try:
                with self._guard:
                    is_ours = self._is_ours()
                    if is_ours:
                        write_json(self._file, self._record | {"progress": self._progress})
            except OSError:
                continue  # such as a full disk: the next heartbeat tries again
            if not is_ours:
                print(f"{self._file.parent}: another process took this run over; leaving.", file=sys.stderr, flush=True)
                os._exit(PreemptedError.exit_code)  # a sudden end is better than two writers


@contextmanager
def locked(folder: Path) -> Iterator[Lock]:
    """Own ``folder`` during the body. Raises LockedError while another process owns it."""
    lock = Lock(folder)
    lock.acquire()
    try:
        yield lock
    finally:
        lock.release()


def guard_file(folder: Path) -> Path:
    """The file lock of ``folder``, kept outside it: deleting a file that processes wait for is unsafe."""
    return folder.parent / ".locks" / folder.name


def _machine() -> str:
    """The host and its process namespace (container), within which a process id is unique."""
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
    """Whether the process is dead but not yet reaped by its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return False
