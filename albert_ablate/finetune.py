"""Fine-tune finished runs: ``python -m albert_ablate.finetune runs/NAME task=mnli,squad11 task.data_dir=DATA``.

Pretraining is not repeated, and a fine-tuning that is finished is skipped. Takes one run folder or
several, and the settings ``task``, ``task.*``, ``tasks.*``, ``runtime.*``, ``tracker``, ``rerun`` and ``paths.cache``.

``--reread`` trains nothing: finished fine-tunings whose heads answered in bf16, as they did in older versions, are
scored again with heads in fp32, and the difference is shown.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from albert_ablate import console
from albert_ablate.config import RunConfig
from albert_ablate.errors import ConfigError, DataError, PreemptedError, RunFolderError, UserError
from albert_ablate.files import require_writable
from albert_ablate.given import open_run, remarks, require_cache, require_no_place_for_runs
from albert_ablate.hydra_compose import FINE_TUNING_GROUPS, compose_for_run
from albert_ablate.lock import guard_file
from albert_ablate.runs import RunFolder
from albert_ablate.stopping import stoppable

if TYPE_CHECKING:
    from albert_ablate.data.tokenizer import Tokenizer


@console.command
def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code: 0, or that of the worst failure."""
    parser = argparse.ArgumentParser(
        prog=console.program("albert_ablate.finetune"), description="Fine-tune finished runs on downstream tasks."
    )
    parser.add_argument(
        "words", nargs="+", metavar="RUN | SETTING=VALUE", help="run folders, and settings as task=sst2"
    )
    parser.add_argument(
        "--reread",
        action="store_true",
        help="train nothing: score finished fine-tunings again whose heads answered in bf16, now with heads in fp32",
    )
    options = parser.parse_intermixed_args(arguments)
    words: list[str] = options.words
    settings = [word for word in words if _is_setting(word)]
    places = [Path(word) for word in words if not _is_setting(word)]
    if not places:
        parser.error("which run? Name its folder, such as runs/e128-all-sop-nano-s0-...")
    if options.reread:
        chosen = [word for word in settings if word.partition("=")[0].lstrip("+~") in ("task", "rerun")]
        if chosen:
            raise ConfigError(f"{chosen[0]}: no effect with --reread, which takes every fine-tuning of the run.")
    runs = [_given(place, settings, options.reread) for place in places]  # all before the first is trained
    from albert_ablate.outcome import disk_in_words  # after the settings are found good: torch loads slowly

    code = 0
    for folder, config in runs:
        try:
            with stoppable(), disk_in_words(str(folder.path.parent), config.paths.cache):
                if options.reread:
                    reread_run(folder, config, settings)
                else:
                    fine_tune_run(folder, config)
        except UserError as error:
            code = max(code, console.tell(error))
            if isinstance(error, PreemptedError):
                return code
    return code


def _is_setting(word: str) -> bool:
    """Whether a word sets something; a path may hold = too."""
    name, equals, _ = word.partition("=")
    group = name.lstrip("+~").split(".")[0]
    if not equals or group in FINE_TUNING_GROUPS:
        return bool(equals)
    known = group in {field.name for field in fields(RunConfig)}  # of a run, so refused in words
    return not Path(word).expanduser().exists() and (known or "/" not in word)


def _given(place: Path, settings: Sequence[str], reread: bool) -> tuple[RunFolder, RunConfig]:
    """The run in the folder ``place``, and its settings with ``settings``. Raises UserError.

    ``reread``: with every task that it was fine-tuned on.
    """
    folder = open_run(place)
    require_no_place_for_runs(settings)
    if reread:
        from albert_ablate.tasks.reread import manifest_of, waiting

        names = sorted({manifest_of(unit)["task"] for unit in waiting(folder)})
        settings = [*([f"task=[{','.join(names)}]"] if names else []), *settings]
    config = compose_for_run(folder.path / "config.yaml", settings)
    if not config.tasks and not reread:
        raise RunFolderError("Which task? Say task=sst2 or task=mnli,squad11; `python run.py --help` lists them.")
    if folder.state() != "finished":
        raise RunFolderError(f"{remarks(folder)[0]}. Its pretraining must be finished first.")
    try:
        require_writable(folder.path, folder.path / "tasks", guard_file(folder.path).parent)
    except OSError as error:
        raise RunFolderError(
            f"{folder.path} cannot be written ({error.strerror}); fine-tunings lie in the run's own folder. Copy it to "
            f"a place of your own (cp -r {folder.path} FOLDER) and fine-tune the copy."
        ) from error
    require_cache(config)
    return folder, config


def fine_tune_run(folder: RunFolder, config: RunConfig) -> None:
    """Every task and seed of ``config`` on a finished run. Raises UserError."""
    from albert_ablate.distributed import require_one_process
    from albert_ablate.summary import summary
    from albert_ablate.tasks.units import fine_tune_all, plan_units, read_units, rerun_units
    from albert_ablate.training.machine import Machine
    from albert_ablate.training.precision import set_up

    require_one_process("Fine-tuning alone")
    machine = Machine.of(config.runtime)
    set_up(config.runtime)
    units = plan_units(config, folder, machine.precision)
    chosen = rerun_units(units, config.rerun)
    readers = read_units(chosen)
    if chosen:
        fine_tune_all(config, folder, chosen, readers, tokenizer_of(folder, config), machine)
    else:
        console.say(f"{folder.path}: nothing to do; every fine-tuning asked for is finished.")
    console.show(summary(folder))


def reread_run(folder: RunFolder, config: RunConfig, settings: Sequence[str]) -> None:
    """Score the fine-tunings of a finished run again whose heads answered in bf16. Raises UserError."""
    from albert_ablate.distributed import require_one_process
    from albert_ablate.tasks.reread import reread, waiting
    from albert_ablate.training.machine import Machine
    from albert_ablate.training.precision import set_up

    require_one_process("Scoring again")
    units = waiting(folder)
    if not units:
        console.say(f"{folder.path}: nothing to do; the heads of all finished fine-tunings answered in fp32.")
        return
    names = {word.partition("=")[0].lstrip("+~") for word in settings}
    set_up(config.runtime)
    machine = Machine.of(config.runtime)
    found = reread(config, folder, units, names.__contains__, tokenizer_of(folder, config), machine)
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="dim")
    for title in ("  fine-tuning", "score"):
        table.add_column(title, overflow="fold")
    for title in ("head in bf16", "in fp32", "difference"):
        table.add_column(title, justify="right")
    for one in found:
        for which, (before, now) in (("best", one.best), ("last", one.last)):
            name = f"  {one.name}" if which == "best" else ""
            table.add_row(name, which, f"{before:.2%}", f"{now:.2%}", f"{100 * (now - before):+.2f}")
    console.show(table)


def tokenizer_of(folder: RunFolder, config: RunConfig) -> "Tokenizer":
    """The tokenizer that the run was pretrained with. Raises DataError where it is gone."""
    from albert_ablate.data.vocabulary import open_tokenizer, tokenizer_file

    wanted = folder.read("manifest.json")["data"]["tokenizer"]["fingerprint"]
    model = tokenizer_file(folder.path)
    if model.is_file():
        found = open_tokenizer(model, config.tokenizer)
    else:  # a folder from before the model was copied into it
        from albert_ablate.data.prepare import prepare_data

        found = prepare_data(config).tokenizer
    if found.fingerprint != wanted:
        raise DataError(f"{folder.path}: the tokenizer is not the one of the pretraining ({found.path}).")
    return found


if __name__ == "__main__":
    sys.exit(main())
