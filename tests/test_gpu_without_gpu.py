"""What a GPU needs of a training step, on a machine without one: nothing is read back, and nothing is lost by it."""

import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from runhelpers import (
    ROOT,
    equal,
    make_batches,
    make_trainer,
    one_thread,
    twenty_steps,
)
from test_lamb import plain_lamb
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn import functional as F
from torch.utils.data._utils.pin_memory import pin_memory

from albert_ablate.config.schema import RunConfig
from albert_ablate.data.batches import Batch
from albert_ablate.methods import METHODS
from albert_ablate.model.blocks import AttentionBlock, FeedForwardBlock
from albert_ablate.model.heads import MaskedLMHead
from albert_ablate.model.pretraining import PretrainingModel, build_model
from albert_ablate.tasks.task import TaskBatch
from albert_ablate.training import lamb
from albert_ablate.training.guards import LOOK_EVERY, FiniteGuard
from albert_ablate.training.lamb import Lamb
from albert_ablate.training.optimizers import clip_gradient, gradients_of
from albert_ablate.training.trainer import Trainer

Cell = Callable[..., RunConfig]


# --- on the fake accelerator ----------------------------------------------------------------------

#: Operations that one step may take, 5% above what it takes. Fake tensors have no fused attention and no fused norm of
#: the gradient, so that a real GPU needs fewer.
BOUNDS = {
    "lamb all plain": 399, "lamb all dropout": 410, "lamb none plain": 422, "lamb none dropout": 433,
    "adamw all plain": 379, "adamw all dropout": 390, "adamw none plain": 402, "adamw none dropout": 413,
    "corrected lamb": 399, "adamw without correction": 379, "fp32": 314, "three micro-batches": 1113,
    "task sst2": 294, "task squad11": 286, "task squad20": 371, "task race": 304,
}  # fmt: skip
#: The same of a step that is captured: what one call of the host replays.
CAPTURED = {
    "captured lamb all plain": 392, "captured lamb none dropout": 425, "captured corrected lamb": 392,
    "captured adamw all dropout": 382, "captured three micro-batches": 1093,
}  # fmt: skip
#: A forward and a backward pass of base with 256 sequences of 128 tokens, 5% above what it takes.
BASE_BOUNDS = {"launches": 855, "gigabytes": 95.0, "peak": 9.3}
TUNINGS = [f"tuning {label}" for label in ("mean", "last", "by layer", "corrected by layer")]
CASES = [*BOUNDS, "causal pairs", *(f"method {name.value}" for name in METHODS), *TUNINGS]


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What ``gpu_steps.py`` found."""
    script, folder = ROOT / "tests" / "gpu_steps.py", tmp_path_factory.mktemp("steps")
    path = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    done = subprocess.run(
        [sys.executable, str(script), str(folder)], capture_output=True, text=True, env=one_thread() | path, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_the_fake_accelerator_refuses_what_a_gpu_would_wait_for(steps: dict[str, Any]) -> None:
    assert steps["refused"] == {"item": True, "bool": True, "tolist": True, "two devices": True}


def test_operations_on_lists_are_counted_by_pytorchs_rule(steps: dict[str, Any]) -> None:
    """In "other type" three are the conversions."""
    assert steps["lists"] == {
        "list by a number": 1, "list by a scalar": 1, "list by scalars": 3, "list and list": 1, "other strides": 3,
        "other type": 6, "long list": 2,
    }  # fmt: skip


def test_every_case_is_looked_at(steps: dict[str, Any]) -> None:
    assert steps.keys() == {"refused", "lists", "base", *CASES, *CAPTURED}


@pytest.mark.parametrize("case", CASES)
def test_a_step_neither_reads_from_the_device_nor_mixes_devices(case: str, steps: dict[str, Any]) -> None:
    """And it copies nothing to the device but its batch and, together, its numbers."""
    assert steps[case]["error"] is None, steps[case]["error"]
    assert steps[case]["from_host"] == steps[case]["batch_tensors"] + 1


@pytest.mark.parametrize("case", CAPTURED)
def test_what_is_captured_needs_nothing_of_the_host(case: str, steps: dict[str, Any]) -> None:
    assert steps[case]["error"] is None, steps[case]["error"]
    assert steps[case]["backend"] == "graph", "no other backend took over"
    assert steps[case]["from_host"] == 0


@pytest.mark.parametrize("case", [*BOUNDS, *CAPTURED])
def test_a_step_takes_few_operations(case: str, steps: dict[str, Any]) -> None:
    most = (BOUNDS | CAPTURED)[case]
    assert 0.8 * most < steps[case]["launches"] <= most


def test_lamb_launches_as_much_for_many_tensors_as_for_few(steps: dict[str, Any]) -> None:
    """What sharing saves is in the backward pass, which AdamW has too."""
    taken = {case: steps[case]["launches"] for case in BOUNDS}
    lamb, adamw = (taken[f"{name} none plain"] - taken[f"{name} all plain"] for name in ("lamb", "adamw"))
    assert lamb == adamw > 0


@pytest.mark.parametrize("what", BASE_BOUNDS)
def test_a_step_of_base_takes_little(what: str, steps: dict[str, Any]) -> None:
    """Attention itself left out, which is fused on a GPU."""
    assert 0.8 * BASE_BOUNDS[what] < steps["base"][what] <= BASE_BOUNDS[what]


def test_the_residual_stream_has_the_format_of_products_throughout(steps: dict[str, Any]) -> None:
    """CUDA's autocast computes LayerNorm in fp32 and leaves its result there."""
    assert steps["base"]["formats"] == ["torch.bfloat16"]


