"""Every reader, the held-out split, and what a damaged or missing file says."""

import dataclasses
import gzip
import json
import lzma
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from albert_ablate.config.schema import DataConfig, HubSource
from albert_ablate.data import corpora
from albert_ablate.data.corpora import Corpus, open_corpus, read_prose, read_sentences
from albert_ablate.data.text import prepare_text, split_sentences, text_info
from albert_ablate.door.compose import compose
from albert_ablate.errors import DataError

DOCUMENTS = ["First of one. Second of one.\nNew paragraph of one.", "First of two. Second of two.", "Only of three."]


def data(path: Path | str, **other: Any) -> DataConfig:
    return dataclasses.replace(compose(["data=text", f"data.path={path}"]).data, **other)


def documents(path: Path | str, **other: object) -> list[str]:
    return list(open_corpus(data(path, **other)).documents())


# --- forms ----------------------------------------------------------------------------------------


def test_one_sentence_a_line(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("One here.\nTwo here.\n\n\nThree here.\n \nFour here!")
    corpus = open_corpus(data(file))
    assert corpus.one_sentence_per_line
    assert list(corpus.documents()) == ["One here.\nTwo here.", "Three here.", "Four here!"]


def test_a_file_end_ends_a_document(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(f"One {name}.\nTwo {name}.")
    assert documents(tmp_path) == ["One a.\nTwo a.", "One b.\nTwo b."]


def test_prose_is_unwrapped_and_parted_at_two_blank_lines(tmp_path: Path) -> None:
    first = "It was a dark and\nstormy night. Rain\nfell.\n\nThe second paragraph goes\non here. Yes."
    (tmp_path / "a.txt").write_text(first + "\n\n\nAnother document\nstarts.")
    corpus = open_corpus(data(tmp_path / "a.txt"))
    assert not corpus.one_sentence_per_line
    first = "It was a dark and stormy night. Rain fell.\nThe second paragraph goes on here. Yes."
    assert list(corpus.documents()) == [first, "Another document starts."]


def test_the_form_can_be_stated(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("No full stops\nin these lines\n\nat all\n")
    assert documents(file, format="sentences") == ["No full stops\nin these lines", "at all"]
    assert documents(file, format="prose") == ["No full stops in these lines\nat all"]


def test_paragraphs_of_several_sentences_are_prose(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("\n\n".join(["A first one. A second one. And a third."] * 5))
    assert not open_corpus(data(file)).one_sentence_per_line


def test_files_of_both_forms_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("One here.\nTwo here.\n")
    (tmp_path / "b.txt").write_text("wrapped prose without\nan end")
    with pytest.raises(DataError, match=r"data.format=sentences or data.format=prose"):
        open_corpus(data(tmp_path))


@pytest.mark.parametrize("packed", ["", ".xz", ".gz"])
def test_json_lines(tmp_path: Path, packed: str) -> None:
    file = tmp_path / f"a.jsonl{packed}"
    lines = "\n".join(json.dumps({"title": "t", "body": d}) for d in DOCUMENTS) + "\n\n"
    packers: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".xz": lzma.compress, ".gz": gzip.compress}
    file.write_bytes(packers[packed](lines.encode()))
    assert documents(file, text_column="body") == DOCUMENTS
    assert documents(tmp_path, text_column="body") == DOCUMENTS


def test_parquet(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    pd.DataFrame({"text": DOCUMENTS}).to_parquet(file)
    assert documents(file) == DOCUMENTS


def test_folder_and_glob(tmp_path: Path) -> None:
    (tmp_path / "in" / "ner").mkdir(parents=True)
    (tmp_path / "in" / "b.jsonl").write_text(json.dumps({"text": "B."}))
    (tmp_path / "in" / "ner" / "a.jsonl").write_text(json.dumps({"text": "A."}))
    (tmp_path / "in" / "readme.md").write_text("not data")
    assert documents(tmp_path / "in") == ["B.", "A."]
    assert documents(f"{tmp_path}/in/*.jsonl") == ["B."]
    assert documents(f"{tmp_path}/**/*.jsonl") == ["B.", "A."]


def test_readers_of_lines() -> None:
    assert list(read_sentences(iter(["\n", "a\n", "\n", "\n"]))) == ["a"]
    assert list(read_prose(iter(["\n", "\n", "\n", "a\n", "b\n", "\n", "c\n"]))) == ["a b\nc"]
    assert list(read_prose(iter([]))) == []


# --- faults ---------------------------------------------------------------------------------------


def fault(path: Path | str, **other: object) -> str:
    with pytest.raises(DataError) as caught:
        documents(path, **other)
    return str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert f"data.path={tmp_path}/no.txt: no such file" in fault(tmp_path / "no.txt")
    assert "data.path=" in fault(tmp_path)  # an empty folder


def test_a_bad_json_line_is_named_by_number(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": "fine"}\n{"text": \n')
    assert "a.jsonl, line 2" in fault(file)
    file.write_text('{"text": "fine"}\n{"body": "x"}\n')
    message = fault(file)
    assert "line 2" in message
    assert "data.text_column" in message


def test_other_faults_are_told_in_words(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("Ärger.\nÜber.\n".encode("latin-1"))
    assert "not UTF-8" in fault(tmp_path / "a.txt")
    whole = lzma.compress(b'{"text": "x"}\n' * 500)
    (tmp_path / "b.jsonl.xz").write_bytes(whole[: len(whole) // 2])
    assert "damaged .xz" in fault(tmp_path / "b.jsonl.xz")
    pd.DataFrame({"body": DOCUMENTS}).to_parquet(tmp_path / "c.parquet")
    assert "no column 'text'; it has ['body']" in fault(tmp_path / "c.parquet")


# --- sentences and sides --------------------------------------------------------------------------


def made(texts: list[str], validation: list[str] | None = None, fingerprint: str = "x") -> Corpus:
    held_out = (lambda: iter(validation)) if validation is not None else None
    return Corpus("made", fingerprint, lambda: iter(texts), held_out, False, {})


def sides(folder: Path) -> tuple[list[str], list[str]]:
    both = [(folder / f"{side}.txt").read_text().split("\n\n")[:-1] for side in ("train", "valid")]
    return both[0], both[1]


MANY = [f"Sentence one of {i}. And sentence two." for i in range(400)]


def test_sentences_are_split_and_documents_kept_in_order(tmp_path: Path) -> None:
    train, valid = sides(prepare_text(made(MANY), "en", 0.1, tmp_path))
    assert train[0].count("\n") == 1
    numbers = [int(d.split(".")[0].rsplit(" ", 1)[1]) for d in train]
    assert numbers == sorted(numbers)
    assert len(train) + len(valid) == 400
    assert 20 <= len(valid) <= 62


def test_a_document_stays_on_its_side_when_others_come_or_move(tmp_path: Path) -> None:
    _, valid = sides(prepare_text(made(MANY), "en", 0.1, tmp_path))
    _, moved = sides(prepare_text(made([*MANY[::-1], "Something new. Yes."], fingerprint="y"), "en", 0.1, tmp_path))
    assert set(valid) <= set(moved)


def test_copies_are_dropped_and_never_stand_on_both_sides(tmp_path: Path) -> None:
    folder = prepare_text(made([*MANY, *MANY[:50]], validation=MANY[:20]), "en", 0.1, tmp_path)
    train, valid = sides(folder)
    assert not set(train) & set(valid)
    assert (len(train), len(valid)) == (380, 20)
    assert text_info(folder)["duplicates_dropped"] == 20 + 50


def test_lines_that_are_sentences_are_not_split_again(tmp_path: Path) -> None:
    corpus = dataclasses.replace(
        made(["Mr. A. said. So.\nTwo."] * 1, validation=["Three. Four."]), one_sentence_per_line=True
    )
    assert sides(prepare_text(corpus, "en", 0.1, tmp_path)) == (["Mr. A. said. So.\nTwo."], ["Three. Four."])


@pytest.mark.parametrize(("texts", "words"), [([], "empty"), (["", " \n"], "empty"), (["Only one. Here."], "1 ")])
def test_an_empty_side_is_refused(texts: list[str], words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"data=made.*{words}"):
        prepare_text(made(texts), "en", 0.5, tmp_path)
    assert not list((tmp_path / "text").glob("*"))


def test_the_text_is_built_once(tmp_path: Path) -> None:
    folder = prepare_text(made(MANY), "en", 0.1, tmp_path)
    assert prepare_text(made(["never read"] * 9), "en", 0.1, tmp_path) == folder  # the same fingerprint
    assert prepare_text(made(MANY), "en", 0.2, tmp_path) != folder


def test_the_splitter_knows_abbreviations() -> None:
    text = 'Mr. Smith paid $3.5 million in Washington, D.C. on Jan. 5. "Really?" she asked. He nodded!\nA heading'
    found = list(split_sentences(text, "en"))
    assert found[0].startswith("Mr. Smith paid $3.5 million")
    assert found[-2:] == ["He nodded!", "A heading"]
    assert len(found) in (4, 5)


# --- the embedded corpus and the hub --------------------------------------------------------------


def test_the_embedded_corpus_is_large_ordered_prose() -> None:
    corpus = open_corpus(compose().data)
    texts = list(corpus.documents())
    assert sum(len(t.split()) for t in texts) > 1_900_000
    assert len(texts) > 240
    assert "I embrace with great satisfaction the opportunity which now presents itself" in texts[0]
    assert "[Applause" not in "".join(texts)
    assert corpus.fingerprint == open_corpus(compose().data).fingerprint


def hub(**other: Any) -> DataConfig:
    config = compose(["data=wikitext"]).data
    source: HubSource = dataclasses.replace(
        config.hub[0], **{"path": "json", "config": None, "split": "train", "validation_split": None, **other}
    )
    return dataclasses.replace(config, hub=(source,))


def test_a_hub_dataset_is_streamed(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(json.dumps({"text": d}) for d in DOCUMENTS))
    assert list(open_corpus(hub(data_files=str(file), documents="row")).documents()) == DOCUMENTS
    assert list(open_corpus(hub(data_files=str(file), documents="row", max_documents=2)).documents()) == DOCUMENTS[:2]


def test_rows_become_documents() -> None:
    lines = ["", " = Title = \n", "One .\n", " = = Part = = \n", "Two .\n", " = Next = \n", "Three .\n"]
    tally: Counter[str] = Counter()
    assert list(corpora._group_rows(iter(lines), "headings", 5, tally)) == ["One.\nTwo.", "Three."]
    assert tally["titles"] == 2
    assert list(corpora._group_rows(iter("abcde"), "rows_of_sentences", 2, tally)) == ["a\nb", "c\nd", "e"]
    assert list(corpora._group_rows(iter("abc"), "row", 2, tally)) == ["a", "b", "c"]


def test_an_unreachable_hub_is_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("no route to the hub")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(DataError, match=r"data=wikitext: Salesforce/wikitext could not be read.*data=embedded"):
        list(open_corpus(compose(["data=wikitext"]).data).documents())


@pytest.mark.parametrize("name", ["wikitext", "wiki_books"])
def test_the_shipped_hub_corpora_are_described_completely(name: str) -> None:
    config = compose([f"data={name}"]).data
    assert config.source == "hub"
    assert all(source.path and source.text_column for source in config.hub)
