"""The identity of a student's teacher, or of the run that another continues, read from its folder."""

from pathlib import Path
from typing import Any

from albert_ablate.errors import ConfigError, RunFolderError
from albert_ablate.files import read_json
from albert_ablate.record.folder import RunFolder


def with_identity(method: dict[str, Any]) -> dict[str, Any]:
    """The plain settings of ``method`` with ``teacher_run``. Raises ConfigError if the teacher is no finished run."""
    named = method.get("teacher")
    if not isinstance(named, str) or method.get("teacher_run") is not None:
        return method
    path = Path(named).expanduser()
    where = f"method.teacher={named}"
    if not (path / "config.yaml").is_file():
        raise ConfigError(
            f"{where}: no run folder. Name one, such as runs/e128-all-sop-nano-s0-..., or leave it empty."
        )
    return method | {"teacher_run": identity_of(path, where, "A teacher")}


def identity_of(path: Path, where: str, what: str) -> str:
    """The identity of the finished run in ``path``.

    ``where``: the setting that names it, ``what`` it is there, for messages. Raises ConfigError if it is not finished.
    """
    run = RunFolder.at(path)
    try:
        state = run.state()
        manifest = read_json(path / "manifest.json")
    except (OSError, ValueError, RunFolderError) as error:
        raise ConfigError(f"{where}: its record cannot be read ({error}).") from None
    if state != "finished":
        raise ConfigError(f"{where}: that run is {state}. {what} must be finished; run it first.")
    identity = manifest.get("identity") if isinstance(manifest, dict) else None
    return str(identity or run.identity)
