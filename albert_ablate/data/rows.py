"""Files whose rows are documents: JSON lines, JSON and parquet."""

import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from albert_ablate.compressed import packing_of, unpacked
from albert_ablate.errors import DataError
from albert_ablate.shipped import install_command

#: Characters of the largest JSON file, which is held in memory.
_LARGEST = 100_000_000
_SPACE = re.compile(r"\s*")


def text_of(value: Any, where: str, column: str) -> str:
    """A cell as a document; an empty cell is an empty document. Raises DataError if it is not text.

    ``where`` names the row in the message.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(
            f"{where}: column {column!r} holds {type(value).__name__}, not text. Set data.text_column to the column "
            "with the documents."
        )
    return value


def read_json_lines(lines: Iterator[str], path: Path, column: str) -> Iterator[str]:
    """The text of each line's object. Raises DataError with the number of a line without one."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)[column]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(
                f"{path}, line {number}: expected a JSON object with the text column {column!r} "
                f"({type(error).__name__}: {error}). Set data.text_column to the column's name."
            ) from error
        yield text_of(value, f"{path}, line {number}", column)


def read_json_documents(source: IO[str], path: Path, column: str) -> Iterator[str]:
    """Documents of a JSON file: an array of objects or strings, an object with a list of strings, or several objects.

    Raises DataError for a file that is too large, is not JSON or lacks the column.
    """
    text = source.read(_LARGEST + 1)
    if len(text) > _LARGEST:
        raise DataError(
            f"{path}: more than {_LARGEST:,} characters of JSON. Write one object a line, such as with "
            "`jq -c '.[]'`, and name the file .jsonl."
        )
    decoder, values = json.JSONDecoder(), []
    position = _after_space(text, 0)
    try:
        while position < len(text):
            value, end = decoder.raw_decode(text, position)
            values.append(value)
            position = _after_space(text, end)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error}). Repair the file, or write one JSON object a line.") from error
    rows = values[0] if len(values) == 1 and isinstance(values[0], list) else values
    for number, row in enumerate(rows, 1):
        yield from _documents_of(row, f"{path}, row {number}", column)


def _after_space(text: str, position: int) -> int:
    space = _SPACE.match(text, position)
    return space.end() if space else position


def _documents_of(row: Any, where: str, column: str) -> Iterator[str]:
    if isinstance(row, str):
        yield row
        return
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected a JSON object or a text, not {type(row).__name__}.")
    if column not in row:
        keys = ", ".join(map(repr, list(row)[:12])) or "nothing"
        raise DataError(
            f"{where}: no column {column!r}; it has {keys}. Set data.text_column to the column with the documents."
        )
    cell = row[column]
    for value in cell if isinstance(cell, list) else [cell]:
        yield text_of(value, where, column)


def read_parquet(path: Path, column: str) -> Iterator[str]:
    """The texts of the column, row by row. Raises DataError if the column is missing or the file is damaged."""
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ModuleNotFoundError as error:
        raise DataError(f"{path}: reading parquet needs pyarrow. Run `{install_command('hub')}`.") from error
    try:
        with ExitStack() as opened:
            table = parquet.ParquetFile(_seekable(path, opened))
            if column not in table.schema_arrow.names:
                names = table.schema_arrow.names
                raise DataError(f"{path}: no column {column!r}; it has {names}. Set data.text_column.")
            for batch in table.iter_batches(batch_size=256, columns=[column]):
                yield from (text_of(value, str(path), column) for value in batch.column(0).to_pylist())
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: damaged parquet file ({reason}). Fetch it again.") from error


def _seekable(path: Path, opened: ExitStack) -> Any:
    """The file, or a decompressed copy: parquet is read from its end."""
    if packing_of(path) is None:
        return path
    copy = opened.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack closes it
    with unpacked(path) as source:
        shutil.copyfileobj(source, copy)
    copy.seek(0)
    return copy
