"""Records why a run or a fine-tuning ended early as its status, and explains it to the user."""

import errno
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from albert_ablate import console
from albert_ablate.errors import (
    DiskFullError,
    DivergedError,
    MemoryExhaustedError,
    NoProgressError,
    PeerLostError,
    PreemptedError,
    RunFolderError,
    UserError,
)
from albert_ablate.record.folder import RunFolder
from albert_ablate.record.status import State

#: Consecutive time limits at the same saved step after which a run fails.
_SAME_STEP = 3
#: Messages of failed allocations other than torch's: the system's, cuBLAS's and the CUDA runtime's.
_NO_MEMORY = ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDA error: out of memory")
_FULL = (errno.ENOSPC, errno.EDQUOT)
#: Errors of a folder that cannot be created or written.
_REFUSED = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP,
)  # fmt: skip


@contextmanager
def recorded(folder: RunFolder, no_memory: str, time_limits: int) -> Iterator[None]:
    """Run the body; its failure becomes the folder's status and a UserError.

    ``no_memory`` is the message if memory runs out; ``time_limits`` is how many time limits a run may reach.
    """
    try:
        yield
    except PreemptedError as stop:
        error, saved = _counted(stop, folder, time_limits) if stop.limit else (stop, None)
        state: State = "failed" if isinstance(error, NoProgressError) else "preempted"
        _record(folder, state, str(error), error.exit_code, saved)
        _log(folder, str(error))
        raise error from None
    except PeerLostError as stop:
        _record(folder, "preempted", str(stop), stop.exit_code)
        raise
    except DivergedError as error:
        _record(folder, "diverged", str(error), error.exit_code)
        raise
    except UserError as error:
        _record(folder, "failed", str(error), error.exit_code)
        raise
    except KeyboardInterrupt:
        _record(folder, "preempted", "interrupted", PreemptedError.exit_code)
        raise PreemptedError("Interrupted; the same command continues from the last checkpoint.") from None
    except (Exception, SystemExit) as error:
        _log(folder, traceback.format_exc())
        known = _known(folder, error, no_memory)
        if known is not None:
            _record(folder, "failed", str(known), known.exit_code)
            raise known from error
        cause = f"{type(error).__name__}: {error}"
        if isinstance(error, SystemExit):
            cause = f"exit({error.code}) was called"
        _record(folder, "failed", cause, UserError.exit_code)
        raise UserError(f"{folder.name} failed: {cause}\nDetails: {folder.path}/log.txt") from error


def disk_is_full(error: BaseException | None) -> bool:
    """Whether a full disk or quota caused ``error``, which libraries may have wrapped."""
    while error is not None:
        if (isinstance(error, OSError) and error.errno in _FULL) or "os error 28" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def out_of_memory(error: BaseException) -> bool:
    """Whether an allocation was refused, on the device or by the machine."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return any(phrase in str(error) for phrase in _NO_MEMORY)


@contextmanager
def explaining_disk_errors(runs: str, cache: str) -> Iterator[None]:
    """Explain disk errors before a run folder exists. Raises DiskFullError or RunFolderError."""
    try:
        yield
    except OSError as error:
        if disk_is_full(error):
            raise DiskFullError(
                f"No space left on the disk of {cache}. Nothing half written stays; free some space and start again."
            ) from error
        if error.errno not in _REFUSED:
            raise
        raise RunFolderError(
            f"{error.filename or 'A folder'} cannot be written ({error.strerror}). Choose folders where you may "
            f"write: paths.runs=..., which is {runs}, and paths.cache=..., which is {cache}."
        ) from error


def _known(folder: RunFolder, error: BaseException, no_memory: str) -> UserError | None:
    if disk_is_full(error):
        return DiskFullError(
            f"No space left on the disk of {folder.path}. The last checkpoint is whole: free some space, and the same "
            "command continues from it."
        )
    if out_of_memory(error):
        return MemoryExhaustedError(no_memory)
    return None


def _counted(stop: PreemptedError, folder: RunFolder, most: int) -> tuple[PreemptedError, int]:
    """The error of a time limit, with its number, and the saved step."""
    saved = folder.saved_step()
    reached = [*folder.time_limits(), saved]
    where = f" after step {saved:,}" if stop.event == "Time limit reached" and saved else ""
    reason = f"{stop.event}{where}, {ordinal(len(reached))} of {most}"
    if reached[-_SAME_STEP:] == [saved] * _SAME_STEP:
        return NoProgressError(
            f"{reason}, and {_SAME_STEP} times without getting further than step {saved:,}. Give each job more time "
            "(hydra.launcher.timeout_min on SLURM): what follows that step must fit into one. The same command then "
            "continues from there"
        ), saved  # fmt: skip
    if len(reached) >= most:
        return NoProgressError(
            f"{reason}. Give each job more time, or raise runtime.time_limits. The same command then continues from "
            "there"
        ), saved  # fmt: skip
    return PreemptedError(reason, stop.consequence, limit=True), saved


def ordinal(number: int) -> str:
    """``second``, ``10th``."""
    names = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth")
    if number <= len(names):
        return names[number - 1]
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _record(
    folder: RunFolder, state: State, reason: str, exit_code: int | None = None, limit_at: int | None = None
) -> None:
    """Record a status unless the disk is full; the folder then shows that its process is gone."""
    try:
        folder.set_status(state, reason, exit_code, limit_at)
    except OSError as error:
        console.say(f"{folder.path}: its status could not be written ({error.strerror})")


def _log(folder: RunFolder, text: str) -> None:
    try:
        folder.log(text)
    except OSError:
        console.say(text)
