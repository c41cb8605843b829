"""The backends that compute a training step on a GPU."""

import os
from enum import StrEnum
from pathlib import Path

import torch

from albert_ablate.config.schema import RuntimeConfig
from albert_ablate.errors import ConfigError
from albert_ablate.model.block_pattern import FLEX, GATHER


class Backend(StrEnum):
    """A value of ``runtime.backend``, from the plainest to the fastest."""

    EAGER = "eager"
    COMPILED = "compiled"  # sub-layers through torch.compile
    GRAPH = "graph"  # compiled, and the whole step is replayed as one CUDA graph


def choose_backend(config: RuntimeConfig, device: torch.device) -> Backend | None:
    """The backend to begin with; ``auto`` is the fastest. None on a CPU, which has no backends.

    Raises ConfigError if a backend is set and no GPU is used.
    """
    if device.type != "cpu":
        return Backend.GRAPH if config.backend == "auto" else Backend(config.backend)
    if config.backend != "auto":
        why = "runtime.device is cpu" if config.device == "cpu" else "this machine has no usable GPU"
        raise ConfigError(f"runtime.backend={config.backend} is for GPUs, but {why}. Use runtime.backend=auto.")
    return None


def check_block_kernel(config: RuntimeConfig, device: torch.device) -> None:
    """Raises ConfigError if FlexAttention is set and no GPU is used."""
    if config.block_kernel == FLEX and device.type == "cpu":
        raise ConfigError(
            f"runtime.block_kernel={FLEX} is for GPUs: on a CPU FlexAttention has no gradients, and computes all pairs "
            f"where it is not compiled. Use runtime.block_kernel={GATHER}."
        )


def keep_compiled(cache: Path, backend: Backend | None) -> None:
    """Keep compiled code in ``cache/compiled``, unless the environment names another folder.

    Call it before the first compilation. Runs with models of the same size then compile only once.
    """
    if backend in (None, Backend.EAGER):
        return
    folder = cache.resolve() / "compiled"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))
    os.environ.setdefault("TRITON_CACHE_DIR", str(folder / "triton"))
