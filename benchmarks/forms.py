"""The forms in which the encoder of a run computes, and functions that time them, each for a process of its own.

- eager: PyTorch as this project evaluates, in inference mode;
- onnx: the exported graph in ONNX Runtime, checked against PyTorch before it is timed;
- int8: that graph with the weights of its products in int8 and the rest as before, by ONNX Runtime's quantize_dynamic.
  PyTorch's own quantize_dynamic is deprecated.

ONNX Runtime's threads do not spin while they wait, since they would take the processor from the next arm.
"""

import os
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

from albert_ablate.errors import MemoryExhaustedError, UserError

FORMS = ("eager", "onnx", "int8")
#: Those that need the extra ``onnx``.
EXPORTED = ("onnx", "int8")
_ANY = 0
Call = Callable[[], Any]
Result = TypeVar("Result")


@dataclass(frozen=True)
class Arm:
    """A run in one form. ``files``: length -> its graph; ``_ANY`` stands for every length; none for eager."""

    name: str
    run: Path
    form: str
    positions: int
    files: Mapping[int, Path]

    def file(self, length: int) -> Path:
        """The graph for texts of ``length`` tokens."""
        return self.files.get(length) or self.files[_ANY]


@dataclass(frozen=True)
class Graphs:
    """What an export of one run gave."""

    files: dict[str, dict[int, Path]]  # form -> length -> file
    difference: float  # of onnx from PyTorch, as ``interop.onnx_file.TOLERANCE``
    of_int8: float | None  # the same of int8


@dataclass(frozen=True)
class Limits:
    """How often an arm is called at a length."""

    warm_up: int = 10
    calls: int = 100
    seconds: float = 10.0  # of an arm; fewer calls are made if these have passed
    least: int = 5


def in_a_process(function: Callable[..., Result], *arguments: Any, threads: int = 1) -> Result:
    """The value of ``function(*arguments)``, from a new process whose libraries begin with so many threads.

    Raises MemoryExhaustedError if the process was killed, and what the function raises.
    """
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(threads)  # a spawned process inherits it before it loads torch
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            return pool.submit(function, *arguments).result()
    except BrokenProcessPool:
        raise MemoryExhaustedError(
            "A process of the benchmark was killed, probably for lack of memory. Try shorter --lengths or fewer runs."
        ) from None
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


def exported(run: Path, lengths: Sequence[int], forms: Sequence[str], folder: Path) -> Graphs:
    """Write the graphs of a run to ``folder``: one, or one for each length where its attention needs that.

    Raises OnnxError if a graph computes something else than PyTorch, or if nothing in it can be quantized.
    """
    from albert_ablate.interop.onnx_file import difference as apart
    from albert_ablate.interop.onnx_file import example, session, states_of, write_onnx
    from albert_ablate.model.attention import PATTERNS

    model = states_of(_encoder(run))
    by_length = PATTERNS[model.encoder.shape.pattern].by_length
    files: dict[str, dict[int, Path]] = {form: {} for form in EXPORTED if form in forms}
    worst, worst_int8 = 0.0, 0.0
    for length in lengths if by_length else (_ANY,):
        plain = folder / f"{length}.onnx"
        worst = max(worst, write_onnx(model, plain, length or None))
        if "onnx" in files:
            files["onnx"][length] = plain
        if "int8" in files:
            files["int8"][length] = quantized(plain)
            grids = example(model, 3, length or min(128, model.encoder.shape.max_positions))
            found = session(files["int8"][length]).run(None, {name: grid.numpy() for name, grid in grids.items()})
            worst_int8 = max(worst_int8, apart(model, grids, found))
    return Graphs(files, worst, worst_int8 if "int8" in files else None)


def quantized(plain: Path) -> Path:
    """The graph with int8 weights, beside ``plain``. Raises OnnxError if no product was quantized."""
    import logging

    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    from albert_ablate.interop.onnx_file import OnnxError

    made = plain.with_suffix(".int8.onnx")
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it recommends a preparation that the export has done
    try:
        quantize_dynamic(plain, made, op_types_to_quantize=["MatMul", "Gemm"], weight_type=QuantType.QInt8)
    finally:
        root.setLevel(level)
    kinds = {node.op_type for node in onnx.load(str(made)).graph.node}
    if not kinds & {"MatMulInteger", "DynamicQuantizeMatMul"}:
        raise OnnxError(f"int8: ONNX Runtime quantized no product of {plain.name}. Leave it out: --forms eager onnx")
    return made


