"""Mentions: where the subjects of facts stand in a text, as pieces of the tokenizer.

Pieces are compared, so a subject has the case, the accents and the word boundaries that the tokenizer reads.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from albert_ablate.data.tokenizer import UNK, Tokenizer
from albert_ablate.data.unspaced import UNSPACED

_UNSPACED = re.compile(f"[{UNSPACED}]")
#: A mark after which a word begins without a space.
_OPENING = "("


@dataclass(frozen=True)
class Mention:
    """A subject in a text: the pieces ``start`` to ``end``, the latter excluded."""

    subject: int  # its number among the subjects
    start: int
    end: int


class Matcher:
    """Finds subjects in texts that are already pieces: the longest match first, from left to right."""

    def __init__(self, subjects: Sequence[str], tokenizer: Tokenizer) -> None:
        """Subjects whose pieces are equal count as the first of them, see ``same``."""
        self._tokenizer = tokenizer
        plain = tokenizer.encode(list(subjects)) if subjects else []
        mark, *opened = tokenizer.encode([_OPENING, *(_OPENING + subject for subject in subjects)])
        self._known: dict[tuple[int, ...], int] = {}
        self.same: dict[int, int] = {}  # subject -> the subject that it counts as
        self.unknown = 0  # subjects that the tokenizer cannot write, or that are empty for it
        for number, (ids, behind) in enumerate(zip(plain, opened, strict=True)):
            if not ids or UNK in ids:
                self.unknown += 1
                continue
            self.same[number] = self._known.setdefault(tuple(ids), number)
            if behind[: len(mark)] == mark and len(behind) > len(mark):
                self._known.setdefault(tuple(behind[len(mark) :]), self.same[number])
        lengths: dict[int, set[int]] = {}
        for ids_of_subject in self._known:
            lengths.setdefault(ids_of_subject[0], set()).add(len(ids_of_subject))
        self._lengths = {first: sorted(found, reverse=True) for first, found in lengths.items()}
        self._edge = cache(self._edge_of)

    def mentions(self, ids: Sequence[int]) -> list[Mention]:
        """The mentions in a text of pieces, in order; none overlap."""
        found, place = [], 0
        while place < len(ids):
            mention = self._at(ids, place)
            if mention is None:
                place += 1
            else:
                found.append(mention)
                place = mention.end
        return found

    def _at(self, ids: Sequence[int], start: int) -> Mention | None:
        lengths = self._lengths.get(ids[start])
        if lengths is None or (start and not self._divides(ids[start - 1], ids[start])):
            return None
        for length in lengths:
            end = start + length
            if end > len(ids) or (end < len(ids) and not self._divides(ids[end - 1], ids[end])):
                continue
            subject = self._known.get(tuple(ids[start:end]))
            if subject is not None:
                return Mention(subject, start, end)
        return None

    def _divides(self, left: int, right: int) -> bool:
        """Whether a word ends between two neighbouring pieces."""
        opens, first, _ = self._edge(right)
        return opens or not first or not self._edge(left)[2]

    def _edge_of(self, piece: int) -> tuple[bool, bool, bool]:
        """Whether the piece opens a word, and whether its first and last characters join with neighbouring ones."""
        opens, characters = self._tokenizer.characters(piece)
        return opens, _joins(characters[:1]), _joins(characters[-1:])


def _joins(character: str) -> bool:
    """Whether it is a letter or digit of a script with spaces between words."""
    return character.isalnum() and _UNSPACED.match(character) is None
