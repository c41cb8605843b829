"""Errors that the user can fix: the terminal shows a message, never a traceback."""


class UserError(Exception):
    """A condition the user can change. ``exit_code`` is what the process returns."""

    exit_code = 1

    @property
    def message(self) -> str:
        """The text for the terminal."""
        return str(self)


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

    exit_code = 1


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
