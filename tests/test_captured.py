"""Steps that are captured once and replayed, with a stand-in for CUDA graphs that does the recorded work again."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from runhelpers import (
    equal,
    make_batches,
    make_trainer,
    newest_checkpoint,
    only_folder,
    read_json,
    run,
    start,
    stopped_in,
    timeless,
    tiny_config,
)
from safetensors.torch import load_file
from test_gpu_without_gpu import plain  # noqa: F401  # the modules as they run on a GPU
from torch import Tensor

from albert_ablate.config.schema import RunConfig
from albert_ablate.data.batches import NO_TARGET
from albert_ablate.errors import DivergedError
from albert_ablate.methods.method import Term
from albert_ablate.training import step
from albert_ablate.training.backend import Backend
from albert_ablate.training.captured import CHECKED, WARM_UP
from albert_ablate.training.distributed import World
from albert_ablate.training.guards import LOOK_EVERY, FiniteGuard
from albert_ablate.training.machine import Machine
from albert_ablate.training.optimizers import gradients_of
from albert_ablate.training.trainer import Trainer

Cell = Callable[..., RunConfig]
CPU = torch.device("cpu")
DROPOUT = ("model.hidden_dropout=0.1", "model.attention_dropout=0.1")

pytestmark = pytest.mark.usefixtures("plain")


class StandIn:
    """Does what was captured again in each replay; a real graph does no other work in a capture either."""

    def __init__(self) -> None:
        self.captures = self.replays = self.aside_steps = 0
        self.spoil: Callable[[Tensor], Tensor] = lambda row: row
        self.refuse: Exception | None = None  # a capture

    def aside(self) -> AbstractContextManager[None]:
        self.aside_steps += 1
        return nullcontext()

    def capture(self, work: Callable[[], Tensor]) -> Callable[[], Tensor]:
        self.captures += 1
        if self.refuse is not None:
            raise self.refuse

        def replay() -> Tensor:
            self.replays += 1
            return self.spoil(work())

        return replay


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Corpus and cache of all cells."""
    return tmp_path_factory.mktemp("captured")


