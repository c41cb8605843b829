"""What starts the cells of a sweep: Hydra's launchers, and how many cells each runs at a time (part of the door).

A launcher must wait for its cells and report how each ended, so only those in ``LAUNCHERS`` are supported.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from albert_ablate import console
from albert_ablate.door import ray
from albert_ablate.door.slurm import watch_queue_without_accounts
from albert_ablate.errors import ConfigError
from albert_ablate.sweeping.cells import Cell

#: The settings of a launcher, as plain values.
Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Engine:
    """A launcher."""

    name: str  # the value of ``hydra/launcher``
    package: str = ""  # the extra of ``pyproject.toml`` that has it; empty for Hydra's own
    #: (settings, usable cores) -> cells that run on this machine at a time. None: elsewhere, or one after another.
    here: Callable[[Settings, int], int] | None = None
    #: Whether its cells run on other machines.
    cluster: bool = False
    #: Whether a call starts all of its cells at the same time, so that this project hands it a part at a time.
    unbounded: bool = False
    #: settings -> cores of a cell, where the engine counts them and does not enforce it.
    cores: Callable[[Settings], int] | None = None
    #: What this machine needs before the first call; gets the settings.
    prepare: Callable[[Settings], None] | None = None


def _joblib_jobs(settings: Settings, cores: int) -> int:
    jobs = settings.get("n_jobs") or 1
    return jobs if jobs > 0 else max(cores + 1 + jobs, 1)


def _ray_cores(settings: Settings) -> int:
    return max(1, int(settings["num_cpus"]))


#: Hydra's class -> the launcher.
LAUNCHERS: Mapping[str, Engine] = {
    "hydra._internal.core_plugins.basic_launcher.BasicLauncher": Engine("basic"),
    "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher": Engine(
        "joblib", "launchers", here=_joblib_jobs
    ),
    "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher": Engine(
        "submitit_local", "launchers", here=lambda settings, cores: cores, unbounded=True
    ),
    "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher": Engine(
        "submitit_slurm", "launchers", cluster=True, prepare=lambda settings: watch_queue_without_accounts()
    ),
    "hydra_plugins.albert_ablate_ray.RayLauncher": Engine(
        "ray", "ray", cluster=True, cores=_ray_cores, prepare=ray.connect
    ),
}
#: Presets in ``conf/hydra/launcher`` -> the launcher that they set up.
PRESETS: Mapping[str, str] = {"gpus": "joblib", "slurm": "submitit_slurm"}


def known_launchers() -> list[str]:
    """The values that ``hydra/launcher`` may have."""
    return [*(engine.name for engine in LAUNCHERS.values()), *PRESETS]


def engine_of(hydra: DictConfig) -> Engine:
    """The configured launcher."""
    return LAUNCHERS[hydra.launcher.get("_target_", "")]


def extra_of(name: str) -> str:
    """The extra of ``pyproject.toml`` that a value of ``hydra/launcher`` needs; empty for none."""
    base = PRESETS.get(name, name)
    return next(engine.package for engine in LAUNCHERS.values() if engine.name == base)


def asks_for_gpus(hydra: DictConfig) -> bool:
    """Whether the jobs of a cluster request GPUs."""
    settings = _plain(hydra)
    extra = settings.get("additional_parameters") or {}
    requests = [settings.get(key) for key in ("gpus_per_node", "gpus_per_task", "gres", "num_gpus")]
    requests += [value for key, value in extra.items() if key.replace("-", "_") in ("gpus", "gpus_per_node", "gres")]
    return any(requests)


def completed(composed: DictConfig, cells: Sequence[Cell], gpus: int) -> None:
    """Fill in what a launcher needs to know of the cells and of this machine's ``gpus``. Raises ConfigError.

    SLURM requeues a job at its time limit as often as a run may reach one (``runtime.time_limits``); submitit's default
    is never. A number given by the user is kept, even 0; the sweep then submits the cell again. A job that would be
    told to save as soon as it starts is refused.
    """
    launcher = composed.hydra.launcher
    given = any(
        override.lstrip("+").startswith("hydra.launcher.max_num_timeout=")
        for override in composed.hydra.overrides.hydra
    )
    minutes, delay = launcher.get("timeout_min"), launcher.get("signal_delay_s")
    if minutes and delay and delay >= 60 * minutes:
        raise ConfigError(
            f"hydra.launcher.signal_delay_s={delay}: a job with hydra.launcher.timeout_min={minutes} is told to save "
            f"as soon as it starts. Set fewer than {60 * minutes}, such as {15 * minutes}, or a longer limit."
        )
    with open_dict(composed):
        if launcher.get("max_num_timeout") == 0 and not given:
            launcher.max_num_timeout = max(cell.config.runtime.time_limits for cell in cells)
        if launcher.get("n_jobs") == 0:
            if not gpus:
                raise ConfigError(
                    "hydra/launcher=gpus: no GPU is visible here (nvidia-smi lists them; CUDA_VISIBLE_DEVICES can hide "
                    "them), or runtime.device=cpu. On CPU cores: hydra/launcher=joblib hydra.launcher.n_jobs=2"
                )
            launcher.n_jobs = gpus * _cells_per_gpu(cells)


def cells_at_once(composed: DictConfig, cells: Sequence[Cell], gpus: int) -> int | None:
    """How many of ``cells`` compute at a time on this machine, if it is several; says so where cells have to wait.

    Of cells that share ``gpus`` GPUs, only those with a slot on one compute.
    """
    engine = engine_of(composed.hydra)
    if engine.here is None:
        return None
    from albert_ablate.record.provenance import usable_cores  # torch loads slowly

    cores = usable_cores()
    if gpus:
        jobs, slots = min(engine.here(_plain(composed.hydra), len(cells)), len(cells)), gpus * _cells_per_gpu(cells)
        if slots < jobs:
            console.say(
                f"{jobs} jobs for {gpus} GPU{'s' * (gpus > 1)}: {slots} cells compute at once, the others wait for "
                "a free slot. Small models may share a GPU: runtime.cells_per_gpu=2 or more"
            )
        return min(jobs, slots)
    jobs = engine.here(_plain(composed.hydra), cores)
    if engine.unbounded:
        jobs = max(1, cores // max(cell.config.runtime.threads or 1 for cell in cells))
        if jobs < len(cells):
            console.say(f"{engine.name}: {len(cells)} cells, {jobs} at a time on {cores} cores")
    return min(jobs, len(cells))


def prepare(hydra: DictConfig) -> None:
    """Do what the configured launcher needs before its first call. Raises ConfigError."""
    engine = engine_of(hydra)
    if engine.prepare is not None:
        engine.prepare(_plain(hydra))


def threads_of(hydra: DictConfig, at_once: int | None) -> int | None:
    """CPU threads of each job: its share if ``at_once`` jobs divide this machine's cores; None: all that it finds."""
    engine = engine_of(hydra)
    if engine.cores is not None:
        return engine.cores(_plain(hydra))
    if at_once is None:
        return None
    from albert_ablate.record.provenance import usable_cores

    return max(1, usable_cores() // at_once)


def _cells_per_gpu(cells: Sequence[Cell]) -> int:
    return max(cell.config.runtime.cells_per_gpu for cell in cells)


def _plain(hydra: DictConfig) -> dict[str, Any]:
    settings: dict[str, Any] = OmegaConf.to_container(hydra.launcher, resolve=True)  # type: ignore[assignment]
    return settings
