"""Held-out forward passes on the fake accelerator, in a process of their own: ``python gpu_evaluation.py FOLDER``.

Prints JSON: for masked LM and for the sentence task the number of tensors that were copied from the host, and the shape
of each batch's first result, without what was filled in. What a GPU would wait for raises.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from fake_accelerator import DEVICE, install, moved, on_device
from runhelpers import held_out_of, tiny_config

from albert_ablate.evaluation.intrinsic import Evaluator
from albert_ablate.model.pretraining import build_model
from albert_ablate.training.machine import Machine


def main(folder: Path) -> dict[str, Any]:
    """Both passes, over 17 pairs in batches of five."""
    install()
    config = tiny_config(folder, "batch.micro_size=5", "evaluation.max_pairs=17")
    _, held_out = held_out_of(config)
    pairs = held_out.plain
    assert len(list(pairs.batches())) == 4  # made and kept, with values
    model = build_model(config.architecture(), config.seed)
    with on_device():
        evaluator = Evaluator(moved(model), held_out, config.objective.name, None, Machine(DEVICE, "bf16"))
    return {
        "masked LM": passes(lambda: evaluator._predictions(pairs, None)),
        "sentences": passes(lambda: evaluator._first_states(pairs, None)),
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
