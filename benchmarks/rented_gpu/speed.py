"""The speed of this machine: products, copies, attention, and training steps compared with transformers."""

import gzip
import shutil
import tempfile
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from albert_ablate.door.compose import compose
from albert_ablate.model.attention_kernels import AttentionCase, measure, seconds_on_gpu
from albert_ablate.record.folder import RunFolder
from benchmarks.gpu import WARM_UP, compare, gemm_rate
from benchmarks.measure import median_seconds
from benchmarks.rented_gpu.correctness import check_overrides, made_trainer
from benchmarks.rented_gpu.places import Folders
from benchmarks.rented_gpu.sections import Ask
from benchmarks.rented_gpu.sizes import Size, backend_overrides
from benchmarks.sides import device_alone, transformers_side

#: Number of profiled steps.
_PROFILED = 3


def ceilings(ask: Ask, size: Size) -> dict[str, Any]:
    """Operations a second of a large bf16 product and of the products of small models; bytes a second of a copy."""
    return {"gemm": ask(gemm_rate, size.gemm, size.device, size.seconds / 2), **ask(copies_and_products, size)}


def copies_and_products(size: Size) -> dict[str, Any]:
    """Bytes a second of a copy (read and written); width H -> operations a second of x (8192, H) by (H, 4H)."""
    elements = 2**30 if size.device == "cuda" else 2**22
    source = torch.empty(elements, dtype=torch.uint8, device=size.device).fill_(1)
    target = torch.empty_like(source)
    seconds = median_seconds(lambda: target.copy_(source), size.seconds / 4, size.device)
    products = {}
    for width in (192, 384, 768, 1024):
        rows = size.batch_tokens
        x = torch.randn(rows, width, device=size.device).bfloat16()
        weight = torch.randn(width, 4 * width, device=size.device).bfloat16()
        once = median_seconds(partial(torch.matmul, x, weight), size.seconds / 8, size.device)
        products[f"H={width}"] = 2 * rows * width * 4 * width / once
    return {"copy": 2 * elements / seconds, "products": products}


def attention(size: Size) -> dict[str, Any]:
    """Case -> milliseconds of attention, forward and backward, by kernel; and the kernels left out, with reasons."""
    kind = torch.device(size.device)
    clock = seconds_on_gpu if kind.type == "cuda" else partial(median_seconds, seconds=size.seconds / 20, device="cpu")
    kernels = {}
    for case in size.peers:
        measured = AttentionCase(case.config().architecture(), case.b, case.t, torch.bfloat16, deterministic=False)
        kernels[case.name] = asdict(measure(measured, kind, clock))
    return kernels


def peers(ask: Ask, folders: Folders, size: Size, backend: str) -> list[dict[str, Any]]:
    """Rows of ``benchmarks.gpu``, our side with ``backend``; a case without enough time left has a row that says so."""
    rate = ask(gemm_rate, size.gemm, size.device, size.seconds / 2)
    overrides = (*backend_overrides(backend), f"paths.cache={folders.cache}")
    rows = []
    for number, case in enumerate(size.peers):
        left = ask.left() / (len(size.peers) - number)
        if left < 6 * size.seconds:
            rows.append({"model": case.name, "failed": f"{left:.0f} s left"})
            continue
        rows.append(compare(case, rate, size.seconds, size.compiled, left, overrides))
    return rows


def compile_peers(size: Size) -> None:
    """Compile transformers for every case, one after another, to fill the compiler's cache on the disk."""
    for case in size.peers:
        side = transformers_side(case, size.compiled)
        device_alone(side)()
        del side
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def profile(folders: Folders, size: Size, backend: str) -> dict[str, Any]:
    """Write a trace of three steps; returns the operations that take longest, in milliseconds a step."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiled

    with tempfile.TemporaryDirectory() as folder:
        overrides = (*check_overrides(folders, size), *backend_overrides(backend))
        trainer = made_trainer(compose(overrides), RunFolder(Path(folder), "profile"))
        batches = [trainer.batches[step] for step in range(WARM_UP + _PROFILED)]
        for step in range(WARM_UP):
            trainer.update(step, batches[step])
        trainer.settle()
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if size.device == "cuda" else [])]
        with profiled(activities=activities) as seen:
            for step in range(WARM_UP, WARM_UP + _PROFILED):
                trainer.update(step, batches[step])
            trainer.settle()
        plain = Path(folder) / "trace.json"
        seen.export_chrome_trace(str(plain))
        with plain.open("rb") as source, gzip.open(folders.trace, "wb", compresslevel=6) as out:
            shutil.copyfileobj(source, out)
    key = "self_device_time_total" if size.device == "cuda" else "self_cpu_time_total"
    longest = sorted(seen.key_averages(), key=lambda event: -getattr(event, key))[:15]
    return {event.key: getattr(event, key) / 1000 / _PROFILED for event in longest}
