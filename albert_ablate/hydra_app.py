"""The door: with ``hydra_words``, ``hydra_options`` and the plug-in, the only code that imports hydra and omegaconf.

``main`` is what ``run.py`` calls. With ``-m`` Hydra's sweeper hands the command line to
``multirun``, and each cell comes back through the launcher to ``_task``.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import hydra
import yaml
from hydra import compose as hydra_compose
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from albert_ablate import console
from albert_ablate.axes import AXES
from albert_ablate.config import CONF, RunConfig, parse
from albert_ablate.errors import ConfigError, PreemptedError, RunFolderError, UserError
from albert_ablate.hydra_options import asks_for_gpus, launcher_name, require_supported
from albert_ablate.hydra_words import REFUSALS, explained, first_words, initialised, readable, searchpath, single_values
from albert_ablate.identity import BEFORE
from albert_ablate.sweeping.cells import Cell, for_launch

if TYPE_CHECKING:
    from albert_ablate.sweeping.process import Outcome

#: The four sizes of the paper's Table 1.
PAPER_MODELS = ("base", "large", "xlarge", "xxlarge")


def to_run_config(composed: DictConfig) -> RunConfig:
    """Composed Hydra config -> typed, validated dataclasses. Raises ConfigError."""
    try:
        values = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key or 'configuration'}: {str(error).splitlines()[0]}") from None
    assert isinstance(values, dict)
    return parse({str(k): v for k, v in values.items()})


def compose(overrides: Sequence[str] = ()) -> RunConfig:
    """The configuration that ``python run.py`` would run with these overrides. Raises ConfigError."""
    return to_run_config(_composed(overrides))


def _composed(words: Sequence[str]) -> DictConfig:
    with initialised():
        try:
            return hydra_compose("config", readable(words))
        except REFUSALS as error:
            raise explained(words, error) from None


#: Settings of a fine-tuning; everything else is the run's own.
_TASK_KEYS = ("task", "tasks", "runtime", "tracker", "rerun")
FINE_TUNING_GROUPS = (*_TASK_KEYS, "paths")


def compose_for_run(recorded: Path, words: Sequence[str]) -> RunConfig:
    """A finished run's recorded settings with the task settings of ``words``. Raises ConfigError."""
    taken = [*_TASK_KEYS, *({_group(word) for word in words} & {"paths"})]
    return _composed_over(recorded, words, FINE_TUNING_GROUPS, taken, "Settings of a fine-tuning are")


#: Settings of an evaluation of a finished run.
_EVALUATION_KEYS = ("data", "evaluation", "pairs", "runtime", "paths")


def compose_evaluation(recorded: Path, words: Sequence[str]) -> RunConfig:
    """A finished run's recorded settings with those groups that ``words`` name as composed now. Raises ConfigError."""
    named = {_group(word) for word in words} | {"runtime"}
    return _composed_over(recorded, words, _EVALUATION_KEYS, sorted(named), "Settings of an evaluation are")


def _group(word: str) -> str:
    return word.partition("=")[0].lstrip("+~").split(".")[0]


def _composed_over(
    recorded: Path, words: Sequence[str], allowed: Sequence[str], taken: Sequence[str], what: str
) -> RunConfig:
    """The recorded settings, but for the groups ``taken``, which are those of the words."""
    foreign = [word for word in words if _group(word) not in allowed]
    if foreign:
        known = ", ".join(f"{key}" if key in ("task", "rerun") else f"{key}.*" for key in allowed)
        raise ConfigError(f"{foreign[0]}: the run is trained already. {what} {known}.")
    own = _recorded(recorded)
    scale = [f"scale={own['scale']['name']}"] if (CONF / "scale" / f"{own['scale']['name']}.yaml").is_file() else []
    try:
        composed = OmegaConf.to_container(_composed([*scale, *words]), resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key or 'configuration'}: {first_words(error)}") from None
    assert isinstance(composed, dict)
    before: dict[str, Any] = {}
    for field, value in BEFORE.items():
        group, _, key = field.partition(".")
        before.setdefault(group, {})[key] = value
    values = _updated(_updated({str(k): v for k, v in composed.items()}, before), own)
    return parse(values | {str(k): composed[k] for k in (*taken, "rerun")})


