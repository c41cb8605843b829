"""What keeps one bad step, or too little memory, from spoiling a run."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from outcomes import shown
from runhelpers import make_trainer, only_folder, run, start, status_of, stopped_in, tiny_config, weights_of

from albert_ablate.config.schema import RunConfig
from albert_ablate.errors import DivergedError, MemoryExhaustedError
from albert_ablate.files import read_json
from albert_ablate.model.pretraining import PretrainingModel, build_model
from albert_ablate.training.guards import Spikes
from albert_ablate.training.sums import Totals
from albert_ablate.training.trainer import Trainer

Cell = Callable[..., RunConfig]


# --- spikes ---------------------------------------------------------------------------------------


def test_a_step_far_above_those_before_is_a_spike() -> None:
    spikes = Spikes(6)
    draw = torch.Generator().manual_seed(0)
    for _ in range(200):
        loss, norm = 5 + 0.1 * torch.randn((), generator=draw), 1 + 0.1 * torch.rand((), generator=draw).item()
        assert not spikes.seen(loss, norm)
    assert spikes.seen(torch.tensor(5.9), 1.0)
    assert spikes.seen(torch.tensor(5.0), 2.0)
    assert not spikes.seen(torch.tensor(5.1), 1.05)
    assert not spikes.seen(torch.tensor(1.0), 0.1), "below is no spike"


def test_too_few_steps_to_judge_and_no_limit_let_everything_pass() -> None:
    young = Spikes(6)
    assert not any(young.seen(torch.tensor(float(10**i)), 1.0) for i in range(20))
    off = Spikes(None)
    assert not any(off.seen(torch.tensor(1.0 + 1e9 * (i == 150)), 1.0) for i in range(200))


def test_what_is_remembered_survives_a_checkpoint() -> None:
    whole, part = Spikes(6), Spikes(6)
    for i in range(60):
        whole.seen(torch.tensor(float(i % 7)), 1.0)
    for i in range(40):
        part.seen(torch.tensor(float(i % 7)), 1.0)
    again = Spikes(6, part.as_dict())
    for i in range(40, 60):
        again.seen(torch.tensor(float(i % 7)), 1.0)
    assert again.as_dict() == whole.as_dict()


def spiked(trainer: Trainer, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    real = PretrainingModel.forward
    step = {"now": -1}
    update = Trainer.update

    def counted(self: Trainer, number: int, *rest: Any) -> Any:
        step["now"] = number
        return update(self, number, *rest)

    def forward(self: PretrainingModel, *args: Any) -> Any:
        out = real(self, *args)
        if step["now"] == at:
            object.__setattr__(out, "mlm_loss_sum", out.mlm_loss_sum * 1000)
        return out

    monkeypatch.setattr(Trainer, "update", counted)
    monkeypatch.setattr(PretrainingModel, "forward", forward)


def test_a_spike_is_left_out_and_counted(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    config = cell("optimizer.skip_spikes=6", "budget.steps=50")
    trainer, batches = make_trainer(config)
    spiked(trainer, monkeypatch, at=45)
    for step in range(46):
        before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
        trainer.update(step, batches[step])
    assert trainer.skipped == 1
    assert all(torch.equal(before[name], tensor) for name, tensor in trainer.model.state_dict().items())


def test_without_a_spike_every_step_counts(cell: Cell) -> None:
    folder = run(cell("optimizer.skip_spikes=6", "budget.steps=50"))
    assert folder.read("results.json")["training"]["skipped_steps"] == 0
    assert all(line["skipped_steps"] == 0 for line in folder.metrics())


def test_skipping_is_another_run_and_not_skipping_the_same_as_ever(cell: Cell) -> None:
    from albert_ablate.config.identity import identity

    plain, guarded = cell(), cell("optimizer.skip_spikes=6")
    assert identity(plain, "store", "fp32") != identity(guarded, "store", "fp32")
    assert "skip_spikes" not in str(sorted(_ingredients(plain)))


def _ingredients(config: RunConfig) -> list[str]:
    from albert_ablate.config.identity import ingredients

    return list(ingredients(config, "store", "fp32")["optimizer"])


def test_stopped_between_spikes_the_run_ends_with_the_same_bits(
    cell: Cell, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("optimizer.skip_spikes=1.0", "budget.steps=80", "runtime.checkpoint_every=1000")  # so low that many are
    whole = run(tiny_config(shared, *words, f"paths.runs={tmp_path / 'whole'}"))
    config = cell(*words)
    stopped_in(50, config, monkeypatch)
    folder = run(config)
    assert weights_of(folder) == weights_of(whole)
    skipped = folder.read("results.json")["training"]["skipped_steps"]
    shown("spike of the loss", "training", "with skip_spikes: left out, counted")
    assert skipped == whole.read("results.json")["training"]["skipped_steps"] > 3


# --- numbers that are not finite ------------------------------------------------------------------


@pytest.mark.parametrize("where", ["loss", "gradient"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_bad_step_is_seen_before_the_update(
    cell: Cell, where: str, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On every step, not on logged ones alone."""
    config = cell("runtime.log_every=1000", "evaluation.curve_every=1000")
    trainer, batches = make_trainer(config)
    trainer.update(0, batches[0])
    trainer.update(1, batches[1])
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    moments = [v.clone() for s in trainer.optimizer.state.values() for v in s.values() if isinstance(v, torch.Tensor)]
    real = Trainer._accumulate

    def broken(self: Trainer, *args: Any) -> Any:
        totals = real(self, *args)
        if where == "loss":
            return Totals(totals.per, totals.values * value)
        next(p for p in self.model.parameters() if p.grad is not None).grad.view(-1)[3] = value  # type: ignore[union-attr]
        return totals

    monkeypatch.setattr(Trainer, "_accumulate", broken)
    with pytest.raises(DivergedError, match=f"The {where} is not finite at step 3"):
        trainer.update(2, batches[2])
    assert all(torch.equal(before[name], tensor) for name, tensor in trainer.model.state_dict().items())
    after = [v for s in trainer.optimizer.state.values() for v in s.values() if isinstance(v, torch.Tensor)]
    assert all(torch.equal(a, b) for a, b in zip(moments, after, strict=True))
    shown("loss or gradient not finite", "training", "no update; batch kept; diverged, exit 3")


