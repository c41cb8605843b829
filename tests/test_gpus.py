"""What is asked of GPUs and promised about them, without one: devices are named, faked or counted by the test."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from runhelpers import (
    ROOT,
    make_trainer,
    newest_checkpoint,
    one_thread,
    run,
    start,
    tiny_config,
    tiny_overrides,
    weights_of,
)
from taskhelpers import TINY, pretrained, with_tasks, write_sst2

from albert_ablate.commands import finetune
from albert_ablate.config.schema import RunConfig
from albert_ablate.door.compose import compose
from albert_ablate.errors import CheckpointError, PreemptedError, UserError
from albert_ablate.files import read_json, write_json
from albert_ablate.record.folder import RunFolder
from albert_ablate.record.outcome import out_of_memory
from albert_ablate.sweeping import calibration, cards, gpus
from albert_ablate.sweeping.calibration import kept, measure, rows_of
from albert_ablate.sweeping.cards import gpu_slot, shared
from albert_ablate.sweeping.cells import Cell, assign_folders
from albert_ablate.sweeping.process import answer_apart
from albert_ablate.tasks.planning import plan_units
from albert_ablate.training.budget import step_flops
from albert_ablate.training.checkpoint import require_device
from albert_ablate.training.machine import Machine
from albert_ablate.training.precision import choose_precision, set_up
from albert_ablate.training.trainer import Trainer

CUDA = torch.device("cuda")
H100 = "NVIDIA H100 80GB HBM3"


# --- a run stays on the kind of device that it was begun on -----------------------------------------


@pytest.fixture
def unfinished(tmp_path: Path) -> tuple[RunConfig, RunFolder]:
    """A run to be continued."""
    config = tiny_config(tmp_path)
    folder = run(config)
    folder.set_status("preempted")
    return config, folder


def as_if_begun_on(folder: RunFolder, device: str, card: str) -> None:
    for meta in folder.checkpoints.glob("*/meta.json"):
        write_json(meta, read_json(meta) | {"device": device, "card": card})


def test_a_checkpoint_names_its_device(unfinished: tuple[RunConfig, RunFolder]) -> None:
    meta = read_json(newest_checkpoint(unfinished[1]) / "meta.json")
    assert (meta["device"], meta["card"]) == ("cpu", "cpu")


def test_a_run_begun_on_a_gpu_is_not_continued_on_a_cpu(unfinished: tuple[RunConfig, RunFolder]) -> None:
    config, folder = unfinished
    as_if_begun_on(folder, "cuda", H100)
    manifest = (folder.path / "manifest.json").read_bytes()
    with pytest.raises(CheckpointError, match=r"begun on a GPU \(NVIDIA H100 .* continue on a CPU") as caught:
        start(config)
    assert "runtime.device=cuda on a machine with a GPU. To start it anew, use rerun=all" in str(caught.value)
    assert (folder.path / "manifest.json").read_bytes() == manifest, "the first machine stays on record"
    assert folder.state() == "failed"
    assert start(replace(config, rerun="all")) == 0


def test_a_run_begun_on_a_cpu_is_not_continued_on_a_gpu(unfinished: tuple[RunConfig, RunFolder]) -> None:
    _, folder = unfinished
    for meta in folder.checkpoints.glob("*/meta.json"):  # as older versions wrote it
        write_json(meta, {k: v for k, v in read_json(meta).items() if k not in ("device", "card")})
    with pytest.raises(CheckpointError, match=r"on a CPU and would continue on a GPU .* with runtime\.device=cpu\."):
        require_device(folder.checkpoints, "cuda", H100)
    assert require_device(folder.checkpoints, "cpu", "cpu") is None


def test_another_card_is_said_and_taken(unfinished: tuple[RunConfig, RunFolder]) -> None:
    _, folder = unfinished
    as_if_begun_on(folder, "cuda", H100)
    (newest_checkpoint(folder) / "meta.json").write_text("{")  # damaged: the one before it tells
    said = require_device(folder.checkpoints, "cuda", "NVIDIA A100")
    assert said is not None
    assert f"begun on {H100}, continues on NVIDIA A100" in said
    assert require_device(folder.checkpoints, "cuda", H100) is None


def test_a_run_finished_elsewhere_says_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny_config(tmp_path)
    file = run(config).path / "manifest.json"
    assert start(config) == 0
    assert "nothing to do. Its results" in capsys.readouterr().out
    manifest = read_json(file)
    write_json(file, manifest | {"hardware": manifest["hardware"] | {"device": H100}})
    assert start(config) == 0
    assert "nothing to do. It was trained on cuda; rerun=all trains it on cpu. Its results" in capsys.readouterr().out


def test_a_fine_tuning_stays_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, folder = pretrained(tmp_path)
    words = [*TINY, "task=sst2", f"task.data_dir={write_sst2(tmp_path / 'data')}", "tasks.sst2.steps=2"]
    (unit,) = plan_units(with_tasks(tmp_path, *words), folder, "fp32")
    write_json(unit.folder.checkpoints / "step_00000001" / "meta.json", {"device": "cuda", "card": H100})
    command = [str(folder.path), *words, f"paths.cache={tmp_path / 'cache'}", "runtime.precision=fp32"]
    assert finetune.main(command) == 1
    assert f"was begun on a GPU ({H100})" in capsys.readouterr().out
    assert not (unit.folder.path / "manifest.json").exists()


# --- number format ----------------------------------------------------------------------------------


def runtime(**values: Any) -> Any:
    return replace(compose([]).runtime, **values)


def test_emulated_bf16_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A V100 emulates it, at a fraction of the speed of fp32."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert choose_precision(runtime(), CUDA) == "fp32"
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    assert choose_precision(runtime(), CUDA) == "bf16"


@pytest.fixture
def no_context_here(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A GPU is there, and whatever would open a context in this process fails."""

    def opened(*_: Any, **__: Any) -> None:
        raise AssertionError("a CUDA context in the parent of a sweep")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for name in ("_lazy_init", "is_bf16_supported", "get_device_properties", "get_device_capability", "current_device"):
        monkeypatch.setattr(torch.cuda, name, opened)
    gpus._asked.cache_clear()
    yield
    gpus._asked.cache_clear()


