"""ELECTRA's step: networks, corruption, losses and gradients against closed forms."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from runhelpers import make_trainer, tiny_config
from torch import Tensor

from albert_ablate.config.schema import RunConfig
from albert_ablate.data.batches import Batch
from albert_ablate.data.tokenizer import MASK
from albert_ablate.errors import ConfigError
from albert_ablate.methods import Term, electra, method_of
from albert_ablate.methods.mlm import EPSILON
from albert_ablate.model.generator import corrupt
from albert_ablate.model.pretraining import build_model
from albert_ablate.training.accumulate import _loss
from albert_ablate.training.budget import step_flops

#: Settings of a generator that is as large as the encoder.
EQUAL = ("method.generator_width=1",)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("electra")


@pytest.fixture(scope="module")
def config_of(shared: Path) -> Callable[..., RunConfig]:
    """A tiny configuration of ELECTRA; the generator has half the width."""

    @cache
    def make(*more: str, method: str = "electra") -> RunConfig:
        width = [] if method in ("mlm", "electra_two_stage") else ["method.generator_width=0.5"]
        return tiny_config(shared, f"method={method}", *width, *more)

    return make


def prepared(config: RunConfig, step: int = 0) -> tuple[Any, Any, Batch]:
    """Method, model in evaluation mode and a batch."""
    trainer, batches = make_trainer(config)
    model = trainer.model.eval()
    return trainer.method, model, batches[step]


def gradients(config: RunConfig, *, double: bool = True, only: str | None = None) -> dict[str, Tensor]:
    """Name -> gradient of the step's loss, or of one of its terms at weight 1."""
    method, model, batch = prepared(config)
    if double:
        model.double()
    terms = method.terms(model, batch)
    kept = [term for term in terms if only is None or term.name == only]
    if only is not None:
        kept = [replace(term, weight=1.0) for term in kept]
    _loss(kept, batch.counts()).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


# --- networks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("small", {"encoder": 13483008, "replaced_head": 66049, "generator": 608064, "generator_head": 39098}),
        ("base", {"encoder": 108891648, "replaced_head": 591361, "generator": 9673984, "generator_head": 229434}),
    ],
)
def test_parameters_are_those_of_the_paper(shared: Path, model: str, expected: dict[str, int]) -> None:
    small = model == "small"
    width = ["model.hidden=256", "model.heads=4", "embed.size=128", "method.generator_width=0.25"]
    wide = ["model.hidden=768", "model.heads=12", "embed.size=768", "method.generator_width=0.3333333333"]
    config = tiny_config(
        shared, "method=electra", "share=none", "model.layers=12", "tokenizer.vocab_size=30522",
        "model.max_positions=512", f"model.intermediate={1024 if small else 3072}", *(width if small else wide),
    )  # fmt: skip
    counted = method_of(config).parameters().as_dict()
    assert {key: counted[key] for key in expected} == expected


@pytest.mark.parametrize("tie", ["embeddings", "none", "all"])
@pytest.mark.parametrize("share", ["all", "none"])
@pytest.mark.parametrize("method", ["electra", "all_tokens_mlm", "replace_mlm"])
def test_counted_parameters_are_those_of_the_model(
    config_of: Callable[..., RunConfig], tie: str, share: str, method: str
) -> None:
    config = config_of(f"method.tie={tie}", f"share={share}", *EQUAL, method=method)
    model = method_of(config).build({})
    assert sum(p.numel() for p in model.parameters()) == method_of(config).parameters().with_heads


def test_the_encoder_begins_as_that_of_masked_lm(config_of: Callable[..., RunConfig]) -> None:
    config = config_of()
    plain, ours = build_model(config.architecture(), config.seed).state_dict(), method_of(config).build({}).state_dict()
    common = [name for name in plain if not name.startswith("mlm_head")]
    assert all(torch.equal(plain[name], ours[name]) for name in common)
    released = method_of(config_of("method.initialisation=released")).build({}).state_dict()
    changed = [name for name in common if not torch.equal(plain[name], released[name])]
    assert changed == ["encoder.embedding.projection.weight"]
    bound = math.sqrt(6 / (16 + 32))
    assert 0.9 * bound < released[changed[0]].abs().max() <= bound


