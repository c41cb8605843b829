"""``albert-ablate COMMAND ...``, which is also ``python -m albert_ablate COMMAND ...``: all commands by name."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

from albert_ablate.arguments import Parser
from albert_ablate.console import command
from albert_ablate.errors import ArgumentsError, did_you_mean
from albert_ablate.shipped import IN_CHECKOUT, VERSION

PROGRAM = "albert-ablate"
_DOOR = "albert_ablate.door.app"


@dataclass(frozen=True)
class Command:
    """A command: the module of its ``main``, and its line in the help."""

    module: str
    does: str
    settings: bool = False  # takes overrides such as embed=e64
    arguments: tuple[str, ...] = ()  # put before those of the user


COMMANDS = {
    "run": Command(_DOOR, "train and evaluate one cell", settings=True),
    "sweep": Command(_DOOR, "the cells of a sweep file or a grid", settings=True, arguments=("-m",)),
    "plan": Command("albert_ablate.plan", "what a sweep would run, cost and need", settings=True),
    "status": Command("albert_ablate.status", "how sweeps and runs stand"),
    "finetune": Command("albert_ablate.finetune", "a finished run on downstream tasks", settings=True),
    "kshot": Command("albert_ablate.kshot", "zero-, one- and few-shot scores of finished runs", settings=True),
    "evaluate": Command("albert_ablate.evaluate", "score a run on any corpus", settings=True),
    "generate": Command("albert_ablate.generate", "a text that a causal run continues"),
    "predict": Command("albert_ablate.predict", "what a fine-tuning answers to the rows of a table"),
    "export": Command("albert_ablate.export", "a run or a fine-tuning as a folder of transformers"),
    "import": Command("albert_ablate.import_hf", "a checkpoint of BERT, one of its relatives or GPT-2 as a run"),
    "pack": Command("albert_ablate.pack", "a corpus as one file of tokens", settings=True),
    "wordnet": Command("albert_ablate.wordnet", "WordNet's nouns as a table of facts"),
    "report": Command("albert_ablate.analysis.report", "tables, figures and verdicts from runs"),
    "serve": Command("albert_ablate.analysis.serve", "the report and the board in a browser, kept up to date"),
    "scores": Command("albert_ablate.analysis.scores", "scores by arm, and the claims that they test"),
    "audit": Command("albert_ablate.analysis.audit", "a report's numbers derived a second time"),
    "compare": Command("albert_ablate.analysis.compare", "runs side by side"),
    "figures": Command("albert_ablate.analysis.figures", "single figures of runs"),
    "similarity": Command("albert_ablate.analysis.similarity", "what each layer does to its input, on a text"),
    "parameters": Command("albert_ablate.analysis.parameters", "parameters before training", settings=True),
    "difference": Command("albert_ablate.analysis.first_difference", "the first step at which two runs differ"),
    "doctor": Command("albert_ablate.doctor", "what this machine offers"),
    "completion": Command("albert_ablate.commands.completion", "completion in the shell"),
}


def command_name(name: str) -> str:
    """How the command ``name`` is called: ``python -m albert_ablate.plan`` in a checkout, else ``albert-ablate plan``.

    Messages name commands only by this function.
    """
    if not IN_CHECKOUT:
        return f"{PROGRAM} {name}"
    module, arguments = COMMANDS[name].module, COMMANDS[name].arguments
    if module == _DOOR:
        return " ".join(["python run.py", *arguments])
    if module.startswith("albert_ablate.commands."):
        return f"python -m albert_ablate {name}"
    return f"python -m {module.replace('albert_ablate.analysis.', 'analysis.')}"


def call(name: str, arguments: Sequence[str]) -> int:
    """Run a command within this process, such as one of a room above the caller's; returns its exit code."""
    return int(import_module(COMMANDS[name].module).main([*COMMANDS[name].arguments, *arguments]))


def program(name: str) -> str:
    """What the help of the command ``name`` calls it: ``albert-ablate plan`` if it was called so."""
    return sys.argv[0] if sys.argv[0].startswith(f"{PROGRAM} ") else command_name(name)


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point: calls the ``main`` of the command with the remaining arguments; returns its exit code."""
    lines = [f"  {name:<12}{entry.does}" for name, entry in COMMANDS.items()]
    parser = Parser(
        prog=PROGRAM,
        usage="%(prog)s COMMAND ...",
        description="Controlled ablations of BERT-style encoders.\n\ncommands:\n" + "\n".join(lines),
        epilog=f"{PROGRAM} COMMAND --help shows what a command takes.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {VERSION}")
    parser.add_argument("command", nargs="?", metavar="COMMAND", help=argparse.SUPPRESS)
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    name = options.command
    if name is None:
        raise ArgumentsError(f"Which command? There are: {', '.join(COMMANDS)}.")
    if name not in COMMANDS:
        hint = did_you_mean(name, COMMANDS)
        raise ArgumentsError(f"{name}: there is no such command. {hint}There are: {', '.join(COMMANDS)}.")
    chosen = COMMANDS[name]
    sys.argv[:] = [f"{parser.prog} {name}", *chosen.arguments, *options.arguments]  # Hydra reads nothing else
    return int(import_module(chosen.module).main())