@pytest.mark.usefixtures("no_context_here")
def test_a_sweeps_parent_asks_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def apart(question: Any, *values: Any) -> Any:
        asked.append(question.__name__)
        return answer_apart(question, *values)  # which has no GPU, so bf16 is not there

    monkeypatch.setattr(gpus, "answer_apart", apart)
    config = tiny_config(tmp_path, "runtime.device=cuda", "runtime.precision=auto")
    cells = [Cell(replace(config, seed=seed), (), ()) for seed in range(2)]
    placed = assign_folders(cells, gpus.local_precision)
    assert asked == ["gpu_multiplies_bf16"], "once for all cells"
    fixed = replace(config, runtime=replace(config.runtime, precision="fp32"))
    assert placed[0].folder is not None
    assert placed[0].folder.name == assign_folders([Cell(fixed, (), ())], gpus.local_precision)[0].folder.name  # type: ignore[union-attr]
    assert not torch.cuda.is_initialized()


@pytest.mark.usefixtures("no_context_here")
def test_a_plan_asks_for_the_card_in_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "answer_apart", lambda question, device: f"{question.__name__} of {device}")
    config = tiny_config(tmp_path, "runtime.device=cuda")
    assert kept(config) is None
    assert gpus.local_hardware(config.runtime)["device"] == "card of cuda"


def test_a_process_that_fails_or_ends_is_told() -> None:
    assert answer_apart(divmod, 7, 2) == (3, 1)
    with pytest.raises(UserError, match="ZeroDivisionError"):
        answer_apart(divmod, 7, 0)
    with pytest.raises(UserError, match="ended with code 5"):
        answer_apart(os._exit, 5)


@pytest.mark.parametrize(
    ("words", "memory"),
    [
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported", True),
        ("CUDA error: an illegal memory access was encountered", False),
    ],
)
def test_memory_that_runs_out_in_a_library_is_known(words: str, memory: bool) -> None:
    assert out_of_memory(RuntimeError(words)) is memory


