"""The configured optimizer over a model's parameters, and the learning rate of a step."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from albert_ablate.config.schema import BudgetConfig, OptimizerConfig
from albert_ablate.model.norms import first_values
from albert_ablate.training.lamb import Lamb

#: Key of a parameter group: the factor of its learning rate. Groups at the rate of the schedule lack it.
_SCALE = "scale"
#: Key of a parameter group: its factors in the stages of a training that has several.
_STAGES = "stages"


def build_optimizer(
    model: nn.Module, config: OptimizerConfig, factors: Callable[[str], tuple[float, ...]] = lambda name: (1.0,)
) -> Optimizer:
    """LAMB or AdamW with two groups of parameters: kernels and tables; norms and biases.

    Norms and biases get no weight decay and, under LAMB, no layer adaptation. Norms are recognised by the type of their
    module, and tensors by identity, so that a shared tensor is in a single group, once.

    AdamW without bias correction (as in the released code) is LAMB without layer adaptation.

    ``factors`` gives the factor of the learning rate in each stage of training for a parameter's name; there are two
    groups for each distinct result. The caller sets the rate of a group to the schedule's times ``scale_of(group)``.
    """
    decayed, excluded = split_parameters(model)
    betas = (config.beta1, config.beta2)
    on_gpu = any(p.device.type != "cpu" for p in (*decayed, *excluded))
    if not on_gpu:
        _do_not_load_the_compiler()
    plain = config.name == "adamw" and config.bias_correction
    groups: list[dict[str, Any]] = []
    scales = {id(parameter): factors(name) for name, parameter in model.named_parameters()}
    for factor in dict.fromkeys(scales.values()):
        marked: dict[str, Any] = {} if factor[0] == 1 else {_SCALE: factor[0]}
        marked |= {_STAGES: factor} if len(factor) > 1 else {}
        for parameters, decay, adapt in ((decayed, config.weight_decay, config.name == "lamb"), (excluded, 0.0, False)):
            chosen = [parameter for parameter in parameters if scales[id(parameter)] == factor]
            adapted = {} if plain else {"adapt": adapt}
            groups.append({"params": chosen, "weight_decay": decay} | adapted | marked)
    if plain:
        return torch.optim.AdamW(
            groups, lr=config.learning_rate, betas=betas, eps=config.epsilon, fused=True, capturable=on_gpu
        )
    return Lamb(
        groups, lr=config.learning_rate, betas=betas, eps=config.epsilon, bias_correction=config.bias_correction
    )


def _do_not_load_the_compiler() -> None:
    """Start a second faster: PyTorch's optimizers load ``torch._dynamo`` only to exclude these methods from graphs.

    Nothing is compiled around an optimizer on a CPU. Should PyTorch rename the attribute, it loads the compiler again.
    """
    for method in (Optimizer.add_param_group, Optimizer.zero_grad, Optimizer.state_dict, Optimizer.load_state_dict):
        plain = getattr(method, "__wrapped__", None)
        if plain is not None and not hasattr(plain, "__dynamo_disable"):
            plain.__dynamo_disable = plain


def split_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """(parameters with decay and adaptation, parameters without): the latter are biases and those of norms."""
    norms = first_values(model)
    named = list(model.named_parameters())
    excluded = [p for name, p in named if id(p) in norms or name.endswith("bias")]
    ids = {id(p) for p in excluded}
    return [p for _, p in named if id(p) not in ids], excluded


def scale_of(group: Mapping[str, Any]) -> float:
    """The factor of the learning rate of a parameter group."""
    return float(group.get(_SCALE, 1.0))


def scales_of(optimizer: Optimizer) -> list[float]:
    """Every factor that a parameter group has, now or in another stage; each once."""
    groups = optimizer.param_groups
    found = [factor for group in groups for factor in (scale_of(group), *group.get(_STAGES, ()))]
    return list(dict.fromkeys(map(float, found)))


def enter_stage(optimizer: Optimizer, stage: int) -> None:
    """Give each parameter group its factor in ``stage``, an index. A group with the factor 0 is not trained."""
    for group in optimizer.param_groups:
        if _STAGES in group:
            group[_SCALE] = group[_STAGES][stage]
            for parameter in group["params"]:
                parameter.requires_grad_(group[_SCALE] != 0)


def gradients_of(model: nn.Module) -> list[Tensor]:
    """The gradients of all parameters that have one."""
    return [p.grad for p in model.parameters() if p.grad is not None]


def clip_gradient(gradients: Sequence[Tensor], norm: Tensor, limit: float | None) -> None:
    """Scale the whole gradient to a norm of at most ``limit``; None leaves it as it is.

    ``norm`` is the norm of the gradient, a scalar on its device; it is not copied from a GPU to the host. The factor is
    computed in fp64 and rounded once.
    """
    wide = norm.double()
    if limit is None or (norm.device.type == "cpu" and wide <= limit):
        return
    factor = (torch.full_like(wide, limit) / (wide + 1e-6)).masked_fill_(wide <= limit, 1.0)
    torch._foreach_mul_(list(gradients), factor.to(norm.dtype))


def learning_rate(step: float, optimizer: OptimizerConfig, budget: BudgetConfig) -> float:
    """Learning rate of update ``step``, counted from 0 (reference optimization).

    If the budget's unit is not steps, ``step`` is the position on the schedule (``budget.position``).

    Linear from 0 at step 0 to the peak at the end of the warm-up, then linear to 0 at the last step. With
    ``decay_from=start``, as in the released code, the decay counts from step 0: the rate drops by ``warmup / steps`` of
    the peak when the warm-up ends. With ``warmup_end`` the decay counts from the end of the warm-up. With
    ``throughout``, as in ELECTRA's released code, warm-up and decay multiply from step 0 on, so that the rate stays
    below the peak. With ``never`` it stays at the peak after the warm-up.
    """
    peak, warmup, total = optimizer.learning_rate, budget.warmup_steps, budget.steps
    if optimizer.decay_from == "throughout":
        return peak * (1 - step / total) * (min(1.0, step / warmup) if warmup else 1.0)
    if step < warmup:
        return peak * step / warmup
    if optimizer.decay_from == "never":
        return peak
    origin = 0 if optimizer.decay_from == "start" else warmup
    return peak * (1 - (step - origin) / (total - origin))
