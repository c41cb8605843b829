"""Fine-tune finished runs: ``python -m albert_ablate.finetune runs/NAME task=mnli,squad11 task.data_dir=DATA``.

Pretraining is not repeated, and a fine-tuning that is finished is skipped. Takes one run folder or
several, and the settings ``task``, ``task.*``, ``tasks.*``, ``runtime.*``, ``tracker`` and ``rerun``.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from albert_ablate import console
from albert_ablate.config import RunConfig
from albert_ablate.errors import DataError, PreemptedError, RunFolderError, UserError
from albert_ablate.hydra_app import compose_for_run, words_of
from albert_ablate.runs import RunFolder
from albert_ablate.stopping import stoppable

if TYPE_CHECKING:
    from albert_ablate.data.tokenizer import Tokenizer


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code: 0, or that of the worst failure."""
    parser = argparse.ArgumentParser(
        prog="python -m albert_ablate.finetune", description="Fine-tune finished runs on downstream tasks."
    )
    parser.add_argument(
        "words", nargs="+", metavar="RUN | SETTING=VALUE", help="run folders, and settings as task=sst2"
    )
    words = parser.parse_args(arguments).words
    runs = [Path(word) for word in words if "=" not in word]
    settings = [word for word in words if "=" in word]
    if not runs:
        parser.error("which run? Name its folder, such as runs/e128-all-sop-nano-s0-...")
    code = 0
    for run in runs:
        try:
            with stoppable():
                fine_tune_run(run, settings)
        except UserError as error:
            print(f"\n{words_of(error)}\n", file=sys.stderr)
            code = max(code, error.exit_code)
            if isinstance(error, PreemptedError):
                return code
    return code


def fine_tune_run(run: Path, settings: Sequence[str]) -> None:
    """Every task and seed of ``settings`` on the run in the folder ``run``. Raises UserError."""
    folder = RunFolder(run.parent, run.name)
    if not (run / "config.yaml").is_file():
        raise RunFolderError(f"{run}: no run folder (it has no config.yaml). Runs lie in runs/.")
    config = compose_for_run(run / "config.yaml", settings)
    if not config.tasks:
        raise RunFolderError("Which task? Say task=sst2 or task=mnli,squad11; `python run.py --help` lists them.")
    if folder.state() != "finished":
        raise RunFolderError(f"{run} is {folder.state()}; its pretraining must be finished first.")
    from albert_ablate.distributed import require_one_process
    from albert_ablate.summary import summary  # after the settings are found good: torch loads slowly
    from albert_ablate.tasks.units import fine_tune_all, plan_units, read_units, rerun_units
    from albert_ablate.training.precision import choose_device, choose_precision, set_up

    require_one_process("Fine-tuning alone")
    device = choose_device(config.runtime)
    precision = choose_precision(config.runtime, device)
    set_up(config.runtime)
    units = plan_units(config, folder, precision)
    chosen = rerun_units(units, config.rerun)
    readers = read_units(chosen)
    if chosen:
        fine_tune_all(config, folder, chosen, readers, tokenizer_of(folder, config), device, precision)
    else:
        console.say(f"{run}: nothing to do; every fine-tuning asked for is finished.")
    console.show(summary(folder))


def tokenizer_of(folder: RunFolder, config: RunConfig) -> "Tokenizer":
    """The tokenizer that the run was pretrained with. Raises DataError where it is gone."""
    from albert_ablate.data.vocabulary import open_tokenizer, tokenizer_file

    wanted = folder.read("manifest.json")["data"]["tokenizer"]["fingerprint"]
    model = tokenizer_file(folder.path)
    if model.is_file():
        found = open_tokenizer(model, config.tokenizer)
    else:  # a folder from before the model was copied into it
        from albert_ablate.experiment import prepare_data

        found = prepare_data(config).tokenizer
    if found.fingerprint != wanted:
        raise DataError(f"{folder.path}: the tokenizer is not the one of the pretraining ({found.path}).")
    return found


if __name__ == "__main__":
    console.prepare()
    sys.exit(main())
