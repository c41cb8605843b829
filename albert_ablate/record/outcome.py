"""Whatever ends a run or a fine-tuning early becomes its recorded status, and words."""

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

#: Rounds in succession that a time limit may end at the same step.
_SAME_STEP = 3
#: Allocations that are refused in other words than torch's: the system's, cuBLAS's and the CUDA runtime's.
_NO_MEMORY = ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDA error: out of memory")
_FULL = (errno.ENOSPC, errno.EDQUOT)
#: Of a folder that cannot be made or written.
_REFUSED = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP,
)  # fmt: skip


@contextmanager
def recorded(folder: RunFolder, no_memory: str, time_limits: int) -> Iterator[None]:
    """Run the body; its failure becomes the folder's status and a UserError.

    ``no_memory`` is what to say where memory ran out; so many ``time_limits`` may be reached.
    """
    try:
        yield
    except PreemptedError as stop:
        error, saved = _counted(stop, folder, time_limits) if stop.limit else (stop, None)
        if isinstance(error, NoProgressError):
            _record(folder, "failed", str(error), error.exit_code, saved)
        else:
            _record(folder, "preempted", str(error), limit_at=saved)
        _log(folder, str(error))
        raise error from None
    except PeerLostError as stop:
        _record(folder, "preempted", str(stop))
        raise
    except DivergedError as error:
        _record(folder, "diverged", str(error), error.exit_code)
        raise
    except UserError as error:
        _record(folder, "failed", str(error), error.exit_code)
        raise
    except KeyboardInterrupt:
        _record(folder, "preempted", "interrupted")
        raise PreemptedError("Interrupted; the same command continues from the last checkpoint.") from None
    except (Exception, SystemExit) as error:
        _log(folder, traceback.format_exc())
        known = _known(folder, error, no_memory)
        if known is not None:
            _record(folder, "failed", str(known), known.exit_code)
            raise known from error
        what = f"exit({error.code}) was called" if isinstance(error, SystemExit) else f"{type(error).__name__}: {error}"
        _record(folder, "failed", what, UserError.exit_code)
        raise UserError(f"{folder.name} failed: {what}\nDetails: {folder.path}/log.txt") from error


def disk_is_full(error: BaseException | None) -> bool:
    """Whether a full disk or quota is behind ``error``; libraries wrap it in errors of their own."""
    while error is not None:
        if (isinstance(error, OSError) and error.errno in _FULL) or "os error 28" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def out_of_memory(error: BaseException) -> bool:
    """Whether an allocation was refused, on the device or by the machine."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return any(words in str(error) for words in _NO_MEMORY)


@contextmanager
def disk_in_words(runs: str, cache: str) -> Iterator[None]:
    """What the disk refuses before there is a run folder. Raises DiskFullError or RunFolderError."""
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
            f"{error.filename or 'A folder'} cannot be written ({error.strerror}). Set paths.runs={runs} and "
            f"paths.cache={cache} to folders where you may write."
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
    """A time limit, with which one it is, and the step that is saved."""
    saved = folder.saved_step()
    reached = [*folder.time_limits(), saved]
    where = f" after step {saved:,}" if stop.what == "Time limit reached" and saved else ""
    what = f"{stop.what}{where}, {ordinal(len(reached))} of {most}"
    if reached[-_SAME_STEP:] == [saved] * _SAME_STEP:
        return NoProgressError(
            f"{what}, and {_SAME_STEP} times without getting further than step {saved:,}. Give each job more time "
            "(hydra.launcher.timeout_min on SLURM): what follows that step must fit into one. The same command then "
            "continues from there"
        ), saved  # fmt: skip
    if len(reached) >= most:
        return NoProgressError(
            f"{what}. Give each job more time, or raise runtime.time_limits. The same command then continues from there"
        ), saved  # fmt: skip
    return PreemptedError(what, stop.then, limit=True), saved


def ordinal(number: int) -> str:
    """``second``; from ten on in figures."""
    words = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth")
    if number <= len(words):
        return words[number - 1]
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _record(
    folder: RunFolder, state: State, reason: str, exit_code: int | None = None, limit_at: int | None = None
) -> None:
    """As far as a full disk allows it: without it the folder still says that its process is gone."""
    try:
        folder.set_status(state, reason, exit_code, limit_at)
    except OSError as error:
        console.say(f"{folder.path}: its status could not be written ({error.strerror})")


def _log(folder: RunFolder, text: str) -> None:
    try:
        folder.log(text)
    except OSError:
        console.say(text)
