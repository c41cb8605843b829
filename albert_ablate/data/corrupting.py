"""Batches for a generator: beside the masks, the noise of its samples or, if it is no network, the samples.

The noise belongs to a row and its positions, so a sample is the same in any division of the batch.
"""

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from albert_ablate import streams
from albert_ablate.data.batches import Batch, PairBatches
from albert_ablate.data.store import TokenStore

#: Where replaced tokens come from: ``method.generator``.
Source = Literal["learned", "uniform", "unigram"]


class CorruptedBatches(PairBatches):
    """The batches of ``PairBatches`` with ``draws`` or, if the source is not learned, ``fakes``."""

    def __init__(self, source: Source, vocab_size: int, *settings: Any) -> None:
        super().__init__(*settings)
        self._cumulative = cumulative(source, self.store, vocab_size)

    def __getitem__(self, step: int) -> Batch:
        pairs, epochs = self.instances(step)
        batch = self.assembled(pairs, self.keys("masking", pairs, epochs))
        return with_noise(batch, self.keys("sampling", pairs, epochs), self._cumulative)


def cumulative(source: Source, store: TokenStore, vocab_size: int) -> np.ndarray | None:
    """(V,) cumulative distribution of a source that is no network; None for a learned one.

    Uniform: over all pieces, as a network whose logits are all zero. Unigram: the frequencies of the training text.
    """
    if source == "learned":
        return None
    if source == "uniform":
        counts = np.ones(vocab_size)
    else:
        counts = np.bincount(store.tokens, minlength=vocab_size).astype(np.float64)
    return np.cumsum(counts) / counts.sum()


def with_noise(batch: Batch, keys: np.ndarray, distribution: np.ndarray | None) -> Batch:
    """``batch`` with noise for its masked positions from the streams ``keys`` (B,), or with samples of a distribution.

    A position that was drawn twice gets two draws.
    """
    positions = batch.positions.numpy()
    row, column = np.divmod(positions, batch.input_ids.shape[1])
    again = np.arange(len(positions)) - np.searchsorted(positions, positions)  # draws of the same position before it
    draws = streams.uniform(0, keys[row], column, again)
    tensors: dict[str, Tensor] = batch.tensors()
    if distribution is None:
        return Batch(**tensors, draws=torch.from_numpy(draws.astype(np.float32)))
    fakes = np.searchsorted(distribution, draws, side="right").clip(max=len(distribution) - 1)
    return Batch(**tensors, fakes=torch.from_numpy(fakes))
