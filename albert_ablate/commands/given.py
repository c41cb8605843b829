"""Opens the run folder that a command was given, or explains what the path is instead."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from albert_ablate.command_line import command_name
from albert_ablate.config.schema import RunConfig
from albert_ablate.errors import DamagedFileError, RunFolderError
from albert_ablate.files import read_json, require_writable
from albert_ablate.record.folder import RunFolder
from albert_ablate.record.lock import guard_file

_SETTINGS = "config.yaml"
#: Most runs that the message for a folder of runs names.
_NAMED = 8


def open_run(path: Path) -> RunFolder:
    """The run in the folder ``path``, under the folder's real name even for ``.`` and links.

    Nothing is looked up by name or identity, so a copy of a run is opened itself. Raises
    RunFolderError for anything else, such as a folder of runs or a fine-tuning of a run.
    """
    path = path.expanduser()
    if not path.exists():
        raise RunFolderError(f"{path}: no run folder (it does not exist). Runs lie in runs/.")
    resolved = path.resolve() if path.is_symlink() or path.name in ("", "..") else path
    if (resolved / _SETTINGS).is_file():
        return RunFolder(resolved.parent, resolved.name)
    raise RunFolderError(f"{path}: no run folder{_actual_content(path.resolve())}")


def is_unit(path: Path) -> bool:
    """Whether the folder ``path`` is a fine-tuning."""
    manifest = _manifest(path.expanduser())
    return "task" in manifest and "seed" in manifest and "k" not in manifest


def open_unit(path: Path) -> tuple[RunFolder, RunFolder]:
    """The run and its finished fine-tuning in the folder ``path``. Raises RunFolderError for anything else."""
    path = path.expanduser()
    if not is_unit(path):
        if (path / _SETTINGS).is_file():
            units = sorted(f"tasks/{file.parent.name}" for file in path.glob("tasks/[!.]*/manifest.json"))
            choice = f"Give one of its fine-tunings: {', '.join(units[:_NAMED])}." if units else _no_units(path)
            raise RunFolderError(f"{path}: a run, but no fine-tuning of one. {choice}")
        raise RunFolderError(f"{path}: no fine-tuning. They lie in RUN/tasks/.")
    resolved = path.resolve()
    above = resolved.parent.parent
    if not (above / _SETTINGS).is_file():
        raise RunFolderError(
            f"{path}: a fine-tuning outside of its run, whose settings and tokenizer are needed. Put the folder back "
            f"into RUN/tasks/ (its run was {_manifest(path).get('run')})."
        )
    unit = RunFolder(resolved.parent, resolved.name)
    if unit.state() != "finished":
        raise RunFolderError(
            f"{path} is {unit.state()}, not finished, so it has no best weights yet. It is continued by "
            f"`{command_name('finetune')} {above} task={_manifest(path)['task']}` with its other settings."
        )
    return RunFolder(above.parent, above.name), unit


def _no_units(run: Path) -> str:
    return f"It has none yet: `{command_name('finetune')} {run} task=sst2 task.data_dir=DATA` makes one."


def is_setting(argument: str, groups: Sequence[str]) -> bool:
    """Whether an argument is a setting, such as one of ``groups``; a path may contain = too."""
    name, equals, _ = argument.partition("=")
    group = name.lstrip("+~").split(".")[0]
    if not equals or group in groups:
        return bool(equals)
    known = group in {field.name for field in fields(RunConfig)}  # refused later with an explanation
    return not Path(argument).expanduser().exists() and (known or "/" not in argument)


def _actual_content(path: Path) -> str:
    """The end of the message for a path that is no run: what it is, and what to give instead."""
    parent_run = next((p for p in path.parents if (p / _SETTINGS).is_file() and (p / "status.json").is_file()), None)
    manifest = _manifest(path)
    if "k" in manifest and parent_run is not None:
        return f", but scores of a run on {manifest.get('task')}. Give the run itself: {parent_run}"
    if "task" in manifest and "seed" in manifest:
        of = parent_run or manifest.get("run", "another run")
        return (
            f", but the fine-tuning of {of} on {manifest['task']}, seed {manifest['seed']}. "
            f"`{command_name('export')}` and `{command_name('predict')}` take it as it is; here give the run itself."
        )
    if parent_run is not None:
        return f", but a part of one. Give the run itself: {parent_run}"
    runs = sorted(file.parent.name for file in path.glob(f"[!.]*/{_SETTINGS}")) if path.is_dir() else []
    if runs:
        more = f" and {len(runs) - _NAMED} more" if len(runs) > _NAMED else ""
        several = f"{len(runs)} runs" if len(runs) > 1 else "1 run"
        return f", but a folder of {several}. Name what is in it: {', '.join(runs[:_NAMED])}{more}."
    return f" (it has no {_SETTINGS}). Runs lie in runs/." if path.is_dir() else " but a file. Runs lie in runs/."


def _manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = read_json(path / "manifest.json")
    except (OSError, DamagedFileError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def remarks(run: RunFolder) -> list[str]:
    """Warnings about a run that is unfinished or was set aside; empty for other runs."""
    sentences, state = [], run.state()
    if state == "missing":
        sentences.append(f"{run.path} has no status.json: whether its training ended is not known")
    elif state != "finished":
        sentences.append(f"{run.path} is {state}, not finished: its newest checkpoint is not that of a whole run")
    if run.path.absolute().parent.name == ".replaced":
        sentences.append(f"{run.path} was set aside by rerun=all; reports leave it out")
    return sentences


def refuse_paths_runs(settings: Sequence[str]) -> None:
    """Raises RunFolderError for ``paths.runs``, which has no effect when a run folder is given."""
    for setting in settings:
        if setting.partition("=")[0].lstrip("+~") == "paths.runs":
            raise RunFolderError(
                f"{setting}: no effect on a run that is given by its folder. To work elsewhere, copy the folder "
                "(cp -r RUN FOLDER) and give the copy."
            )


def require_cache(config: RunConfig) -> None:
    """Raises RunFolderError, before any work, if the cache cannot be written."""
    try:
        require_writable(Path(config.paths.cache))
    except OSError as error:
        raise RunFolderError(
            f"{config.paths.cache} cannot be written ({error.strerror}). Set paths.cache to a folder of your own."
        ) from error


def require_finished(folder: RunFolder, part: str, kept: str) -> None:
    """Raise RunFolderError unless the run is finished and its folder can be given ``part``, where ``kept`` are kept."""
    if folder.state() != "finished":
        raise RunFolderError(f"{remarks(folder)[0]}. Its pretraining must be finished first.")
    try:
        require_writable(folder.path, folder.path / part, guard_file(folder.path).parent)
    except OSError as error:
        raise RunFolderError(
            f"{folder.path} cannot be written ({error.strerror}); {kept} are kept in the run folder. Copy it to a "
            f"folder of your own (cp -r {folder.path} FOLDER) and give the copy."
        ) from error
