"""Stop signals: Ctrl-C and the signals of systems and clusters end a run in any phase, after saving its work.

Inside ``stoppable`` the first signal raises PreemptedError at once. Inside ``deferred`` the body checks
for it and saves first. A second Ctrl-C or SIGTERM exits at once.
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


def _known(*names: str) -> tuple[signal.Signals, ...]:
    """The named signals that exist on this system."""
    return tuple(getattr(signal, name) for name in names if hasattr(signal, name))


#: Signals ahead of a time limit: SLURM (--signal; submitit's is SIGUSR2), LSF (SIGUSR2), Grid Engine (SIGUSR1,
#: SIGUSR2 and SIGXCPU), ``ulimit -t`` (SIGXCPU).
LIMITS = _known("SIGUSR1", "SIGUSR2", "SIGXCPU")
#: All stop signals: also those of users, the system, a closed terminal, and clusters that end or preempt a job.
SIGNALS = (*_known("SIGTERM", "SIGINT", "SIGHUP"), *LIMITS)
#: Shells ignore these for background jobs, nohup the second one; ignored signals stay ignored.
_OF_A_TERMINAL = _known("SIGINT", "SIGHUP")
#: Signals that exit at once when repeated by a user. A cluster may send different ones, or SIGXCPU every second.
_IMPATIENT = _known("SIGTERM", "SIGINT")
#: Signals within this time are one request: a cluster and the parent process may both pass it on.
_SAME_REQUEST_SECONDS = 2.0

Result = TypeVar("Result")


class _Requests:
    """The time at which each signal first came."""

    def __init__(self) -> None:
        self._first: dict[int, float] = {}

    def impatient(self, number: int) -> bool:
        """Note a signal; returns whether a user repeated it to exit at once."""
        now = time.monotonic()
        return now - self._first.setdefault(number, now) > _SAME_REQUEST_SECONDS and number in _IMPATIENT


class Stop(threading.Event):
    """Set by the first stop signal; ``patient``: a second one does not exit at once."""

    def __init__(self, patient: bool = False) -> None:
        super().__init__()
        self.deferring = 0
        self._patient = patient
        self._limit = False
        self._requests = _Requests()

    def handle(self, number: int, _frame: object) -> None:
        """The signal handler."""
        impatient = self._requests.impatient(number) and not self._patient
        if not self.is_set():
            self._limit = number in LIMITS
            self.set()
            if not self.deferring:
                raise self.error()
        elif impatient:
            os._exit(PreemptedError.exit_code)

    def error(self, where: str = "", work: str = "") -> PreemptedError:
        """The error to raise after ``where`` (a step) of ``work`` has been saved."""
        event = "Time limit reached" if self._limit else "Stopped"
        if work:
            event += f" in {work}" if self._limit else f" {work}"
        if where:
            event += f" at {where}" if self._limit else f" after {where}"
        return PreemptedError(
            event, f"the same command continues from {'there' if where else 'what is saved'}", self._limit
        )


_current: Stop | None = None


@contextmanager
def stoppable(patient: bool = False) -> Iterator[None]:
    """During the body a stop signal raises PreemptedError in the main thread.

    ``patient``: a second signal has no effect, because the parent process decides when to kill this one.
    """
    global _current
    if _current is not None or not _in_main_thread():
        yield
        return
    stop = _current = Stop(patient)
    try:
        with _handled(stop.handle):
            yield
    finally:
        _current = None


@contextmanager
def deferred() -> Iterator[Stop]:
    """No stop signal interrupts the body, which checks the event. A pending one is raised at the end."""
    with stoppable():
        stop = _current or Stop()  # outside the main thread nothing sets it
        stop.deferring += 1
        try:
            yield stop
        finally:
            stop.deferring -= 1
        if stop.is_set() and not stop.deferring:
            raise stop.error()


@contextmanager
def interrupting() -> Iterator[None]:
    """During the body every stop signal acts like Ctrl-C."""
    with _handled(_Interrupt()):
        yield


class _Interrupt:
    """A signal handler that raises KeyboardInterrupt."""

    def __init__(self) -> None:
        self._requests = _Requests()
        self._first = True

    def __call__(self, number: int, _frame: object) -> None:
        if self._requests.impatient(number) or self._first:
            self._first = False
            raise KeyboardInterrupt


@contextmanager
def _handled(handler: Callable[[int, object], None]) -> Iterator[None]:
    ignored = {number for number in _OF_A_TERMINAL if signal.getsignal(number) is signal.SIG_IGN}
    before = {number: signal.signal(number, handler) for number in SIGNALS if number not in ignored}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, signal.SIG_DFL if old is None else old)


@contextmanager
def limits_postponed(on_limit: Callable[[int], None]) -> Iterator[Callable[[], object]]:
    """During the body a time-limit signal calls ``on_limit`` instead of the launcher's handler.

    Yields a function that calls the launcher's handler afterwards if the signal came.
    """
    came: list[Callable[[], object]] = []

    def postponing(number: int, handler: Callable[[int, None], object]) -> Callable[[int, object], None]:
        def handle(*_: object) -> None:
            came.append(lambda: handler(number, None))
            on_limit(number)

        return handle

    previous = {n: signal.getsignal(n) for n in LIMITS} if _in_main_thread() else {}
    launcher_handlers = {
        n: handler for n, handler in previous.items() if callable(handler) and not isinstance(handler, _Interrupt)
    }
    for number, handler in launcher_handlers.items():
        signal.signal(number, postponing(number, handler))
    try:
        yield lambda: came[0]() if came else None
    finally:
        for number, handler in launcher_handlers.items():
            signal.signal(number, handler)


@contextmanager
def blocked() -> Iterator[None]:
    """Block stop signals during the body; a process started in it begins with them blocked."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def unblocked() -> Iterator[None]:
    """Unblock stop signals during the body, in a process that was started in ``blocked``."""
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def interruptible(work: Callable[[], Result]) -> Result:
    """Run a long library call that signals cannot interrupt; returns its result.

    The call runs in a separate thread while the main thread can be stopped. The process then exits
    without waiting for the call.
    """
    results: list[Result] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=body, name="library call", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(0.2)
    except BaseException:
        atexit.register(_leave_without_waiting)
        raise
    if errors:
        raise errors[0]
    return results[0]


def _leave_without_waiting() -> None:
    """Exit without finalising the interpreter, which may crash while a library still computes."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(PreemptedError.exit_code)
