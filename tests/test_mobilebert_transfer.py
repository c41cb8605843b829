"""MobileBERT's knowledge transfer: losses, stages, rates and what is refused."""

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runhelpers import make_batches, make_trainer, newest_checkpoint, run, start, stopped_in, timeless, tiny_config
from safetensors.torch import load_file
from torch import Tensor

from albert_ablate.config.schema import RunConfig
from albert_ablate.door.compose import compose
from albert_ablate.errors import ConfigError
from albert_ablate.files import read_json
from albert_ablate.methods import method_of
from albert_ablate.methods.batch import StepBatches
from albert_ablate.methods.mobilebert import LAYER_RATES
from albert_ablate.methods.stages import Stage, share_within, shares, stage_at
from albert_ablate.model import transfer
from albert_ablate.model.dropout import Dropout
from albert_ablate.record.folder import RunFolder
from albert_ablate.sweeping import calibration
from albert_ablate.sweeping.calibration import _SCHEDULE, _position
from albert_ablate.sweeping.estimate import Calibration, on_this_machine
from albert_ablate.training.accumulate import _loss
from albert_ablate.training.optimizers import scale_of
from albert_ablate.training.trainer import Trainer

FORM = (
    "block=mobilebert", "model.block_width=16", "model.feed_forwards=2", "model.norm_type=no_norm",
    "model.activation=relu", "model.trigram=true", "model.table_width=hidden", "model.lm_head=extended",
    "model.layers=3", "share=none",
)  # fmt: skip
STUDENT = (*FORM, "method=mobilebert", "method.teacher_inside=4")
Configured = Callable[..., RunConfig]
B, T, H, N = 3, 7, 16, 2


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("transfer")


@pytest.fixture(scope="module")
def config_of(shared: Path) -> Configured:
    @cache
    def make(*more: str) -> RunConfig:
        return tiny_config(shared, *STUDENT, *more)

    return make


def prepared(config: RunConfig, stage: int, step: int = 0) -> tuple[Any, Any, Any]:
    """Method, model with a random teacher in the stage, and a batch."""
    method = method_of(config)
    model: Any = method.rehearsal().eval()
    method.begin(model, stage)
    return method, model, make_batches(config)[step]


# --- losses ---------------------------------------------------------------------------------------


def maps() -> tuple[Tensor, Tensor, Tensor]:
    """Feature maps of student and teacher, and the mask of real tokens."""
    draw = torch.Generator().manual_seed(3)
    mask = torch.arange(T) < torch.tensor([T, 3, 5])[:, None]
    return torch.randn(B, T, H, generator=draw), 2 * torch.randn(B, T, H, generator=draw) + 0.3, mask


def attentions() -> tuple[Tensor, Tensor]:
    draw, mask = torch.Generator().manual_seed(4), maps()[2]
    scores = [torch.randn(B, N, T, T, generator=draw).masked_fill(~mask[:, None, None], -1e4) for _ in range(2)]
    return scores[0].softmax(-1), scores[1].softmax(-1)


def test_losses_are_those_of_numpy() -> None:
    x, y, mask = maps()
    a, b, real = x.double().numpy(), y.double().numpy(), mask.numpy()

    def normed(z: Any) -> Any:
        return (z - z.mean(-1, keepdims=True)) / z.std(-1, keepdims=True)

    expected = {
        "feature": ((normed(a) - normed(b)) ** 2).mean(-1)[real].sum(),
        "plain": ((a - b) ** 2).mean(-1)[real].sum(),
        "mean": ((a.mean(-1) - b.mean(-1)) ** 2)[real].sum(),
        "spread": np.abs(a.var(-1) - b.var(-1))[real].sum(),
    }
    found = {
        "feature": transfer.feature_loss(x, y, mask, "normalised"), "plain": transfer.feature_loss(x, y, mask, "plain"),
        "mean": transfer.mean_loss(x, y, mask), "spread": transfer.spread_loss(x, y, mask),
    }  # fmt: skip
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value, rel=1e-6), name
    p, q = attentions()
    s, t = p.double().numpy(), q.double().numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        divergence = np.where(t > 0, t * (np.log(t) - np.log(s)), 0).sum(-1)
        entropy = -np.where(t > 0, t * np.log(t), 0).sum(-1)
    wanted = (divergence + entropy).mean(1)[real].sum()
    assert transfer.map_loss(p, q, mask).item() == pytest.approx(wanted, rel=1e-6)
    assert transfer.map_loss(q, q, mask).item() == pytest.approx(entropy.mean(1)[real].sum(), rel=1e-6)


