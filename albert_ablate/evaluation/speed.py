"""Inference speed of an encoder: the time of one forward pass over one sequence (DistilBERT, Table 3, batch 1)."""

import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from albert_ablate.model.encoder import Encoder
from albert_ablate.record.results import Inference
from albert_ablate.training.machine import Machine

#: Passes before the first measured one; the first passes choose kernels and allocate memory.
_WARM_UP = 3
#: The measurement ends after so many seconds or passes, but not before ``_LEAST`` passes.
_SECONDS, _MOST, _LEAST = 0.8, 200, 5


@torch.inference_mode()
def inference_speed(encoder: Encoder, length: int, machine: Machine) -> Inference:
    """Milliseconds of one pass over one full sequence of ``length`` tokens, in the number format of ``machine``.

    The model is left in evaluation mode. No random numbers are drawn; the time does not depend on the ids.
    """
    encoder.eval()
    device = next(encoder.parameters()).device
    ids = (torch.arange(length, device=device) % encoder.shape.vocab_size)[None]  # (1, T)
    milliseconds = [1000 * seconds for seconds in _passes(encoder, ids, machine)]
    low, median, high = np.percentile(milliseconds, [10, 50, 90])
    return Inference(
        milliseconds=float(median),
        percentiles=[float(low), float(high)],
        sequences=1,
        length=length,
        repetitions=len(milliseconds),
        precision=machine.precision,
        threads=torch.get_num_threads(),
        device=machine.card,
    )


def _passes(encoder: Encoder, ids: Tensor, machine: Machine) -> Iterator[float]:
    """Seconds of each pass over (1, T) ``ids`` after the warm-up."""
    types = torch.zeros_like(ids)
    began = time.perf_counter()
    for count in range(-_WARM_UP, _MOST):
        if count == 0:
            began = time.perf_counter()
        if count >= _LEAST and time.perf_counter() - began > _SECONDS:
            return
        started = time.perf_counter()
        with machine.autocast():
            encoder(ids, types)
        if ids.is_cuda:
            torch.cuda.synchronize(ids.device)
        if count >= 0:
            yield time.perf_counter() - started
