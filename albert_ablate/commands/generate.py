"""Let a causal run continue a text: ``python -m albert_ablate.generate runs/NAME --prompt "Once upon a time"``.

``--tokens`` pieces are sampled with ``--seed``; the same seed gives the same text. ``--temperature 0`` always takes the
most probable piece; ``--top-p 0.9`` samples among the fewest pieces that have nine tenths of the probability. A prompt
with more tokens than a sequence of the run's training loses its beginning, which is said.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from albert_ablate import console
from albert_ablate.arguments import Parser
from albert_ablate.command_line import program
from albert_ablate.commands.finetune import tokenizer_of
from albert_ablate.commands.given import open_run, remarks
from albert_ablate.console import command
from albert_ablate.door.compose import compose_for_run


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = Parser(prog=program("generate"), description="Let a causal run continue a text.")
    parser.add_argument("run", type=Path, help="a run folder")
    parser.add_argument("--prompt", default="", help="the text to continue (default: the beginning of a document)")
    parser.add_argument("--tokens", type=int, default=50, help="most pieces that are written (default: 50)")
    parser.add_argument("--seed", type=int, default=0, help="of the random numbers (default: 0)")
    parser.add_argument("--temperature", type=float, default=1.0, help="divides the logits; 0: the most probable piece")
    parser.add_argument("--top-p", type=float, default=1.0, help="sample among the fewest pieces of this probability")
    options = parser.parse_args(arguments)
    folder = open_run(options.run)
    config = compose_for_run(folder.path / "config.yaml", [])
    for remark in remarks(folder):
        console.say(f"  ! {remark}.")
    # Imported here: torch loads slowly.
    from albert_ablate.evaluation.continuation import Sampler, Writer
    from albert_ablate.methods import method_of
    from albert_ablate.training.checkpoint import load_weights, newest
    from albert_ablate.training.machine import Machine

    sampler = Sampler(options.seed, options.temperature, options.top_p)
    tokenizer = tokenizer_of(folder, config)
    machine = Machine.of(replace(config.runtime, precision="fp32"))
    model = method_of(config).build({}).to(machine.device)
    writer = Writer(model, config, tokenizer, machine.device)
    load_weights(newest(folder.checkpoints), model)
    found = writer.continued(options.prompt, sampler, options.tokens)
    if found.left_out:
        console.say(f"  ! The prompt is too long: the model reads it without its first {found.left_out} tokens.")
    console.say(f"{options.prompt}{found.text if options.prompt else found.text.lstrip()}")
    if found.ended:
        console.say(f"\n  the document ends here, after {len(found.pieces)} of {options.tokens} tokens")
    return 0
