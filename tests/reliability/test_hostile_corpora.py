"""Corpora that are broken or hostile: a clear error, or a skip that is counted, said and recorded."""

import dataclasses
import gzip
import json
import os
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from runhelpers import read_json, run, start, tiny_overrides, write_corpus
from test_hostile_folders import Payload

from albert_ablate.data import corpora
from albert_ablate.data.corpora import open_corpus
from albert_ablate.data.prepare import Prepared, prepare
from albert_ablate.data.text import LONGEST, divided, prepare_text, split_sentences, text_info, without_control
from albert_ablate.data.tokenizer import UNK
from albert_ablate.door.compose import compose
from albert_ablate.errors import DataError


def prepared(folder: Path, content: str | bytes, *more: str, name: str = "own.txt") -> Prepared:
    """The corpus with ``content``, ready to train on."""
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return prepare(compose(tiny_overrides(folder, *more, corpus=file)))


def made_up(folder: Path) -> str:
    return write_corpus(folder / "made_up.txt").read_text()


def left_out(found: Prepared) -> dict[str, int]:
    return dict(found.record["source"].get("left_out", {}))


def documents(found: Prepared) -> int:
    return int(sum(found.record["text"][side]["documents"] for side in ("train", "valid")))


# --- what counts as the same text ----------------------------------------------------------------

SAME: dict[str, Callable[[str], str | bytes]] = {
    "CRLF": lambda text: text.replace("\n", "\r\n"),
    "CR": lambda text: text.replace("\n", "\r"),
    "a BOM": lambda text: "\ufeff" + text,
    "a BOM and CRLF": lambda text: ("\ufeff" + text.replace("\n", "\r\n")).encode(),
    "space at line ends": lambda text: text.replace("\n", " \t\n"),
    "no line break at the end": str.rstrip,
}


@pytest.mark.parametrize("form", SAME)
def test_the_same_text_in_another_form_gives_the_same_tokens(form: str, tmp_path: Path) -> None:
    text = made_up(tmp_path)
    plain, other = (prepared(tmp_path, content, name=f"{n}.txt") for n, content in enumerate((text, SAME[form](text))))
    assert other.train.tokens.tolist() == plain.train.tokens.tolist()
    assert other.valid.tokens.tolist() == plain.valid.tokens.tolist()
    assert left_out(other) == {}


# --- characters ----------------------------------------------------------------------------------


def test_nul_bytes_and_control_characters_are_dropped_counted_and_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = made_up(tmp_path)
    plain = prepared(tmp_path, text, name="plain.txt")
    found = prepared(tmp_path, text.replace("a", "a\0", 50).replace("e", "\x1be\x07", 10))
    assert left_out(found) == {"control_characters": 70}
    assert "left out or divided: 70 control characters" in capsys.readouterr().out.replace("\n", " ")
    assert found.train.tokens.tolist() == plain.train.tokens.tolist()
    assert found.train.fingerprint != plain.train.fingerprint, "another text is another run"


def test_what_was_left_out_stands_in_the_manifest_of_the_run(tmp_path: Path) -> None:
    file = tmp_path / "own.txt"
    file.write_text(made_up(tmp_path).replace("a", "a\0", 3))
    for _ in range(2):  # also where the text is cached
        done = run(compose(tiny_overrides(tmp_path, "rerun=all", corpus=file)))
    assert read_json(done.path / "manifest.json")["data"]["source"]["left_out"] == {"control_characters": 3}


def test_a_copy_that_differs_in_nul_bytes_alone_is_a_copy(tmp_path: Path) -> None:
    text = made_up(tmp_path)
    found = prepared(tmp_path, text + "\n\n" + text.replace("a", "a\0"))
    assert found.record["text"]["duplicates_dropped"] == 60
    assert documents(found) == 60


def test_white_space_is_no_control_character() -> None:
    assert without_control("a\tb\nc\r\x0b\x0c\x1c\x85d\u2028e") == ("a\tb\nc\r\x0b\x0c\x1c\x85d\u2028e", 0)
    assert without_control("\0\ud800a\x7f\udfff") == ("a", 4)


def test_half_a_surrogate_pair_of_json_is_dropped_and_counted(tmp_path: Path) -> None:
    rows = [json.dumps({"text": document}) for document in made_up(tmp_path).split("\n\n")]
    rows[0] = rows[0][:-2] + '\\ud83d"}'
    assert left_out(prepared(tmp_path, "\n".join(rows), name="own.jsonl")) == {"control_characters": 1}


