"""Which pieces open a word: what whole-word masking hides together.

The reference's rule was made for English: a character outside a-z opens a word, so that words of other
alphabets, whose letters are all outside, are hidden piece by piece.
"""

import re
import string
import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import Literal

import numpy as np

from albert_ablate.data.unspaced import UNSPACED

#: ``tokenizer.words``.
Rule = Literal["script", "spaces", "reference"]
# ASCII punctuation but for the four the reference's literal lacks.
_PUNCTUATION = frozenset(string.punctuation) - frozenset("'<=>")
_UNSPACED = re.compile(f"[{UNSPACED}]")


def starts_word(piece: str, rule: Rule = "reference") -> bool:
    """Whether a SentencePiece piece opens a word.

    True for pieces with the word mark and for a single punctuation sign; else, by the reference, for any piece with a
    character that is neither a letter a-z nor such punctuation (digits, apostrophes, letters of all other alphabets).
    ``spaces``: letters and marks of every alphabet continue a word, too. ``script``: those of scripts that write
    spaces between words.
    """
    if piece.startswith(("▁", "<")) or (len(piece) == 1 and piece in _PUNCTUATION):
        return True
    return any(not _continues(c, rule) for c in piece)


@cache
def _continues(character: str, rule: Rule) -> bool:
    if "a" <= character.lower() <= "z" or character in _PUNCTUATION:
        return True
    if rule == "reference":
        return False
    letter = unicodedata.category(character)[0] in "LM" or unicodedata.category(character) == "Cf"  # Cf: joiners
    return letter and (rule == "spaces" or _UNSPACED.match(character) is None)


def word_starts(pieces: Sequence[str], rule: Rule) -> np.ndarray:
    """(V,) bool by piece of a SentencePiece vocabulary."""
    return np.array([starts_word(piece, rule) for piece in pieces])


def word_piece_starts(pieces: Sequence[str], rule: Rule) -> np.ndarray:
    """(V,) bool by piece of a WordPiece vocabulary: ``##`` continues a word, but for scripts without spaces."""
    return np.array(
        [
            not piece.startswith("##")
            or (rule == "script" and any(unicodedata.category(c)[0] in "LM" for c in _UNSPACED.findall(piece)))
            for piece in pieces
        ]
    )


def rule_in_digest(starts: np.ndarray, reference: np.ndarray) -> list[str]:
    """What a tokenizer's fingerprint says of its words: nothing where they are those of the reference."""
    return [] if np.array_equal(starts, reference) else ["words", np.packbits(starts).tobytes().hex()]
