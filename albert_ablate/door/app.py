"""The entry of ``run.py``. Only this package and the plug-in import hydra and omegaconf.

``run.py`` calls ``main``. With ``-m`` Hydra's sweeper passes the overrides to ``multirun``, and the
launcher calls ``_task`` for each cell.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import RunMode
from omegaconf import DictConfig

from albert_ablate import console
from albert_ablate.arguments import Parser
from albert_ablate.command_line import PROGRAM, command_name, program
from albert_ablate.config.schema import CONF, RunConfig
from albert_ablate.door.cells import expand, read_command_line
from albert_ablate.door.compose import paper_setup, shown, to_run_config
from albert_ablate.door.help import text
from albert_ablate.door.launchers import asks_for_gpus, cells_at_once, completed, engine_of, prepare, threads_of
from albert_ablate.door.options import require_supported
from albert_ablate.door.words import REFUSALS, explained, readable, searchpath, single_values
from albert_ablate.errors import ConfigError, PreemptedError, RunFolderError, UserError
from albert_ablate.shipped import VERSION
from albert_ablate.sweeping.cells import Cell, for_launch

if TYPE_CHECKING:
    from albert_ablate.sweeping.process import Outcome


#: Options of Hydra that are not supported.
_REFUSED = ("config_name", "config_path", "experimental_rerun", "shell_completion")


class _Exit(SystemExit):
    """An exit with this project's code, to tell it from Hydra's."""

    code: int


def main() -> int:
    """Entry point of ``run.py``. Returns the exit code: 0, that of the worst failure, or 2 for wrong settings.

    Output that cannot be written is no failure: the run folder is the record.
    """
    return console.as_process(_main)


def _main() -> int:
    try:
        options = _parser().parse_intermixed_args()
        if options.help:
            print(text(options.overrides), end="")
            return 0
        _require_known(options)
        overrides = list(options.overrides) if options.shell_completion else readable(options.overrides)
        multirun = not options.shell_completion and require_supported(overrides, options.multirun, options.config_dir)
        path = searchpath(options.config_dir)
        if options.cfg == "job":
            print(shown(overrides, path, options.package, options.resolve), end="")
            return 0
        remaining = sys.argv[1:]
        for override in options.overrides:
            remaining.remove(override)
        sys.argv[1:] = [*overrides, *remaining]
        os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises its errors instead of printing them
        try:
            hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")(_task)()
        except REFUSALS as error:
            raise explained(single_values(overrides) if multirun else overrides, error, path) from None
        except OSError as error:  # of a folder that Hydra makes; errors of a run are explained elsewhere
            if error.filename is None:
                raise
            raise RunFolderError(f"{error.filename}: {error.strerror}.") from error
    except _Exit as stop:
        return stop.code
    return 0


def _parser() -> Parser:
    """Hydra's options; those that ``_require_known`` refuses are not shown."""
    hydras = get_args_parser()
    parser = Parser(prog=program("run"), parents=[hydras], add_help=False, conflict_handler="resolve")
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {VERSION}")
    for action in parser._actions:
        if action.dest in _REFUSED:
            action.help = argparse.SUPPRESS
    return parser


def _require_known(options: argparse.Namespace) -> None:
    """Raises ConfigError for unsupported options of Hydra, and for options that exclude each other."""
    if options.experimental_rerun is not None:
        raise ConfigError("--experimental-rerun: the command that started a run is what continues it.")
    for name in ("config_name", "config_path"):
        if getattr(options, name) is not None:
            raise ConfigError(
                f"--{name.replace('_', '-')}: the configuration is that of conf/. A file of settings of your own goes "
                "into a group: --config-dir FOLDER +GROUP=NAME, for FOLDER/GROUP/NAME.yaml."
            )
    modes = {"--run": options.run, "--multirun": options.multirun, "--cfg": options.cfg, "--info": options.info}
    commands = [name for name, given in modes.items() if given]
    if len(commands) > 1:
        raise ConfigError(f"{' and '.join(commands)}: one of them alone.")
    for name in ("resolve", "package"):
        if getattr(options, name) and not options.cfg:
            raise ConfigError(f"--{name}: belongs to --cfg, as in {command_name('run')} --cfg job --{name}.")


