"""Labels of rows: which spellings are the same class, and which are refused because they nearly are.

Equal numbers are one class (0, 0.0 and "0"), and so are words that Unicode holds to be the same text
(NFC). White space around a label does not count. Words that differ in nothing else than capital
letters, white space, quotes, invisible characters or the width of letters are almost always one
class that was written in two ways: they are refused, unless the user names both.
"""

import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from decimal import Decimal
from functools import lru_cache

from albert_ablate.errors import DataError
from albert_ablate.tasks.tables import Row, as_text

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?")
#: What programs write where a value is missing; "none" and "NA" may well be classes.
_MISSING = frozenset(("nan", "NaN", "NAN", "null", "NULL", "None", "<NA>", "#N/A"))
_TRUTH = {"true": Decimal(1), "false": Decimal(0)}
_SHOWN = 20


@lru_cache(maxsize=65536)
def same(word: str) -> str | Decimal:
    """Equal for words that are the same class."""
    return Decimal(word) if _NUMBER.fullmatch(word) else unicodedata.normalize("NFC", word)


@lru_cache(maxsize=65536)
def close(word: str) -> str | Decimal:
    """Equal for words that differ only in how they are written."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", word).casefold()).replace("\u2212", "-")
    kept = "".join(c for c in folded if not c.isspace() and unicodedata.category(c) != "Cf").strip("\"'`\u201c\u201d")
    return _TRUTH[kept] if kept in _TRUTH else same(kept)


def read_label(row: Row, column: str, named: Sequence[str] = (), field: str | None = None) -> str:
    """The cell as one word. Raises DataError where it is empty, several values, or no word.

    ``named`` are labels that the user wrote down, which may look like a missing value; ``field`` is
    where they are written.
    """
    value = row.values[column]
    if row.is_empty(column) or close(str(value)) == "":
        raise row.error(f"column {column!r} is empty; a label is expected.")
    if isinstance(value, list | dict):
        raise row.error(
            f"column {column!r} holds {'a list' if isinstance(value, list) else 'an object'}; one label is expected. "
            "Several labels of a row are columns of 0 and 1 (target_columns)."
        )
    word = str(value).strip()
    try:
        as_text(word)
    except ValueError as error:
        raise row.error(f"column {column!r}: {error}.") from error
    if any(c in word for c in "\t\r\n") or (isinstance(value, float) and not math.isfinite(value)):
        raise row.error(f"column {column!r} holds {word!r}; a label is one line of text without tabs, or a number.")
    remedy = f" If it is a class, name it in {field}." if field else ""
    if word in _MISSING and word not in named:
        raise row.error(f"column {column!r} holds {word!r}, which stands for a missing value.{remedy}")
    if len(word) > 1 and word[0] == word[-1] == '"' and word not in named:
        raise row.error(f"column {column!r}: {word} has its quotes on; only cells of a .csv are quoted.{remedy}")
    return word


def place(row: Row, column: str, labels: Sequence[str], field: str | None = None) -> int:
    """Which of ``labels`` a cell holds. Raises DataError where it is none of them."""
    word = read_label(row, column, labels, field)
    found = _places(tuple(labels)).get(same(word))
    if found is None:
        near = next((label for label in labels if close(label) == close(word)), None)
        hint = "" if near is None else f" It differs from {near!r} only in how it is written."
        raise row.error(f"unknown label {word!r} in column {column!r}; expected is one of {listed(labels)}.{hint}")
    return found


@lru_cache(maxsize=64)
def _places(labels: tuple[str, ...]) -> dict[str | Decimal, int]:
    return {same(label): number for number, label in enumerate(labels)}


def classes(rows: Sequence[Row], column: str, field: str) -> tuple[tuple[str, ...], list[str]]:
    """(the classes of a column, sorted; what should be said of their spellings).

    A class that is spelt in several ways is called by the shortest. Raises DataError where two
    classes differ only in how they are written; naming both in ``field`` keeps them apart.
    """
    spelt: dict[str | Decimal, dict[str, Row]] = defaultdict(dict)
    for row in rows:
        word = read_label(row, column, field=field)
        spelt[same(word)].setdefault(word, row)
    names = {min(words, key=lambda word: (len(word), word)): words for words in spelt.values()}
    alike: dict[str | Decimal, list[str]] = defaultdict(list)
    for name in names:
        alike[close(name)].append(name)
    for pair in alike.values():
        if len(pair) > 1:
            (a, one), (b, other) = ((name, names[name][name]) for name in pair[:2])
            raise other.error(
                f"label {b!r} and {a!r} of line {one.line} differ only in how they are written. Write them alike, "
                f"or keep them apart by naming every label in {field}."
            )
    notes = [
        f"column {column!r}: {', '.join(sorted(words))} are one class, {name!r}"
        for name, words in names.items()
        if len(words) > 1
    ]
    return tuple(sorted(names)), notes


def require_labels(labels: Sequence[str], field: str) -> None:
    """Raise DataError where the labels that a user wrote down are not two at least, all different and none empty."""
    if any(not label.strip() for label in labels):
        raise DataError(f"{field}={list(labels)}: a label is empty.")
    if len(_places(tuple(labels))) < len(labels):
        raise DataError(f"{field}={list(labels)}: a class stands there twice (equal numbers are one class).")
    if len(labels) < 2:
        raise DataError(f"{field}={list(labels)}: two labels are needed.")


def listed(labels: Sequence[str]) -> str:
    """The labels, or the first of many."""
    more = f" … ({len(labels)} in all)" if len(labels) > _SHOWN else ""
    return ", ".join(labels[:_SHOWN]) + more
