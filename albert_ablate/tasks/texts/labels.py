"""Labels of rows: which spellings are the same class, and which are refused because they differ too little.

Equal numbers are one class (0, 0.0 and "0"), and so are texts with the same Unicode normal form (NFC).
White space around a label is ignored. Labels that differ only in case, white space, quotes, invisible
characters or letter width are almost always one class written in two ways: they are refused, unless
the user names both.
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
#: Strings that programs write for missing values. "none" and "NA" are not among them: they may be classes.
_MISSING = frozenset(("nan", "NaN", "NAN", "null", "NULL", "None", "<NA>", "#N/A"))
_TRUTH = {"true": Decimal(1), "false": Decimal(0)}
_SHOWN = 20


@lru_cache(maxsize=65536)
def same(label: str) -> str | Decimal:
    """A key that is equal for labels of the same class."""
    return Decimal(label) if _NUMBER.fullmatch(label) else unicodedata.normalize("NFC", label)


@lru_cache(maxsize=65536)
def close(label: str) -> str | Decimal:
    """A key that is equal for labels that differ only in spelling."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", label).casefold()).replace("\u2212", "-")
    kept = "".join(c for c in folded if not c.isspace() and unicodedata.category(c) != "Cf").strip("\"'`\u201c\u201d")
    return _TRUTH[kept] if kept in _TRUTH else same(kept)


def read_label(row: Row, column: str, named: Sequence[str] = (), field: str | None = None) -> str:
    """The cell as one label. Raises DataError if it is empty, holds several values, or is not a label.

    ``named``: labels that the user listed, which may look like a missing value. ``field``: the setting
    that lists them.
    """
    value = row.values[column]
    if row.is_empty(column) or close(str(value)) == "":
        raise row.error(f"column {column!r} is empty; a label is expected.")
    if isinstance(value, list | dict):
        raise row.error(
            f"column {column!r} holds {'a list' if isinstance(value, list) else 'an object'}; one label is expected. "
            "Several labels of a row are columns of 0 and 1 (target_columns)."
        )
    label = str(value).strip()
    try:
        as_text(label)
    except ValueError as error:
        raise row.error(f"column {column!r}: {error}.") from error
    if any(c in label for c in "\t\r\n") or (isinstance(value, float) and not math.isfinite(value)):
        raise row.error(f"column {column!r} holds {label!r}; a label is one line of text without tabs, or a number.")
    remedy = f" If it is a class, name it in {field}." if field else ""
    if label in _MISSING and label not in named:
        raise row.error(f"column {column!r} holds {label!r}, which stands for a missing value.{remedy}")
    if len(label) > 1 and label[0] == label[-1] == '"' and label not in named:
        raise row.error(f"column {column!r}: {label} is in quotes; only cells of a .csv are quoted.{remedy}")
    return label


def label_index(row: Row, column: str, labels: Sequence[str], field: str | None = None) -> int:
    """Index in ``labels`` of the label in a cell. Raises DataError if it is none of them."""
    label = read_label(row, column, labels, field)
    index = _indices(tuple(labels)).get(same(label))
    if index is None:
        near = next((known for known in labels if close(known) == close(label)), None)
        hint = "" if near is None else f" It differs from {near!r} only in how it is written."
        raise row.error(f"unknown label {label!r} in column {column!r}; expected is one of {listed(labels)}.{hint}")
    return index


@lru_cache(maxsize=64)
def _indices(labels: tuple[str, ...]) -> dict[str | Decimal, int]:
    return {same(label): number for number, label in enumerate(labels)}


def classes(rows: Sequence[Row], column: str, field: str) -> tuple[tuple[str, ...], list[str]]:
    """(the sorted classes of a column, notes on their spellings).

    A class with several spellings is named by the shortest. Raises DataError if two classes differ
    only in how they are written; listing both in the setting ``field`` keeps them apart.
    """
    spelt: dict[str | Decimal, dict[str, Row]] = defaultdict(dict)
    for row in rows:
        label = read_label(row, column, field=field)
        spelt[same(label)].setdefault(label, row)
    names = {min(spellings, key=lambda label: (len(label), label)): spellings for spellings in spelt.values()}
    alike: dict[str | Decimal, list[str]] = defaultdict(list)
    for name in names:
        alike[close(name)].append(name)
    for pair in alike.values():
        if len(pair) > 1:
            (a, first), (b, second) = ((name, names[name][name]) for name in pair[:2])
            raise second.error(
                f"label {b!r} and {a!r} of line {first.line} differ only in how they are written. Write them alike, "
                f"or keep them apart by naming every label in {field}."
            )
    notes = [
        f"column {column!r}: {', '.join(sorted(spellings))} are one class, {name!r}"
        for name, spellings in names.items()
        if len(spellings) > 1
    ]
    return tuple(sorted(names)), notes


def require_labels(labels: Sequence[str], field: str) -> None:
    """Raise DataError unless the user's labels are at least two, all different and not empty."""
    if any(not label.strip() for label in labels):
        raise DataError(f"{field}={list(labels)}: a label is empty.")
    if len(_indices(tuple(labels))) < len(labels):
        raise DataError(f"{field}={list(labels)}: a class occurs twice (equal numbers are one class).")
    if len(labels) < 2:
        raise DataError(f"{field}={list(labels)}: two labels are needed.")


def listed(labels: Sequence[str]) -> str:
    """The labels as a list for messages; only the first if there are many."""
    more = f" … ({len(labels)} in all)" if len(labels) > _SHOWN else ""
    return ", ".join(labels[:_SHOWN]) + more
