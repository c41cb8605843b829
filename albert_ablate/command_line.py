"""``albert-ablate COMMAND ...``, which is also ``python -m albert_ablate COMMAND ...``: all commands by name."""

import argparse
import difflib
import sys
from collections.abc import Sequence
from importlib import import_module

from albert_ablate import __version__
from albert_ablate.command_table import COMMANDS
from albert_ablate.console import command
from albert_ablate.errors import ConfigError


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
