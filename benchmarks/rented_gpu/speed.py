"""How fast is this machine: products and copies, attention, training steps, ours beside transformers'."""

import gzip
import shutil
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from albert_ablate.door.compose import compose
from albert_ablate.record.folder import RunFolder
from albert_ablate.sweeping.process import server
from benchmarks.gpu import compare, gemm_rate
from benchmarks.measure import median_seconds
from benchmarks.rented_gpu.correctness import check_words, made_trainer, words_of
from benchmarks.rented_gpu.places import Places
from benchmarks.rented_gpu.sections import Ask
from benchmarks.rented_gpu.sizes import Size
from benchmarks.sides import device_alone, transformers_side

_BACKENDS = {
    "cuDNN": SDPBackend.CUDNN_ATTENTION,
    "memory-efficient": SDPBackend.EFFICIENT_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "plain": SDPBackend.MATH,
}
#: Processes that train at once, where the speed of several is measured.
SEVERAL = 3


def ceilings(ask: Ask, size: Size) -> dict[str, Any]:
    """Operations a second of a bf16 product, bytes a second of a copy, and the products of small models."""
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
    """Milliseconds forward and backward, by shape, with and without a mask over keys, and by backend."""
    found: dict[str, Any] = {}
    for b, heads, t, width in size.attention:
        q, k, v = (
            torch.randn(b, heads, t, width, device=size.device, dtype=torch.bfloat16, requires_grad=True)
            for _ in range(3)
        )
        real = torch.arange(t, device=size.device) < t - t // 8
        mask = torch.zeros(b, 1, 1, t, device=size.device, dtype=torch.bfloat16).masked_fill(~real, -torch.inf)
        for words, bias in (("mask", mask.expand(b, 1, t, t)), ("no mask", None)):
            for name, backend in _BACKENDS.items():
                found[f"{b}x{heads}x{t}x{width}, {words}, {name}"] = _milliseconds(q, k, v, bias, backend, size)
    return found


def _milliseconds(q: Any, k: Any, v: Any, bias: Any, backend: SDPBackend, size: Size) -> float | str:
    def both() -> None:
        F.scaled_dot_product_attention(q, k, v, attn_mask=bias).sum().backward()

    try:
        with sdpa_kernel(backend):
            return 1000 * median_seconds(both, size.seconds / 20, size.device)
    except RuntimeError as error:
        return f"refused: {' '.join(str(error).split())[:120]}"


def speeds(ask: Ask, places: Places, size: Size, more: tuple[str, ...] = ()) -> dict[str, float]:
    """Processes that train the campaign's model, with ``more`` settings, at once -> their tokens a second together."""
    words = (*words_of(places, size), *more)
    found = {}
    for processes in (1, SEVERAL):
        started = server().Barrier(processes)
        found[str(processes)] = sum(ask.all([(speed, (words, size.seconds, started))] * processes))
    return found


def speed(words: tuple[str, ...], seconds: float, started: Any = None) -> float:
    """Real tokens a second of whole steps, from when all processes are warm."""
    with tempfile.TemporaryDirectory() as folder:
        config = compose([*words, "budget=steps", "budget.steps=1000000", "budget.warmup_steps=1000"])
        trainer = made_trainer(config, RunFolder(Path(folder), "speed"))
        wait = torch.cuda.synchronize if trainer.machine.device.type == "cuda" else bool
        stream = enumerate(trainer.stream(0))
        for _ in range(5):
            trainer.update(*next(stream))
        wait()
        if started is not None:
            started.wait()
        tokens, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            for _ in range(10):
                step, batch = next(stream)
                tokens += batch.counts()["tokens"]
                trainer.update(step, batch)
            wait()
        return tokens / (time.perf_counter() - began)


def peers(ask: Ask, size: Size) -> list[dict[str, Any]]:
    """Rows of ``benchmarks.gpu``; a case for which too little time is left is left out."""
    rate = ask(gemm_rate, size.gemm, size.device, size.seconds / 2)
    rows = []
    for number, case in enumerate(size.peers):
        left = ask.left() / (len(size.peers) - number)
        if left < 6 * size.seconds:
            rows.append({"model": case.name, "failed": f"{left:.0f} s left"})
            continue
        rows.append(compare(case, rate, size.seconds, size.compiled, left))
    return rows


def compile_peers(size: Size) -> None:
    """Compile transformers for every case, one after another: the compiler's cache on the disk is what stays."""
    for case in size.peers:
        side = transformers_side(case, size.compiled)
        device_alone(side)()
        del side
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def profile(places: Places, size: Size) -> dict[str, Any]:
    """Write a trace of three steps; returns the operations that took longest, in milliseconds a step."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiled

    with tempfile.TemporaryDirectory() as folder:
        trainer = made_trainer(compose(check_words(places, size)), RunFolder(Path(folder), "profile"))
        batches = [trainer.batches[step] for step in range(6)]
        for step in range(3):
            trainer.update(step, batches[step])
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if size.device == "cuda" else [])]
        with profiled(activities=activities) as seen:
            for step in range(3, 6):
                trainer.update(step, batches[step])
        plain = Path(folder) / "trace.json"
        seen.export_chrome_trace(str(plain))
        with plain.open("rb") as source, gzip.open(places.trace, "wb", compresslevel=6) as out:
            shutil.copyfileobj(source, out)
    key = "self_device_time_total" if size.device == "cuda" else "self_cpu_time_total"
    longest = sorted(seen.key_averages(), key=lambda event: -getattr(event, key))[:15]
    return {event.key: getattr(event, key) / 3000 for event in longest}
