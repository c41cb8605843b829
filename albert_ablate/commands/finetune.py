"""Fine-tune finished runs: ``python -m albert_ablate.finetune runs/NAME task=mnli,squad11 task.data_dir=DATA``.

Pretraining is not repeated, and finished fine-tunings are skipped. Takes one or more run folders and
the settings ``task``, ``task.*``, ``tasks.*``, ``runtime.*``, ``tracker``, ``rerun`` and ``paths.cache``.

``--reread`` trains nothing. It scores finished fine-tunings of older versions, whose heads answered in bf16, again
with heads in fp32 and shows the difference.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from albert_ablate import console
from albert_ablate.arguments import Parser
from albert_ablate.command_line import command_name, program
from albert_ablate.commands.given import is_setting, open_run, refuse_paths_runs, require_cache, require_finished
from albert_ablate.config.schema import RunConfig
from albert_ablate.door.compose import FINE_TUNING_GROUPS, compose_for_run
from albert_ablate.errors import ConfigError, DataError, PreemptedError, RunFolderError, UserError
from albert_ablate.record.folder import RunFolder
from albert_ablate.stopping import stoppable

if TYPE_CHECKING:
    from albert_ablate.data.tokenizer import Tokenizer


@console.command
def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code: 0, or that of the worst failure."""
    parser = Parser(prog=program("finetune"), description="Fine-tune finished runs on downstream tasks.")
    parser.add_argument(
        "items", nargs="+", metavar="RUN | SETTING=VALUE", help="run folders, and settings as task=sst2"
    )
    parser.add_argument(
        "--reread",
        action="store_true",
        help="train nothing: score finished fine-tunings again whose heads answered in bf16, now with heads in fp32",
    )
    options = parser.parse_intermixed_args(arguments)
    items: list[str] = options.items
    settings = [argument for argument in items if is_setting(argument, FINE_TUNING_GROUPS)]
    paths = [Path(argument) for argument in items if not is_setting(argument, FINE_TUNING_GROUPS)]
    if not paths:
        parser.error("which run? Name its folder, such as runs/e128-all-sop-nano-s0-...")
    if options.reread:
        chosen = [argument for argument in settings if argument.partition("=")[0].lstrip("+~") in ("task", "rerun")]
        if chosen:
            raise ConfigError(f"{chosen[0]}: no effect with --reread, which takes every fine-tuning of the run.")
    runs = [_run_and_settings(path, settings, options.reread) for path in paths]  # check all before training the first
    from albert_ablate.record.outcome import explaining_disk_errors  # after the checks: torch loads slowly

    code = 0
    for folder, config in runs:
        try:
            with stoppable(), explaining_disk_errors(str(folder.path.parent), config.paths.cache):
                if options.reread:
                    reread_run(folder, config, settings)
                else:
                    fine_tune_run(folder, config)
        except UserError as error:
            code = max(code, console.tell(error))
            if isinstance(error, PreemptedError):
                return code
    return code


def _run_and_settings(path: Path, settings: Sequence[str], reread: bool) -> tuple[RunFolder, RunConfig]:
    """The run in the folder ``path``, and its recorded settings with ``settings``. Raises UserError.

    ``reread``: the settings then include every task with fine-tunings to score again.
    """
    folder = open_run(path)
    refuse_paths_runs(settings)
    if reread:
        from albert_ablate.tasks.reread import manifest_of, waiting

        names = sorted({manifest_of(unit)["task"] for unit in waiting(folder)})
        settings = [*([f"task=[{','.join(names)}]"] if names else []), *settings]
    config = compose_for_run(folder.path / "config.yaml", settings)
    if not config.tasks and not reread:
        raise RunFolderError(
            f"Which task? Say task=sst2 or task=mnli,squad11; `{command_name('run')} --help task` lists them."
        )
    require_finished(folder, "tasks", "fine-tunings")
    require_cache(config)
    return folder, config


def fine_tune_run(folder: RunFolder, config: RunConfig) -> None:
    """Fine-tune a finished run on every task and seed of ``config``. Raises UserError."""
    from albert_ablate.record.summary import summary
    from albert_ablate.tasks.planning import plan_units
    from albert_ablate.tasks.units import fine_tune_all, read_units, rerun_units, settle
    from albert_ablate.training.backend import keep_compiled
    from albert_ablate.training.distributed import require_one_process
    from albert_ablate.training.machine import Machine
    from albert_ablate.training.precision import set_up

    require_one_process("Fine-tuning alone")
    machine = Machine.of(config.runtime)
    set_up(config.runtime)
    keep_compiled(Path(config.paths.cache), machine.backend)
    units = plan_units(config, folder, machine.precision)
    chosen = rerun_units(units, config.rerun)
    readers = read_units(chosen)
    if chosen:
        fine_tune_all(config, folder, chosen, readers, tokenizer_of(folder, config), machine)
    else:
        settle(folder, units)
        console.say(f"{folder.path}: nothing to do; every fine-tuning asked for is finished.")
    console.show(summary(folder))


def reread_run(folder: RunFolder, config: RunConfig, settings: Sequence[str]) -> None:
    """Score a finished run's fine-tunings whose heads answered in bf16 again. Raises UserError."""
    from albert_ablate.tasks.reread import reread, waiting
    from albert_ablate.training.distributed import require_one_process
    from albert_ablate.training.machine import Machine
    from albert_ablate.training.precision import set_up

    require_one_process("Scoring again")
    units = waiting(folder)
    if not units:
        console.say(f"{folder.path}: nothing to do; the heads of all finished fine-tunings answered in fp32.")
        return
    names = {setting.partition("=")[0].lstrip("+~") for setting in settings}
    set_up(config.runtime)
    machine = Machine.of(config.runtime)
    rescored = reread(config, folder, units, names.__contains__, tokenizer_of(folder, config), machine)
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="dim")
    for title in ("  fine-tuning", "score"):
        table.add_column(title, overflow="fold")
    for title in ("head in bf16", "in fp32", "difference"):
        table.add_column(title, justify="right")
    for unit in rescored:
        for which, (before, now) in (("best", unit.best), ("last", unit.last)):
            name = f"  {unit.name}" if which == "best" else ""
            table.add_row(name, which, f"{before:.2%}", f"{now:.2%}", f"{100 * (now - before):+.2f}")
    console.show(table)


def tokenizer_of(folder: RunFolder, config: RunConfig) -> "Tokenizer":
    """The tokenizer of the run's pretraining. Raises DataError if it is not available."""
    from albert_ablate.data.vocabulary import open_tokenizer, tokenizer_file

    wanted = folder.read("manifest.json")["data"]["tokenizer"]["fingerprint"]
    model = tokenizer_file(folder.path)
    if model.is_file():
        tokenizer = open_tokenizer(model, config.tokenizer)
    else:  # older run folders have no copy of it
        from albert_ablate.data.prepare import prepare_data

        tokenizer = prepare_data(config).tokenizer
    if tokenizer.fingerprint != wanted:
        raise DataError(f"{folder.path}: the tokenizer is not the one of the pretraining ({tokenizer.path}).")
    return tokenizer
