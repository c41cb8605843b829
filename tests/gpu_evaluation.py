"""Held-out forward passes on the fake accelerator, in a process of their own: ``python gpu_evaluation.py FOLDER``.

Prints JSON: for masked LM, the sentence task and both passes of the replaced-token probe the number of tensors that
were copied from the host, and the shape of each batch's first result, without what was filled in. What a GPU would wait
for raises.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fake_accelerator import DEVICE, install, moved, on_device
from runhelpers import held_out_of, tiny_config

from albert_ablate.evaluation import replaced
from albert_ablate.evaluation.baselines import NgramTables
from albert_ablate.evaluation.corruption import Draws
from albert_ablate.evaluation.intrinsic import Evaluator
from albert_ablate.model.pretraining import build_model
from albert_ablate.training.machine import Machine


def main(folder: Path) -> dict[str, Any]:
    """Every pass, over 17 pairs in batches of five."""
    install()
    config = tiny_config(folder, "batch.micro_size=5", "evaluation.max_pairs=17")
    _, held_out = held_out_of(config)
    pairs = held_out.plain
    assert len(list(pairs.batches())) == 4  # made and kept, with values
    model = build_model(config.architecture(), config.seed)
    with on_device():
        evaluator = Evaluator(moved(model), held_out, config.objective.name, None, Machine(DEVICE, "bf16"))
        head = replaced._Head(np.zeros(config.model.hidden), 0.0, np.zeros(len(pairs.word_starts)))
    draws = Draws(NgramTables.of([pairs.store], len(pairs.word_starts)))
    machine = evaluator.machine
    encoder = evaluator.model.encoder
    return {
        "masked LM": passes(lambda: evaluator._predictions(pairs, None)),
        "sentences": passes(lambda: evaluator._sentence_states(pairs, None)),
        "replaced tokens, fitting": passes(lambda: replaced._last_states(encoder, pairs, draws, machine, 17)),
        "replaced tokens": passes(lambda: replaced._odds(encoder, pairs, draws, head, machine)),
    }


def passes(made: Callable[[], Iterator[Any]]) -> dict[str, Any]:
    """All of a set."""
    with on_device() as counted, torch.no_grad():
        shapes = [list(tensors[0].shape) for _, tensors in made()]
    return {"from_host": counted.from_host, "shapes": shapes}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
    sys.stdout.flush()
    os._exit(0)
