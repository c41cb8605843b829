"""Optimizer steps on the fake accelerator, in a process of their own: ``python gpu_steps.py FOLDER`` prints JSON.

For each case: how many operations the second step took (the first one makes the optimizer's state, which is then loaded
as from a checkpoint), how many tensors it copied from the host, and the error that ended it, if one did. For a step
that is captured: the same of what a graph would record.
"""

import json
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from fake_accelerator import DEVICE, Counted, HostBatch, counting, fake, install, moved, on_device
from runhelpers import make_batches, tiny_config
from taskhelpers import tokenizer_of, with_tasks, write_race, write_squad, write_sst2
from torch import Tensor
from torch.nn import functional as F
from torch.utils._pytree import tree_map

from albert_ablate.axes import MethodName, Share
from albert_ablate.methods import METHODS, method_of
from albert_ablate.model.architecture import Architecture
from albert_ablate.model.pretraining import PretrainingModel
from albert_ablate.record.folder import RunFolder
from albert_ablate.tasks.finetuning import FineTuner, build_task_model
from albert_ablate.tasks.load import locate, read
from albert_ablate.tasks.recipe import resolve
from albert_ablate.training import captured
from albert_ablate.training.backend import Backend
from albert_ablate.training.checkpoint import Owner
from albert_ablate.training.machine import Machine
from albert_ablate.training.step import Stepper
from albert_ablate.training.trackers import Trackers
from albert_ablate.training.trainer import Trainer

DROPOUT = ("model.hidden_dropout=0.1", "model.attention_dropout=0.1")
CAPTURED = ("lamb all plain", "lamb none dropout", "corrected lamb", "adamw all dropout", "three micro-batches")
TASKS = ("sst2", "squad11", "squad20", "race")
#: Fine-tunings with other settings than the released ones.
TUNINGS = {
    "mean": ("sst2", "task.pool=mean", "task.head=bare"), "last": ("race", "task.pool=last"),
    "by layer": ("sst2", "share=none", "task.optimizer.layer_decay=0.8"),
    "corrected by layer": (
        "sst2", "share=none", "task.optimizer.layer_decay=0.8", "task.optimizer.bias_correction=true",
    ),
}  # fmt: skip


def pretraining_cases() -> dict[str, tuple[str, ...]]:
    """Name -> overrides."""
    cases = {
        f"{optimizer} {share} {'dropout' if dropout else 'plain'}": (
            f"optimizer={optimizer}", f"share={share}", *dropout,
        )
        for optimizer in ("lamb", "adamw") for share in ("all", "none") for dropout in ((), DROPOUT)
    }  # fmt: skip
    cases["corrected lamb"] = ("optimizer=lamb", "optimizer.bias_correction=true")
    cases["adamw without correction"] = ("optimizer=adamw", "optimizer.bias_correction=false")
    cases["fp32"] = ("runtime.precision=fp32",)
    cases["three micro-batches"] = ("batch.micro_size=3",)
    cases["causal pairs"] = ("method=causal", "objective=none", "method.blocks=pairs")
    untrained: dict[MethodName, tuple[str, ...]] = {name: ("objective=none",) for name in METHODS if name.predicts_next}
    untrained |= {name: ("block=mobilebert", "share=none") for name in METHODS if name.transfers}
    return cases | {f"method {name.value}": (f"method={name.value}", *untrained.get(name, ())) for name in METHODS}


def pretraining(
    folder: Path, *words: str, backend: Backend = Backend.EAGER, steps: int = 2
) -> tuple[Stepper, list[Any]]:
    """A trainer on the fake device, and batches of so many steps."""
    config = tiny_config(folder, "runtime.precision=bf16", *words)
    machine = Machine(DEVICE, config.runtime.precision, backend=backend)
    batches = make_batches(config)
    model = method_of(config).rehearsal()
    with on_device():
        run = RunFolder(folder / "fake", "pretraining")
        trainer = Trainer(config, Owner("fake"), moved(model), batches, run, machine, dict, Trackers())
    trainer.shaped = lambda part: part  # type: ignore[method-assign]  # done by the batch, which has values
    return trainer, [HostBatch(batches[step], batches.shaped) for step in range(steps)]


