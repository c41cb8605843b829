"""The folders that the commands are given: what runs there are in them, and whether results may be written there."""

import tempfile
from collections.abc import Iterable
from pathlib import Path

from albert_ablate.errors import ConfigError, NoRunsError, RunFolderError, UserError
from albert_ablate.files import read_json


def run_folders(place: Path) -> list[Path]:
    """``place`` itself where it is a run folder, else those in it. Raises NoRunsError where there is none."""
    if (place / "status.json").is_file():
        _require_run(place)
        return [place]
    found = inside(place)
    if not found:
        raise NoRunsError(no_runs(place))
    _require_run(found[0])
    return found


def inside(place: Path) -> list[Path]:
    """Folders with a ``status.json`` in ``place``, sorted; those whose name begins with a dot are ours to ignore."""
    return sorted(file.parent for file in place.glob("*/status.json") if not file.parent.name.startswith("."))


def _require_run(folder: Path) -> None:
    """Raises NoRunsError for the folder of a fine-tuning, which has a ``status.json`` too."""
    try:
        manifest = read_json(folder / "manifest.json")
        unit = isinstance(manifest, dict) and "task" in manifest and "parameters" not in manifest
    except (OSError, ValueError):
        unit = folder.parent.name == "tasks" and (folder.parent.parent / "status.json").is_file()
    if unit:
        raise NoRunsError(
            f"{folder}: no run folders there, but a fine-tuning of one. Name the run folder; its results.json "
            "gathers its fine-tunings."
        )


def no_runs(place: Path) -> str:
    """Why ``place`` holds no run, and where one is near."""
    if not place.exists():
        return f"{place}: no run folders there: there is no such folder"
    above = next((p for p in place.absolute().parents if (p / "status.json").is_file()), None)
    if not place.is_dir():
        hint = f"Name the run folder, {above}." if above is not None else "Name a folder."
        return f"{place}: no run folders there: it is a file. {hint}"
    if above is not None:
        return f"{place}: no run folders there: it is a part of the run {above}. Name that folder."
    below = sorted({file.parent.parent for file in place.glob("*/*/status.json") if "tasks" not in file.parts[-3:]})
    hint = f" There are some in {', '.join(map(str, below[:3]))}." if below else ""
    return f"{place}: no run folders there (a run folder holds status.json).{hint}"


def require_run_folder(place: Path) -> None:
    """Raises RunFolderError unless ``place`` is one run's own folder."""
    if not (place / "status.json").is_file():
        runs = inside(place)
        if runs:
            raise RunFolderError(f"{place}: no run folder, but a folder of {len(runs)}. Name one: {runs[0]}")
        raise RunFolderError(no_runs(place).replace("no run folders there", "no run folder"))
    try:
        _require_run(place)
    except NoRunsError as error:
        raise RunFolderError(str(error)) from None


def require_writable(option: str, folder: Path) -> None:
    """Raises UserError where ``folder`` cannot be made or written in; nothing is left behind."""
    nearest = next(place for place in (folder, *folder.absolute().parents) if place.exists() or place.is_symlink())
    try:
        if not nearest.is_dir():
            raise NotADirectoryError(20, f"{nearest} is no folder")
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise UserError(f"{option} {folder}: cannot be written ({error.strerror}).") from None


def require_ours(option: str, folder: Path, files: Iterable[str], proof: str, begins: str) -> None:
    """Raises ConfigError where ``files`` of ``folder`` would be written over and are not an earlier result of ours.

    Ours are those beside a file ``proof`` whose first line begins with ``begins``.
    """
    if (folder / "status.json").is_file() or inside(folder):
        raise ConfigError(f"{option} {folder}: these are run folders. Name another folder for what is written.")
    there = [name for name in files if (folder / name).exists()]
    ours = (folder / proof).is_file() and _first_line(folder / proof).startswith(begins)
    if there and not ours:
        raise ConfigError(
            f"{option} {folder}: it holds {', '.join(there[:3])}, which this command did not write. "
            "Name another folder."
        )


def require_file(option: str, file: Path, *begins: str) -> None:
    """Raises UserError where ``file`` cannot be written, or is something else than an earlier table of ours."""
    if file.is_dir():
        raise ConfigError(f"{option} {file}: it is a folder. Name a file.")
    require_writable(option, file.parent)
    if file.exists() and file.stat().st_size and not _first_line(file).startswith(begins):
        raise ConfigError(f"{option} {file}: it is there and no table of this command. Name another file.")


def _first_line(file: Path) -> str:
    try:
        with file.open(encoding="utf-8", errors="replace") as lines:
            return lines.readline(1000)
    except OSError:
        return ""