@pytest.fixture
def cell(shared: Path, tmp_path: Path) -> Cell:
    return lambda *more, runs="a": tiny_config(shared, *more, f"paths.runs={tmp_path / runs}")


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Trainers on CPU ask for bad steps as on a GPU, capture with a stand-in and compile nothing."""
    made = StandIn()
    monkeypatch.setattr(step, "CudaGraphs", lambda: made)
    monkeypatch.setattr(step, "FiniteGuard", lambda every: FiniteGuard(LOOK_EVERY))
    monkeypatch.setattr(Trainer, "_compiling", lambda self: nullcontext())
    return made


def state_of(trainer: Trainer) -> list[Tensor]:
    """Copies of weights, moments and numbers of steps."""
    moments = [value for state in trainer.optimizer.state.values() for value in state.values()]
    return [tensor.detach().clone() for tensor in (*trainer.model.state_dict().values(), *moments)]


def trained(config: RunConfig, backend: Backend | None, steps: int = 20) -> tuple[Trainer, list[dict[str, float]]]:
    """A trainer after so many steps, and the means and gradient norm of each."""
    trainer, batches = make_trainer(config, backend=backend)
    lines = []
    for number in range(steps):
        batch = batches[number]
        totals = trainer.update(number, batch)
        lines.append(totals.means(batch.counts()) | {"norm": trainer.gradient_norm})
    trainer.settle()
    return trainer, lines


def said(trainer: Trainer) -> str:
    return (trainer.folder.path / "log.txt").read_text() if (trainer.folder.path / "log.txt").exists() else ""


# --- the same training ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ("optimizer=lamb", "share=all"), ("optimizer=lamb", "share=none", "batch.micro_size=3"),
        ("optimizer=adamw", "share=all", "batch.micro_size=3"), ("optimizer=adamw", "objective=none"),
        ("optimizer=lamb", "optimizer.bias_correction=true"), ("optimizer=adamw", "optimizer.bias_correction=false"),
        ("optimizer=lamb", "batch.micro_size=3", *DROPOUT),
    ],
    ids=" ".join,
)  # fmt: skip
def test_replays_train_like_plain_steps(cell: Cell, words: tuple[str, ...], graphs: StandIn) -> None:
    config = cell("budget.steps=40", *words)
    expected, lines = trained(config, None)
    found, replayed = trained(config, Backend.GRAPH)
    assert (graphs.captures, graphs.aside_steps) == (1, WARM_UP)
    assert graphs.replays == 20 - WARM_UP + (0 if DROPOUT[0] in words else CHECKED)
    assert found.backends == ["graph"]
    for mine, wanted in zip(replayed, lines, strict=True):
        assert mine == pytest.approx(wanted, rel=1e-4)
    torch.testing.assert_close(state_of(found), state_of(expected), rtol=1e-3, atol=1e-5)
    assert replayed[-1]["mlm_loss"] < replayed[0]["mlm_loss"]


@pytest.mark.parametrize("optimizer", ["lamb", "adamw"])
def test_replays_read_a_rate_for_each_group(
    cell: Cell, optimizer: str, graphs: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = cell("budget.steps=40", f"optimizer={optimizer}")
    equal_rates = trained(config, None, steps=8)[0]
    monkeypatch.setattr(Trainer, "factors", lambda self, name: (0.25 if ".attention." in name else 1.0,))
    expected, _ = trained(config, None, steps=8)
    found, _ = trained(config, Backend.GRAPH, steps=8)
    assert graphs.captures == 1
    assert sorted(found._numbers.rates) == [0.25, 1.0]
    torch.testing.assert_close(state_of(found), state_of(expected), rtol=1e-3, atol=1e-5)
    both = (equal_rates, found)
    before, after = (t.model.state_dict()["encoder.attention.0.query.weight"] for t in both)
    assert not torch.allclose(before, after, rtol=1e-3, atol=1e-5)


def test_what_a_graph_reads_stays_where_it_is(cell: Cell, graphs: StandIn) -> None:
    trainer, batches = make_trainer(cell("batch.micro_size=3"), backend=Backend.GRAPH)
    places = set()
    for number in range(WARM_UP + 5):
        trainer.update(number, batches[number])
        tensors = [tensor for part in trainer.captured._parts for tensor in part.tensors().values()]
        numbers = [*trainer._numbers.rates.values(), *trainer._numbers.counts.values(), trainer.guard.refused]
        pointers = [tensor.data_ptr() for tensor in (*tensors, *numbers) if isinstance(tensor, Tensor)]
        if number >= WARM_UP:
            places.add(tuple(pointers))
            assert len(pointers) == 3 * 6 + len(batches[number].counts()) + 2
    assert len(places) == 1
    assert graphs.captures == 1


def test_results_of_a_replay_outlive_the_next_one(cell: Cell, graphs: StandIn) -> None:
    """A graph writes into the same memory each time."""
    kept: list[Tensor] = []

    def overwritten(row: Tensor) -> Tensor:
        if not kept:
            kept.append(torch.empty_like(row))
        return kept[0].copy_(row)

    graphs.spoil = overwritten
    trainer, batches = make_trainer(cell(), backend=Backend.GRAPH)
    totals = [trainer.update(number, batches[number]).values for number in range(WARM_UP + 2)]
    before = totals[-2].clone()
    assert not torch.equal(totals[-1], before)
    trainer.update(WARM_UP + 2, batches[WARM_UP + 2])
    assert torch.equal(totals[-2], before)


# --- whole runs -------------------------------------------------------------------------------------


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch, graphs: StandIn) -> StandIn:
    """Cells run as if their CPU were a GPU with graphs."""
    monkeypatch.setattr(Machine, "of", lambda _: Machine(CPU, "fp32", backend=Backend.GRAPH))
    return graphs


def test_a_stopped_run_continues_to_the_same_end(cell: Cell, on_gpu: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Held-out scores between the steps, at step 5 and 10, included."""
    through = run(cell(*DROPOUT, runs="through"))
    assert on_gpu.captures == 1
    config = cell(*DROPOUT, runs="halves")
    stopped_in(7, config, monkeypatch)
    assert start(config) == 0
    assert on_gpu.captures == 3, "one for each start"
    halves = only_folder(config)
    wanted, found = (load_file(newest_checkpoint(folder) / "model.safetensors") for folder in (through, halves))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
    lines = [timeless(folder.metrics()) for folder in (through, halves)]
    for mine, expected in zip(lines[1], lines[0], strict=True):
        assert mine == pytest.approx(expected, rel=1e-3)
    results, meta = halves.read("results.json"), read_json(newest_checkpoint(halves) / "meta.json")
    assert results["training"]["backends"] == meta["backends"] == ["graph"]
    assert halves.read("manifest.json")["backend"] == "graph"


