"""The door: with ``hydra_cells`` and the plug-in, the only code that imports hydra and omegaconf.

``main`` is what ``run.py`` calls. With ``-m`` Hydra's sweeper hands the command line to
``multirun``, and each cell comes back through the launcher to ``_task``.
"""

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import hydra
import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobStatus
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from albert_ablate.config import CONF, RunConfig, parse
from albert_ablate.errors import ConfigError, PreemptedError, RunFolderError, UserError
from albert_ablate.identity import LATER
from albert_ablate.sweeping.cells import Cell, for_launch
from albert_ablate.sweeping.definition import LISTS

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
    """The configuration that ``python run.py`` would run with these overrides."""
    with initialised():
        return to_run_config(hydra_compose("config", list(overrides)))


#: Settings of a fine-tuning; everything else is the run's own.
_TASK_KEYS = ("task", "tasks", "runtime", "tracker", "rerun")


def compose_for_run(recorded: Path, words: Sequence[str]) -> RunConfig:
    """A finished run's recorded settings with the task settings of ``words``. Raises ConfigError."""
    return _composed_over(recorded, words, _TASK_KEYS, _TASK_KEYS, "Settings of a fine-tuning are")


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
    from albert_ablate.hydra_cells import read_words

    foreign = [word for word in words if _group(word) not in allowed]
    if foreign:
        known = ", ".join(f"{key}" if key in ("task", "rerun") else f"{key}.*" for key in allowed)
        raise ConfigError(f"{foreign[0]}: the run is trained already. {what} {known}.")
    read = read_words(words)
    own = _recorded(recorded)
    scale = [f"scale={own['scale']['name']}"] if (CONF / "scale" / f"{own['scale']['name']}.yaml").is_file() else []
    try:
        with initialised():
            composed = OmegaConf.to_container(hydra_compose("config", [*scale, *read.fixed.values()]), resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(" ".join(str(error).split())) from None
    assert isinstance(composed, dict)
    before: dict[str, Any] = {}
    for field, value in LATER.items():
        group, _, key = field.partition(".")
        before.setdefault(group, {})[key] = value
    values = _updated(_updated({str(k): v for k, v in composed.items()}, before), own)
    return parse(values | {str(k): composed[k] for k in taken} | {"rerun": read.rerun})


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


@contextmanager
def initialised() -> Iterator[None]:
    """Hydra initialised on ``conf/``: by ``run.py`` already, or for the length of the body."""
    if GlobalHydra.instance().is_initialized():
        yield
        return
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


def paper_setup(config: RunConfig) -> RunConfig:
    """The paper preset with the axes of ``config``, in its own size where that is one of the paper's."""
    model = config.model.name if config.model.name in PAPER_MODELS else "base"
    share, objective = config.share.strategy.value, config.objective.name.value
    return compose(["scale=paper", f"model={model}", f"share={share}", f"objective={objective}"])


class _Exit(SystemExit):
    """Our own exit code, as opposed to Hydra's."""


def as_lists(words: Sequence[str]) -> list[str]:
    """``task=mnli,sst2`` -> ``task=[mnli,sst2]``: a run has several tasks and trackers at once."""
    several = re.compile(rf"({'|'.join(LISTS)})=(\w+(?:,\w+)+)")
    return [several.sub(r"\1=[\2]", word) if several.fullmatch(word) else word for word in words]


def main() -> None:
    """Entry point of ``run.py``. Exit code 0, that of the worst failure, or 2 for wrong settings."""
    sys.argv[1:] = as_lists(sys.argv[1:])
    try:
        hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")(_task)()
    except _Exit as stop:
        sys.exit(stop.code)
    except SystemExit as stop:
        # Hydra refused the command line itself (an unknown group, option or key) before any cell.
        sys.exit(2 if stop.code == 1 else stop.code)


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
        from albert_ablate.sweeping.engine import run_sweep  # after the settings are found good: torch loads slowly

        require_one_process("A sweep")
        name = read.name or f"grid-{len(cells)}"
        one_by_one = hydra_config.hydra.launcher.get("_target_", "").endswith("BasicLauncher")
        threads = _threads(hydra_config.hydra.launcher, len(cells))

        def launch(some: Sequence[Cell]) -> "list[Outcome | None]":
            returned = launcher.launch([for_launch(cell, threads) for cell in some], initial_job_idx=0)
            return [job.return_value if job.status is JobStatus.COMPLETED else None for job in returned]

        code = run_sweep(name, cells, read.rerun, launch, one_by_one)
    except UserError as error:
        _leave(error)
    raise _Exit(code)


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


def _threads(launcher: DictConfig, cells: int) -> int | None:
    """CPU threads of each job where a launcher runs several on this machine at once, else None."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    target = launcher.get("_target_", "")
    if "joblib" in target:
        jobs = launcher.get("n_jobs") or 1
        return max(1, cores // min(jobs if jobs > 0 else max(cores + 1 + jobs, 1), cells))
    if target.endswith("submitit_launcher.LocalLauncher"):
        return max(1, cores // cells)
    return None


def _leave(error: UserError) -> NoReturn:
    """Print the words and leave with the error's exit code."""
    print(f"\n{words_of(error)}\n", file=sys.stderr)
    raise _Exit(error.exit_code) from None


def words_of(error: UserError) -> str:
    """What the terminal says of an error."""
    if isinstance(error, ConfigError):
        return "Nothing was run; the settings need a change:\n" + "\n".join(f"  - {p}" for p in error.problems)
    return str(error)
