"""A student's losses over layers: against transformers, against plain loops, and at points where they are known."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from modelhelpers import blocks_of
from test_huggingface_parity import architecture, bert, inputs, ours
from torch import Tensor
from torch.nn import functional as F

from albert_ablate.axes import Share
from albert_ablate.model.architecture import Architecture
from albert_ablate.model.attention import PATTERNS, Pattern
from albert_ablate.model.blocks import KINDS, LAYERS
from albert_ablate.model.imitation import (
    Imitation,
    ImitationSettings,
    Observed,
    has_scores,
    layers_of,
    observe,
    observing_flops,
)
from albert_ablate.model.pretraining import PretrainingModel, build_model, initialise

PAPER = ImitationSettings(1.0, 1.0, 1.0, "uniform", "scores", "paper", "left_out")
SHARES = [Share.ALL, Share.NONE]


def student_shape(**other: Any) -> Architecture:
    """Three layers, half as wide as the six of the teacher, with as many heads."""
    return replace(architecture(Share.ALL, 16), hidden_size=24, layers=3, intermediate_size=48, **other)


def shown(
    model: PretrainingModel, text: tuple[Tensor, Tensor, Tensor], layers: tuple[int, ...], target: str | None = "scores"
) -> Observed:
    return observe(model.encoder, *text, layers, target)  # type: ignore[arg-type]


def both(settings: ImitationSettings, text: tuple[Tensor, Tensor, Tensor]) -> tuple[Imitation, Observed, Observed]:
    """Projections, and what a student and its teacher show of ``text``."""
    student, teacher = student_shape(), architecture(Share.NONE, 48)
    imitation = Imitation(settings, student, teacher)
    initialise(imitation, 0.2, seed=1)
    mine, theirs = settings.pairs(student.layers, teacher.layers)
    return (
        imitation,
        shown(ours(student), text, mine, settings.target),
        shown(ours(teacher), text, theirs, settings.target),
    )


def padded(text: tuple[Tensor, Tensor, Tensor], columns: int) -> tuple[Tensor, ...]:
    return tuple(F.pad(grid, (0, columns)) for grid in text)


def text_of(batch: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, types and mask, with padding."""
    ids, types, mask = inputs(batch, length)
    return ids, types, mask.bool()


# --- which layers ---------------------------------------------------------------------------------


def test_layers_of_are_those_of_the_paper() -> None:
    assert layers_of("uniform", 4, 12) == (3, 6, 9, 12)
    assert layers_of("top", 4, 12) == (9, 10, 11, 12)
    assert layers_of("bottom", 4, 12) == (1, 2, 3, 4)
    assert all(layers_of(each, 6, 6) == (1, 2, 3, 4, 5, 6) for each in ("uniform", "top", "bottom"))


@pytest.mark.parametrize(
    ("layer_map", "m", "n"), [("uniform", 4, 6), ("uniform", 4, 2), ("top", 4, 3), ("bottom", 2, 1)]
)
def test_depths_that_do_not_fit_are_refused(layer_map: Any, m: int, n: int) -> None:
    with pytest.raises(ValueError, match="layers"):
        layers_of(layer_map, m, n)


def test_nothing_is_computed_above_what_is_compared() -> None:
    only_embedding = replace(PAPER, hidden_weight=0.0, attention_weight=0.0)
    assert only_embedding.pairs(4, 12) == ((), ())
    model, text = ours(architecture(Share.NONE, 48)), text_of(2, 9)
    calls: list[int] = []
    for block in blocks_of(model.encoder, "ffn"):
        block.on_cpu = lambda low: lambda y, call: (calls.append(call.layer), y)[1]  # type: ignore[func-returns-value]
    shown(model, text, (1, 3))
    assert calls == [0, 1, 2]
    shown(model, text, ())
    assert calls == [0, 1, 2]


# --- what is observed -----------------------------------------------------------------------------


