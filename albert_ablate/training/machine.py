"""How a run computes: device, number format, backend and processes."""

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from albert_ablate.config.schema import RuntimeConfig
from albert_ablate.record import provenance
from albert_ablate.training.backend import Backend, check_block_kernel, choose_backend
from albert_ablate.training.distributed import ALONE, World
from albert_ablate.training.precision import autocast, choose_device, choose_precision

#: Default of ``runtime.workers`` on a GPU.
_WORKERS_OF_A_GPU = 2


@dataclass(frozen=True)
class Machine:
    """Device, number format, processes and backend of a run."""

    device: torch.device
    precision: str  # of matrix products: bf16 or fp32
    world: World = ALONE
    backend: Backend | None = None  # with which training begins; None on a CPU

    @classmethod
    def of(cls, runtime: RuntimeConfig) -> "Machine":
        """As configured, for a single process. Raises ConfigError if the device is missing."""
        device = choose_device(runtime)
        check_block_kernel(runtime, device)
        backend = choose_backend(runtime, device)
        return cls(device, choose_precision(runtime, device), backend=backend)

    def workers(self, runtime: RuntimeConfig) -> int:
        """Number of processes that build batches ahead; 0: the training process builds them."""
        if runtime.workers is not None:
            return runtime.workers
        return _WORKERS_OF_A_GPU if self.device.type == "cuda" else 0

    @property
    def card(self) -> str:
        """The GPU's name; ``cpu`` without one."""
        return provenance.card(self.device)

    def autocast(self) -> AbstractContextManager[object]:
        """Context in which matrix products run in ``precision``; weights and updates stay fp32."""
        return autocast(self.precision, self.device)
