"""The run folder: the one contract between training and analysis.

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
#: Of an imported run, the tokenizer as the checkpoint had it, where an export would write another.
TOKENIZER_JSON = "tokenizer.json"
#: Ended by an error of its own; started again only when the same command is given.
FAILURES: tuple[State, ...] = ("failed", "diverged")


def wanted(rerun: str, state: str) -> bool:
    """Whether a run in ``state`` is to be run; ``rerun`` is missing (which takes failed ones too), failed or all."""
    return {"missing": state != "finished", "failed": state in FAILURES, "all": True}[rerun]


class RunFolder:
    """One cell's folder."""

    def __init__(self, root: Path, name: str) -> None:
        self.name = name
        self.path = root / name
        self.checkpoints = self.path / "checkpoints"
        self._metrics = self.path / "metrics.jsonl"
        self.note: Callable[..., None] = lambda **_: None  # tells the board what is going on

    @property
    def identity(self) -> str:
        """The hash that its name ends with."""
        return self.name.rpartition("-")[2]

    def state(self) -> str:
        """A ``State``, or ``missing``; a run whose process died without a word is ``preempted``."""
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
        """Content of ``status.json``, or None for a folder that was never started."""
        file = self.path / "status.json"
        if not file.is_file():
            return None
        try:
            found: dict[str, Any] = read_json(file)
            Status.read(found)
        except ValueError:
            raise RunFolderError(
                f"{file} is damaged. Remove it, and the same command continues from the last checkpoint."
            ) from None
        return found

    def set_status(
        self, state: State, reason: str | None = None, exit_code: int | None = None, limit_at: int | None = None
    ) -> None:
        """Record ``state``, the time, the process and, of a failure, reason and exit code.

        ``limit_at``: a time limit was reached with this step saved. ``time_limits`` lists those of all
        rounds; a run that failed and is started again begins a new list.
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
        """The steps that were saved when a time limit was reached; ``again``: as a new start counts them."""
        before = self.status() or {}
        return [] if again and before.get("state") in FAILURES else list(before.get("time_limits", []))

    def saved_step(self) -> int:
        """The step of the newest checkpoint; 0 without one."""
        return max((int(path.name[5:]) for path in self.checkpoints.glob("step_*[0-9]")), default=0)

    def write(self, name: str, value: Part | str) -> None:
        """A record as JSON, or a text, atomically."""
        target = self.path / name
        write_text(target, value) if isinstance(value, str) else write_record(target, value)

    def amend(self, name: str, changes: Part) -> None:
        """Replace the fields of a record that ``changes`` has set."""
        amend_record(self.path / name, changes)

    def load(self, name: str, form: type[AnyPart]) -> AnyPart:
        """A record of the folder as ``form``. Raises DamagedFileError."""
        return load_record(self.path / name, form)

    def read(self, name: str) -> Any:
        """A JSON file of the folder."""
        return read_json(self.path / name)

    def append_metrics(self, line: dict[str, Any]) -> None:
        """One line of ``metrics.jsonl``, of the fields of ``Line``."""
        Line.model_validate(line)
        with self._metrics.open("a", encoding="utf-8") as out:
            out.write(json.dumps(line, allow_nan=False) + "\n")
            out.flush()
            os.fsync(out.fileno())  # a checkpoint must not outlive the lines before it

    def truncate_metrics(self, step: int) -> None:
        """Keep the lines up to ``step``; a half-written last line is dropped."""
        kept = [line for line in self.metrics() if line["step"] <= step]
        write_text(self._metrics, "".join(json.dumps(line, allow_nan=False) + "\n" for line in kept))

    def metrics(self) -> list[dict[str, Any]]:
        """Lines of ``metrics.jsonl`` that parse."""
        if not self._metrics.is_file():
            return []
        found = []
        for text in self._metrics.read_text(encoding="utf-8").splitlines():
            try:
                line = json.loads(text)
                found.append(line | {"step": int(line["step"])})
            except (ValueError, TypeError, KeyError, RecursionError):
                break
        return found

    def say(self, text: str) -> None:
        """One line to the terminal and to ``log.txt``."""
        console.say(text)
        self.log(text)

    def log(self, text: str) -> None:
        """One line, or a traceback, to ``log.txt`` alone."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "log.txt").open("a", encoding="utf-8") as out:
            out.write(f"{datetime.now(UTC).isoformat(timespec='seconds')} {text}\n")


class SilentFolder(RunFolder):
    """The same folder for a process that must not write: one of several that work on one run."""

    def set_status(
        self, state: State, reason: str | None = None, exit_code: int | None = None, limit_at: int | None = None
    ) -> None:
        """Nothing."""

    def write(self, name: str, value: Part | str) -> None:
        """Nothing."""

    def amend(self, name: str, changes: Part) -> None:
        """Nothing."""

    def append_metrics(self, line: dict[str, Any]) -> None:
        """Nothing."""

    def truncate_metrics(self, step: int) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Nothing."""

    def log(self, text: str) -> None:
        """Nothing."""


def standing_of(run: RunFolder, units: Sequence[RunFolder]) -> tuple[str, dict[str, Any] | None]:
    """(state, status of what is in that state) of a cell: pretraining first, then its units.

    While a process owns the run and a unit is missing, the cell is running; a failed unit makes it
    failed, a stopped one preempted, and one that was never started makes it missing.
    """
    state = run.state()
    if state != "finished" or not units:
        return state, run.status()
    states = [unit.state() for unit in units]
    if all(found == "finished" for found in states):
        return "finished", run.status()
    if owner(run.path) is not None or "running" in states:
        return "running", run.status()
    for wanted_state in (*FAILURES, "preempted"):
        if wanted_state in states:
            return wanted_state, units[states.index(wanted_state)].status()
    return "missing", None
