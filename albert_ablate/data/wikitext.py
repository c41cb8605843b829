"""WikiText: recognises its format, finds its headings, and reverses its tokenisation.

WikiText (Merity et al., 2017) was tokenised by Moses: a space before each punctuation mark, `` @-@ `` for a hyphen
within a word, `` @,@ `` and `` @.@ `` within numbers, and ``<unk>`` for rare words in the versions with a smaller
vocabulary. Articles begin with a line `` = Title = ``.
"""

import re
from collections.abc import Iterable, Sequence

#: Stands for a word that is ``<unk>`` in the source. The code point is a Unicode noncharacter, so no text contains it;
#: every tokenizer of the project maps it to the unknown piece.
UNKNOWN = "\ufdd0"
#: Raise when the same file gives another text: the fingerprint of its sentences depends on it.
RULES = 1

_HEADING = re.compile(r"((?:= )+)([^\s=].*?)((?: =)+)")
_JOINER = re.compile(r"@([-,.])@")
_OPENING = frozenset("([{“")
_CLOSING = frozenset(",.;:!?)]}%”")
_AMOUNT = frozenset("$£€¥#")
#: The token that Moses makes of an apostrophe and the letters after it: ``'s``, ``'t``, ``'Brien``.
_APOSTROPHE = re.compile(r"'[^\W\d_]+")
#: Contracted endings after a typographic apostrophe, which is a separate token.
_CONTRACTED = frozenset({"s", "t", "re", "ve", "ll", "d", "m"})
_DECADE = re.compile(r"\d0s?\b")
#: Lines with more apostrophes than this keep their spaces around them.
_MOST_APOSTROPHES = 12
#: A file counts as tokenised if at least this share of its commas and final full stops has a space before it.
_TOKENISED = 0.95


def heading_level(line: str) -> int:
    """1 for an article's title `` = Title = ``, more for headings within it; 0 for any other line."""
    match = _HEADING.fullmatch(line.strip())
    return match[1].count("=") if match and match[1].count("=") == match[3].count("=") else 0


def is_wikitext(lines: Iterable[str]) -> bool:
    """Whether the first ``lines`` of a file have the headings and the spaces of WikiText.

    A heading is framed by blank lines or is the first line. Headings alone are not enough: other markup has lines
    between equals signs, too.
    """
    known = [line.strip() for line in lines]
    framed = zip(["", *known], known, [*known[1:], ""], strict=False)
    first = next(filter(None, known), "")
    if heading_level(first) != 1 and not any(heading_level(line) and not (a or b) for a, line, b in framed):
        return False
    counts = [_spaces(line.split()) for line in known if not heading_level(line)]
    spaced, tight = (sum(count) for count in zip(*counts, strict=True)) if counts else (0, 0)
    return spaced > 0 and spaced >= _TOKENISED * (spaced + tight)


def _spaces(tokens: Sequence[str]) -> tuple[int, int]:
    """(commas, full stops and joiners that are separate tokens; commas and final full stops attached to a word).

    Other marks are no evidence: French writes a space before them.
    """
    spaced = sum(token in (",", ".") or _JOINER.fullmatch(token) is not None for token in tokens)
    last = tokens[-1].rstrip("\"')]") if tokens else ""
    stop = last.endswith(".") and last.strip(".") != ""
    return spaced, stop + sum(token.endswith(",") and len(token) > 1 for token in tokens)


def detokenised(line: str) -> str:
    """A tokenised paragraph with its original spacing; uncertain spaces are kept.

    Removed are joiners and the spaces before closing marks, after opening brackets, before ``'s`` and similar endings,
    between a currency sign and its number, in times and scores (``10 : 30``), inside pairs of double quotes, and around
    single quotes if only one pairing is possible. Dashes and slashes keep their spaces, because their original spacing
    is unknown. ``<unk>`` becomes ``UNKNOWN``. A line that is not tokenised is unchanged.
    """
    tokens = [UNKNOWN if token == "<unk>" else token for token in line.split()]
    spaced, tight = _spaces(tokens)
    if spaced <= tight:
        return " ".join(tokens)
    before, after = _sides(tokens)
    parts: list[str] = []
    for index, token in enumerate(tokens):
        joined = index and (before[index] or after[index - 1])
        joiner = _JOINER.fullmatch(token) if 0 < index < len(tokens) - 1 else None
        parts += ["" if joined or not index else " ", joiner[1] if joiner else token]
    return "".join(parts)


def _sides(tokens: Sequence[str]) -> tuple[list[bool], list[bool]]:
    """For each token, whether it is joined to the token before it, and to the token after it."""
    before, after = [False] * len(tokens), [False] * len(tokens)
    for index, token in enumerate(tokens):
        left = tokens[index - 1] if index else ""
        right = tokens[index + 1] if index + 1 < len(tokens) else ""
        if _JOINER.fullmatch(token):
            before[index] = after[index] = bool(left and right)
        elif token in _CLOSING:
            before[index] = token != "%" or left[-1:].isdigit()
            after[index] = token == ":" and re.fullmatch(r"\d{1,2} \d\d?", f"{left} {right}") is not None
        elif token in _OPENING:
            after[index] = token != "“" or "„" not in tokens  # German closes with “
        elif token == "’":
            before[index] = after[index] = right.lower() in _CONTRACTED and _is_word(left[-1:])
        elif token in _AMOUNT:
            after[index] = right[:1].isdigit()
        elif _APOSTROPHE.fullmatch(token):
            before[index] = _is_word(left[-1:])
    quotes = [index for index, token in enumerate(tokens) if token == '"']
    if len(quotes) % 2 == 0:
        for number, index in enumerate(quotes):
            (before if number % 2 else after)[index] = True
    for index, reading in zip(*_apostrophes(tokens), strict=True):
        (after if reading in "od" else before)[index] = True
    return before, after


def _apostrophes(tokens: Sequence[str]) -> tuple[list[int], str]:
    """(indices of single quotation marks, a letter for the role of each); empty unless exactly one reading exists.

    ``o`` opens, ``c`` closes, ``p`` is a possessive (``Linnaeus '``), ``d`` a decade (``' 90s``).
    """
    indices = [index for index, token in enumerate(tokens) if token == "'"]
    readings = {""}
    for index in indices[: _MOST_APOSTROPHES + 1]:
        left = tokens[index - 1] if index else ""
        right = tokens[index + 1] if index + 1 < len(tokens) else ""
        extended = set()
        for reading in readings:
            is_open = reading.rstrip("pd").endswith("o")
            if is_open and left:
                extended.add(reading + "c")
            if not is_open and right and right not in _CLOSING:
                extended.add(reading + "o")
            if left[-1:].lower() in ("s", "z", "x") and _is_word(right[:1]):
                extended.add(reading + "p")
            if _DECADE.match(right):
                extended.add(reading + "d")
        readings = extended
    whole = [reading for reading in readings if not reading.rstrip("pd").endswith("o")]
    return (indices, whole[0]) if len(whole) == 1 and len(indices) <= _MOST_APOSTROPHES else ([], "")


def _is_word(character: str) -> bool:
    return character.isalnum() or character == UNKNOWN
