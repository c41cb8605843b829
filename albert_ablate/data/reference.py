"""The interface of a corpus with a known distribution: its optimal predictions."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Seen:
    """Masked pairs as the reference sees them: B pairs of T tokens, with M chosen positions in row order.

    The reference sees more than a model does: which positions were chosen for masking, even if kept or random, and
    where sentences begin. Its scores are therefore upper bounds for every model.
    """

    ids: np.ndarray  # (B, T) pieces, masks applied
    chosen: np.ndarray  # (B, T) bool: chosen for masking
    segment: np.ndarray  # (B, T) 0 or 1, -1 at special tokens and padding
    sentence: np.ndarray  # (B, T) index of the sentence in its segment
    position: np.ndarray  # (B, T) index of the token in its sentence


@dataclass(frozen=True)
class Cuts:
    """How N pairs are cut from documents; arrays are (N,) unless noted."""

    label: np.ndarray
    same: np.ndarray  # bool: both segments come from one document
    first: np.ndarray  # (N, 2) index in its document of each segment's first sentence
    count: np.ndarray  # (N, 2) number of sentences in each segment


class Predictor(Protocol):
    """Optimal predictions for pairs that are cut in one way."""

    def masked(self, seen: Seen) -> np.ndarray:
        """(M, pieces) probability of each piece at the chosen positions."""

    def labels(self, seen: Seen) -> np.ndarray:
        """(B,) probability that a pair's label is 1."""


class Reference(Protocol):
    """The known distribution of a corpus."""

    def predictor(self, cuts: Cuts) -> Predictor:
        """The predictor for pairs whose cuts have the distribution of the sample ``cuts``."""
