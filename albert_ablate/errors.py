"""Errors that the user can fix: they reach the terminal as words, never as a traceback."""


class UserError(Exception):
    """A condition the user can change. ``exit_code`` is what the process returns."""

    exit_code = 1

    @property
    def message(self) -> str:
        """What the terminal says."""
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
    """A file that holds no text: refused where it is named, left aside in a folder."""


class RunFolderError(UserError):
    """The run folder is in use by another process or holds something unexpected."""

    exit_code = 2


class NoRunsError(UserError, FileNotFoundError):
    """There are no run folders where a command was told to read them."""

    exit_code = 1


class DamagedFileError(RunFolderError, ValueError):
    """A file of ours is not what was written."""


class LockedError(RunFolderError):
    """Another living process owns the run folder."""


class MemoryExhaustedError(UserError):
    """Memory ran out on the device or the machine."""

    exit_code = 1


class CheckpointError(UserError):
    """No checkpoint in the run folder can be used."""

    exit_code = 1


class ForeignCheckpointError(CheckpointError):
    """A checkpoint of another library that no model here can be."""

    exit_code = 2


class DiskFullError(UserError):
    """No space is left; what was saved before is whole, and the same command continues."""

    exit_code = 28  # ENOSPC


class DivergedError(UserError):
    """The loss or the gradient is no longer finite."""

    exit_code = 3


class PeerLostError(UserError):
    """Another process of the same run has died."""

    exit_code = 1


class PreemptedError(UserError):
    """The process was asked to stop; state is saved and the same command continues.

    ``what`` happened is the beginning of its words, ``then`` their end; ``limit`` is true where a
    cluster asked, ahead of a time limit.
    """

    exit_code = 75

    def __init__(self, what: str, then: str = "", limit: bool = False) -> None:
        self.what = what
        self.then = then
        self.limit = limit
        super().__init__(f"{what}; {then}." if then else what)


class NoProgressError(PreemptedError):
    """Asked to stop by a time limit, as before without getting further, or too often: starting again does not help."""

    exit_code = 1
