"""Hydra's own settings: which of them a run or a sweep may use (part of the door)."""

from collections.abc import Sequence
from typing import Any

from hydra import compose
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from albert_ablate.command_line import command_name
from albert_ablate.door.launchers import LAUNCHERS, PRESETS, extra_of, known_launchers
from albert_ablate.door.words import REFUSALS, explained, initialised, options_of, parsed, searchpath, single_values
from albert_ablate.errors import ConfigError, did_you_mean
from albert_ablate.shipped import install_command

_SWEEPER = "hydra_plugins.albert_ablate_sweeper.AblationSweeper"
_ONE_SWEEPER = (
    "sweeps are run by this project's own sweeper, which skips what is finished, resumes and counts. "
    "Leave it out; cells are listed as in docs/sweeps.md."
)


def require_supported(overrides: Sequence[str], multirun: bool, config_dir: str | None = None) -> bool:
    """Check Hydra's own settings among ``overrides``. Returns whether they start a sweep (-m or ``hydra.mode``).

    Raises ConfigError for a setting of Hydra that would have no effect or break the sweep.
    """
    path = searchpath(config_dir)
    read = parsed(overrides)
    refused = [problem for problem in map(_refused, read) if problem]
    if refused:
        raise ConfigError(refused)
    if not path and not any(o.is_hydra_override() for o in read):
        return multirun  # Hydra's settings are those of conf/config.yaml
    kept = single_values(overrides)
    with initialised():
        try:
            composed = compose("config", [*path, *kept], return_hydra_config=True).hydra
        except REFUSALS as error:
            raise explained(kept, error, path) from None
    hydra: dict[str, Any] = OmegaConf.to_container(composed, resolve=False)  # type: ignore[assignment]
    mode = hydra["mode"] and hydra["mode"].name
    if multirun and mode == "RUN":
        raise ConfigError("hydra.mode=RUN: with -m there are several runs. Leave one of the two out.")
    multirun = multirun or mode == "MULTIRUN"
    if problems := _problems(hydra, multirun):
        raise ConfigError(problems)
    return multirun


def _refused(override: Override) -> str | None:
    """The problem of an override that is wrong on its own, or None."""
    key, line, name = override.key_or_group, str(override.input_line), override.value()
    if override.is_hydra_override() and override.is_sweep_override():
        return f"{line}: Hydra's own settings have one value for the whole sweep."
    if (key == "hydra/sweeper" and name != "ablation") or key.startswith("hydra.sweeper"):
        return f"{line}: {_ONE_SWEEPER}"
    if key == "hydra.searchpath":
        return f"{line}: give a folder of configurations as --config-dir FOLDER."
    if key == "hydra/launcher":
        available, known = options_of("hydra/launcher"), known_launchers()
        if name not in (*known, *available):
            hint = did_you_mean(str(name), known, f"{key}=")
            return f"{line}: there is no such launcher. {hint}Cells can be started by {', '.join(known)}."
        if name in known and PRESETS.get(str(name), name) not in available:
            return f"{line}: it is not installed. Run `{install_command(extra_of(str(name)))}`."
    return None


def _problems(hydra: dict[str, Any], multirun: bool) -> list[str]:
    """Problems of Hydra's composed settings, which may come from any file."""
    problems = []
    if hydra["sweeper"] != {"_target_": _SWEEPER}:
        problems.append(f"hydra.sweeper: {_ONE_SWEEPER}")
    launcher = hydra["launcher"]
    target = launcher.get("_target_") if isinstance(launcher, dict) else launcher
    if target not in LAUNCHERS:
        problems.append(f"hydra.launcher: cells can be started by {', '.join(known_launchers())}, not by {target}.")
    if hydra["job"]["chdir"]:
        problems.append(
            "hydra.job.chdir=true: a run does not change the folder; relative paths are those of the folder where the "
            "command is given. Leave it out, and say with paths.runs=... where results go."
        )
    if multirun and hydra["job"]["env_set"]:
        names = ", ".join(map(str, hydra["job"]["env_set"]))
        problems.append(
            f"hydra.job.env_set: the processes of a sweep are started before Hydra sets {names}. Set it before the "
            f"command, as NAME=value {command_name('sweep')} ..., or for cluster jobs in hydra.launcher.setup."
        )
    return problems
