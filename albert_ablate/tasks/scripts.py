"""Scripts without spaces between words."""

import re
import unicodedata

from albert_ablate.data.unspaced import UNSPACED

_HANGUL = "\u1100-\u11ff\u3130-\u318f\ua960-\ua97f\uac00-\ud7ff"
_MIXED = re.compile(f"[{UNSPACED}{_HANGUL}]|[^\\s{UNSPACED}{_HANGUL}]+")
_UNSPACED = re.compile(f"[{UNSPACED}]")
#: Tokens of a bag of words: words of scripts with spaces, characters of scripts without.
WORDS = f"(?u)[{UNSPACED}]|[^\\W{UNSPACED}]+"


def mixed_segments(text: str) -> list[str]:
    """Single characters of scripts without spaces and of Korean; other text split at white space."""
    return _MIXED.findall(text)


def writes_no_spaces(text: str) -> bool:
    """Whether ``text`` has more characters of scripts without spaces than words of other scripts."""
    if text.isascii():
        return False
    characters = len(_UNSPACED.findall(text))
    words = sum(any(map(str.isalnum, word)) for word in _UNSPACED.sub(" ", text).split())
    return characters > words


def is_punctuation(character: str) -> bool:
    """Whether Unicode calls it punctuation, or its ASCII form is in string.punctuation (which has + and ~)."""
    plain = unicodedata.normalize("NFKC", character)
    if len(plain) == 1 and plain.isascii():
        return plain.isprintable() and not plain.isalnum() and not plain.isspace()
    return unicodedata.category(character).startswith("P")
