"""``albert-ablate COMMAND ...``, which is also ``python -m albert_ablate COMMAND ...``: all commands by name."""

import argparse
import difflib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

from albert_ablate import __version__
from albert_ablate.console import command
from albert_ablate.errors import ConfigError


@dataclass(frozen=True)
class Command:
    """A command: the module of its ``main``, and its line in the help."""

    module: str
    does: str
    settings: bool = False  # takes overrides such as embed=e64
    arguments: tuple[str, ...] = ()  # put before those of the user


COMMANDS = {
    "run": Command("albert_ablate.door.app", "train and evaluate one cell", settings=True),
    "sweep": Command("albert_ablate.door.app", "the cells of a sweep file or a grid", settings=True, arguments=("-m",)),
    "plan": Command("albert_ablate.plan", "what a sweep would run, cost and need", settings=True),
    "status": Command("albert_ablate.status", "how sweeps and runs stand"),
    "finetune": Command("albert_ablate.finetune", "a finished run on downstream tasks", settings=True),
    "evaluate": Command("albert_ablate.evaluate", "score a run on any corpus", settings=True),
    "export": Command("albert_ablate.export", "a run as a folder of transformers"),
    "import": Command("albert_ablate.import_hf", "an ALBERT or BERT checkpoint as a run"),
    "pack": Command("albert_ablate.pack", "a corpus as one file of tokens", settings=True),
    "report": Command("albert_ablate.analysis.report", "tables, figures and verdicts from runs"),
    "audit": Command("albert_ablate.analysis.audit", "a report's numbers derived a second time"),
    "compare": Command("albert_ablate.analysis.compare", "runs side by side"),
    "figures": Command("albert_ablate.analysis.figures", "single figures of runs"),
    "similarity": Command("albert_ablate.analysis.similarity", "what each layer does to its input, on a text"),
    "parameters": Command("albert_ablate.analysis.parameters", "parameters before training", settings=True),
    "difference": Command("albert_ablate.analysis.first_difference", "the first step at which two runs differ"),
    "doctor": Command("albert_ablate.doctor", "what this machine offers"),
    "completion": Command("albert_ablate.commands.completion", "completion in the shell"),
}


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point: calls the ``main`` of the command with the remaining arguments; returns its exit code."""
    lines = [f"  {name:<12}{entry.does}" for name, entry in COMMANDS.items()]
    parser = argparse.ArgumentParser(
        prog="albert-ablate",
        usage="%(prog)s COMMAND ...",
        description="Controlled ablations of BERT-style encoders.\n\ncommands:\n" + "\n".join(lines),
        epilog="albert-ablate COMMAND --help shows what a command takes.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"albert-ablate {__version__}")
    parser.add_argument("command", metavar="COMMAND", help=argparse.SUPPRESS)
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    name = options.command
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"Did you mean {near[0]}? " if near else ""
        raise ConfigError(f"{name}: there is no such command. {hint}There are: {', '.join(COMMANDS)}.")
    chosen = COMMANDS[name]
    sys.argv[:] = [f"{parser.prog} {name}", *chosen.arguments, *options.arguments]  # Hydra reads nothing else
    return int(import_module(chosen.module).main())