def test_what_is_tied_is_saved_once_and_read_back(config_of: Callable[..., RunConfig]) -> None:
    for tie, own in (("none", True), ("embeddings", False)):
        config = config_of(f"method.tie={tie}")
        model = method_of(config).build({})
        state = model.state_dict()
        assert ("generator.encoder.embedding.word.weight" in state) is own
        other = method_of(replace(config, seed=5)).build({})
        other.load_state_dict(state)
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
        word = other.get_parameter("generator.encoder.embedding.word.weight")
        assert (word is other.encoder.embedding.word.weight) is not own


def test_a_shared_block_may_be_applied_fewer_times(config_of: Callable[..., RunConfig]) -> None:
    """share=all allows a generator without parameters of its own that is shallower."""
    config = config_of("share=all", "method.tie=all", "method.generator_depth=0.5", *EQUAL)
    counted = method_of(config).parameters().as_dict()
    assert counted["generator"] == 0
    _, model, _ = prepared(config)
    assert len(model.generator.encoder.layer_blocks) == 1
    assert method_of(config).flops() < method_of(config_of("share=all", "method.tie=all", *EQUAL)).flops()


def test_flops_are_those_of_both_networks(config_of: Callable[..., RunConfig]) -> None:
    """A product of the shapes: T=32, E=16, H=32, I=64, L=2, V=200; generator 16 wide."""
    t, e, h, i, v, masked = 32, 16, 32, 64, 200, 0.15 * 32

    def layers(h: int, i: int) -> float:
        return 2 * (t * (8 * h * h + 4 * h * i) + 4 * t * t * h)

    encoder = 2 * t * e * h + layers(h, i) + t * (2 * h * h + 2 * h) + 2 * h * h
    generator = layers(16, 32) + masked * 2 * (16 * e + e * v)
    assert method_of(config_of()).flops() == pytest.approx(3 * (encoder + generator))


@pytest.mark.parametrize(
    ("size", "settings", "free", "dense"),
    [
        ("small", ["model.hidden=256", "model.heads=4", "embed.size=128", "model.intermediate=1024"], 1.09, 1.32),
        ("base", ["model.hidden=768", "model.heads=12", "embed.size=768", "model.intermediate=3072",
                  "method.generator_width=0.3333333333"], 1.14, 1.30),
    ],
)  # fmt: skip
def test_both_ways_of_counting_give_the_papers_ratios(
    shared: Path, size: str, settings: list[str], free: float, dense: float
) -> None:
    length = (
        ["pairs.max_length=128", "model.max_positions=512"]
        if size == "small"
        else ["pairs.max_length=512", "model.max_positions=512"]
    )
    common = ["model.layers=12", "tokenizer.vocab_size=30522", *length]
    electra_ = tiny_config(shared, "method=electra", *common, *settings)
    plain = tiny_config(shared, *common, *(word for word in settings if not word.startswith("method.")))
    ratio = {way: step_flops(electra_, way) / step_flops(plain, way) for way in ("free", "dense")}
    assert ratio["free"] == pytest.approx(free, abs=0.015)
    assert ratio["dense"] == pytest.approx(dense, abs=0.015)


# --- corruption -----------------------------------------------------------------------------------------------


def test_a_token_is_replaced_only_where_it_differs(config_of: Callable[..., RunConfig]) -> None:
    config = config_of("masking.probability=0.4")
    method, model, batch = prepared(config)
    made = method.corrupted(model, batch)
    masked = torch.zeros(batch.input_ids.numel(), dtype=torch.bool)
    masked[batch.positions] = True
    assert torch.equal(made.original.flatten()[batch.positions].long(), batch.targets)
    assert torch.equal(made.replaced, made.input_ids != made.original)
    assert not made.replaced[~masked.view_as(made.replaced)].any()
    assert not made.replaced[~batch.mask].any()
    assert made.replaced.any()
    sampled = torch.isin(made.input_ids.flatten()[batch.positions], torch.tensor([MASK]))
    assert not (made.input_ids == MASK).flatten()[~masked].any()
    assert sampled.float().mean() < 0.2  # the generator may say [MASK] by itself, but none is left over


def test_a_generator_that_is_always_right_replaces_nothing(config_of: Callable[..., RunConfig]) -> None:
    _, _, batch = prepared(config_of())
    original, corrupted, replaced = corrupt(batch, batch.targets, repeated=False)
    assert torch.equal(original, corrupted)
    assert not replaced.any()


