"""What keeps one bad step from spoiling a run: it is seen before the update, and its batch is kept."""

import math
import statistics
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from albert_ablate.errors import DivergedError
from albert_ablate.files import building, write_json

#: Steps that the spread of a spike's neighbours is measured over, and how many are needed to judge.
_WINDOW, _ENOUGH = 128, 32
#: The folder that keeps batches of steps that were not taken.
BAD_BATCHES = "diverged"


class Spikes:
    """Steps whose loss or gradient stands far above those before (``optimizer.skip_spikes`` deviations)."""

    def __init__(self, deviations: float | None, state: Mapping[str, list[float]] | None = None) -> None:
        self._deviations = deviations
        state = state or {}
        self._recent = {name: deque(state.get(name, []), _WINDOW) for name in ("loss", "gradient")}

    def seen(self, loss: Tensor, gradient_norm: float) -> bool:
        """Whether this step is one; others are remembered."""
        if self._deviations is None:
            return False
        values = {"loss": loss.item(), "gradient": gradient_norm}
        if any(self._far(self._recent[name], value) for name, value in values.items()):
            return True
        for name, value in values.items():
            self._recent[name].append(value)
        return False

    def _far(self, recent: deque[float], value: float) -> bool:
        assert self._deviations is not None
        if len(recent) < _ENOUGH:
            return False
        return value > statistics.fmean(recent) + self._deviations * statistics.pstdev(recent)

    def as_dict(self) -> dict[str, list[float]]:
        """Plain numbers, for a checkpoint."""
        return {name: list(values) for name, values in self._recent.items()}


def not_finite(losses: Tensor, gradient_norm: float) -> str | None:
    """Which of a step's ``loss`` and ``gradient`` is not finite; None where both are."""
    if not bool(losses.isfinite().all()):
        return "loss"
    return None if math.isfinite(gradient_norm) else "gradient"


def require_finite_line(line: Mapping[str, float]) -> None:
    """Raise DivergedError where a number of a log line is not finite."""
    wrong = [name for name, value in line.items() if not math.isfinite(value)]
    if wrong:
        raise DivergedError(
            f"{', '.join(wrong)} is not finite at step {line['step']}: training has diverged. "
            "Lower optimizer.learning_rate or lengthen budget.warmup_steps; checkpoints before this step are unharmed."
        )


def keep_batch(folder: Path, step: int, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> Path:
    """Write the batch of a step that was not taken to ``folder/diverged/step_XXXXXXXX``."""
    target = folder / BAD_BATCHES / f"step_{step:08d}"
    if not target.exists():
        with building(target) as temporary:
            on_cpu = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
            save_file(on_cpu, temporary / "batch.safetensors")
            write_json(temporary / "step.json", {k: _plain(v) for k, v in numbers.items()})
    return target


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
