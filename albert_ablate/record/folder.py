"""The run folder: the only interface between training and analysis.

``runs/<readable name>-<identity>/`` holds ``config.yaml``, ``manifest.json``, ``status.json``,
``metrics.jsonl``, ``results.json``, ``similarity.json``, ``log.txt`` and ``checkpoints/``.
"""

import json
import os
import socket
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from albert_ablate import console
from albert_ablate.errors import RunFolderError
from albert_ablate.files import read_json, write_text
from albert_ablate.record.lock import owner, require_free
from albert_ablate.record.metrics import Line
from albert_ablate.record.part import AnyPart, Part, amend_record, load_record, write_record
from albert_ablate.record.status import State, Status

#: The run's SentencePiece model, a copy, so that the folder can be used without the cache.
TOKENIZER = "spiece.model"
#: The original tokenizer of an imported run, kept if an export would write a different one.
TOKENIZER_JSON = "tokenizer.json"
#: States of runs that ended with an error; only a new command starts them again.
FAILURES: tuple[State, ...] = ("failed", "diverged")


def wanted(rerun: str, state: str) -> bool:
    """Whether ``rerun`` (missing, failed or all) selects a run in ``state``; missing includes failed runs."""
    return {"missing": state != "finished", "failed": state in FAILURES, "all": True}[rerun]


class RunFolder:
    """The folder of one run or fine-tuning."""

    def __init__(self, root: Path, name: str) -> None:
        self.name = name
        self.path = root / name
        self.checkpoints = self.path / "checkpoints"
        self._metrics = self.path / "metrics.jsonl"
        self.note: Callable[..., None] = lambda **_: None  # reports progress to the board

    @classmethod
    def at(cls, path: Path) -> "RunFolder":
        """The folder at ``path``, which may begin with ~, under its real name even for ``.`` and links."""
        real = path.expanduser().resolve()
        return cls(real.parent, real.name)

    @property
    def identity(self) -> str:
        """The hash at the end of the folder's name."""
        return self.name.rpartition("-")[2]

    def state(self) -> str:
        """A ``State`` or ``missing``; a run whose process died without recording a status is ``preempted``."""
        status = self.status()
        if status is None:
            return "missing"
        if status["state"] == "running" and owner(self.path) is None:
            return "preempted"
        return str(status["state"])

    def set_aside(self) -> None:
        """Move the folder to ``.replaced/`` under a new name. Raises LockedError while it is in use."""
        if not self.path.exists():
            return
        require_free(self.path)
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
        target = self.path.parent / ".replaced" / f"{self.name}-{stamp}"
        target.parent.mkdir(exist_ok=True)
        os.rename(self.path, target)

    def status(self) -> dict[str, Any] | None:
        """Content of ``status.json``; None if the run was never started. Raises RunFolderError if damaged."""
        file = self.path / "status.json"
        if not file.is_file():
            return None
        try:
            status: dict[str, Any] = read_json(file)
            Status.read(status)
        except ValueError:
            raise RunFolderError(
                f"{file} is damaged. Remove it, and the same command continues from the last checkpoint."
            ) from None
        return status

    def set_status(
        self, state: State, reason: str | None = None, exit_code: int | None = None, limit_at: int | None = None
    ) -> None:
        """Record ``state``, the time, the process and, for a failure or a stop, reason and exit code.

        ``limit_at``: the step saved when a time limit was reached. ``time_limits`` lists these steps over
        all rounds; a failed run that is started again begins a new list.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        started = (self.status() or {}).get("started", now)
        limits = self.time_limits(again=state == "running") + ([] if limit_at is None else [limit_at])
        status = Status(
            state=state, reason=reason, exit_code=exit_code, started=started, updated=now, host=socket.gethostname(),
            pid=os.getpid(),
        )  # fmt: skip
        if limits:
            status.time_limits = limits
        write_record(self.path / "status.json", status)

    def time_limits(self, again: bool = False) -> list[int]:
        """The steps saved at time limits; ``again``: at a new start, which forgets those before a failure."""
        before = self.status() or {}
        return [] if again and before.get("state") in FAILURES else list(before.get("time_limits", []))

    def saved_step(self) -> int:
        """The step of the newest checkpoint, added to that of an earlier stage in a sub-folder; 0 if there is none."""
        stages = (self.checkpoints, *self.path.glob("*/checkpoints"))
        return sum(max((int(path.name[5:]) for path in stage.glob("step_*[0-9]")), default=0) for stage in stages)

    def write(self, name: str, value: Part | str) -> None:
        """Write a record as JSON, or a text, atomically."""
        target = self.path / name
        write_text(target, value) if isinstance(value, str) else write_record(target, value)

    def amend(self, name: str, changes: Part) -> None:
        """Replace the fields of a record that ``changes`` has set."""
        amend_record(self.path / name, changes)

    def load(self, name: str, form: type[AnyPart]) -> AnyPart:
        """Read a record of the folder as ``form``. Raises DamagedFileError."""
        return load_record(self.path / name, form)

    def read(self, name: str) -> Any:
        """Read a JSON file of the folder. Raises DamagedFileError."""
        return read_json(self.path / name)

    def append_metrics(self, line: dict[str, Any]) -> None:
        """Append one line to ``metrics.jsonl``, with the fields of ``Line``."""
        Line.model_validate(line)
        with self._metrics.open("a", encoding="utf-8") as out:
            out.write(json.dumps(line, allow_nan=False) + "\n")
            out.flush()
            os.fsync(out.fileno())  # a later checkpoint must not survive without these lines

    def truncate_metrics(self, step: int) -> None:
        """Keep the lines up to ``step``; a half-written last line is dropped."""
        kept = [line for line in self.metrics() if line["step"] <= step]
        write_text(self._metrics, "".join(json.dumps(line, allow_nan=False) + "\n" for line in kept))

    def metrics(self) -> list[dict[str, Any]]:
        """Lines of ``metrics.jsonl`` up to the first that does not parse."""
        if not self._metrics.is_file():
            return []
        lines = []
        for text in self._metrics.read_text(encoding="utf-8").splitlines():
            try:
                line = json.loads(text)
                lines.append(line | {"step": int(line["step"])})
            except (ValueError, TypeError, KeyError, RecursionError):
                break
        return lines

    def say(self, text: str) -> None:
        """Print one line and append it to ``log.txt``."""
        console.say(text)
        self.log(text)

    def log(self, text: str) -> None:
        """Append one line or a traceback to ``log.txt``."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "log.txt").open("a", encoding="utf-8") as out:
            out.write(f"{datetime.now(UTC).isoformat(timespec='seconds')} {text}\n")