def test_a_position_drawn_twice_gets_the_mean_of_its_samples(config_of: Callable[..., RunConfig]) -> None:
    config = config_of("masking.draw=with_replacement", "masking.probability=0.5")
    _, _, batch = prepared(config)
    _, counts = batch.positions.unique(return_counts=True)
    assert counts.max() > 1
    samples = torch.arange(len(batch.positions)) + 20
    _, corrupted, _ = corrupt(batch, samples, repeated=True)
    for position in batch.positions.unique():
        chosen = samples[batch.positions == position]
        assert corrupted.flatten()[position] == int(chosen.sum()) // len(chosen)


def test_the_fill_is_electras_and_the_positions_are_those_of_masked_lm(config_of: Callable[..., RunConfig]) -> None:
    kept = masks = total = 0
    for step in range(30):
        ours, plain = (make_trainer(config_of(method=name))[1][step] for name in ("electra", "mlm"))
        assert torch.equal(ours.positions, plain.positions)
        assert torch.equal(ours.targets, plain.targets)
        shown = ours.input_ids.flatten()[ours.positions]
        assert ((shown == MASK) | (shown == ours.targets)).all()  # no random piece
        masks, kept, total = (
            masks + int((shown == MASK).sum()),
            kept + int((shown == ours.targets).sum()),
            total + len(shown),
        )
    assert masks / total == pytest.approx(0.85, abs=0.04)
    assert kept / total == pytest.approx(0.15, abs=0.04)


@pytest.mark.parametrize("micro", [8, 3, 1])
def test_the_samples_do_not_depend_on_the_division_of_the_batch(
    config_of: Callable[..., RunConfig], micro: int
) -> None:
    method, model, batch = prepared(config_of())
    whole = method.corrupted(model, batch).input_ids
    parts = torch.cat([method.corrupted(model, part).input_ids for part in batch.micro(micro)])
    assert torch.equal(whole, parts)


def test_disallow_correct_replaces_every_masked_token(config_of: Callable[..., RunConfig]) -> None:
    method, model, batch = prepared(config_of("method.disallow_correct=true"))
    assert method.corrupted(model, batch).replaced.sum() == len(batch.targets)


def test_near_temperature_zero_the_generator_says_its_most_probable_piece(config_of: Callable[..., RunConfig]) -> None:
    method, model, batch = prepared(config_of("method.temperature=0.0001"))
    generator = model.generator
    states = generator.encoder(batch.input_ids, batch.type_ids, batch.mask, rows=batch.positions)
    best = generator.mlm_head(states, generator.encoder.embedding.word.weight).argmax(-1)
    assert torch.equal(method.corrupted(model, batch).input_ids.flatten()[batch.positions].long(), best)


def test_a_generator_without_opinion_has_the_entropy_of_the_vocabulary(config_of: Callable[..., RunConfig]) -> None:
    method, model, batch = prepared(config_of("masking.probability=0.5"))
    torch.nn.init.zeros_(model.generator.mlm_head.norm.weight)
    generator = method.terms(model, batch)[0]
    assert float(generator.loss_sum.detach()) / len(batch.targets) == pytest.approx(math.log(200), rel=1e-5)
    fakes = sum(int(method.corrupted(model, make_trainer(config_of())[1][step]).replaced.sum()) for step in range(5))
    assert fakes > 0


@pytest.mark.parametrize("source", ["uniform", "unigram"])
def test_a_source_that_is_no_network_has_its_own_frequencies(config_of: Callable[..., RunConfig], source: str) -> None:
    config = config_of(
        f"method.generator={source}", "method.generator_width=0.25", "masking.probability=0.5", "batch.size=400"
    )
    trainer, batches = make_trainer(config)
    assert trainer.model.generator is None
    fakes = torch.cat([batches[step].fakes for step in range(3)])
    counts = torch.bincount(fakes, minlength=200).double()
    expected = (
        torch.ones(200).double()
        if source == "uniform"
        else torch.bincount(torch.from_numpy(batches.store.tokens[:].astype("int64")), minlength=200).double()
    )
    expected = expected / expected.sum() * len(fakes)
    kept = expected > 5
    chi2 = float(((counts - expected) ** 2 / expected)[kept].sum())
    freedom = int(kept.sum())
    assert chi2 < freedom + 5 * math.sqrt(2 * freedom)
    names = [term.name for term in trainer.method.terms(trainer.model, batches[0])]
    assert names == ["replaced", "sentence"]


# --- losses and gradients -------------------------------------------------------------------------------------


