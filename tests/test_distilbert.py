"""DistilBERT: its losses, the student's first layers, its masks, and what is refused."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runhelpers import make_trainer, tiny_config
from torch import Tensor
from torch.nn import functional as F

from albert_ablate import streams
from albert_ablate.config.schema import MaskingConfig, RunConfig
from albert_ablate.data.masking import mask_batch, smoothed_weights
from albert_ablate.data.tokenizer import CLS, FIRST_PIECE, SEP
from albert_ablate.errors import ConfigError
from albert_ablate.methods import method_of
from albert_ablate.model.divergence import divergence
from albert_ablate.model.pretraining import build_model
from albert_ablate.model.student import begin_with, picked_layers
from albert_ablate.training.accumulate import _loss
from albert_ablate.training.budget import step_flops


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("distilbert")


@pytest.fixture(scope="module")
def config_of(shared: Path) -> Callable[..., RunConfig]:
    """A tiny student of two layers, whose teacher has four."""

    @cache
    def make(*more: str, method: str = "distilbert") -> RunConfig:
        return tiny_config(shared, f"method={method}", "objective=none", "share=none", *more)

    return make


def taught(config: RunConfig, teacher_seed: int = 7) -> tuple[Any, Any, Any]:
    """Method, student with a random teacher, and a batch; in fp64."""
    trainer, batches = make_trainer(config)
    model: Any = trainer.model.eval()
    method: Any = trainer.method
    model.learn_from(build_model(method.teacher_shape, teacher_seed, pooler=False))
    model.double()
    return method, model, batches[0]


def gradients(config: RunConfig, micro: int | None = None) -> dict[str, Tensor]:
    """Name -> gradient of the step's loss, from micro-batches of ``micro`` sequences."""
    method, model, batch = taught(config)
    for part in batch.micro(micro or len(batch)):
        _loss(method.terms(model, part), batch.counts()).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