def test_deterministic_mode_fills_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    deterministic: Any = torch.utils.deterministic  # a class stands in for this module
    monkeypatch.setattr(deterministic, "fill_uninitialized_memory", True)
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda on: None)
    set_up(runtime(threads=torch.get_num_threads()))
    assert deterministic.fill_uninitialized_memory
    set_up(runtime(threads=torch.get_num_threads(), deterministic=True))
    assert not deterministic.fill_uninitialized_memory


# --- a measured step --------------------------------------------------------------------------------


class Queue:
    """A GPU of so many FLOP/s: calls queue their work, and only waiting for it takes time."""

    def __init__(self, rate: float) -> None:
        self.rate, self.now, self.queued = rate, 0.0, 0.0
        self.rows: list[int] = []

    def wait(self, _device: object) -> None:
        self.now, self.queued = self.now + self.queued, 0.0

    def add(self, seconds: float) -> None:
        self.queued += seconds

    def trainer(self, config: RunConfig, _prepared: Any, machine: Machine, _folder: Any, rows: int) -> tuple[Any, Any]:
        self.rows.append(rows)
        short = replace(config, batch=replace(config.batch, size=rows, micro_size=rows))
        update = step_flops(short) / self.rate
        trainer = SimpleNamespace(
            config=short, machine=machine, model=torch.nn.Linear(10, 10),
            update=lambda *_, **__: self.add(update + 0.001), optimizer=SimpleNamespace(step=lambda: self.add(0.001)),
            settle=lambda: self.wait(CUDA), method=SimpleNamespace(stages=()),
        )  # fmt: skip
        batch = SimpleNamespace(counts=lambda: {"tokens": rows * 100})
        return trainer, [batch] * 500


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Queue:
    queue = Queue(200e12)
    monkeypatch.setattr(torch.cuda, "synchronize", queue.wait)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: 12_345)
    monkeypatch.setattr(calibration, "time", SimpleNamespace(perf_counter=lambda: queue.now))
    monkeypatch.setattr(calibration, "prepare_data", lambda config: None)
    monkeypatch.setattr(calibration, "choose_attention", lambda *_: None)
    monkeypatch.setattr(calibration, "_trainer", queue.trainer)
    monkeypatch.setattr(calibration, "_forward_seconds", lambda *_: 0.0)
    monkeypatch.setattr(Machine, "of", lambda _: Machine(CUDA, "bf16"))
    return queue


@pytest.mark.parametrize(
    ("words", "laptop", "rows", "rate"),
    [
        (["scale=gpu"], 77, 512, 200e12),
        (["scale=gpu"], 77, 51, 0.5e12),  # slower than a laptop
        (["scale=paper"], 5, 32, 200e12),
        (["scale=gpu", "model=nano", "batch.size=4096", "batch.micro_size=512"], 512, 512, 200e12),
    ],
)
def test_a_gpu_is_measured_on_what_it_does_in_two_seconds(
    words: list[str], laptop: int, rows: int, rate: float, gpu: Queue
) -> None:
    config = compose(words)
    gpu.rate = rate
    found = measure(config)
    assert gpu.rows == [laptop, rows]
    assert found.step_seconds == pytest.approx(step_flops(config) / rate + 0.001, rel=0.01), "waited for, and scaled up"
    assert found.tokens_per_step == config.batch.size * 100


def test_a_laptop_is_measured_as_before() -> None:
    config = compose(["scale=gpu"])
    per_row = step_flops(config) / 512
    assert rows_of(config, calibration._STEP_FLOPS) == int(1.5e12 / per_row)
    assert rows_of(config, 300 * per_row) == 512, "half of a batch is as well measured whole"
    assert rows_of(config, 0.0) == 1


# --- log lines --------------------------------------------------------------------------------------


def test_a_gpu_writes_at_most_a_line_a_second(tmp_path: Path) -> None:
    trainer, _ = make_trainer(tiny_config(tmp_path))
    assert trainer.logged_at(3, 0.0)
    assert not trainer.logged_at(4, 100.0)
    trainer.machine = Machine(CUDA, "fp32")
    assert not trainer.logged_at(3, 0.99)
    assert not trainer.logged_at(4, 100.0)
    assert trainer.logged_at(6, 1.0)


