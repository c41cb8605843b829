"""Named randomness: every draw is a function of (seed, purpose, counters), never of call order.

``generator`` and ``torch_generator`` return an ordinary generator for a named purpose. ``uniform``
and ``fair_binomial`` are counter-based: element ``i`` depends only on its own counters, so arrays
can be computed in any order, by any number of workers, from any position.
"""

import hashlib
from typing import Any

import numpy as np
import torch

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, the SplitMix64 increment


def key(seed: int, purpose: str, *counters: int | str) -> int:
    """A 64-bit key for ``purpose``; distinct names or counters give unrelated keys."""
    text = "\x1f".join([str(seed), purpose, *map(str, counters)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def generator(seed: int, purpose: str, *counters: int | str) -> np.random.Generator:
    """A separate NumPy generator for ``purpose``."""
    return np.random.Generator(np.random.Philox(key(seed, purpose, *counters)))


def torch_generator(seed: int, purpose: str, *counters: int | str) -> torch.Generator:
    """A separate CPU torch generator for ``purpose``."""
    torch_stream = torch.Generator()
    torch_stream.manual_seed(key(seed, purpose, *counters))
    return torch_stream


def hashed(stream: int, *counters: Any) -> np.ndarray:
    """64 hashed bits for each element of the broadcast integer ``counters`` (SplitMix64 rounds)."""
    with np.errstate(over="ignore"):
        state = np.uint64(stream)
        for counter in counters:
            state = _mix((state + np.asarray(counter).astype(np.uint64) * _MULTIPLIER) + _MULTIPLIER)
        return np.asarray(state)


def uniform(stream: int, *counters: Any) -> np.ndarray:
    """float64 in [0, 1) for each element of the broadcast integer ``counters``."""
    return (hashed(stream, *counters) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def integers(stream: int, low: Any, high: Any, *counters: Any) -> np.ndarray:
    """int64 uniform in [low, high) for each element; ``low`` and ``high`` broadcast."""
    low = np.asarray(low, dtype=np.int64)
    span = np.asarray(high, dtype=np.int64) - low
    return low + np.floor(uniform(stream, *counters) * span).astype(np.int64)


def fair_binomial(stream: int, trials: np.ndarray, *counters: Any) -> np.ndarray:
    """Number of heads in ``trials`` fair coin tosses for each element, as int64."""
    trials = np.asarray(trials, dtype=np.int64)
    heads = np.zeros(trials.shape, dtype=np.int64)
    for block in range(-(-int(trials.max(initial=0)) // 64)):
        left = np.clip(trials - 64 * block, 0, 64)
        kept = np.where(left == 64, ~np.uint64(0), (np.uint64(1) << (left % 64).astype(np.uint64)) - np.uint64(1))
        heads += np.bitwise_count(hashed(stream, *counters, block) & kept)
    return heads


def _mix(z: Any) -> Any:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
