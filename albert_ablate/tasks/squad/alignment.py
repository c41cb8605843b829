"""Pieces of a text with the characters each one came from.

The released code recovers them by a longest common subsequence between text and pieces, and loses
some questions. Here every character is followed through cleaning, and SentencePiece itself says
which characters a piece covers, so nothing is guessed and nothing is lost.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from albert_ablate.data.tokenizer import Tokenizer, clean


@dataclass(frozen=True)
class Aligned:
    """Pieces of one text and, for each, its first character and the one after its last."""

    ids: np.ndarray  # (P,) int32
    start: np.ndarray  # (P,) int32
    end: np.ndarray  # (P,) int32

    def __len__(self) -> int:
        return len(self.ids)


def align(texts: Sequence[str], tokenizer: Tokenizer) -> list[Aligned]:
    """Pieces with their places in the texts; the ids are those of ``Tokenizer.encode``."""
    config = tokenizer.config
    cleaned = [clean_with_places(text, config.lowercase, config.strip_accents) for text in texts]
    found = tokenizer.encode_with_offsets([text for text, _ in cleaned])
    return [_places(text, pieces, places) for text, pieces, (_, places) in zip(texts, found, cleaned, strict=True)]


def clean_with_places(text: str, lowercase: bool, strip_accents: bool) -> tuple[str, list[int]]:
    """``clean(text)`` and, for each of its characters, the place of the original one."""
    characters: list[str] = []
    places: list[int] = []
    gap: int | None = None  # white space that has not been written yet
    for place, original in enumerate(text):
        if original.isspace():
            gap = place if gap is None else gap
            continue
        if gap is not None and characters:
            characters.append(" ")
            places.append(gap)
        gap = None
        kept = original
        if strip_accents and not original.isascii():
            kept = "".join(c for c in unicodedata.normalize("NFKD", original) if not unicodedata.combining(c))
        kept = kept.lower() if lowercase else kept
        characters.append(kept)
        places.extend([place] * len(kept))
    whole = clean(text, lowercase, strip_accents)
    # The whole text's case folding differs from the characters' in letters alone (the Greek final sigma).
    assert len(whole) == len(places), "cleaning changed the length"
    return whole, places


def _places(text: str, pieces: list[tuple[int, int, int]], places: list[int]) -> Aligned:
    """From places in the cleaned text to places in ``text``; surrounding white space is left out."""
    last = len(places) - 1
    rows = []
    for piece, begin, end in pieces:
        first, final = places[min(begin, last)], places[min(max(end - 1, begin), last)]
        while first < final and text[first].isspace():
            first += 1
        rows.append((piece, first, final + 1))
    array = np.array(rows, dtype=np.int32).reshape(-1, 3)
    return Aligned(array[:, 0], array[:, 1], array[:, 2])
