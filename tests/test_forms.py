"""What a file holds is told by its content; texts stay texts, and nothing else is trained on."""

import bz2
import gzip
import io
import json
import lzma
import pickle
import sqlite3
import unicodedata
import zipfile
from collections.abc import Callable
from functools import cache
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_corpora import data, documents, fault

from albert_ablate import languages
from albert_ablate.config.schema import DataConfig
from albert_ablate.data import scripts
from albert_ablate.data.corpora import Corpus, open_corpus
from albert_ablate.data.forms import form_of
from albert_ablate.data.scripts import ends_sentence, join_lines, several_sentences
from albert_ablate.data.splitting import split_sentences
from albert_ablate.data.tables import find_table
from albert_ablate.data.text import prepare_text, text_info
from albert_ablate.door.compose import compose
from albert_ablate.errors import ConfigError, DataError
from albert_ablate.files import digest, sha256_file
from albert_ablate.languages import borrowed_rules, known_code, rules_of

# --- scripts -------------------------------------------------------------------------------------

ENDED = [
    "A line.", "He said “yes.”", "(Fine.)", "甲乙丙丁。", "甲乙！」", "「はい」", "はい。」", "هل هذا؟", "یہ ہے۔",
    "यह है।", "श्लोक॥", "Սա է։", "ነው።", "ជា។", "ဒါက။", "ཡིན།", "Τι;", "„Ja.“", "«Да.»", "Great! 🎉", "See you 😊",
    "᠃", "ꓸ꓿", "What⁉",
]  # fmt: skip


@pytest.mark.parametrize("line", ENDED)
def test_sentence_ends_of_every_script_are_known(line: str) -> None:
    assert ends_sentence(line)
    assert not ends_sentence(line + "甲")
    assert not ends_sentence(line + " and")


def test_the_table_of_terminals_is_unicodes() -> None:
    regex = pytest.importorskip("regex")
    known = {chr(c) for c in range(0x11000) if not 0xD800 <= c < 0xE000 and unicodedata.category(chr(c)) != "Cn"}
    theirs = {c for c in known if regex.match(r"\p{Sentence_Terminal}", c)}
    assert theirs
    assert not {c for c in theirs if not scripts.has_mark(c)}


@pytest.mark.parametrize(
    ("line", "several"),
    [("One. Two.", True), ("One. two.", False), ("3.5 Million.", False), ("甲。乙。", True), ("「甲。」乙。", True),
     ("甲，乙。", False), ("है। दो।", True), ("합니다. 다음.", True), ("Это. Второе.", True), ("ეს. მეორე.", True),
     ("زید۔ عمر۔", True), ("É. Ère.", True)],
)  # fmt: skip
def test_several_sentences_in_a_line(line: str, several: bool) -> None:
    assert several_sentences(line) is several


def test_the_language_says_what_a_semicolon_is() -> None:
    assert several_sentences("Τι είναι; Ναι.", "el")
    assert not several_sentences("One; Two.", "en")


@pytest.mark.parametrize(
    ("lines", "joined"),
    [(["甲乙", "丙丁"], "甲乙丙丁"), (["甲，", "乙"], "甲，乙"), (["甲。”", "“乙"], "甲。”“乙"),
     (["かな", "漢字"], "かな漢字"), (["ไทย", "ไทย"], "ไทยไทย"), (["ລາວ", "ລາວ"], "ລາວລາວ"),
     (["ខ្មែរ", "ខ្មែរ"], "ខ្មែរខ្មែរ"), (["မြန်", "မာ"], "မြန်မာ"), (["བོད་", "ཡིག"], "བོད་ཡིག"),
     (["한국", "말"], "한국 말"), (["甲", "abc", "def"], "甲 abc def"), (["a", "b"], "a b")],
)  # fmt: skip
def test_lines_are_joined_as_the_script_writes(lines: list[str], joined: str) -> None:
    found, tight = join_lines(lines)
    assert found == joined
    assert tight == len(lines) - 1 - found.count(" ")