@pytest.mark.parametrize("share", SHARES)
def test_states_and_attention_are_those_of_transformers(share: Share) -> None:
    model = ours(architecture(share, 48))
    theirs: Any = bert(model).bert
    ids, types, mask = text_of(3, 17)
    layers = (2, 4, 6)
    with torch.no_grad():
        out = theirs(ids, mask.long(), types, output_attentions=True, output_hidden_states=True)
        scores, probabilities = (shown(model, (ids, types, mask), layers, each) for each in ("scores", "probabilities"))
        torch.testing.assert_close(scores.embedding, out.hidden_states[0], rtol=0, atol=1e-5)
        for place, layer in enumerate(layers):
            real = mask[:, :, None]
            torch.testing.assert_close(scores.hidden[place] * real, out.hidden_states[layer] * real, rtol=0, atol=1e-4)
            block = theirs.encoder.layer[layer - 1].attention.self
            x = out.hidden_states[layer - 1]
            q, k = (part(x).view(3, 17, 4, 12).transpose(1, 2) for part in (block.query, block.key))
            raw = q @ k.transpose(-1, -2) / math.sqrt(12)
            bias = torch.where(mask, 0.0, -10000.0)[:, None, None]
            rows = mask[:, None, :, None]
            torch.testing.assert_close(scores.attention[place] * rows, raw * rows, rtol=1e-4, atol=1e-4)
            softmaxed = torch.softmax(scores.attention[place] + bias, -1)
            for found in (softmaxed, probabilities.attention[place]):
                torch.testing.assert_close(found * rows, out.attentions[layer - 1] * rows, rtol=0, atol=1e-5)


def test_a_hidden_key_has_score_0_and_no_probability(monkeypatch: pytest.MonkeyPatch) -> None:
    def causal(shape: Any, layer: int, positions: Tensor) -> Tensor:
        return (positions[:, None] >= positions)[None, None]

    monkeypatch.setitem(PATTERNS, "causal", Pattern(causal, lambda shape, length: length / 2))
    model, text = ours(architecture(Share.ALL, 48, pattern="causal")), text_of(2, 9)
    hidden = torch.ones(9, 9, dtype=torch.bool).triu(1)
    for target in ("scores", "probabilities"):
        found = shown(model, text, (2,), target).attention[0]
        assert not found[:, :, hidden].any()
        assert found[:, :, ~hidden].any()


def test_layers_without_scores_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LAYERS, "no attention", lambda shape: ("ffn", "ffn"))
    monkeypatch.setitem(PATTERNS, "own", replace(PATTERNS["full"], kernel=lambda q, k, v, view, drop: v))
    assert has_scores(architecture(Share.ALL, 48))
    for other in ({"layer_type": "no attention"}, {"pattern": "own"}):
        shape = architecture(Share.ALL, 48, **other)
        assert not has_scores(shape)
        with pytest.raises(ValueError, match="scores"):
            shown(ours(shape), text_of(2, 9), (1,))
        with pytest.raises(ValueError, match="scores"):
            observing_flops(PAPER, shape, (1,), 9)
        shown(ours(shape), text_of(2, 9), (1,), None)


def test_attention_may_follow_other_sub_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LAYERS, "ffn first", lambda shape: ("ffn", "attention"))
    shape = architecture(Share.NONE, 48, layer_type="ffn first")
    model, text = ours(shape), text_of(2, 9)
    found = shown(model, text, (2,)).attention[0]
    x = model.encoder.hidden_states(*text)[1]
    y = blocks_of(model.encoder, "ffn")[1](x, None)
    attention = blocks_of(model.encoder, "attention")[1]
    q, k = (m(y).view(2, 9, 4, 12).transpose(1, 2) for m in (attention.query, attention.key))
    torch.testing.assert_close(found, q @ k.transpose(2, 3) / math.sqrt(12), atol=1e-5, rtol=1e-5)
    products = 4 * 48 * shape.intermediate_size + 4 * 48 * 48 + 2 * 9 * 48
    assert observing_flops(PAPER, shape, (1, 2), 9) == 2 * 9 * products


