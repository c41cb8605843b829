"""A GPU for each cell when a launcher runs several cells of a sweep on one machine at once.

The sweep names its GPUs in an environment variable, which the launcher's processes inherit. A cell's process takes a
free slot on one of them, or waits for one, and sees only that GPU (CUDA_VISIBLE_DEVICES). A slot is a file lock,
which the operating system frees when the process ends.
"""

import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

#: Names the folder of the locks and the GPUs.
_SHARED = "ALBERT_ABLATE_GPUS"
_VISIBLE = "CUDA_VISIBLE_DEVICES"
_POLL_SECONDS = 0.5


@contextmanager
def shared(gpus: list[str]) -> Iterator[None]:
    """Cells that are started during the body share ``gpus``; nothing changes if the list is empty."""
    if not gpus:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="albert-ablate-gpus-", ignore_cleanup_errors=True) as folder:
        os.environ[_SHARED] = json.dumps({"folder": folder, "gpus": gpus})
        try:
            yield
        finally:
            del os.environ[_SHARED]


@contextmanager
def gpu_slot(device: str, cells_per_gpu: int) -> Iterator[None]:
    """During the body this process has a slot on a GPU and sees only that GPU. CUDA must not be initialised yet.

    Does nothing outside a sweep that shares GPUs or for ``device=cpu``. A stop signal ends the waiting.
    """
    shares = os.environ.get(_SHARED)
    if shares is None or device == "cpu":
        yield
        return
    settings = json.loads(shares)
    gpu, lock = _take_slot(Path(settings["folder"]), settings["gpus"], cells_per_gpu)
    visible_before = os.environ.get(_VISIBLE)
    os.environ[_VISIBLE] = gpu
    try:
        yield
    finally:
        lock.release()
        if visible_before is None:
            del os.environ[_VISIBLE]
        else:
            os.environ[_VISIBLE] = visible_before


def _take_slot(folder: Path, gpus: list[str], cells_per_gpu: int) -> tuple[str, FileLock]:
    """Wait for a free slot. Returns its GPU and its lock; second slots are taken after every GPU's first slot."""
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        for number in range(cells_per_gpu):
            for order, gpu in enumerate(gpus):
                lock = FileLock(folder / f"{order}-{number}")
                try:
                    lock.acquire(blocking=False)
                except Timeout:
                    continue
                return gpu, lock
        time.sleep(_POLL_SECONDS)
