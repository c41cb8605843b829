"""Task files that a reader could take for something else: refused with the place, never half understood."""

import json
from pathlib import Path
from typing import Any

import pytest

from albert_ablate.config.tasks import TaskConfig
from albert_ablate.door.compose import compose
from albert_ablate.errors import DataError
from albert_ablate.tasks.race import read_race
from albert_ablate.tasks.squad.data import read_squad
from albert_ablate.tasks.tables import read_rows
from albert_ablate.tasks.texts.examples import read_glue, read_text

DEEP = "[" * 100_000
LONG = '{"text": ' + "1" * 5000 + "}"
PASSAGE: dict[str, Any] = {
    "id": "a", "article": "Text.", "questions": ["What?"], "options": [["a", "b", "c", "d"]], "answers": ["A"],
}  # fmt: skip
QUESTION: dict[str, Any] = {"id": "q", "question": "What?", "answers": [{"text": "Text", "answer_start": 0}]}


def task(name: str) -> TaskConfig:
    more = [f"tasks.{name}.train_file=x"] if name.startswith("text") else []
    return compose([f"task={name}", *more]).tasks[name]


def refused(file: Path, read: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(file)
    assert file.name in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"answers": [""]}, "an answer A to D"),  # a part of "ABCD", as text goes
        ({"answers": ["AB"]}, "an answer A to D"),
        ({"answers": [0]}, "an answer A to D"),
        ({"answers": "A"}, "answers is str, not a list"),
        ({"options": ["abcd"]}, "four options"),
        ({"options": [["a", "b", "c", 4]]}, "a text is expected, not int"),
        ({"options": "abcd", "questions": "What", "answers": "ABCD"}, "not a list"),
        ({"article": ["Text."]}, "a text is expected, not list"),
        ({"article": None}, "a text is expected"),
        ({"questions": [None]}, "a text is expected"),
        ({"article": "\ud800"}, "surrogates not allowed"),
    ],
)
def test_race(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    file = tmp_path / "race.jsonl"
    file.write_text(json.dumps(PASSAGE))
    assert read_race(task("race"), {"train/all": [file]}, "train")[0].answer == 0  # type: ignore[arg-type]
    file.write_text(json.dumps(PASSAGE | change))
    message = refused(file, lambda file: read_race(task("race"), {"train/all": [file]}, "train"))  # type: ignore[arg-type]
    assert "line 1" in message
    assert words in message


def squad_text(question: Any = QUESTION, context: Any = "Text here.") -> str:
    return json.dumps({"data": [{"title": "t", "paragraphs": [{"context": context, "qas": [question]}]}]})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (squad_text(context=5), "a text is expected, not int"),
        (squad_text(context="\ud800"), "surrogates not allowed"),
        (squad_text(QUESTION | {"question": None}), "a text is expected"),
        (squad_text(QUESTION | {"answers": [{"text": "Text", "answer_start": "0"}]}), "answer_start is '0'"),
        (squad_text(QUESTION | {"answers": [{"text": "Text", "answer_start": -10}]}), "answer_start is -10"),
        (squad_text(QUESTION | {"answers": [{"text": ["Text"], "answer_start": 0}]}), "a text is expected, not list"),
        (squad_text(QUESTION | {"answers": {"text": "Text"}}), "not SQuAD's layout"),
        (squad_text(5), "not SQuAD's layout"),
        ("[]", "not SQuAD's layout"),
        ("null", "not SQuAD's layout"),
        (DEEP, "not JSON"),
        (LONG, "not JSON"),
    ],
)
def test_squad(content: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "squad.json"
    file.write_text(squad_text())
    assert read_squad(file, "1.1").questions[0].start == 0
    file.write_text(content)
    assert words in refused(file, lambda file: read_squad(file, "1.1"))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.tsv", "text\ttext\tlabel\na\tb\tx\n", "line 1: column 'text' occurs twice"),
        ("a.csv", "text,label\n" + '"' + "x" * 200_000 + '",a\n', "not a table with quoted cells"),
        ("a.jsonl", DEEP, "line 1: not JSON"),
        ("a.jsonl", LONG, "line 1: not JSON"),
        ("a.jsonl", '{"text": ["a"], "label": "x"}', "column 'text': a text is expected, not list"),
        ("a.jsonl", '{"text": {"a": 1}, "label": "x"}', "column 'text': a text is expected, not dict"),
        ("a.jsonl", '{"text": "\\ud800", "label": "x"}', "surrogates not allowed"),
    ],
)
def test_a_table_of_your_own(name: str, content: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_text(content + ('\n{"text": "b", "label": "y"}' if name.endswith("jsonl") else ""))
    message = refused(file, lambda file: read_text(task("text_classification"), {"train": file}))  # type: ignore[arg-type]
    assert words in message


def test_a_number_that_is_too_large_for_a_target_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": "a", "score": 1' + "0" * 400 + "}\n")
    message = refused(file, lambda file: read_text(task("text_regression"), {"train": file}))  # type: ignore[arg-type]
    assert "is not a number" in message


def test_rows_that_lack_a_column_or_all_labels_are_named(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    rows = [{"sentence": "fine", "label": "1"}, {"sentence": "bad"}]
    file.write_text("\n".join(map(json.dumps, rows)))
    files = {"train": file, "dev": file}
    assert "line 2: no column 'label'" in refused(file, lambda _: read_glue(task("sst2"), files))  # type: ignore[arg-type]
    file.write_text(json.dumps({"sentence": "fine", "label": "-"}))
    assert "no row has a label" in refused(file, lambda _: read_glue(task("sst2"), files))  # type: ignore[arg-type]


def test_nul_bytes_in_a_table_are_letters_like_others(tmp_path: Path) -> None:
    """A place in a text must stay its place, so task files are never rewritten; the tokenizer knows no such piece."""
    file = tmp_path / "a.tsv"
    file.write_text("text\tlabel\na\0b\tx\n")
    assert [row.text("text") for row in read_rows(file)] == ["a\0b"]
