"""Learning rates that fall from layer to layer: the factors, what a step does with them, and where they are refused."""

import os
import re
import signal
from dataclasses import replace
from itertools import product, repeat
from pathlib import Path
from typing import Any

import pytest
import torch
from finetunehelpers import run_of, tuner
from taskhelpers import with_tasks
from torch import Tensor, nn

from albert_ablate.axes import Share
from albert_ablate.config.tasks import TuningUpdateConfig
from albert_ablate.door.compose import compose
from albert_ablate.errors import ConfigError, PreemptedError
from albert_ablate.model.architecture import Architecture
from albert_ablate.tasks.heads import AnswerableSpanModel, PooledModel
from albert_ablate.tasks.layer_decay import layer_scale, layers_below_head
from albert_ablate.tasks.planning import plan_units
from albert_ablate.tasks.task import HeadSettings
from albert_ablate.training.optimizers import build_optimizer, scale_of

D = 0.8
OWN = ("share=none", "task.start=random")  # every layer has its own blocks


def shape_of(layers: int, share: Share = Share.NONE, groups: int = 1, inner: int = 1) -> Architecture:
    return Architecture(64, 8, 16, layers, 2, 32, 24, share, groups, inner)


def settings(*words: str) -> TuningUpdateConfig:
    return compose(["share=none", *(f"task.optimizer.{word}" for word in words)]).task.optimizer


#: Rule -> exponents of the head, the layers from the top, and the embeddings, for L layers (Clark et al.'s code).
EXPONENTS = {
    "released": lambda layers: [0, *range(2, layers + 2), layers + 2],
    "intended": lambda layers: [0, *range(1, layers + 1), layers + 1],
}


@pytest.mark.parametrize("layers", [1, 3, 12])
@pytest.mark.parametrize("rule", EXPONENTS)
def test_the_factors_of_every_tensor(rule: str, layers: int) -> None:
    shape, given = shape_of(layers), settings(f"layer_decay={D}", f"layer_decay_rule={rule}")
    with torch.device("meta"):
        models = [PooledModel(shape, 3, HeadSettings(0.1, "first", "pooled")), AnswerableSpanModel(shape, 0.1)]
    head, *by_layer, embeddings = EXPONENTS[rule](layers)
    for name in (name for model in models for name, _ in model.named_parameters()):
        block = re.match(r"encoder\.(attention|ffn)\.(\d+)\.", name)
        if name.startswith("encoder.embedding."):
            expected = embeddings
        else:
            expected = by_layer[layers - 1 - int(block[2])] if block else head
        assert layer_scale(name, shape, given) == pytest.approx(D**expected, rel=1e-12), name
    assert any("embedding.projection" in name for name, _ in models[0].named_parameters())
    assert layer_scale("encoder.embedding.word.weight", shape, settings()) == 1


def test_at_twelve_layers_the_embeddings_learn_at_a_twentieth() -> None:
    """0.044 in the released code."""
    assert layer_scale("encoder.embedding.word.weight", shape_of(12), settings("layer_decay=0.8")) == pytest.approx(
        0.044, abs=5e-4
    )


def moved(folder: Path, place: Path, *words: str) -> dict[str, Tensor]:
    """By how much each tensor moves in one step; the rate is high, so that rounding is small beside it."""
    still = ("tasks.sst2.dropout=0", "tasks.sst2.classifier_dropout=0", "tasks.sst2.warmup_steps=0")
    t = tuner(folder, "sst2", place, *OWN, *still, "tasks.sst2.learning_rate=0.1", *words)
    before = {name: p.detach().clone() for name, p in t.model.named_parameters()}
    t.update(0, t.batches[0])
    return {name: p.detach() - before[name] for name, p in t.model.named_parameters()}


@pytest.mark.parametrize("correct", ["false", "true"])
@pytest.mark.parametrize("rule", EXPONENTS)
def test_a_step_moves_a_layer_by_its_factor(folder: Path, tmp_path: Path, rule: str, correct: str) -> None:
    """AdamW's step is proportional to the rate, weight decay included."""
    given = (f"task.optimizer.bias_correction={correct}",)
    plain = moved(folder, tmp_path / "a", *given)
    decayed = moved(
        folder, tmp_path / "b", *given, f"task.optimizer.layer_decay={D}", f"task.optimizer.layer_decay_rule={rule}"
    )
    head, top, bottom, embeddings = (D**exponent for exponent in EXPONENTS[rule](2))
    factors = {
        "classifier.weight": head, "pooler.dense.bias": head, "encoder.ffn.1.inner.weight": top,
        "encoder.attention.1.norm.bias": top, "encoder.attention.0.query.weight": bottom,
        "encoder.embedding.word.weight": embeddings, "encoder.embedding.projection.weight": embeddings,
    }  # fmt: skip
    for name, factor in factors.items():
        assert plain[name].any(), name
        torch.testing.assert_close(decayed[name], plain[name] * factor, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize(
    "words", [("optimizer=lamb",), ("optimizer=adamw",), ("optimizer=adamw", "optimizer.bias_correction=false")]
)
def test_groups_of_every_optimizer(words: tuple[str, ...]) -> None:
    """Each parameter is in one group, and a step moves it by its factor, LAMB's ratio of norms included."""
    config = compose(list(words)).optimizer
    steps = []
    for factors in ({"0": 1.0, "1": 1.0}, {"0": 0.5, "1": 1.0}):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)).double()
        optimizer = build_optimizer(model, config, lambda name, factors=factors: (factors[name[0]],))  # type: ignore[misc]
        grouped = [id(p) for group in optimizer.param_groups for p in group["params"]]
        assert sorted(grouped) == sorted(map(id, model.parameters()))
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * scale_of(group)
        before = [p.detach().clone() for p in model.parameters()]
        model(torch.ones(2, 4).double()).square().sum().backward()
        optimizer.step()
        steps.append([p.detach() - old for p, old in zip(model.parameters(), before, strict=True)])
    for plain, scaled, factor in zip(*steps, (0.5, 0.5, 1.0, 1.0), strict=True):
        assert plain.any()
        torch.testing.assert_close(scaled, factor * plain, rtol=1e-9, atol=1e-15)