# --- the clip and LAMB as they are on a GPU -------------------------------------------------------


@pytest.mark.parametrize("limit", [0.1, 1.0, 1e6])
def test_the_clip_factor_on_the_device_is_that_of_plain_numbers(limit: float) -> None:
    draw = torch.Generator().manual_seed(0)
    for size in (1e-3, 1.0, 1e3):
        gradients = [size * torch.randn(shape, generator=draw) for shape in ((30, 7), (11,))]
        norm = torch.nn.utils.get_total_norm(gradients)
        plain = [g.clone() for g in gradients]
        if norm.item() > limit:
            torch._foreach_mul_(plain, limit / (norm.item() + 1e-6))
        clip_gradient(gradients, norm, limit)
        assert equal(gradients, plain)


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> None:
    """LAMB steps tensors together, as on a GPU."""
    monkeypatch.setattr(lamb, "_on_cpu", lambda tensors: False)


@pytest.mark.usefixtures("together")
@pytest.mark.parametrize("correct", [False, True])
@pytest.mark.parametrize("adapt", [False, True])
def test_tensors_stepped_together_equal_the_plain_loop(correct: bool, adapt: bool) -> None:
    draw = torch.Generator().manual_seed(1)
    shapes = [(3, 4), (5,), (3, 4), (2, 2, 2)]
    starts = [torch.randn(shape, generator=draw, dtype=torch.float64) for shape in shapes]
    starts[1].zero_()  # ratio 1
    rounds = [[torch.randn(shape, generator=draw, dtype=torch.float64) for shape in shapes] for _ in range(5)]
    parameters = [nn.Parameter(tensor.clone()) for tensor in starts]
    decay = 0.05 if adapt else 0.0
    groups = [{"params": parameters, "adapt": adapt, "weight_decay": decay}]
    optimizer = Lamb(groups, lr=0.02, bias_correction=correct)
    for gradients in rounds:
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()
    for i, tensor in enumerate(starts):
        gradients = [each[i] for each in rounds]
        wanted = plain_lamb(tensor, gradients, [0.02] * 5, adapt=adapt, decay=decay, correct=correct)
        torch.testing.assert_close(parameters[i].detach(), wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("together")
@pytest.mark.parametrize("correct", [False, True])
def test_tensors_stepped_together_stay_where_the_step_is_refused(correct: bool) -> None:
    parameters = [nn.Parameter(torch.randn(4, 3)), nn.Parameter(torch.randn(4, 3)), nn.Parameter(torch.randn(5))]
    groups = [{"params": parameters[:2]}, {"params": parameters[2:], "adapt": False, "weight_decay": 0.0}]
    optimizer = Lamb(groups, lr=0.1, bias_correction=correct)

    def state() -> list[Tensor]:
        moments = [value.clone() for each in optimizer.state.values() for value in each.values()]
        return [*(p.detach().clone() for p in parameters), *moments]

    optimizer.found_inf = torch.zeros(())
    for value in (1.0, math.nan):
        for parameter in parameters:
            parameter.grad = torch.full_like(parameter, value)
        before = state()
        optimizer.found_inf.fill_(float(value != value))
        optimizer.step()
        assert equal(before, state()) == (value != value)


# --- the plain path ---------------------------------------------------------------------------------


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """The modules as they stand, for which a GPU has no other path where a kind gives none."""

    def loss(
        self: MaskedLMHead, masked: Tensor, word_table: Tensor, targets: Tensor, *, compiled: bool
    ) -> tuple[Tensor, Tensor]:
        logits = self(masked, word_table).float() if masked.dtype != torch.float64 else self(masked, word_table)
        return F.cross_entropy(logits, targets, reduction="sum"), (logits.detach().argmax(-1) == targets).sum()

    with monkeypatch.context() as patched:
        for block in (AttentionBlock, FeedForwardBlock):
            patched.setattr(block, "on_cpu", lambda self, low: None)
        patched.setattr(MaskedLMHead, "loss", loss)
        patched.setattr(lamb, "_on_cpu", lambda tensors: False)
        yield patched


def trained(config: RunConfig, precision: str) -> tuple[list[float], list[Tensor]]:
    """Losses of 20 steps (nats a masked position), and the weights after them."""
    means, weights = twenty_steps(config, precision)
    return [step["mlm_loss"] for step in means], weights


@pytest.mark.parametrize("share", ["all", "none"])
@pytest.mark.parametrize("precision", ["fp64", "bf16"])
@pytest.mark.parametrize("optimizer", ["lamb", "adamw"])
def test_the_plain_path_trains_like_the_one_by_hand(
    cell: Cell, share: str, precision: str, optimizer: str, request: pytest.FixtureRequest
) -> None:
    config = cell(f"share={share}", f"optimizer={optimizer}", "budget.steps=40", "batch.micro_size=3")
    by_hand, weights = trained(config, precision)
    request.getfixturevalue("plain")
    losses, plain_weights = trained(config, precision)
    if precision == "fp64":
        torch.testing.assert_close(plain_weights, weights, rtol=0, atol=1e-9)
    assert losses == pytest.approx(by_hand, rel=1e-6 if precision == "fp64" else 1e-2)
    assert by_hand[-1] < by_hand[0]


@pytest.mark.usefixtures("plain")
def test_the_model_compiles_whole_and_once_for_all_seeds(cell: Cell) -> None:
    config = cell()
    batch = make_batches(config)[0]
    counter = CompileCounterWithBackend("aot_eager")

    def loss(model: nn.Module, batch: list[Tensor]) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = model(*batch)
        return out.mlm_loss_sum + out.sentence_loss_sum

    compiled = torch.compile(loss, fullgraph=True, backend=counter, dynamic=False)
    tensors = list(batch.tensors().values())
    for seed in (0, 1):
        model = build_model(config.architecture(), seed)
        compiled(model, tensors).backward()
        found = gradients_of(model)
        model.zero_grad()
        loss(model, tensors).backward()
        for mine, eager in zip(found, gradients_of(model), strict=True):
            assert (mine - eager).norm() <= 1e-2 * eager.norm()
    assert counter.frame_count == 1


# --- batches ----------------------------------------------------------------------------------------


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The tensors that were pinned; this machine has no memory of that kind."""
    made: list[Tensor] = []

    def pin(self: Tensor, *_: Any) -> Tensor:
        made.append(self.clone())
        return made[-1]

    monkeypatch.setattr(Tensor, "pin_memory", pin)
    return made


def batches_of_both_kinds(config: RunConfig) -> list[Batch | TaskBatch]:
    batch = make_batches(config)[0]
    return [batch, TaskBatch(batch.input_ids, batch.type_ids, batch.mask, batch.labels, 2)]


def test_data_loaders_pin_whole_batches(cell: Cell, pinned: list[Tensor]) -> None:
    for batch in batches_of_both_kinds(cell()):
        pinned.clear()
        moved = pin_memory(batch)
        assert type(moved) is type(batch)
        assert list(map(id, moved.tensors().values())) == list(map(id, pinned))
        assert equal(list(moved.tensors().values()), list(batch.tensors().values()))
        assert {k: v for k, v in vars(moved).items() if not isinstance(v, Tensor)} == {
            k: v for k, v in vars(batch).items() if not isinstance(v, Tensor)
        }


def test_what_goes_to_a_gpu_is_pinned_and_the_device_is_waited_for_only_when_asked(
    cell: Cell, pinned: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, batches = make_trainer(cell("batch.micro_size=3"))
    batch = batches[0]
    device = torch.device("cuda")
    trainer.machine = replace(trainer.machine, device=device)
    trainer.guard = FiniteGuard(LOOK_EVERY)
    waits: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "synchronize", waits.append)
    monkeypatch.setattr(Batch, "to", lambda self, device: self)
    trainer.update(0, batch)
    assert len(pinned) == 3 * len(batch.tensors())
    assert not waits
    trainer.settle()
    assert waits == [device]


def test_a_gpu_is_asked_rarely_and_never_where_spikes_are_looked_for(
    cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nn.Module, "to", lambda self, device: self)

    def guard_of(kind: str, *words: str) -> FiniteGuard:
        config = cell(*words)
        trainer, batches = make_trainer(config)
        assert isinstance(trainer.model, PretrainingModel)
        machine = replace(trainer.machine, device=torch.device(kind))
        return Trainer(
            config, trainer.owner, trainer.model, batches, trainer.folder, machine, dict, trainer.tracker
        ).guard

    assert guard_of("cuda").every == LOOK_EVERY == 64
    assert guard_of("cuda", "optimizer.skip_spikes=6").every == 1
    assert guard_of("cpu").every == 1
