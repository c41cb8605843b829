"""Marks that cleaning drops are counted and said where they are letters."""

import unicodedata
from pathlib import Path

import pytest
from languages import WORDS, sentences
from runhelpers import tiny_config

from albert_ablate.data.marks import count_marks
from albert_ablate.data.prepare import prepare
from albert_ablate.data.tokenizer import clean


@pytest.mark.parametrize(
    ("language", "script", "change"),
    [
        ("ja", "Japanese kana", "パンダが → ハンタか"), ("th", "Thai", "กุ้งไม่ดี → กงไมดี"), ("lo", "Lao", " → "),
        ("hi", "Devanagari", "हिन्दी → हिनदी"), ("bn", "Bengali", " → "), ("ru", "Cyrillic", "ёж → еж"),
        ("uk", "Cyrillic", " → "), ("de", "Latin", "möchte → mochte"), ("tr", "Latin", " → "), ("pl", "Latin", " → "),
        ("vi", "Latin", " → "), ("yo", "Latin", " → "), ("el", "Greek", " → "), ("he", "Hebrew", "שָׁלוֹם → שלום"),
        ("ar", "Arabic", " → "), ("km", "Khmer", " → "), ("my", "Myanmar", " → "), ("bo", "Tibetan", " → "),
    ],
)  # fmt: skip
def test_the_marks_of_each_script_are_counted(language: str, script: str, change: str) -> None:
    words = WORDS[language].split()
    found = count_marks(words, wordpiece=False)
    assert next(iter(found.scripts)) == script
    line = found.warning(language, wordpiece=False)
    assert line is not None
    assert f" {script} (" in line
    assert change.split(" → ")[0] in " ".join(words)
    assert "tokenizer.strip_accents=false" in line


@pytest.mark.parametrize("language", WORDS)
def test_as_many_marks_as_cleaning_drops(language: str) -> None:
    for form in ("NFC", "NFD"):
        lines = [unicodedata.normalize(form, s) for s in sentences(language, 20)]
        dropped = sum(
            len(unicodedata.normalize("NFKD", s)) - len(clean(s, lowercase=False, strip_accents=True)) for s in lines
        )
        assert sum(count_marks(lines, wordpiece=False).scripts.values()) == dropped


@pytest.mark.parametrize("text", ["한국어는 아름답다 값이", "今天天气很好", "שלום עולם", "plain text"])
def test_text_that_loses_nothing_is_left_in_peace(text: str) -> None:
    assert count_marks([text], wordpiece=False).warning("ko", wordpiece=False) is None


def test_a_few_accents_in_english_are_no_matter() -> None:
    plain = ["These words are plain and there are many of them."] * 200
    found = count_marks(["A naïve café in Zürich.", *plain], wordpiece=False)
    assert found.scripts == {"Latin": 3}
    assert found.warning("en", wordpiece=False) is None
    assert found.warning("nl", wordpiece=False) is not None


def test_bert_drops_vowel_signs_too() -> None:
    assert sum(count_marks(["कु हिन्दी"], wordpiece=True).scripts.values()) > sum(
        count_marks(["कु हिन्दी"], wordpiece=False).scripts.values()
    )


@pytest.mark.parametrize("strip", ["true", "false"])
def test_it_is_said_once_with_the_data_and_recorded(
    strip: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n\n".join("\n".join(sentences("hi", 8, seed)) for seed in range(30)) + "\n", encoding="utf-8")
    config = tiny_config(
        tmp_path, "data.language=hi", "data.format=sentences", f"tokenizer.strip_accents={strip}", corpus=corpus
    )
    record = prepare(config).record
    said = capsys.readouterr().out.count("tokenizer.strip_accents=true drops")
    assert said == (strip == "true")
    assert ("marks_dropped" in record) == (strip == "true")
    if strip == "true":
        assert record["marks_dropped"]["Devanagari"] > 100
