"""Scripts that write no spaces between words."""

import re
import unicodedata

#: Han, kana, bopomofo, Yi; Thai, Lao, Tibetan, Burmese, Khmer, and other scripts of south-east Asia:
#: for a set of characters in a regular expression.
UNSPACED = (
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3031-\u3035\u3038-\u303b\u3041-\u30ff\u3105-\u312f\u31a0-\u31bf\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\ua000-\ua4cf\uf900-\ufaff\uff66-\uff9f\U0001aff0-\U0001b16f\U00020000-\U0003ffff"
    "\u0e01-\u0e5b\u0e81-\u0edf\u0f00-\u0fff\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f\u1780-\u17ff\u1950-\u19ff\u1a20-\u1aaf"
    "\u1b00-\u1b7f\ua980-\ua9df\uaa80-\uaadf"
)
_HANGUL = "\u1100-\u11ff\u3130-\u318f\ua960-\ua97f\uac00-\ud7ff"
_MIXED = re.compile(f"[{UNSPACED}{_HANGUL}]|[^\\s{UNSPACED}{_HANGUL}]+")
_UNSPACED = re.compile(f"[{UNSPACED}]")
#: Words of a spaced script, and the characters of one without spaces: what a bag of words counts.
WORDS = f"(?u)[{UNSPACED}]|[^\\W{UNSPACED}]+"


def mixed_segments(text: str) -> list[str]:
    """Characters of scripts without spaces, and of Korean; everything between them by white space."""
    return _MIXED.findall(text)


def writes_no_spaces(text: str) -> bool:
    """Whether more of ``text`` are characters of such scripts than words of others."""
    if text.isascii():
        return False
    characters = len(_UNSPACED.findall(text))
    words = sum(any(map(str.isalnum, word)) for word in _UNSPACED.sub(" ", text).split())
    return characters > words


def is_punctuation(character: str) -> bool:
    """Unicode's punctuation, and signs whose ASCII form is one (string.punctuation has + and ~)."""
    plain = unicodedata.normalize("NFKC", character)
    if len(plain) == 1 and plain.isascii():
        return plain.isprintable() and not plain.isalnum() and not plain.isspace()
    return unicodedata.category(character).startswith("P")