def _recorded(path: Path) -> dict[str, Any]:
    """A run's ``config.yaml``. Raises RunFolderError where it is damaged."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert isinstance(found["scale"]["name"], str)
    except (yaml.YAMLError, ValueError, KeyError, TypeError, AssertionError, RecursionError) as error:
        raise RunFolderError(
            f"{path} is damaged ({type(error).__name__}); the run's settings cannot be read."
        ) from error
    return dict(found)


def _updated(values: dict[str, Any], newer: dict[str, Any]) -> dict[str, Any]:
    """``newer`` over ``values``, group by group."""
    both = {k: _updated(values[k], v) for k, v in newer.items() if isinstance(v, dict) and k in values}
    return values | newer | both


def paper_setup(config: RunConfig) -> RunConfig:
    """The paper preset with the axes of ``config``, in its own size where that is one of the paper's."""
    model = config.model.name if config.model.name in PAPER_MODELS else "base"
    axes = [f"{axis.group}={axis.value(config)}" for axis in AXES if axis.labels]  # E is that of the paper's scale
    return compose(["scale=paper", f"model={model}", *axes])


class _Exit(SystemExit):
    """Our own exit code, as opposed to Hydra's."""


def main() -> None:
    """Entry point of ``run.py``. Exit code 0, that of the worst failure, or 2 for wrong settings."""
    console.prepare()
    options = get_args_parser().parse_intermixed_args()
    try:
        _require_known(options)
        words = list(options.overrides) if options.shell_completion else readable(options.overrides)
        multirun = not options.shell_completion and require_supported(words, options.multirun, options.config_dir)
        path = searchpath(options.config_dir)
        left = sys.argv[1:]
        for word in options.overrides:
            left.remove(word)
        sys.argv[1:] = [*words, *left]
        os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands on what it refuses instead of printing it
        try:
            hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")(_task)()
        except REFUSALS as error:
            raise explained(single_values(words) if multirun else words, error, path) from None
        except OSError as error:  # of a folder that Hydra makes; what a run meets is put into words there
            if error.filename is None:
                raise
            raise RunFolderError(f"{error.filename}: {error.strerror}.") from error
    except _Exit as stop:
        sys.exit(stop.code)
    except UserError as error:
        _say(error)
        sys.exit(error.exit_code)


def _require_known(options: argparse.Namespace) -> None:
    """Raises ConfigError for options of Hydra that have no use here, or none together."""
    if options.experimental_rerun is not None:
        raise ConfigError("--experimental-rerun: the command that started a run is what continues it.")
    for name in ("config_name", "config_path"):
        if getattr(options, name) is not None:
            raise ConfigError(
                f"--{name.replace('_', '-')}: the configuration is that of conf/. A file of settings of your own goes "
                "into a group: --config-dir FOLDER +GROUP=NAME, for FOLDER/GROUP/NAME.yaml."
            )
    given = {"--run": options.run, "--multirun": options.multirun, "--cfg": options.cfg, "--info": options.info}
    commands = [name for name, said in given.items() if said]
    if len(commands) > 1:
        raise ConfigError(f"{' and '.join(commands)}: one of them alone.")
    for name in ("resolve", "package"):
        if getattr(options, name) and not (options.cfg or options.help):
            raise ConfigError(f"--{name}: belongs to --cfg, as in python run.py --cfg job --{name}.")


def _task(composed: DictConfig) -> Any:
    """What Hydra calls: for a single run the run itself, for a cell of a sweep its process."""
    in_sweep = HydraConfig.get().mode is RunMode.MULTIRUN
    try:
        config = to_run_config(composed)
        if in_sweep:
            from albert_ablate.sweeping.process import run_in_process

            return run_in_process(config, paper_setup(config))
        _require_multirun(config)
        from albert_ablate.experiment import run_cell  # after the settings are found good: torch loads slowly

        run_cell(config, paper_setup(config))
    except UserError as error:
        _leave(error)
    except KeyboardInterrupt:
        if in_sweep:
            raise
        print("\nInterrupted before training; what is cached stays.", file=sys.stderr)
        raise _Exit(PreemptedError.exit_code) from None


