"""Backends on the rented machine: does each train like the plainest, repeat, resume, wait for nothing; how fast is it.

A section's value has an entry for each backend. What fails for a backend stands in its entry, and spoils no other.
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
from benchmarks.rented_gpu.correctness import TOLERANCE, check_words, made_trainer, trained, words_of
from benchmarks.rented_gpu.places import ROOT, Places
from benchmarks.rented_gpu.sections import Ask
from benchmarks.rented_gpu.sizes import Size, backend_words

#: Processes that train at once, where the speed of several is measured.
SEVERAL = 3
_AGREEING_STEPS = 50


def by_backend(ask: Ask, size: Size, calls: Callable[[str], list[Call]]) -> dict[str, list[Answer]]:
    """The answers to the ``calls`` of each backend; those of all backends run at the same time."""
    made = {name: calls(name) for name in size.backends}
    answers = iter(ask.answers([call for each in made.values() for call in each]))
    return {name: [next(answers) for _ in each] for name, each in made.items()}


def agree(ask: Ask, places: Places, size: Size) -> dict[str, dict[str, Any]]:
    """The largest difference of a loss of fifty steps from the first backend's, and whether it is small enough."""
    words = check_words(places, size)
    answers = by_backend(ask, size, lambda name: [(losses, ((*words, *backend_words(name)),))])
    (reference,) = answers[size.backends[0]]
    found: dict[str, dict[str, Any]] = {}
    for name, (answer,) in answers.items():
        failed = answer.error or reference.error
        if failed:
            found[name] = {"passed": False, "error": failed}
            continue
        largest = max(abs(one - other) for one, other in zip(answer.value, reference.value, strict=True))
        found[name] = {"passed": largest <= TOLERANCE["bf16"], "largest difference": largest}
    return found


def losses(words: tuple[str, ...]) -> list[float]:
    """Masked-LM losses of the first steps."""
    schedule = ("budget=steps", f"budget.steps={_AGREEING_STEPS}", "budget.warmup_steps=5")
    with tempfile.TemporaryDirectory() as folder:
        trainer = made_trainer(compose([*words, *schedule]), RunFolder(Path(folder), "check"))
        steps = enumerate(itertools.islice(trainer.stream(0), _AGREEING_STEPS))
        sums = [(trainer.update(step, batch), batch.counts()) for step, batch in steps]
        trainer.settle()
        return [totals.means(counts)["mlm_loss"] for totals, counts in sums]


def same_bits(ask: Ask, places: Places, size: Size) -> dict[str, dict[str, Any]]:
    """Whether two runs of the same settings end with equal weights, by default and with runtime.deterministic=true."""
    modes = [f"runtime.deterministic={mode}" for mode in ("false", "true")]
    words = check_words(places, size)

    def calls(name: str) -> list[Call]:
        return [(trained, ((*words, *backend_words(name), mode),)) for mode in modes for _ in range(2)]

    found: dict[str, dict[str, Any]] = {}
    for name, answers in by_backend(ask, size, calls).items():
        pairs = zip(modes, answers[::2], answers[1::2], strict=True)
        found[name] = {mode: _equal(one, other) for mode, one, other in pairs}
    return found


def resumed(ask: Ask, places: Places, size: Size) -> dict[str, dict[str, Any]]:
    """Whether a run that was stopped and continued in another process ends as one that was not."""
    words = (*check_words(places, size), "runtime.deterministic=true")
    with tempfile.TemporaryDirectory() as folder:

        def told(name: str) -> tuple[tuple[str, ...], str]:
            return (*words, *backend_words(name)), str(Path(folder) / name)

        first = by_backend(ask, size, lambda name: [(trained, (*told(name), True)), (trained, told(name)[:1])])
        second = by_backend(ask, size, lambda name: [(trained, told(name))])
        found = {}
        for name, (stopped, whole) in first.items():
            found[name] = {"error": stopped.error} if stopped.error else _equal(second[name][0], whole)
        return found


def _equal(one: Answer, other: Answer) -> dict[str, Any]:
    """Of two answers of ``trained``."""
    error = one.error or other.error
    return {"error": error} if error else {"equal": one.value == other.value}


def waits(ask: Ask, places: Places, size: Size) -> dict[str, dict[str, Any]]:
    """The lines of a training step that wait for the GPU, with how often; there should be none."""
    words = check_words(places, size)
    answers = by_backend(ask, size, lambda name: [(lines_that_wait, ((*words, *backend_words(name)),))])
    return {name: answer.value or {"error": answer.error} for name, (answer,) in answers.items()}


def lines_that_wait(words: tuple[str, ...]) -> dict[str, Any]:
    """See ``waits``; the first steps, which set things up, are not counted."""
    if not torch.cuda.is_available():
        return {"left out": "only a CUDA device tells"}
    with tempfile.TemporaryDirectory() as folder:
        trainer = made_trainer(compose(words), RunFolder(Path(folder), "check"))
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


def speeds(ask: Ask, places: Places, size: Size, backend: str, more: tuple[str, ...] = ()) -> dict[str, Any]:
    """Tokens a second of the campaign's model, with ``more`` settings, in so many processes at once.

    Beside them the attention kernel, and what a process wrote into its log: a backend that had to fall back says so.
    """
    words = (*words_of(places, size), *more, *backend_words(backend))
    found: dict[str, Any] = {"tokens per second": {}}
    for processes in (1, SEVERAL):
        started = server().Barrier(processes)
        answers = ask.all([(speed, (words, size.seconds, started))] * processes)
        found["tokens per second"][str(processes)] = sum(answer["tokens per second"] for answer in answers)
        found |= {name: answers[0][name] for name in ("attention", "log")}
    return found


def speed(words: tuple[str, ...], seconds: float, started: Any) -> dict[str, Any]:
    """Real tokens a second of whole steps, from when all processes are warm."""
    with tempfile.TemporaryDirectory() as folder:
        config = compose([*words, "budget=steps", "budget.steps=1000000", "budget.warmup_steps=1000"])
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
