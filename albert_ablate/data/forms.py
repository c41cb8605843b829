"""What a file holds, detected from its content: text in three forms, a table, JSON, parquet, or nothing usable."""

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Literal

from albert_ablate.compressed import SUFFIXES, unpacked
from albert_ablate.config.schema import DataConfig
from albert_ablate.data import scripts
from albert_ablate.data.tables import Dialect, find_table
from albert_ablate.data.wikitext import is_wikitext
from albert_ablate.errors import DataError, NotTextError
from albert_ablate.files import open_text

#: Characters of the largest JSON file that is read as a whole.
_LARGEST = 100_000_000
#: What a file is judged by: bytes of its head, number of lines, and characters of each line.
_HEAD = 1 << 16
_LINES = 2000
_LINE = 1_000_000

Kind = Literal["sentences", "prose", "headings", "jsonl", "json", "table", "parquet", "empty"]
#: Kinds whose rows are documents.
ROWS = ("jsonl", "json", "table", "parquet")
#: Suffix -> what the file holds.
_NAMED: dict[str, Kind] = {
    "jsonl": "jsonl", "ndjson": "jsonl", "json": "json", "parquet": "parquet", "csv": "table", "tsv": "table",
    "tab": "table",
}  # fmt: skip
#: First bytes of files that are not text.
_BINARY = {
    b"%PDF-": "a PDF document", b"\x89PNG": "an image", b"\xff\xd8\xff": "an image", b"GIF8": "an image",
    b"SQLite format 3": "an SQLite database", b"\x89HDF": "an HDF5 file", b"\x93NUMPY": "a NumPy array",
    b"\xd0\xcf\x11\xe0": "a document of an office program", b"{\\rtf": "a rich-text document", b"%!PS": "PostScript",
    b"ARROW1": "an Arrow file", b"FEA1": "a Feather file", b"\x7fELF": "a program", b"RIFF": "a sound or film",
    b"ID3": "a sound", b"OggS": "a sound", b"7z\xbc\xaf": "a 7z archive", b"Rar!": "a RAR archive",
    b"GGUF": "a model", b"\x80\x02": "a Python pickle", b"\x80\x03": "a Python pickle", b"\x80\x04": "a Python pickle",
    b"\x80\x05": "a Python pickle", b"\x1f\x8b": "packed twice", b"PK\x03\x04": "a zip archive in another archive",
}  # fmt: skip
_PRINTABLE = (b"%PDF-", b"{\\rtf", b"%!PS")
_UTF = {
    codecs.BOM_UTF32_LE: "UTF-32", codecs.BOM_UTF32_BE: "UTF-32", codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}  # fmt: skip
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1b\x7f]")
_JSON_ROWS = re.compile(r"""\s*(?:\[\s*)?\{\s*(?:"(?:[^"\\\n]|\\.){0,200}"|'[^'\n]{0,200}')\s*:""")
_JSON_STRINGS = re.compile(r'\s*\[\s*"')
_MARKUP = re.compile(r"\s*<(?:!doctype\s+html|html[\s>]|\?xml\s|mediawiki[\s>]|doc\s+id=)", re.IGNORECASE)
_TAG = re.compile(r"</?[a-z][\w:.-]*(?:\s[^<>]*)?/?>|<!--", re.IGNORECASE)


@dataclass(frozen=True)
class Form:
    """How a file is read; ``dialect`` is set for tables."""

    kind: Kind
    dialect: Dialect | None = None


def bare_suffix(path: Path) -> str:
    """The suffix in lower case, ignoring suffixes of compression: ``csv`` for ``A.CSV.gz``."""
    name = path.name.lower()
    while name.endswith(SUFFIXES):
        name = name.rpartition(".")[0]
    return name.rpartition(".")[2] if "." in name else ""


def form_of(path: Path, data: DataConfig) -> Form:
    """How ``path`` is read.

    The content decides, then the suffix where the content leaves a choice. ``data.format`` sets the form of plain
    text. Raises NotTextError for a file without text, DataError for a damaged file, and OSError.
    """
    with unpacked(path) as source:
        head = source.read(_HEAD)
    if head.startswith(b"PAR1"):
        return Form("parquet")
    text = _decoded(path, head)
    named = _NAMED.get(bare_suffix(path))
    if not text.strip():
        return Form(_empty(path))
    if named == "parquet":
        return Form("parquet")  # its reader reports the damage
    whole = len(head) < _HEAD
    return _structured(path, text, whole, named, data) or _form_of_text(path, text, data)


def _empty(path: Path) -> Kind:
    """The kind of a file whose head is only white space: later lines may still hold text."""
    with open_text(path) as source:
        return "prose" if any(line.strip() for line in _lines(source)) else "empty"