def finetuning(folder: Path, name: str, *words: str) -> tuple[Stepper, list[Any]]:
    """A fine-tuning on the fake device, and batches of two steps."""
    config = with_tasks(folder, f"task={name}", f"task.data_dir={folder / 'data'}", *words)
    task = read(locate(config.task, config.tasks[name]))(tokenizer_of(folder), 32)
    recipe = resolve(config.tasks[name], config.task.scaling, task.examples, 32)
    shape = replace(config.architecture(), hidden_dropout=recipe.dropout, attention_dropout=recipe.dropout)
    model = build_task_model(task, shape, recipe, config.task, 0, None, 0.05)
    run = RunFolder(folder / "fake", name)
    run.path.mkdir(parents=True, exist_ok=True)
    machine = Machine(DEVICE, "bf16", backend=Backend.EAGER)
    with on_device():
        tuner = FineTuner(task, moved(model), recipe, config.task, 0, run, machine, config.runtime)
    return tuner, [HostBatch(tuner.batches[step], lambda part: part) for step in range(2)]


def second_step(made: Callable[[], tuple[Stepper, list[Any]]]) -> dict[str, Any]:
    """What it took, and where the host was asked."""
    try:
        stepper, batches = made()
        with on_device():
            stepper.update(0, batches[0])
            stepper.optimizer.load_state_dict(_loaded(stepper.optimizer.state_dict()))
        with on_device() as counted:
            stepper.update(1, batches[1])
    except Exception:
        return {"error": traceback.format_exc()}
    parts = len(batches[1].micro(stepper.micro_size))
    return {
        "error": None, "launches": counted.launches, "from_host": counted.from_host,
        "batch_tensors": len(batches[1].tensors()) * parts,
    }  # fmt: skip


class Recorder:
    """Does what is captured, once, and counts."""

    def __init__(self) -> None:
        self.counted = Counted()

    def aside(self) -> AbstractContextManager[None]:
        return nullcontext()

    def capture(self, work: Callable[[], Tensor]) -> Callable[[], Tensor]:
        with counting() as self.counted:
            row = work()
        return lambda: row


def captured_step(folder: Path, *words: str) -> dict[str, Any]:
    """What a graph of the step would record. Nothing is compiled, and nothing compared: there are no values."""
    captured.CHECKED = 0
    try:
        stepper, batches = pretraining(folder, *words, backend=Backend.GRAPH, steps=captured.WARM_UP + 1)
        stepper._compiling = nullcontext  # type: ignore[method-assign,assignment]
        recorder = Recorder()
        stepper.captured = captured.CapturedSteps(recorder, DEVICE)
        with on_device():
            for step, batch in enumerate(batches):
                stepper.update(step, batch)
    except Exception:
        return {"error": traceback.format_exc()}
    return {
        "error": None, "launches": recorder.counted.launches, "from_host": recorder.counted.from_host,
        "backend": stepper.backend,
    }  # fmt: skip


def _loaded(state: dict[str, Any]) -> dict[str, Any]:
    """An optimizer's state as a checkpoint gives it back: on the host."""
    return tree_map(lambda value: fake(value) if isinstance(value, torch.Tensor) else value, state)


def _fused(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **_: Any) -> torch.Tensor:
    low = torch.get_autocast_dtype(DEVICE.type)
    return _Attention.apply(q.to(low), k.to(low), v.to(low))


class _Attention(torch.autograd.Function):
    """Fused attention, which takes no operation that is counted: fake tensors would compute its scores one by one."""

    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return torch.empty(q.transpose(1, 2).shape, dtype=q.dtype, device=q.device).transpose(1, 2)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(torch.empty_like(grad) for _ in range(3))


