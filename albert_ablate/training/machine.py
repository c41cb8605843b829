"""Where a run computes: device, number format, and the processes that share the work."""

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from albert_ablate.config.schema import RuntimeConfig
from albert_ablate.record import provenance
from albert_ablate.training.distributed import ALONE, World
from albert_ablate.training.precision import autocast, choose_device, choose_precision


@dataclass(frozen=True)
class Machine:
    """Device, number format and processes; passed on as one."""

    device: torch.device
    precision: str  # of matrix products: bf16 or fp32
    world: World = ALONE

    @classmethod
    def of(cls, runtime: RuntimeConfig) -> "Machine":
        """As configured, for a single process. Raises ConfigError where the device is not there."""
        device = choose_device(runtime)
        return cls(device, choose_precision(runtime, device))

    @property
    def card(self) -> str:
        """The GPU's name; ``cpu`` where there is none."""
        return provenance.card(self.device)

    def autocast(self) -> AbstractContextManager[object]:
        """Context in which matrix products run in ``precision``; weights and updates stay fp32."""
        return autocast(self.precision, self.device)
