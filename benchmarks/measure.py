"""Measures contenders in separate processes, in turn: medians, peak memory, the machine; as a table and as JSON."""

import multiprocessing
import platform
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from albert_ablate.files import write_json

#: Builds a contender, in its process, and returns the function to time.
Build = Callable[[], Callable[[], Any]]
RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True)
class Measured:
    """Seconds of every round, and the peak memory of the process in MB."""

    seconds: list[float]
    peak_mb: float
    start_mb: float  # peak before the first call: libraries, weights, data

    @property
    def median(self) -> float:
        """Median seconds."""
        return statistics.median(self.seconds)


def take_turns(contenders: Mapping[str, Build], seconds: float, least: int = 5) -> dict[str, Measured]:
    """Call contenders in turn (A B A B) for about ``seconds`` each and at least ``least`` times; one call warms up."""
    context = multiprocessing.get_context("spawn")
    lines: dict[str, Connection] = {}
    workers = []
    for name, build in contenders.items():
        line, child = context.Pipe()
        worker = context.Process(target=_work, args=(build, child), daemon=True)
        worker.start()
        child.close()  # otherwise the end of a contender that fails would not be noticed
        workers.append(worker)
        lines[name] = line
        try:
            line.recv()  # built and warm, alone
        except EOFError:
            raise SystemExit(f"{name} failed; its error is above.") from None
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    end = time.perf_counter() + seconds * len(contenders)
    while time.perf_counter() < end or min(map(len, taken.values())) < least:
        for name, line in lines.items():
            line.send("go")
            taken[name].append(line.recv())
    measured = {}
    for name, line in lines.items():
        line.send("stop")
        measured[name] = Measured(taken[name], *line.recv())
    for worker in workers:
        worker.join()
    return measured


def _work(build: Build, line: Connection) -> None:
    step = build()
    start = _peak_mb()
    step()
    line.send("ready")
    try:
        while line.recv() == "go":
            began = time.perf_counter()
            step()
            line.send(time.perf_counter() - began)
    except EOFError:  # another contender failed and ended the benchmark
        return
    line.send((_peak_mb(), start))


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def median_seconds(step: Callable[[], Any], seconds: float, device: str, together: int = 5) -> float:
    """Median seconds of a call: one call warms up, then at least three rounds of ``together`` calls, for ``seconds``.

    The host waits for a GPU at the end of each round only, so that within a round the GPU may lag behind.
    """
    import torch

    wait = torch.cuda.synchronize if device == "cuda" else bool
    step()
    wait()
    rounds: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(rounds) < 3:
        began = time.perf_counter()
        for _ in range(together):
            step()
        wait()
        rounds.append((time.perf_counter() - began) / together)
    return statistics.median(rounds)


def first_line(doc: str | None) -> str:
    """The first line of a docstring, for the help of a command."""
    return (doc or "").partition("\n")[0]


def gemm(size: int = 2048, kind: str = "cpu") -> Callable[[], Any]:
    """A bf16 product of two square matrices of ``2 * size**3`` operations: the machine's practical limit."""
    import torch

    a, b = (torch.randn(size, size, device=kind).bfloat16() for _ in range(2))
    return lambda: a @ b


def gemm_flops(seconds: float, size: int = 2048) -> float:
    """Operations a second of ``gemm``."""
    return 2 * size**3 / seconds


def machine() -> dict[str, Any]:
    """Facts about the machine that the figures come from."""
    import torch

    name = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.is_file():
        lines = information.read_text(encoding="utf-8").splitlines()
        name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), name)
    capabilities = {"AMX": torch.cpu._is_amx_tile_supported(), "AVX-512 bf16": torch.cpu._is_avx512_bf16_supported()}
    return {
        "cpu": name,
        "threads": torch.get_num_threads(),
        "has": [name for name, has in capabilities.items() if has],
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def machine_line(facts: dict[str, Any]) -> str:
    """The facts of ``machine`` as one line of text."""
    parts = [facts["cpu"], f"{facts['threads']} threads", *facts["has"], *([facts["gpu"]] if facts["gpu"] else [])]
    return f"{', '.join(parts)}; PyTorch {facts['torch']}"


def report(name: str, title: str, rows: Sequence[dict[str, Any]], notes: Sequence[str], out: Path | None) -> None:
    """Print the rows as a table and write them as JSON."""
    facts = machine()
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="dim")
    for column in rows[0]:
        table.add_column(column, justify="left" if isinstance(rows[0][column], str) else "right")
    for row in rows:
        table.add_row(*(_text(value) for value in row.values()))
    console = Console(highlight=False)
    console.print(table)
    for note in (machine_line(facts), *notes):
        console.print(note, style="dim")
    path = out or RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"title": title, "machine": facts, "notes": list(notes), "rows": list(rows)})
    console.print(f"written to {path}", style="dim")


def _text(value: Any) -> str:
    if value is None:
        return "—"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
