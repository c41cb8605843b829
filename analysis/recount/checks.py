"""One number of a report beside the same number from the raw files."""

import ast
import math
from dataclasses import dataclass
from typing import Any

AGREES, DISAGREES, OPEN = "agrees", "disagrees", "not re-derived"
#: An empty cell.
NOTHING = "—"
#: Relative difference that arithmetic in another order may make, and the absolute one next to zero.
RELATIVE, ABSOLUTE = 1e-6, 1e-12
#: Whole numbers below it are exact as floats.
_EXACT = 2.0**53


@dataclass(frozen=True)
class Check:
    """A cell: where it stands, what it says, what the raw files give, and which of them."""

    section: str
    where: str
    reported: str
    derived: str
    state: str
    source: str = ""
    reason: str = ""  # why it is not re-derived


def compare(section: str, where: str, reported: Any, derived: Any, source: str, relative: float = RELATIVE) -> Check:
    """Both sides as they stand in a CSV cell or a JSON file; nothing, NaN and an empty cell are the same."""
    a, b = plain(reported), plain(derived)
    return Check(section, where, words(a), words(b), AGREES if same(a, b, relative) else DISAGREES, source)


def unknown(section: str, where: str, reported: Any, reason: str) -> Check:
    """A number that the raw files do not keep the source of."""
    return Check(section, where, words(plain(reported)), "", OPEN, "", reason)


def same(a: Any, b: Any, relative: float = RELATIVE) -> bool:
    """Whether two plain values are equal: whole numbers exactly, others to a relative difference."""
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(same(x, y, relative) for x, y in zip(a, b, strict=True))
    if isinstance(a, bool) or isinstance(b, bool) or not (_number(a) and _number(b)):
        return bool(a == b)
    if float(a).is_integer() and float(b).is_integer() and max(abs(a), abs(b)) < _EXACT:
        return float(a) == float(b)
    return math.isclose(a, b, rel_tol=relative, abs_tol=ABSOLUTE)


def plain(value: Any) -> Any:
    """A cell of a CSV file, or a value, as None, bool, number, list or text."""
    if isinstance(value, str):
        word = value.strip()
        if word in ("", "nan", "None"):
            return None
        if word in ("True", "False"):
            return word == "True"
        if word.startswith("["):
            return _list(word)
        try:
            value = float(word)
        except ValueError:
            return word
    if isinstance(value, tuple):
        value = list(value)
    return None if isinstance(value, float) and math.isnan(value) else value


def words(value: Any) -> str:
    """A plain value as text; an empty cell as a dash."""
    if value is None:
        return NOTHING
    return f"{value:.15g}" if _number(value) and not isinstance(value, bool) else str(value)


def _number(value: Any) -> bool:
    return isinstance(value, int | float)


def _list(word: str) -> Any:
    try:
        return ast.literal_eval(word)
    except (ValueError, SyntaxError):
        return word
