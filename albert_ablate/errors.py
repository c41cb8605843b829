"""Errors that the user can fix: the terminal shows a message, never a traceback."""

import re
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher
from itertools import takewhile

#: The least similarity of a name to what was typed, from 0 to 1, at which it is suggested.
_SIMILAR = 0.6


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The name that ``word`` was probably meant to be, or None: the most similar one, or the one it abbreviates.

    Of equally similar names, the one with the longer common beginning: e128 for e129, rather than e192.
    """
    names = list(known)
    similarity = {name: SequenceMatcher(None, name.lower(), word.lower()).ratio() for name in names}
    best = max(names, key=lambda name: (similarity[name], _same_letters(name, word)), default=None)
    if best is not None and similarity[best] >= _SIMILAR:
        return best
    return next((name for name in names if len(word) > 1 and _initials(name) == word.lower()), None)


def _same_letters(name: str, word: str) -> int:
    """The length of the beginning that both have."""
    return len(list(takewhile(lambda letters: letters[0] == letters[1], zip(name, word, strict=False))))


def _initials(name: str) -> str:
    return "".join(part[:1] for part in re.split(r"[\W_]+", name.lower()))


def did_you_mean(word: str, known: Iterable[str], prefix: str = "") -> str:
    """``Did you mean PREFIXname? `` with the nearest of the ``known`` names; empty if none is near."""
    name = nearest(word, known)
    return "" if name is None else f"Did you mean {prefix}{name}? "


class UserError(Exception):
    """A condition the user can change. ``exit_code`` is what the process returns."""

    exit_code = 1

    @property
    def message(self) -> str:
        """The text for the terminal."""
        return str(self)


def raise_worst(failures: Sequence[UserError], of: str) -> None:
    """Raise the error with the highest exit code, if there are any, saying how many failed ``of`` what."""
    if failures:
        worst = max(failures, key=lambda error: error.exit_code)
        raise type(worst)(f"{len(failures)} of {of} failed; the first: {failures[0]}")


class ConfigError(UserError):
    """One or more settings are wrong; raised before any data are read."""

    exit_code = 2

    def __init__(self, problems: list[str] | str) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))

    @property
    def message(self) -> str:
        """One line for each problem."""
        return "Nothing was run; the settings need a change:\n" + "\n".join(f"  - {p}" for p in self.problems)


class ArgumentsError(UserError):
    """Options or arguments of a command are wrong."""

    exit_code = 2


class DataError(UserError):
    """The corpus, tokenizer or store cannot serve the configured run."""

    exit_code = 2


class NotTextError(DataError):
    """A file without text: refused if it is named, skipped in a folder."""


class RunFolderError(UserError):
    """The run folder is in use by another process or holds something unexpected."""

    exit_code = 2


class NoRunsError(UserError, FileNotFoundError):
    """A command found no run folders to read."""

    exit_code = 2


class DamagedFileError(RunFolderError, ValueError):
    """A file that this project wrote has been damaged."""


class LockedError(RunFolderError):
    """Another living process owns the run folder."""


class MemoryExhaustedError(UserError):
    """Memory ran out on the device or the machine."""

    exit_code = 1


class CheckpointError(UserError):
    """No checkpoint in the run folder is usable."""

    exit_code = 1


class ForeignCheckpointError(CheckpointError):
    """A checkpoint of another library that cannot be imported."""

    exit_code = 2


class DiskFullError(UserError):
    """The disk is full; earlier saves are whole, and the same command continues."""

    exit_code = 28  # ENOSPC


class DivergedError(UserError):
    """The loss or the gradient is no longer finite."""

    exit_code = 3


class PeerLostError(UserError):
    """Another process of the same run has died."""

    exit_code = 1


class PreemptedError(UserError):
    """The process was asked to stop; state is saved and the same command continues.

    The message is ``event``, then ``consequence``. ``limit``: a cluster sent the signal, ahead of a time
    limit.
    """

    exit_code = 75

    def __init__(self, event: str, consequence: str = "", limit: bool = False) -> None:
        self.event = event
        self.consequence = consequence
        self.limit = limit
        super().__init__(f"{event}; {consequence}." if consequence else event)


class NoProgressError(PreemptedError):
    """Stopped by a time limit too often, or repeatedly without progress: starting again does not help."""

    exit_code = 1
