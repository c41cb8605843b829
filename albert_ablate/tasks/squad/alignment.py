"""Aligns the pieces of a text with the characters that they cover.

The released code aligns by a longest common subsequence of text and pieces, and loses some questions.
This module tracks every character through cleaning, and the tokenizer reports which characters a piece
covers. The alignment is exact, and no question is lost.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from albert_ablate.data.tokenizer import Tokenizer, clean


@dataclass(frozen=True)
class Aligned:
    """Pieces of one text with their character spans: ``start`` inclusive, ``end`` exclusive."""

    ids: np.ndarray  # (P,) int32
    start: np.ndarray  # (P,) int32
    end: np.ndarray  # (P,) int32

    def __len__(self) -> int:
        return len(self.ids)


def align(texts: Sequence[str], tokenizer: Tokenizer) -> list[Aligned]:
    """Pieces with their spans in the texts; the ids are those of ``Tokenizer.encode``."""
    config = tokenizer.config
    cleaned = [clean_with_origins(text, config.lowercase, config.strip_accents) for text in texts]
    encoded = tokenizer.encode_with_offsets([text for text, _ in cleaned])
    return [_spans(text, pieces, origins) for text, pieces, (_, origins) in zip(texts, encoded, cleaned, strict=True)]


def clean_with_origins(text: str, lowercase: bool, strip_accents: bool) -> tuple[str, list[int]]:
    """(``clean(text)``, for each of its characters the index of the original character)."""
    characters: list[str] = []
    origins: list[int] = []
    gap: int | None = None  # white space that has not been written yet
    for index, original in enumerate(text):
        if original.isspace():
            gap = index if gap is None else gap
            continue
        if gap is not None and characters:
            characters.append(" ")
            origins.append(gap)
        gap = None
        kept = original
        if strip_accents and not original.isascii():
            kept = "".join(c for c in unicodedata.normalize("NFKD", original) if not unicodedata.combining(c))
        kept = kept.lower() if lowercase else kept
        characters.append(kept)
        origins.extend([index] * len(kept))
    whole = clean(text, lowercase, strip_accents)
    # Lower-casing the whole text may give other letters (the Greek final sigma), but never another length.
    assert len(whole) == len(origins), "cleaning changed the length"
    return whole, origins


def _spans(text: str, pieces: list[tuple[int, int, int]], origins: list[int]) -> Aligned:
    """Maps spans in the cleaned text to spans in ``text``, without leading white space."""
    last = len(origins) - 1
    rows = []
    for piece, begin, end in pieces:
        first, final = origins[min(begin, last)], origins[min(max(end - 1, begin), last)]
        while first < final and text[first].isspace():
            first += 1
        rows.append((piece, first, final + 1))
    array = np.array(rows, dtype=np.int32).reshape(-1, 3)
    return Aligned(array[:, 0], array[:, 1], array[:, 2])