# --- the divergence -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("piece", [64, 140, 1 << 24])
def test_the_divergence_is_torchs(
    temperature: float, weighted: bool, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flattened ``KLDivLoss(batchmean)`` times T squared, and its gradients; also when rows come in pieces."""
    monkeypatch.setattr("albert_ablate.model.divergence._PIECE", piece)
    monkeypatch.setattr("albert_ablate.model.divergence._INNER", 50)
    torch.manual_seed(0)
    x, table, bias = (torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in ((9, 4), (23, 4), (23,)))
    t_x, t_table, t_bias = (torch.randn(*s, dtype=torch.float64) for s in ((9, 6), (23, 6), (23,)))
    weights = torch.tensor([1, 1, 0, 1, 0, 1, 1, 1, 1]) == 1 if weighted else None
    kept = weights if weights is not None else torch.ones(9, dtype=torch.bool)
    s, t = F.linear(x, table, bias)[kept], F.linear(t_x, t_table, t_bias)[kept]
    loss = torch.nn.KLDivLoss(reduction="batchmean")
    expected = loss((s / temperature).log_softmax(-1), (t / temperature).softmax(-1)) * temperature**2 * len(s)
    found = divergence(x, table, bias, t_x, t_table, t_bias, weights, temperature)
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    for ours, theirs in zip(
        torch.autograd.grad(3 * found, (x, table, bias)),
        torch.autograd.grad(3 * expected, (x, table, bias)),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_closed_forms_of_the_divergence() -> None:
    """With identity tables the inputs are the logits s and t. KL + H(t) is soft cross-entropy; shifts do nothing."""
    torch.manual_seed(1)
    s, t = torch.randn(5, 7, dtype=torch.float64, requires_grad=True), torch.randn(5, 7, dtype=torch.float64)
    eye, zero = torch.eye(7, dtype=torch.float64), torch.zeros(7, dtype=torch.float64)

    def kl(s: Tensor, t: Tensor, temperature: float) -> Tensor:
        return divergence(s, eye, zero, t, eye, zero, None, temperature)

    p, log_q = (t / 2).softmax(-1), (s / 2).log_softmax(-1)
    entropy = -(p * p.log()).sum()
    assert (kl(s, t, 2.0) / 4 + entropy).item() == pytest.approx(-(p * log_q).sum().item())
    assert kl(s + 3, t - 5, 2.0).item() == pytest.approx(kl(s, t, 2.0).item())
    assert kl(t.clone().requires_grad_(), t, 2.0).item() == pytest.approx(0, abs=1e-12)
    (gradient,) = torch.autograd.grad(kl(s, t, 2.0), s)
    torch.testing.assert_close(gradient, 2 * ((s / 2).softmax(-1) - p).detach())
    (hot,) = torch.autograd.grad(kl(s, t, 1e6), s)
    difference = (s - s.mean(-1, keepdim=True) - t + t.mean(-1, keepdim=True)).detach()
    torch.testing.assert_close(hot, difference / 7, rtol=1e-4, atol=1e-6)


# --- the step -------------------------------------------------------------------------------------------------


def test_the_losses_are_the_definitions(config_of: Callable[..., RunConfig]) -> None:
    """Each from logits and states of both networks, token by token."""
    method, model, batch = taught(config_of())
    read = batch.input_ids, batch.type_ids, batch.mask
    with torch.no_grad():
        states, target = model.encoder(*read), model.teacher.encoder(*read)
        logits = model.mlm_head(states, model.encoder.embedding.word.weight)
        aims = model.teacher.mlm_head(target, model.teacher.encoder.embedding.word.weight)
    kl, cosine = 0.0, 0.0
    for row, column in batch.mask.nonzero().tolist():
        p, log_q = (aims[row, column] / 2).softmax(-1), (logits[row, column] / 2).log_softmax(-1)
        kl += 4 * (p * (p.log() - log_q)).sum().item()
        a, b = states[row, column], target[row, column]
        cosine += 1 - (a @ b / (a.norm() * b.norm())).item()
    mlm = F.cross_entropy(logits.flatten(0, 1)[batch.positions], batch.targets, reduction="sum").item()
    terms = {term.name: term for term in method.terms(model, batch)}
    assert {name: term.loss_sum.item() for name, term in terms.items()} == pytest.approx(
        {"kl": kl, "mlm": mlm, "cosine": cosine}, rel=1e-6
    )
    assert {name: (term.per, term.weight) for name, term in terms.items()} == {
        "kl": ("tokens", 5.0), "mlm": ("masked", 2.0), "cosine": ("tokens", 1.0),
    }  # fmt: skip


def test_the_divergence_at_masked_positions_only(config_of: Callable[..., RunConfig]) -> None:
    method, model, batch = taught(config_of("method.kl_positions=masked"))
    with torch.no_grad():
        read = batch.input_ids, batch.type_ids, batch.mask
        states, target = (net.encoder(*read).flatten(0, 1)[batch.positions] for net in (model, model.teacher))
        s = model.mlm_head(states, model.encoder.embedding.word.weight)
        t = model.teacher.mlm_head(target, model.teacher.encoder.embedding.word.weight)
    expected = 4 * F.kl_div((s / 2).log_softmax(-1), (t / 2).softmax(-1), reduction="sum")
    term = method.terms(model, batch)[0]
    assert term.per == "masked"
    assert term.loss_sum.item() == pytest.approx(expected.item(), rel=1e-6)


def test_a_student_that_is_its_teacher_has_nothing_to_learn(config_of: Callable[..., RunConfig]) -> None:
    """With all layers and token types the first losses and their gradients are 0, and the logits are the teacher's."""
    config = config_of("method.teacher_depth=1", "method.token_types=true", "method.copy_transform=true")
    method, model, batch = taught(replace(config, method=replace(config.method, mlm_weight=0.0)))
    begin_with(model, model.teacher, transform=True)
    terms = method.terms(model, batch)
    assert [term.name for term in terms] == ["kl", "cosine"]
    assert max(term.loss_sum.item() for term in terms) < 1e-5
    _loss(terms, batch.counts()).backward()
    assert max(p.grad.abs().max().item() for p in model.parameters() if p.grad is not None) < 1e-5
    states = model.encoder(batch.input_ids, batch.type_ids, batch.mask)
    theirs = model.teacher.encoder(batch.input_ids, batch.type_ids, batch.mask)
    logits = model.token_logits(states.flatten(0, 1))
    torch.testing.assert_close(logits, model.teacher.token_logits(theirs.flatten(0, 1)))


@pytest.mark.parametrize("dropped", ["kl", "mlm", "cosine"])
def test_a_loss_of_weight_zero_is_left_out_and_the_rest_stays(
    config_of: Callable[..., RunConfig], dropped: str
) -> None:
    """The arms of the paper's Table 4 share batches, masks, teacher and first weights."""
    method, model, batch = taught(config_of())
    whole = {term.name: term.loss_sum.item() for term in method.terms(model, batch)}
    method, model, other = taught(config_of(f"method.{dropped}_weight=0"))
    rest = {term.name: term.loss_sum.item() for term in method.terms(model, other)}
    assert torch.equal(batch.input_ids, other.input_ids)
    assert torch.equal(batch.positions, other.positions)
    assert rest == {name: value for name, value in whole.items() if name != dropped}


@pytest.mark.parametrize("positions", ["all", "masked"])
def test_any_division_of_the_batch_gives_the_same_gradient(config_of: Callable[..., RunConfig], positions: str) -> None:
    config = config_of(f"method.kl_positions={positions}")
    whole, parts = gradients(config), gradients(config, micro=3)
    assert whole.keys() == parts.keys()
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, rtol=1e-7, atol=1e-10)