def test_losses_of_a_perfect_student_are_zero() -> None:
    x, _, mask = maps()
    forms: tuple[transfer.FeatureForm, ...] = ("normalised", "plain")
    for form in forms:
        assert transfer.feature_loss(x, x, mask, form) == 0
    assert transfer.mean_loss(x, x, mask) == transfer.spread_loss(x, x, mask) == 0
    p = attentions()[0].requires_grad_()
    loss = transfer.map_loss(p, p.detach(), mask)
    (gradient,) = torch.autograd.grad(loss, p)
    real = mask[:, None, :, None] & mask[:, None, None, :]
    torch.testing.assert_close(gradient[real.expand_as(gradient)], torch.full_like(p[real.expand_as(p)], -1 / N))


def test_padding_counts_nowhere() -> None:
    x, y, mask = maps()
    other = torch.where(mask[:, :, None], x, 9.0)
    for loss in (transfer.mean_loss, transfer.spread_loss):
        assert loss(x, y, mask) == loss(other, y, mask)
    assert transfer.feature_loss(x, y, mask, "plain") == transfer.feature_loss(other, y, mask, "plain")


# --- terms of a stage -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "names"),
    [
        (("method.transfer=progressive",), [["feature", "mean", "spread", "map"]] * 3 + [["kl", "mlm", "sentence"]]),
        (("method.transfer=joint",), [["feature", "mean", "spread", "map"], ["kl", "mlm", "sentence"]]),
        (("method.transfer=auxiliary",), [["feature", "mean", "spread", "map", "kl", "mlm", "sentence"]]),
        (("method.transfer=none", "objective=none"), [["kl", "mlm"]]),
        (
            ("method.map_weight=0", "method.mean_weight=0", "method.alpha=1"),
            [["feature", "spread"]] * 3 + [["mlm", "sentence"]],
        ),
    ],
    ids=str,
)  # fmt: skip
def test_each_stage_has_its_losses(more: tuple[str, ...], names: list[list[str]], config_of: Configured) -> None:
    config = config_of(*more)
    assert len(method_of(config).stages) == len(names)
    for stage, expected in enumerate(names):
        method, model, batch = prepared(config, stage)
        terms = method.terms(model, batch)
        assert [term.name for term in terms] == expected
        weights = {term.name: term.weight for term in terms}
        assert weights.get("feature", 100 / 3) == pytest.approx(100 / 3)
        assert weights.get("kl", 0.5) == weights.get("mlm", 0.5) == 0.5 or more[-1] == "method.alpha=1"
        _loss(terms, batch.counts()).backward()
        assert not any(p.grad is not None for p in model.teacher.parameters())


def test_the_losses_of_a_stage_are_those_of_its_layer(config_of: Configured) -> None:
    config = config_of()
    for stage in range(3):
        method, model, batch = prepared(config, stage)
        found = {term.name: term.loss_sum.item() for term in method.terms(model, batch)}
        text = (batch.input_ids, batch.type_ids, batch.mask)
        ours, theirs = (net.encoder.hidden_states(*text)[stage + 1] for net in (model, model.teacher))
        assert found["feature"] == pytest.approx(transfer.feature_loss(ours, theirs, batch.mask, "normalised").item())
        assert found["spread"] == pytest.approx(transfer.spread_loss(ours, theirs, batch.mask).item())


def test_alpha_1_is_masked_lm_and_alpha_0_ignores_the_text(config_of: Configured, shared: Path) -> None:
    plain = tiny_config(shared, *FORM)
    for alpha in (1, 0):
        config = config_of(f"method.alpha={alpha}", "method.transfer=none", "method.start=random")
        method, model, batch = prepared(config, 0)
        terms = method.terms(model, batch)
        if alpha == 1:
            masked = method_of(plain)
            same = masked.build({}).eval()
            for mine, other in zip(terms, masked.terms(same, batch), strict=True):
                assert (mine.name, mine.loss_sum.item(), mine.weight) == (other.name, other.loss_sum.item(), 1.0)
            continue
        assert [term.name for term in terms] == ["kl", "sentence"]
        batch.targets[:] = 7
        assert method.terms(model, batch)[0].loss_sum == terms[0].loss_sum


