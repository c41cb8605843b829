"""What a sweep's parent process knows of the GPUs, without a CUDA context of its own.

A context holds half a gigabyte for as long as the sweep runs, and a GPU in exclusive-process mode then takes no cell.
What only a context can tell is asked in a short process of its own, once.
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
def _told(question: Any, *values: Any) -> Any:
    """The answer of another process; the machine does not change under a sweep."""
    return answer_apart(question, *values)


def precision_here(config: RuntimeConfig) -> str:
    """The number format of a run on this machine. Raises ConfigError where the device is not there."""
    device = choose_device(config)
    if config.precision == "auto" and device.type == "cuda":
        return "bf16" if _told(gpu_multiplies_bf16) else "fp32"
    return choose_precision(config, device)


def precision_on_cluster(config: RuntimeConfig, gpus: bool) -> str:
    """The number format of a run on a cluster's machines, with ``gpus`` where its jobs are given some.

    Raises ConfigError where only those machines can tell: the format is part of a run's identity.
    """
    if config.precision == "auto" and not torch.cuda.is_available() and (gpus or config.device == "cuda"):
        raise ConfigError(
            "runtime.precision=auto: the number format is part of a run's identity, and this machine has no GPU to "
            "choose it by. Say runtime.precision=bf16, or fp32 for GPUs without bf16."
        )
    if config.device == "cuda" and not torch.cuda.is_available():
        return config.precision
    return precision_here(config)


def hardware_here(config: RuntimeConfig) -> dict[str, Any]:
    """``provenance.hardware`` of the device that a run on this machine takes. Raises ConfigError as above."""
    device = choose_device(config)
    if device.type == "cpu":
        return provenance.hardware(device)
    return provenance.hardware(torch.device("cpu")) | {"device": _told(provenance.card, device)}


def visible_gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES calls each GPU that this process may use: numbers, or names that begin with GPU or MIG.

    Counted by the driver's management library where there is one, else by the CUDA runtime; neither opens a context.
    """
    given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    count = torch.cuda.device_count()
    names = [name.strip() for name in given.split(",")] if given else [str(number) for number in range(count)]
    return names[:count]
