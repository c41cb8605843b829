"""Worker processes that run cells one after another, each cell as ``run.py`` would."""

import os
import signal
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from albert_ablate import console
from albert_ablate.errors import PreemptedError, UserError
from albert_ablate.sweeping.process import server
from benchmarks.alone import end_group, own_group
from benchmarks.rented_gpu.ladder import Job

#: Seconds that a cell gets to save after it was asked to stop.
_GRACE = 15.0


@dataclass(frozen=True)
class Outcome:
    """How a cell ended."""

    state: str  # finished, failed, stopped or lost (its process died)
    seconds: float
    reason: str = ""


class Crew:
    """So many workers; each has one job at most."""

    def __init__(self, count: int, log: Path) -> None:
        self._log = log
        self._workers = [self._hired() for _ in range(count)]
        self._jobs: dict[int, tuple[Job, float]] = {}  # worker -> its job, and since when

    def _hired(self) -> tuple[Any, Connection]:
        context = server()
        here, there = context.Pipe()
        process = context.Process(target=_work, args=(there, str(self._log)))
        process.start()
        there.close()
        return process, here

    def idle(self) -> list[int]:
        """Workers without a job."""
        return [number for number in range(len(self._workers)) if number not in self._jobs]

    def running(self) -> list[Job]:
        """Jobs that are at work."""
        return [job for job, _ in self._jobs.values()]

    def give(self, worker: int, job: Job) -> None:
        """Have an idle worker run ``job``."""
        try:
            self._workers[worker][1].send(job.words)
        except OSError:  # it died while it was idle
            self._workers[worker] = self._hired()
            self._workers[worker][1].send(job.words)
        self._jobs[worker] = job, time.monotonic()

    def ended(self, seconds: float) -> list[tuple[Job, Outcome]]:
        """Jobs that ended, after waiting for the first of them for at most ``seconds``."""
        lines = {self._workers[number][1]: number for number in self._jobs}
        found = []
        for line in wait(list(lines), max(seconds, 0)):
            number = lines[line]  # type: ignore[index]
            job, began = self._jobs.pop(number)
            try:
                found.append((job, self._workers[number][1].recv()))
            except (EOFError, OSError):
                process = self._workers[number][0]
                process.join(1)
                found.append((job, Outcome("lost", time.monotonic() - began, f"process ended: {process.exitcode}")))
                end_group(process)
                self._workers[number] = self._hired()
        return found

    def stop(self) -> list[tuple[Job, Outcome]]:
        """Ask every cell to save and stop; returns how they ended. The workers are there for more."""
        for number in self._jobs:
            process = self._workers[number][0]
            if process.is_alive():
                os.kill(process.pid, signal.SIGTERM)
        found = []
        end = time.monotonic() + _GRACE
        while self._jobs and time.monotonic() < end:
            found += self.ended(end - time.monotonic())
        for number, (job, began) in list(self._jobs.items()):
            end_group(self._workers[number][0])
            self._workers[number] = self._hired()
            found.append((job, Outcome("lost", time.monotonic() - began, "did not stop when it was asked to")))
        self._jobs.clear()
        return found

    def dismiss(self) -> None:
        """End all workers."""
        for process, line in self._workers:
            line.close()
            end_group(process)


def _work(line: Connection, log: str) -> None:
    """Body of a worker: words of a cell in, its outcome out, until the other end is closed."""
    own_group()
    with open(log, "ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    console.prepare()
    while True:
        try:
            words = line.recv()
        except EOFError:
            return
        line.send(run_words(words))


def run_words(words: tuple[str, ...]) -> Outcome:
    """Run the cell that these words describe."""
    from albert_ablate.door.compose import compose, paper_setup
    from albert_ablate.experiment import run_cell

    began = time.monotonic()
    try:
        config = compose(words)
        run_cell(config, paper_setup(config))
        return Outcome("finished", time.monotonic() - began)
    except PreemptedError as error:
        return Outcome("stopped", time.monotonic() - began, str(error))
    except UserError as error:
        return Outcome("failed", time.monotonic() - began, str(error))
