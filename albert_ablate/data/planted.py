"""Planted text: documents drawn from a known distribution.

A document has a topic. A word is drawn from the topic's list with probability ``topic``, else from all words. The
first word of a sentence is, with probability ``order``, the marker of the sentence's position; the sentences of a
document cycle through the ``markers`` markers. Any other word is, with probability ``local``, the fixed successor of
its left neighbour in the sentence (a marker has none). With all three at 0 every word is drawn uniformly, and there is
nothing to learn.

Every draw is a function of (``seed``, purpose, document, sentence, word), so a smaller corpus is a prefix of a larger.
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
#: Number of possible words.
MOST_WORDS = len(_SYLLABLES) ** _SYLLABLES_A_WORD
_BLOCK = 1000


@dataclass(frozen=True)
class PlantedText:
    """A planted corpus. Words are numbered: the lists of the topics one after another, then the markers in order."""

    settings: PlantedConfig

    @property
    def word_count(self) -> int:
        """Number of words and markers, W below."""
        return self.settings.vocabulary + self.settings.markers

    @property
    def markers(self) -> np.ndarray:
        """(sentences,) the marker of each sentence position in a document."""
        return self.settings.vocabulary + np.arange(self.settings.sentences) % self.settings.markers

    @cached_property
    def words(self) -> list[str]:
        """(W,) spelling of each word: three syllables, all different."""
        draws = streams.hashed(self._key("words"), np.arange(MOST_WORDS))
        chosen = np.argsort(draws, kind="stable")[: self.word_count]
        count = len(_SYLLABLES)
        return ["".join(_SYLLABLES[number // count**digit % count] for digit in range(3)) for number in chosen.tolist()]

    @cached_property
    def successors(self) -> np.ndarray:
        """(vocabulary,) the successor of each word: a cycle within each topic's list."""
        s = self.settings
        size = s.vocabulary // s.topics
        successor = np.empty(s.vocabulary, dtype=np.int64)
        for topic in range(s.topics):
            circle = topic * size + np.argsort(streams.hashed(self._key("successors"), topic, np.arange(size)))
            successor[circle] = np.roll(circle, -1)
        return successor

    @cached_property
    def chances(self) -> np.ndarray:
        """(topics, W) probability of each word if neither a marker nor a neighbour determines it."""
        s = self.settings
        chances = np.full((s.topics, self.word_count), (1 - s.topic) / self.word_count)
        size = s.vocabulary // s.topics
        for topic in range(s.topics):
            chances[topic, topic * size : (topic + 1) * size] += s.topic / size
        return chances

    def topics_of(self, documents: np.ndarray) -> np.ndarray:
        """(documents,) topic of each document, drawn uniformly."""
        return streams.integers(self._key("topics"), 0, self.settings.topics, documents)

    def draw(self, documents: np.ndarray) -> np.ndarray:
        """(documents, sentences, words) numbers of the drawn words."""
        s = self.settings
        size = s.vocabulary // s.topics
        document, sentence, position = (
            documents[:, None, None], np.arange(s.sentences)[None, :, None], np.arange(s.words)[None, None, :]
        )  # fmt: skip
        at = (document, sentence, position)
        begin = (self.topics_of(documents) * size)[:, None, None]
        topical = streams.integers(self._key("own"), begin, begin + size, *at)
        free = streams.integers(self._key("free"), 0, self.word_count, *at)
        drawn = np.where(streams.uniform(self._key("topical"), *at) < s.topic, topical, free)
        marked = streams.uniform(self._key("marked"), documents[:, None], np.arange(s.sentences)) < s.order
        drawn[:, :, 0] = np.where(marked, self.markers, drawn[:, :, 0])
        follows = streams.uniform(self._key("follows"), *at) < s.local
        for word in range(1, s.words):
            left = drawn[:, :, word - 1]
            chained = follows[:, :, word] & (left < s.vocabulary)
            successor = self.successors[np.minimum(left, s.vocabulary - 1)]
            drawn[:, :, word] = np.where(chained, successor, drawn[:, :, word])
        return drawn

    def documents(self) -> Iterator[str]:
        """Every document, one sentence per line."""
        words = np.array(self.words, dtype=object)
        for start in range(0, self.settings.documents, _BLOCK):
            block = words[self.draw(np.arange(start, min(start + _BLOCK, self.settings.documents)))]
            for document in block:
                yield "\n".join(" ".join(sentence) for sentence in document)

    @property
    def occurring(self) -> np.ndarray:
        """Numbers of the words that can occur: no markers if ``order`` is 0 and ``topic`` is 1."""
        s = self.settings
        return np.arange(self.word_count if s.order > 0 or s.topic < 1 else s.vocabulary)

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the text, from the settings that decide it."""
        return digest(["planted", _FORMAT, {k: v for k, v in asdict(self.settings).items() if k != "pieces"}])

    def source(self) -> dict[str, Any]:
        """The settings, for the manifest."""
        return {"planted": asdict(self.settings)}

    def _key(self, purpose: str) -> int:
        return streams.key(self.settings.seed, f"planted.{purpose}")