def _encoder(run: Path) -> Any:
    from albert_ablate.commands.given import open_run
    from albert_ablate.loading import LoadedRun

    return LoadedRun(open_run(run)).model.encoder


def timed(
    arms: Sequence[Arm], lengths: Sequence[int], batches: Sequence[int], limits: Limits, threads: int
) -> dict[tuple[int, int], dict[str, list[float]]]:
    """(sequences, length) -> arm -> seconds of each call; the arms take turns call by call."""
    import torch

    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)
    made = _Calls(threads)
    taken = {}
    with torch.inference_mode():
        for length in lengths:
            present = [arm for arm in arms if length <= arm.positions]
            for batch in batches:
                calls = {arm.name: made.call(arm, batch, length) for arm in present}
                taken[batch, length] = rounds(calls, limits)
    return taken


def rounds(
    calls: Mapping[str, Call], limits: Limits, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of each call. After the warm-up every round calls each arm once; the first of a round changes."""
    names = list(calls)
    for call in calls.values():
        end = clock() + limits.seconds / 4
        for number in range(limits.warm_up):
            call()
            if number and clock() > end:
                break
    taken: dict[str, list[float]] = {name: [] for name in names}
    end = clock() + limits.seconds * len(names)
    for number in range(limits.calls):
        if number >= limits.least and clock() > end:
            break
        first = number % len(names)
        for name in (*names[first:], *names[:first]):
            began = clock()
            calls[name]()
            taken[name].append(clock() - began)
    return taken


def peak_mb(arm: Arm, length: int) -> float:
    """Memory in MB that one sequence needs, with the weights: the peak of this process less that of the libraries."""
    import torch

    for name in ("albert_ablate.loading", "albert_ablate.methods", *(["onnxruntime"] if arm.form in EXPORTED else [])):
        import_module(name)
    torch.set_num_threads(1)
    before = _memory("VmRSS")
    with torch.inference_mode():
        call = _Calls(1).call(arm, 1, length)
        _forget_peak()  # of loading: a file and the tensors made of it
        for _ in range(2):
            call()
    return _memory("VmHWM") - before


def _memory(name: str) -> float:
    """``VmRSS`` or ``VmHWM`` of this process in MB; without /proc the peak since its start."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    line = next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) / 1024


def _forget_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    except OSError:  # not Linux, or not allowed: the peak includes loading
        return


class _Calls:
    """Calls of arms on full sequences; each model and each graph is loaded once."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._encoders: dict[Path, Any] = {}
        self._sessions: dict[Path, Any] = {}

    def call(self, arm: Arm, batch: int, length: int) -> Call:
        """A pass over ``batch`` sequences of ``length`` tokens."""
        import torch

        if arm.form == "eager":
            encoder = self._encoders.setdefault(arm.run, None) or _encoder(arm.run)
            self._encoders[arm.run] = encoder
            ids = torch.arange(batch * length).view(batch, length) % encoder.shape.vocab_size
            types, mask = torch.zeros_like(ids), torch.ones_like(ids)
            return lambda: encoder(ids, types, mask)
        return self._graph(arm.file(length), batch, length)

    def _graph(self, file: Path, batch: int, length: int) -> Call:
        import numpy as np

        from albert_ablate.interop.onnx_file import session

        loaded = self._sessions.get(file)
        if loaded is None:
            loaded = self._sessions[file] = session(file, self._threads, spin=False)
        given = {name.name: np.zeros((batch, length), np.int64) for name in loaded.get_inputs()}
        given["input_ids"] += np.arange(batch * length).reshape(batch, length) % 5
        given["attention_mask"] += 1
        return lambda: loaded.run(None, given)


def require_exports(explicit: bool) -> UserError | None:
    """None if the extra is there; otherwise the error, which is raised if the user asked for its forms."""
    from albert_ablate.interop.onnx_file import require_packages

    try:
        require_packages("ONNX Runtime (--forms onnx int8)")
    except UserError as error:
        if explicit:
            raise
        return error
    return None