# --- losses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("projections", ["paper", "shared", "per_layer"])
@pytest.mark.parametrize("target", ["scores", "probabilities"])
@pytest.mark.parametrize("padding", ["left_out", "released"])
@torch.no_grad()
def test_losses_are_those_of_a_plain_loop(projections: Any, target: Any, padding: Any) -> None:
    settings = replace(PAPER, projections=projections, attention_target=target, padding=padding)
    text = text_of(3, 7)
    mask = text[2]
    imitation, student, teacher = both(settings, text)
    wanted = {"embedding": 0.0, "hidden": 0.0, "attention": 0.0}
    released = padding == "released"
    for b in range(3):
        real = [t for t in range(7) if mask[b, t]]
        positions = list(range(7)) if released else real
        states = [(student.embedding, teacher.embedding), *zip(student.hidden, teacher.hidden, strict=True)]
        for place, (x, y) in enumerate(states):
            name = {"paper": "hidden" if place else "embedding", "shared": "shared",
                    "per_layer": f"hidden_{place}" if place else "embedding"}[projections]  # fmt: skip
            layer = imitation.get_submodule(name)
            for t in positions:
                projected = layer.weight @ x[b, t] + layer.bias  # type: ignore[operator]
                error = sum(float(d) ** 2 for d in projected - y[b, t]) / 48
                wanted["hidden" if place else "embedding"] += error / (7 if released else 1)
        for a, c in zip(student.attention, teacher.attention, strict=True):
            for i in positions:
                for j in positions:
                    if target == "scores" and not mask[b, j]:
                        continue
                    error = sum(float(a[b, n, i, j] - c[b, n, i, j]) ** 2 for n in range(4)) / 4
                    wanted["attention"] += error / (49 if released else 1)
    found = imitation.losses(student, teacher, mask)
    per = ["sequences"] * 3 if released else ["tokens", "tokens", "pairs"]
    assert [count for _, count in found.values()] == per
    assert {name: float(loss) for name, (loss, _) in found.items()} == pytest.approx(wanted, rel=1e-4)


def test_a_student_that_equals_its_teacher_loses_nothing() -> None:
    shape, text = architecture(Share.NONE, 48), text_of(2, 9)
    layers = tuple(range(1, 7))
    imitation = Imitation(PAPER, shape, shape)
    for name in ("embedding", "hidden"):
        layer = imitation.get_submodule(name)
        torch.nn.init.eye_(layer.weight)  # type: ignore[arg-type]
        torch.nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    first, second = (shown(ours(shape), text, layers) for _ in range(2))
    for loss, _ in imitation.losses(first, second, text[2]).values():
        assert float(loss.detach()) == pytest.approx(0.0, abs=1e-9)


def test_a_constant_on_a_row_of_scores_changes_only_the_raw_loss() -> None:
    """c squared for each pair of the row; the softmax does not see it."""
    c, text = 1.5, text_of(1, 9)
    text[2][:] = True
    shape = architecture(Share.NONE, 48)
    theirs = shown(ours(shape), text, (6,))
    moved = theirs.attention[0].clone()
    moved[:, :, 4] += c
    mine = replace(theirs, attention=(moved,))
    imitation = Imitation(replace(PAPER, embedding_weight=0.0, hidden_weight=0.0), shape, shape)
    assert float(imitation.losses(mine, theirs, text[2])["attention"][0].detach()) == pytest.approx(9 * c * c, rel=1e-5)
    mine, theirs = (Observed(x.embedding, x.hidden, tuple(a.softmax(-1) for a in x.attention)) for x in (mine, theirs))
    assert float(imitation.losses(mine, theirs, text[2])["attention"][0].detach()) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("target", ["scores", "probabilities"])
def test_padding_changes_nothing_unless_it_counts(target: Any) -> None:
    text = text_of(3, 9)
    for padding, same in (("left_out", True), ("released", False)):
        settings = replace(PAPER, attention_target=target, padding=padding)  # type: ignore[arg-type]
        found = []
        for grids in (text, padded(text, 4)):
            imitation, student, teacher = both(settings, grids)  # type: ignore[arg-type]
            found.append(
                {name: float(loss.detach()) for name, (loss, _) in imitation.losses(student, teacher, grids[2]).items()}
            )
        for name, loss in found[0].items():
            assert (found[1][name] == pytest.approx(loss, rel=1e-4)) is same, name