def test_distillation_is_the_cross_entropy_with_mixed_targets(config_of: Configured) -> None:
    config = config_of("method.alpha=0.3", "method.transfer=none", "objective=none")
    method, model, batch = prepared(config, 0)
    for module in (model, model.teacher):
        module.double()
    kl, mlm = (term.loss_sum for term in method.terms(model, batch))
    text = (batch.input_ids, batch.type_ids, batch.mask)
    ours, theirs = (
        net.token_logits(net.encoder(*text).flatten(0, 1)[batch.positions]) for net in (model, model.teacher)
    )
    target = 0.3 * torch.nn.functional.one_hot(batch.targets.long(), ours.shape[1]) + 0.7 * theirs.softmax(-1)
    wanted = -(target * ours.log_softmax(-1)).sum()
    entropy = -(theirs.softmax(-1) * theirs.log_softmax(-1)).sum()
    assert (0.7 * kl + 0.3 * mlm).item() == pytest.approx((wanted - 0.7 * entropy).item(), rel=1e-6)


# --- stages ---------------------------------------------------------------------------------------


def test_shares_of_the_schedule() -> None:
    stages = (Stage(0.25), Stage(0.5), Stage(1.0))
    assert shares(stages) == [0.25, 0.25, 0.5]
    assert [stage_at(stages, share) for share in (0, 0.24, 0.25, 0.49, 0.5, 0.99, 1.0)] == [0, 0, 1, 1, 2, 2, 2]
    assert share_within(stages, 1, 0.3) == pytest.approx(0.2)
    assert share_within(stages, 2, 1.0) == 1


@pytest.mark.parametrize("rates", LAYER_RATES)
@pytest.mark.parametrize("optimizer", ["lamb", "adamw"])
def test_progressive_stages_leave_all_else_as_it_was(rates: str, optimizer: str, config_of: Configured) -> None:
    config = config_of(
        "budget.steps=12", "method.transfer_share=0.75", f"method.stage_rates={rates}", f"optimizer={optimizer}"
    )
    trainer, batches = make_trainer(config)
    model: Any = trainer.model
    at, below = LAYER_RATES[rates]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for stage in range(4):
        first = {name: value.clone() for name, value in model.state_dict().items()}
        for step in range(3 * stage, 3 * stage + 3):
            trainer.update(step, batches[step])
        after = model.state_dict()
        moved = {name for name, value in after.items() if not torch.equal(value, first[name])}
        factors = {id(p): scale_of(group) for group in trainer.optimizer.param_groups for p in group["params"]}
        for name, parameter in model.named_parameters():
            kind, entry = (name.split(".")[1:3] if name.startswith("encoder.") else ("", "")) if stage < 3 else ("", "")
            layer = int(entry) // (2 if kind == "inner_ffn" else 1) if entry.isdigit() else None
            expected = 0.0 if layer is None or layer > stage else at if layer == stage else below
            expected = 1.0 if stage == 3 else expected
            assert factors[id(parameter)] == expected, name
            if expected == 0:
                assert name not in moved
                assert parameter.grad is None
        assert any(f"reduction.{min(stage, 2)}" in name for name in moved)
    assert any(not torch.equal(value, before[name]) for name, value in model.state_dict().items() if "word" in name)


def test_rates_of_the_stages(config_of: Configured) -> None:
    config = config_of("budget.steps=100", "budget.warmup_steps=10", "method.transfer_share=0.6")
    trainer, batches = make_trainer(config)
    batch, found = batches[0], {}
    for step in (0, 1, 10, 20, 39, 60, 62, 64, 99):
        trainer.update(step, batch)
        found[step] = trainer.learning_rate / config.optimizer.learning_rate
    assert found[0] == 0
    assert found[1] == pytest.approx(0.5)  # of the first 2 of 20 steps
    assert found[10] == pytest.approx(0.9 + 0.1 * math.sqrt(0.5))
    assert found[20] == pytest.approx(0, abs=1e-9)
    assert found[39] == pytest.approx(0.9 + 0.1 * math.sqrt(0.05))
    assert found[60] == 0
    assert found[62] == pytest.approx(0.5)
    assert found[64] == pytest.approx(0.9)  # decay counts from the start of the distillation
    assert found[99] == pytest.approx(1 / 40, abs=1e-9)
    flat = config_of("budget.steps=100", "method.transfer=joint", "method.stage_ramp=none")
    trainer, batches = make_trainer(flat)
    trainer.update(0, batch)
    assert trainer.learning_rate == flat.optimizer.learning_rate


