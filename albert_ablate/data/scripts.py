"""Properties of scripts: the marks that end a sentence, and whether spaces separate words."""

import re
import unicodedata
from collections.abc import Iterable

from albert_ablate.data.unspaced import UNSPACED

#: Unicode's property Sentence_Terminal (version 16): first and last character of each run.
_SENTENCE_TERMINAL = """
21 2e 3f 589 61d-61f 6d4 700-702 7f9 837 839 83d-83e 964-965 104a-104b 1362 1367-1368 166e 1735-1736 17d4-17d5
1803 1809 1944-1945 1aa8-1aab 1b4e-1b4f 1b5a-1b5b 1b5e-1b5f 1b7d-1b7f 1c3b-1c3c 1c7e-1c7f 2024 203c-203d 2047-2049
2cf9-2cfb 2e2e 2e3c 2e53-2e54 3002 a4ff a60e-a60f a6f3 a6f7 a876-a877 a8ce-a8cf a92f a9c8-a9c9 aa5d-aa5f aaf0-aaf1
abeb fe12 fe15-fe16 fe52 fe56-fe57 ff01 ff0e ff1f ff61 10a56-10a57 10f55-10f59 10f86-10f89 11047-11048 110be-110c1
11141-11143 111c5-111c6 111cd 111de-111df 11238-11239 1123b-1123c 112a9 113d4-113d5 1144b-1144c 115c2-115c3 115c9-115d7
11641-11642 1173c-1173e 11944 11946 11a42-11a43 11a9b-11a9c 11c41-11c42 11ef7-11ef8 11f43-11f44 16a6e-16a6f 16af5
16b37-16b38 16b44 16d6e-16d6f 16e98 1bc9f 1da88
"""
#: Marks that end a sentence but lack that property: the Greek question mark, Hebrew sof pasuq, Tibetan shad, and Thai
#: angkhankhu and khomut.
_TIBETAN = "\u0f08\u0f0d-\u0f12\u0f14"
_ALSO_TERMINAL = f"\u037e\u05c3{_TIBETAN}\u0e5a\u0e5b"
#: Other marks that may end a line: colons, semicolons and ellipses of all scripts, and the closing corner bracket,
#: which ends a line of Japanese or Chinese speech without a further mark.
_OTHER_ENDS = ":;…\u2025⋯\u061b\u1364-\u1366：；」』﹂﹄｣"
#: Full-width punctuation and symbols.
_FULL_WIDTH = "\u3000-\u303f\u3190-\u319f\u31c0-\u31ef\u3200-\u33ff\ufe30-\ufe4f\uff00-\uff65"


def _ranges(hexadecimal: str) -> str:
    """``21 61d-61f`` as the content of a regular expression's character class."""
    runs = (run.partition("-") for run in hexadecimal.split())
    return "".join(f"{re.escape(chr(int(a, 16)))}{dash}{chr(int(b, 16)) if b else ''}" for a, dash, b in runs)


TERMINAL = _ranges(_SENTENCE_TERMINAL) + _ALSO_TERMINAL
_TERMINAL = re.compile(f"[{TERMINAL}]")
_END = re.compile(f"[{TERMINAL}{_OTHER_ENDS}]")
_QUOTES = "\"'＂＇"
#: Emoji, with their joiners and modifiers.
_EMOJI = re.compile("[\u200d\ufe0f\u20e3\u2600-\u27bf\u2b00-\u2bff\U0001f000-\U0001faff\U000e0020-\U000e007f]")
_AFTER_TERMINAL = re.compile(f"(?<=[{TERMINAL}])([^\\w{TERMINAL}]*)(\\w)")
_UNSPACED_CHARACTER = re.compile(f"[{UNSPACED}{_FULL_WIDTH}]")
#: Georgian letters: Unicode calls them lower-case, but the script has no capitals in use.
_GEORGIAN = "".join(map(chr, range(0x10D0, 0x1100)))
#: Quotation marks, dots and dashes used with any script; the neighbouring character decides.
_OF_ANY_SCRIPT = "“”‘’…—·"
#: Scripts without sentence marks: Thai and Lao.
_UNMARKED = re.compile("[\u0e00-\u0eff]")


def ends_sentence(line: str) -> bool:
    """Whether ``line`` ends like a sentence of any script, ignoring closing quotes, brackets and emoji."""
    end = len(line)
    while end and _closes(line[end - 1]):
        end -= 1
    emoji = end < len(line) and _EMOJI.match(line[end]) is not None
    return emoji or (end > 0 and _END.match(line[end - 1]) is not None)


def _closes(character: str) -> bool:
    if _END.match(character):
        return False
    known = character in _QUOTES or unicodedata.category(character) in ("Pe", "Pf", "Pi")
    return known or _EMOJI.match(character) is not None


def several_sentences(line: str, language: str = "en") -> bool:
    """Whether a sentence ends within ``line`` and another begins.

    After an ASCII full stop, exclamation mark or question mark, a space and a letter that is not lower-case must
    follow. Other sentence marks have no second use and need nothing after them.
    """
    marked = line.replace(";", "\u037e") if language == "el" else line
    for boundary in _AFTER_TERMINAL.finditer(marked):
        mark, between, letter = marked[boundary.start() - 1], boundary[1], boundary[2]
        if mark not in ".!?\u2024":
            return True
        starts = letter.isupper() or unicodedata.category(letter) in ("Lo", "Lt") or letter in _GEORGIAN
        if starts and re.fullmatch(r"[\"')]*\s+", between):
            return True
    return False


def has_mark(text: str) -> bool:
    """Whether ``text`` contains a mark that ends sentences."""
    return _TERMINAL.search(text) is not None


def unmarked(text: str) -> bool:
    """Whether most characters of ``text`` belong to scripts without sentence marks."""
    return 2 * len(_UNMARKED.findall(text)) > sum(not character.isspace() for character in text)


def unspaced(text: str) -> bool:
    """Whether most characters of ``text`` belong to scripts without spaces between words."""
    return 2 * len(_UNSPACED_CHARACTER.findall(text)) > sum(not character.isspace() for character in text)


def join_lines(lines: Iterable[str]) -> tuple[str, int]:
    """(the lines of a wrapped paragraph joined into one; how many line breaks were joined without a space).

    No space is inserted between two characters of scripts without spaces (Han, kana, Thai, Lao, Khmer, Burmese,
    Tibetan and others) or full-width punctuation.
    """
    parts: list[str] = []
    tight = 0
    for line in lines:
        if parts:
            close = _is_unspaced(parts[-1].rstrip(_OF_ANY_SCRIPT)[-1:]) and _is_unspaced(
                line.lstrip(_OF_ANY_SCRIPT)[:1]
            )
            tight += close
            parts.append("" if close else " ")
        parts.append(line)
    return "".join(parts), tight


def _is_unspaced(character: str) -> bool:
    return character != "" and _UNSPACED_CHARACTER.match(character) is not None
