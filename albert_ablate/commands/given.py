"""The run that a command was given: the folder itself and no other, or words that say what it is instead."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from albert_ablate.config.schema import RunConfig
from albert_ablate.errors import DamagedFileError, RunFolderError
from albert_ablate.files import read_json, require_writable
from albert_ablate.record.folder import RunFolder

_SETTINGS = "config.yaml"
#: Runs of a folder that are named where one is wanted.
_NAMED = 8


def open_run(place: Path) -> RunFolder:
    """The run in the folder ``place``, under the folder's real name: for ``.`` and links too.

    Nothing is looked up by name or identity, so a copy is measured itself. Raises RunFolderError for
    a folder of runs, a part of a run such as a fine-tuning, and whatever else is no run.
    """
    place = place.expanduser()
    if not place.exists():
        raise RunFolderError(f"{place}: no run folder (there is nothing of that name). Runs lie in runs/.")
    real = place.resolve() if place.is_symlink() or place.name in ("", "..") else place
    if (real / _SETTINGS).is_file():
        return RunFolder(real.parent, real.name)
    raise RunFolderError(f"{place}: no run folder{_what_it_is(place.resolve())}")


def _what_it_is(place: Path) -> str:
    """The rest of the sentence about a place that is no run."""
    around = next((p for p in place.parents if (p / _SETTINGS).is_file() and (p / "status.json").is_file()), None)
    manifest = _manifest(place)
    if "task" in manifest and "seed" in manifest:
        of = around or manifest.get("run", "another run")
        return (
            f", but the fine-tuning of {of} on {manifest['task']}, seed {manifest['seed']}. "
            "Fine-tuned weights cannot be taken further yet; give the run itself."
        )
    if around is not None:
        return f", but a part of one. Give the run itself: {around}"
    runs = sorted(path.parent.name for path in place.glob(f"[!.]*/{_SETTINGS}")) if place.is_dir() else []
    if runs:
        more = f" and {len(runs) - _NAMED} more" if len(runs) > _NAMED else ""
        several = f"{len(runs)} runs" if len(runs) > 1 else "1 run"
        return f", but a folder of {several}. Name what is in it: {', '.join(runs[:_NAMED])}{more}."
    return f" (it has no {_SETTINGS}). Runs lie in runs/." if place.is_dir() else " but a file. Runs lie in runs/."


def _manifest(place: Path) -> dict[str, Any]:
    try:
        found = read_json(place / "manifest.json")
    except (OSError, DamagedFileError):
        return {}
    return found if isinstance(found, dict) else {}


def remarks(run: RunFolder) -> list[str]:
    """What to say before a run is measured that is not finished, or that stands aside."""
    found, state = [], run.state()
    if state == "missing":
        found.append(f"{run.path} has no status.json: whether its training ended is not known")
    elif state != "finished":
        found.append(f"{run.path} is {state}, not finished: its newest checkpoint is not that of a whole run")
    if run.path.absolute().parent.name == ".replaced":
        found.append(f"{run.path} was set aside by rerun=all; reports leave it out")
    return found


def require_no_place_for_runs(settings: Sequence[str]) -> None:
    """Raise RunFolderError for paths.runs, where a run folder was given already."""
    for word in settings:
        if word.partition("=")[0].lstrip("+~") == "paths.runs":
            raise RunFolderError(
                f"{word}: no effect on a run that is given by its folder. To work somewhere else, copy the folder "
                "(cp -r RUN FOLDER) and give the copy."
            )


def require_cache(config: RunConfig) -> None:
    """Raise RunFolderError where the cache cannot be written: before the work, not in it."""
    try:
        require_writable(Path(config.paths.cache))
    except OSError as error:
        raise RunFolderError(
            f"{config.paths.cache} cannot be written ({error.strerror}). Set paths.cache to a folder of your own."
        ) from error
