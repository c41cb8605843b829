"""The attention kernel of a GPU run: what is left out, what is chosen, and when it is measured."""

import itertools
import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from runhelpers import ROOT, only_folder, read_json, run, stopped_in, tiny_config
from taskhelpers import with_tasks, write_sst2
from torch import Tensor
from torch.backends import cuda
from torch.nn.attention import SDPBackend

from albert_ablate import experiment
from albert_ablate.config.schema import RunConfig
from albert_ablate.model import attention_kernels
from albert_ablate.model.attention import PATTERNS, Pattern, View, fused_attention
from albert_ablate.model.attention_kernels import KERNELS, PLAIN, AttentionCase, AttentionTimes, measure, use
from albert_ablate.record import provenance
from albert_ablate.record.manifest import Attention, Manifest
from albert_ablate.tasks import units
from albert_ablate.training import attention_choice
from albert_ablate.training.attention_choice import ForwardPass, choose_attention
from albert_ablate.training.describe import describe_run
from albert_ablate.training.machine import Machine
from albert_ablate.training.step import Stepper

CPU = torch.device("cpu")
ON = {
    SDPBackend.CUDNN_ATTENTION: cuda.cudnn_sdp_enabled, SDPBackend.FLASH_ATTENTION: cuda.flash_sdp_enabled,
    SDPBackend.EFFICIENT_ATTENTION: cuda.mem_efficient_sdp_enabled, SDPBackend.MATH: cuda.math_sdp_enabled,
}  # fmt: skip


def enabled() -> set[str]:
    """The kernels that this process may use now."""
    return {name for name, kernel in KERNELS.items() if ON[kernel.backend]()}


@pytest.fixture(autouse=True)
def switches() -> Iterator[None]:
    """PyTorch's switches are those of the whole process."""
    before = enabled()
    yield
    for name, kernel in KERNELS.items():
        kernel.enable(name in before)


def case_of(folder: Path, deterministic: bool = False, dtype: torch.dtype = torch.float32) -> AttentionCase:
    return AttentionCase(tiny_config(folder).architecture(), 12, 32, dtype, deterministic)


def clock(times: dict[str, float]) -> Callable[[Callable[[], None]], float]:
    """Seconds of the kernel that is in use, which is called once."""

    def seconds(step: Callable[[], None]) -> float:
        step()
        (name,) = enabled()
        return times[name]

    return seconds


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kernels_that_raise_are_left_out_and_the_fastest_of_the_others_is_used(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    """A CPU has the plain computation, and a kernel of its own under the name of flash."""
    found = measure(case_of(tmp_path, dtype=dtype), CPU, clock({"flash": 0.003, PLAIN: 0.005}))
    assert found.milliseconds == {"flash": 3.0, PLAIN: 5.0}
    assert found.left_out.keys() == {"cudnn", "memory-efficient"}
    assert all(reason and "\n" not in reason for reason in found.left_out.values())
    assert found.fastest == "flash"
    assert measure(case_of(tmp_path), CPU, clock({"flash": 2.0, PLAIN: 1.0})).fastest == PLAIN


def kernels(**altered: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """Attention that is computed plainly, and then altered as the kernel that is in use does it."""

    def attend(q: Tensor, k: Tensor, v: Tensor, view: View, drop: float) -> Tensor:
        (name,) = enabled()
        cuda.enable_math_sdp(True)
        result = fused_attention(q, k, v, view, drop)
        KERNELS[PLAIN].enable(name == PLAIN)
        return altered.get(name.replace("-", "_"), lambda x: x)(result)

    return attend


def refused(x: Tensor) -> Tensor:
    raise RuntimeError("mha_graph.execute: no plan\nand much more")


def noisy(x: Tensor) -> Tensor:
    return x * (1 + 1e-5 * torch.rand(()))


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [(lambda x: 1.03 * x, "differs from the plain computation in fp32 by 3.0%"), (lambda x: x * torch.nan, "nan%"),
     (refused, "mha_graph.execute: no plan")],
)  # fmt: skip
def test_a_kernel_that_is_wrong_is_left_out_however_fast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: Callable[[Tensor], Tensor], reason: str
) -> None:
    attend = kernels(cudnn=wrong, memory_efficient=lambda x: 1.01 * x)
    monkeypatch.setattr(attention_kernels, "fused_attention", attend)
    times = {"cudnn": 0.001, "flash": 0.003, "memory-efficient": 0.002, PLAIN: 0.004}
    found = measure(case_of(tmp_path), CPU, clock(times))
    assert reason in found.left_out.pop("cudnn")
    assert found.left_out == {}
    assert found.fastest == "memory-efficient"


