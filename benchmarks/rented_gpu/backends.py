"""Checks of each backend on the rented machine: agreement with the first one, repeatability, resuming, waits, speed.

The value of a section has an entry for each backend. A failure of one backend is recorded in its entry only.
"""

import itertools
import os
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from albert_ablate.door.compose import compose
from albert_ablate.record.folder import RunFolder
from albert_ablate.sweeping.process import server
from albert_ablate.training.attention_choice import ForwardPass, choose_attention
from benchmarks.alone import Answer, Call
from benchmarks.gpu import WARM_UP
from benchmarks.rented_gpu.correctness import TOLERANCE, check_overrides, made_trainer, run_overrides, trained
from benchmarks.rented_gpu.places import ROOT, Folders
from benchmarks.rented_gpu.sections import Ask
from benchmarks.rented_gpu.sizes import Size, backend_overrides

#: Number of processes whose speed is measured together.
SEVERAL = 3
_AGREEING_STEPS = 50


def by_backend(ask: Ask, size: Size, calls: Callable[[str], list[Call]]) -> dict[str, list[Answer]]:
    """Backend -> the answers to its ``calls``; the calls of all backends run at the same time."""
    made = {name: calls(name) for name in size.backends}
    answers = iter(ask.answers([call for each in made.values() for call in each]))
    return {name: [next(answers) for _ in each] for name, each in made.items()}


def agree(ask: Ask, folders: Folders, size: Size) -> dict[str, dict[str, Any]]:
    """The largest difference from the first backend's losses over fifty steps, and whether it is within tolerance."""
    overrides = check_overrides(folders, size)
    answers = by_backend(ask, size, lambda name: [(losses, ((*overrides, *backend_overrides(name)),))])
    (reference,) = answers[size.backends[0]]
    results: dict[str, dict[str, Any]] = {}
    for name, (answer,) in answers.items():
        failed = answer.error or reference.error
        if failed:
            results[name] = {"passed": False, "error": failed}
            continue
        pairs = zip(answer.value, reference.value, strict=True)
        largest = max(abs(loss - expected) for loss, expected in pairs)
        results[name] = {"passed": largest <= TOLERANCE["bf16"], "largest difference": largest}
    return results


def losses(overrides: tuple[str, ...]) -> list[float]:
    """Masked-LM losses of the first fifty steps, in nats."""
    schedule = ("budget=steps", f"budget.steps={_AGREEING_STEPS}", "budget.warmup_steps=5")
    with tempfile.TemporaryDirectory() as folder:
        trainer = made_trainer(compose([*overrides, *schedule]), RunFolder(Path(folder), "check"))
        steps = enumerate(itertools.islice(trainer.stream(0), _AGREEING_STEPS))
        sums = [(trainer.update(step, batch), batch.counts()) for step, batch in steps]
        trainer.settle()
        return [totals.means(counts)["mlm_loss"] for totals, counts in sums]


def same_bits(ask: Ask, folders: Folders, size: Size) -> dict[str, dict[str, Any]]:
    """Whether two runs with equal settings end with equal weights, with and without runtime.deterministic=true."""
    modes = [f"runtime.deterministic={mode}" for mode in ("false", "true")]
    overrides = check_overrides(folders, size)

    def calls(name: str) -> list[Call]:
        return [(trained, ((*overrides, *backend_overrides(name), mode),)) for mode in modes for _ in range(2)]

    results: dict[str, dict[str, Any]] = {}
    for name, answers in by_backend(ask, size, calls).items():
        pairs = zip(modes, answers[::2], answers[1::2], strict=True)
        results[name] = {mode: _equal(first, second) for mode, first, second in pairs}
    return results


