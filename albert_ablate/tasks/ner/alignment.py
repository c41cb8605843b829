"""Aligns the pieces of a text with its words.

A text is tokenised as a whole, as in pretraining, and a piece belongs to the word that holds its first visible
character. The first piece of a word carries its label.

Letters: P pieces of a text, W words.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from albert_ablate.data.tokenizer import Tokenizer
from albert_ablate.tasks.ner.sentences import Sentence
from albert_ablate.tasks.squad.alignment import align


@dataclass(frozen=True)
class WordPieces:
    """The pieces of one text."""

    ids: np.ndarray  # (P,) int32
    word: np.ndarray  # (P,) the word of each piece; -1: none
    first: np.ndarray  # (W,) the piece that is read for each word; -1: none
    shared: np.ndarray  # (W,) bool: that piece began in an earlier word, so the word continues that one's entity


def word_pieces(sentences: Sequence[Sentence], tokenizer: Tokenizer) -> list[WordPieces]:
    """The pieces of every text with their words."""
    made = []
    for sentence, pieces in zip(sentences, align([s.text for s in sentences], tokenizer), strict=True):
        spans = np.array(sentence.words, np.int64).reshape(-1, 2)
        count = len(spans)
        word = np.searchsorted(spans[:, 1], pieces.start, side="right")  # a piece before a word is the word's
        word = np.where(word < count, word, -1)
        first = np.full(count, -1)
        owned = np.flatnonzero(word >= 0)[::-1]
        first[word[owned]] = owned  # the last assignment, of the first piece, stays
        shared = np.zeros(count, bool)
        for place in np.flatnonzero(first < 0).tolist():
            start, end = sentence.words[place]
            covering = np.flatnonzero((pieces.start < end) & (pieces.end > start))
            if len(covering):
                first[place], shared[place] = covering[0], True
        made.append(WordPieces(pieces.ids, word, first, shared))
    return made
