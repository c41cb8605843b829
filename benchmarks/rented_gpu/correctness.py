"""Is training on this machine what it is elsewhere? Losses on record, equal bits, resuming, waiting for the host."""

import hashlib
import os
import signal
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from albert_ablate.config.schema import RunConfig
from albert_ablate.data.prepare import prepare
from albert_ablate.door.compose import compose
from albert_ablate.errors import PreemptedError
from albert_ablate.methods import method_of
from albert_ablate.record.folder import RunFolder
from albert_ablate.training.checkpoint import Owner
from albert_ablate.training.machine import Machine
from albert_ablate.training.precision import set_up
from albert_ablate.training.trackers import Trackers
from albert_ablate.training.trainer import Trainer
from benchmarks.rented_gpu.places import ROOT, Places
from benchmarks.rented_gpu.sections import Ask
from benchmarks.rented_gpu.sizes import Size

#: Largest difference of a loss from the recorded one. bf16 is compared with fp32, too: a CPU's differs by 1.4e-3.
TOLERANCE = {"fp32": 1e-3, "bf16": 2e-2}
_STOP_AT, _STEPS = 10, 20


def words_of(places: Places, size: Size) -> tuple[str, ...]:
    """Settings of a run on the carried corpus."""
    return (*size.model, "data=packed", f"data.path={places.pack}", f"paths.cache={places.cache}")


def check_words(places: Places, size: Size) -> tuple[str, ...]:
    """The same on a part of the corpus, which is ready sooner."""
    return (*words_of(places, size), f"data.fraction={size.check_fraction}")


def made_trainer(config: RunConfig, folder: RunFolder, held_out: Any = dict) -> Trainer:
    """The trainer of a run as ``run.py`` would have it, without evaluation."""
    set_up(config.runtime)
    prepared = prepare(config)
    config = prepared.settled(config)
    method = method_of(config)
    batches = method.batches(prepared.train, prepared.tokenizer.word_starts)
    return Trainer(
        config, Owner("check"), method.build({}), batches, folder, Machine.of(config.runtime), held_out, Trackers()
    )


def golden(ask: Ask, size: Size) -> dict[str, Any]:
    """Fifty losses of some cells against those on record (``tests/golden/fp32.csv``)."""
    found = {precision: ask(loss_differences, size, precision) for precision in TOLERANCE}
    passed = all(max(cells.values()) <= TOLERANCE[precision] for precision, cells in found.items())
    return {"passed": passed, "largest difference": found, "tolerance": TOLERANCE}


def loss_differences(size: Size, precision: str) -> dict[str, float]:
    """Cell -> the largest difference of a loss on this device from the recorded one in fp32."""
    import pandas as pd

    recorder = ROOT / "tests" / "golden"
    sys.path.insert(0, str(recorder))
    from record import losses

    recorded = pd.read_csv(recorder / "fp32.csv", index_col="step")
    with tempfile.TemporaryDirectory() as folder:
        return {
            cell: float(
                abs(recorded[cell] - losses(Path(folder), cell, precision, f"runtime.device={size.device}")).max()
            )
            for cell in size.golden
        }


def same_bits(ask: Ask, places: Places, size: Size) -> dict[str, Any]:
    """Whether two runs of the same settings end with equal weights, by default and with runtime.deterministic=true."""
    found = {}
    for mode in ("false", "true"):
        words = (*check_words(places, size), f"runtime.deterministic={mode}")
        one, other = (ask(trained, words) for _ in range(2))
        found[f"deterministic={mode}"] = {"equal": one == other, "losses equal": one[0] == other[0]}
    return found


def trained(words: tuple[str, ...], folder: str | None = None, stop: bool = False) -> tuple[str, str]:
    """Digests of the log lines and of the weights after some steps; ``stop``: as after a stop signal half-way.

    With ``folder`` the run continues from what is saved there.
    """
    with tempfile.TemporaryDirectory() as scratch:
        more = (f"budget.steps={_STEPS}", "budget.warmup_steps=2", f"evaluation.curve_every={_STOP_AT}")
        config = compose([*words, *more, "budget=steps", "runtime.log_every=1"])
        run = RunFolder(Path(folder or scratch), "check")

        def held_out() -> dict[str, float]:  # called at a point of the held-out curve
            if stop:
                os.kill(os.getpid(), signal.SIGTERM)
            return {}

        trainer = made_trainer(config, run, held_out)
        try:
            trainer.fit()
        except PreemptedError:
            if not stop:
                raise
        lines = [(line["step"], line["mlm_loss"], line["gradient_norm"]) for line in run.metrics()]
        weights = hashlib.sha256()
        for _, tensor in sorted(trainer.model.state_dict().items()):
            weights.update(tensor.cpu().contiguous().numpy().tobytes())
        return hashlib.sha256(repr(lines).encode()).hexdigest(), weights.hexdigest()


def resumed(ask: Ask, places: Places, size: Size) -> dict[str, Any]:
    """Whether a run that was stopped and continued in another process ends as one that was not."""
    words = check_words(places, size)
    with tempfile.TemporaryDirectory() as folder:
        ask(trained, words, folder, True)
        continued = ask(trained, words, folder)
        return {"equal": continued == ask(trained, words)}


def waits(ask: Ask, places: Places, size: Size) -> dict[str, Any]:
    """The lines of a training step that wait for the GPU, with how often."""
    return ask(lines_that_wait, check_words(places, size))


def lines_that_wait(words: tuple[str, ...]) -> dict[str, Any]:
    """See ``waits``; the first steps, which set things up, are not counted."""
    if not torch.cuda.is_available():
        return {"left out": "only a CUDA device tells"}
    with tempfile.TemporaryDirectory() as folder:
        trainer = made_trainer(compose(words), RunFolder(Path(folder), "check"))
        batches = [trainer.batches[step] for step in range(4)]
        for step in range(3):
            trainer.update(step, batches[step])
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                trainer.update(3, batches[3])
        finally:
            torch.cuda.set_sync_debug_mode("default")
    lines = Counter(
        f"{os.path.relpath(w.filename, ROOT)}:{w.lineno}" for w in caught if "synchroniz" in str(w.message).lower()
    )
    return {"count": sum(lines.values()), "lines": dict(lines)}