def test_padded_keys_count_as_equal_in_the_released_mean() -> None:
    settings = replace(PAPER, padding="released", embedding_weight=0.0, hidden_weight=0.0)
    text = text_of(2, 9)
    imitation, student, teacher = both(settings, text)
    before = imitation.losses(student, teacher, text[2])["attention"][0]
    keys = ~text[2][:, None, None, :]
    changed = replace(student, attention=tuple(a.masked_fill(keys, 77.0) for a in student.attention))
    assert torch.equal(imitation.losses(changed, teacher, text[2])["attention"][0], before)


@pytest.mark.parametrize("left_out", ["embedding_weight", "hidden_weight", "attention_weight"])
@pytest.mark.parametrize("projections", ["paper", "shared", "per_layer"])
def test_a_loss_of_weight_0_is_neither_computed_nor_projected(left_out: str, projections: Any) -> None:
    without: dict[str, Any] = {left_out: 0.0}
    settings = replace(PAPER, projections=projections, **without)
    imitation, student, teacher = both(settings, text_of(2, 9))
    names = [name for name in ("embedding", "hidden", "attention") if f"{name}_weight" != left_out]
    losses = imitation.losses(student, teacher, text_of(2, 9)[2])
    assert list(losses) == list(settings.weights) == names
    assert bool(student.attention) is (left_out != "attention_weight")
    sum(loss for loss, _ in losses.values()).backward()  # type: ignore[union-attr]
    assert all(p.grad is not None for p in imitation.parameters())
    shapes = student_shape(), architecture(Share.NONE, 48)
    assert sum(p.numel() for p in imitation.parameters()) == Imitation.count(settings, *shapes)


@pytest.mark.parametrize("padding", ["left_out", "released"])
def test_micro_batches_add_up(padding: Any) -> None:
    settings, text = replace(PAPER, padding=padding), text_of(4, 9)
    imitation, student, teacher = both(settings, text)
    whole = imitation.losses(student, teacher, text[2])
    parts = [
        imitation.losses(*(both(settings, tuple(grid[row : row + 1] for grid in text))[1:]), text[2][row : row + 1])  # type: ignore[arg-type]
        for row in range(4)
    ]
    for name, (loss, _) in whole.items():
        torch.testing.assert_close(sum(part[name][0] for part in parts), loss, rtol=1e-5, atol=1e-5)


def test_differences_are_taken_in_fp32() -> None:
    """In bf16 the difference of 256 and 257 would be 0."""
    shape = architecture(Share.NONE, 48)
    imitation = Imitation(replace(PAPER, embedding_weight=0.0, hidden_weight=0.0), shape, shape)
    one, other = torch.full((1, 1, 2, 2), 256.0).bfloat16(), torch.full((1, 1, 2, 2), 257.0)
    none = torch.zeros(1, 2, 48)
    loss, _ = imitation.losses(Observed(none, (), (one,)), Observed(none, (), (other,)), torch.ones(1, 2) > 0)[
        "attention"
    ]
    assert loss == 4
    assert loss.dtype == torch.float32


def test_scores_in_bf16_are_near_those_in_fp32() -> None:
    model, text = build_model(architecture(Share.ALL, 48), 0), text_of(2, 9)
    wide = shown(model, text, (3, 6))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = shown(model, text, (3, 6))
    for a, b in zip(low.attention, wide.attention, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=0.05, atol=0.05)


# --- counts ---------------------------------------------------------------------------------------


def test_flops_are_those_of_the_products() -> None:
    """T=9; the student has width 24 and 3 layers, the teacher width 48."""
    shapes = student_shape(), architecture(Share.NONE, 48)
    for projections, parameters in (("paper", 2), ("shared", 1), ("per_layer", 4)):
        settings = replace(PAPER, projections=projections)  # type: ignore[arg-type]
        assert Imitation.flops(settings, *shapes, 9) == 4 * 9 * 2 * 24 * 48
        assert Imitation.count(settings, *shapes) == parameters * (24 * 48 + 48)
    assert observing_flops(PAPER, shapes[0], (1, 2, 3), 9) == 3 * (9 * 4 * 24 * 24 + 2 * 9 * 9 * 24)
    assert observing_flops(replace(PAPER, attention_weight=0.0), shapes[0], (1, 2, 3), 9) == 0
    assert KINDS["ffn"].score_flops is None
