"""Processes that build batches for a training process that uses a GPU."""

import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import wait
from typing import Any

from albert_ablate.stopping import SIGNALS

#: Imported once, by the server process.
_PRELOAD = ["albert_ablate.data.batches"]


def forked_from_server() -> Any:
    """The multiprocessing context for these processes. A server process without threads or a GPU forks them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    return context


def begin_apart(_number: int) -> None:
    """Set up such a process: it ignores stop signals and ends when the training process does.

    A cluster signals every process of a job, but the training process still needs the batches of its current step.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_leave_with_reader, name="reader watch", daemon=True).start()


def _leave_with_reader() -> None:
    """Exit when the reader of the batches ends. The server, this process's parent in the system, may live longer."""
    reader = multiprocessing.parent_process()
    assert reader is not None
    wait([reader.sentinel])
    os._exit(0)