def test_a_run_says_where_it_continues_with_another_backend(
    cell: Cell, on_gpu: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = cell()
    stopped_in(7, config, monkeypatch)
    monkeypatch.setattr(Machine, "of", lambda _: Machine(CPU, "fp32", backend=Backend.EAGER))
    assert start(config) == 0
    folder = only_folder(config)
    assert folder.read("results.json")["training"]["backends"] == ["graph", "eager"]
    assert "begun with runtime.backend=graph, continues with eager:" in (folder.path / "log.txt").read_text()


def test_records_of_a_cpu_name_no_backend(cell: Cell) -> None:
    folder = run(cell())
    assert "backend" not in folder.read("manifest.json")
    assert "backends" not in folder.read("results.json")["training"]
    assert "backends" not in read_json(newest_checkpoint(folder) / "meta.json")


# --- what goes wrong --------------------------------------------------------------------------------


def changed_terms(monkeypatch: pytest.MonkeyPatch, change: Callable[[Trainer, Any, int], float]) -> None:
    """Losses are multiplied by ``change(trainer, micro-batch, number of the step)``."""
    real, update = Trainer.terms, Trainer.update
    now = [-1]

    def counted(self: Trainer, number: int, *rest: Any) -> Any:
        now[0] = number
        return update(self, number, *rest)

    def terms(self: Trainer, part: Any) -> tuple[Term, ...]:
        factor = change(self, part, now[0])
        return tuple(replace(term, loss_sum=term.loss_sum * factor) for term in real(self, part))

    monkeypatch.setattr(Trainer, "update", counted)
    monkeypatch.setattr(Trainer, "terms", terms)


@pytest.mark.parametrize("optimizer", ["lamb", "adamw"])
@pytest.mark.parametrize("bad", [WARM_UP - 1, WARM_UP, WARM_UP + 1, WARM_UP + CHECKED + 2])
def test_a_bad_step_changes_nothing_and_is_named(
    cell: Cell, bad: int, optimizer: str, graphs: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed_terms(monkeypatch, lambda trainer, part, number: math.nan if number == bad else 1.0)
    config = cell(f"optimizer={optimizer}")
    trainer, batches = make_trainer(config, backend=Backend.GRAPH)
    for number in range(bad):
        trainer.update(number, batches[number])
    before = state_of(trainer)
    for number in range(bad, bad + 4):
        trainer.update(number, batches[number])
    assert equal(state_of(trainer), before)
    with pytest.raises(DivergedError, match=f"not finite at step {bad + 1}:"):
        trainer.settle()
    kept = load_file(trainer.folder.path / "diverged" / f"step_{bad + 1:08d}" / "batch.safetensors")
    wanted = make_batches(config)[bad].tensors()
    assert equal([kept[name] for name in wanted], list(wanted.values()))


def test_a_bad_step_is_noticed_in_time(cell: Cell, graphs: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    changed_terms(monkeypatch, lambda trainer, part, number: math.inf if number == 9 else 1.0)
    trainer, batches = make_trainer(cell(), backend=Backend.GRAPH)
    trainer.guard = FiniteGuard(4)
    for number in range(11):
        trainer.update(number, batches[number])
    with pytest.raises(DivergedError, match="not finite at step 10:"):
        trainer.update(11, batches[11])
    assert graphs.captures == 1


def test_smaller_micro_batches_are_captured_anew(cell: Cell, graphs: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    config = cell("runtime.oom_halving=true")
    expected, _ = trained(config, None, 12)

    def exhausted(trainer: Trainer, part: Any, number: int) -> float:
        if number == WARM_UP + CHECKED + 1 and len(part) > 4:
            raise RuntimeError("CUDA error: out of memory")
        return 1.0

    changed_terms(monkeypatch, exhausted)
    trainer, _ = trained(config, Backend.GRAPH, 12)
    assert trainer.micro_size == 4
    assert graphs.captures == 2
    assert trainer.backends == ["graph"]
    assert f"out of memory at step {WARM_UP + CHECKED + 2}: micro-batches of 4 from now on" in said(trainer)
    torch.testing.assert_close(state_of(trainer), state_of(expected), rtol=1e-3, atol=1e-5)


def test_where_capturing_fails_compiled_steps_go_on(cell: Cell, graphs: StandIn) -> None:
    config = cell()
    expected, _ = trained(config, Backend.EAGER, 8)
    graphs.refuse = RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")
    trainer, _ = trained(config, Backend.GRAPH, 8)
    assert trainer.backends == ["graph", "compiled"]
    words = "runtime.backend=compiled from now on instead of graph: the step cannot be captured: RuntimeError: CUDA "
    assert words + "error: operation not permitted when stream is capturing\n" in said(trainer)
    assert graphs.captures == 1
    assert equal(state_of(trainer), state_of(expected))


@pytest.mark.parametrize("at", range(CHECKED + 1))
def test_replays_that_differ_from_the_step_are_not_used(cell: Cell, at: int, graphs: StandIn) -> None:
    """A graph that reads what is no longer there: the first replays are compared before any of them counts."""
    config = cell()
    expected, _ = trained(config, Backend.EAGER, 10)
    graphs.spoil = lambda row: row * (1.05 if graphs.replays == 2 * at + 1 else 1.0)  # each is preceded by its check
    trainer, _ = trained(config, Backend.GRAPH, 10)
    if at < CHECKED:
        assert trainer.backends == ["graph", "compiled"]
        assert "cannot be captured: ReplayError: a replay gave a sum of" in said(trainer)
        torch.testing.assert_close(state_of(trainer), state_of(expected), rtol=1e-5, atol=1e-7)
    else:
        assert trainer.backends == ["graph"]


def test_other_shapes_than_captured_are_not_replayed(cell: Cell, graphs: StandIn) -> None:
    trainer, batches = make_trainer(cell(), backend=Backend.GRAPH)
    for number in range(WARM_UP + 1):
        trainer.update(number, batches[number])
    trainer.shaped = lambda part: part  # type: ignore[method-assign]
    most = len(batches.shaped(batches[0]).positions)
    number = next(number for number in range(5, 99) if len(batches[number].positions) < most)
    trainer.update(number, batches[number])
    assert trainer.backends == ["graph", "compiled"]
    assert "ReplayError: positions is (" in said(trainer)


@pytest.mark.parametrize(
    ("words", "world", "static", "reason"),
    [
        ("", World(0, 2), True, "several processes share the run"),
        ("optimizer.skip_spikes=6", World(0, 1), True, "optimizer.skip_spikes is decided on the host"),
        ("runtime.activation_checkpointing=true", World(0, 1), True, "runtime.activation_checkpointing sets random"),
        ("", World(0, 1), False, "batches vary in shape"),
    ],
)  # fmt: skip
def test_what_cannot_be_captured_is_compiled_and_says_why(
    cell: Cell, words: str, world: World, static: bool, reason: str, graphs: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(World, "sum_tensor", lambda self, tensor: tensor)
    monkeypatch.setattr(World, "sum_gradients", lambda self, model: None)
    trainer, batches = make_trainer(cell(*filter(None, [words])), backend=Backend.GRAPH)
    trainer.machine = replace(trainer.machine, world=world)
    batches.static_shapes = static
    for number in range(WARM_UP + 2):
        trainer.update(number, batches[number])
    assert trainer.backends == ["graph", "compiled"]
    assert said(trainer).count(f"runtime.backend=compiled from now on instead of graph: {reason}") == 1
    assert (graphs.captures, graphs.aside_steps) == (0, 0)


def test_what_does_not_compile_is_computed_eagerly(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing but training is ever compiled."""
    asked: list[bool] = []

    def uncompiled(trainer: Trainer, part: Any, number: int) -> float:
        asked.append(trainer.encoders[0].compiled)
        if trainer.encoders[0].compiled and number == 2:
            raise TypeError("no C++ compiler\nat all")
        return 1.0

    config = cell()
    expected, _ = trained(config, Backend.EAGER, 4)
    changed_terms(monkeypatch, uncompiled)
    trainer, _ = trained(config, Backend.COMPILED, 4)
    assert asked == [True, True, True, False, False]
    assert not trainer.encoders[0].compiled
    assert trainer.backends == ["compiled", "eager"]
    words = "runtime.backend=eager from now on instead of compiled: the model does not compile: TypeError: no C++ "
    assert words + "compiler\n" in said(trainer)
    torch.testing.assert_close(state_of(trainer), state_of(expected), rtol=1e-4, atol=1e-6)


def test_an_error_of_an_eager_step_is_raised(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(trainer: Trainer, part: Any, number: int) -> float:
        raise TypeError("wrong")

    changed_terms(monkeypatch, broken)
    for backend in (None, Backend.EAGER):
        trainer, batches = make_trainer(cell(), backend=backend)
        with pytest.raises(TypeError, match="wrong"):
            trainer.update(0, batches[0])
        assert "runtime.backend" not in said(trainer)


# --- batches of one shape ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    ["seed=0", "masking.max_predictions=3", "masking.probability=0.5", "masking.probability=0.99", "objective=none"],
)
def test_positions_that_fill_up_change_nothing(cell: Cell, words: str) -> None:
    config = cell(words)
    trainer, batches = make_trainer(config)
    shapes = set()
    for number in range(12):
        batch = batches[number]
        counts = batch.counts()
        shaped = batches.shaped(batch)
        added = shaped.positions[len(batch.positions) :]
        assert (shaped.targets[len(batch.targets) :] == NO_TARGET).all()
        shapes.add(shaped.positions.shape)
        if words != "masking.probability=0.99":  # there are not enough
            assert len(set(shaped.positions.tolist())) == len(shaped.positions)
            assert (added % 32 != 0).all(), "[CLS] is read by the sentence loss"
        found = []
        for each in (batch, shaped):
            totals = trainer._backward([each], counts)
            found.append([totals.values, *(gradient.clone() for gradient in gradients_of(trainer.model))])
        torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-7)
    assert len(shapes) == 1
