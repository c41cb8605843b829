"""The comparison of one number of a report with the same number from the raw files."""

import ast
import math
from dataclasses import dataclass
from typing import Any

AGREES, DISAGREES, OPEN = "agrees", "disagrees", "not re-derived"
#: How an empty cell is shown.
NOTHING = "—"
#: Tolerances: relative for the order of arithmetic, absolute near zero.
RELATIVE, ABSOLUTE = 1e-6, 1e-12
#: Whole numbers below it are exact as floats.
_EXACT = 2.0**53


@dataclass(frozen=True)
class Check:
    """A cell: its position, the reported and the derived number, and the raw file."""

    section: str
    where: str
    reported: str
    derived: str
    state: str
    source: str = ""
    reason: str = ""  # why it is not re-derived


def compare(section: str, where: str, reported: Any, derived: Any, source: str, relative: float = RELATIVE) -> Check:
    """The check of two values as in a CSV cell or a JSON file; None, NaN and an empty cell are equal."""
    a, b = plain(reported), plain(derived)
    return Check(section, where, as_text(a), as_text(b), AGREES if same(a, b, relative) else DISAGREES, source)


def unknown(section: str, where: str, reported: Any, reason: str) -> Check:
    """The check of a number that cannot be derived from the raw files, with the reason."""
    return Check(section, where, as_text(plain(reported)), "", OPEN, "", reason)


def same(a: Any, b: Any, relative: float = RELATIVE) -> bool:
    """Whether two plain values are equal: whole numbers exactly, others within a relative tolerance."""
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(same(x, y, relative) for x, y in zip(a, b, strict=True))
    if isinstance(a, bool) or isinstance(b, bool) or not (_number(a) and _number(b)):
        return bool(a == b)
    if float(a).is_integer() and float(b).is_integer() and max(abs(a), abs(b)) < _EXACT:
        return float(a) == float(b)
    return math.isclose(a, b, rel_tol=relative, abs_tol=ABSOLUTE)


def plain(value: Any) -> Any:
    """A cell of a CSV file or any other value, converted to None, bool, number, list or text."""
    if isinstance(value, str):
        text = value.strip()
        if text in ("", "nan", "None"):
            return None
        if text in ("True", "False"):
            return text == "True"
        if text.startswith("["):
            return _list(text)
        try:
            value = float(text)
        except ValueError:
            return text
    if isinstance(value, tuple):
        value = list(value)
    return None if isinstance(value, float) and math.isnan(value) else value


def as_text(value: Any) -> str:
    """A plain value as text; an empty cell as a dash."""
    if value is None:
        return NOTHING
    return f"{value:.15g}" if _number(value) and not isinstance(value, bool) else str(value)


def _number(value: Any) -> bool:
    return isinstance(value, int | float)


def _list(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
