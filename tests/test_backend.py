"""How a GPU computes: what is chosen, what is kept, what batches look like and who builds them."""

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from finetunehelpers import tuner
from runhelpers import ROOT, batch_arrays, make_batches, one_thread, start, tiny_config
from taskhelpers import pretrained, write_race, write_squad, write_sst2
from torch import distributed

from albert_ablate import stopping
from albert_ablate.data.prepare import prepare
from albert_ablate.data.store import TokenStore
from albert_ablate.door.compose import compose
from albert_ablate.errors import ConfigError, PeerLostError
from albert_ablate.tasks import task_loop
from albert_ablate.tasks.task import TaskBatch
from albert_ablate.training.backend import Backend, choose_backend, keep_compiled
from albert_ablate.training.captured import CudaGraphs
from albert_ablate.training.distributed import ALONE, World
from albert_ablate.training.machine import Machine
from albert_ablate.training.numbers import Numbers
from albert_ablate.training.precision import set_up

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def runtime(**changes: Any) -> Any:
    return replace(compose([]).runtime, **changes)


# --- the choice -------------------------------------------------------------------------------------


def test_a_gpu_begins_with_the_fastest_unless_told() -> None:
    chosen = [choose_backend(runtime(backend=name), CUDA) for name in ("auto", "eager", "compiled", "graph")]
    assert chosen == [Backend.GRAPH, Backend.EAGER, Backend.COMPILED, Backend.GRAPH]
    assert choose_backend(runtime(), CPU) is None