def test_padding_changes_nothing(config_of: Callable[..., RunConfig]) -> None:
    method, model, batch = taught(config_of())
    width = batch.input_ids.shape[1]
    cut = int(batch.mask.sum(1).max())
    keep = slice(0, cut)
    row, column = np.divmod(batch.positions.numpy(), width)
    shorter = replace(
        batch, input_ids=batch.input_ids[:, keep], type_ids=batch.type_ids[:, keep], mask=batch.mask[:, keep],
        positions=torch.from_numpy(row * cut + column),
    )  # fmt: skip
    for ours, theirs in zip(method.terms(model, batch), method.terms(model, shorter), strict=True):
        torch.testing.assert_close(ours.loss_sum, theirs.loss_sum, rtol=1e-6, atol=1e-6)


def test_the_teacher_is_neither_trained_nor_saved_and_has_no_dropout(config_of: Callable[..., RunConfig]) -> None:
    config = config_of("model.hidden_dropout=0.1", "model.attention_dropout=0.1")
    trainer, batches = make_trainer(config)
    model: Any = trainer.model
    before = {name: tensor.clone() for name, tensor in model.teacher.state_dict().items()}
    for step in range(3):
        trainer.update(step, batches[step])
    assert model.training
    assert not model.teacher.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.teacher.state_dict().items())
    assert not any("teacher" in name for name in model.state_dict())
    assert {id(p) for p in model.parameters()}.isdisjoint(id(p) for p in model.teacher.parameters())
    batch = batches[0]
    read = batch.input_ids, batch.type_ids, batch.mask
    assert torch.equal(model.teacher.encoder(*read), model.teacher.encoder(*read))
    assert model.double().teacher.mlm_head.bias.dtype == torch.float64  # it goes where the student goes


def test_bf16_is_near_fp32(config_of: Callable[..., RunConfig]) -> None:
    found = {}
    for precision in ("fp32", "bf16"):
        trainer, batches = make_trainer(config_of("budget.steps=20"), precision=precision)
        found[precision] = [trainer.update(k, batches[k]).means(batches[k].counts()) for k in range(20)]
    for wide, low in zip(found["fp32"], found["bf16"], strict=True):
        assert {k: v for k, v in low.items() if k.endswith("_loss")} == pytest.approx(
            {k: v for k, v in wide.items() if k.endswith("_loss")}, abs=0.05
        )


# --- the first layers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("student", "teacher", "picked"),
    [(6, 12, [0, 2, 4, 7, 9, 11]), (3, 6, [0, 2, 5]), (2, 6, [0, 5]), (2, 3, [0, 2]), (3, 3, [0, 1, 2]), (1, 4, [0])],
)
def test_the_picked_layers(student: int, teacher: int, picked: list[int]) -> None:
    assert picked_layers(student, teacher) == picked


