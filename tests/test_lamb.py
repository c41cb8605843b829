"""LAMB against numbers worked out by hand, against a plain per-tensor loop, and on the real parameters."""

import io
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from modelhelpers import blocks_of
from torch import Tensor, nn

from albert_ablate.axes import Share
from albert_ablate.door.compose import compose
from albert_ablate.model.architecture import Architecture
from albert_ablate.model.pretraining import PretrainingModel, build_model
from albert_ablate.training.lamb import Lamb
from albert_ablate.training.optimizers import build_optimizer, split_parameters

RATE = 0.00176


def weight(values: Sequence[float], gradient: Sequence[float]) -> nn.Parameter:
    made = nn.Parameter(torch.tensor(values, dtype=torch.float64))
    made.grad = torch.tensor(gradient, dtype=torch.float64)
    return made


def plain_lamb(
    w: Tensor, gradients: list[Tensor], rates: list[float], *, adapt: bool = True, decay: float = 0.01,
    beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-6, correct: bool = False,
) -> Tensor:  # fmt: skip
    """The update as the reference states it, one element at a time."""
    w_now = w.double().flatten().tolist()
    m, v = [0.0] * len(w_now), [0.0] * len(w_now)
    for step, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), 1):
        u = []
        for i, g in enumerate(gradient.double().flatten().tolist()):
            m[i] = beta1 * m[i] + (1 - beta1) * g
            v[i] = beta2 * v[i] + (1 - beta2) * g * g
            m_hat = m[i] / (1 - beta1**step) if correct else m[i]
            v_hat = v[i] / (1 - beta2**step) if correct else v[i]
            u.append(m_hat / (math.sqrt(v_hat) + epsilon) + decay * w_now[i])
        w_norm, u_norm = math.hypot(*w_now), math.hypot(*u)
        ratio = w_norm / u_norm if adapt and w_norm > 0 and u_norm > 0 else 1.0
        w_now = [a - rate * ratio * b for a, b in zip(w_now, u, strict=True)]
    return torch.tensor(w_now, dtype=torch.float64).view(w.shape)


@pytest.mark.parametrize(
    ("bias_correction", "adapt", "expected"),
    [
        (False, True, [2.9912006908, 3.9998897391]),
        (False, False, [2.9944345673, 4.0]),
        (True, True, [2.9912066284, 3.9996585095]),
        (True, False, [2.9982400018, 4.0]),
    ],
)
def test_first_step_from_known_numbers(bias_correction: bool, adapt: bool, expected: list[float]) -> None:
    w = weight([3.0, 4.0], [1.0, 0.0])
    group = {"params": [w], "adapt": adapt, "weight_decay": 0.01 if adapt else 0.0}
    Lamb([group], lr=RATE, bias_correction=bias_correction).step()
    assert w.tolist() == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("correct", [False, True])
@pytest.mark.parametrize("adapt", [False, True])
@pytest.mark.parametrize("epsilon", [1e-6, 0.1])
def test_several_steps_equal_the_plain_loop(correct: bool, adapt: bool, epsilon: float) -> None:
    draw = torch.Generator().manual_seed(1)
    shapes = [(3, 4), (5,), (2, 2, 2)]
    starts = [torch.randn(shape, generator=draw, dtype=torch.float64) for shape in shapes]
    steps = [[torch.randn(shape, generator=draw, dtype=torch.float64) for shape in shapes] for _ in range(7)]
    rates = [0.0, 0.01, 0.03, 0.02, 0.02, 0.01, 0.005]
    parameters = [nn.Parameter(start.clone()) for start in starts]
    decay = 0.05 if adapt else 0.0
    groups = [{"params": parameters, "adapt": adapt, "weight_decay": decay}]
    optimizer = Lamb(groups, lr=1.0, betas=(0.8, 0.95), eps=epsilon, bias_correction=correct)
    for gradients, rate in zip(steps, rates, strict=True):
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.clone()
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
    for i, start in enumerate(starts):
        wanted = plain_lamb(
            start, [step[i] for step in steps], rates, adapt=adapt, decay=decay, beta1=0.8, beta2=0.95,
            epsilon=epsilon, correct=correct,
        )  # fmt: skip
        torch.testing.assert_close(parameters[i].detach(), wanted, rtol=1e-9, atol=1e-12)


def test_epsilon_stands_outside_the_square_root() -> None:
    w = weight([1.0], [1e-3])
    group = {"params": [w], "adapt": False, "weight_decay": 0.0}
    Lamb([group], lr=1.0, betas=(0.0, 0.0), eps=1e-3).step()
    assert w.item() == pytest.approx(0.5, abs=1e-12)  # inside the root it would be 1 - 1e-3 / sqrt(1e-6 + 1e-3)


def test_zero_weights_take_ratio_one() -> None:
    w = weight([0.0, 0.0], [2.0, 0.0])
    Lamb([{"params": [w]}], lr=0.5, betas=(0.0, 0.0), eps=1e-6).step()
    assert w.tolist() == pytest.approx([-0.5 * 2 / (2 + 1e-6), 0.0], abs=1e-12)


