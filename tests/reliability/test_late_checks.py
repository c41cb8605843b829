"""Bad steps that a GPU keeps to itself until the host asks, shown on CPU."""

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from finetunehelpers import tuner
from runhelpers import (
    equal,
    make_batches,
    make_trainer,
    newest_checkpoint,
    only_folder,
    read_json,
    run,
    start,
    status_of,
    timeless,
    weights_of,
)
from safetensors.torch import load_file
from taskhelpers import pretrained, write_sst2
from torch import Tensor

from albert_ablate.config.schema import RunConfig
from albert_ablate.data.prepare import prepare
from albert_ablate.errors import DivergedError
from albert_ablate.training import loop, step
from albert_ablate.training.guards import LOOK_EVERY, FiniteGuard
from albert_ablate.training.loop import Loop
from albert_ablate.training.optimizers import learning_rate
from albert_ablate.training.sums import Totals
from albert_ablate.training.trainer import Trainer

Cell = Callable[..., RunConfig]


def state_of(trainer: Any) -> list[Tensor]:
    """Copies of weights, moments and numbers of steps."""
    moments = [value for state in trainer.optimizer.state.values() for value in state.values()]
    return [tensor.detach().clone() for tensor in (*trainer.model.state_dict().values(), *moments)]


def broken_at(bad: int, where: str, value: float, monkeypatch: pytest.MonkeyPatch, kind: type[Loop] = Trainer) -> None:
    """The loss or the gradient of step ``bad``, counted from 0, is ``value``."""
    real, update = kind._accumulate, kind.update
    now = [-1]

    def counted(self: Any, number: int, *rest: Any) -> Any:
        now[0] = number
        return update(self, number, *rest)

    def broken(self: Any, *args: Any) -> Totals:
        totals = real(self, *args)
        if now[0] == bad and where == "loss":
            return Totals(totals.per, totals.values * value)
        if now[0] == bad:
            next(p.grad for p in self.model.parameters() if p.grad is not None).view(-1)[3] = value
        return totals

    monkeypatch.setattr(kind, "update", counted)
    monkeypatch.setattr(kind, "_accumulate", broken)