def test_the_student_has_no_dropout_and_begins_with_the_teachers_embedding(config_of: Configured) -> None:
    config = config_of("model.hidden_dropout=0.1", "model.attention_dropout=0.1")
    model: Any = method_of(config).rehearsal()
    assert not any(module.rate for module in model.modules() if isinstance(module, Dropout))
    assert model.shape.attention_dropout == 0
    theirs = model.teacher
    assert torch.equal(model.encoder.embedding.projection.weight, theirs.encoder.embedding.projection.weight)
    assert torch.equal(model.mlm_head.extra, theirs.mlm_head.extra)
    assert model.encoder.embedding.norm.weight.eq(1).all()  # of another type than the teacher's


@pytest.mark.parametrize(
    "more", [(), ("method.transfer=joint",), ("method.transfer=auxiliary",), ("method.map_weight=0",)]
)
def test_flops_are_the_mean_over_the_schedule(more: tuple[str, ...], config_of: Configured) -> None:
    from albert_ablate.model.imitation import scores_flops

    config = config_of("method.pooler=trained", "objective=none", *more)
    method: Any = method_of(config)
    own, other, t = config.architecture(), method.teacher_shape, config.pairs.max_length
    masked = method.masked

    def passes(shape: Any, depth: int, compared: int) -> float:
        layer = (shape.encoder_flops(t) - shape.lookup_flops(0) - embedding(shape)) / 3
        maps = 0 if "method.map_weight=0" in more else compared * scores_flops(shape, t)
        return embedding(shape) + depth * layer + maps

    def embedding(shape: Any) -> float:
        return t * 2 * 3 * shape.embedding_size * shape.hidden_size

    def distilled(compared: int) -> tuple[float, float]:
        mine = passes(own, 3, compared) + own.token_head_flops(2 * masked)
        return 3 * mine, passes(other, 3, compared) + other.token_head_flops(masked)

    stages = {
        "method.transfer=joint": [(0.324, (3 * passes(own, 3, 3), passes(other, 3, 3))), (0.676, distilled(0))],
        "method.transfer=auxiliary": [(1.0, distilled(3))],
    }.get(
        more[0] if more else "",
        [*((0.108, (3 * passes(own, n, 1), passes(other, n, 1))) for n in (1, 2, 3)), (0.676, distilled(0))],
    )
    assert method.student_flops() == pytest.approx(sum(share * both[0] for share, both in stages))
    assert method.teacher_flops() == pytest.approx(sum(share * both[1] for share, both in stages))


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("share=all",), "method.transfer=progressive with share=all: the layer that learns would change all layers"),
        (("share=ffn",), "method.transfer=progressive with share=ffn"),
        (("method.feature_weight=0", "method.mean_weight=0", "method.spread_weight=0", "method.map_weight=0"), "are 0"),
        (("method.feature_form=plain",), r"method\.feature_form=plain: it contains the means"),
        (("method.transfer=none", "method.feature_weight=3"), r"method\.feature_weight=3: no effect with method\.t"),
        (("method.transfer=joint", "method.stage_rates=equal"), r"method\.stage_rates=equal: no effect with"),
        (("method.teacher_depth=3",), r"method\.teacher_depth=3: no effect with method=mobilebert"),
        (("method.teacher_inside=1.1",), "which 2 heads do not divide"),
        (("method.kl_weight=1",), r"method\.kl_weight=1: no effect with method=mobilebert"),
    ],
    ids=str,
)  # fmt: skip
def test_wrong_settings_are_refused(more: tuple[str, ...], message: str, shared: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny_config(shared, *STUDENT, *more)


def test_auxiliary_and_joint_transfer_share_layers(config_of: Configured) -> None:
    for transfer_ in ("joint", "auxiliary"):
        trainer, batches = make_trainer(config_of("share=all", f"method.transfer={transfer_}", "method.start=random"))
        trainer.update(1, batches[1])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("model.layers=2",), r"model\.layers=2: each layer learns from its own of the teacher, which has 3"),
        (("model.heads=4",), r"model\.heads=4: each layer"),
        (("embed.size=8",), r"method\.start=teacher: embed\.size=8"),
        (("model.trigram=false",), r"method\.start=teacher: model\.trigram=false, the teacher has true"),
    ],
    ids=str,
)  # fmt: skip
def test_a_teacher_of_another_form_is_refused(more: tuple[str, ...], message: str, shared: Path) -> None:
    teacher = Path(tiny_config(shared).paths.runs).parent / "named" / "teacher"
    if not teacher.exists():
        teacher = run(tiny_config(shared, *FORM, runs="named")).path
        teacher = teacher.rename(teacher.parent / "teacher")
    config = tiny_config(shared, *FORM, "method=mobilebert", f"method.teacher={teacher}", *more)
    with pytest.raises(ConfigError, match=message):
        method_of(config).parents()


