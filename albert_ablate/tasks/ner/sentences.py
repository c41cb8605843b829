"""Sentences as words with tags, made of columns or of a text with spans."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from albert_ablate.data.unspaced import UNSPACED
from albert_ablate.tasks.ner.tags import OUTSIDE, entities

_UNSPACED = re.compile(f"[{UNSPACED}]")


@dataclass(frozen=True)
class Sentence:
    """Words of one text, with the characters that each of them covers."""

    text: str
    words: tuple[tuple[int, int], ...]  # of each word: its first character and the end, exclusive
    tags: tuple[str, ...] | None  # IOB2; None: unknown
    id: str  # the line where it begins
    of_columns: bool = True  # read as words, not as a text with spans

    @property
    def written(self) -> list[str]:
        """The words as they are written."""
        return [self.text[start:end] for start, end in self.words]

    def spans(self, tags: Sequence[str], strict: bool = False) -> list[tuple[int, int, str]]:
        """(first character, end, label) of each entity of ``tags``."""
        found = entities(tags, strict)
        return [(self.words[start][0], self.words[end - 1][1], label) for label, start, end in found]


def of_words(words: Sequence[str], tags: Sequence[str] | None, identifier: str) -> Sentence:
    """A sentence of words, joined by spaces."""
    spans, place = [], 0
    for word in words:
        spans.append((place, place + len(word)))
        place += len(word) + 1
    return Sentence(" ".join(words), tuple(spans), None if tags is None else tuple(tags), identifier)


def of_text(text: str, identifier: str) -> Sentence:
    """A text without tags, divided into words (``word_spans``)."""
    return Sentence(text, tuple(word_spans(text)), None, identifier, of_columns=False)


def word_spans(text: str) -> Iterator[tuple[int, int]]:
    """(start, end) of each word: runs of letters and digits, and every other visible character by itself.

    So is each character of a script without spaces. Marks that combine stay with the character before them.
    """
    start: int | None = None
    single = False  # whether the open word is one character with its marks
    for place, character in enumerate(text):
        category = unicodedata.category(character)
        if start is not None and category in ("Mn", "Mc", "Me", "Cf"):
            continue
        alone = category[0] in "PS" or _UNSPACED.match(character) is not None
        if start is not None and (single or alone or character.isspace()):
            yield start, place
            start = None
        if start is None and not character.isspace():
            start, single = place, alone
    if start is not None:
        yield start, len(text)


def tagged(sentence: Sentence, spans: Sequence[tuple[int, int, str]]) -> tuple[tuple[str, ...], int, int | None]:
    """(IOB2 tags of a text's spans, spans that end inside of a word, the second of two spans with a common word).

    ``spans`` are in order. A span covers every word of which it has a character.
    """
    tags, inside = [OUTSIDE] * len(sentence.words), 0
    for number, (start, end, label) in enumerate(spans):
        covered = [place for place, (a, b) in enumerate(sentence.words) if a < end and b > start]
        if any(tags[place] != OUTSIDE for place in covered):
            return tuple(tags), inside, number
        for place in covered:
            tags[place] = f"{'B' if place == covered[0] else 'I'}-{label}"
        edges = (sentence.words[covered[0]][0], sentence.words[covered[-1]][1]) if covered else (start, end)
        inside += edges[0] < start or edges[1] > end
    return tuple(tags), inside, None
