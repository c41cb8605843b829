"""Stop signals: SIGTERM, SIGUSR1 and Ctrl-C end a run wherever it is, with what it has done saved.

Inside ``stoppable`` the first signal raises PreemptedError at once; inside ``deferred`` it waits for
the body to look at the event and save. A second signal leaves at once.
"""

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from albert_ablate.errors import PreemptedError

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name))
#: A cluster and the parent process may both pass on what is one request.
_SAME_REQUEST_SECONDS = 2.0
_WORDS = "Stopped; the same command continues from what is saved."

Result = TypeVar("Result")


class _Stop:
    def __init__(self) -> None:
        self.asked = threading.Event()
        self.deferring = 0
        self._first = 0.0

    def handle(self, _number: int, _frame: object) -> None:
        now = time.monotonic()
        if not self.asked.is_set():
            self._first = now
            self.asked.set()
            if not self.deferring:
                raise PreemptedError(_WORDS)
        elif now - self._first > _SAME_REQUEST_SECONDS:
            os._exit(PreemptedError.exit_code)


_current: _Stop | None = None


@contextmanager
def stoppable() -> Iterator[None]:
    """For the length of the body a stop signal raises PreemptedError, wherever the main thread is."""
    global _current
    if _current is not None or threading.current_thread() is not threading.main_thread():
        yield
        return
    stop = _current = _Stop()
    before = {number: signal.signal(number, stop.handle) for number in _SIGNALS}
    try:
        yield
    finally:
        _current = None
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def deferred() -> Iterator[threading.Event]:
    """No stop signal interrupts the body; it looks at the event. One that was not acted on is raised at the end."""
    with stoppable():
        stop = _current or _Stop()  # outside the main thread nothing sets it
        stop.deferring += 1
        try:
            yield stop.asked
        finally:
            stop.deferring -= 1
        if stop.asked.is_set() and not stop.deferring:
            raise PreemptedError(_WORDS)


def interruptible(work: Callable[[], Result]) -> Result:
    """The result of a long call into a library that no signal interrupts.

    It runs in a thread of its own while the main thread can be stopped; the process then ends without
    waiting for it.
    """
    found: list[Result] = []
    failed: list[BaseException] = []

    def body() -> None:
        try:
            found.append(work())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=body, name="library call", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(0.2)
    except BaseException:
        atexit.register(_leave_without_waiting)
        raise
    if failed:
        raise failed[0]
    return found[0]


def _leave_without_waiting() -> None:
    """Ending the interpreter while a library still computes may crash it."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(PreemptedError.exit_code)
