"""Import a checkpoint as a run: ``python -m albert_ablate.import_hf NAME_OR_FOLDER runs/NAME``.

Reads ALBERT, BERT, BigBird, DistilBERT, ELECTRA and GPT-2 checkpoints of transformers (safetensors, or .bin without
running its pickles) and ALBERT's TensorFlow release, with their tokenizers. Fine-tuning, evaluation and analysis accept
the run folder like that of a trained run.
"""

from collections.abc import Sequence
from pathlib import Path

from albert_ablate.arguments import Parser
from albert_ablate.command_line import program
from albert_ablate.console import command
from albert_ablate.door.compose import IMPORTED, compose
from albert_ablate.door.importing import import_checkpoint


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = Parser(
        prog=program("import"), description="A checkpoint of ALBERT, BERT or one of its relatives, or GPT-2, as a run."
    )
    parser.add_argument("checkpoint", help="a folder with configuration, weights and tokenizer; or a name on the hub")
    parser.add_argument("out", type=Path, help="the run folder to write, such as runs/albert-base-v2")
    options = parser.parse_args(arguments)
    imported = import_checkpoint(options.checkpoint, options.out, lambda: compose(IMPORTED))
    lacks = f"; it has no {', no '.join(imported.missing)}: random weights there" if imported.missing else ""
    leaves = f"; left out, {imported.left_out_as}: {', '.join(imported.left_out)}" if imported.left_out else ""
    print(f"{options.out}: imported{lacks}{leaves}")
    return 0
