"""LAMB as in the reference (lamb_optimizer): layer-wise adaptive Adam for large batches."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

#: A step number at which the bias correction of the moments is exactly 1.
_WITHOUT_CORRECTION = 2.0**30
#: Values in a row of the update grid on a GPU. The rest of a tensor's last row is unused.
_ROW = 1024


class Lamb(Optimizer):
    """LAMB (You et al. 2020) in the form of the released ALBERT code.

    For each tensor: ``u = m / (sqrt(v) + eps) + weight_decay * w``, then
    ``w -= lr * (|w| / |u|) * u``. Bias correction is off by default. The ratio is not clamped; it is 1 if either norm
    is 0 and in groups with ``adapt=False`` (LayerNorms and biases). The caller clips gradients. A shared tensor is
    updated once.

    On CPU tensors are updated one after another. On a GPU they are updated together, and after the first step nothing
    is copied to or from the host; ``lr`` of a group may be a scalar tensor.
    """

    #: Scalar on the device of the parameters, or None. While it is 1.0, ``step`` changes neither weights nor moments
    #: nor the number of steps. Name and meaning are those of PyTorch's fused optimizers.
    found_inf: Tensor | None = None

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
        self._uncorrected: dict[torch.device, Tensor] = {}  # device -> ``_WITHOUT_CORRECTION`` as a tensor
        self._owners: dict[tuple[Any, ...], Tensor] = {}  # (device, rows of each weight) -> as in ``_in_rows``

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update of every tensor that has a gradient."""
        if closure is not None:
            raise ValueError("Lamb.step takes no closure")
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            if weights and _on_cpu(weights):
                for weight in weights:  # one at a time, while its values are in the cache
                    self._step_tensors(group, [weight])
            elif weights:
                self._step_tensors(group, weights)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load the state; the numbers of steps, too, are moved to the parameters' device."""
        super().load_state_dict(dict(state_dict))
        for parameter, state in self.state.items():
            state["step"] = state["step"].to(parameter.device)

    def _step_tensors(self, group: dict[str, Any], weights: list[Tensor]) -> None:
        states = [self._state_of(p) for p in weights]
        steps = [s["step"] for s in states]
        torch._foreach_add_(steps, 1)
        if self.found_inf is not None:
            torch._foreach_sub_(steps, [self.found_inf] * len(steps))
        rate, decay = group["lr"], group["weight_decay"]
        if not group["adapt"]:
            self._adam(group, weights, weights, states, rate, decay)
            return
        if _on_cpu(weights):
            update = list(torch._foreach_mul(weights, -decay))
        else:
            rows, update, owners = self._in_rows(weights)
            torch._foreach_add_(update, weights, alpha=-decay)
        self._adam(group, update, weights, states, 1.0, 0.0)  # ``update`` is now -u
        ratios = _ratios(weights, update)
        if self.found_inf is not None:
            ratios *= 1 - self.found_inf
        if _on_cpu(weights):
            for weight, change, ratio in zip(weights, update, ratios.tolist(), strict=True):
                weight.add_(change, alpha=rate * ratio)
        else:
            rows *= (ratios * rate)[owners, None]
            torch._foreach_add_(weights, update)

    def _in_rows(self, weights: list[Tensor]) -> tuple[Tensor, list[Tensor], Tensor]:
        """A zero update for each of ``weights``, as rows of one grid. Each row belongs to a single weight.

        Returns the (rows, ``_ROW``) grid, views of it with the shapes of ``weights``, and for each row the index of its
        weight, (rows,). PyTorch would launch a kernel for each tensor to multiply it by a factor on the device. Rows
        are multiplied with a single kernel.
        """
        counts = [-(-weight.numel() // _ROW) for weight in weights]
        grid = torch.zeros(sum(counts), _ROW, dtype=weights[0].dtype, device=weights[0].device)
        views = [
            part.view(-1)[: weight.numel()].view_as(weight)
            for part, weight in zip(torch.split(grid, counts), weights, strict=True)
        ]
        layout = (grid.device, *counts)
        if layout not in self._owners:
            owners = [index for index, count in enumerate(counts) for _ in range(count)]
            self._owners[layout] = torch.tensor(owners).to(grid.device)
        return grid, views, self._owners[layout]

    def _adam(
        self, group: dict[str, Any], into: list[Tensor], weights: list[Tensor], states: list[dict[str, Any]],
        rate: float | Tensor, decay: float,
    ) -> None:  # fmt: skip
        """PyTorch's fused Adam: new moments, then ``into = into * (1 - rate * decay) - rate * m / (sqrt(v) + eps)``."""
        if self.bias_correction:
            steps = [s["step"] for s in states]
        else:
            device = weights[0].device
            if device not in self._uncorrected:
                self._uncorrected[device] = torch.full((), _WITHOUT_CORRECTION, device=device)
            steps = [self._uncorrected[device]] * len(states)
        torch._fused_adamw_(
            into,
            [p.grad for p in weights if p.grad is not None],
            [s["exp_avg"] for s in states],
            [s["exp_avg_sq"] for s in states],
            [],
            steps,
            lr=rate, beta1=group["betas"][0], beta2=group["betas"][1], weight_decay=decay, eps=group["eps"],
            amsgrad=False, maximize=False, found_inf=self.found_inf,
        )  # fmt: skip

    def _state_of(self, parameter: Tensor) -> dict[str, Any]:
        state: dict[str, Any] = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), device=parameter.device)
            state["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            state["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        return state


def _on_cpu(tensors: list[Tensor]) -> bool:
    return tensors[0].device.type == "cpu"


def _ratios(weights: list[Tensor], update: list[Tensor]) -> Tensor:
    """(n,) norm of each weight divided by that of its update; 1 if either is 0."""
    w, u = torch.stack(_norms(weights)), torch.stack(_norms(update))
    return (w / u).masked_fill_(~(torch.minimum(w, u) > 0), 1.0)


def _norms(tensors: list[Tensor]) -> list[Tensor]:
    """Euclidean norms; on CPU through the dot product, twice as fast."""
    if _on_cpu(tensors):
        flat = [t.reshape(-1) for t in tensors]
        return [torch.dot(t, t).sqrt() for t in flat]
    return list(torch._foreach_norm(tensors))
