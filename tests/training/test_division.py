"""Any division of a batch into micro-batches gives the same gradient, clipped as a whole."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from runhelpers import (
    make_batches,
    make_trainer,
    run,
)
from torch import Tensor

from albert_ablate.axes import Objective
from albert_ablate.config.schema import RunConfig
from albert_ablate.model.pretraining import build_model

OBJECTIVES = [o.value for o in Objective]


def test_micro_batches_train_like_the_whole_batch(cell: Callable[..., RunConfig]) -> None:
    same = ("pairs.short_probability=0.6", "budget.warmup_steps=1", "runtime.log_every=1", "optimizer.clip_norm=null")
    whole = run(cell(*same, "batch.micro_size=8", runs="whole"))
    parts = run(cell(*same, "batch.micro_size=3", runs="parts"))  # 3 + 3 + 2
    assert whole.name == parts.name
    keys = ("mlm_loss", "sentence_loss", "gradient_norm")
    for a, b in zip(whole.metrics(), parts.metrics(), strict=True):
        for key in keys:
            assert b[key] == pytest.approx(a[key], abs=1e-5, rel=1e-5), (a["step"], key)
    assert whole.metrics()[-1]["mlm_loss"] != whole.metrics()[0]["mlm_loss"]


def uneven_batch(config: RunConfig) -> Any:
    """A batch whose micro-batches hold different numbers of masked positions."""
    batches = make_batches(config)
    for step in range(20):
        counts = {len(part.targets) for part in batches[step].micro(config.batch.micro_size)}
        if len(counts) > 1 or config.batch.micro_size == config.batch.size:
            return batches[step]
    raise AssertionError("every micro-batch has as many masks")


@pytest.mark.parametrize("micro", [8, 4, 2, 1])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_gradient_is_that_of_the_masked_mean_plus_the_sentence_mean(
    cell: Callable[..., RunConfig], micro: int, objective: str
) -> None:
    config = cell(
        f"batch.micro_size={micro}", f"objective={objective}", "pairs.short_probability=0.6", "optimizer.clip_norm=null"
    )
    batch = uneven_batch(config)
    plain = build_model(config.architecture(), config.seed)
    labels = None if objective == "none" else batch.labels
    out = plain(batch.input_ids, batch.type_ids, batch.mask, batch.positions, batch.targets, labels)
    loss = out.mlm_loss_sum / (len(batch.targets) + 1e-5)
    if out.sentence_loss_sum is not None:
        loss = loss + out.sentence_loss_sum / len(batch)
    loss.backward()
    wanted = {name: p.grad for name, p in plain.named_parameters()}
    norm = torch.stack([g.norm() for g in wanted.values() if g is not None]).norm().item()
    trainer, _ = make_trainer(config)
    trainer.optimizer.step = lambda *_: None  # type: ignore[assignment,method-assign]
    totals = trainer.update(5, batch)
    for name, parameter in trainer.model.named_parameters():
        if wanted[name] is None:
            assert parameter.grad is None, name
        else:
            torch.testing.assert_close(parameter.grad, wanted[name], rtol=1e-4, atol=2e-6, msg=name)
    assert trainer.gradient_norm == pytest.approx(norm, rel=1e-4)
    assert totals["mlm_loss"].item() == pytest.approx(out.mlm_loss_sum.item(), rel=1e-5)


@pytest.mark.parametrize("micro", [8, 2])
def test_clip_acts_once_on_the_accumulated_gradient(
    cell: Callable[..., RunConfig], micro: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = cell(f"batch.micro_size={micro}", "optimizer.clip_norm=0.01")
    free, batches = make_trainer(replace(config, optimizer=replace(config.optimizer, clip_norm=None)))
    clipped, _ = make_trainer(config)
    calls = []
    real = torch.nn.utils.get_total_norm

    def counted(*args: Any, **options: Any) -> Tensor:
        calls.append(1)
        return real(*args, **options)

    monkeypatch.setattr(torch.nn.utils, "get_total_norm", counted)
    seen: list[dict[str, Tensor]] = []
    for trainer in (free, clipped):
        trainer.optimizer.step = lambda t=trainer: seen.append(  # type: ignore[assignment,method-assign]
            {n: p.grad.clone() for n, p in t.model.named_parameters() if p.grad is not None}
        )
        trainer.update(3, batches[3])
    assert len(calls) == 2  # once a step
    raw, cut = seen
    norm = torch.stack([g.norm() for g in raw.values()]).norm().item()
    assert norm > 0.02
    assert clipped.gradient_norm == pytest.approx(norm, rel=1e-4)  # what is logged is the norm before the clip
    assert torch.stack([g.norm() for g in cut.values()]).norm().item() == pytest.approx(0.01, rel=1e-3)
    for name, gradient in raw.items():
        torch.testing.assert_close(cut[name], gradient * (0.01 / norm), rtol=1e-3, atol=1e-8, msg=name)


def test_gradient_below_the_clip_is_untouched(cell: Callable[..., RunConfig]) -> None:
    results = []
    for clip in ("null", "1e6"):
        trainer, batches = make_trainer(cell(f"optimizer.clip_norm={clip}"))
        trainer.update(3, batches[3])
        results.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))
    assert torch.equal(*results)


def test_the_first_update_has_rate_zero_and_moves_nothing(cell: Callable[..., RunConfig]) -> None:
    config = cell()
    trainer, batches = make_trainer(config)
    start_weights = [p.detach().clone() for p in trainer.model.parameters()]
    trainer.update(0, batches[0])
    assert all(torch.equal(a, b) for a, b in zip(start_weights, trainer.model.parameters(), strict=True))
    trainer.update(1, batches[1])
    assert not all(torch.equal(a, b) for a, b in zip(start_weights, trainer.model.parameters(), strict=True))


def test_dropout_is_drawn_from_the_seed_and_the_step(cell: Callable[..., RunConfig]) -> None:
    def after(seed: int, noise: int) -> Tensor:
        config = cell("model.hidden_dropout=0.5", "model.attention_dropout=0.5", f"seed={seed}")
        trainer, _ = make_trainer(config, build_model(config.architecture(), 0))
        torch.manual_seed(noise)
        trainer.update(3, make_batches(cell())[3])
        return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])

    assert torch.equal(after(0, 1), after(0, 2))
    assert not torch.equal(after(0, 1), after(1, 1))


@pytest.mark.parametrize("optimizer", ["lamb", "adamw"])
def test_a_batch_seen_again_and_again_is_learnt_by_heart(cell: Callable[..., RunConfig], optimizer: str) -> None:
    config = cell(
        f"optimizer={optimizer}", "optimizer.learning_rate=0.02", "budget.steps=160", "budget.warmup_steps=10",
        "embed.size=32", "model.initializer_range=0.1",
    )  # fmt: skip
    trainer, batches = make_trainer(config)
    batch = batches[0]
    means = [trainer.update(step, batch).means(batch.counts()) for step in range(160)]
    assert means[0]["mlm_loss"] > 4.0
    assert means[-1]["mlm_loss"] < 0.1
    assert means[-1]["mlm_accuracy"] == 1  # every masked piece is right
    assert means[-1]["sentence_loss"] < 0.1
    assert means[-1]["sentence_accuracy"] == 1