def test_sentences_of_scripts_that_the_splitter_lacks() -> None:
    assert list(split_sentences("នេះជា។ ទីពីរ។ ទីបី៕ ទីបួន។", "km")) == ["នេះជា។", "ទីពីរ។", "ទីបី៕", "ទីបួន។"]
    assert list(split_sentences("ཡིན། གཉིས། །གསུམ།", "bo")) == ["ཡིན།", "གཉིས། །", "གསུམ།"]
    assert list(split_sentences("『はい。』『いいえ。』彼。", "ja")) == ["『はい。』", "『いいえ。』", "彼。"]


# --- languages -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "known"),
    [
        ("zh_CN", "zh"),
        ("zh-TW", "zh"),
        ("pt_BR", "pt-br"),
        ("en-US", "en"),
        ("fr-CA", "fr"),
        ("DE", "de"),
        ("xx", "xx"),
    ],
)
def test_codes_are_read_in_any_spelling(code: str, known: str) -> None:
    assert compose([f"data.language={code}"]).data.language == known == known_code(code)


def test_the_probes_tell_the_rules_of_languages_apart() -> None:
    alike: dict[tuple[int, ...], list[str]] = {}
    for language in languages._LANGUAGES:
        alike.setdefault(languages._probed(language), []).append(language)
    assert len(alike) >= 19
    assert [rules_of(code) for code in ("cs", "gl", "be", "xx", "als", "uk")] == ["sk", "pt", "en", "en", "de", "uk"]


def test_an_unknown_language_says_whose_rules_stand_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = [f"The first of {n}. The second one." for n in range(40)]
    prepare_text(Corpus("made", "x", lambda: iter(texts), None, False, {}), "xx", 0.3, tmp_path)
    assert "data.language=xx: there are no rules" in capsys.readouterr().out
    assert "Slovak (sk)" in (borrowed_rules("cs") or "")
    assert borrowed_rules("ja") is None


# --- tables and texts with commas ----------------------------------------------------------------

TABLES = {
    "csv": "id,text,label\n1,One here.,a\n2,Two here.,b\n",
    "text first": "text,label\nOne,a\nTwo,b\n",
    "spaces": "id, text, label\n1, One, a\n2, Two, b\n",
    "tsv": "text\tlabel\nOne, here.\ta\nTwo\tb\n",
    "semicolons": "id;text\n1;One, two\n2;Three\n",
    "line breaks in cells": 'id,text\n1,"One\nand more, here."\n2,"Two ""quoted"", yes"\n',
    "another column": "id,body,label\n" + "".join(f"{n},Text {n}.,a\n" for n in range(8)),
    "no header": "".join(f"{n % 2},It is text {n}.\n" for n in range(8)),
    "labels last": "".join(f"It is text {n}.,{'pos' if n % 2 else 'neg'}\n" for n in range(12)),
    "three columns of tabs": "".join(f"{n}\teng\tText {n}.\n" for n in range(5)),
    "words and tags": "".join(f"Word{n}\tNN\tO\n" + "\n" * (n % 4 == 3) for n in range(20)),
    "label and text": "".join(f"{n % 2}\tText {n}.\n" for n in range(8)),
}


@pytest.mark.parametrize("kind", TABLES)
def test_tables_are_found_under_any_name(kind: str) -> None:
    assert find_table(TABLES[kind], True, "text", False)
    assert find_table(TABLES[kind].replace("\n", "\r\n"), True, "text", False)


