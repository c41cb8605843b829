"""Planted text: documents whose structure is known, because they are drawn from it.

A document has a topic; ``topic`` is the probability that a word is drawn from the topic's list, else it is any word.
The first word of a sentence is, with probability ``order``, the marker of its place: there are ``markers`` of them,
and the sentences of a document go through them again and again. Any other word is, with probability ``local``, the one
successor of its left neighbour in the sentence (a marker has none). At strength 0 every word is drawn evenly from all
of them: there is nothing to learn.

Every draw is a function of (``seed``, purpose, document, sentence, word), so a larger corpus begins with the smaller.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from albert_ablate import streams
from albert_ablate.config.schema import PlantedConfig
from albert_ablate.files import digest

#: Raise when the same settings would give another text.
_FORMAT = 1
_SYLLABLES = [consonant + vowel for consonant in "bdfghklmnprstvz" for vowel in "aeiou"]
_SYLLABLES_A_WORD = 3
#: How many different words there can be.
MOST_WORDS = len(_SYLLABLES) ** _SYLLABLES_A_WORD
_BLOCK = 1000


@dataclass(frozen=True)
class PlantedText:
    """Words are numbered: the ``vocabulary`` of the topics, list after list, then the markers in their order."""

    settings: PlantedConfig

    @property
    def word_count(self) -> int:
        """Words and markers, W below."""
        return self.settings.vocabulary + self.settings.markers

    @property
    def markers(self) -> np.ndarray:
        """(sentences,) the marker of each place in a document."""
        return self.settings.vocabulary + np.arange(self.settings.sentences) % self.settings.markers

    @cached_property
    def words(self) -> list[str]:
        """(W,) how they are written: three syllables each, no two alike."""
        draws = streams.hashed(self._key("words"), np.arange(MOST_WORDS))
        chosen = np.argsort(draws, kind="stable")[: self.word_count]
        count = len(_SYLLABLES)
        return ["".join(_SYLLABLES[number // count**place % count] for place in range(3)) for number in chosen.tolist()]

    @cached_property
    def successors(self) -> np.ndarray:
        """(vocabulary,) the word that each one determines: a circle within each topic's list."""
        s = self.settings
        size = s.vocabulary // s.topics
        found = np.empty(s.vocabulary, dtype=np.int64)
        for topic in range(s.topics):
            circle = topic * size + np.argsort(streams.hashed(self._key("successors"), topic, np.arange(size)))
            found[circle] = np.roll(circle, -1)
        return found

    @cached_property
    def chances(self) -> np.ndarray:
        """(topics, W) probability of each word where neither a marker nor a neighbour determines it."""
        s = self.settings
        found = np.full((s.topics, self.word_count), (1 - s.topic) / self.word_count)
        size = s.vocabulary // s.topics
        for topic in range(s.topics):
            found[topic, topic * size : (topic + 1) * size] += s.topic / size
        return found

    def topics_of(self, documents: np.ndarray) -> np.ndarray:
        """The topic of each document, all of them as likely."""
        return streams.integers(self._key("topics"), 0, self.settings.topics, documents)

    def draw(self, documents: np.ndarray) -> np.ndarray:
        """(documents, sentences, words) numbers of the words."""
        s = self.settings
        size = s.vocabulary // s.topics
        document, sentence, place = (
            documents[:, None, None], np.arange(s.sentences)[None, :, None], np.arange(s.words)[None, None, :]
        )  # fmt: skip
        at = (document, sentence, place)
        begin = (self.topics_of(documents) * size)[:, None, None]
        own = streams.integers(self._key("own"), begin, begin + size, *at)
        free = streams.integers(self._key("free"), 0, self.word_count, *at)
        found = np.where(streams.uniform(self._key("topical"), *at) < s.topic, own, free)
        marked = streams.uniform(self._key("marked"), documents[:, None], np.arange(s.sentences)) < s.order
        found[:, :, 0] = np.where(marked, self.markers, found[:, :, 0])
        follows = streams.uniform(self._key("follows"), *at) < s.local
        for word in range(1, s.words):
            left = found[:, :, word - 1]
            chained = follows[:, :, word] & (left < s.vocabulary)
            successor = self.successors[np.minimum(left, s.vocabulary - 1)]
            found[:, :, word] = np.where(chained, successor, found[:, :, word])
        return found

    def documents(self) -> Iterator[str]:
        """Every document, a sentence a line."""
        words = np.array(self.words, dtype=object)
        for start in range(0, self.settings.documents, _BLOCK):
            block = words[self.draw(np.arange(start, min(start + _BLOCK, self.settings.documents)))]
            for document in block:
                yield "\n".join(" ".join(sentence) for sentence in document)

    @property
    def occurring(self) -> np.ndarray:
        """Numbers of the words that the text can hold: without order, full topics leave the markers out."""
        s = self.settings
        return np.arange(self.word_count if s.order > 0 or s.topic < 1 else s.vocabulary)

    @property
    def fingerprint(self) -> str:
        """Of the text, from what decides it."""
        return digest(["planted", _FORMAT, {k: v for k, v in asdict(self.settings).items() if k != "pieces"}])

    def source(self) -> dict[str, Any]:
        """For the record: that the text is planted, and how strongly."""
        return {"planted": asdict(self.settings)}

    def _key(self, purpose: str) -> int:
        return streams.key(self.settings.seed, f"planted.{purpose}")