def test_a_first_teacher_needs_bottlenecks(shared: Path) -> None:
    config = tiny_config(shared, "method=mobilebert", "share=none")
    with pytest.raises(ConfigError, match="block=standard: a teacher that is trained first has inverted bottlenecks"):
        method_of(config).parents()


# --- runs -----------------------------------------------------------------------------------------


def test_a_run_with_its_teacher_and_after_a_kill(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = (*STUDENT, "budget.steps=12", "method.transfer_share=0.5", "task=none")
    whole, cut = (tiny_config(shared, *settings, f"paths.runs={tmp_path / place}") for place in ("whole", "cut"))
    assert start(whole) == 0
    stopped_in(5, cut, monkeypatch)
    assert start(cut) == 0
    folders = []
    for config in (whole, cut):
        found = [path for path in Path(config.paths.runs).iterdir() if "-mobilebert-" in path.name and path.is_dir()]
        (student,) = (path for path in found if read_json(path / "manifest.json").get("teacher"))
        assert len(found) == 2  # the teacher beside it
        folders.append(RunFolder(student.parent, student.name))
    first, second = (load_file(newest_checkpoint(folder) / "model.safetensors") for folder in folders)
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    lines = [timeless(folder.metrics()) for folder in folders]
    assert lines[0] == lines[1]
    names = [sorted(name for name in line if name.endswith("_loss") and "held" not in name) for line in lines[0]]
    assert ["feature_loss", "map_loss", "mean_loss", "spread_loss"] in names
    assert ["kl_loss", "mlm_loss", "sentence_loss"] in names
    assert [line["step"] for line in lines[0]][:3] == [2, 3, 4]  # a line where a stage ends, and every third step
    assert read_json(folders[0].path / "results.json")["masked_lm"]["accuracy"] >= 0


# --- estimates ------------------------------------------------------------------------------------


@pytest.mark.parametrize("transfer", ["progressive", "joint", "auxiliary", "none"])
def test_an_estimate_of_time_is_that_of_all_stages(transfer: str) -> None:
    """If time is FLOPs, the estimate from the last stage is the time of each stage, weighted by its share."""
    config = compose(
        ["model=mobilebert_nano", "share=none", "embed=e48", "method=mobilebert", f"method.transfer={transfer}"]
    )
    method = method_of(config)
    rate, last = 1e9, len(method.stages) - 1
    seconds = [config.batch.size * method.stage_flops(stage) / rate for stage in range(last + 1)]
    measured = Calibration(step_seconds=seconds[last], sequence_seconds=0.0, peak_bytes=7, tokens_per_step=4000.0)
    estimate = on_this_machine(config, measured)
    spent = sum(share * time for share, time in zip(shares(method.stages), seconds, strict=True)) * estimate.steps
    assert estimate.seconds == pytest.approx(spent, rel=0.01)
    if transfer == "progressive":
        assert seconds[0] < 0.4 * seconds[last], "the first stage has one layer of teacher and student"


def test_the_last_stage_is_measured_with_rates_near_zero() -> None:
    config = compose(["model=mobilebert_nano", "share=none", "embed=e48", "method=mobilebert"])
    stages = method_of(config).stages
    share = _position(stages) / _SCHEDULE
    assert stage_at(stages, share) == len(stages) - 1
    assert share_within(stages, len(stages) - 1, share) < 1e-9
    assert _position(stages[-1:]) == 1.0


def test_the_last_stage_is_measured(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(shared, *STUDENT, "method.transfer=progressive")
    measured, timed = [], calibration._timed_step

    def noted(trainer: Trainer, batches: StepBatches, step: int) -> tuple[float, int]:
        found = timed(trainer, batches, step)
        measured.append(trainer.stage)
        return found

    monkeypatch.setattr(calibration, "_timed_step", noted)
    monkeypatch.setattr(calibration, "_WARM_UP_STEPS", 2)
    assert calibration.measure(config).step_seconds > 0
    assert set(measured) == {len(method_of(config).stages) - 1} == {3}