def test_zero_update_leaves_finite_weights() -> None:
    w = weight([1.0, 2.0], [0.0, 0.0])
    Lamb([{"params": [w], "weight_decay": 0.0}], lr=0.5).step()
    assert w.tolist() == [1.0, 2.0]


def test_zero_gradient_still_decays_the_weight() -> None:
    w = weight([3.0, 4.0], [0.0, 0.0])
    Lamb([{"params": [w], "weight_decay": 0.01}], lr=0.1).step()
    assert w.tolist() == pytest.approx([3.0 * 0.9, 4.0 * 0.9], abs=1e-12)  # ratio 100: the decay's own norm cancels


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_ratio_is_not_clamped(scale: float) -> None:
    w = weight([3.0 * scale, 4.0 * scale], [1.0, 1.0])
    Lamb([{"params": [w], "weight_decay": 0.0}], lr=0.01).step()
    moved = 5 * scale * 0.01 / math.sqrt(2)  # the step's length is lr times the weight's, at any scale
    assert w.tolist() == pytest.approx([3.0 * scale - moved, 4.0 * scale - moved], rel=1e-12)


def test_a_tensor_without_gradient_is_left_alone() -> None:
    moved, still = weight([1.0], [1.0]), weight([1.0], [1.0])
    still.grad = None
    optimizer = Lamb([{"params": [moved, still]}], lr=0.1)
    optimizer.step()
    assert still.item() == 1.0
    assert moved.item() != 1.0
    assert still not in optimizer.state


def test_each_tensor_has_its_own_ratio() -> None:
    small, large = weight([1.0, 0.0], [1.0, 0.0]), weight([100.0, 0.0], [1.0, 0.0])
    Lamb([{"params": [small, large], "weight_decay": 0.0}], lr=0.01).step()
    assert 1.0 - small[0].item() == pytest.approx(0.01, rel=1e-9)
    assert 100.0 - large[0].item() == pytest.approx(1.0, rel=1e-9)


# --- on the parameters of a model ----------------------------------------------------------------


def shape_of(share: Share, embedding: int = 8, groups: int = 1) -> Architecture:
    return Architecture(
        vocab_size=40, embedding_size=embedding, hidden_size=16, layers=4, heads=2, intermediate_size=24,
        max_positions=16, share=share, groups=groups, initializer_range=0.1,
    )  # fmt: skip


def loss_of(model: PretrainingModel) -> Tensor:
    draw = torch.Generator().manual_seed(3)
    ids = torch.randint(5, 40, (3, 10), generator=draw)
    kinds = (torch.arange(10) > 4).long().expand(3, 10)
    positions, targets = torch.tensor([1, 7, 13, 28]), torch.tensor([6, 9, 30, 11])
    out = model(ids, kinds, torch.ones(3, 10), positions, targets, torch.tensor([0, 1, 0]))
    assert out.sentence_loss_sum is not None
    return out.mlm_loss_sum / 4 + out.sentence_loss_sum / 3


ARMS = [pytest.param(shape_of(share), id=share.value) for share in Share] + [
    pytest.param(shape_of(Share.ALL, groups=2), id="two-groups"),
    pytest.param(shape_of(Share.ALL, embedding=16), id="unfactorised"),
]


@pytest.mark.parametrize("shape", ARMS)
def test_every_parameter_stands_in_one_group_once(shape: Architecture) -> None:
    model = build_model(shape, 0)
    decayed, excluded = split_parameters(model)
    seen = [id(p) for p in decayed + excluded]
    assert len(seen) == len(set(seen))
    assert set(seen) == {id(p) for p in model.parameters()}
    assert sum(p.numel() for p in decayed + excluded) == shape.parameters().with_heads


@pytest.mark.parametrize("shape", ARMS)
def test_layer_norms_and_biases_are_excluded_and_nothing_else(shape: Architecture) -> None:
    model = build_model(shape, 0)
    decayed, excluded = split_parameters(model)
    names = {id(p): name for name, p in model.named_parameters()}
    norms = {
        id(p) for module in model.modules() if isinstance(module, nn.LayerNorm) for p in (module.weight, module.bias)
    }
    for parameter in excluded:
        assert parameter.dim() == 1
        assert names[id(parameter)].endswith("bias") or id(parameter) in norms
    kept = {names[id(p)] for p in decayed}
    assert all(p.dim() == 2 for p in decayed)
    assert {f"encoder.embedding.{table}.weight" for table in ("word", "position", "token_type")} <= kept
    assert norms <= {id(p) for p in excluded}