def test_steps_between_rarer_lines_are_all_in_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    often = run(tiny_config(tmp_path, runs="often"))
    monkeypatch.setattr(Trainer, "logged_at", lambda *_: False)  # as where all steps lie within a second
    rare = run(tiny_config(tmp_path, runs="rare"))
    assert [line["step"] for line in often.metrics()] == [3, 5, 6, 9, 10, 12]
    assert [line["step"] for line in rare.metrics()] == [5, 10, 12], "the held-out curve is whole"
    assert [line["tokens"] for line in rare.metrics()] == [often.metrics()[n]["tokens"] for n in (1, 4, 5)]
    assert weights_of(rare) == weights_of(often)
    assert rare.read("results.json")["training"]["tokens"] == often.read("results.json")["training"]["tokens"]


# --- a GPU for each cell ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "count", "names"),
    [(None, 2, ["0", "1"]), ("2,5", 2, ["2", "5"]), ("GPU-a, GPU-b", 1, ["GPU-a"]), (None, 0, []), ("-1", 0, [])],
)
def test_gpus_are_called_as_the_environment_calls_them(
    given: str | None, count: int, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    assert gpus.visible_gpus() == names


def test_places_are_taken_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,4")

    def seen() -> str | None:
        return os.environ.get("CUDA_VISIBLE_DEVICES")

    with gpu_slot("auto", 1):
        assert seen() == "3,4", "no sweep shares them"
    with shared(["3", "4"]), gpu_slot("auto", 1):
        assert seen() == "3"
        with gpu_slot("cuda", 2):
            assert seen() == "4", "an empty GPU comes before the second place of one"
            with gpu_slot("cpu", 1):
                assert seen() == "4"
            with gpu_slot("auto", 2):
                assert seen() == "3"
        polls = count()

        def stopped(_: float) -> None:
            if next(polls) == 3:
                raise PreemptedError("Stopped")

        with gpu_slot("auto", 1):
            monkeypatch.setattr(cards, "time", SimpleNamespace(sleep=stopped))
            with pytest.raises(PreemptedError), gpu_slot("auto", 1):
                pass
        assert next(polls) == 4, "waited until it was stopped"
        assert seen() == "3"
    assert seen() == "3,4"
    with shared([]), gpu_slot("auto", 1):
        assert seen() == "3,4"


@pytest.mark.slow
@pytest.mark.parametrize(("launcher", "per_gpu"), [("joblib", 2), ("submitit_local", 1), ("gpus", 2)])
def test_each_cell_of_a_sweep_sees_one_gpu(launcher: str, per_gpu: int, tmp_path: Path) -> None:
    package = {"gpus": "joblib"}.get(launcher, launcher.removesuffix("_local"))
    pytest.importorskip(f"hydra_plugins.hydra_{package}_launcher")
    words = tiny_overrides(
        tmp_path, "seed=0,5,6,7,8", "runtime.device=auto", f"runtime.cells_per_gpu={per_gpu}",
        f"hydra/launcher={launcher}", *(["hydra.launcher.n_jobs=5"] if launcher == "joblib" else []),
    )  # fmt: skip
    environment = one_thread() | {
        "FAULT_GPUS": "2", "FAULT_SEEN": str(tmp_path / "seen"), "FAULT_STEP_SECONDS": "0.05",
        "PYTHONPATH": f"{ROOT / 'tests' / 'faults'}{os.pathsep}{os.environ.get('PYTHONPATH', ROOT)}",
    }  # fmt: skip
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    done = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), "-m", *words], cwd=tmp_path, env=environment, capture_output=True,
        text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    places = 2 * per_gpu
    queued = f"5 jobs for 2 GPUs: {places} cells compute at once" in done.stdout
    assert queued == (launcher != "gpus"), "it starts no more jobs than there are places"
    lines = [line.split() for line in (tmp_path / "seen").read_text().splitlines()]
    assert len(lines) == 10
    now, most = {"0": 0, "1": 0}, {"0": 0, "1": 0}
    for what, gpu, _ in lines:
        now[gpu] += 1 if what == "begins" else -1
        most[gpu] = max(most[gpu], now[gpu])
    assert now == {"0": 0, "1": 0}
    assert most == {"0": per_gpu, "1": per_gpu}, lines