# --- memory ---------------------------------------------------------------------------------------


def exhausted_above(sequences: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Micro-batches of more than ``sequences`` do not fit."""
    real = PretrainingModel.forward

    def forward(self: PretrainingModel, ids: torch.Tensor, *rest: Any) -> Any:
        if self.training and len(ids) > sequences:
            torch.empty(10**15)  # refused by the allocator
        return real(self, ids, *rest)

    monkeypatch.setattr(PretrainingModel, "forward", forward)


def test_out_of_memory_names_what_to_lower(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    exhausted_above(4, monkeypatch)
    with pytest.raises(MemoryExhaustedError) as caught:
        start(cell())
    for word in ("batch.micro_size=8", "pairs.max_length=32", "runtime.oom_halving=true"):
        assert word in str(caught.value)
    shown("out of memory", "training", "names what to lower, exit 1")


def test_micro_batches_are_halved_where_that_is_allowed(
    cell: Cell, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run ends as one that had these micro-batches from the start, and says so."""
    small = run(tiny_config(shared, "batch.micro_size=2", f"paths.runs={tmp_path / 'small'}"))
    exhausted_above(3, monkeypatch)
    folder = run(cell("runtime.oom_halving=true"))
    assert folder.read("results.json")["training"]["micro_size"] == 2
    log = (folder.path / "log.txt").read_text()
    assert "out of memory at step 1: micro-batches of 4" in log
    assert "out of memory at step 1: micro-batches of 2" in log
    assert weights_of(folder) == weights_of(small)
    shown("out of memory", "training", "with oom_halving: goes on, recorded")


def test_a_stopped_run_goes_on_with_the_micro_batches_it_had(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    exhausted_above(3, monkeypatch)
    config = cell("runtime.oom_halving=true")
    stopped_in(6, config, monkeypatch)
    folder = run(config)
    assert (folder.path / "log.txt").read_text().count("micro-batches of 2 from now on") == 1
    assert read_json(folder.path / "results.json")["training"]["micro_size"] == 2


# --- recomputed activations -----------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("share", ["all", "attention", "ffn", "none"])
def test_recomputed_activations_change_no_bit(cell: Cell, share: str, precision: str) -> None:
    """Shared blocks and dropout included: the noise of a layer is drawn again as it was."""
    words = (f"share={share}", "model.hidden_dropout=0.1", "model.attention_dropout=0.1")
    found = []
    for more in ("false", "true"):
        config = cell(*words, f"runtime.activation_checkpointing={more}", f"runtime.precision={precision}")
        trainer, batches = make_trainer(config, build_model(config.architecture(), 3), precision)
        losses = [trainer.update(step, batches[step]).values for step in range(4)]
        found.append([*losses, *trainer.model.state_dict().values()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_a_diverged_cell_is_a_failure_of_its_own(cell: Cell) -> None:
    config = cell("optimizer.learning_rate=1e30", "optimizer.clip_norm=null")
    with pytest.raises(DivergedError):
        start(config)
    folder = only_folder(config)
    assert status_of(folder)["state"] == "diverged"
    assert status_of(folder)["exit_code"] == 3