def multirun(words: Sequence[str], hydra_config: DictConfig, launcher: Launcher) -> None:
    """Run the cells that ``words`` describe with ``launcher``; leaves with the sweep's exit code."""
    from albert_ablate.hydra_cells import expand, read_words

    try:
        read = read_words(words)
        _require_training(read.sweeps)
        cells = expand(read)
        from albert_ablate.distributed import require_one_process
        from albert_ablate.outcome import disk_in_words
        from albert_ablate.sweeping.engine import run_sweep  # after the settings are found good: torch loads slowly
        from albert_ablate.training.precision import precision_here, precision_on_cluster

        require_one_process("A sweep")
        name = read.name or f"grid-{len(cells)}"
        kind = launcher_name(hydra_config.hydra)
        gpus = asks_for_gpus(hydra_config.hydra)
        precision = partial(precision_on_cluster, gpus=gpus) if kind == "submitit_slurm" else precision_here

        def launch(some: Sequence[Cell]) -> "list[Outcome | None]":
            threads = _threads(kind, hydra_config.hydra.launcher, len(some))
            returned = launcher.launch([for_launch(cell, threads) for cell in some], initial_job_idx=0)
            return [_answer(job) for job in returned]

        with disk_in_words(cells[0].config.paths.runs, cells[0].config.paths.cache):
            code = run_sweep(name, cells, read.rerun, launch, kind == "basic", precision)
    except UserError as error:
        _leave(error)
    if code:
        raise _Exit(code)


def _answer(job: JobReturn) -> "Outcome | None":
    """How a cell ended, or None where its job says nothing of it."""
    from albert_ablate.sweeping.process import Outcome

    found = job.return_value if job.status is JobStatus.COMPLETED else None
    return found if isinstance(found, Outcome) else None


def across_time_limits(composed: DictConfig) -> None:
    """Have SLURM's jobs put back into the queue at a time limit as often as a run may reach one.

    submitit's own default is never. A number that the user gives stays, 0 included: then the sweep
    submits the cell again.
    """
    launcher = composed.hydra.launcher
    given = any(
        word.lstrip("+").startswith("hydra.launcher.max_num_timeout=") for word in composed.hydra.overrides.hydra
    )
    if launcher.get("max_num_timeout") == 0 and not given:
        with open_dict(composed):
            launcher.max_num_timeout = composed.runtime.time_limits


def _require_multirun(config: RunConfig) -> None:
    """A forgotten -m must not run one default cell. Raises ConfigError."""
    if config.sweep is not None:
        from albert_ablate.sweeping.definition import load

        load(config.sweep)
        raise ConfigError(
            f"sweep={config.sweep} has many cells and needs -m: python run.py -m sweep={config.sweep} ... "
            f"To see them first: python -m albert_ablate.plan sweep={config.sweep}"
        )


def _require_training(sweeps: Sequence[str]) -> None:
    """Raises ConfigError for a sweep that only lists configurations."""
    from albert_ablate.sweeping.definition import load

    counted = [name for name in sweeps if load(name).counts_only]
    if counted:
        raise ConfigError(
            f"sweep={counted[0]} lists configurations and trains nothing. "
            f"To see them: python -m albert_ablate.plan sweep={counted[0]}"
        )


def _threads(kind: str, launcher: DictConfig, cells: int) -> int | None:
    """CPU threads of each job where a launcher runs several on this machine at once, else None."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if kind == "joblib":
        jobs = launcher.get("n_jobs") or 1
        return max(1, cores // min(jobs if jobs > 0 else max(cores + 1 + jobs, 1), cells))
    if kind == "submitit_local":
        if cells > cores:
            console.say(
                f"submitit_local starts all {cells} cells at once, on {cores} cores. To start {cores} at a time: "
                f"hydra/launcher=joblib hydra.launcher.n_jobs={cores}"
            )
        return max(1, cores // cells)
    return None


def _leave(error: UserError) -> NoReturn:
    """Print the words and leave with the error's exit code."""
    _say(error)
    raise _Exit(error.exit_code) from None


def _say(error: UserError) -> None:
    print(f"\n{words_of(error)}\n", file=sys.stderr)


def words_of(error: UserError) -> str:
    """What the terminal says of an error."""
    if isinstance(error, ConfigError):
        return "Nothing was run; the settings need a change:\n" + "\n".join(f"  - {p}" for p in error.problems)
    return str(error)