def test_a_head_without_opinion_loses_ln_2(config_of: Callable[..., RunConfig]) -> None:
    method, model, batch = prepared(config_of("objective=none"))
    torch.nn.init.zeros_(model.replaced_head.out.weight)
    term = method.terms(model, batch)[1]
    assert float(term.loss_sum.detach()) / batch.counts()["tokens"] == pytest.approx(math.log(2), rel=1e-5)
    assert (term.per, term.weight) == ("tokens", 50.0)


def test_the_loss_over_all_tokens_has_two_parts(config_of: Callable[..., RunConfig]) -> None:
    method, model, batch = prepared(config_of("objective=none"))
    at_masked = method_of(config_of("objective=none", method="electra_15"))
    whole, part = method.terms(model, batch)[1], at_masked.terms(model, batch)[1]
    made = method.corrupted(model, batch)
    logits = model.replaced_logits(model.encoder(made.input_ids, batch.type_ids, batch.mask))
    losses = torch.nn.functional.binary_cross_entropy_with_logits(logits, made.replaced.float(), reduction="none")
    others = batch.mask.flatten().clone()
    others[batch.positions] = False
    assert (part.per, whole.per) == ("masked", "tokens")
    torch.testing.assert_close(whole.loss_sum, part.loss_sum + losses.flatten()[others].sum())


@pytest.mark.parametrize("method", ["electra", "electra_15", "replace_mlm", "all_tokens_mlm"])
def test_padding_changes_nothing(config_of: Callable[..., RunConfig], method: str) -> None:
    made, model, batch = prepared(config_of("model.max_positions=40", method=method))
    row, column = batch.positions // 32, batch.positions % 32
    wide = replace(
        batch, input_ids=torch.nn.functional.pad(batch.input_ids, [0, 8]),
        type_ids=torch.nn.functional.pad(batch.type_ids, [0, 8]), mask=torch.nn.functional.pad(batch.mask, [0, 8]),
        positions=row * 40 + column,
    )  # fmt: skip
    for plain, padded in zip(made.terms(model, batch), made.terms(model, wide), strict=True):
        torch.testing.assert_close(plain.loss_sum, padded.loss_sum, rtol=2e-5, atol=1e-4)


def test_the_encoders_loss_gives_the_generator_no_gradient(config_of: Callable[..., RunConfig]) -> None:
    found = gradients(config_of("objective=none", "method.tie=none"), only="replaced")
    assert found
    assert not any(name.startswith("generator.") for name in found)


