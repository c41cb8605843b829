"""Tables of every form: the examples and classes are exactly those written, or the file is refused in words.

The combinations are drawn once from all of them; what is expected follows from how a table was
written, not from the reader.
"""

import csv
import gzip
import io
import json
import lzma
import random
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from taskhelpers import task_config

from albert_ablate.config.tasks import TextConfig
from albert_ablate.errors import UserError
from albert_ablate.tasks.tables import named
from albert_ablate.tasks.texts.examples import read_text

NFD = unicodedata.normalize("NFD", "négatif")
#: Spellings that stand in a column -> the class of each; None: refused.
CELL_LABELS: dict[str, dict[str, str] | list[str]] = {
    "words": {"pos": "pos", "neg": "neg"},
    "three words": {"b": "b", "a": "a", "c d": "c d"},
    "other scripts": {"négatif": "négatif", "положительный": "положительный", "中立": "中立"},
    "two Unicode forms": {"négatif": "négatif", NFD: "négatif", "x": "x"},
    "numbers": {"0": "0", "1": "1"},
    "numbers spelt in several ways": {"0": "0", "1.0": "1", "0.0": "0", "1": "1"},
    "digits of several scripts": {"0": "0", "１": "1", "1": "1", "٠": "0"},
    "decimal numbers alone": {"0.0": "0.0", "1.0": "1.0"},
    "white space around": {" pos": "pos", "neg ": "neg", "pos": "pos"},
    "none is a class": {"none": "none", "favor": "favor"},
    "capital letters": ["Pos", "pos", "neg"],
    "wide letters": ["ａ", "a", "b"],
    "white space inside": ["very good", "very  good", "bad"],
    "a space that does not break": ["very good", "very\u00a0good", "bad"],
    "invisible characters": ["pos\u200b", "pos", "neg"],
    "quotes that stayed": ["'pos'", "pos", "neg"],
    "truth and number": ["true", "1", "false", "0"],
    "empty": ["pos", "", "neg"],
    "blank": ["pos", "  ", "neg"],
    "invisible alone": ["pos", "\u200b", "neg"],
    "nan": ["pos", "nan", "neg"],
    "null": ["null", "pos", "neg"],
    "None": ["pos", "None", "neg"],
    "a single class": ["pos"],
}
#: The same where a cell has a type.
JSON_LABELS: dict[str, Any] = {
    "JSON numbers": [(0, "0"), (1.0, "1"), ("0", "0"), (1, "1")],
    "JSON truth": [(True, "True"), (False, "False")],
    "JSON truth and words": [(True, None), ("true", None), (False, None)],
    "JSON null": [("pos", None), (None, None), ("neg", None)],
    "JSON NaN": [("pos", None), (float("nan"), None), ("neg", None)],
    "a list": [("pos", None), (["a", "b"], None), ("neg", None)],
    "an object": [("pos", None), ({"a": 1}, None), ("neg", None)],
    "half of a surrogate pair": [("pos", None), ("\ud800", None), ("neg", None)],
    "a tab in a label": [("pos", None), ("a\tb", None), ("neg", None)],
}
TEXTS = {
    "plain": "a film number {}", "quotes": 'a "very" good film {}', "a comma": "a film, and {} more",
    "a tab": "a\tfilm {}", "a line break": "one line\nand another {}", "other scripts": "фильм 映画 {} 🎬",
    "a lone quote": '3" wide {}', "a quote first": '"Film" {}',
}  # fmt: skip
SUFFIXES = (".csv", ".tsv", ".txt", ".jsonl", ".json", ".ndjson", ".CSV", ".TSV")
HEADERS = ("plain", "spaces", "another column", "twice", "no label", "other case", "none")
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "latin-1")
PACKED: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}


@dataclass(frozen=True)
class Table:
    """How one file is written."""

    suffix: str
    packed: str
    encoding: str
    line_end: str
    separator: str  # of cells: the right one, or another
    header: str
    labels: str
    text: str
    rows: int
    rare: bool  # the last class stands in one row

    @property
    def name(self) -> str:
        return "-".join(str(v).strip("\r\n.") or "x" for v in (self.suffix, self.packed, self.header, self.labels))


def drawn(count: int) -> list[Table]:
    """``count`` tables; most properties are the usual ones, so that not every file is refused for several reasons."""
    draw = random.Random(7)
    found: dict[Table, None] = {}
    kinds = [*CELL_LABELS, *JSON_LABELS]
    while len(found) < count:
        labels = kinds[len(found) % len(kinds)]
        json_only = labels in JSON_LABELS
        suffix = draw.choice([s for s in SUFFIXES if "j" in s]) if json_only else draw.choice(SUFFIXES)

        def mostly(usual: str, others: tuple[str, ...]) -> str:
            return usual if draw.random() < 0.8 else draw.choice(others)

        table = Table(
            suffix, mostly("", tuple(PACKED)), mostly("utf-8", ENCODINGS), mostly("\n", ("\n", "\r\n", "\r")),
            mostly("own", ("own", ";", "other", "|")), mostly("plain", HEADERS), labels, draw.choice(list(TEXTS)),
            draw.choice([4, 5, 12, 40]), draw.random() < 0.3,
        )  # fmt: skip
        found[table] = None
    return list(found)


def written(table: Table) -> tuple[list[tuple[str, Any]], list[str | None]]:
    """The rows, and the class of each (None: refused)."""
    if table.labels in JSON_LABELS:
        spelt = JSON_LABELS[table.labels]
    else:
        kind = CELL_LABELS[table.labels]
        spelt = list(kind.items()) if isinstance(kind, dict) else [(word, None) for word in kind or []]
    rows, classes = [], []
    for number in range(table.rows):
        if table.rare and len(spelt) == 2:
            cell, name = spelt[-1] if number == table.rows - 1 else spelt[0]
        else:
            cell, name = spelt[number % len(spelt)]
        rows.append((TEXTS[table.text].format(number), cell))
        classes.append(name)
    return rows, classes


