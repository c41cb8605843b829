"""What opens a word, script by script, and what it changes."""

import dataclasses
from pathlib import Path
from typing import Literal

import pytest
import yaml
from runhelpers import tiny_config, tiny_overrides, write_corpus

from albert_ablate.data.prepare import prepare
from albert_ablate.data.tokenizer import Tokenizer
from albert_ablate.data.words import starts_word, word_piece_starts
from albert_ablate.door.compose import compose, compose_for_run


@pytest.mark.parametrize(
    "piece",
    ["ая", "ского", "ης", "ία", "ات", "ים", "ों", "ति", "ల్లు", "에서", "습니다", "ችን", "եր", "ში", "ü", "naïve", "ção",
     "ị", "می\u200cخ", "\u093f", "s", "re-"],
)  # fmt: skip
def test_letters_of_spaced_scripts_continue_a_word(piece: str) -> None:
    assert not starts_word(piece, "script")
    assert not starts_word(piece, "spaces")


@pytest.mark.parametrize("piece", ["天", "学校", "です", "ガラス", "ー", "々", "ไม่", "ລາວ", "ខ្មែ", "မြန်", "བོད", "ㄅ"])
def test_pieces_of_scripts_without_spaces_are_words(piece: str) -> None:
    assert starts_word(piece, "script")
    assert not starts_word(piece, "spaces"), "a corpus whose words are parted by spaces"


@pytest.mark.parametrize(
    "piece", ["▁", "▁мой", "▁学", "2", "१२", "'s", "’", ".", "。", "।", "–", "£", "<unk>", "½", "😀"]
)
def test_digits_signs_and_marked_pieces_are_as_in_the_reference(piece: str) -> None:
    for rule in ("script", "spaces", "reference"):
        assert starts_word(piece, rule), rule


def test_word_pieces_of_scripts_without_spaces_are_words() -> None:
    pieces = ["the", "##ing", "##ского", "##天", "##ไม่", "##2"]
    assert word_piece_starts(pieces, "script").tolist() == [True, False, False, True, True, False]
    assert word_piece_starts(pieces, "reference").tolist() == [True, False, False, False, False, False]


def test_where_the_rules_agree_nothing_changes(tmp_path: Path) -> None:
    """English keeps its fingerprint, and so its runs their identity."""
    prints = {
        rule: prepare(tiny_config(tmp_path, f"tokenizer.words={rule}")).train.fingerprint
        for rule in ("script", "spaces", "reference")
    }
    assert len(set(prints.values())) == 1


def write_cyrillic(file: Path) -> Path:
    letters = dict(zip("abdefgiklmnoprstvw", "абдефгиклмнопрстшв", strict=True))
    text = write_corpus(file).read_text().lower()
    file.write_text("".join(letters.get(c, c) for c in text))
    return file


def test_where_they_differ_so_does_the_fingerprint(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, corpus=write_cyrillic(tmp_path / "corpus.txt"))
    prepared = prepare(config)
    model = prepared.tokenizer.path

    def of(rule: Literal["script", "spaces", "reference"]) -> Tokenizer:
        return Tokenizer(model, dataclasses.replace(config.tokenizer, words=rule))

    assert of("reference").word_starts.sum() > of("script").word_starts.sum() + 10
    assert of("script").fingerprint == of("spaces").fingerprint != of("reference").fingerprint


def test_the_trained_model_is_the_same_for_every_rule(tmp_path: Path) -> None:
    prepare(tiny_config(tmp_path))
    prepare(tiny_config(tmp_path, "tokenizer.words=reference"))
    assert len(list((tmp_path / "cache" / "tokenizers").iterdir())) == 1


def test_a_run_from_before_the_rules_keeps_its_own(tmp_path: Path) -> None:
    """Its config.yaml names none: the reference's rule and whole words, whatever the defaults are now."""
    lines = compose(tiny_overrides(tmp_path)).as_dict()
    del lines["tokenizer"]["words"], lines["masking"]["long_words"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(lines))
    config = compose_for_run(tmp_path / "config.yaml", [])
    assert (config.tokenizer.words, config.masking.long_words) == ("reference", "whole")
