"""How long a step takes on this machine: a few steps of the real model, once for each shape.

Measured in a separate process, whose peak memory is then that of the step, and kept in
``cache/calibration/`` for a month, or for ten minutes if the machine was busy. A batch too large for a
short measurement is measured on fewer sequences and scaled. Of several stages the last is measured: it needs
most memory, and the estimate scales its time by the FLOPs of the others. Timings wait for the GPU, which has
only queued its work when a call returns.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from albert_ablate.axes import AXES
from albert_ablate.config.parse import parse
from albert_ablate.config.schema import RunConfig
from albert_ablate.data.prepare import Prepared, prepare_data
from albert_ablate.errors import UserError
from albert_ablate.files import digest, read_json, write_json
from albert_ablate.methods import method_of
from albert_ablate.methods.batch import StepBatches
from albert_ablate.methods.stages import Stage
from albert_ablate.record.folder import RunFolder
from albert_ablate.record.provenance import usable_cores
from albert_ablate.sweeping.estimate import Calibration
from albert_ablate.sweeping.gpus import local_hardware
from albert_ablate.sweeping.process import UnansweredError, answer_apart
from albert_ablate.training.attention_choice import ForwardPass, choose_attention
from albert_ablate.training.budget import step_flops
from albert_ablate.training.checkpoint import Owner
from albert_ablate.training.machine import Machine
from albert_ablate.training.precision import set_up
from albert_ablate.training.trackers import Trackers
from albert_ablate.training.trainer import Trainer

#: Raise when the meaning of a measurement changes.
_FORMAT = 5
#: Seconds for which a measurement counts: on a quiet machine, and on a busy one.
_KEPT, _KEPT_BUSY = 30 * 86400.0, 600.0
#: Longest measured step, approximately.
_SECONDS = 2.0
#: FLOPs of such a step on a laptop's processor; on a GPU, of the trial that measures its FLOP/s.
_STEP_FLOPS = 1.5e12
_TRIAL_STEPS = 4
#: Steps of the schedule that measured steps stand in; far too many to leave the warm-up of a stage.
_SCHEDULE = 2**40
_WARM_UP_SECONDS = 2.0
_WARM_UP_STEPS = 100  # at most; at most as many are measured after them
_LEAST_STEPS = 8


def calibrate(config: RunConfig, oldest: float | None = None) -> Calibration:
    """The measurement for ``config``'s shape, from the cache or made now. Raises UserError if it fails.

    ``oldest``: Unix time before which a measurement does not count; a month ago by default, and ten minutes ago for a
    busy machine.
    """
    known = kept(config)
    now = time.time()
    if known is not None and known.made >= (now - (_KEPT_BUSY if known.busy else _KEPT) if oldest is None else oldest):
        return known
    circumstances = {"load": _load(), "cores": usable_cores(), "made": now}  # before the measurement adds to the load
    made = Calibration(**_measured_apart(config) | circumstances)
    write_json(_path(config), asdict(made))
    return made


def _load() -> float:
    """Load average of the last minute; 0 where the system has none."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def kept(config: RunConfig) -> Calibration | None:
    """The cached measurement for ``config``'s shape on this machine, of any age, or None."""
    path = _path(config)
    return Calibration(**read_json(path)) if path.is_file() else None


def _path(config: RunConfig) -> Path:
    return Path(config.paths.cache) / "calibration" / f"{_key(config)}.json"


def _key(config: RunConfig) -> str:
    """Hash of everything that changes the time or memory of a step."""
    v = config.as_dict()
    axes = {axis.group: v[axis.group] for axis in AXES}
    parts = axes | {name: v[name] for name in ("model", "pairs", "masking", "batch", "tokenizer", "data")}
    parts["model"] = {k: x for k, x in v["model"].items() if k != "name"}
    parts["optimizer"] = v["optimizer"]["name"]
    parts |= {key: v["runtime"][key] for key in ("device", "precision", "backend", "threads", "workers")}
    parts |= {"hardware": local_hardware(config.runtime), "torch": torch.__version__}
    return digest([_FORMAT, parts])


def _measured_apart(config: RunConfig) -> dict[str, Any]:
    try:
        return answer_apart(_measure, config.as_dict())
    except UnansweredError as error:
        raise UserError(f"The calibration: {error}; the step may not fit in memory.") from None
    except UserError as error:
        raise UserError(f"The calibration failed: {error}") from None


def _measure(values: dict[str, Any]) -> dict[str, Any]:
    """Body of the process."""
    return asdict(measure(parse(values)))


