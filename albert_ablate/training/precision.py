"""Device, CPU threads and number format of a run."""

import os
from contextlib import AbstractContextManager, nullcontext

import torch

from albert_ablate.config.schema import RuntimeConfig
from albert_ablate.errors import ConfigError
from albert_ablate.training.memory import keep_freed_memory


def choose_device(config: RuntimeConfig) -> torch.device:
    """The configured device; ``auto`` is the GPU if there is one. Raises ConfigError if there is no usable GPU."""
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("runtime.device=cuda, but this machine has no usable GPU. Use runtime.device=auto or cpu.")
    kind = config.device
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(kind)


def set_up(config: RuntimeConfig) -> None:
    """Set up this process: memory allocator, deterministic algorithms and number of CPU threads.

    The number of threads is ``runtime.threads``, else the number of CPUs that Slurm gave this job, else PyTorch's
    default.
    """
    keep_freed_memory()
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
        torch.use_deterministic_algorithms(True)
        torch.backends.cuda.enable_cudnn_sdp(False)  # cuDNN attention is not bitwise reproducible
        # This project never reads uninitialised memory, and filling it with NaN takes time.
        setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)  # noqa: B010 (missing from its type hints)
    slurm_cpus = os.environ.get("SLURM_CPUS_PER_TASK")
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    elif slurm_cpus is not None:
        torch.set_num_threads(int(slurm_cpus))


def choose_precision(config: RuntimeConfig, device: torch.device) -> str:
    """Either "bf16" or "fp32". ``auto`` is bf16 if the hardware multiplies bf16 faster than fp32.

    With a GPU and ``auto`` this opens a CUDA context.
    """
    if config.precision != "auto":
        return config.precision
    if device.type == "cuda":
        return "bf16" if gpu_multiplies_bf16() else "fp32"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "fp32"


def gpu_multiplies_bf16() -> bool:
    """Whether the GPU has bf16 instructions; emulated bf16 is slower than fp32. Opens a CUDA context."""
    return torch.cuda.is_bf16_supported(including_emulation=False)


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Context in which matrix products run in ``precision``; weights and updates stay fp32."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Context in which autocast is off: matrix products run in the format of their operands."""
    return torch.autocast(device.type, enabled=False)