def _decoded(path: Path, head: bytes) -> str:
    """The head of a file as text. Raises NotTextError if it is binary, DataError if it has another encoding."""
    for mark, name in _UTF.items():
        if head.startswith(mark):
            raise NotTextError(f"{path}: not UTF-8 (it is {name}). Convert the file first, such as with iconv.")
    if head[257:262] == b"ustar":
        raise NotTextError(f"{path}: a tar archive. Unpack it into a folder and name that.")
    binary = re.search(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]", head) is not None
    for magic, what in _BINARY.items():
        if head.startswith(magic) and (binary or magic in _PRINTABLE):
            raise NotTextError(f"{path}: no text ({what}). Give its text as plain text.")
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head, final=len(head) < _HEAD)
    except UnicodeDecodeError as error:
        kind = NotTextError if binary else DataError
        raise kind(f"{path}: not UTF-8 ({error.reason}). Convert the file first.") from error
    controls = len(_CONTROL.findall(text))
    if controls > 0.3 * len(text) and _CONTROL.sub("", text).strip():
        if 2 * text.count("\0") > 0.8 * len(text):
            raise NotTextError(f"{path}: not UTF-8 (it looks like UTF-16). Convert the file first, such as with iconv.")
        raise NotTextError(f"{path}: no text ({controls / len(text):.0%} control characters).")
    return text


def _structured(path: Path, text: str, whole: bool, named: Kind | None, data: DataConfig) -> Form | None:
    """Rows or markup, by content and suffix; None for plain text. ``data.format`` overrides an uncertain result."""
    stated = data.format != "auto"
    if _JSON_ROWS.match(text):
        return Form(_kind_of_json(path, named))
    if named in ("json", "jsonl"):
        return Form(named)
    if _JSON_STRINGS.match(text) and _is_json(path):
        return Form("json")
    if _is_markup(text, stated):
        raise NotTextError(
            f"{path}: HTML or XML, not plain text. Extract the text first (WikiExtractor: with --json)"
            + ("." if _MARKUP.match(text) else "; if it is plain text, set data.format=sentences or data.format=prose.")
        )
    table = find_table(text, whole, data.text_column, named == "table")
    if table and (table.certain or not stated):
        return Form("table", table.dialect)
    return None


def _kind_of_json(path: Path, named: Kind | None) -> Kind:
    """``jsonl`` if the first lines are objects, else ``json``."""
    with open_text(path) as source:
        first = list(islice(filter(str.strip, source), 2))
    if _object(first[0]):
        return "json" if len(first) == 1 and named != "jsonl" else "jsonl"
    return "jsonl" if named == "jsonl" and not first[0].lstrip().startswith("[") else "json"


def _object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _is_json(path: Path) -> bool:
    with open_text(path) as source:
        text = source.read(_LARGEST + 1)
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _is_markup(text: str, stated: bool) -> bool:
    """Whether ``text`` begins as markup or, if no form is stated, most of its lines begin with a tag."""
    if _MARKUP.match(text):
        return True
    if stated or not text.lstrip().startswith("<") or not re.search(r"</[a-z]|/>", text, re.IGNORECASE):
        return False
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return 2 * sum(_TAG.match(line) is not None for line in lines) >= len(lines)


def _form_of_text(path: Path, text: str, data: DataConfig) -> Form:
    """Sentences, prose or WikiText: as stated in ``data.format``, else judged by the first lines."""
    if data.format != "auto":
        return Form(data.format)
    if is_wikitext(text.splitlines()):
        return Form("headings")
    count = complete = several = 0
    blocks: list[list[int]] = [[]]  # lengths of lines between blank ones
    with open_text(path) as source:
        for line in map(str.strip, islice(_lines(source), _LINES)):
            if not line:
                blocks.append([])
                continue
            blocks[-1].append(len(line))
            count += 1
            complete += scripts.ends_sentence(line)
            several += scripts.several_sentences(line, data.language)
    if not count:
        return Form("prose")
    if complete >= 0.8 * count and several <= 0.2 * count:
        return Form("sentences")
    return Form("sentences" if scripts.unmarked(text) and _is_list(blocks) else "prose")


def _is_list(blocks: list[list[int]]) -> bool:
    """Whether the lines of a text without sentence marks are sentences rather than wrapped at a fixed width."""
    inner = sorted(length for block in blocks for length in block[:-1])
    if not inner:
        return False
    full = 0.8 * inner[int(0.95 * (len(inner) - 1))]
    return sum(length < full for length in inner) > 0.3 * len(inner)


def _lines(source: IO[str]) -> Iterator[str]:
    """Lines; a very long line is reduced to its start and its end."""
    while line := source.readline(_LINE):
        part = line
        while len(part) == _LINE and not part.endswith(("\n", "\r")):
            part = source.readline(_LINE)
        yield line if part is line else line + part
