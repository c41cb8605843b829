"""Worker processes that run cells one after another, as ``run.py`` does."""

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

#: Seconds that a cell has for saving after it was asked to stop.
_GRACE = 15.0


@dataclass(frozen=True)
class Outcome:
    """How a cell ended."""

    state: str  # finished, failed, stopped or lost (its process died)
    seconds: float
    reason: str = ""


class Crew:
    """A number of workers, each with at most one job."""

    def __init__(self, count: int, log: Path) -> None:
        self._log = log
        self._workers = [self._hired() for _ in range(count)]
        self._jobs: dict[int, tuple[Job, float]] = {}  # worker -> its job and when that began

    def _hired(self) -> tuple[Any, Connection]:
        context = server()
        line, child = context.Pipe()
        process = context.Process(target=_work, args=(child, str(self._log)))
        process.start()
        child.close()
        return process, line

    def idle(self) -> list[int]:
        """Workers without a job."""
        return [number for number in range(len(self._workers)) if number not in self._jobs]

    def running(self) -> list[Job]:
        """Jobs that are running."""
        return [job for job, _ in self._jobs.values()]

    def give(self, worker: int, job: Job) -> None:
        """Give ``job`` to an idle worker."""
        try:
            self._workers[worker][1].send(job.overrides)
        except OSError:  # it died while it was idle
            self._workers[worker] = self._hired()
            self._workers[worker][1].send(job.overrides)
        self._jobs[worker] = job, time.monotonic()

    def ended(self, seconds: float) -> list[tuple[Job, Outcome]]:
        """The jobs that have ended; waits for at most ``seconds`` until there is one."""
        lines = {self._workers[number][1]: number for number in self._jobs}
        outcomes = []
        for line in wait(list(lines), max(seconds, 0)):
            number = lines[line]  # type: ignore[index]
            job, began = self._jobs.pop(number)
            try:
                outcomes.append((job, self._workers[number][1].recv()))
            except (EOFError, OSError):
                process = self._workers[number][0]
                process.join(1)
                reason = f"process ended: {process.exitcode}"
                outcomes.append((job, Outcome("lost", time.monotonic() - began, reason)))
                end_group(process)
                self._workers[number] = self._hired()
        return outcomes

    def stop(self) -> list[tuple[Job, Outcome]]:
        """Ask every cell to save and stop; returns how the cells ended. The workers can be given new jobs."""
        for number in self._jobs:
            process = self._workers[number][0]
            if process.is_alive():
                os.kill(process.pid, signal.SIGTERM)
        outcomes = []
        end = time.monotonic() + _GRACE
        while self._jobs and time.monotonic() < end:
            outcomes += self.ended(end - time.monotonic())
        for number, (job, began) in list(self._jobs.items()):
            end_group(self._workers[number][0])
            self._workers[number] = self._hired()
            outcomes.append((job, Outcome("lost", time.monotonic() - began, "did not stop when it was asked to")))
        self._jobs.clear()
        return outcomes

    def dismiss(self) -> None:
        """End all workers."""
        for process, line in self._workers:
            line.close()
            end_group(process)


def _work(line: Connection, log: str) -> None:
    """Body of a worker: receives the overrides of a cell and sends its outcome, until the pipe is closed."""
    own_group()
    with open(log, "ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    console.prepare()
    while True:
        try:
            overrides = line.recv()
        except EOFError:
            return
        line.send(train_cell(overrides))


def train_cell(overrides: tuple[str, ...]) -> Outcome:
    """Run the cell with these overrides."""
    from albert_ablate.door.compose import compose, paper_setup
    from albert_ablate.experiment import run_cell

    began = time.monotonic()
    try:
        config = compose(overrides)
        run_cell(config, paper_setup(config))
        return Outcome("finished", time.monotonic() - began)
    except PreemptedError as error:
        return Outcome("stopped", time.monotonic() - began, str(error))
    except UserError as error:
        return Outcome("failed", time.monotonic() - began, str(error))
