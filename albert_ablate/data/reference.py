"""The port of a corpus that knows how its text came about: the best predictions that anything could make of it."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Seen:
    """What masked pairs show. B pairs of T tokens; M chosen positions, row after row.

    Beyond what a model is given it tells which positions were chosen for masking, kept and random ones included, and
    where sentences begin: scores of a reference that is told so are bounds that no model exceeds.
    """

    ids: np.ndarray  # (B, T) pieces, masks applied
    chosen: np.ndarray  # (B, T) bool: chosen for masking
    segment: np.ndarray  # (B, T) 0 or 1, -1 at special tokens and padding
    sentence: np.ndarray  # (B, T) number of the sentence in its segment
    place: np.ndarray  # (B, T) place of the token in its sentence


@dataclass(frozen=True)
class Cuts:
    """How pairs are cut from documents, one entry a pair, all (N,): from where, and how many sentences."""

    label: np.ndarray
    same: np.ndarray  # bool: both segments are of one document
    first: np.ndarray  # (N, 2) number in its document of each segment's first sentence
    count: np.ndarray  # (N, 2) sentences of each segment


class Predictor(Protocol):
    """The best predictions for pairs that are cut in one way."""

    def masked(self, seen: Seen) -> np.ndarray:
        """(M, pieces) probability of each piece at the chosen positions."""

    def labels(self, seen: Seen) -> np.ndarray:
        """(B,) probability that a pair's label is 1."""


class Reference(Protocol):
    """What knows how the text of a corpus came about."""

    def predictor(self, cuts: Cuts) -> Predictor:
        """For pairs that are cut as ``cuts`` are, which are examples."""