def resumed(ask: Ask, folders: Folders, size: Size) -> dict[str, dict[str, Any]]:
    """Whether a run that was stopped and continued in another process ends with the weights of an undisturbed run."""
    overrides = (*check_overrides(folders, size), "runtime.deterministic=true")
    with tempfile.TemporaryDirectory() as folder:

        def arguments_of(name: str) -> tuple[tuple[str, ...], str]:
            return (*overrides, *backend_overrides(name)), str(Path(folder) / name)

        first = by_backend(
            ask, size, lambda name: [(trained, (*arguments_of(name), True)), (trained, arguments_of(name)[:1])]
        )
        second = by_backend(ask, size, lambda name: [(trained, arguments_of(name))])
        results = {}
        for name, (stopped, whole) in first.items():
            results[name] = {"error": stopped.error} if stopped.error else _equal(second[name][0], whole)
        return results


def _equal(first: Answer, second: Answer) -> dict[str, Any]:
    """Whether two answers of ``trained`` are equal, or the error of one of them."""
    error = first.error or second.error
    return {"error": error} if error else {"equal": first.value == second.value}


def waits(ask: Ask, folders: Folders, size: Size) -> dict[str, dict[str, Any]]:
    """The lines of a training step that wait for the GPU, and how often each does; there should be none."""
    overrides = check_overrides(folders, size)
    answers = by_backend(ask, size, lambda name: [(lines_that_wait, ((*overrides, *backend_overrides(name)),))])
    return {name: answer.value or {"error": answer.error} for name, (answer,) in answers.items()}


def lines_that_wait(overrides: tuple[str, ...]) -> dict[str, Any]:
    """See ``waits``; the warm-up steps are not counted."""
    if not torch.cuda.is_available():
        return {"left out": "only a CUDA device tells"}
    with tempfile.TemporaryDirectory() as folder:
        trainer = made_trainer(compose(overrides), RunFolder(Path(folder), "check"))
        batches = [trainer.batches[step] for step in range(WARM_UP + 1)]
        for step in range(WARM_UP):
            trainer.update(step, batches[step])
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                trainer.update(WARM_UP, batches[WARM_UP])
        finally:
            torch.cuda.set_sync_debug_mode("default")
    lines = Counter(
        f"{os.path.relpath(w.filename, ROOT)}:{w.lineno}" for w in caught if "synchroniz" in str(w.message).lower()
    )
    return {"passed": not lines, "lines": dict(lines)}


def speeds(ask: Ask, folders: Folders, size: Size, backend: str, more: tuple[str, ...] = ()) -> dict[str, Any]:
    """Tokens a second of the campaign's model with ``more`` settings, by the number of processes that train at once.

    Also the attention kernel, and the log of a process, which says whether a backend had to fall back.
    """
    overrides = (*run_overrides(folders, size), *more, *backend_overrides(backend))
    record: dict[str, Any] = {"tokens per second": {}}
    for processes in (1, SEVERAL):
        started = server().Barrier(processes)
        answers = ask.all([(speed, (overrides, size.seconds, started))] * processes)
        record["tokens per second"][str(processes)] = sum(answer["tokens per second"] for answer in answers)
        record |= {name: answers[0][name] for name in ("attention", "log")}
    return record


def speed(overrides: tuple[str, ...], seconds: float, started: Any) -> dict[str, Any]:
    """Tokens a second of whole steps, without padding, measured once all processes are warm."""
    with tempfile.TemporaryDirectory() as folder:
        config = compose([*overrides, "budget=steps", "budget.steps=1000000", "budget.warmup_steps=1000"])
        run = RunFolder(Path(folder), "speed")
        trainer = made_trainer(config, run)
        attention = choose_attention(trainer.config, ForwardPass.of_pretraining(trainer.config), trainer.machine)
        wait = torch.cuda.synchronize if trainer.machine.device.type == "cuda" else bool
        stream = enumerate(trainer.stream(0))
        for _ in range(WARM_UP):
            trainer.update(*next(stream))
        wait()
        started.wait()
        tokens, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            for _ in range(10):
                step, batch = next(stream)
                tokens += batch.counts()["tokens"]
                trainer.update(step, batch)
            wait()
        rate = tokens / (time.perf_counter() - began)
        log = run.path / "log.txt"
        return {
            "tokens per second": rate,
            "attention": attention and attention.kernel,
            "log": log.read_text(encoding="utf-8").splitlines() if log.is_file() else [],
        }