def test_where_a_run_repeats_to_the_bit_its_kernel_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_kernels, "fused_attention", kernels(cudnn=refused, memory_efficient=noisy))
    times = {"cudnn": 0.001, "flash": 0.003, "memory-efficient": 0.002, PLAIN: 0.004}
    found = measure(case_of(tmp_path, deterministic=True), CPU, clock(times))
    why = "its gradients differ from call to call"
    assert found.left_out == {"cudnn": why, "memory-efficient": why}, "cudnn was not even tried"
    assert found.fastest == "flash"
    monkeypatch.setattr(attention_kernels, "fused_attention", kernels(memory_efficient=noisy))
    assert measure(case_of(tmp_path), CPU, clock(times)).fastest == "cudnn"


def test_one_kernel_is_used_and_the_plain_one_for_what_it_refuses() -> None:
    for name in KERNELS:
        use(name)
        assert enabled() == {name, PLAIN}


def test_nothing_that_passed_means_the_plain_computation() -> None:
    assert AttentionTimes({}, dict.fromkeys(KERNELS, "out of memory")).fastest == PLAIN


# --- of a run ----------------------------------------------------------------------------------------


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[AttentionCase]:
    """The cases that were measured, on a card that is not there."""
    cases: list[AttentionCase] = []

    def stand_in(case: AttentionCase, device: torch.device, seconds: Any) -> AttentionTimes:
        assert device.type == "cuda"
        cases.append(case)
        return AttentionTimes({"memory-efficient": 2.0, PLAIN: 4.5}, {"flash": "takes no mask"})

    monkeypatch.setattr(attention_choice, "measure", stand_in)
    monkeypatch.setattr(provenance, "card", lambda device: "a card")
    return cases


GPU = Machine(torch.device("cuda"), "bf16")


def chosen(folder: Path, *words: str, machine: Machine = GPU, length: int = 32) -> Attention | None:
    config = tiny_config(folder, *words)
    return choose_attention(config, ForwardPass(config.architecture(), 8, length), machine)


def test_all_arms_and_seeds_use_one_measurement(tmp_path: Path, measured: list[AttentionCase]) -> None:
    first = chosen(tmp_path)
    assert first is not None
    assert first.as_json() == {
        "kernel": "memory-efficient", "milliseconds": {"memory-efficient": 2.0, PLAIN: 4.5},
        "left_out": {"flash": "takes no mask"},
    }  # fmt: skip
    assert enabled() == {"memory-efficient", PLAIN}
    for words in (("share=none",), ("objective=nsp", "seed=3"), ("embed.size=32", "model.layers=3")):
        assert chosen(tmp_path, *words) == first
    assert len(measured) == 1
    assert measured[0] == AttentionCase(tiny_config(tmp_path).architecture(), 8, 32, torch.bfloat16, False)


