"""Runs functions in separate processes with a time limit, so that one that fails, dies or hangs ends no other."""

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
    """The value that a function returned, or the error instead."""

    value: Any = None
    error: str | None = None


def alone(function: Callable[..., Any], *arguments: Any, seconds: float) -> Answer:
    """The answer of ``function(*arguments)``; its process is ended after ``seconds``."""
    return together([(function, arguments)], seconds)[0]


def together(calls: Sequence[Call], seconds: float) -> list[Answer]:
    """The answers of functions that run at the same time, each in a separate process, for at most ``seconds``.

    Functions, arguments and values must be picklable. The processes start with the libraries loaded and no GPU in
    use. A process that is ended takes its child processes with it.
    """
    end = time.monotonic() + seconds
    started = [_started(function, arguments) for function, arguments in calls]
    workers, lines = [worker for worker, _ in started], [line for _, line in started]
    answers: dict[int, Answer] = {}
    while len(answers) < len(calls) and (left := end - time.monotonic()) > 0:
        for line in wait([line for i, line in enumerate(lines) if i not in answers], left):
            number = lines.index(line)  # type: ignore[arg-type]
            answers[number] = _received(lines[number], workers[number])
    for worker in workers:
        end_group(worker)
    late = Answer(error=f"not finished after {seconds:.0f} s")
    return [answers.get(number, late) for number in range(len(calls))]


class Background:
    """A function that runs in a separate process until it is done or is ended; its value is not used."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._call = function, arguments
        self._started: tuple[Any, Connection] | None = None

    def begin(self) -> str:
        """Start it."""
        self._started = _started(*self._call)
        return "begun"

    def end(self) -> str:
        """End the process if it still runs; returns its outcome as a message. Safe to repeat."""
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
    """End a process that has called ``own_group``, and its child processes."""
    if worker.is_alive():
        try:
            os.killpg(worker.pid, signal.SIGKILL)
        except ProcessLookupError:  # it has not called ``own_group`` yet
            worker.kill()
    worker.join()


def own_group() -> None:
    """Make this process the leader of a process group, so that it can be ended with its child processes."""
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
    console.silence()  # only the answer counts
    try:
        answer = Answer(function(*arguments))
    except BaseException as error:
        traceback.print_exc()
        answer = Answer(error=f"{type(error).__name__}: {' '.join(str(error).split())[:500]}")
    send.send(answer)
