"""Zero-, one- and few-shot scores: ``python -m albert_ablate.kshot runs/NAME task=sst2 kshot.k=0,1,4``.

Nothing is trained: a question is shown after k solved ones, and the option that the model finds most probable is its
answer. Takes one or more run folders and the settings ``task``, ``task.*``, ``tasks.*``, ``kshot.*``, ``runtime.*``,
``rerun`` and ``paths.cache``; ``task=minimal_pairs`` compares good and bad sentences. Finished evaluations are skipped.
"""

from collections.abc import Sequence
from pathlib import Path

from albert_ablate import console
from albert_ablate.arguments import Parser
from albert_ablate.command_line import command_name, program
from albert_ablate.commands.given import is_setting, open_run, refuse_paths_runs, require_cache, require_finished
from albert_ablate.config.schema import RunConfig
from albert_ablate.door.compose import KSHOT_GROUPS, compose_for_kshot
from albert_ablate.errors import PreemptedError, RunFolderError, UserError
from albert_ablate.record.folder import RunFolder, wanted
from albert_ablate.record.prompted_summary import prompted_table
from albert_ablate.record.results import Results
from albert_ablate.stopping import stoppable


@console.command
def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code: 0, or that of the worst failure."""
    parser = Parser(prog=program("kshot"), description="Zero-, one- and few-shot scores of finished runs.")
    parser.add_argument(
        "items", nargs="+", metavar="RUN | SETTING=VALUE", help="run folders, and settings as task=sst2 kshot.k=0,1,4"
    )
    items: list[str] = parser.parse_intermixed_args(arguments).items
    settings = [argument for argument in items if is_setting(argument, KSHOT_GROUPS)]
    paths = [Path(argument) for argument in items if not is_setting(argument, KSHOT_GROUPS)]
    if not paths:
        parser.error("which run? Name its folder, such as runs/e128-all-sop-nano-s0-...")
    runs = [_run_and_settings(path, settings) for path in paths]  # check all before scoring the first
    from albert_ablate.record.outcome import explaining_disk_errors  # after the checks: torch loads slowly

    code = 0
    for folder, config in runs:
        try:
            with stoppable(), explaining_disk_errors(str(folder.path.parent), config.paths.cache):
                evaluate_run(folder, config)
        except UserError as error:
            code = max(code, console.tell(error))
            if isinstance(error, PreemptedError):
                return code
    return code


def _run_and_settings(path: Path, settings: Sequence[str]) -> tuple[RunFolder, RunConfig]:
    """The run in the folder ``path``, and its recorded settings with ``settings``. Raises UserError."""
    folder = open_run(path)
    refuse_paths_runs(settings)
    config = compose_for_kshot(folder.path / "config.yaml", settings)
    if not config.tasks and config.kshot.minimal_pairs is None:
        raise RunFolderError(
            f"Which task? Say task=sst2, task=mnli,race or task=minimal_pairs; `{command_name('run')} --help task` "
            "lists them."
        )
    require_finished(folder, "kshot", "scores")
    require_cache(config)
    return folder, config


def evaluate_run(folder: RunFolder, config: RunConfig) -> None:
    """Score a finished run on every task, number of demonstrations and seed of ``config``. Raises UserError."""
    from albert_ablate.commands.finetune import tokenizer_of
    from albert_ablate.prompting.models import require_predictions, room_of
    from albert_ablate.prompting.planning import plan_asked, plan_units
    from albert_ablate.prompting.units import collect, evaluate_all, read_all
    from albert_ablate.training.distributed import require_one_process
    from albert_ablate.training.machine import Machine
    from albert_ablate.training.precision import set_up

    require_one_process("Scoring options")
    require_predictions(config, folder)
    set_up(config.runtime)
    planned = plan_units(config, folder, plan_asked(config, folder))
    chosen = [unit for unit in planned if wanted(config.rerun, unit.folder.state())]
    if config.rerun == "all":
        for unit in chosen:
            unit.folder.set_aside()
    if chosen:
        tokenizer = tokenizer_of(folder, config)
        read = read_all((unit.asked for unit in chosen), tokenizer, room_of(config))
        evaluate_all(config, folder, chosen, read, tokenizer, Machine.of(config.runtime))
    else:
        console.say(f"{folder.path}: nothing to do; every evaluation asked for is finished.")
        collect(folder)
    groups = {unit.group for unit in planned}
    entries = [entry for entry in folder.load("results.json", Results).kshot if entry.group in groups]
    console.say(f"\n{folder.name}: accuracy in %, mean ± standard deviation over seeds ({entries[0].scoring})")
    console.show(prompted_table(entries))
