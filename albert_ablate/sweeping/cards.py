"""A GPU for each cell, where a launcher runs several cells of a sweep on one machine at once.

The sweep names its GPUs in an environment variable, which the launcher's processes inherit. A cell's process takes a
free place on one of them, waiting where there is none, and sees that GPU alone (CUDA_VISIBLE_DEVICES). A place is a
file lock, which the operating system frees with the process.
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
    """For the length of the body, cells that are started from here share ``gpus``, which may be none."""
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
def own_gpu(device: str, cells_per_gpu: int) -> Iterator[None]:
    """For the length of the body, this process sees the one GPU that it has a place on. CUDA must not have begun.

    Nothing happens outside a sweep that shares GPUs, nor for a cell of ``device=cpu``. A stop signal ends the waiting.
    """
    shares = os.environ.get(_SHARED)
    if shares is None or device == "cpu":
        yield
        return
    told = json.loads(shares)
    gpu, lock = _place(Path(told["folder"]), told["gpus"], cells_per_gpu)
    before = os.environ.get(_VISIBLE)
    os.environ[_VISIBLE] = gpu
    try:
        yield
    finally:
        lock.release()
        if before is None:
            del os.environ[_VISIBLE]
        else:
            os.environ[_VISIBLE] = before


def _place(folder: Path, gpus: list[str], cells_per_gpu: int) -> tuple[str, FileLock]:
    """A GPU with a free place and the lock that holds it; the second place of a GPU is taken after the first of all."""
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