def measure(config: RunConfig) -> Calibration:
    """Time some steps in this process, without the circumstances that ``calibrate`` adds."""
    machine = Machine.of(config.runtime)
    set_up(config.runtime)
    prepared = prepare_data(config)
    choose_attention(config, ForwardPass.of_pretraining(config), machine)
    with tempfile.TemporaryDirectory() as scratch:
        folder = RunFolder(Path(scratch), "calibration")
        rows = rows_of(config, _STEP_FLOPS)
        if machine.device.type == "cuda":
            trial = _trainer(config, prepared, machine, folder, rows)
            rows = rows_of(config, _SECONDS * _flops_per_second(*trial))
            del trial
            torch.cuda.reset_peak_memory_stats(machine.device)
        trainer, batches = _trainer(config, prepared, machine, folder, rows)
        times, tokens = _steps(trainer, batches)
    ordered = sorted(times)
    update = ordered[len(times) // 4]  # the lower quartile: a short measurement is easily disturbed
    began = time.perf_counter()
    trainer.optimizer.step()
    trainer.settle()
    optimizer = min(time.perf_counter() - began, update)
    size, micro_size = config.batch.size, config.batch.micro_size
    state = 16 * sum(p.numel() for p in trainer.model.parameters())  # weights, gradients and two moments in fp32
    peak = _peak(machine.device)
    if rows < micro_size:
        peak = state + round((peak - state) * min(micro_size, size) / rows)
    return Calibration(
        step_seconds=(update - optimizer) * size / rows + optimizer,
        sequence_seconds=_forward_seconds(trainer, batches) / rows,
        peak_bytes=peak,
        tokens_per_step=tokens * size / rows,
        spread=ordered[3 * (len(times) - 1) // 4] / ordered[(len(times) - 1) // 4],
    )


def rows_of(config: RunConfig, flops: float) -> int:
    """Sequences to measure: about ``flops``, at most a micro-batch; the whole batch if at most twice as many."""
    size, micro_size = config.batch.size, config.batch.micro_size
    rows = max(1, min(micro_size, size, int(flops / (step_flops(config) / size))))
    return size if size <= micro_size and rows >= size / 2 else rows


def _flops_per_second(trainer: Trainer, batches: StepBatches) -> float:
    """FLOP/s of the device in such steps; below its peak if the sequences do not fill it."""
    seconds = min(_timed_step(trainer, batches, step)[0] for step in range(_TRIAL_STEPS))
    return step_flops(trainer.config) / seconds


def _trainer(
    config: RunConfig, prepared: Prepared, machine: Machine, folder: RunFolder, rows: int
) -> tuple[Trainer, StepBatches]:
    """A trainer on batches of ``rows`` sequences, and the batches. Its rates are too small to diverge."""
    batch = replace(config.batch, size=rows, micro_size=rows)
    still = replace(config.budget, steps=_SCHEDULE, warmup_steps=_SCHEDULE - 1)
    method = method_of(replace(prepared.settled(config), batch=batch, seed=0))
    batches = method.batches(prepared.train, prepared.tokenizer.word_starts)
    short = replace(config, batch=batch, budget=still)
    owner = Owner("calibration", device=machine.device.type, card=machine.card)
    return Trainer(short, owner, method.rehearsal(), batches, folder, machine, dict, Trackers()), batches


def _timed_step(trainer: Trainer, batches: StepBatches, step: int) -> tuple[float, int]:
    """(seconds, real tokens) of a whole optimizer step, its batch included."""
    began = time.perf_counter()
    batch = batches[step]
    trainer.update(step, batch, position=_position(trainer.method.stages))
    trainer.settle()
    return time.perf_counter() - began, batch.counts()["tokens"]


def _position(stages: Sequence[Stage]) -> float:
    """The position on the schedule at which the last stage has just begun, so that its rates are near 0."""
    return 1.0 + (stages[-2].ends * _SCHEDULE if len(stages) > 1 else 0.0)


def _steps(trainer: Trainer, batches: StepBatches) -> tuple[list[float], float]:
    """(seconds of each measured step, real tokens of a batch). The first steps warm up and do not count."""
    times: list[float] = []
    tokens: list[int] = []
    warm = 0.0
    for step in range(2 * _WARM_UP_STEPS):
        seconds, count = _timed_step(trainer, batches, step)
        tokens.append(count)
        if step == 0 or (warm < _WARM_UP_SECONDS and step < _WARM_UP_STEPS):
            warm += seconds
            continue
        times.append(seconds)
        if (sum(times) > _SECONDS and len(times) >= _LEAST_STEPS) or seconds > _SECONDS:
            break
    return times, statistics.mean(tokens)


@torch.inference_mode()
def _forward_seconds(trainer: Trainer, batches: StepBatches) -> float:
    machine = trainer.machine
    model: Any = trainer.model.eval()
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