class SilentFolder(RunFolder):
    """The folder for a process that must not write, such as rank 1 of a distributed run."""

    def set_status(
        self, state: State, reason: str | None = None, exit_code: int | None = None, limit_at: int | None = None
    ) -> None:
        """Does nothing."""

    def write(self, name: str, value: Part | str) -> None:
        """Does nothing."""

    def amend(self, name: str, changes: Part) -> None:
        """Does nothing."""

    def append_metrics(self, line: dict[str, Any]) -> None:
        """Does nothing."""

    def truncate_metrics(self, step: int) -> None:
        """Does nothing."""

    def say(self, text: str) -> None:
        """Does nothing."""

    def log(self, text: str) -> None:
        """Does nothing."""


def standing_of(run: RunFolder, units: Sequence[RunFolder]) -> tuple[str, dict[str, Any] | None]:
    """(state, status of the run or unit in that state) of a cell: pretraining first, then its units.

    While a process owns the run and units are missing, the cell is running. Otherwise a failed unit
    makes it failed, a stopped one preempted, and one that was never started missing.
    """
    state = run.state()
    if state != "finished" or not units:
        return state, run.status()
    states = [unit.state() for unit in units]
    if all(unit_state == "finished" for unit_state in states):
        return "finished", run.status()
    if owner(run.path) is not None or "running" in states:
        return "running", run.status()
    for wanted_state in (*FAILURES, "preempted"):
        if wanted_state in states:
            return wanted_state, units[states.index(wanted_state)].status()
    return "missing", None