def test_without_factors_the_groups_are_those_of_before() -> None:
    """A checkpoint of an older version continues, and one of now has no more in it."""
    for words in (["optimizer=lamb"], ["optimizer=adamw"]):
        groups = build_optimizer(nn.Linear(4, 3), compose(words).optimizer).param_groups
        assert [len(group["params"]) for group in groups] == [1, 1]
        assert not any("scale" in group for group in groups)


def test_a_stopped_fine_tuning_keeps_its_factors(folder: Path, tmp_path: Path) -> None:
    words = (*OWN, "tasks.sst2.steps=6", f"task.optimizer.layer_decay={D}")
    whole = tuner(folder, "sst2", tmp_path / "whole", *words)
    expected = whole.fit()
    halted = tuner(folder, "sst2", tmp_path / "parts", *words)
    update = halted.update

    def interrupted(step: int, *rest: Any) -> Any:
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return update(step, *rest)

    halted.update = interrupted  # type: ignore[assignment,method-assign]
    with pytest.raises(PreemptedError, match="after step 4 of 6"):
        halted.fit()
    again = tuner(folder, "sst2", tmp_path / "parts", *words)
    assert again.fit()["last"] == expected["last"]
    for (name, a), b in zip(whole.model.named_parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b), name
    last = [{scale_of(group): group["lr"] for group in t.optimizer.param_groups} for t in (whole, again)]
    assert last[0] == last[1]
    assert len(last[0]) == 4
    assert all(rate == pytest.approx(scale * last[0][1.0]) for scale, rate in last[0].items())


def test_identity_of_a_unit(folder: Path) -> None:
    def name(*words: str) -> str:
        data = (f"task.data_dir={folder / 'data'}", "task=sst2", *OWN)
        (unit,) = plan_units(with_tasks(folder, *data, *words), run_of(folder), "fp32")
        return unit.folder.name

    decay, rule = f"task.optimizer.layer_decay={D}", "task.optimizer.layer_decay_rule"
    assert name() == name("task.optimizer.layer_decay=null", f"{rule}=released")
    assert name(decay) == name(decay, f"{rule}=released")
    assert len({name(), name(decay), name(decay, f"{rule}=intended"), name("task.optimizer.layer_decay=0.9")}) == 4


# --- where it is refused --------------------------------------------------------------------------------

STACKS = [(groups, inner) for groups, inner in product((1, 2, 4), (1, 2, 4)) if groups * inner <= 4]


def test_a_norm_after_the_last_layer_is_of_that_layer() -> None:
    shape = replace(shape_of(4, Share.NONE, 1, 1), norm="pre")
    assert layers_below_head("encoder.norm.weight", shape) == 1
    assert layers_below_head("encoder.embedding.norm.weight", shape) == 5


@pytest.mark.parametrize("share", Share)
@pytest.mark.parametrize(("groups", "inner"), STACKS)
def test_it_is_refused_where_a_block_has_no_single_depth_and_only_there(share: Share, groups: int, inner: int) -> None:
    if share is Share.NONE and (groups, inner) != (1, 1):
        return
    shape = shape_of(4, share, groups, inner)
    with torch.device("meta"):
        names = [name for name, _ in PooledModel(shape, 2, HeadSettings(0.1, "first", "bare")).named_parameters()]
    words = [f"share={share}", f"share.groups={groups}", f"share.inner={inner}", "model.layers=4", "model.heads=2"]
    words.append(f"task.optimizer.layer_decay={D}")
    if share is Share.NONE or groups * inner == 4:
        assert {layers_below_head(name, shape) for name in names} == {0, 1, 2, 3, 4, 5}
        compose(words)
    else:
        with pytest.raises(ValueError, match="so it has no single depth"):
            list(map(layers_below_head, names, repeat(shape)))
        with pytest.raises(ConfigError, match=rf"task.optimizer.layer_decay=0.8 with share={share}: .* share=none"):
            compose(words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("task.optimizer.layer_decay=0",), r"layer_decay=0: .*greater than 0"),
        (("task.optimizer.layer_decay=1.1",), r"layer_decay=1.1: .*less than or equal to 1"),
        (("task.optimizer.layer_decay_rule=intended",), r"layer_decay_rule=intended: no effect without a decay"),
        (("task.optimizer.layer_decay=0.8", "share=all"), r"share one block \(attention and ffn\)"),
        (("task.optimizer.layer_decay=0.8", "share=ffn"), r"share one block \(ffn\)"),
        (("task.optimizer.layer_decay=0.8", "share=all", "share.inner=9"), r"share.inner=9 .*does not divide"),
    ],
)
def test_wrong_settings_are_answered_in_words(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compose(list(words))
