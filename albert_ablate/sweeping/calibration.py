"""How long a step takes on this machine: a few steps of the real model, once for each shape.

Measured in a process of its own, so that its peak memory is that of the step; kept in
``cache/calibration/``. A batch too large for a short measurement is measured on fewer sequences and
scaled.
"""

import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from albert_ablate import console, provenance
from albert_ablate.axes import AXES
from albert_ablate.config import RunConfig
from albert_ablate.data.prepare import prepare_data
from albert_ablate.errors import UserError
from albert_ablate.files import digest, read_json, write_json
from albert_ablate.methods import method_of
from albert_ablate.methods.batch import StepBatches
from albert_ablate.model.base import EncoderModel
from albert_ablate.parse import parse
from albert_ablate.runs import RunFolder
from albert_ablate.sweeping.process import server
from albert_ablate.trackers import Trackers
from albert_ablate.training.budget import step_flops
from albert_ablate.training.checkpoint import Owner
from albert_ablate.training.machine import Machine
from albert_ablate.training.precision import choose_device, set_up
from albert_ablate.training.trainer import Trainer

#: Raise when a measurement means something else.
_FORMAT = 2
#: FLOPs of one measured step: about two seconds of a laptop's processor.
_STEP_FLOPS = 1.5e12
_SECONDS = 2.0
_WARM_UP_SECONDS = 2.0
_WARM_UP_STEPS = 100  # at most, and as many again at most are measured
_LEAST_STEPS = 8


@dataclass(frozen=True)
class Calibration:
    """One shape on one machine."""

    step_seconds: float  # a whole optimizer step, its batch included
    sequence_seconds: float  # a held-out sequence, forward
    peak_bytes: int  # of the process on CPU, of the device on a GPU
    tokens_per_step: float  # real tokens, padding left out


def calibrate(config: RunConfig) -> Calibration:
    """The measurement for ``config``'s shape: from the cache, or now. Raises UserError where it fails."""
    if kept(config) is None:
        write_json(_path(config), _measured_apart(config))
    return Calibration(**read_json(_path(config)))


def kept(config: RunConfig) -> Calibration | None:
    """The measurement for ``config``'s shape on this machine, if there is one already."""
    path = _path(config)
    return Calibration(**read_json(path)) if path.is_file() else None


def _path(config: RunConfig) -> Path:
    return Path(config.paths.cache) / "calibration" / f"{_key(config)}.json"


def _key(config: RunConfig) -> str:
    """Whatever changes the time or memory of a step."""
    v = config.as_dict()
    axes = {axis.group: v[axis.group] for axis in AXES}
    parts = axes | {name: v[name] for name in ("model", "pairs", "masking", "batch", "tokenizer", "data")}
    parts["model"] = {k: x for k, x in v["model"].items() if k != "name"}
    parts["optimizer"] = v["optimizer"]["name"]
    parts |= {key: v["runtime"][key] for key in ("device", "precision", "threads", "workers")}
    parts |= {"hardware": provenance.hardware(choose_device(config.runtime)), "torch": torch.__version__}
    return digest([_FORMAT, parts])


def _measured_apart(config: RunConfig) -> dict[str, Any]:
    context = server()
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(config.as_dict(), send))
    process.start()
    send.close()
    try:
        found = receive.recv()
    except EOFError:
        process.join()
        raise UserError(
            f"The calibration ended with code {process.exitcode}; the step may not fit in memory."
        ) from None
    process.join()
    if isinstance(found, str):
        raise UserError(f"The calibration failed: {found}")
    return dict(found)


def _measure(values: dict[str, Any], send: Any) -> None:
    """Body of the process."""
    console.silence()
    try:
        send.send(asdict(measure(parse(values))))
    except Exception as error:
        send.send(f"{type(error).__name__}: {error}")


def measure(config: RunConfig) -> Calibration:
    """Time some steps in this process."""
    machine = Machine.of(config.runtime)
    set_up(config.runtime)
    size = config.batch.size
    flops = step_flops(config) / size
    rows = max(1, min(config.batch.micro_size, size, int(_STEP_FLOPS / flops)))
    if size <= config.batch.micro_size and rows >= size / 2:
        rows = size
    still = replace(config.budget, steps=2**40, warmup_steps=2**40 - 1)  # rates so small that nothing can diverge
    short = replace(config, batch=replace(config.batch, size=rows, micro_size=rows), budget=still)
    prepared = prepare_data(config)
    config = prepared.settled(config)
    method = method_of(replace(config, batch=short.batch, seed=0))
    batches = method.batches(prepared.train, prepared.tokenizer.word_starts)
    with tempfile.TemporaryDirectory() as folder:
        model, place = method.build({}), RunFolder(Path(folder), "calibration")
        trainer = Trainer(short, Owner("calibration"), model, batches, place, machine, dict, Trackers())
        times, tokens = _steps(trainer, batches)
    update = sorted(times)[len(times) // 4]  # a short measurement is easily disturbed; this is the machine at rest
    began = time.perf_counter()
    trainer.optimizer.step()
    trainer.settle()
    optimizer = min(time.perf_counter() - began, update)
    state = 16 * sum(p.numel() for p in trainer.model.parameters())  # weights, gradients and two moments in fp32
    peak = _peak(machine.device)
    if rows < config.batch.micro_size:
        peak = state + round((peak - state) * min(config.batch.micro_size, size) / rows)
    return Calibration(
        step_seconds=(update - optimizer) * size / rows + optimizer,
        sequence_seconds=_forward_seconds(model, machine, batches) / rows,
        peak_bytes=peak,
        tokens_per_step=tokens * size / rows,
    )


def _steps(trainer: Trainer, batches: StepBatches) -> tuple[list[float], float]:
    """(seconds of each measured step, real tokens of a batch). The first steps warm up and do not count."""
    times: list[float] = []
    tokens: list[int] = []
    warm = 0.0
    for step in range(2 * _WARM_UP_STEPS):
        began = time.perf_counter()
        batch = batches[step]
        trainer.update(step, batch, position=1.0)
        trainer.settle()
        seconds = time.perf_counter() - began
        tokens.append(batch.counts()["tokens"])
        if step == 0 or (warm < _WARM_UP_SECONDS and step < _WARM_UP_STEPS):
            warm += seconds
            continue
        times.append(seconds)
        if (sum(times) > _SECONDS and len(times) >= _LEAST_STEPS) or seconds > _SECONDS:
            break
    return times, statistics.mean(tokens)


@torch.inference_mode()
def _forward_seconds(model: EncoderModel, machine: Machine, batches: StepBatches) -> float:
    model.eval()
    b = batches[0].to(machine.device)
    times = []
    for _ in range(3):
        began = time.perf_counter()
        with machine.autocast():
            hidden = model.encoder(b.input_ids, b.type_ids, b.mask)
        float(hidden.sum())
        times.append(time.perf_counter() - began)
    return min(times)


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
