"""Processes that build batches beside one that has opened a GPU."""

import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import wait
from typing import Any

from albert_ablate.stopping import SIGNALS

#: Loaded once, by the server process.
_PRELOAD = ["albert_ablate.data.batches"]


def forked_from_server() -> Any:
    """The multiprocessing context for them: a server process without threads and without a GPU forks them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    return context


def begin_apart(_number: int) -> None:
    """In such a process: it leaves with the one that reads its batches, and at nobody else's word.

    A cluster signals every process of a job; the batches of the step at hand are still wanted.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_leave_with_reader, name="reader watch", daemon=True).start()


def _leave_with_reader() -> None:
    """The server, which is this process's parent for the system, may outlive the reader."""
    reader = multiprocessing.parent_process()
    assert reader is not None
    wait([reader.sentinel])
    os._exit(0)
