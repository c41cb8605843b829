"""Stop signals, seen at a place where state can be saved."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM or Ctrl-C sets; a second signal ends the process at once."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    handled = (signal.SIGTERM, signal.SIGINT)
    before = {s: signal.getsignal(s) for s in handled}

    def stop(number: int, _frame: object) -> None:
        stopped.set()
        signal.signal(number, before[signal.Signals(number)])

    for s in handled:
        signal.signal(s, stop)
    try:
        yield stopped
    finally:
        for s in handled:
            signal.signal(s, before[s])
