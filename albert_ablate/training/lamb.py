"""LAMB as in the reference (lamb_optimizer): layer-wise adaptive Adam for large batches."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

#: A step so late that the correction of the moments' bias is exactly 1.
_WITHOUT_CORRECTION = 2.0**30


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
            if weights and weights[0].device.type == "cpu":
                for weight in weights:  # one at a time: what is computed from a tensor is still in the cache
                    self._step_tensors(group, [weight])
            elif weights:
                self._step_tensors(group, weights)

    def _step_tensors(self, group: dict[str, Any], weights: list[Tensor]) -> None:
        states = [self._state_of(p) for p in weights]
        for state in states:
            state["step"] += 1
        rate, decay = group["lr"], group["weight_decay"]
        if not group["adapt"]:
            self._adam(group, weights, weights, states, rate, decay)
            return
        update = list(torch._foreach_mul(weights, -decay))
        self._adam(group, update, weights, states, 1.0, 0.0)  # now -u
        ratios = [
            torch.where((w > 0) & (u > 0), w / u, 1.0) for w, u in zip(_norms(weights), _norms(update), strict=True)
        ]
        if len(weights) == 1:
            weights[0].add_(update[0], alpha=rate * float(ratios[0]))
        else:
            torch._foreach_mul_(update, ratios)
            torch._foreach_add_(weights, update, alpha=rate)

    def _adam(
        self, group: dict[str, Any], into: list[Tensor], weights: list[Tensor], states: list[dict[str, Any]],
        rate: float, decay: float,
    ) -> None:  # fmt: skip
        """PyTorch's fused Adam: new moments, then ``into = into * (1 - rate * decay) - rate * m / (sqrt(v) + eps)``."""
        device = weights[0].device
        if self.bias_correction:
            steps = [s["step"].to(device) for s in states]
        else:
            steps = [torch.tensor(_WITHOUT_CORRECTION, device=device)] * len(states)
        torch._fused_adamw_(
            into,
            [p.grad for p in weights if p.grad is not None],
            [s["exp_avg"] for s in states],
            [s["exp_avg_sq"] for s in states],
            [],
            steps,
            lr=rate, beta1=group["betas"][0], beta2=group["betas"][1], weight_decay=decay, eps=group["eps"],
            amsgrad=False, maximize=False,
        )  # fmt: skip

    def _state_of(self, parameter: Tensor) -> dict[str, Any]:
        state: dict[str, Any] = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            state["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        return state


def _norms(tensors: list[Tensor]) -> list[Tensor]:
    """Euclidean norms; on CPU through the dot product, twice as fast."""
    if tensors[0].device.type == "cpu":
        flat = [t.reshape(-1) for t in tensors]
        return [torch.dot(t, t).sqrt() for t in flat]
    return list(torch._foreach_norm(tensors))