OPTIMIZERS = {
    "lamb": ("optimizer=lamb",),
    "corrected lamb": ("optimizer=lamb", "optimizer.bias_correction=true"),
    "adamw": ("optimizer=adamw",),
    "adamw without correction": ("optimizer=adamw", "optimizer.bias_correction=false"),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(("where", "value"), [("loss", math.nan), ("gradient", math.inf), ("gradient", math.nan)])
def test_a_bad_step_changes_nothing_and_is_named_later(
    cell: Cell, optimizer: str, where: str, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = cell(*OPTIMIZERS[optimizer])
    expected, _ = make_trainer(config)
    trainer, batches = make_trainer(config)
    trainer.guard = FiniteGuard(LOOK_EVERY)
    for number in range(4):
        expected.update(number, batches[number])
    broken_at(4, where, value, monkeypatch)
    for number in range(8):
        trainer.update(number, batches[number])
    with pytest.raises(DivergedError, match=f"The {where} is not finite at step 5:") as caught:
        trainer.settle()
    assert equal(state_of(trainer), state_of(expected))
    kept = trainer.folder.path / "diverged" / "step_00000005"
    assert str(kept) in str(caught.value)
    assert equal(_sorted(load_file(kept / "batch.safetensors")), _sorted(batches[4].tensors()))
    assert [path.name for path in kept.parent.iterdir()] == [kept.name]
    numbers = read_json(kept / "step.json")
    assert numbers["step"] == 5
    assert numbers["learning_rate"] == pytest.approx(learning_rate_of(expected, 4))


def learning_rate_of(trainer: Trainer, number: int) -> float:
    return learning_rate(number, trainer.settings, trainer.schedule)


def _sorted(tensors: dict[str, Tensor]) -> list[Tensor]:
    return [tensors[name] for name in sorted(tensors)]


def test_it_is_looked_for_at_the_latest_after_so_many_steps(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, batches = make_trainer(cell())
    trainer.guard = FiniteGuard(4)
    broken_at(5, "loss", math.nan, monkeypatch)
    for number in range(7):
        trainer.update(number, batches[number])
    with pytest.raises(DivergedError, match="not finite at step 6:"):
        trainer.update(7, batches[7])


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainers look for bad steps as they do on a GPU."""
    monkeypatch.setattr(step, "FiniteGuard", lambda every: FiniteGuard(LOOK_EVERY))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_run_without_a_bad_step_has_the_same_bits(
    cell: Cell, optimizer: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    words = (*OPTIMIZERS[optimizer], "optimizer.clip_norm=2.2", "runtime.log_every=1")
    at_once = run(cell(*words, f"paths.runs={tmp_path / 'at-once'}"))
    norms = [line["gradient_norm"] for line in at_once.metrics()]
    assert min(norms) < 2.2 < max(norms), "some steps are clipped, some are not"
    request.getfixturevalue("later")
    looked_at_later = run(cell(*words, f"paths.runs={tmp_path / 'later'}"))
    assert weights_of(looked_at_later) == weights_of(at_once)
    assert timeless(looked_at_later.metrics()) == timeless(at_once.metrics())


@pytest.mark.usefixtures("later")
def test_a_bad_step_is_neither_logged_nor_saved(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    broken_at(5, "loss", math.nan, monkeypatch)
    config = cell("runtime.log_every=4", "runtime.checkpoint_every=4", "evaluation.curve_every=1000")
    with pytest.raises(DivergedError, match="not finite at step 6:"):
        start(config)
    folder = only_folder(config)
    assert status_of(folder)["state"] == "diverged"
    assert newest_checkpoint(folder).name == "step_00000004"
    assert [line["step"] for line in folder.metrics()] == [4]
    kept = load_file(folder.path / "diverged" / "step_00000006" / "batch.safetensors")
    expected = make_batches(prepare(config).settled(config))[5].tensors()
    assert kept.keys() == expected.keys()
    assert equal(_sorted(kept), _sorted(expected))


def test_a_log_line_has_the_time_of_the_finished_work(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps are handed out in no time; the device needs a second for each, and is waited for where a line is made."""
    now, queued = [0.0], [0]
    update = Trainer.update

    def handed_out(self: Trainer, *args: Any) -> Any:
        queued[0] += 1
        return update(self, *args)

    def waited(self: Trainer) -> None:
        now[0] += queued[0]
        queued[0] = 0

    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(Trainer, "update", handed_out)
    monkeypatch.setattr(Trainer, "settle", waited)
    folder = run(cell("runtime.log_every=3", "evaluation.curve_every=1000", "runtime.checkpoint_every=1000"))
    assert [line["seconds"] for line in folder.metrics()] == [3, 6, 9, 12]
    assert folder.read("results.json")["training"]["seconds"] == 12


def test_a_fine_tuning_names_it_later_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretrained(tmp_path)
    write_sst2(tmp_path / "data")
    expected, unit = (tuner(tmp_path, "sst2", tmp_path / name) for name in ("expected", "unit"))
    unit.guard = FiniteGuard(LOOK_EVERY)
    for number in range(2):
        expected.update(number, expected.batches[number])
    broken_at(2, "loss", math.nan, monkeypatch, type(unit))
    for number in range(5):
        unit.update(number, unit.batches[number])
    with pytest.raises(DivergedError, match="sst2: the loss is not finite at step 3 "):
        unit.settle()
    assert equal(state_of(unit), state_of(expected))
    kept = load_file(unit.folder.path / "diverged" / "step_00000003" / "batch.safetensors")
    assert equal(_sorted(kept), _sorted(unit.batches[2].tensors()))
