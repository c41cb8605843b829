"""What a sweep's parent process knows about the GPUs, without opening a CUDA context.

A context would hold half a gigabyte during the whole sweep, and a GPU in exclusive-process mode would accept no cell.
Questions that need a context are answered once, by a short-lived process.
"""

import os
from functools import cache
from typing import Any

import torch

from albert_ablate.config.schema import RuntimeConfig
from albert_ablate.errors import ConfigError
from albert_ablate.record import provenance
from albert_ablate.sweeping.process import answer_apart
from albert_ablate.training.precision import choose_device, choose_precision, gpu_multiplies_bf16


@cache
def _asked(question: Any, *values: Any) -> Any:
    """The answer of a separate process, cached: the machine does not change during a sweep."""
    return answer_apart(question, *values)


def local_precision(config: RuntimeConfig) -> str:
    """The number format of a run on this machine. Raises ConfigError if the device is missing."""
    device = choose_device(config)
    if config.precision == "auto" and device.type == "cuda":
        return "bf16" if _asked(gpu_multiplies_bf16) else "fp32"
    return choose_precision(config, device)


def precision_on_cluster(config: RuntimeConfig, gpus: bool) -> str:
    """The number format of a run on a cluster's machines. ``gpus``: whether its jobs request GPUs.

    Raises ConfigError if only those machines could tell, as the format is part of a run's identity.
    """
    if config.precision == "auto" and not torch.cuda.is_available() and (gpus or config.device == "cuda"):
        raise ConfigError(
            "runtime.precision=auto: the number format is part of a run's identity, and this machine has no GPU to "
            "choose it by. Say runtime.precision=bf16, or fp32 for GPUs without bf16."
        )
    if config.device == "cuda" and not torch.cuda.is_available():
        return config.precision
    return local_precision(config)


def local_hardware(config: RuntimeConfig) -> dict[str, Any]:
    """``provenance.hardware`` of the device of a run on this machine. Raises ConfigError if the device is missing."""
    device = choose_device(config)
    if device.type == "cpu":
        return provenance.hardware(device)
    return provenance.hardware(torch.device("cpu")) | {"device": _asked(provenance.card, device)}


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as in CUDA_VISIBLE_DEVICES: numbers, or names that begin with GPU or MIG.

    Counted by the driver's management library or, without one, by the CUDA runtime; neither opens a context.
    """
    variable = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    count = torch.cuda.device_count()
    names = [name.strip() for name in variable.split(",")] if variable else [str(number) for number in range(count)]
    return names[:count]