def _task(composed: DictConfig) -> Any:
    """Hydra calls this for a single run and for each cell of a sweep, which runs in a process of its own."""
    in_sweep = HydraConfig.get().mode is RunMode.MULTIRUN
    try:
        config = to_run_config(composed, HydraConfig.get().overrides.task)
        if in_sweep:
            from albert_ablate.sweeping.process import run_in_process

            return run_in_process(config, paper_setup(config))
        _require_multirun(config)
        from albert_ablate.experiment import run_cell  # after the checks: torch loads slowly

        run_cell(config, paper_setup(config))
    except UserError as error:
        _leave(error)
    except KeyboardInterrupt:
        if in_sweep:
            raise
        print("\nInterrupted before training; what is cached stays.", file=sys.stderr)
        raise _Exit(PreemptedError.exit_code) from None


def multirun(overrides: Sequence[str], composed: DictConfig, make: Callable[[DictConfig], Launcher]) -> None:
    """Run the cells that ``overrides`` describe, then exit with the sweep's code.

    ``make`` makes the launcher from the composed configuration, once its settings are complete.
    """
    try:
        command = read_command_line(overrides)
        _require_training(command.sweeps)
        cells = expand(command)
        from albert_ablate.record.outcome import explaining_disk_errors
        from albert_ablate.sweeping.cards import shared
        from albert_ablate.sweeping.engine import run_sweep  # after the checks: torch loads slowly
        from albert_ablate.sweeping.gpus import local_precision, precision_on_cluster, visible_gpus
        from albert_ablate.training.distributed import require_one_process

        require_one_process("A sweep")
        name = command.name or f"grid-{len(cells)}"
        engine = engine_of(composed.hydra)
        gpus = asks_for_gpus(composed.hydra)
        precision = partial(precision_on_cluster, gpus=gpus) if engine.cluster else local_precision
        cards = visible_gpus() if engine.here is not None and _may_use_gpus(cells) else []
        completed(composed, cells, len(cards))
        launcher = make(composed)
        prepare(composed.hydra)

        def launch(chosen: Sequence[Cell]) -> "list[Outcome | None]":
            at_once = cells_at_once(composed, chosen, len(cards))
            threads = threads_of(composed.hydra, at_once)
            part = at_once if at_once is not None and engine.unbounded else len(chosen)
            returned: list[JobReturn] = []
            for first in range(0, len(chosen), part):
                jobs = [for_launch(cell, threads) for cell in chosen[first : first + part]]
                returned += launcher.launch(jobs, initial_job_idx=first)
            return [_answer(job) for job in returned]

        one_by_one = engine.here is None and not engine.cluster
        with explaining_disk_errors(cells[0].config.paths.runs, cells[0].config.paths.cache), shared(cards):
            code = run_sweep(name, cells, command.rerun, launch, one_by_one, precision, command.title, command.words)
    except UserError as error:
        _leave(error)
    if code:
        raise _Exit(code)


def _answer(job: JobReturn) -> "Outcome | None":
    """How a cell ended, or None if its job does not report it."""
    from albert_ablate.sweeping.process import Outcome

    answer = job.return_value if job.status is JobStatus.COMPLETED else None
    return answer if isinstance(answer, Outcome) else None


def _require_multirun(config: RunConfig) -> None:
    """Raises ConfigError where -m was forgotten; else a single default cell would run."""
    if config.sweep is not None:
        from albert_ablate.sweeping.definition import load

        load(config.sweep)
        raise ConfigError(
            f"sweep={config.sweep} has many cells. To run them: {command_name('sweep')} sweep={config.sweep} ... "
            f"To see them first: {command_name('plan')} sweep={config.sweep}"
        )


def _require_training(sweeps: Sequence[str]) -> None:
    """Raises ConfigError for a sweep that only lists configurations."""
    from albert_ablate.sweeping.definition import load

    counted = [name for name in sweeps if load(name).counts_only]
    if counted:
        raise ConfigError(
            f"sweep={counted[0]} lists configurations and trains nothing. "
            f"To see them: {command_name('plan')} sweep={counted[0]}"
        )


def _may_use_gpus(cells: Sequence[Cell]) -> bool:
    return any(cell.config.runtime.device != "cpu" for cell in cells)


def _leave(error: UserError) -> NoReturn:
    """Print the error's message and exit with its code, past Hydra, which would print a traceback."""
    raise _Exit(console.tell(error)) from None