@pytest.mark.parametrize("tie", ["none", "embeddings"])
def test_the_gradient_is_the_sum_of_both_losses(config_of: Callable[..., RunConfig], tie: str) -> None:
    settings = ("objective=none", f"method.tie={tie}")
    both = gradients(config_of(*settings))
    generator, encoder = (gradients(config_of(*settings), only=name) for name in ("generator", "replaced"))
    for name, gradient in both.items():
        parts = [part for part in (generator.get(name), encoder.get(name)) if part is not None]
        weights = [weight for weight, part in ((1, generator.get(name)), (50, encoder.get(name))) if part is not None]
        expected = sum(weight * part for weight, part in zip(weights, parts, strict=True))
        torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12, msg=name)
    shared_by_both = sorted(generator.keys() & encoder.keys())
    tables = ["norm.bias", "norm.weight", "position.weight", "token_type.weight", "word.weight"]
    assert shared_by_both == ([] if tie == "none" else [f"encoder.embedding.{name}" for name in tables])


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_without_the_encoders_loss_and_all_tied_it_is_masked_lm_bit_for_bit(
    config_of: Callable[..., RunConfig], dropout: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(electra, "EPSILON", EPSILON)  # both released codes add another number to the denominator
    rates = (f"model.hidden_dropout={dropout}", f"model.attention_dropout={dropout}")
    tied = config_of(*EQUAL, *rates, "method.tie=all", "method.discriminator_weight=0", "objective=none")
    plain = config_of(*rates, "objective=none", "masking.fill=electra", method="mlm")
    ours, batches = make_trainer(tied)
    theirs, plain_batches = make_trainer(plain)
    model, other = cast(Any, ours.model), cast(Any, theirs.model)
    head = model.generator.mlm_head
    head.load_state_dict(other.mlm_head.state_dict())
    ours.settings = theirs.settings = replace(theirs.settings, clip_norm=None)
    for step in range(4):
        ours.update(step, batches[step])
        theirs.update(step, plain_batches[step])
    for name, tensor in other.encoder.state_dict().items():
        assert torch.equal(tensor, model.encoder.state_dict()[name]), name
    assert torch.equal(head.bias, other.mlm_head.bias)


# --- all-tokens MLM -------------------------------------------------------------------------------------------


@pytest.fixture
def model(config_of: Callable[..., RunConfig]) -> Any:
    """A model of all-tokens MLM in fp64 whose copy logit is its bias."""
    made: Any = method_of(config_of(method="all_tokens_mlm")).build({}).double()
    torch.nn.init.zeros_(made.copy_gate.dense.weight)
    return made


def states(count: int) -> Tensor:
    return torch.randn(count, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def losses(model: Any, gate: float, at: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
    """The loss of each token, with the copy logit ``gate``."""
    torch.nn.init.constant_(model.copy_gate.dense.bias, gate)
    real = torch.tensor([True])
    rows = range(len(at))
    return torch.stack([model.all_tokens_loss(at[[k]], inputs[[k]], targets[[k]], real)[0] for k in rows]).detach()


@pytest.mark.parametrize("gate", [-2.0, 0.3, 4.0])
def test_the_distribution_over_all_pieces_sums_to_one(model: Any, gate: float) -> None:
    every = torch.arange(200)
    found = losses(model, gate, states(1).expand(200, -1), torch.full((200,), 7), every)
    assert float(torch.exp(-found).sum()) == pytest.approx(1.0, abs=1e-6)


def test_the_copy_gate_at_its_limits(model: Any) -> None:
    inputs, targets, at = torch.tensor([5, 9, 30]), torch.tensor([5, 9, 31]), states(3)
    opened = losses(model, 60.0, at, inputs, targets)
    assert opened[:2].abs().max() < 1e-6  # a copied token that was not replaced costs nothing
    assert opened[2] > 50  # one that was replaced cannot be predicted
    logits = model.mlm_head(at, model.encoder.embedding.word.weight).detach()
    plain = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    torch.testing.assert_close(losses(model, -60.0, at, inputs, targets), plain, rtol=1e-6, atol=1e-6)


def test_padding_counts_nothing_in_all_tokens(model: Any) -> None:
    inputs, at = torch.tensor([5, 9, 30]), states(3)
    some = model.all_tokens_loss(at, inputs, inputs, torch.tensor([True, False, True]))
    parts = losses(model, float(model.copy_gate.dense.bias.detach()), at, inputs, inputs)
    torch.testing.assert_close(some[0].detach(), parts[[0, 2]].sum())
    assert int(some[1]) <= 2


# --- refusals -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["method.generator_width=0.6"], ["method.generator_width=0.6", "19 of model.hidden=32", "0.25"]),
        (["method.tie=all"], ["method.tie=all", "Set both to 1"]),
        (["share.inner=2", "method.generator_depth=0.5"], ["1 layers of the generator", "share.inner=2"]),
        (["method.generator=uniform", "method.disallow_correct=true"], ["method.disallow_correct=true", "uniform"]),
        (["method=mlm", "method.generator_width=0.5"], ["method.generator_width=0.5", "no effect with method=mlm"]),
        (
            ["method.generator=unigram", "method.tie=none"],
            ["method.tie=none", "no effect with method.generator=unigram"],
        ),
        (["method=electra_two_stage", "method.generator_width=0.5"], ["method=electra_two_stage", "Set both to 1"]),
        (["method=electra_two_stage", "method.generator=uniform"], ["method.generator=uniform", "Use learned"]),
        (["method=electra_two_stage", "method.tie=all"], ["method.tie=all", "Use method.tie=none"]),
        (
            ["method=replace_mlm", "method.discriminator_weight=1"],
            ["method.discriminator_weight=1", "method=replace_mlm"],
        ),
    ],
)
def test_settings_that_have_no_effect_are_refused(shared: Path, settings: list[str], words: list[str]) -> None:
    method = [] if settings[0].startswith("method=") else ["method=electra"]
    heads = ["model.heads=4"] if "0.6" in settings[0] else []
    with pytest.raises(ConfigError) as refusal:
        tiny_config(shared, *method, *heads, *settings)
    assert all(word in str(refusal.value) for word in words), str(refusal.value)


def test_terms_have_always_the_same_names(config_of: Callable[..., RunConfig]) -> None:
    for method, name in (("electra", "replaced"), ("replace_mlm", "replace_mlm"), ("all_tokens_mlm", "all_tokens_mlm")):
        made, model, batch = prepared(config_of(method=method))
        terms: tuple[Term, ...] = made.terms(model, batch)
        assert [term.name for term in terms] == ["generator", name, "sentence"]