TEXTS = {
    "emoji": lambda text: text.replace(".", " 😀👩‍👩‍👧‍👦🇩🇪."),
    "right to left": lambda text: text.translate(str.maketrans("abdefgiklmnoprstuvw", "אבדהפגיכלמנוקרשתטסע")),
    "direction marks": lambda text: text.replace("b", "\u202eb\u202c"),
    "no spaces": lambda text: text.replace(" ", ""),
    "one character repeated": lambda text: text.replace(".", " " + "z" * 3000 + "."),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_unusual_writing_is_read_whole(kind: str, tmp_path: Path) -> None:
    text = TEXTS[kind](made_up(tmp_path))
    found = prepared(tmp_path, text, "tokenizer.vocab_size=100", "data.format=sentences")
    assert documents(found) == 60
    assert left_out(found) == {}
    sentences = sum(found.record["text"][side]["sentences"] for side in ("train", "valid"))
    assert sentences == sum(bool(line.strip()) for line in text.splitlines())
    assert (found.train.tokens != UNK).mean() > 0.5


def test_a_run_on_emoji_and_hebrew_trains_to_its_end(tmp_path: Path) -> None:
    text = TEXTS["right to left"](TEXTS["emoji"](made_up(tmp_path)))
    file = tmp_path / "own.txt"
    file.write_text(text, encoding="utf-8")
    words = ("data.format=sentences", "tokenizer.vocab_size=100")
    assert run(compose(tiny_overrides(tmp_path, *words, corpus=file))).state() == "finished"


# --- sizes ---------------------------------------------------------------------------------------


def test_a_line_of_50_mb_is_read_in_bounded_memory_and_time(tmp_path: Path) -> None:
    """A line without any sentence end, as of text8; what it holds is divided, and none of it lost."""
    text = made_up(tmp_path)
    line = text.replace(".", "").replace("\n", " ").lower()
    line = (line * (50_000_000 // len(line) + 1))[:50_000_000]
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    found = prepared(tmp_path, f"{text}\n\n\n{line}\n", "tokenizer.training_sentences=1000")
    assert time.perf_counter() - began < 120
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_500_000  # kB
    assert left_out(found) == {"sentences_divided": 1}
    words = sum(found.record["text"][side]["words"] for side in ("train", "valid"))
    cut = len(line.split()) // 300  # a word on a border, at most
    assert abs(words - len(line.split()) - len(text.split())) <= cut


def test_parts_of_a_long_sentence_are_the_sentence() -> None:
    for sentence in ("word " * 3000, "x" * 10_000, " " * 5000 + "end", "a" * LONGEST, "a" * (LONGEST + 1)):
        parts = list(divided(sentence.strip()))
        assert all(len(part) <= LONGEST for part in parts)
        assert "".join("".join(parts).split()) == "".join(sentence.split())
    assert all(part.endswith("word") for part in divided(("word " * 3000).strip()))


@pytest.mark.parametrize("name", ["own.txt", "own.jsonl", "own.txt.gz"])
def test_a_line_beyond_the_limit_is_refused_in_words(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpora, "LARGEST", 1000)
    content = ('{"text": "short"}\n' + "x" * 1001).encode()
    with pytest.raises(DataError, match=rf"{name}, line 2: more than 1,000 characters without a line break.*Put"):
        prepared(tmp_path, gzip.compress(content) if name.endswith("gz") else content, name=name)


@pytest.mark.parametrize("form", ["sentences", "prose"])
def test_a_document_beyond_the_limit_is_refused_in_words(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpora, "LARGEST", 1000)
    with pytest.raises(DataError, match=r"own.txt: a document of more than 1,000 characters\. Separate documents"):
        prepared(tmp_path, "A short line.\n" * 100, f"data.format={form}")


def test_a_huge_document_of_short_sentences_is_one_document(tmp_path: Path) -> None:
    sentences = [f"Line {n} of it." for n in range(200_000)]
    file = tmp_path / "own.txt"
    file.write_text("\n".join(sentences) + "\n\nAnother here.\n")
    (tmp_path / "held_out.txt").write_text("Held out here.\nAnd here.\n")
    data = compose(["data=text", f"data.path={file}", f"data.validation_path={tmp_path / 'held_out.txt'}"]).data
    info = text_info(prepare_text(open_corpus(data), "en", 0.1, tmp_path / "cache"))
    assert (info["train"]["documents"], info["train"]["sentences"]) == (2, 200_001)


EMPTY = {"nothing": b"", "a BOM": b"\xef\xbb\xbf", "blank lines": b"\n\r\n \t\n\n", "NUL bytes": b"\0" * 5000}


@pytest.mark.parametrize("kind", EMPTY)
def test_a_corpus_without_text_is_refused_and_leaves_nothing(kind: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="data=text: the corpus is empty: no document with a sentence was found"):
        prepared(tmp_path, EMPTY[kind])
    assert not list((tmp_path / "cache").rglob("*.txt"))


def test_an_empty_file_among_others_has_no_say(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    write_corpus(tmp_path / "texts" / "a.txt")
    (tmp_path / "texts" / "b.txt").touch()
    corpus = open_corpus(compose(["data=text", f"data.path={tmp_path / 'texts'}", "data.format=auto"]).data)
    assert len(list(corpus.documents())) == 60


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("word", "1 training and 0 held-out documents|0 training and 1 held-out"),
        ("\n\n\n".join(f"w{n}" for n in range(100)), "too few different words for any. Use more text"),
    ],
)
def test_one_word_is_too_little_and_the_message_says_so(content: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=words):
        prepared(tmp_path, content)


# --- rows ----------------------------------------------------------------------------------------


def test_rows_without_a_text_are_skipped_and_counted(tmp_path: Path) -> None:
    texts = made_up(tmp_path).split("\n\n")
    rows: list[dict[str, Any]] = [{"text": text} for text in texts] + [{"text": None}, {"text": ""}, {"text": " \n"}]
    found = prepared(tmp_path, "\n".join(map(json.dumps, rows)), name="own.jsonl")
    assert left_out(found) == {"documents_without_text": 3}
    assert documents(found) == 60
    pd.DataFrame(rows).to_parquet(tmp_path / "own.parquet")
    again = prepare(compose(tiny_overrides(tmp_path, corpus=tmp_path / "own.parquet")))
    assert again.record["source"]["left_out"] == {"documents_without_text": 3}
    assert again.train.tokens.tolist() == found.train.tokens.tolist()


BAD_ROWS = {
    "a number": ('{"text": 5}', "line 1: column 'text' holds int, not text"),
    "a list": ('{"text": ["a"]}', "holds list, not text"),
    "a truth value": ('{"text": true}', "holds bool, not text"),
    "too many brackets": ("[" * 100_000, "line 1: expected a JSON object"),
    "a number of 5,000 digits": ('{"text": ' + "1" * 5000 + "}", "line 1: expected a JSON object"),
    "no object": ('"text"', "line 1: expected a JSON object"),
    "NaN": ("NaN", "line 1: expected a JSON object"),
}


@pytest.mark.parametrize("kind", BAD_ROWS)
def test_a_row_that_is_no_text_is_refused_by_number(kind: str, tmp_path: Path) -> None:
    content, words = BAD_ROWS[kind]
    with pytest.raises(DataError, match=words):
        prepared(tmp_path, content, name="own.jsonl")


def test_parquet_that_is_none_or_holds_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"own.parquet: damaged parquet file"):
        prepared(tmp_path, b"PAR1 and nothing more PAR1", name="own.parquet")
    pd.DataFrame({"text": [b"bytes"]}).to_parquet(tmp_path / "bytes.parquet")
    with pytest.raises(DataError, match="holds bytes, not text"):
        prepare(compose(tiny_overrides(tmp_path, corpus=tmp_path / "bytes.parquet")))


@pytest.mark.parametrize("content", [b"\xff\xfea\0b\0", b"Fine here.\n\xc3\x28\n", bytes(range(256)), b"\xed\xa0\x80"])
def test_bytes_that_are_not_utf8_end_with_words_and_no_run(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_bytes(content)
    with pytest.raises(DataError, match=r"own.txt: not UTF-8 .* Convert the file first"):
        start(compose(tiny_overrides(tmp_path, corpus=tmp_path / "own.txt")))
    assert not (tmp_path / "runs").exists()


# --- files ---------------------------------------------------------------------------------------


def read(place: Path | str) -> list[str]:
    return list(open_corpus(compose(["data=text", f"data.path={place}"]).data).documents())


@pytest.fixture
def looped(tmp_path: Path) -> Path:
    """A file in a folder with links that lead back to the folder, to themselves and to nothing."""
    place = tmp_path / "texts"
    place.mkdir()
    (place / "a.txt").write_text("One here.\nTwo here.\n")
    for name in ("x", "y", "z"):  # several: a walk that follows them would double at every step
        (place / name).symlink_to(place)
    (place / "self.txt").symlink_to(place / "self.txt")
    (place / "gone.txt").symlink_to(place / "nowhere.txt")
    return place


@pytest.mark.parametrize("pattern", ["", "/**/*.txt", "/**", "/*.txt"])
def test_links_in_a_circle_do_not_hang_and_double_nothing(looped: Path, pattern: str) -> None:
    began = time.perf_counter()
    assert read(f"{looped}{pattern}") == ["One here.\nTwo here."]
    assert time.perf_counter() - began < 10


def test_a_link_to_itself_is_no_file(looped: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read(looped / "self.txt")


def test_a_linked_folder_is_read(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.txt").write_text("One here.\nTwo here.\n")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "link").symlink_to(tmp_path / "elsewhere")
    assert read(tmp_path / "texts") == ["One here.\nTwo here."]


def test_copies_of_a_file_are_dropped_counted_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "texts").mkdir()
    for name in ("a.txt", "b.txt", "c.txt"):
        write_corpus(tmp_path / "texts" / name)
    found = prepare(compose(tiny_overrides(tmp_path, corpus=tmp_path / "texts")))
    assert found.record["text"]["duplicates_dropped"] == 120
    assert documents(found) == 60
    assert "120 copies of earlier documents" in capsys.readouterr().out.replace("\n", " ")


def test_a_name_that_is_no_utf8_is_read_and_recorded(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    write_corpus(tmp_path / "made_up.txt").rename(tmp_path / "texts" / os.fsdecode(b"\xff.txt"))
    done = run(compose(tiny_overrides(tmp_path, corpus=tmp_path / "texts")))
    assert read_json(done.path / "manifest.json")["data"]["source"]["files"] == ["\\xff.txt"]


@pytest.mark.parametrize("path", ["x" * 5000, "/dev/null", "/dev/zero", "texts/**.txt", "no\nsuch.txt"])
def test_a_path_that_no_system_takes_is_refused_in_words(path: str, tmp_path: Path) -> None:
    data = dataclasses.replace(compose(["data=text", f"data.path={tmp_path}"]).data, path=path)
    with pytest.raises(DataError, match=r"(?s)data\.path=.*(no such file|not a usable path)"):
        open_corpus(data)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(corpora, "sha256_file", refuse)
    with pytest.raises(DataError, match=r"own.txt: cannot be read \(Permission denied\)"):
        prepared(tmp_path, "One.\nTwo.\n")


DAMAGE: dict[str, Callable[[Path], object]] = {
    "text: info.json cut": lambda cache: next(cache.glob("text/*/info.json")).write_text('{"fing'),
    "text: info.json of another kind": lambda cache: next(cache.glob("text/*/info.json")).write_text("[1]"),
    "tokens: cut": lambda cache: os.truncate(next(cache.glob("tokens/*/train/tokens.npy")), 200),
    "tokens: empty": lambda cache: next(cache.glob("tokens/*/valid/documents.npy")).write_bytes(b""),
    "tokens: those of the other side": lambda cache: shutil.copyfile(
        next(cache.glob("tokens/*/valid/tokens.npy")), next(cache.glob("tokens/*/train/tokens.npy"))
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_cache_is_told_apart_from_the_corpus(what: str, tmp_path: Path) -> None:
    config = compose(tiny_overrides(tmp_path))
    prepare(config)
    DAMAGE[what](tmp_path / "cache")
    with pytest.raises(DataError, match=r"the cached folder is damaged .* Remove it"):
        prepare(config)


def test_a_pickle_in_the_cache_is_not_opened(tmp_path: Path) -> None:
    config = compose(tiny_overrides(tmp_path))
    prepare(config)
    payload = Payload(tmp_path / "opened")
    next((tmp_path / "cache").glob("tokens/*/train/tokens.npy")).write_bytes(payload.pickled())
    with pytest.raises(DataError, match="the cached folder is damaged"):
        prepare(config)
    assert not payload.opened()


def test_the_splitter_takes_any_paragraph() -> None:
    for paragraph in ("." * 10_000, '"' * 10_000, "(" * 10_000, "Mr. " * 5000, "\u202e" * 100, "😀" * 10_000):
        assert "".join("".join(split_sentences(paragraph, "en")).split()) == "".join(paragraph.split())
