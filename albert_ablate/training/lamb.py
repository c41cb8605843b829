"""LAMB as in the reference (lamb_optimizer): layer-wise adaptive Adam for large batches."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class Lamb(Optimizer):
    """You et al. 2020, in the form the released ALBERT code trains with.

    For each tensor: ``u = m / (sqrt(v) + eps) + weight_decay * w``, then
    ``w -= lr * (|w| / |u|) * u``. No bias correction unless asked; the ratio is not clamped and is
    1 where either norm is 0. Groups with ``adapt=False`` (LayerNorms and biases) take ratio 1.
    Clipping is the caller's. A shared tensor is one tensor and is stepped once.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        bias_correction: bool = False,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "adapt": True}
        super().__init__(params, defaults)
        self.bias_correction = bias_correction

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update of every tensor that has a gradient; tensors are processed together."""
        if closure is not None:
            raise ValueError("Lamb.step takes no closure")
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            if weights:
                self._step_group(group, weights)

    def _step_group(self, group: dict[str, Any], weights: list[Tensor]) -> None:
        beta1, beta2 = group["betas"]
        states = [self._state_of(p) for p in weights]
        gradients = [p.grad for p in weights if p.grad is not None]
        m, v = [s["exp_avg"] for s in states], [s["exp_avg_sq"] for s in states]
        for state in states:
            state["step"] += 1
        torch._foreach_lerp_(m, gradients, 1 - beta1)
        torch._foreach_mul_(v, beta2)
        torch._foreach_addcmul_(v, gradients, gradients, 1 - beta2)
        denominator = torch._foreach_sqrt(v)
        if self.bias_correction:
            torch._foreach_div_(denominator, [(1 - beta2 ** s["step"].item()) ** 0.5 for s in states])
        torch._foreach_add_(denominator, group["eps"])
        update = torch._foreach_div(m, denominator)
        if self.bias_correction:
            torch._foreach_div_(update, [1 - beta1 ** s["step"].item() for s in states])
        if group["weight_decay"]:
            torch._foreach_add_(update, weights, alpha=group["weight_decay"])
        if group["adapt"]:
            ratios = [
                torch.where((w > 0) & (u > 0), w / u, 1.0)
                for w, u in zip(torch._foreach_norm(weights), torch._foreach_norm(update), strict=True)
            ]
            torch._foreach_mul_(update, ratios)
        torch._foreach_add_(weights, update, alpha=-group["lr"])

    def _state_of(self, parameter: Tensor) -> dict[str, Any]:
        state: dict[str, Any] = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            state["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        return state