def test_the_student_begins_with_layers_and_tables_of_its_teacher(config_of: Callable[..., RunConfig]) -> None:
    method, model, _ = taught(config_of("method.teacher_depth=3"))  # 2 of 6 layers
    random = method.new_model().double().state_dict()
    begin_with(model, model.teacher, transform=False)
    ours, theirs = model.state_dict(), model.teacher.state_dict()
    for name, tensor in ours.items():
        if name.startswith(("encoder.attention.", "encoder.ffn.")):
            bank, block, rest = name.removeprefix("encoder.").split(".", 2)
            assert torch.equal(tensor, theirs[f"encoder.{bank}.{ {'0': 0, '1': 5}[block] }.{rest}"]), name
        elif name.startswith("encoder.") or name == "mlm_head.bias":
            assert torch.equal(tensor, theirs[name]), name
        else:
            assert torch.equal(tensor, random[name]), name
    begin_with(model, model.teacher, transform=True)
    assert torch.equal(model.state_dict()["mlm_head.dense.weight"], theirs["mlm_head.dense.weight"])


def test_shared_layers_begin_with_the_shared_layer_of_the_teacher(config_of: Callable[..., RunConfig]) -> None:
    _, model, _ = taught(config_of("share=all"))
    begin_with(model, model.teacher, transform=False)
    assert torch.equal(model.encoder.ffn[0].inner.weight, model.teacher.encoder.ffn[0].inner.weight)


# --- sizes ----------------------------------------------------------------------------------------------------


def test_parameters_are_those_of_the_paper(config_of: Callable[..., RunConfig]) -> None:
    """66.36 M of the student and 0.62 M of its head; 108.89 M of BERT-base (transformers' DistilBERT)."""
    base = ["model.layers=6", "model.hidden=768", "model.heads=12", "model.intermediate=3072", "embed.size=768",
            "model.max_positions=512", "tokenizer.vocab_size=30522"]  # fmt: skip
    method: Any = method_of(config_of(*base))
    counted = method.parameters()
    assert (counted.encoder, counted.pooler, counted.heads) == (66_362_880, 0, {"mlm_head": 622_650})
    assert counted.encoder == counted.with_pooler
    assert method.teacher_shape.parameters().encoder == 108_891_648


@pytest.mark.parametrize("objective", ["none", "sop"])
@pytest.mark.parametrize("method", ["distilbert", "mlm"])
@pytest.mark.parametrize("token_types", ["true", "false"])
def test_counted_parameters_are_those_of_the_model(shared: Path, objective: str, method: str, token_types: str) -> None:
    config = tiny_config(
        shared,
        f"method={method}",
        f"objective={objective}",
        f"method.token_types={token_types}",
        "method.pooler=trained",
    )
    model: Any = method_of(config).build({})
    assert sum(p.numel() for p in model.parameters()) == method_of(config).parameters().with_heads
    assert hasattr(model, "pooler") == hasattr(model, "sentence_head") == (objective == "sop")


def test_flops_count_the_teachers_pass(config_of: Callable[..., RunConfig]) -> None:
    """Three passes of the student with the vocabulary at every token, once more at masks, and one of the teacher."""
    config = config_of()
    method: Any = method_of(config)
    ours, theirs, length = config.architecture(), method.teacher_shape, config.pairs.max_length
    e, h, v = ours.embedding_size, ours.hidden_size, ours.vocab_size
    head = 2 * (h * e + e * v)
    student = 3 * (ours.encoder_flops(length) + head * (length + 0.15 * length))
    teacher = theirs.encoder_flops(length) + head * length
    assert step_flops(config) == pytest.approx((student + teacher) * config.batch.size, rel=1e-6)
    assert method.teacher_flops() == pytest.approx(teacher)
    alone: Any = method_of(config_of("method.kl_weight=0", "method.cosine_weight=0"))
    assert alone.teacher_flops() == 0


# --- masks ----------------------------------------------------------------------------------------------------


