"""The switches of GPT-2's form under the other methods: the same losses, counted and copied like any other model."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from runhelpers import make_trainer, tiny_config
from torch.nn import functional as F

from albert_ablate.config.schema import RunConfig
from albert_ablate.errors import ConfigError
from albert_ablate.methods import method_of
from albert_ablate.methods.distilbert import DistilBert
from albert_ablate.model.pretraining import build_model
from albert_ablate.training.accumulate import _loss

FORM = ("model.norm=pre", "model.embedding_norm=false", "model.residual_init=depth", "model.lm_head=plain")
HALF = "method.generator_width=0.5"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gpt2")


@pytest.fixture(scope="module")
def config_of(shared: Path) -> Callable[..., RunConfig]:
    return cache(lambda *words: tiny_config(shared, *words))


@pytest.mark.parametrize(
    "words",
    [
        ("method=electra", HALF), ("method=electra", "method.tie=all", "method.generator_width=1"),
        ("method=electra", "method.tie=none", HALF), ("method=all_tokens_mlm", HALF), ("method=replace_mlm", HALF),
        ("method=distilbert", "objective=none"), ("method=tinybert", "objective=none"), ("objective=sop",),
    ],
    ids=str,
)  # fmt: skip
def test_a_step_reaches_every_counted_parameter(config_of: Callable[..., RunConfig], words: tuple[str, ...]) -> None:
    """With a narrow embedding, so that the plain head has a matrix."""
    config = config_of(*words, *FORM, "share=none", "model.layers=2", "embed.size=16")
    trainer, batches = make_trainer(config)
    model: Any = trainer.model
    if hasattr(model, "learn_from"):
        method: Any = trainer.method
        model.learn_from(build_model(method.teacher_shape, 7, pooler=False))
    counted = method_of(config).parameters()
    assert sum(p.numel() for p in model.parameters()) == counted.with_heads
    assert counted.norm == 2 * config.model.hidden
    batch = batches[0]
    _loss(trainer.method.terms(model, batch), batch.counts()).backward()
    unused = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    sentences = config.objective.name.trains_sentences
    expected = () if sentences else ("pooler.", "sentence_head.")
    head = ("mlm_head.",) if "method=tinybert" in words else ()
    assert not [name for name in unused if not name.startswith((*expected, *head)) and not name.endswith("key.bias")]


def test_the_divergence_of_heads_without_bias(config_of: Callable[..., RunConfig]) -> None:
    config = config_of("method=distilbert", "objective=none", "share=none", "embed.size=16", *FORM)
    trainer, batches = make_trainer(config)
    model: Any = trainer.model.eval()
    method: Any = trainer.method
    assert isinstance(method, DistilBert)
    model.learn_from(build_model(replace(method.teacher_shape, lm_head="transform"), 7, pooler=False))
    model.double()
    batch = batches[0]
    (term, *_) = method.terms(model, batch)
    states = model.encoder(batch.input_ids, batch.type_ids, batch.mask)[batch.mask.bool()]
    taught = model.teacher.encoder(batch.input_ids, batch.type_ids, batch.mask)[batch.mask.bool()]
    s = states @ model.mlm_head.dense.weight.T @ model.encoder.embedding.word.weight.T
    t = model.teacher.mlm_head(taught, model.teacher.encoder.embedding.word.weight).detach()
    warm = config.method.kl_temperature
    expected = warm**2 * F.kl_div(F.log_softmax(s / warm, -1), F.softmax(t / warm, -1), reduction="sum")
    torch.testing.assert_close(term.loss_sum, expected)
    inputs = [model.mlm_head.dense.weight, model.encoder.embedding.word.weight]
    torch.testing.assert_close(torch.autograd.grad(term.loss_sum, inputs), torch.autograd.grad(expected, inputs))


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"norm": "post"}, "method.start=teacher: model.norm=pre, the teacher has post. Set it to post, or"),
        ({"embedding_norm": True}, "method.start=teacher: model.embedding_norm=false, the teacher has true. Set it"),
        ({"lm_head": "transform"}, "model.lm_head=plain, the teacher has transform. Set it to transform, or"),
    ],
    ids=str,
)
def test_a_student_does_not_begin_with_a_teacher_of_another_form(
    config_of: Callable[..., RunConfig], form: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("method=distilbert", "objective=none", "share=none", "method.copy_transform=true", *FORM)
    method: Any = method_of(config_of(*words))
    other = replace(method.teacher_shape, **form)
    monkeypatch.setattr(type(method), "teacher_shape", property(lambda self: other))
    with pytest.raises(ConfigError, match=message):
        method.parents()


def test_a_student_begins_with_its_teachers_last_norm(config_of: Callable[..., RunConfig]) -> None:
    method: Any = method_of(config_of("method=distilbert", "objective=none", "share=none", *FORM))
    teacher = build_model(method.teacher_shape, 7, pooler=False)
    with torch.no_grad():
        teacher.encoder.norm.weight.fill_(3.0)  # type: ignore[union-attr]
    student = method.new_model()
    method.take_teacher(student, teacher)
    assert torch.equal(student.encoder.norm.weight, teacher.encoder.norm.weight)  # type: ignore[union-attr]


@pytest.mark.parametrize("tie", ["embeddings", "all"])
def test_a_tied_generator_shares_the_norm_only_where_it_shares_all(
    config_of: Callable[..., RunConfig], tie: str
) -> None:
    config = config_of("method=electra", f"method.tie={tie}", "method.generator_width=1", "share=none", *FORM)
    model: Any = method_of(config).build({})
    assert (model.generator.encoder.norm is model.encoder.norm) == (tie == "all")
