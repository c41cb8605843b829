"""Runs each cell in its own process, so that no failure of a cell ends the sweep.

Cells are forked from a server process that has loaded the libraries and computed nothing, so a cell
starts in milliseconds with fresh threads. A cell whose parent dies saves and exits.
"""

import multiprocessing
import os
import signal
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, TypeVar

from albert_ablate import console
from albert_ablate.config.parse import parse
from albert_ablate.config.schema import RunConfig
from albert_ablate.errors import LockedError, PreemptedError, UserError
from albert_ablate.stopping import blocked, limits_postponed, stoppable, unblocked
from albert_ablate.sweeping.cards import gpu_slot

#: Loaded once for all cells of a sweep: modules that a run imports late, and joblib. A cell started by a joblib
#: worker inherits joblib's way of starting processes and must be able to import it.
_PRELOAD = [
    "__main__", "albert_ablate.experiment", "joblib", "scipy.stats", "sklearn.linear_model",
    "sklearn.pipeline",
]  # fmt: skip
#: Seconds that a cell gets to save after a stop signal.
_GRACE = 120.0


Answer = TypeVar("Answer")


class UnansweredError(UserError):
    """A process ended without answering its question."""


@dataclass(frozen=True)
class Outcome:
    """How a cell's process ended."""

    code: int  # 0, or the exit code of its failure
    message: str = ""
    elsewhere: bool = False  # another process is training it

    @property
    def stopped(self) -> bool:
        """Whether it was stopped from outside; started again, it continues."""
        return self.code == PreemptedError.exit_code


def run_in_process(config: RunConfig, paper: RunConfig) -> Outcome:
    """Run one cell and wait for it. A stop signal or Ctrl-C is passed on once, then raised again.

    A cluster's signal ahead of a time limit goes to the cell first, which saves. Then the launcher gets
    it and requeues the job, unless the cell has ended.
    """
    context = server()
    output = Path(config.paths.runs).resolve() / ".multirun" / f"{uuid.uuid4().hex}.out"
    output.parent.mkdir(parents=True, exist_ok=True)
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_cell, args=(config.as_dict(), paper.as_dict(), str(output), send))
    warm_up()
    with blocked():
        process.start()
    send.close()
    with limits_postponed(lambda number: os.kill(process.pid, number)) as launchers_turn:
        try:
            process.join()
        except BaseException:  # Ctrl-C, SIGTERM, or a cluster's end of this job
            process.terminate()
            try:
                process.join(_GRACE)
            finally:
                process.kill()
            raise
        finally:
            printed = output.read_text(errors="replace").strip() if output.exists() else ""
            output.unlink(missing_ok=True)
    try:
        outcome: Outcome = receive.recv()
    except EOFError:
        return _unanswered(process.exitcode, printed)
    if outcome.stopped:
        launchers_turn()
    return outcome


def answer_apart(question: Callable[..., Answer], *values: Any) -> Answer:
    """What ``question`` returns in a separate process. Resources such as a CUDA context are freed with that process.

    Raises UserError if it fails, UnansweredError if the process ends without an answer.
    """
    receive, send = server().Pipe(duplex=False)
    process = server().Process(target=_answer, args=(question, values, send))
    process.start()
    send.close()
    try:
        answer, problem = receive.recv()
    except EOFError:
        process.join()
        raise UnansweredError(f"its process ended with code {process.exitcode}") from None
    process.join()
    if problem is not None:
        raise UserError(problem)
    returned: Answer = answer
    return returned


def _answer(question: Callable[..., Any], values: tuple[Any, ...], send: Connection) -> None:
    """Body of that process."""
    console.silence()
    try:
        send.send((question(*values), None))
    except Exception as error:
        send.send((None, f"{type(error).__name__}: {error}"))


def server() -> Any:
    """The multiprocessing context; its server process loads the libraries before the first fork."""
    context: Any = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    return context


def warm_up() -> None:
    """Start the server process; it loads the libraries in the background.

    A cluster signals every process of a job, so the server and Python's resource tracker block stop signals.
    """
    server()
    with blocked():
        resource_tracker.ensure_running()  # it unblocks some signals
    with blocked():
        forkserver.ensure_running()


def _unanswered(code: int | None, printed: str) -> Outcome:
    """The outcome of a process that ended without one."""
    last = f" Its last words: {printed.splitlines()[-1]}" if printed else ""
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        hint = ", often because the machine ran out of memory" if -code == signal.SIGKILL else ""
        return Outcome(1, f"killed by {name}{hint}.{last}")
    return Outcome(1, f"the process ended with code {code}.{last}")


def _cell(values: dict[str, Any], paper: dict[str, Any], output: str, send: Connection) -> None:
    """Body of the process."""
    os.setpgid(0, 0)  # Ctrl-C reaches only the sweep, which passes it on
    with open(output, "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    console.prepare()
    console.silence()
    try:
        with stoppable(patient=True), unblocked():
            threading.Thread(target=_leave_with_parent, name="parent watch", daemon=True).start()
            from albert_ablate.experiment import run_cell

            config = parse(values)
            with gpu_slot(config.runtime.device, config.runtime.cells_per_gpu):
                run_cell(config, parse(paper))
        outcome = Outcome(0)
    except LockedError as error:
        outcome = Outcome(0, str(error), elsewhere=True)
    except UserError as error:
        outcome = Outcome(error.exit_code, str(error))
    send.send(outcome)


def _leave_with_parent() -> None:
    """Make this process save and stop when its parent is gone."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