@pytest.mark.parametrize("name", ["lamb", "adamw"])
def test_groups_of_the_configured_optimizer(name: str) -> None:
    settings = compose([f"optimizer={name}", "optimizer.weight_decay=0.03"]).optimizer
    optimizer = build_optimizer(build_model(shape_of(Share.ALL), 0), settings)
    first, second = optimizer.param_groups
    assert (first["weight_decay"], second["weight_decay"]) == (0.03, 0.0)
    assert (tuple(first["betas"]), first["eps"], first["lr"]) == ((0.9, 0.999), 1e-6, settings.learning_rate)
    if name == "lamb":
        assert isinstance(optimizer, Lamb)
        assert (first["adapt"], second["adapt"]) == (True, False)
        assert optimizer.bias_correction is False
    else:
        assert type(optimizer) is torch.optim.AdamW


@pytest.mark.parametrize("correct", [False, True])
@pytest.mark.parametrize("shape", ARMS)
def test_a_models_steps_equal_the_plain_loop_tensor_by_tensor(shape: Architecture, correct: bool) -> None:
    """Query, key and value are separate tensors; a shared tensor is stepped once, on its summed gradient."""
    model = build_model(shape, 0).double()
    settings = replace(compose([]).optimizer, bias_correction=correct)
    optimizer = build_optimizer(model, settings)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    gradients: dict[str, list[Tensor]] = {name: [] for name in before}
    rates = [0.02, 0.01, 0.03]
    for rate in rates:
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        loss_of(model).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            gradients[name].append(parameter.grad.clone())
        optimizer.step()
    assert any(name.endswith("query.weight") for name in before)
    for name, parameter in model.named_parameters():
        excluded = name.endswith("bias") or ".norm." in name
        wanted = plain_lamb(
            before[name], gradients[name], rates, adapt=not excluded, decay=0.0 if excluded else 0.01, correct=correct
        )
        torch.testing.assert_close(
            parameter.detach(), wanted, rtol=1e-8, atol=1e-10, msg=partial("{}: {}".format, name)
        )
        assert int(optimizer.state[parameter]["step"]) == len(rates)


def test_gradient_of_a_shared_block_is_the_sum_over_its_layers() -> None:
    shared = build_model(shape_of(Share.ALL), 0).double()
    unshared = build_model(shape_of(Share.NONE), 0).double()
    target = dict(shared.named_parameters())
    with torch.no_grad():
        for name, parameter in unshared.named_parameters():
            parts = name.split(".")
            if parts[1] in ("attention", "ffn"):
                parts[2] = "0"
            parameter.copy_(target[".".join(parts)])
    loss_of(shared).backward()
    loss_of(unshared).backward()
    layers = [block.query.weight.grad for block in blocks_of(unshared.encoder, "attention")]
    assert len(layers) == 4
    torch.testing.assert_close(blocks_of(shared.encoder, "attention")[0].query.weight.grad, torch.stack(layers).sum(0))


def test_state_survives_saving_and_loading() -> None:
    def prepare() -> tuple[PretrainingModel, Any]:
        model = build_model(shape_of(Share.ATTENTION), 0)
        return model, build_optimizer(model, replace(compose([]).optimizer, bias_correction=True))

    def step(model: PretrainingModel, optimizer: Any) -> None:
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()

    model, optimizer = prepare()
    for _ in range(3):
        step(model, optimizer)
    file = io.BytesIO()
    torch.save([model.state_dict(), optimizer.state_dict()], file)
    file.seek(0)
    weights, state = torch.load(file, weights_only=True)
    again, other = prepare()
    again.load_state_dict(weights)
    other.load_state_dict(state)
    for _ in range(2):
        step(model, optimizer)
        step(again, other)
    for (name, a), b in zip(model.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b), name
    assert [g["adapt"] for g in other.param_groups] == [True, False]


def test_a_closure_is_refused() -> None:
    with pytest.raises(ValueError, match="closure"):
        Lamb([weight([1.0], [1.0])], lr=0.1).step(lambda: 0.0)


def test_adamw_without_bias_correction_is_the_released_one() -> None:
    """u = m / (sqrt(v) + eps) + decay * w for kernels, w -= lr * u; no decay for biases (released optimization)."""
    config = compose(["optimizer=adamw", "optimizer.bias_correction=false"]).optimizer
    model = torch.nn.Linear(4, 3).double()
    optimizer = build_optimizer(model, config)
    expected = {name: p.detach().clone() for name, p in model.named_parameters()}
    m = {name: torch.zeros_like(p) for name, p in expected.items()}
    v = {name: torch.zeros_like(p) for name, p in expected.items()}
    for step in range(5):
        optimizer.zero_grad()
        (model(torch.full((2, 4), 0.3 + step).double()) ** 2).sum().backward()
        for name, p in model.named_parameters():
            assert p.grad is not None
            m[name] = 0.9 * m[name] + 0.1 * p.grad
            v[name] = 0.999 * v[name] + 0.001 * p.grad**2
            decay = 0.01 * expected[name] if name == "weight" else 0.0
            expected[name] = expected[name] - config.learning_rate * (m[name] / (v[name].sqrt() + 1e-6) + decay)
        optimizer.step()
    for name, p in model.named_parameters():
        torch.testing.assert_close(p, expected[name], rtol=1e-9, atol=1e-12)
