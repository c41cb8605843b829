"""Whether training on this machine gives the recorded losses; short runs whose weights are compared."""

import hashlib
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from albert_ablate.config.schema import RunConfig
from albert_ablate.data.prepare import prepare
from albert_ablate.door.compose import compose
from albert_ablate.errors import PreemptedError
from albert_ablate.methods import method_of
from albert_ablate.record.folder import RunFolder
from albert_ablate.training.attention_choice import ForwardPass, choose_attention
from albert_ablate.training.checkpoint import Owner
from albert_ablate.training.machine import Machine
from albert_ablate.training.precision import set_up
from albert_ablate.training.trackers import Trackers
from albert_ablate.training.trainer import Trainer
from benchmarks.rented_gpu.places import ROOT, Folders
from benchmarks.rented_gpu.sections import Ask
from benchmarks.rented_gpu.sizes import Size

#: Largest accepted difference from a recorded loss. bf16 is compared with fp32 records; on a CPU it differs by 1.4e-3.
TOLERANCE = {"fp32": 1e-3, "bf16": 2e-2}
_STOP_AT, _STEPS = 10, 20


def run_overrides(folders: Folders, size: Size) -> tuple[str, ...]:
    """Settings of a run on the packed corpus."""
    return (*size.model, "data=packed", f"data.path={folders.pack}", f"paths.cache={folders.cache}")


def check_overrides(folders: Folders, size: Size) -> tuple[str, ...]:
    """Settings of a run on a part of the packed corpus, which is prepared sooner."""
    return (*run_overrides(folders, size), f"data.fraction={size.check_fraction}")


def made_trainer(config: RunConfig, folder: RunFolder, held_out: Any = dict) -> Trainer:
    """The trainer of a run as in ``run.py``, without evaluation unless ``held_out`` is given."""
    set_up(config.runtime)
    machine = Machine.of(config.runtime)
    prepared = prepare(config)
    config = prepared.settled(config)
    method = method_of(config)
    batches = method.batches(prepared.train, prepared.tokenizer.word_starts)
    choose_attention(config, ForwardPass.of_pretraining(config), machine)
    return Trainer(config, Owner("check"), method.rehearsal(), batches, folder, machine, held_out, Trackers())


def golden(ask: Ask, size: Size) -> dict[str, Any]:
    """Fifty losses of some cells against the recorded ones (``tests/golden/fp32.csv``)."""
    answers = ask.all([(loss_differences, (size, precision)) for precision in TOLERANCE])
    largest = dict(zip(TOLERANCE, answers, strict=True))
    passed = all(max(cells.values()) <= TOLERANCE[precision] for precision, cells in largest.items())
    return {"passed": passed, "largest difference": largest, "tolerance": TOLERANCE}


def loss_differences(size: Size, precision: str) -> dict[str, float]:
    """Cell -> the largest difference between a loss on this device and the recorded fp32 loss."""
    import pandas as pd

    tests = ROOT / "tests"
    sys.path.insert(0, str(tests))
    from golden.record import losses

    recorded = pd.read_csv(tests / "golden" / "fp32.csv", index_col="step")
    with tempfile.TemporaryDirectory() as folder:
        return {
            cell: float(
                abs(recorded[cell] - losses(Path(folder), cell, precision, f"runtime.device={size.device}")).max()
            )
            for cell in size.golden
        }


def trained(overrides: tuple[str, ...], folder: str | None = None, stop: bool = False) -> str:
    """A digest of the weights after 20 steps; with ``stop``, after a stop signal half-way.

    With ``folder``, the run is saved there, or continued from what was saved.
    """
    with tempfile.TemporaryDirectory() as scratch:
        more = (f"budget.steps={_STEPS}", "budget.warmup_steps=2", f"evaluation.curve_every={_STOP_AT}")
        config = compose([*overrides, *more, "budget=steps", "runtime.log_every=1"])
        run = RunFolder(Path(folder or scratch), "check")

        def held_out() -> dict[str, float]:  # called at each curve point
            if stop:
                os.kill(os.getpid(), signal.SIGTERM)
            return {}

        trainer = made_trainer(config, run, held_out)
        try:
            trainer.fit()
        except PreemptedError:
            if not stop:
                raise
        weights = hashlib.sha256()
        for _, tensor in sorted(trainer.model.state_dict().items()):
            weights.update(tensor.cpu().contiguous().numpy().tobytes())
        return weights.hexdigest()
