"""A function in a process of its own and with a limit of time: what it does or suffers ends nothing else."""

import os
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from albert_ablate import console
from albert_ablate.sweeping.process import server

Call = tuple[Callable[..., Any], tuple[Any, ...]]


@dataclass(frozen=True)
class Answer:
    """What a function returned, or why it did not."""

    value: Any = None
    error: str | None = None


def alone(function: Callable[..., Any], *arguments: Any, seconds: float) -> Answer:
    """The answer of ``function(*arguments)``, which is ended after ``seconds``."""
    return together([(function, arguments)], seconds)[0]


def together(calls: Sequence[Call], seconds: float) -> list[Answer]:
    """The answers of functions that run at the same time, each in its own process, for at most ``seconds``.

    Functions, arguments and values have to be picklable. The processes start with the libraries loaded and no GPU
    in use. A process that is ended takes those that it started with it.
    """
    end = time.monotonic() + seconds
    started = [_started(function, arguments) for function, arguments in calls]
    workers, lines = [worker for worker, _ in started], [line for _, line in started]
    found: dict[int, Answer] = {}
    while len(found) < len(calls) and (left := end - time.monotonic()) > 0:
        for line in wait([line for i, line in enumerate(lines) if i not in found], left):
            number = lines.index(line)  # type: ignore[arg-type]
            found[number] = _received(lines[number], workers[number])
    for worker in workers:
        end_group(worker)
    late = Answer(error=f"not finished after {seconds:.0f} s")
    return [found.get(number, late) for number in range(len(calls))]


class Background:
    """A function that runs beside others in its own process until it is done or ended; nobody waits for its value."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._call = function, arguments
        self._started: tuple[Any, Connection] | None = None

    def begin(self) -> str:
        """Start it."""
        self._started = _started(*self._call)
        return "begun"

    def end(self) -> str:
        """End it where it is not done; returns what became of it, in words. Safe to repeat."""
        if self._started is None:
            return "not begun"
        worker, line = self._started
        self._started = None
        answer = _received(line, worker) if line.poll() else Answer(error="ended before it was done")
        end_group(worker)
        return answer.error or "done"


def _started(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, Connection]:
    context = server()
    receive, send = context.Pipe(duplex=False)
    worker = context.Process(target=_answer, args=(send, function, arguments))
    worker.start()
    send.close()
    return worker, receive


def end_group(worker: Any) -> None:
    """End a process that ``own_group`` was called in, and those that it started."""
    if worker.is_alive():
        try:
            os.killpg(worker.pid, signal.SIGKILL)
        except ProcessLookupError:  # it has not made its group yet
            worker.kill()
    worker.join()


def own_group() -> None:
    """Make this process the head of a group, so that it can be ended with those that it starts."""
    os.setpgid(0, 0)


def _received(line: Connection, worker: Any) -> Answer:
    try:
        answer: Answer = line.recv()
    except EOFError:
        worker.join(1)
        return Answer(error=f"its process ended without an answer (code {worker.exitcode})")
    worker.join(5)
    return answer


def _answer(send: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    own_group()
    console.silence()  # what it says is its answer
    try:
        answer = Answer(function(*arguments))
    except BaseException as error:
        traceback.print_exc()
        answer = Answer(error=f"{type(error).__name__}: {' '.join(str(error).split())[:500]}")
    send.send(answer)
