"""The configured optimizer over a model's parameters, and the learning rate of a step."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from albert_ablate.config.schema import BudgetConfig, OptimizerConfig
from albert_ablate.model.norms import first_values
from albert_ablate.training.lamb import Lamb


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> Optimizer:
    """LAMB or AdamW with two groups: kernels and tables, and the rest.

    AdamW without bias correction is the released code's, which is LAMB without layer adaptation.

    Norms and biases get no weight decay and, under LAMB, no layer adaptation. Norms are told by the
    module's type and the tensor's identity, so a shared tensor stands in one group, once.
    """
    decayed, plain = split_parameters(model)
    betas = (config.beta1, config.beta2)
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    if config.name == "adamw" and config.bias_correction:
        on_gpu = any(p.device.type != "cpu" for p in (*decayed, *plain))
        return torch.optim.AdamW(
            groups, lr=config.learning_rate, betas=betas, eps=config.epsilon, fused=True, capturable=on_gpu
        )
    groups[0]["adapt"], groups[1]["adapt"] = config.name == "lamb", False
    return Lamb(
        groups, lr=config.learning_rate, betas=betas, eps=config.epsilon, bias_correction=config.bias_correction
    )


def split_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """(decayed and adapted, excluded): excluded are biases and every parameter of a norm."""
    norms = first_values(model)
    named = list(model.named_parameters())
    excluded = [p for name, p in named if id(p) in norms or name.endswith("bias")]
    ids = {id(p) for p in excluded}
    return [p for _, p in named if id(p) not in ids], excluded


def gradients_of(model: nn.Module) -> list[Tensor]:
    """The gradients that the backward pass has left."""
    return [p.grad for p in model.parameters() if p.grad is not None]


def clip_gradient(gradients: Sequence[Tensor], norm: Tensor, limit: float | None) -> None:
    """Scale the whole gradient to a norm of at most ``limit``; None leaves it as it is.

    ``norm`` is the gradient's, a scalar on its device; it is not read back from a GPU. The factor is computed in fp64
    and rounded once.
    """
    wide = norm.double()
    if limit is None or (norm.device.type == "cpu" and wide <= limit):
        return
    factor = (torch.full_like(wide, limit) / (wide + 1e-6)).masked_fill_(wide <= limit, 1.0)
    torch._foreach_mul_(list(gradients), factor.to(norm.dtype))


def learning_rate(step: float, optimizer: OptimizerConfig, budget: BudgetConfig) -> float:
    """Learning rate of update ``step``, counted from 0 (reference optimization).

    Budgets in another unit than steps give the place on the schedule instead (``budget.position``).

    Linear from 0 at step 0 to the peak at the end of the warm-up, then linear to 0 at the last.
    ``decay_from=start`` measures the decay from step 0, as released: the rate falls by
    ``warmup / steps`` of the peak when the warm-up ends. ``warmup_end`` measures it from there.
    """
    peak, warmup, total = optimizer.learning_rate, budget.warmup_steps, budget.steps
    if step < warmup:
        return peak * step / warmup
    origin = 0 if optimizer.decay_from == "start" else warmup
    return peak * (1 - (step - origin) / (total - origin))
