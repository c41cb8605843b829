"""Further training examples with replaced words (TinyBERT's data augmentation).

Jiao et al. (2020), Algorithm 1, as in the released ``data_augmentation.py``: the candidates for each word are computed
once for a text, and each word of a copy is replaced by one of its candidates with probability p. Unlike there, texts
keep their case and their spaces.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from albert_ablate import streams
from albert_ablate.config.tasks import AugmentConfig
from albert_ablate.data.unspaced import UNSPACED
from albert_ablate.tasks.texts.sets import Example

#: A text's words by their place -> what may replace them. Words that stay are left out.
Candidates = Mapping[int, Sequence[str]]

#: Runs of letters, digits and apostrophes. ``don't`` is one word, and no word of letters only.
_WORD = re.compile(r"\w+(?:['\u2019]\w+)*")
_UNSPACED = re.compile(f"[{UNSPACED}]")


@dataclass(frozen=True)
class Word:
    """A word of a text, at the characters ``start`` to ``end``."""

    text: str
    start: int
    end: int


def words_of(text: str) -> list[Word]:
    """The words of a text in order."""
    return [Word(match[0], *match.span()) for match in _WORD.finditer(text)]


def only_letters(word: str) -> bool:
    """Whether a word has only letters of scripts with spaces between words. Other words are never replaced."""
    return word.isalpha() and _UNSPACED.search(word) is None


def replaceable(text: str, stop_words: frozenset[str]) -> dict[int, Word]:
    """Place -> word, for the words of letters that are no stop words."""
    found = enumerate(words_of(text))
    return {place: word for place, word in found if only_letters(word.text) and word.text.lower() not in stop_words}


def variants(text: str, candidates: Candidates, settings: AugmentConfig, stream: int) -> list[str]:
    """Distinct copies of a text with replaced words, at most ``settings.copies``; the text itself is left out.

    ``stream`` is the key of the draws, whose counters are the copy and the word's place.
    """
    words = words_of(text)
    places = np.array(sorted(candidates), np.int64)
    if not len(places):
        return []
    copies = np.arange(settings.copies)[:, None]
    replaced = streams.uniform(stream, copies, places, 0) < settings.probability  # (copies, places)
    counts = np.array([len(candidates[place]) for place in places.tolist()])
    chosen = streams.integers(stream, 0, counts, copies, places, 1)
    made: dict[str, None] = {}
    for row in range(settings.copies):
        parts, end = [], 0
        for column in np.flatnonzero(replaced[row]):
            word = words[places[column]]
            parts += [text[end : word.start], candidates[int(places[column])][chosen[row, column]]]
            end = word.end
        made["".join([*parts, text[end:]])] = None
    made.pop(text, None)
    return list(made)


def augmented(
    examples: Sequence[Example], candidates_of: Callable[[str], Candidates], settings: AugmentConfig
) -> list[Example]:
    """Each example, followed by its copies with the same target; equal copies of an example are dropped.

    Of a pair one text is changed at a time. With ``settings.pairs=released`` the copies with another second text have
    the last copy of the first text, because the released code overwrites the row.
    """
    made = []
    for example in examples:
        firsts = _variants(example, "first", example.first, candidates_of, settings)
        rows = [(example.first, example.second), *((first, example.second) for first in firsts)]
        if example.second is not None:
            seconds = _variants(example, "second", example.second, candidates_of, settings)
            kept = firsts[-1] if firsts and settings.pairs == "released" else example.first
            rows += [(kept, second) for second in seconds]
        for number, (first, second) in enumerate(dict.fromkeys(rows)):
            name = example.id if not number else f"{example.id}+{number}"
            made.append(replace(example, id=name, first=first, second=second))
    return made


def _variants(
    example: Example, side: str, text: str, candidates_of: Callable[[str], Candidates], settings: AugmentConfig
) -> list[str]:
    """The draws do not depend on the run or its seed, so that all arms train on the same examples."""
    stream = streams.key(0, "augment", example.id, side)
    return variants(text, candidates_of(text), settings, stream)