@pytest.mark.parametrize(
    ("device", "why"), [("cpu", "runtime.device is cpu"), ("auto", "this machine has no usable GPU")]
)
def test_a_cpu_refuses_a_backend_in_words(
    device: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = tiny_config(tmp_path, "runtime.backend=graph", f"runtime.device={device}")
    words = f"runtime.backend=graph is for GPUs, but {why}. Use runtime.backend=auto."
    with pytest.raises(ConfigError) as refused:
        start(config)
    assert refused.value.problems == [words]
    assert not Path(config.paths.runs).exists()


def test_fine_tuning_is_compiled_only_where_that_is_asked_for(tmp_path: Path) -> None:
    pretrained(tmp_path)
    write_sst2(tmp_path / "data")
    unit = tuner(tmp_path, "sst2", tmp_path / "unit")
    assert unit.first_backend(None) is None
    assert unit.first_backend(Backend.GRAPH) is Backend.EAGER
    unit.runtime = replace(unit.runtime, backend="compiled")
    assert unit.first_backend(Backend.COMPILED) is Backend.COMPILED


@pytest.mark.parametrize("backend", [None, *Backend])
def test_compiled_code_is_kept_in_the_cache(
    backend: Backend | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    monkeypatch.setenv("TRITON_CACHE_DIR", "mine")
    keep_compiled(tmp_path / "cache", backend)
    compiles = backend in (Backend.COMPILED, Backend.GRAPH)
    assert os.environ.get("TORCHINDUCTOR_CACHE_DIR") == (str(tmp_path / "cache" / "compiled") if compiles else None)
    assert os.environ["TRITON_CACHE_DIR"] == "mine"
    monkeypatch.delenv("TRITON_CACHE_DIR")
    keep_compiled(tmp_path / "cache", backend)
    assert os.environ.get("TRITON_CACHE_DIR") == (str(tmp_path / "cache" / "compiled" / "triton") if compiles else None)


def test_deterministic_runs_have_no_attention_of_cudnn(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda on: None)
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    monkeypatch.setattr(torch.backends.cuda, "enable_cudnn_sdp", asked.append)
    set_up(runtime(threads=torch.get_num_threads()))
    assert asked == []
    set_up(runtime(threads=torch.get_num_threads(), deterministic=True))
    assert asked == [False]


# --- numbers of a step ------------------------------------------------------------------------------


def test_numbers_of_a_step_stay_in_one_place_on_a_device_and_are_plain_on_a_cpu() -> None:
    plain = Numbers(None)
    plain.put(0.1, {"masked": 3})
    assert (plain.rates, plain.counts) == ({1.0: 0.1}, {"masked": 3})
    numbers, places = Numbers(CPU), set()
    for rate, masked in ((0.25, 3), (0.5, 2**24)):
        numbers.put(rate, {"masked": masked, "sequences": 8})
        scalars = [*numbers.rates.values(), *numbers.counts.values()]
        assert [float(scalar) for scalar in scalars] == [rate, masked, 8]
        places.add(tuple(scalar.data_ptr() for scalar in scalars if isinstance(scalar, torch.Tensor)))
    assert len(places) == 1
    assert len(places.pop()) == 3


def test_each_factor_of_the_rate_has_a_number() -> None:
    plain, numbers = Numbers(None, [1.0, 0.5]), Numbers(CPU, [1.0, 0.5])
    for made in (plain, numbers):
        made.put(0.25, {"examples": 8})
        assert {scale: float(rate) for scale, rate in made.rates.items()} == {1.0: 0.25, 0.5: 0.125}
        assert {name: float(count) for name, count in made.counts.items()} == {"examples": 8}


# --- a capture that fails ---------------------------------------------------------------------------


def test_a_capture_that_fails_leaves_stream_and_noise_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch ends the capture with an error of its own then, and on the stream of the capture."""

    class Noise:
        state = "captured"

        def clone_state(self) -> str:
            return "free"

        def graphsafe_set_state(self, state: str) -> None:
            self.state = state

    @contextmanager
    def graph(_graph: object, capture_error_mode: str) -> Iterator[None]:
        streams.append("of the capture")
        try:
            yield
        finally:
            raise RuntimeError("the capture was invalidated")

    noise, streams = Noise(), ["before"]
    cuda = {
        "CUDAGraph": object, "graph": graph, "current_stream": lambda: streams[-1], "set_stream": streams.append,
        "default_generators": [noise], "current_device": lambda: 0,
    }  # fmt: skip
    for name, value in cuda.items():
        monkeypatch.setattr(torch.cuda, name, value)

    def work() -> torch.Tensor:
        raise ValueError("the reason")

    with pytest.raises(ValueError, match="the reason"):
        CudaGraphs().capture(work)
    assert streams == ["before", "of the capture", "before"]
    assert noise.state == "free"
    with pytest.raises(RuntimeError, match="invalidated"):
        CudaGraphs().capture(lambda: torch.zeros(1))


# --- batches ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sst2", "squad11", "squad20", "race"])
def test_wider_batches_of_tasks_have_the_same_numbers(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretrained(tmp_path)
    write_race(write_squad(write_squad(write_sst2(tmp_path / "data")), "2.0"))
    monkeypatch.setattr(task_loop, "_WIDTHS", 64)
    unit = tuner(tmp_path, name, tmp_path / "unit", "task.start=random", "model.max_positions=48")
    for number in range(3):
        batch = unit.batches[number]
        wide = unit.shaped(batch)
        assert batch.input_ids.shape[1] < wide.input_ids.shape[1] == 48, "not beyond the positions of the model"
        losses = [unit.task.loss(unit.model.eval(), each) for each in (batch, wide)]
        torch.testing.assert_close(losses[1], losses[0], rtol=1e-6, atol=0)
    features = next(iter(unit.task.dev.values()))
    narrow = unit.predict(features)
    unit.backend = Backend.EAGER
    scores = [unit.task.scores(next(iter(unit.task.dev)), outputs) for outputs in (narrow, unit.predict(features))]
    assert scores[0] == scores[1]


def test_widths_are_rounded_up_to_the_most_there_is() -> None:
    grid = torch.ones(2, 33, dtype=torch.int32)
    batch = TaskBatch(grid, grid, grid.bool(), torch.zeros(2), 1)
    for most, width in ((512, 64), (48, 48), (33, 33), (20, 33)):
        wide = batch.widened(32, most)
        assert [tensor.shape[1] for tensor in (wide.input_ids, wide.type_ids, wide.mask)] == [width] * 3
        assert not wide.mask[:, 33:].any()


@pytest.mark.parametrize(("given", "of_a_cpu", "of_a_gpu"), [(None, 0, 2), (0, 0, 0), (3, 3, 3)])
def test_a_gpu_has_its_batches_built_ahead(given: int | None, of_a_cpu: int, of_a_gpu: int) -> None:
    settings = runtime(workers=given)
    assert Machine(CPU, "fp32").workers(settings) == of_a_cpu
    assert Machine(CUDA, "bf16").workers(settings) == of_a_gpu


def test_a_store_goes_to_another_process_by_the_names_of_its_files(tmp_path: Path) -> None:
    store = prepare(tiny_config(tmp_path)).train
    packed = pickle.dumps(store)
    assert len(packed) < 2000 < store.tokens.nbytes
    part = TokenStore(store.tokens[3:9], store.sentences, np.array([0, 1]), "part")
    for found, given in ((pickle.loads(packed), store), (pickle.loads(pickle.dumps(part)), part)):
        assert found.fingerprint == given.fingerprint
        for name in ("tokens", "sentences", "documents"):
            assert np.array_equal(getattr(found, name), getattr(given, name))


@pytest.mark.filterwarnings("ignore:'pin_memory' argument")
def test_processes_that_build_for_a_gpu_are_not_forked_from_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = make_batches(tiny_config(tmp_path))
    monkeypatch.setattr(os, "fork", lambda: pytest.fail("this process has threads"))
    stream = batches.from_step(3, 60, 1, pin_memory=True)
    assert batch_arrays(next(stream)) == batch_arrays(batches[3])
    (worker,) = stream._workers
    for number in stopping.SIGNALS:
        os.kill(worker.pid, number)
    assert [batch_arrays(next(stream)) for _ in range(8)] == [batch_arrays(batches[step]) for step in range(4, 12)]
    del stream
    worker.join(10)
    assert worker.exitcode == 0


READER = """
import sys, time
from pathlib import Path
from runhelpers import make_batches, tiny_config
if __name__ == "__main__":
    stream = make_batches(tiny_config(Path(sys.argv[1]))).from_step(0, 10**6, 1, pin_memory=True)
    next(stream)
    print("worker", stream._workers[0].pid, flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are looked up on Linux alone")
def test_they_leave_with_the_process_that_reads(tmp_path: Path) -> None:
    script = tmp_path / "reader.py"
    script.write_text(READER)
    environment = one_thread() | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    reader = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert reader.stdout is not None
    worker = next(line.split()[1] for line in reader.stdout if line.startswith("worker"))
    reader.kill()
    reader.wait()
    until = time.monotonic() + 10
    while Path("/proc", worker).exists() and time.monotonic() < until:
        time.sleep(0.1)
    if Path("/proc", worker).exists():
        os.kill(int(worker), signal.SIGKILL)
        pytest.fail("it is still there")


# --- several processes ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (distributed.DistBackendError("remote process exited"), True), (RuntimeError("NCCL error: unhandled"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
    ],
)  # fmt: skip
def test_a_lost_process_that_comes_up_late_is_told_from_other_errors(error: RuntimeError, lost: bool) -> None:
    with pytest.raises(PeerLostError if lost else RuntimeError) as raised, World(0, 2).noticing():
        raise error
    assert isinstance(raised.value, PeerLostError) is lost
    with pytest.raises(type(error)), ALONE.noticing():
        raise error
