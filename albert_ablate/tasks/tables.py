"""Finding a task's files and reading their rows, with the line of everything that is wrong."""

import csv
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from albert_ablate.errors import DataError
from albert_ablate.files import open_text

_PACKED = ("", ".xz", ".gz")
#: What parts the cells of tables, and its name; a comma in a .csv, a tab in every other table.
_SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}

#: Characters of the longest cell of a table in quotes.
_LONGEST_CELL = 131_072


@dataclass(frozen=True)
class Row:
    """A row of a table."""

    file: Path
    line: int
    values: dict[str, Any]

    def error(self, what: str) -> DataError:
        """DataError that names the row."""
        return DataError(f"{self.file}, line {self.line}: {what}")

    def is_empty(self, column: str) -> bool:
        """Whether the cell is missing, blank, or JSON's null or NaN."""
        value = self.values.get(column)
        return value is None or not str(value).strip() or (isinstance(value, float) and math.isnan(value))

    def text(self, column: str) -> str:
        """A text cell, or a number as text. Raises DataError where it is missing, empty or something else."""
        if self.is_empty(column):
            raise self.error(f"column {column!r} is empty; a text is expected.")
        value = self.values[column]
        number = isinstance(value, int | float) and not isinstance(value, bool)
        try:
            return as_text(str(value) if number else value)
        except (TypeError, ValueError) as error:
            raise self.error(f"column {column!r}: {error}.") from error

    def identifier(self, column: str) -> str:
        """A cell that names the row: a text or a number in one line. Raises DataError where it is none."""
        name = self.text(column)
        if any(c in name for c in "\t\r\n"):
            raise self.error(f"column {column!r} holds {name!r}; an id is one line of text without tabs, or a number.")
        return name


def as_text(value: Any) -> str:
    """``value`` if it is text. Raises TypeError, and ValueError for half of a surrogate pair (JSON can spell one)."""
    if not isinstance(value, str):
        raise TypeError(f"a text is expected, not {type(value).__name__}")
    value.encode()
    return value


def find(field: str, data_dir: str | None, folders: Sequence[str], stem: str, suffixes: Sequence[str]) -> Path:
    """The file of an official name, plain or packed, in ``data_dir`` or in the task's folder there.

    ``stem`` is the name without suffix; where no file has it, the only file that begins with it
    (``train-subset.tsv``) is taken. Raises DataError naming what was looked for.
    """
    if data_dir is None:
        raise DataError(
            f"{field}: where are its files? Give task.data_dir=FOLDER with {stem}{suffixes[0]}, name the file itself "
            f"with {field}, or fetch it with task.source=hub."
        )
    root = Path(data_dir).expanduser()
    places = [root, *(root / name for folder in folders for name in (folder, folder.lower(), f"glue/{folder}"))]
    wanted = tuple(suffix + packed for suffix in suffixes for packed in _PACKED)
    for place in places:
        for name in (stem + suffix for suffix in wanted):
            if (place / name).is_file():
                return place / name
    near = [p for place in places if place.is_dir() for p in sorted(place.glob(f"{stem}[-_.]*")) if _is(p, wanted)]
    unique = list({p.resolve(): p for p in near}.values())
    if len(unique) == 1:
        return unique[0]
    if unique:
        raise DataError(f"{field}: several files could be meant, {', '.join(map(str, unique))}. Name one.")
    seen = ", ".join(str(place) for place in places if place.is_dir()) or f"{root}, which is no folder"
    raise DataError(f"{field}: no file {stem}{suffixes[0]} (or .xz, .gz) in {seen}.")


def named(field: str, name: str) -> Path:
    """A file that the user names. Raises DataError where there is none."""
    path = Path(name).expanduser()
    if not path.is_file():
        raise DataError(f"{field}={name}: no such file.")
    return path


def _is(path: Path, wanted: tuple[str, ...]) -> bool:
    return path.is_file() and path.name.endswith(wanted)


def read_rows(path: Path, header: Sequence[str] | None = None, short_rows: list[int] | None = None) -> Iterator[Row]:
    """Rows of a .csv (quoted), a .jsonl, or any other file (tabs, no quoting: GLUE's .tsv), packed or not.

    ``header`` names the columns of a file without a header line. A row with another number of
    fields raises DataError; with ``short_rows`` its line is put there instead and the row is left out.
    """
    if _plain_name(path).endswith((".jsonl", ".json", ".ndjson")):
        yield from json_rows(path)
    else:
        with open_text(path) as lines:
            yield from _cell_rows(path, lines, header, short_rows)


