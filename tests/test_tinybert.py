"""TinyBERT's step: networks, losses and gradients against closed forms, and what is refused."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from runhelpers import make_batches, make_trainer, newest_checkpoint, run, tiny_config
from torch import Tensor, nn
from torch.nn import functional as F

from albert_ablate.config.schema import RunConfig
from albert_ablate.data.batches import Batch
from albert_ablate.data.tokenizer import MASK
from albert_ablate.errors import ConfigError
from albert_ablate.methods import method_of
from albert_ablate.methods.method import Term
from albert_ablate.model.attention import PATTERNS
from albert_ablate.model.generator import original_ids
from albert_ablate.model.imitation import observe
from albert_ablate.model.student import StudentModel
from albert_ablate.record.folder import RunFolder
from albert_ablate.training.accumulate import _loss

Configured = Callable[..., RunConfig]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tinybert")


@pytest.fixture(scope="module")
def config_of(shared: Path) -> Configured:
    """A tiny student of two layers; its teacher has four."""

    @cache
    def make(*more: str) -> RunConfig:
        return tiny_config(shared, "method=tinybert", *more)

    return make


@pytest.fixture(scope="module")
def teacher(shared: Path) -> Path:
    """A finished run of masked LM, of four layers, twice as wide as the student, with four heads."""
    return run(tiny_config(shared, "model.layers=4", "model.hidden=64", "model.heads=4", runs="teacher")).path


def prepared(config: RunConfig, step: int = 0) -> tuple[Any, Any, Batch]:
    """Method, model with a random teacher in evaluation mode, and a batch."""
    method = method_of(config)
    return method, method.rehearsal().eval(), make_batches(config)[step]


def means(terms: tuple[Term, ...], batch: Batch) -> dict[str, float]:
    counts = batch.counts()
    return {term.name: float(term.loss_sum.detach()) / counts[term.per] for term in terms}


def gradients(config: RunConfig, micro: int) -> dict[str, Tensor]:
    """Name -> gradient of a step, in fp64."""
    method, model, batch = prepared(config)
    model.double()
    for part in batch.micro(micro):
        _loss(method.terms(model, part), batch.counts()).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


# --- networks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", ["all", "none"])
@pytest.mark.parametrize("projections", ["paper", "shared", "per_layer"])
@pytest.mark.parametrize("more", [(), ("method.hidden_weight=0",), ("objective=none", "method.pooler=trained")])
def test_counted_parameters_are_those_of_the_model(
    config_of: Configured, share: str, projections: str, more: tuple[str, ...]
) -> None:
    config = config_of(f"share={share}", f"method.projections={projections}", "method.teacher_width=2", *more)
    method = method_of(config)
    assert sum(p.numel() for p in method.rehearsal().parameters()) == method.parameters().with_heads


def test_the_student_begins_as_masked_lm_of_its_seed(config_of: Configured, shared: Path) -> None:
    plain = method_of(tiny_config(shared)).build({}).state_dict()
    ours = method_of(config_of()).rehearsal().state_dict()
    assert all(torch.equal(tensor, ours[name]) for name, tensor in plain.items())
    assert sorted(ours.keys() - plain.keys()) == [
        "imitation.embedding.bias", "imitation.embedding.weight", "imitation.hidden.bias", "imitation.hidden.weight",
    ]  # fmt: skip
    assert not torch.equal(ours["imitation.embedding.weight"], ours["imitation.hidden.weight"])


def test_the_teacher_is_no_part_of_the_student(config_of: Configured) -> None:
    config = config_of("model.hidden_dropout=0.1", "model.attention_dropout=0.1")
    trainer, batches = make_trainer(config)
    model: Any = trainer.model
    before = {name: tensor.clone() for name, tensor in model.teacher.state_dict().items()}
    assert not any("teacher" in name for name in model.state_dict())
    for step in range(3):
        trainer.update(step, batches[step])
    assert model.training
    assert not model.teacher.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.teacher.state_dict().items())
    assert not any(p.requires_grad for p in model.teacher.parameters())
    model.double()
    assert model.teacher.encoder.embedding.word.weight.dtype == torch.float64


def test_flops_are_those_of_both_networks(config_of: Configured) -> None:
    """Products of the shapes: T=32, E=16; the student H=32, I=64, L=2; the teacher 64, 128 and 4."""
    t, e, h, width = 32, 16, 32, 64

    def layers(count: int, h: int, i: int) -> float:
        return count * (t * (8 * h * h + 4 * h * i) + 4 * t * t * h)

    def scores(count: int, h: int) -> float:
        return count * (t * 4 * h * h + 2 * t * t * h)

    student = 2 * t * e * h + layers(2, h, 64) + scores(2, h) + 3 * t * 2 * h * width + 2 * h * h
    teacher = 2 * t * e * width + layers(4, width, 128) + scores(2, width)
    method = method_of(config_of("method.teacher_width=2"))
    assert method.flops() == pytest.approx(3 * student + teacher)
    bottom = method_of(config_of("method.teacher_width=2", "method.layer_map=bottom"))
    above = layers(2, width, 128)  # of the teacher, never computed
    assert bottom.flops() == pytest.approx(3 * student + teacher - above)


# --- text -----------------------------------------------------------------------------------------


def test_the_plain_text_is_read_without_masks(config_of: Configured) -> None:
    _, _, batch = prepared(config_of("masking.probability=0.4"))
    ids = original_ids(batch)
    assert torch.equal(ids.flatten()[batch.positions].long(), batch.targets)
    assert not (ids == MASK).any()
    others = torch.ones(ids.numel(), dtype=torch.bool)
    others[batch.positions] = False
    assert torch.equal(ids.flatten()[others], batch.input_ids.flatten()[others])
    shaped = make_batches(config_of("masking.probability=0.4")).shaped(batch)
    assert len(shaped.positions) > len(batch.positions)
    assert torch.equal(original_ids(shaped), ids)


def test_masks_matter_only_where_they_are_read(config_of: Configured) -> None:
    for inputs, same in (("plain", True), ("masked", False)):
        found = []
        for share in (0.1, 0.4):
            method, model, batch = prepared(config_of(f"method.inputs={inputs}", f"masking.probability={share}"))
            found.append(means(method.terms(model, batch), batch))
        assert (found[0] == pytest.approx(found[1], rel=1e-6)) is same


# --- losses and gradients -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "layers"),
    [((), (2, 4)), (("method.layer_map=top",), (3, 4)), (("method.layer_map=bottom",), (1, 2))],
)
@pytest.mark.parametrize("share", ["all", "none"])
def test_the_losses_are_those_of_the_papers_equations(
    config_of: Configured, more: tuple[str, ...], layers: tuple[int, ...], share: str
) -> None:
    config = config_of(
        "method.teacher_width=2", "method.inputs=masked", f"share={share}", "method.hidden_weight=3", *more
    )
    method, model, batch = prepared(config)
    text = (batch.input_ids, batch.type_ids, batch.mask)
    mine, theirs = model.encoder.hidden_states(*text), model.teacher.encoder.hidden_states(*text)
    real = batch.mask
    pairs = [(model.imitation.hidden(mine[m]), theirs[n]) for m, n in zip((1, 2), layers, strict=True)]
    wanted = {
        "embedding": F.mse_loss(model.imitation.embedding(mine[0])[real], theirs[0][real]),
        "hidden": torch.stack([F.mse_loss(x[real], y[real]) for x, y in pairs]).sum(),
    }
    ours = observe(model.encoder, *text, (1, 2), "scores").attention
    taught = observe(model.teacher.encoder, *text, layers, "scores").attention
    both = (real[:, :, None] & real[:, None, :])[:, None].expand(-1, 2, -1, -1)
    errors = [F.mse_loss(x[both], y[both]) for x, y in zip(ours, taught, strict=True)]
    wanted["attention"] = torch.stack(errors).sum()
    terms = method.terms(model, batch)
    found = means(terms, batch)
    numbers = {name: float(loss.detach()) for name, loss in wanted.items()}
    assert {name: found[name] for name in wanted} == pytest.approx(numbers, rel=1e-4)
    assert [term.name for term in terms] == ["embedding", "hidden", "attention", "sentence"]
    assert [term.weight for term in terms] == [1.0, 3.0, 1.0, 1.0]


def test_a_student_that_begins_as_its_teacher_has_nothing_to_learn(config_of: Configured) -> None:
    config = config_of("method.teacher_depth=1", "method.start=teacher", "method.copy_transform=false")
    method, model, batch = prepared(config)
    for name in ("embedding", "hidden"):
        projection = getattr(model.imitation, name)
        nn.init.eye_(projection.weight)
        nn.init.zeros_(projection.bias)
    found = means(method.terms(model, batch), batch)
    assert {name: found[name] for name in ("embedding", "hidden", "attention")} == pytest.approx(
        {"embedding": 0.0, "hidden": 0.0, "attention": 0.0}, abs=1e-10
    )


@pytest.mark.parametrize("padding", ["left_out", "released"])
@pytest.mark.parametrize("micro", [3, 1])
def test_micro_batches_give_the_same_gradient(config_of: Configured, padding: str, micro: int) -> None:
    config = config_of(f"method.padding={padding}", "method.teacher_width=2")
    whole, parts = gradients(config, 8), gradients(config, micro)
    assert whole.keys() == parts.keys()
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, rtol=1e-9, atol=1e-12)


def test_padding_changes_nothing(config_of: Configured) -> None:
    config = config_of("model.max_positions=40")
    method, model, batch = prepared(config)
    wide = replace(
        batch,
        **{name: F.pad(getattr(batch, name), (0, 6)) for name in ("input_ids", "type_ids", "mask")},
        positions=batch.positions // 32 * 38 + batch.positions % 32,
    )
    assert wide.counts() == batch.counts()
    assert means(method.terms(model, wide), wide) == pytest.approx(means(method.terms(model, batch), batch), rel=1e-5)


@pytest.mark.parametrize("name", ["embedding", "hidden", "attention"])
def test_a_loss_of_weight_0_leaves_the_others_as_they_are(config_of: Configured, name: str) -> None:
    found = []
    for more in ((), (f"method.{name}_weight=0",)):
        method, model, batch = prepared(config_of(*more))
        found.append(means(method.terms(model, batch), batch))
    assert found[0].pop(name) > 0
    assert found[0] == found[1]


def test_the_embedding_alone_needs_no_layers(config_of: Configured) -> None:
    config = config_of("method.hidden_weight=0", "method.attention_weight=0", "objective=none")
    method, model, batch = prepared(config)
    (term,) = method.terms(model, batch)
    _loss([term], batch.counts()).backward()
    trained = {name.rpartition(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert trained == {
        "imitation.embedding",
        *(f"encoder.embedding.{part}" for part in ("word", "position", "token_type", "norm", "projection")),
    }
    layers = method_of(config_of("method.attention_weight=0", "objective=none")).flops()
    assert method.flops() < layers / 10


def test_the_sentence_loss_has_its_weight(config_of: Configured) -> None:
    config = config_of("method.sentence_weight=0.25", "method.hidden_weight=0", "method.attention_weight=0")
    method, model, batch = prepared(config)
    *_, sentence = method.terms(model, batch)
    assert (sentence.name, sentence.per, sentence.weight) == ("sentence", "sequences", 0.25)
    states = model.encoder(original_ids(batch), batch.type_ids, batch.mask)
    logits = model.sentence_logits(states)
    torch.testing.assert_close(sentence.loss_sum, F.cross_entropy(logits, batch.labels, reduction="sum"))


def test_bf16_is_near_fp32(config_of: Configured) -> None:
    found: dict[str, list[dict[str, float]]] = {}
    for precision in ("fp32", "bf16"):
        trainer, batches = make_trainer(config_of("method.teacher_width=2"), precision=precision)
        found[precision] = [trainer.update(k, batches[k]).means(batches[k].counts()) for k in range(12)]
    for wide, low in zip(found["fp32"], found["bf16"], strict=True):
        assert low == pytest.approx(wide, rel=0.05, abs=0.01)
    assert found["fp32"][-1]["hidden_loss"] < found["fp32"][0]["hidden_loss"]


# --- refusals -------------------------------------------------------------------------------------


def refused(config: RunConfig) -> str:
    with pytest.raises(ConfigError) as error:
        method_of(config).parents()
    return str(error.value)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("model.layers=3",), ("model.layers=3", "the teacher's layers, 4", "one of 1, 2, 4", "method.layer_map")),
        (("model.layers=5", "method.layer_map=top"), ("model.layers=5", "has 4", "model.layers=4 or less")),
        ((), ("model.heads=2", "has 4", "model.heads=4", "method.attention_weight=0")),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(
    config_of: Configured, teacher: Path, settings: tuple[str, ...], said: tuple[str, ...]
) -> None:
    heads = ("model.heads=4",) if settings else ()
    message = refused(config_of(f"method.teacher={teacher}", *heads, *settings))
    assert all(part in message for part in said), message


def test_layers_without_scores_are_refused(config_of: Configured, monkeypatch: pytest.MonkeyPatch) -> None:
    without = replace(PATTERNS["full"], kernel=lambda q, k, v, view, drop: v)
    monkeypatch.setitem(PATTERNS, "full", without)
    assert "no effect" not in (message := refused(config_of()))
    assert "method.attention_weight=1" in message
    assert "Set method.attention_weight=0" in message
    assert method_of(config_of("method.attention_weight=0")).parents()


def test_what_is_not_compared_may_differ(config_of: Configured, teacher: Path) -> None:
    assert method_of(config_of(f"method.teacher={teacher}", "method.attention_weight=0")).parents()
    only = ("method.attention_weight=0", "method.hidden_weight=0", "model.layers=3")
    method = method_of(config_of(f"method.teacher={teacher}", *only))
    (parent,) = method.parents()
    assert parent.folder == teacher
    checkpoint = newest_checkpoint(RunFolder(teacher.parent, teacher.name))
    model = method.build({parent.role: checkpoint})
    assert isinstance(model, StudentModel)
    assert model.imitation.get_submodule("embedding").weight.shape == (64, 32)
