"""Which pieces open a word; whole-word masking masks all pieces of a word together.

The reference's rule was made for English: a character outside a-z opens a word. Words of other alphabets, whose
letters are all outside a-z, are therefore masked piece by piece.
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
# ASCII punctuation, without the four characters that the reference's literal lacks.
_PUNCTUATION = frozenset(string.punctuation) - frozenset("'<=>")
_UNSPACED = re.compile(f"[{UNSPACED}]")


def starts_word(piece: str, rule: Rule = "reference") -> bool:
    """Whether a SentencePiece piece opens a word.

    True for pieces with the word mark and for a single punctuation mark. Otherwise ``rule`` decides. ``reference``:
    any piece with a character that is neither a letter a-z nor such punctuation opens a word (digits, apostrophes,
    letters of other alphabets). ``spaces``: letters and combining marks of every alphabet continue a word.
    ``script``: those of scripts with spaces between words do.
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
    """(V,) bool: pieces of a SentencePiece vocabulary that open a word."""
    return np.array([starts_word(piece, rule) for piece in pieces])


def word_piece_starts(pieces: Sequence[str], rule: Rule) -> np.ndarray:
    """(V,) bool: pieces of a WordPiece vocabulary that open a word.

    ``##`` continues a word, except in scripts without spaces under ``rule="script"``.
    """
    return np.array(
        [
            not piece.startswith("##")
            or (rule == "script" and any(unicodedata.category(c)[0] in "LM" for c in _UNSPACED.findall(piece)))
            for piece in pieces
        ]
    )


def rule_in_digest(starts: np.ndarray, reference: np.ndarray) -> list[str]:
    """The part of a tokenizer's fingerprint that ``starts`` adds: none if it equals ``reference``."""
    return [] if np.array_equal(starts, reference) else ["words", np.packbits(starts).tobytes().hex()]
