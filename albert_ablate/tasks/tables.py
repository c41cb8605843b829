"""Finds a task's files and reads their rows; errors name the line."""

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from albert_ablate.errors import DataError
from albert_ablate.files import open_text, write_text

_PACKED = ("", ".xz", ".gz")
#: Separators of cells and their names: commas in a .csv, tabs in every other table, and likely mistakes.
_SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}

#: Characters of the longest cell of a .csv.
_LONGEST_CELL = 131_072


@dataclass(frozen=True)
class Row:
    """A row of a table."""

    file: Path
    line: int
    values: dict[str, Any]

    def error(self, what: str) -> DataError:
        """A DataError that names the file and line of the row."""
        return DataError(f"{self.file}, line {self.line}: {what}")

    def is_empty(self, column: str) -> bool:
        """Whether the cell is missing, blank, or JSON's null or NaN."""
        value = self.values.get(column)
        return value is None or not str(value).strip() or (isinstance(value, float) and math.isnan(value))

    def text(self, column: str) -> str:
        """A text cell, or a number as text. Raises DataError if it is missing, empty or of another type."""
        if self.is_empty(column):
            raise self.error(f"column {column!r} is empty; a text is expected.")
        value = self.values[column]
        number = isinstance(value, int | float) and not isinstance(value, bool)
        try:
            return as_text(str(value) if number else value)
        except (TypeError, ValueError) as error:
            raise self.error(f"column {column!r}: {error}.") from error

    def identifier(self, column: str) -> str:
        """The cell with the row's id: a number or one line of text. Raises DataError for anything else."""
        name = self.text(column)
        if any(c in name for c in "\t\r\n"):
            raise self.error(f"column {column!r} holds {name!r}; an id is one line of text without tabs, or a number.")
        return name


def as_text(value: Any) -> str:
    """``value`` if it is text. Raises TypeError, and ValueError for a lone surrogate (JSON can contain one)."""
    if not isinstance(value, str):
        raise TypeError(f"a text is expected, not {type(value).__name__}")
    value.encode()
    return value


def find(field: str, data_dir: str | None, folders: Sequence[str], stem: str, suffixes: Sequence[str]) -> Path:
    """The file with an official name, compressed or not, in ``data_dir`` or in the task's folder there.

    ``stem`` is the name without suffix. If no file has that name, a single file that begins with it
    (``train-subset.tsv``) is used. Raises DataError naming what was looked for.
    """
    if data_dir is None:
        raise DataError(
            f"{field}: where are its files? Give task.data_dir=FOLDER with {stem}{suffixes[0]}, name the file itself "
            f"with {field}, or fetch it with task.source=hub."
        )
    root = Path(data_dir).expanduser()
    parents = [root, *(root / name for folder in folders for name in (folder, folder.lower(), f"glue/{folder}"))]
    wanted = tuple(suffix + packed for suffix in suffixes for packed in _PACKED)
    for parent in parents:
        for name in (stem + suffix for suffix in wanted):
            if (parent / name).is_file():
                return parent / name
    near = [p for parent in parents if parent.is_dir() for p in sorted(parent.glob(f"{stem}[-_.]*")) if _is(p, wanted)]
    unique = list({p.resolve(): p for p in near}.values())
    if len(unique) == 1:
        return unique[0]
    if unique:
        raise DataError(f"{field}: several files could be meant, {', '.join(map(str, unique))}. Name one.")
    seen = ", ".join(str(parent) for parent in parents if parent.is_dir()) or f"{root}, which is not a folder"
    raise DataError(f"{field}: no file {stem}{suffixes[0]} (or .xz, .gz) in {seen}.")


def named(field: str, name: str) -> Path:
    """The file that the user names. Raises DataError if it does not exist."""
    path = Path(name).expanduser()
    if not path.is_file():
        raise DataError(f"{field}={name}: no such file.")
    return path


def _is(path: Path, wanted: tuple[str, ...]) -> bool:
    return path.is_file() and path.name.endswith(wanted)


def read_rows(path: Path, header: Sequence[str] | None = None, short_rows: list[int] | None = None) -> Iterator[Row]:
    """Rows of a .csv (quoted), a .jsonl, or any other file (tabs, no quoting: GLUE's .tsv), compressed or not.

    ``header`` names the columns of a file without a header line. A row with a wrong number of fields
    raises DataError; with ``short_rows`` its line is appended there and the row is skipped.
    """
    if _plain_name(path).endswith((".jsonl", ".json", ".ndjson")):
        yield from json_rows(path)
    else:
        with open_text(path) as lines:
            yield from rows_of(path, lines, header, short_rows)