TEXTS = {
    "commas": "One, two.\nThree, four.\nFive, six.\nSeven, eight.\nNine, ten.\n",
    "a verse": "".join(f"O wind number {n}, and rain,\n" for n in range(20)),
    "the word": "In short, text, of course.\nIt is, as said, so.\nAnd here, again, it goes.\n" * 3,
    "indented": "\tA paragraph begins.\nAnd goes on.\n\n\tAnother one.\nGoes on.\n" * 3,
    "tabs inside": "A line with\ta tab.\nAnother without.\nAnd\tone\twith two.\n" * 3,
    "a play": "".join(f"ANNA:\tHello there {n}.\n" for n in range(20)),
    "a contents page": "".join(f"Chapter {n}\t{n * 7}\n\n" for n in range(20)),
    "Chinese with ASCII commas": "甲乙,丙丁。\n戊己,庚辛。\n壬癸,子丑。\n寅卯,辰巳。\n午未,申酉。\n戌亥,甲丑。\n",
    "brackets": "[Applause] Thank you.\n[Laughter] It is good.\n",
    "braces": "{Note} It begins.\nAnd goes on.\n",
    "a footnote": '["Hello," she said] and went on.\n[1] Smith, J. (1990).\n',
    "a template": "{{Infobox}} It begins.\nAnd goes on.\n",
    "a chat": "".join(f"<anna{n}> hello there, friend.\n" for n in range(20)),
    "a heart": "<3 is what she wrote.\nAnd so on.\n",
    "an italic word": "<i>Hamlet</i> is a play.\nIt is old.\nIt is long.\n",
    "numbers": "".join(f"It was {n},000 years ago, they say.\n" for n in range(10)),
    "Latex": "\\section{One}\nIt is here.\n{\\em It} is.\n",
    "a pipe": "This | that.\nHere | there | where.\nNo more.\n",
    "magic words": "RIFF is a format.\nGIF89a is another.\n",
    "ID3": "ID3 tags are in a file.\nThey are.\n",
    "PK": "PK is short.\nIt is.\n",
}


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("name", ["own.txt", "own", "own.md"])
def test_texts_stay_texts(kind: str, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(TEXTS[kind])
    assert form_of(tmp_path / name, settings()).kind in ("sentences", "prose")


@cache
def settings() -> DataConfig:
    return compose(["data=text", "data.path=x"]).data


def test_a_table_is_read_by_its_column_or_refused_with_its_columns(tmp_path: Path) -> None:
    for name in ("a.csv", "a.txt", "a", "a.tsv.gz"):
        content = TABLES["line breaks in cells"].encode()
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
        assert documents(tmp_path / name) == ["One\nand more, here.", 'Two "quoted", yes']
    (tmp_path / "b.csv").write_text(TABLES["another column"])
    words = fault(tmp_path / "b.csv")
    for word in ("b.csv: no column 'text'; it has ['id', 'body', 'label']", "data.text_column", "text_classification"):
        assert word in words
    assert documents(tmp_path / "b.csv", text_column="body") == [f"Text {n}." for n in range(8)]
    (tmp_path / "c.csv").write_text("id,text\n1,One\n2,Two, and more\n")
    assert "c.csv, row 3: 3 cells, but 2 columns (id, text)" in fault(tmp_path / "c.csv")


def test_a_large_table_is_told_by_its_start(tmp_path: Path) -> None:
    cell = "It goes on, and on.\n" * 200
    pd.DataFrame({"id": range(60), "text": [f"{n} {cell}" for n in range(60)]}).to_csv(tmp_path / "a.txt", index=False)
    assert len(documents(tmp_path / "a.txt")) == 60


def test_the_column_of_rows_enters_the_text(tmp_path: Path) -> None:
    rows = [{"title": f"Title {n}. Yes.", "body": f"Body {n}. Yes."} for n in range(40)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    prints = set()
    for column in ("title", "body"):
        corpus = open_corpus(data(tmp_path / "a.jsonl", text_column=column))
        folder = prepare_text(corpus, "en", 0.3, tmp_path / "cache")
        assert (folder / "train.txt").read_text().startswith(column.capitalize())
        prints.add(text_info(folder)["fingerprint"])
    assert len(prints) == 2


# --- JSON ----------------------------------------------------------------------------------------

ROWS = [{"text": "One here. Two."}, {"text": "Three."}]
JSONS = {
    "array": json.dumps(ROWS), "array of texts": json.dumps([row["text"] for row in ROWS]),
    "pretty array": json.dumps(ROWS, indent=2), "pretty objects": "\n".join(json.dumps(row, indent=2) for row in ROWS),
    "columns": json.dumps({"text": [row["text"] for row in ROWS]}), "lines": "\n".join(map(json.dumps, ROWS)),
}  # fmt: skip


@pytest.mark.parametrize("kind", JSONS)
@pytest.mark.parametrize("name", ["a.json", "a.txt", "a", "a.md", "a.json.gz"])
def test_json_is_read_under_any_name(kind: str, name: str, tmp_path: Path) -> None:
    content = JSONS[kind].encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    assert documents(tmp_path / name) == ["One here. Two.", "Three."]
    assert documents(tmp_path / name, format="sentences") == ["One here. Two.", "Three."]


def test_json_without_the_column_or_damaged_is_refused(tmp_path: Path) -> None:
    for content, words in (
        ('[{"id": 1, "body": "x"}]', "row 1: no column 'text'; it has 'id', 'body'"),
        ('[{"text": 5}]', "holds int, not text"),
        ('[{"text": "a"}, {"text": ', "not JSON"),
        ("{'text': 'One here.'}\n{'text': 'Two.'}\n", "not JSON"),
        ("[[1, 2]]", "not JSON|expected a JSON object"),
    ):
        (tmp_path / "a.json").write_text(content)
        with pytest.raises(DataError, match=words):
            documents(tmp_path / "a.json")


# --- packed files and files that are no text -----------------------------------------------------


def zipped(*names: str, content: bytes = b"One here.") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in names:
            archive.writestr(name, content)
    return out.getvalue()


def zstandard(content: bytes) -> bytes:
    pyarrow = pytest.importorskip("pyarrow")
    return bytes(pyarrow.compress(content, codec="zstd", asbytes=True))


PACKS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress, "xz": lzma.compress, "bz2": bz2.compress, "zst": zstandard,
    "lzma": lambda content: lzma.compress(content, lzma.FORMAT_ALONE),
    "zip": lambda content: zipped("a.txt", content=content),
}  # fmt: skip


@pytest.mark.parametrize("pack", PACKS)
def test_packed_files_are_told_by_their_first_bytes(pack: str, tmp_path: Path) -> None:
    packed = PACKS[pack](b"One here.\nTwo here.\n\nThree here.\n")
    for name in (f"a.txt.{pack}", "a.txt", "a"):
        (tmp_path / name).write_bytes(packed)
        assert documents(tmp_path / name) == ["One here.\nTwo here.", "Three here."]
        (tmp_path / name).write_bytes(packed[: len(packed) // 2])
        with pytest.raises(DataError):
            documents(tmp_path / name)


def test_parquet_is_read_under_any_name(tmp_path: Path) -> None:
    pd.DataFrame({"text": ["One.", "Two."]}).to_parquet(tmp_path / "a.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    for name, content in (("a.txt", whole), ("a", whole), ("b.parquet.gz", gzip.compress(whole))):
        (tmp_path / name).write_bytes(content)
        assert documents(tmp_path / name) == ["One.", "Two."]


def database() -> bytes:
    connection = sqlite3.connect(":memory:")
    connection.execute("create table t (text)")
    connection.execute("insert into t values ('One here.')")
    return connection.serialize()


def array() -> bytes:
    out = io.BytesIO()
    np.save(out, np.arange(100))
    return out.getvalue()


NO_TEXT = {
    "pdf": (b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n" * 9, "a PDF document"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(50), "an image"),
    "docx": (zipped("[Content_Types].xml", "word/document.xml"), "an office document"),
    "epub": (zipped("mimetype", "META-INF/container.xml"), "or an e-book"),
    "archive": (zipped("a.txt", "b.txt"), "an archive of 2 files"),
    "pickle": (pickle.dumps(["One here."] * 9), "pickle"),
    "sqlite": (database(), "SQLite"),
    "numpy": (array(), "NumPy"),
    "utf16": ("One here. Two.\n".encode("utf-16") * 9, "UTF-16"),
    "utf16 without a mark": ("One here. Two.\n".encode("utf-16-le") * 9, "UTF-16"),
    "utf32": ("One here. Two.\n".encode("utf-32") * 9, "UTF-32"),
    "rtf": (b"{\\rtf1 One here.}", "rich-text"),
    "html": (b"<!DOCTYPE html>\n<html><p>One here.</p></html>", "HTML or XML"),
    "snippets": (b"<p>One here.</p>\n<p>Two here.</p>\n" * 9, "HTML or XML"),
    "xml": (b'<?xml version="1.0"?>\n<mediawiki>One here.</mediawiki>', "HTML or XML"),
    "extracted": (b'<doc id="1" url="u" title="T">\nT\n\nOne here.\n</doc>\n' * 9, "with --json"),
    "twice": (gzip.compress(gzip.compress(b"One here.\n")), "packed twice"),
}


@pytest.mark.parametrize("kind", NO_TEXT)
def test_what_is_no_text_is_refused_or_left_aside(kind: str, tmp_path: Path) -> None:
    content, words = NO_TEXT[kind]
    for name in ("a.txt", "a", f"a.{kind}"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=words):
            documents(tmp_path / name)
        (tmp_path / name).unlink()
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "b.bin").write_bytes(content)
    (folder / "a.md").write_text("One here.\nTwo here.\n")
    corpus = open_corpus(data(folder))
    assert list(corpus.documents()) == ["One here.\nTwo here."]
    assert corpus.left_aside == ["not read: 1 file, b.bin"]


# --- folders, forms and documents ----------------------------------------------------------------


def test_a_folder_without_usual_names_is_read_by_content(tmp_path: Path) -> None:
    (tmp_path / "AA").mkdir()
    for n in range(3):
        (tmp_path / "AA" / f"wiki_{n}").write_text(json.dumps({"text": f"One {n}."}) + "\n" + '{"text": "Two."}\n')
    (tmp_path / ".hidden").write_text("Not here.")
    assert documents(tmp_path) == ["One 0.", "Two.", "One 1.", "Two.", "One 2.", "Two."]


def test_what_was_read_and_what_was_not_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    for n in range(3):
        (folder / f"{n}.txt").write_text("\n\n".join(f"甲乙{n}{m}。\n丙丁！" for m in range(10)))
    (folder / "rest.txt").touch()
    (folder / "readme.md").write_text("No data.")
    (folder / "labels.csv").write_text("a,b\n1,2\n")
    info = text_info(prepare_text(open_corpus(data(folder)), "zh", 0.3, tmp_path / "cache"))
    said = capsys.readouterr().out.replace("\n", "")
    assert "read as one sentence a line: 3 files, 30 documents; empty: 1 file, rest.txt" in said
    assert "not read: 2 files, labels.csv, readme.md" in said
    assert info["source"]["read_as"] == {"sentences": {"files": 3, "documents": 30}}
    assert info["train"]["sentences"] + info["valid"]["sentences"] == 60


def test_forms_that_differ_are_counted_and_named(tmp_path: Path) -> None:
    for n in range(5):
        (tmp_path / f"{n}.txt").write_text("One here.\nTwo here.\n")
    (tmp_path / "odd.txt").write_text("wrapped prose without\nan end")
    words = fault(tmp_path)
    assert "(5 and 1; without: 1 file, odd.txt)" in words
    assert "data.format=sentences or data.format=prose" in words


def doubt(texts: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    (folder / "own.txt").write_text("\n\n\n".join(texts), encoding="utf-8")
    prepare_text(open_corpus(data(folder / "own.txt")), "en", 0.3, folder / "cache")
    lines = [line for line in capsys.readouterr().out.splitlines() if ": ! " in line]
    return " ".join(lines)


def test_sentences_that_are_hardly_ones_are_doubted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["no marks in these lines", "as of a crawl", "or a transcript of speech"]
    said = doubt(["\n".join([*lines, str(n)]) for n in range(30)], tmp_path, capsys)
    assert "30 of 30 paragraphs of several lines hold no sentence mark" in said
    assert "data.format=sentences" in said
    long = doubt([f"word {n} " + "and more words " * 60 for n in range(30)], tmp_path, capsys)
    assert "a sentence has 182 words on average" in long
    chinese = doubt([f"{n}" + "甲乙丙丁" * 60 for n in range(30)], tmp_path, capsys)
    assert "characters on average" in chinese
    fair = ["It was a dark and stormy\nnight of wind. Rain\nfell on it.", "A heading\n\nAnother text of it.\nYes."]
    assert doubt([f"{text} {n}." for n in range(15) for text in fair], tmp_path, capsys) == ""


def test_every_so_many_sentences_can_be_a_document(tmp_path: Path) -> None:
    lines = [f"Sentence {n} here." for n in range(10)]
    (tmp_path / "flat.txt").write_text("\n".join(lines))
    assert documents(tmp_path / "flat.txt", documents_of=4) == ["\n".join(lines[i : i + 4]) for i in (0, 4, 8)]
    (tmp_path / "prose.txt").write_text("\n\n".join(f"{a} {b}" for a, b in zip(lines[::2], lines[1::2], strict=True)))
    assert documents(tmp_path / "prose.txt", documents_of=4) == ["\n".join(lines[i : i + 4]) for i in (0, 4, 8)]
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps({"text": line}) for line in lines))
    assert documents(tmp_path / "rows.jsonl", documents_of=5) == ["\n".join(lines[:5]), "\n".join(lines[5:])]
    one, other = (
        prepare_text(open_corpus(data(tmp_path / "flat.txt", documents_of=n)), "en", 0.4, tmp_path) for n in (2, 3)
    )
    assert text_info(one)["fingerprint"] != text_info(other)["fingerprint"]


@pytest.mark.parametrize(
    ("content", "words"),
    [("One here.\nTwo here.\n", "read as one sentence a line, where a blank line ends a document"),
     ("One here, and\nmore of it. Two here, and\nmore", "read as prose, where two blank lines end a document"),
     ('{"text": "One. Two."}\n', "a row is a document")],
)  # fmt: skip
def test_the_advice_fits_the_form_that_was_read(content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "own").write_text(content)
    with pytest.raises(DataError, match=rf"both sides need at least one.*{words}; data\.documents_of=N"):
        prepare_text(open_corpus(data(tmp_path / "own")), "en", 0.3, tmp_path)


def test_documents_of_other_corpora_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.documents_of=5: no effect with data=embedded"):
        compose(["data.documents_of=5"])


# --- fingerprints --------------------------------------------------------------------------------


def test_clean_texts_keep_their_fingerprints(tmp_path: Path) -> None:
    """Those of the version before files were told by content; the identities of runs depend on them."""
    (tmp_path / "s.txt").write_text("\n\n".join(f"One of {n} here.\nTwo of {n} here!" for n in range(40)))
    (tmp_path / "p.txt").write_text("\n\n\n".join(f"It was a\nnight {n}. Rain\nfell.\n\nYes." for n in range(40)))
    for name, splitter in (("s.txt", "none"), ("p.txt", f"sentencex {metadata.version('sentencex')}")):
        corpus = open_corpus(data(tmp_path / name))
        settings = {
            "format": 1, "corpus": digest([[sha256_file(tmp_path / name)], []]), "splitter": splitter, "language": "en",
            "validation_fraction": 0.2,
        }  # fmt: skip
        assert text_info(prepare_text(corpus, "en", 0.2, tmp_path / "cache"))["fingerprint"] == digest(settings)


def test_a_text_that_is_read_otherwise_than_before_has_another_fingerprint(tmp_path: Path) -> None:
    """Joined without spaces; the cached text of before is not taken either."""
    (tmp_path / "p.txt").write_text("\n\n\n".join(f"甲乙丙丁\n戊己{n}庚\n辛壬。" for n in range(40)))
    folder = prepare_text(open_corpus(data(tmp_path / "p.txt")), "zh", 0.2, tmp_path / "cache")
    assert "丙丁戊己" in (folder / "train.txt").read_text()
    info = text_info(folder)
    assert info["fingerprint"] != digest(info["settings"])
