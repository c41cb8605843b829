"""How a GPU computes a training step, and what takes over where that is not possible."""

import os
from enum import StrEnum
from pathlib import Path

import torch

from albert_ablate.config.schema import RuntimeConfig
from albert_ablate.errors import ConfigError


class Backend(StrEnum):
    """A value of ``runtime.backend``, from the plainest to the fastest."""

    EAGER = "eager"
    COMPILED = "compiled"  # sub-layers through torch.compile
    GRAPH = "graph"  # the same, and the whole step replayed as one CUDA graph


def choose_backend(config: RuntimeConfig, device: torch.device) -> Backend | None:
    """The backend to begin with; ``auto`` is the fastest. None on a CPU, which has one way to compute.

    Raises ConfigError where a backend is asked for and there is no GPU to use it.
    """
    if device.type != "cpu":
        return Backend.GRAPH if config.backend == "auto" else Backend(config.backend)
    if config.backend != "auto":
        why = "on a CPU" if config.device == "cpu" else "and this machine has no usable GPU"
        raise ConfigError(
            f"runtime.backend={config.backend} says how a GPU computes, {why} it has no effect. "
            "Use runtime.backend=auto."
        )
    return None


def keep_compiled(cache: Path, backend: Backend | None) -> None:
    """Let compiled code be kept in ``cache/compiled``, unless the environment names another folder.

    Call it before anything is compiled. Runs of one size then compile once.
    """
    if backend in (None, Backend.EAGER):
        return
    folder = cache.resolve() / "compiled"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))
    os.environ.setdefault("TRITON_CACHE_DIR", str(folder / "triton"))