def _plain_name(path: Path) -> str:
    """The name in lower case, without a suffix of compression."""
    return path.name.lower().removesuffix(".xz").removesuffix(".gz")


def _separator(path: Path) -> str:
    return "," if _plain_name(path).endswith(".csv") else "\t"


def _require_distinct(path: Path, number: int, columns: list[str]) -> None:
    twice = sorted({name for name in columns if name and columns.count(name) > 1})
    if twice:
        raise DataError(f"{path}, line {number}: column {twice[0]!r} occurs twice; names must differ.")


def _cells(path: Path, lines: Any) -> Iterator[tuple[int, list[str]]]:
    """(line, cells) of each row. Raises DataError if quotes do not enclose whole cells."""
    if _separator(path) == "\t":
        yield from ((number, line.rstrip("\r\n").split("\t")) for number, line in enumerate(lines, 1))
        return
    csv.field_size_limit(_LONGEST_CELL)  # process-wide, and readers of corpora raise it
    reader = csv.reader(lines, strict=True)
    try:
        for cells in reader:
            yield reader.line_num, cells
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: not a table with quoted cells ({error}).") from error


def rows_of(
    path: Path, lines: Any, header: Sequence[str] | None = None, short_rows: list[int] | None = None
) -> Iterator[Row]:
    """Like ``read_rows``, from an open table; ``path`` names it in messages and says how cells are separated."""
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
    """A remedy if the names of the columns contain another separator; else an empty string."""
    used = _separator(path)
    wrong = next((name for sign, name in _SEPARATORS.items() if sign != used and any(sign in c for c in columns)), None)
    if wrong is None:
        return ""
    remedy = {"commas": "name the file .csv", "tabs": "name the file .tsv"}.get(wrong, f"write {_SEPARATORS[used]}")
    return f" Cells are separated by {_SEPARATORS[used]}, but its header has {wrong}: {remedy}."


def json_rows(path: Path) -> Iterator[Row]:
    """Rows of a file with one JSON object per line, regardless of its name. Raises DataError."""
    with open_text(path) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                values = json.loads(line, object_pairs_hook=_distinct)
            except (ValueError, RecursionError) as error:  # not only JSONDecodeError: too long numbers raise ValueError
                hint = " JSON lines are expected: one whole object a line." if line.strip() in ("[", "{") else ""
                raise DataError(f"{path}, line {number}: not JSON ({error}).{hint}") from error
            if not isinstance(values, dict):
                raise DataError(
                    f"{path}, line {number}: a JSON object is expected, {type(values).__name__} found. "
                    "JSON lines hold one object a line."
                )
            yield Row(path, number, values)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Raises ValueError if a key occurs twice, because one value would be lost."""
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key {next(name for name in names if names.count(name) > 1)!r} occurs twice")
    return content


def require_columns(row: Row, columns: Sequence[str], field: str) -> None:
    """Raise DataError if the table of ``row`` lacks one of ``columns``."""
    missing = [name for name in columns if name not in row.values]
    if missing:
        hint = "" if len(row.values) > 1 else _other_separator(row.file, list(row.values))
        existing = ", ".join(row.values) or "none"
        raise row.error(f"no column {', '.join(map(repr, missing))}; there are {existing}. See {field}.{hint}")


def require_unique(rows: Sequence[tuple[str, Row]], what: str) -> None:
    """Raise DataError if an id occurs twice."""
    seen: dict[str, Row] = {}
    for identifier, row in rows:
        if identifier in seen:
            raise row.error(f"{what} {identifier!r} was already on line {seen[identifier].line}; ids must differ.")
        seen[identifier] = row


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]], ending: str) -> None:
    """Write rows with the same columns as a .csv, .tsv or .jsonl, by ``ending``, atomically."""
    if ending.lower() == ".jsonl":
        write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        return
    lines = [list(rows[0]), *(row.values() for row in rows)]
    text = io.StringIO()
    if ending.lower() == ".csv":
        csv.writer(text, lineterminator="\n").writerows(lines)
    else:
        text.writelines("\t".join(map(str, line)) + "\n" for line in lines)
    write_text(path, text.getvalue())