def test_another_shape_format_card_or_promise_is_measured_anew(
    tmp_path: Path, measured: list[AttentionCase], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen(tmp_path)
    chosen(tmp_path, length=64)
    chosen(tmp_path, "model.hidden=64")
    chosen(tmp_path, "model.attention_dropout=0.1")
    chosen(tmp_path, "runtime.deterministic=true")
    chosen(tmp_path, machine=Machine(GPU.device, "fp32"))
    monkeypatch.setattr(provenance, "card", lambda device: "another card")
    chosen(tmp_path)
    assert len(measured) == 7
    assert [case.deterministic for case in measured] == [False] * 4 + [True] + [False] * 2
    assert measured[5].dtype == torch.float32


def test_processes_that_start_together_measure_once(tmp_path: Path, measured: list[AttentionCase]) -> None:
    tiny_config(tmp_path)  # writes the corpus
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda seed: chosen(tmp_path, f"seed={seed}"), range(4)))
    assert len(measured) == 1
    assert found == found[:1] * 4
    (file,) = (tmp_path / "cache" / "attention").glob("*.json")
    assert json.loads(file.read_text())["for"]["card"] == "a card"


def test_a_cpu_and_a_pattern_with_its_own_kernel_choose_nothing(
    tmp_path: Path, measured: list[AttentionCase], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = enabled()
    assert chosen(tmp_path, machine=Machine(CPU, "bf16")) is None
    own = Pattern(visible=lambda *_: None, keys=lambda shape, length: length, kernel=lambda q, *_: q)
    monkeypatch.setitem(PATTERNS, "full", own)
    assert chosen(tmp_path) is None
    assert enabled() == before
    assert not measured
    assert not (tmp_path / "cache" / "attention").exists()


def test_the_manifest_names_the_kernel_of_a_gpu_run_alone(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)

    def manifest(attention: Attention | None) -> Manifest:
        return describe_run(config, config, "a-run", "0", {}, Machine(CPU, "fp32"), attention)

    assert "attention" not in manifest(None).as_json()
    attention = Attention(kernel="flash", milliseconds={"flash": 1.5})
    assert Manifest.read(manifest(attention).as_json()).attention == attention


def test_the_kernel_is_chosen_before_the_first_step_and_recorded_for_run_and_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[Any] = []
    attention = Attention(kernel="flash", milliseconds={"flash": 1.5})

    def choose(config: RunConfig, forward: ForwardPass, machine: Machine) -> Attention:
        events.append((forward.shape.attention_dropout, forward.sequences, forward.length))
        return attention

    for module in (experiment, units):
        monkeypatch.setattr(module, "choose_attention", choose)
    update = Stepper.update

    def told(*args: Any, **options: Any) -> Any:
        events.append("step")
        return update(*args, **options)

    monkeypatch.setattr(Stepper, "update", told)
    data = f"task.data_dir={write_sst2(tmp_path / 'data')}"
    run_of = run(with_tasks(tmp_path, "task=sst2", data, "budget.steps=4", "tasks.sst2.max_length=16"))
    (unit,) = (run_of.path / "tasks").glob("sst2-*")
    assert [event for event, _ in itertools.groupby(events)] == [(0.0, 8, 32), "step", (0.0, 8, 16), "step"]
    for folder in (run_of.path, unit):
        assert read_json(folder / "manifest.json")["attention"] == attention.as_json()


def test_a_run_that_continues_with_another_kernel_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(tmp_path)
    said = []
    for kernel, stop in (("flash", 5), ("flash", 7), ("memory-efficient", None)):
        monkeypatch.setattr(experiment, "choose_attention", lambda *_, kernel=kernel: Attention(kernel=kernel))
        if stop is None:
            run(config)
        else:
            stopped_in(stop, config, monkeypatch)
        log = (only_folder(config).path / "log.txt").read_text()
        said.append("begun with the attention kernel flash, continues with memory-efficient" in log)
    assert said == [False, False, True]


def test_the_documented_kernels_are_those_of_the_table() -> None:
    text = (ROOT / "docs" / "gpu.md").read_text()
    rows = re.findall(r"^\| `([a-z-]+)` \|.*\| (yes|never) \|$", text, flags=re.M)
    assert dict(rows) == {name: "yes" if kernel.repeats else "never" for name, kernel in KERNELS.items()}
    assert f"more than {attention_kernels.TOLERANCE:.0%}" in text
