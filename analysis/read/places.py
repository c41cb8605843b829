"""The folders given to a command: the runs in them, and whether results may be written there."""

import tempfile
from collections.abc import Iterable
from pathlib import Path

from albert_ablate.errors import ConfigError, NoRunsError, RunFolderError, UserError
from albert_ablate.files import read_json


def run_folders(path: Path) -> list[Path]:
    """``path`` itself if it is a run folder, else the run folders in it. Raises NoRunsError where there are none."""
    if (path / "status.json").is_file():
        _require_run(path)
        return [path]
    folders = inside(path)
    if not folders:
        raise NoRunsError(no_runs(path))
    _require_run(folders[0])
    return folders


def inside(path: Path) -> list[Path]:
    """Folders in ``path`` that hold a ``status.json``, sorted; names that begin with a dot are ignored."""
    return sorted(file.parent for file in path.glob("*/status.json") if not file.parent.name.startswith("."))


#: Folders of a run whose sub-folders have a ``status.json``, too.
_UNITS = ("tasks", "kshot")


def _require_run(folder: Path) -> None:
    """Raises NoRunsError for the folder of a fine-tuning, which also has a ``status.json``."""
    try:
        manifest = read_json(folder / "manifest.json")
        unit = isinstance(manifest, dict) and "task" in manifest and "parameters" not in manifest
    except (OSError, ValueError):
        unit = folder.parent.name in _UNITS and (folder.parent.parent / "status.json").is_file()
    if unit:
        raise NoRunsError(
            f"{folder}: no run folders there, but a fine-tuning of one. Name the run folder; its results.json "
            "gathers its fine-tunings."
        )


def no_runs(path: Path) -> str:
    """Why ``path`` holds no run, and where the nearest runs are."""
    if not path.exists():
        return f"{path}: no run folders there: there is no such folder"
    above = next((p for p in path.absolute().parents if (p / "status.json").is_file()), None)
    if not path.is_dir():
        hint = f"Name the run folder, {above}." if above is not None else "Name a folder."
        return f"{path}: no run folders there: it is a file. {hint}"
    if above is not None:
        return f"{path}: no run folders there: it is a part of the run {above}. Name that folder."
    below = sorted({file.parent.parent for file in path.glob("*/*/status.json") if not {*_UNITS} & {*file.parts[-3:]}})
    hint = f" There are some in {', '.join(map(str, below[:3]))}." if below else ""
    return f"{path}: no run folders there (a run folder holds status.json).{hint}"


def require_run_folder(path: Path) -> None:
    """Raises RunFolderError unless ``path`` is a run folder."""
    if not (path / "status.json").is_file():
        runs = inside(path)
        if runs:
            raise RunFolderError(f"{path}: no run folder, but a folder of {len(runs)}. Name one: {runs[0]}")
        raise RunFolderError(no_runs(path).replace("no run folders there", "no run folder"))
    try:
        _require_run(path)
    except NoRunsError as error:
        raise RunFolderError(str(error)) from None


def require_writable(option: str, folder: Path) -> None:
    """Raises UserError where ``folder`` cannot be created or written to; leaves nothing behind."""
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists() or path.is_symlink())
    try:
        if not nearest.is_dir():
            raise NotADirectoryError(20, f"{nearest} is no folder")
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise UserError(f"{option} {folder}: cannot be written ({error.strerror}).") from None


def require_ours(option: str, folder: Path, files: Iterable[str], proof: str, begins: str) -> None:
    """Raises ConfigError where writing ``files`` to ``folder`` would replace files that this command did not write.

    An earlier result is recognised by the file ``proof`` beside it, whose first line begins with ``begins``.
    """
    if (folder / "status.json").is_file() or inside(folder):
        raise ConfigError(f"{option} {folder}: it holds run folders. Name another folder for the results.")
    existing = [name for name in files if (folder / name).exists()]
    ours = (folder / proof).is_file() and _first_line(folder / proof).startswith(begins)
    if existing and not ours:
        raise ConfigError(
            f"{option} {folder}: it holds {', '.join(existing[:3])}, which this command did not write. "
            "Name another folder."
        )


def require_file(option: str, file: Path, *begins: str) -> None:
    """Raises UserError where ``file`` cannot be written, or exists and is not an earlier table of this command."""
    if file.is_dir():
        raise ConfigError(f"{option} {file}: it is a folder. Name a file.")
    require_writable(option, file.parent)
    if file.exists() and file.stat().st_size and not _first_line(file).startswith(begins):
        raise ConfigError(f"{option} {file}: it exists and is not a table of this command. Name another file.")


def _first_line(file: Path) -> str:
    try:
        with file.open(encoding="utf-8", errors="replace") as lines:
            return lines.readline(1000)
    except OSError:
        return ""
