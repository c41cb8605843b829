"""Stop signals: Ctrl-C, and what systems and clusters send, end a run wherever it is, with what it has done saved.

Inside ``stoppable`` the first signal raises PreemptedError at once; inside ``deferred`` it waits for
the body to look at it and save. Ctrl-C or SIGTERM a second time leaves at once.
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
    """Those of the signals that this system has."""
    return tuple(getattr(signal, name) for name in names if hasattr(signal, name))


#: Ahead of a time limit: SLURM (--signal; submitit's is SIGUSR2), LSF (SIGUSR2), Grid Engine (SIGUSR1, SIGUSR2,
#: and SIGXCPU, which ``ulimit -t`` sends, too).
LIMITS = _known("SIGUSR1", "SIGUSR2", "SIGXCPU")
#: And from people, the system, a terminal that goes away, and clusters that end or preempt a job (PBS, HTCondor).
SIGNALS = (*_known("SIGTERM", "SIGINT", "SIGHUP"), *LIMITS)
#: A shell has these ignored for what runs in the background, nohup the second; then they stay ignored.
_OF_A_TERMINAL = _known("SIGINT", "SIGHUP")
#: What a person sends again who does not want to wait. A cluster may send different ones, or SIGXCPU every second.
_IMPATIENT = _known("SIGTERM", "SIGINT")
#: A cluster and the parent process may both pass on what is one request.
_SAME_REQUEST_SECONDS = 2.0

Result = TypeVar("Result")


class _Asked:
    """When each signal came first."""

    def __init__(self) -> None:
        self._first: dict[int, float] = {}

    def impatient(self, number: int) -> bool:
        """Note a signal; whether a person has sent it before and does not want to wait."""
        now = time.monotonic()
        return now - self._first.setdefault(number, now) > _SAME_REQUEST_SECONDS and number in _IMPATIENT


class Stop(threading.Event):
    """Set by the first stop signal; ``patient``: no second one leaves at once."""

    def __init__(self, patient: bool = False) -> None:
        super().__init__()
        self.deferring = 0
        self._patient = patient
        self._limit = False
        self._asked = _Asked()

    def handle(self, number: int, _frame: object) -> None:
        """The signal handler."""
        impatient = self._asked.impatient(number) and not self._patient
        if not self.is_set():
            self._limit = number in LIMITS
            self.set()
            if not self.deferring:
                raise self.error()
        elif impatient:
            os._exit(PreemptedError.exit_code)

    def error(self, where: str = "", work: str = "") -> PreemptedError:
        """What to raise, after ``where`` (a step) of ``work`` has been saved."""
        what = "Time limit reached" if self._limit else "Stopped"
        if work:
            what += f" in {work}" if self._limit else f" {work}"
        if where:
            what += f" at {where}" if self._limit else f" after {where}"
        return PreemptedError(
            what, f"the same command continues from {'there' if where else 'what is saved'}", self._limit
        )


_current: Stop | None = None


@contextmanager
def stoppable(patient: bool = False) -> Iterator[None]:
    """For the length of the body a stop signal raises PreemptedError, wherever the main thread is.

    ``patient``: a second signal changes nothing, because another process decides when to wait no longer.
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
    """No stop signal interrupts the body; it looks at the event. One that was not acted on is raised at the end."""
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
    """For the length of the body every stop signal does what Ctrl-C does."""
    with _handled(_Interrupt()):
        yield


class _Interrupt:
    """A signal handler."""

    def __init__(self) -> None:
        self._asked = _Asked()
        self._first = True

    def __call__(self, number: int, _frame: object) -> None:
        if self._asked.impatient(number) or self._first:
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
def limits_postponed(tell: Callable[[int], None]) -> Iterator[Callable[[], object]]:
    """``tell`` is called instead of the handler that a launcher has for a time limit, for the length of the body.

    What the body is given calls the launcher's handler after all, where the signal came.
    """
    came: list[Callable[[], object]] = []

    def later(number: int, handler: Callable[[int, None], object]) -> Callable[[int, object], None]:
        def handle(*_: object) -> None:
            came.append(lambda: handler(number, None))
            tell(number)

        return handle

    found = {n: signal.getsignal(n) for n in LIMITS} if _in_main_thread() else {}
    theirs = {n: handler for n, handler in found.items() if callable(handler) and not isinstance(handler, _Interrupt)}
    for number, handler in theirs.items():
        signal.signal(number, later(number, handler))
    try:
        yield lambda: came[0]() if came else None
    finally:
        for number, handler in theirs.items():
            signal.signal(number, handler)


@contextmanager
def blocked() -> Iterator[None]:
    """Stop signals wait until the body is over; a process started in it begins so, too."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def unblocked() -> Iterator[None]:
    """In a process that was started in ``blocked``: the body is where stop signals come through."""
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


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