def base_step() -> dict[str, Any]:
    """A forward and a backward pass of base with 256 sequences of 128 tokens, attention itself left out.

    Its operations, GB read and written, GB alive at the same time without the weights, and the formats of the states.
    """
    shape = Architecture(
        vocab_size=30_000, embedding_size=128, hidden_size=768, layers=12, heads=12, intermediate_size=3072,
        max_positions=512, share=Share.ALL,
    )  # fmt: skip
    with torch.device("meta"):
        model = PretrainingModel(shape)

    def integers(*size: int) -> torch.Tensor:
        return torch.zeros(size, dtype=torch.int64, device=DEVICE)

    with on_device():
        moved(model)
        ids, mask = integers(256, 128), torch.ones(256, 128, dtype=torch.bool, device=DEVICE)
        masked = integers(256 * 19)
        labels = integers(256)
    low = torch.autocast(DEVICE.type, dtype=torch.bfloat16)
    with on_device() as counted, patch.object(F, "scaled_dot_product_attention", _fused):
        with low:
            out = model(ids, ids, mask, masked, masked, labels)
        torch.autograd.backward(out.mlm_loss_sum + out.sentence_loss_sum)
    with on_device(), low, torch.no_grad():
        formats = {str(states.dtype) for states in model.encoder.hidden_states(ids, ids, mask)}
    return {
        "launches": counted.launches, "gigabytes": counted.touched / 1e9, "peak": counted.peak / 1e9,
        "formats": sorted(formats),
    }  # fmt: skip


def refused_reads() -> dict[str, bool]:
    """Whether the device notices what it is there to notice."""
    found = {}
    with on_device():
        x = torch.ones(3, device=DEVICE)
        attempts: dict[str, Callable[[], Any]] = {
            "item": lambda: x.sum().item(), "bool": lambda: bool(x.isfinite().all()), "tolist": x.tolist,
            "two devices": lambda: x + torch.ones(3),
        }  # fmt: skip
        for name, attempt in attempts.items():
            try:
                attempt()
                found[name] = False
            except Exception:
                found[name] = True
    return found


def kernels_of_lists() -> dict[str, int]:
    """What is counted for operations on three tensors, those that PyTorch has a kernel for and those it has none."""
    found = {}
    with on_device() as counted:
        lists = [[torch.ones(4, width, device=DEVICE) for width in (2, 3, 5)] for _ in range(2)]
        scalar = torch.ones((), device=DEVICE)
        turned = [tensor.new_ones(tensor.shape[::-1]).t() for tensor in lists[0]]
        many = [torch.ones(2, device=DEVICE) for _ in range(111)]
        operations: dict[str, Callable[[], Any]] = {
            "list by a number": lambda: torch._foreach_mul_(lists[0], 2.0),
            "list by a scalar": lambda: torch._foreach_mul_(lists[0], scalar),
            "list by scalars": lambda: torch._foreach_mul_(lists[0], [scalar] * 3),
            "list and list": lambda: torch._foreach_add_(lists[0], lists[1]),
            "other strides": lambda: torch._foreach_add_(lists[0], turned),
            "other type": lambda: torch._foreach_add_(lists[0], [tensor.half() for tensor in lists[1]]),
            "long list": lambda: torch._foreach_mul_(many, 2.0),
        }
        for name, operation in operations.items():
            before = counted.launches
            operation()
            found[name] = counted.launches - before
    return found


def main(folder: Path) -> dict[str, Any]:
    """Every case."""
    install()
    write_race(write_squad(write_squad(write_sst2(folder / "data")), "2.0"))
    found: dict[str, Any] = {"refused": refused_reads(), "lists": kernels_of_lists()}
    for name, words in pretraining_cases().items():
        found[name] = second_step(partial(pretraining, folder, *words))
    for name in CAPTURED:
        found[f"captured {name}"] = captured_step(folder, *pretraining_cases()[name])
    found["base"] = base_step()
    for name in TASKS:
        found[f"task {name}"] = second_step(partial(finetuning, folder, name))
    for label, words in TUNINGS.items():
        found[f"tuning {label}"] = second_step(partial(finetuning, folder, *words))
    return found


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
    sys.stdout.flush()
    os._exit(0)