def _plain_name(path: Path) -> str:
    """The name in small letters, without the suffix of what packed it."""
    return path.name.lower().removesuffix(".xz").removesuffix(".gz")


def _separator(path: Path) -> str:
    return "," if _plain_name(path).endswith(".csv") else "\t"


def _require_distinct(path: Path, number: int, columns: list[str]) -> None:
    twice = sorted({name for name in columns if name and columns.count(name) > 1})
    if twice:
        raise DataError(f"{path}, line {number}: column {twice[0]!r} stands there twice; names must differ.")


def _cells(path: Path, lines: Any) -> Iterator[tuple[int, list[str]]]:
    """(line, cells) of each row. Raises DataError where quotes do not open and close a whole cell."""
    if _separator(path) == "\t":
        yield from ((number, line.rstrip("\r\n").split("\t")) for number, line in enumerate(lines, 1))
        return
    csv.field_size_limit(_LONGEST_CELL)  # one for the whole process: readers of corpora raise it
    reader = csv.reader(lines, strict=True)
    try:
        for cells in reader:
            yield reader.line_num, cells
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: not a table with quoted cells ({error}).") from error


def _cell_rows(path: Path, lines: Any, header: Sequence[str] | None, short_rows: list[int] | None) -> Iterator[Row]:
    columns = list(header) if header else None
    for number, cells in _cells(path, lines):
        if not any(cells):
            continue
        if columns is None:
            columns = [cell.replace("\ufeff", "").strip() for cell in cells]
            _require_distinct(path, number, columns)
            continue
        if len(cells) != len(columns):
            if short_rows is not None:
                short_rows.append(number)
                continue
            raise DataError(
                f"{path}, line {number}: {len(cells)} fields, but {len(columns)} columns are expected "
                f"({', '.join(columns)}).{_other_separator(path, columns)}"
            )
        yield Row(path, number, dict(zip(columns, cells, strict=True)))
    if columns is None:
        raise DataError(f"{path}: the file is empty; a header line is expected.")


def _other_separator(path: Path, columns: Sequence[str]) -> str:
    """What to do where another separator stands in the names of the columns; empty where none does."""
    own = _separator(path)
    other = next((name for sign, name in _SEPARATORS.items() if sign != own and any(sign in c for c in columns)), None)
    if other is None:
        return ""
    remedy = {"commas": "name the file .csv", "tabs": "name the file .tsv"}.get(other, f"write {_SEPARATORS[own]}")
    return f" Cells are parted by {_SEPARATORS[own]} here, its header has {other}: {remedy}."


def json_rows(path: Path) -> Iterator[Row]:
    """One JSON object a line, whatever the file is called. Raises DataError."""
    with open_text(path) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                values = json.loads(line, object_pairs_hook=_distinct)
            except (ValueError, RecursionError) as error:  # not only JSONDecodeError: numbers may be too long
                hint = " JSON lines are expected: one whole object a line." if line.strip() in ("[", "{") else ""
                raise DataError(f"{path}, line {number}: not JSON ({error}).{hint}") from error
            if not isinstance(values, dict):
                raise DataError(
                    f"{path}, line {number}: a JSON object is expected, {type(values).__name__} found. "
                    "JSON lines hold one object a line."
                )
            yield Row(path, number, values)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON. Raises ValueError where a key stands there twice: one of the two would be lost."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key {next(name for name in names if names.count(name) > 1)!r} stands there twice")
    return found


def require_columns(row: Row, columns: Sequence[str], field: str) -> None:
    """Raise DataError where the table of ``row`` lacks one of ``columns``."""
    missing = [name for name in columns if name not in row.values]
    if missing:
        hint = "" if len(row.values) > 1 else _other_separator(row.file, list(row.values))
        there = ", ".join(row.values) or "none"
        raise row.error(f"no column {', '.join(map(repr, missing))}; there are {there}. See {field}.{hint}")


def require_unique(rows: Sequence[tuple[str, Row]], what: str) -> None:
    """Raise DataError where an id occurs twice."""
    seen: dict[str, Row] = {}
    for identifier, row in rows:
        if identifier in seen:
            raise row.error(f"{what} {identifier!r} was already on line {seen[identifier].line}; ids must differ.")
        seen[identifier] = row
