"""All commands by name, as names of modules: a room may call a command of a room above it without importing it."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module


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


def call(name: str, arguments: Sequence[str]) -> int:
    """Run a command within this process, such as one of a room above the caller's; returns its exit code."""
    return int(import_module(COMMANDS[name].module).main([*COMMANDS[name].arguments, *arguments]))
