"""Guards against bad steps: such a step changes nothing, and its batch is kept."""

import math
import statistics
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from albert_ablate.errors import DivergedError
from albert_ablate.files import building, write_json

#: Number of recent steps that a spike is compared with, and how many of them are needed to judge.
_WINDOW, _ENOUGH = 128, 32
#: Largest number of steps after which the host checks the numbers of an asynchronous device.
LOOK_EVERY = 64
#: The folder for batches of refused steps.
BAD_BATCHES = "diverged"


class Spikes:
    """Detects spikes: steps whose loss or gradient norm is far above those of recent steps.

    A spike exceeds their mean by more than ``optimizer.skip_spikes`` standard deviations.
    """

    def __init__(self, deviations: float | None, state: Mapping[str, list[float]] | None = None) -> None:
        self._deviations = deviations
        state = state or {}
        self._recent = {name: deque(state.get(name, []), _WINDOW) for name in ("loss", "gradient")}

    def seen(self, loss: Tensor, gradient_norm: float) -> bool:
        """Whether this step is a spike. Other steps are added to the recent ones."""
        if self._deviations is None:
            return False
        values = {"loss": loss.item(), "gradient": gradient_norm}
        if any(self._far_above(self._recent[name], value) for name, value in values.items()):
            return True
        for name, value in values.items():
            self._recent[name].append(value)
        return False

    def _far_above(self, recent: deque[float], value: float) -> bool:
        assert self._deviations is not None
        if len(recent) < _ENOUGH:
            return False
        return value > statistics.fmean(recent) + self._deviations * statistics.pstdev(recent)

    def as_dict(self) -> dict[str, list[float]]:
        """The recent losses and gradient norms, for a checkpoint."""
        return {name: list(values) for name, values in self._recent.items()}


@dataclass(frozen=True)
class BadStep:
    """A step whose loss or gradient is not finite."""

    step: int  # counted from 0
    rate: float  # its learning rate
    quantity: str  # "loss" or "gradient"


class FiniteGuard:
    """Refuses the first step whose losses or gradient norm are not finite, and every step after it.

    A GPU works asynchronously, and checking a number on the host would make the host wait. With ``every`` above 1 the
    decision therefore stays on the device, in ``refused``, and the host checks the numbers of several steps at once.
    With ``every=1`` the host checks each step before its update.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        #: Scalar on the device, 0.0 before the first bad step and 1.0 from then on. PyTorch's optimizers take it as
        #: ``found_inf`` and change nothing while it is 1.0. None with ``every=1``.
        self.refused: Tensor | None = None
        self._steps: list[tuple[int, float]] = []  # since the last check: step, learning rate
        self._rows: list[Tensor] = []  # of the same steps, each (losses + 1,): loss sums, gradient norm

    def judge(self, losses: Tensor, gradient_norm: Tensor) -> Tensor:
        """Decide on the device, before the update, whether to refuse a step.

        Takes (n,) loss sums and the gradient norm, a scalar; returns both as one (n + 1,) row for ``add``.
        """
        row = torch.cat([losses, gradient_norm.reshape(1)])
        if self.every > 1:
            if self.refused is None:
                self.refused = torch.zeros((), device=row.device)
            self.refused.masked_fill_((row * 0).sum() != 0, 1.0)  # zero times inf or NaN is NaN
        return row

    def add(self, step: int, rate: float, row: Tensor) -> None:
        """Keep the ``row`` of a step for the next check."""
        self._steps.append((step, rate))
        self._rows.append(row)

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Context in which the device refuses every step. Afterwards ``refused`` has its previous value."""
        assert self.refused is not None, "with every=1 the host refuses steps"
        previous = self.refused.clone()
        self.refused.fill_(1.0)
        yield
        self.refused.copy_(previous)

    @property
    def full(self) -> bool:
        """Whether the next check is due."""
        return len(self._rows) >= self.every

    def look(self) -> BadStep | None:
        """Check all steps since the last check: the first bad step, or None. Waits for the device."""
        if not self._rows:
            return None
        steps, rows = self._steps, torch.stack(self._rows).tolist()
        self._steps, self._rows = [], []
        for (step, rate), (*losses, norm) in zip(steps, rows, strict=True):
            if not all(math.isfinite(loss) for loss in losses):
                return BadStep(step, rate, "loss")
            if not math.isfinite(norm):
                return BadStep(step, rate, "gradient")
        return None


def require_finite_line(line: Mapping[str, float]) -> None:
    """Raise DivergedError if a number of a log line is not finite."""
    not_finite = [name for name, value in line.items() if not math.isfinite(value)]
    if not_finite:
        raise DivergedError(
            f"{', '.join(not_finite)} is not finite at step {line['step']}: training has diverged. "
            "Lower optimizer.learning_rate or lengthen budget.warmup_steps; checkpoints before this step are unharmed."
        )


def keep_batch(folder: Path, step: int, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> Path:
    """Write the batch of a refused step to ``folder/diverged/step_XXXXXXXX``; returns that path."""
    target = folder / BAD_BATCHES / f"step_{step:08d}"
    if not target.exists():
        with building(target) as temporary:
            on_cpu = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
            save_file(on_cpu, temporary / "batch.safetensors")
            write_json(temporary / "step.json", {k: _plain(v) for k, v in numbers.items()})
    return target


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