def content(table: Table, rows: list[tuple[str, Any]]) -> str:
    columns = {"other case": ("Text", "Label"), "no label": ("text", "stars"), "spaces": (" text", "label ")}
    names = columns.get(table.header, ("text", "label"))
    if ".j" in table.suffix or table.suffix == ".ndjson":
        lines = [json.dumps({names[0].strip(): text, names[1].strip(): label}) for text, label in rows]
        if table.header == "twice":
            lines = [line[:-1] + ', "label": "other"}' for line in lines]
        return "".join(line + table.line_end for line in lines)
    quoted = table.suffix.lower() == ".csv"
    own, other = (",", "\t") if quoted else ("\t", ",")
    separator = {"own": own, "other": other}.get(table.separator, table.separator)
    header = [*names, *(["label"] if table.header == "twice" else ["more"] if table.header == "another column" else [])]
    body = [[text, label, *(["more"] * (len(header) - 2))] for text, label in rows]
    whole = [*([] if table.header == "none" else [header]), *body]
    if quoted:
        out = io.StringIO()
        csv.writer(out, delimiter=separator, lineterminator=table.line_end).writerows(whole)
        return out.getvalue()
    return "".join(separator.join(cells) + table.line_end for cells in whole)


def readable(table: Table, classes: list[str | None], text: str) -> bool:
    """Whether the file says what it means: by what was written, not by the reader."""
    is_json, is_csv = "j" in table.suffix, table.suffix.lower() == ".csv"
    ascii_only = text.isascii()
    if table.encoding == "utf-16" or (table.encoding == "latin-1" and not ascii_only):
        return False
    if None in classes or len(set(classes)) < 2:
        return False
    if table.header in ("no label", "other case", "twice") or (table.header == "none" and not is_json):
        return False
    if is_json:
        return True
    if table.separator not in ("own",):
        return False
    return is_csv or table.text not in ("a tab", "a line break")


@cache
def settings() -> TextConfig:
    found = task_config("text_classification")
    assert isinstance(found, TextConfig)
    return found


TABLES = drawn(260)


@pytest.mark.parametrize("number", range(len(TABLES)), ids=[f"{i}-{t.name}" for i, t in enumerate(TABLES)])
def test_a_table_is_read_as_written_or_refused(number: int, tmp_path: Path) -> None:
    table = TABLES[number]
    rows, classes = written(table)
    text = content(table, rows)
    try:
        raw = text.encode(table.encoding)
    except UnicodeEncodeError:
        pytest.skip("the encoding does not have these letters")
    file = tmp_path / f"rows{table.suffix}{table.packed}"
    file.write_bytes(PACKED[table.packed](raw))
    task = replace(settings(), train_file=str(file))
    files = {"train": named("train_file", str(file)), "dev": file}
    if not readable(table, classes, text):
        with pytest.raises(UserError) as caught:
            read_text(task, files)
        assert str(file) in str(caught.value)
        whole = table.encoding != "utf-8" or len(set(classes)) < 2
        assert "line " in str(caught.value) or whole, str(caught.value)
        return
    found = read_text(task, files)
    assert found.names == tuple(sorted({name for name in classes if name}))
    assert [found.names[e.target] for e in found.train] == classes  # type: ignore[index]
    assert [e.first for e in found.train] == [text for text, _ in rows]
    assert found.dev["dev"] == found.train


def test_the_tables_are_of_both_kinds() -> None:
    outcomes = [readable(table, written(table)[1], content(table, written(table)[0])) for table in TABLES]
    assert outcomes.count(True) > 50
    assert outcomes.count(False) > 50
    assert {table.labels for table in TABLES} == {*CELL_LABELS, *JSON_LABELS}


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "text;label\nx;a\ny;b\n", "its header has semicolons: write commas"),
        ("a.csv", "text\tlabel\nx\ta\ny\tb\n", "its header has tabs: name the file .tsv"),
        ("a.tsv", "text,label\nx,a\ny,b\n", "its header has commas: name the file .csv"),
        ("a.csv", "text;label\nx, and y;a\n", "line 2: 2 fields, but 1 columns are expected"),
        ("a.csv", 'text,label\nx,"a\ny,b\n', "line 3: not a table with quoted cells"),
        ("a.csv", 'text,label\n"he said \\"no\\"",a\n', "line 2: not a table with quoted cells"),
        ("a.csv", "text,label\nx,a,b\n", "line 2: 3 fields, but 2 columns"),
        ("a.csv", "text,label\nx\n", "line 2: 1 fields, but 2 columns"),
        ("a.csv", 'text, "label"\nx,a\n', "no column 'label'"),
        ("a.json", '[\n{"text": "x", "label": "a"}\n]\n', "line 1: not JSON"),
        ("a.json", '[{"text": "x", "label": "a"}]\n', "JSON lines hold one object a line"),
        ("a.jsonl", '{"text": NaN, "label": "a"}\n{"text": "y", "label": "b"}\n', "line 1: column 'text' is empty"),
        ("a.jsonl", '{"text": true, "label": "a"}\n{"text": "y", "label": "b"}\n', "a text is expected, not bool"),
        ("a.tsv", 'text\tlabel\nx\t"a"\ny\tb\n', "line 2: column 'label': \"a\" is in quotes"),
    ],
)
def test_what_a_refusal_says(name: str, text: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        read_text(settings(), {"train": file})
    assert words in str(caught.value), str(caught.value)