def smoothed(rows: int, smoothing: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(ids, lengths, positions) of a batch of two pieces, one nine times as frequent, masked with ``smoothing``."""
    width = 22
    ids = np.zeros((rows, width), dtype=np.int32)
    lengths = np.full(rows, 12)
    lengths[::2] = width
    for row, length in enumerate(lengths):
        ids[row, :length] = FIRST_PIECE
        ids[row, 1:length:10] = FIRST_PIECE + 1
        ids[row, 0], ids[row, length - 1] = CLS, SEP
    text = ids[ids >= FIRST_PIECE]
    weights = smoothed_weights(np.concatenate([text, text]), FIRST_PIECE + 2, smoothing)
    masking = MaskingConfig(0.15, 3, None, None, "whole", "auto", "smoothed", smoothing)
    keys = streams.hashed(streams.key(seed, "test"), np.arange(rows))
    masked = mask_batch(ids, lengths, np.ones((rows, 2), int), np.zeros(FIRST_PIECE + 2, bool), keys, masking, weights)
    return ids, lengths, masked.positions


def test_smoothed_masks_have_the_released_number_and_spare_special_tokens() -> None:
    ids, lengths, positions = smoothed(rows=7, smoothing=0.7, seed=0)
    assert len(positions) == len(set(positions.tolist())) == int(np.ceil(0.15 * lengths.sum()))
    assert (ids.reshape(-1)[positions] >= FIRST_PIECE).all()
    assert (np.diff(positions) > 0).all()


@pytest.mark.parametrize("smoothing", [0.0, 0.7])
def test_smoothed_masks_prefer_rare_pieces(smoothing: float) -> None:
    """In a large batch the odds of both pieces are near the ratio of their weights (draws without replacement)."""
    chosen, available = np.zeros(2), np.zeros(2)
    for seed in range(20):
        ids, _, positions = smoothed(rows=60, smoothing=smoothing, seed=seed)
        chosen += np.bincount(ids.reshape(-1)[positions] - FIRST_PIECE, minlength=2)
        available += [(ids == FIRST_PIECE).sum(), (ids == FIRST_PIECE + 1).sum()]
    common, rare = np.log(1 - chosen / available)  # of draws without replacement: log(1 - share) is as the weight
    expected = (available[0] / available[1]) ** smoothing
    assert rare / common == pytest.approx(expected, rel=0.08)


def test_a_run_with_smoothed_masks_is_held_out_as_all_others(config_of: Callable[..., RunConfig]) -> None:
    trainer, batches = make_trainer(config_of("masking.draw=smoothed"))
    batch = batches[0]
    assert len(batch.targets) == int(np.ceil(0.15 * int(batch.mask.sum())))
    assert not trainer.static_shapes
    assert batches[0].positions.tolist() == batch.positions.tolist()
    with pytest.raises(ConfigError, match=r"masking.smoothing=0.5: no effect with masking.draw=spans"):
        config_of("masking.smoothing=0.5")


# --- refusals -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("method.kl_weight=0", "method.mlm_weight=0", "method.cosine_weight=0"), "nothing is left to learn"),
        (("method.teacher_depth=1.3",), "Say a multiple that gives whole layers"),
        (("method.teacher_width=1.03",), "heads do not divide"),
        (("method.teacher_run=abc",), "it is filled in"),
        (("method.teacher=nowhere",), "method.teacher=nowhere: no run folder"),
        (("method.temperature=2",), "no effect with method=distilbert"),
    ],
)
def test_wrong_settings_are_refused(
    config_of: Callable[..., RunConfig], settings: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        config_of(*settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("method.teacher_width=2",), "method.cosine_weight=1: states of width 32 and the teacher's of 64"),
        (("method.teacher_width=2", "method.cosine_weight=0"), "method.start=teacher: model.hidden=32"),
        (("warm_start.layers=[1]",), "warm_start.layers=.1.: a student"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(
    config_of: Callable[..., RunConfig], settings: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        method_of(config_of(*settings)).parents()


@pytest.mark.parametrize("setting", ["method.kl_weight=1", "method.teacher=x", "method.start=teacher"])
def test_other_methods_refuse_a_students_settings(config_of: Callable[..., RunConfig], setting: str) -> None:
    with pytest.raises(ConfigError, match=rf"{setting}: no effect with method=mlm"):
        config_of(setting, method="mlm")
