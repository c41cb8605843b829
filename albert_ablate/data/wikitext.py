"""The tokenised form of WikiText: articles under `` = Title = `` lines, marks that join tokens, and its spaces undone.

WikiText (Merity et al., 2017) was cut by the Moses tokenizer: a space before each punctuation sign, `` @-@ `` for a
hyphen within a word, `` @,@ `` and `` @.@ `` within numbers, and in its smaller vocabulary ``<unk>`` for rare words.
"""

import re
from collections.abc import Iterable, Sequence

#: A word that the source itself calls unknown. Unicode reserves the code point for such use within programs: no text
#: has it, and each tokenizer here takes it for its unknown piece.
UNKNOWN = "\ufdd0"
#: Raise when the text of the same file changes: the fingerprint of its sentences depends on it.
RULES = 1

_HEADING = re.compile(r"((?:= )+)([^\s=].*?)((?: =)+)")
_JOINER = re.compile(r"@([-,.])@")
_OPENING = frozenset("([{“")
_CLOSING = frozenset(",.;:!?)]}%”")
_AMOUNT = frozenset("$£€¥#")
#: What Moses leaves of a word after its apostrophe: ``'s``, ``'t``, ``'Brien``.
_APOSTROPHE = re.compile(r"'[^\W\d_]+")
#: Behind a typographic apostrophe, which stands alone.
_CONTRACTED = frozenset({"s", "t", "re", "ve", "ll", "d", "m"})
_DECADE = re.compile(r"\d0s?\b")
#: Apostrophes of one line beyond which their readings are not counted.
_MOST_APOSTROPHES = 12
#: Share of commas and last full stops with a space before them, from which on a file is taken for a tokenised one.
_TOKENISED = 0.95


def heading_level(line: str) -> int:
    """1 for an article's title `` = Title = ``, more for the headings within it; 0 for any other line."""
    found = _HEADING.fullmatch(line.strip())
    return found[1].count("=") if found and found[1].count("=") == found[3].count("=") else 0


def is_wikitext(lines: Iterable[str]) -> bool:
    """Whether the first ``lines`` of a file have the headings and the spaces of WikiText.

    A heading stands between blank lines or, where a file has none, at its beginning. Headings alone do not make one:
    other markup has lines between equals signs, too.
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
    """How many commas, full stops and joining marks stand alone, and how many commas and last stops do not.

    Other signs say nothing: French writes a space before them.
    """
    spaced = sum(token in (",", ".") or _JOINER.fullmatch(token) is not None for token in tokens)
    last = tokens[-1].rstrip("\"')]") if tokens else ""
    stop = last.endswith(".") and last.strip(".") != ""
    return spaced, stop + sum(token.endswith(",") and len(token) > 1 for token in tokens)


def detokenised(line: str) -> str:
    """A tokenised paragraph as it was written, where that is certain; what is not keeps its spaces.

    Undone are joining marks and the spaces before closing signs, behind opening brackets, before ``'s`` and its like,
    between a currency sign and its number, in times and scores (``10 : 30``), within pairs of double quotes, and about
    single ones where they can be paired in one way only. Dashes and slashes stay: nothing says how they were written.
    ``<unk>`` becomes ``UNKNOWN``. A line that is not tokenised keeps its spaces and signs.
    """
    tokens = [UNKNOWN if token == "<unk>" else token for token in line.split()]
    spaced, tight = _spaces(tokens)
    if spaced <= tight:
        return " ".join(tokens)
    before, after = _sides(tokens)
    parts: list[str] = []
    for place, token in enumerate(tokens):
        joined = place and (before[place] or after[place - 1])
        joiner = _JOINER.fullmatch(token) if 0 < place < len(tokens) - 1 else None
        parts += ["" if joined or not place else " ", joiner[1] if joiner else token]
    return "".join(parts)


def _sides(tokens: Sequence[str]) -> tuple[list[bool], list[bool]]:
    """For each token, whether it is joined to what is before it, and to what is behind it."""
    before, after = [False] * len(tokens), [False] * len(tokens)
    for place, token in enumerate(tokens):
        left = tokens[place - 1] if place else ""
        right = tokens[place + 1] if place + 1 < len(tokens) else ""
        if _JOINER.fullmatch(token):
            before[place] = after[place] = bool(left and right)
        elif token in _CLOSING:
            before[place] = token != "%" or left[-1:].isdigit()
            after[place] = token == ":" and re.fullmatch(r"\d{1,2} \d\d?", f"{left} {right}") is not None
        elif token in _OPENING:
            after[place] = token != "“" or "„" not in tokens  # German closes with the one that opens elsewhere
        elif token == "’":
            before[place] = after[place] = right.lower() in _CONTRACTED and _is_word(left[-1:])
        elif token in _AMOUNT:
            after[place] = right[:1].isdigit()
        elif _APOSTROPHE.fullmatch(token):
            before[place] = _is_word(left[-1:])
    quotes = [place for place, token in enumerate(tokens) if token == '"']
    if len(quotes) % 2 == 0:
        for number, place in enumerate(quotes):
            (before if number % 2 else after)[place] = True
    for place, reading in zip(*_apostrophes(tokens), strict=True):
        (after if reading in "od" else before)[place] = True
    return before, after


def _apostrophes(tokens: Sequence[str]) -> tuple[list[int], str]:
    """Places of single quotation marks and what each is; nothing where there is no reading, or more than one.

    ``o`` opens, ``c`` closes, ``p`` is a possessive's (``Linnaeus '``), ``d`` a decade's (``' 90s``).
    """
    places = [place for place, token in enumerate(tokens) if token == "'"]
    readings = {""}
    for place in places[: _MOST_APOSTROPHES + 1]:
        left = tokens[place - 1] if place else ""
        right = tokens[place + 1] if place + 1 < len(tokens) else ""
        found = set()
        for reading in readings:
            is_open = reading.rstrip("pd").endswith("o")
            if is_open and left:
                found.add(reading + "c")
            if not is_open and right and right not in _CLOSING:
                found.add(reading + "o")
            if left[-1:].lower() in ("s", "z", "x") and _is_word(right[:1]):
                found.add(reading + "p")
            if _DECADE.match(right):
                found.add(reading + "d")
        readings = found
    whole = [reading for reading in readings if not reading.rstrip("pd").endswith("o")]
    return (places, whole[0]) if len(whole) == 1 and len(places) <= _MOST_APOSTROPHES else ([], "")


def _is_word(character: str) -> bool:
    return character.isalnum() or character == UNKNOWN
