"""Tables of text: whether a file is a table, its delimiter and quoting, and the cells of one column."""

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Literal

from albert_ablate.data.scripts import ends_sentence
from albert_ablate.errors import DataError

#: Characters of the longest cell.
_LONGEST_CELL = 100_000_000
_DELIMITERS = (",", "\t", ";", "|")
_NAME = re.compile(r"\w[\w .\-/()%#:]{0,39}")
_NUMBER = re.compile(r"[-+]?[\d.,:/%-]+")


@dataclass(frozen=True)
class Dialect:
    """Delimiter of a table, and whether quotes around a cell are markup rather than text."""

    delimiter: str
    quoted: bool


@dataclass(frozen=True)
class Table:
    """A detected table; ``certain`` if its first row names the wanted column."""

    dialect: Dialect
    certain: bool


def find_table(head: str, whole: bool, column: str, named: bool) -> Table | None:
    """The table in a file that begins with ``head``, or None for plain text.

    ``whole``: ``head`` is the whole file. ``named``: the file's suffix says that it is a table. Otherwise all rows
    must have the same number of cells. Prose with commas or tabs rarely passes: a space follows its commas, and none
    of its columns holds only numbers or a few labels.
    """
    candidates = [
        (Dialect(d, quoted), _rows(head, whole, d, quoted)) for d in _DELIMITERS for quoted in _quoting(head, d)
    ]
    for dialect, rows in candidates:
        if len(rows) > 1 and _is_header(rows[0], column) and _share_of_width(rows) >= 0.8:
            return Table(dialect, certain=True)
    for dialect, rows in candidates:
        if _is_table(rows, dialect.delimiter):
            return Table(dialect, certain=named)
    if not named:
        return None
    first = next((line for line in head.splitlines() if line.strip()), "")
    return Table(Dialect(max(_DELIMITERS, key=first.count), quoted=True), certain=column in _names([first]))


def _quoting(head: str, delimiter: str) -> tuple[bool, ...]:
    """Ways to read quotes, the likeliest first. With tabs, quotes are text unless they enclose whole cells."""
    if delimiter != "\t":
        return (True, False)
    around = re.search(r'(?:^|\t)"(?:[^"]|"")*(?:""|[\t\r\n])(?:[^"]|"")*"(?:\t|\r?\n|\r|$)', head)
    every = re.match(r'"[^"]*"\t"[^"]*"', head)
    return (True, False) if around or every else (False,)


def _rows(head: str, whole: bool, delimiter: str, quoted: bool) -> list[list[str]]:
    """Complete rows of ``head``, blank rows as []; an empty list if ``head`` cannot be parsed."""
    rows: list[list[str]] = []
    try:
        for row in _reader(io.StringIO(head, newline=""), Dialect(delimiter, quoted)):
            rows.append(row)
    except csv.Error as error:
        if whole or "unexpected end" not in str(error):  # else a cell continues after the head
            return []
    else:
        rows = rows if whole else rows[:-1]
    while rows and not rows[-1]:
        rows.pop()
    return rows


def _reader(lines: IO[str], dialect: Dialect) -> Iterator[list[str]]:
    csv.field_size_limit(_LONGEST_CELL)
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if dialect.quoted else csv.QUOTE_NONE
    rows = csv.reader(lines, delimiter=dialect.delimiter, quoting=quoting, strict=dialect.quoted)
    for row in rows:
        yield row if any(cell.strip() for cell in row) else []


def _names(row: list[str]) -> list[str]:
    return [cell.strip() for cell in row]


def _is_header(row: list[str], column: str) -> bool:
    """Whether a row is a header with ``column``. With spaces after delimiters, all names must be single words."""
    names = _names(row)
    spaced = any(cell.startswith(" ") for cell in row)
    plain = all(name and not ends_sentence(name) and not (spaced and " " in name) for name in names[1:])
    return len(names) > 1 and column in names and plain


def _share_of_width(rows: list[list[str]]) -> float:
    """Share of the non-blank rows with as many cells as the first row."""
    filled = [row for row in rows if row]
    return sum(len(row) == len(rows[0]) for row in filled) / len(filled)


def _is_table(rows: list[list[str]], delimiter: str) -> bool:
    filled = [row for row in rows if row]
    if len(filled) < (3 if delimiter == "\t" else 4) or len(filled[0]) < 2 or _share_of_width(filled) < 1:
        return False
    width, blank = len(filled[0]), len(rows) - len(filled)
    columns = list(zip(*filled, strict=True))
    if delimiter == "\t":
        if any(not row[0].strip() for row in filled):  # indented
            return False
        speakers = sum(row[0].rstrip().endswith(":") for row in filled) > 0.5 * len(filled)
        return width > 2 or not (blank or speakers)
    spaced = sum(cell.startswith((" ", "\u3000")) for row in filled for cell in row[1:])
    if blank or spaced > 0.05 * (width - 1) * len(filled):
        return False
    names = all(_NAME.fullmatch(name.strip()) and name.isascii() for name in filled[0])
    return (names and len({*filled[0]}) == width) or any(_is_labels(column[1:]) for column in columns)


def _is_labels(cells: tuple[str, ...]) -> bool:
    """Whether a column holds only numbers, or short cells with few distinct values."""
    if all(_NUMBER.fullmatch(cell.strip()) for cell in cells):
        return True
    return max(map(len, cells)) <= 24 and len({*cells}) <= max(1, len(cells) // 3)


def read_table(source: IO[str], path: Path, dialect: Dialect, column: str, named: bool) -> Iterator[str]:
    """Cells of the column ``column``. Raises DataError if the table lacks it or is damaged."""
    rows = _reader(source, dialect)
    number = 0
    try:
        header = next((row for row in rows if row), [])
        names = _names(header)
        if column not in names:
            raise DataError(f"{path}: no column {column!r}; {_listed(names)} {_REMEDY}{'' if named else _OR_TEXT}")
        if names.count(column) > 1:
            raise DataError(f"{path}: two columns are called {column!r}. Rename one.")
        index = names.index(column)
        for number, row in enumerate(rows, 2):
            if row and len(row) != len(names):
                raise DataError(
                    f"{path}, row {number}: {len(row)} cells, but {len(names)} columns ({', '.join(names)}). Put a "
                    "cell that holds a comma, a tab or a line break in quotes."
                )
            if row:
                yield row[index]
    except csv.Error as error:
        raise DataError(f"{path}, row {number + 1}: not a table with quoted cells ({error}).") from error


_REMEDY = (
    "Set data.text_column to the column with the documents; a table of labelled examples is for fine-tuning "
    "(task=text_classification)."
)
_OR_TEXT = " If the file is plain text, set data.format=sentences or data.format=prose."


def _listed(names: list[str]) -> str:
    shown = [name if len(name) <= 40 else name[:39] + "…" for name in islice(names, 12)]
    return f"it has {shown}{' and more' if len(names) > 12 else ''}."
