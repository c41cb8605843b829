"""Tokenizers as transformers 5 saves them, tokenizer.json alone: equal ids in every language, or refused in words."""

import dataclasses
import json
import random
import unicodedata
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from languages import WORDS, sentences
from test_import import albert, bert, imported
from test_kinds import SIZES, TAKEN, TEXT, exported, model_of, settings
from transformers import AlbertTokenizer, AutoTokenizer, BertTokenizer

from albert_ablate.commands.export import main as export
from albert_ablate.config.schema import TokenizerConfig
from albert_ablate.data.tokenizer import Tokenizer
from albert_ablate.data.vocabulary import open_tokenizer
from albert_ablate.data.vocabulary_training import KEPT_AS, train
from albert_ablate.errors import DataError
from albert_ablate.interop.tokenizer_read import ForeignTokenizer, find_tokenizer
from albert_ablate.record.folder import TOKENIZER, TOKENIZER_JSON


@cache
def trained(kind: str, strip: str = "true", lowercase: str = "true") -> tuple[Any, bytes]:
    """Settings, and the tokenizer's file."""
    config = settings(kind, f"tokenizer.strip_accents={strip}", f"tokenizer.lowercase={lowercase}")
    return config, train(config.tokenizer, lambda: iter(TEXT[::2]))


def saved(kind: str, folder: Path, *cleaning: str) -> Path:
    """Exported, loaded in transformers and saved there: tokenizer.json and tokenizer_config.json alone."""
    config, content = trained(kind, *cleaning)
    (folder / "out").mkdir(parents=True)
    file = folder / "out" / KEPT_AS[kind]
    file.write_bytes(content)
    exported(file, config).save_pretrained(folder / "saved")
    assert sorted(path.name for path in (folder / "saved").iterdir()) == [TOKENIZER_JSON, "tokenizer_config.json"]
    return folder / "saved"


def found_in(folder: Path) -> tuple[ForeignTokenizer, Tokenizer]:
    """The tokenizer of a folder, in our terms and opened."""
    described = folder / "tokenizer_config.json"
    scratch = folder.parent / f"{folder.name}-made"
    scratch.mkdir(exist_ok=True)
    found = find_tokenizer(folder, json.loads(described.read_text()) if described.is_file() else {}, scratch)
    size = 1 + max(tokenizers.Tokenizer.from_file(str(folder / TOKENIZER_JSON)).get_vocab().values())
    return found, open_tokenizer(found.file, config_of(found, size))


def config_of(found: ForeignTokenizer, size: int) -> TokenizerConfig:
    cleaning = {"lowercase": found.lowercase, "strip_accents": found.strip_accents}
    own = settings(found.name).tokenizer
    return dataclasses.replace(own, vocab_size=size, split_digit_commas=found.split_digit_commas, **cleaning)


def assert_ids_of(source: Any, own: Tokenizer) -> None:
    """In every language, composed and decomposed, in small and in capital letters."""
    for language in WORDS:
        lines = [unicodedata.normalize(form, s) for form in ("NFC", "NFD") for s in sentences(language, 4, seed=1)]
        lines += [line.upper() for line in lines] + ["\"Well\" - (he's) 'quoted' ''so'' ``there`` £5 & 12, 10%."]
        assert source(lines, add_special_tokens=False)["input_ids"] == own.encode(lines), language


@pytest.mark.parametrize(("strip", "lowercase"), [("true", "true"), ("false", "false"), ("false", "true")])
@pytest.mark.parametrize("kind", SIZES)
def test_what_transformers_saves_has_equal_ids(kind: str, strip: str, lowercase: str, tmp_path: Path) -> None:
    folder = saved(kind, tmp_path, strip, lowercase)
    found, own = found_in(folder)
    assert (found.name, found.kept) == (kind, None)
    assert (str(found.strip_accents).lower(), str(found.lowercase).lower()) == (strip, lowercase)
    assert_ids_of(AutoTokenizer.from_pretrained(folder), own)


@pytest.mark.parametrize("name", TAKEN)
def test_models_of_every_kind_come_back(name: str, tmp_path: Path) -> None:
    """With bytes for unknown characters, of characters, of several words, with other maps of characters."""
    kind, options = TAKEN[name]
    (tmp_path / "out").mkdir()
    config = settings(kind)
    theirs = exported(model_of(options, tmp_path / "out" / TOKENIZER), config)
    theirs.save_pretrained(tmp_path / "saved")
    found, own = found_in(tmp_path / "saved")
    assert found.kept is None
    lines = [unicodedata.normalize("NFC", s) for language in WORDS for s in sentences(language, 4, seed=1)]
    assert theirs(lines, add_special_tokens=False)["input_ids"] == own.encode(lines)


NORMALIZERS: dict[str, dict[str, Any] | None] = {
    "none": None,
    "lower case": {"type": "Lowercase"},
    "composing": {"type": "Sequence", "normalizers": [{"type": "Nmt"}, {"type": "NFKC"}, {"type": "Lowercase"}]},
    "accents": {"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "Lowercase"}, {"type": "StripAccents"}]},
    "signs": {"type": "Replace", "pattern": {"String": "…"}, "content": "..."},
}


@pytest.mark.parametrize("name", NORMALIZERS)
@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_other_normalizers_give_equal_ids_or_are_refused(kind: str, name: str, tmp_path: Path) -> None:
    folder = saved(kind, tmp_path)
    changed(folder, lambda content: content.update(normalizer=NORMALIZERS[name]))
    if name == "composing":  # marks in any order: no map of characters does that
        with pytest.raises(DataError, match=r"normalizer \(Nmt, NFKC, Lowercase\): it turns"):
            found_in(folder)
        return
    found, own = found_in(folder)
    assert found.kept == (None if name == "none" else folder / TOKENIZER_JSON)
    assert_ids_of(AutoTokenizer.from_pretrained(folder), own)


@pytest.mark.parametrize("options", [{}, {"do_lower_case": False}], ids=str)
def test_the_cleaning_of_alberttokenizer_is_taken_over(options: dict[str, Any], tmp_path: Path) -> None:
    """It drops the vowel signs of Indic scripts with the accents, makes one quote of two, and leaves "12," whole."""
    changed(saved("unigram", tmp_path), lambda content: content["model"]["vocab"].append(["▁12,", -1.5]))
    AlbertTokenizer.from_pretrained(tmp_path / "saved", **options).save_pretrained(tmp_path / "albert")
    found, own = found_in(tmp_path / "albert")
    assert found.kept == tmp_path / "albert" / TOKENIZER_JSON
    assert_ids_of(AlbertTokenizer.from_pretrained(tmp_path / "albert"), own)


def test_an_import_gives_back_the_cleaning_that_it_came_with(tmp_path: Path) -> None:
    """Imported with AlbertTokenizer's file, exported, imported again: three times the same ids."""
    saved("unigram", tmp_path)
    theirs = AlbertTokenizer.from_pretrained(tmp_path / "saved")
    albert(tmp_path / "out" / TOKENIZER, tmp_path / "in", vocab_size=len(theirs))
    (tmp_path / "in" / TOKENIZER).unlink()
    theirs.save_pretrained(tmp_path / "in")
    _, run = imported(tmp_path / "in", tmp_path / "runs" / "mine")
    assert export([str(run.path), str(tmp_path / "again")]) == 0
    source = AlbertTokenizer.from_pretrained(tmp_path / "in")
    loaded = AutoTokenizer.from_pretrained(tmp_path / "again")
    for language in WORDS:
        lines = sentences(language, 4)
        assert loaded(lines)["input_ids"] == source(lines)["input_ids"]
    assert "as tokenizer.json says" in (tmp_path / "again" / "README.md").read_text()
    (tmp_path / "again" / TOKENIZER).unlink()
    _, own = found_in(tmp_path / "again")
    assert_ids_of(source, own)


def test_a_vocabulary_with_a_piece_twice(tmp_path: Path) -> None:
    """transformers saves it with an id that no piece has."""
    bert(tmp_path / "in")
    pieces = (tmp_path / "in" / "vocab.txt").read_text().split("\n")
    (tmp_path / "in" / "vocab.txt").write_text("\n".join([*pieces[:20], "run", *pieces[20:]]))
    theirs = BertTokenizer.from_pretrained(tmp_path / "in")
    theirs.save_pretrained(tmp_path / "saved")
    _, own = found_in(tmp_path / "saved")
    back = own.encode(["The running, abc xyz"])[0]
    order = [theirs.convert_tokens_to_ids(p) for p in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")]
    order += [i for i in range(own.vocab_size) if i not in order]
    assert [order[i] for i in back] == theirs("The running, abc xyz", add_special_tokens=False)["input_ids"]


def changed(folder: Path, change: Callable[[dict[str, Any]], Any], file: str = TOKENIZER_JSON) -> None:
    content = json.loads((folder / file).read_text())
    change(content)
    (folder / file).write_text(json.dumps(content))


def byte_level(folder: Path) -> None:
    """As GPT-2 and RoBERTa have it."""
    pipeline = tokenizers.ByteLevelBPETokenizer()
    pipeline.train_from_iterator(
        TEXT[::20], vocab_size=400, special_tokens=["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]
    )
    pipeline.save(str(folder / TOKENIZER_JSON))


def add(folder: Path, *tokens: str) -> None:
    source = AutoTokenizer.from_pretrained(folder)
    source.add_tokens(list(tokens))
    source.save_pretrained(folder)


REFUSED: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "byte-level BPE": ("bpe", byte_level, "a byte-level BPE, as in GPT-2"),
    "another layout": (
        "unigram",
        lambda f: changed(
            f,
            lambda c: c.update(
                model=c["model"] | {"vocab": c["model"]["vocab"][::-1]}, added_tokens=[], post_processor=None
            ),
        ),
        "ids 0 to 4 are",
    ),
    "word level": (
        "unigram",
        lambda f: changed(
            f,
            lambda c: c.update(
                model={"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}, added_tokens=[], post_processor=None
            ),
        ),
        "model (WordLevel): WordPiece, Unigram and BPE can be imported",
    ),
    "added tokens": ("unigram", lambda f: add(f, "<entity>"), "added_tokens: '<entity>'"),
    "added word pieces": ("wordpiece", lambda f: add(f, "[E1]"), "added_tokens: '[E1]'"),
    "a composing normalizer": (
        "unigram",
        lambda f: changed(
            f,
            lambda c: c.update(
                normalizer={"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Prepend", "prepend": "x"}]}
            ),
        ),
        "normalizer (NFC, Prepend): it turns",
    ),
    "a normalizer by rule": (
        "unigram",
        lambda f: changed(
            f, lambda c: c.update(normalizer={"type": "Replace", "pattern": {"Regex": "(?<=[a-z])b"}, "content": "v"})
        ),
        "normalizer (Replace): it turns",
    ),
    "no division at spaces": (
        "unigram",
        lambda f: changed(
            f,
            lambda c: c.update(
                pre_tokenizer={"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": True}
            ),
        ),
        "pre_tokenizer (Metaspace): WhitespaceSplit and then Metaspace",
    ),
    "merges left out": (
        "bpe",
        lambda f: changed(f, lambda c: c["model"].update(merges=c["model"]["merges"][::2])),
        "model.merges: SentencePiece merges any two neighbours",
    ),
    "merges in random": ("bpe", lambda f: changed(f, lambda c: c["model"].update(dropout=0.1)), "model.dropout is 0.1"),
    "the frame of RoBERTa": (
        "unigram",
        lambda f: changed(
            f,
            lambda c: c.update(
                post_processor={
                    "type": "RobertaProcessing",
                    "sep": ["[SEP]", 3],
                    "cls": ["[CLS]", 2],
                    "trim_offsets": True,
                    "add_prefix_space": True,
                }
            ),
        ),
        "post_processor: two empty texts become [CLS] [SEP] [SEP] [SEP]",
    ),
    "Chinese undivided": (
        "wordpiece",
        lambda f: changed(f, lambda c: c["normalizer"].update(handle_chinese_chars=False)),
        "normalizer.handle_chinese_chars is false",
    ),
    "another normalizer": (
        "wordpiece",
        lambda f: changed(f, lambda c: c.update(normalizer={"type": "Lowercase"})),
        "normalizer is Lowercase",
    ),
    "another division": (
        "wordpiece",
        lambda f: changed(f, lambda c: c.update(pre_tokenizer={"type": "Whitespace"})),
        "pre_tokenizer is Whitespace",
    ),
    "short words": (
        "wordpiece",
        lambda f: changed(f, lambda c: c["model"].update(max_input_chars_per_word=20)),
        "model.max_input_chars_per_word is 20",
    ),
    "two cases": (
        "wordpiece",
        lambda f: changed(f, lambda c: c.update(do_lower_case=False), "tokenizer_config.json"),
        "normalizer.lowercase is true, but tokenizer_config.json says do_lower_case false",
    ),
    "a line break in a piece": (
        "wordpiece",
        lambda f: changed(f, lambda c: c["model"]["vocab"].update({"a\nb": len(c["model"]["vocab"])})),
        "it has a piece that cannot be a line of a vocab.txt",
    ),
    "no [MASK]": (
        "wordpiece",
        lambda f: changed(
            f, lambda c: (c["model"]["vocab"].update(mask=c["model"]["vocab"].pop("[MASK]")), c.update(added_tokens=[]))
        ),
        "no [MASK] in it",
    ),
    "damaged": ("unigram", lambda f: (f / TOKENIZER_JSON).write_text('{"model": '), "not a readable tokenizer.json"),
    "empty": ("unigram", lambda f: (f / TOKENIZER_JSON).write_text("{}"), "not a readable tokenizer.json"),
    "nothing": ("unigram", lambda f: (f / TOKENIZER_JSON).unlink(), "no tokenizer.json; one is needed"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_like_is_refused_by_the_part(name: str, tmp_path: Path) -> None:
    kind, spoil, words = REFUSED[name]
    folder = saved(kind, tmp_path)
    spoil(folder)
    described = json.loads((folder / "tokenizer_config.json").read_text())
    (tmp_path / "made").mkdir()
    with pytest.raises(DataError) as caught:
        find_tokenizer(folder, described, tmp_path / "made")
    assert words in str(caught.value)


def test_added_tokens_of_alberttokenizer_are_refused_with_the_remedy_and_the_remedy_works(tmp_path: Path) -> None:
    """From spiece.model alone, AlbertTokenizer makes added tokens of the user-defined pieces."""
    config, content = trained("unigram")
    for name in ("out", "made"):
        (tmp_path / name).mkdir()
    (tmp_path / "out" / TOKENIZER).write_bytes(content)
    AlbertTokenizer.from_pretrained(tmp_path / "out").save_pretrained(tmp_path / "saved")
    with pytest.raises(DataError, match=r"added_tokens: '\('.*copy the spiece.model that the model was trained with"):
        find_tokenizer(tmp_path / "saved", {}, tmp_path / "made")
    (tmp_path / "saved" / TOKENIZER).write_bytes(content)
    found = find_tokenizer(tmp_path / "saved", {}, tmp_path / "made")
    assert open_tokenizer(found.file, config.tokenizer).encode(["a (b)"])


@pytest.mark.parametrize("kind", ["unigram", "wordpiece"])
def test_two_files_that_disagree_are_refused(kind: str, tmp_path: Path) -> None:
    """A folder whose tokenizer.json was saved after tokens were exchanged, beside the old file."""
    folder = saved(kind, tmp_path)
    (folder / KEPT_AS[kind]).write_bytes(trained(kind)[1])
    found_in(folder)

    def rename(content: dict[str, Any]) -> None:
        vocabulary = content["model"]["vocab"]
        if isinstance(vocabulary, dict):
            vocabulary["zzz"] = vocabulary.pop(next(iter(reversed(vocabulary))))
        else:
            vocabulary[-1][0] = "zzz"

    changed(folder, rename)
    with pytest.raises(DataError, match="holds other pieces than"):
        found_in(folder)


@pytest.mark.parametrize("kind", ["unigram", "wordpiece"])
def test_tokens_beside_the_vocabulary_are_refused(kind: str, tmp_path: Path) -> None:
    """As transformers 4 stores them, for files without a tokenizer.json."""
    (tmp_path / KEPT_AS[kind]).write_bytes(trained(kind)[1])
    described = {"added_tokens_decoder": {"4": {"content": "[MASK]"}, "1500": {"content": "[E1]"}}}
    find_tokenizer(tmp_path, {}, tmp_path)
    with pytest.raises(DataError, match=r"added tokens: \[E1\]"):
        find_tokenizer(tmp_path, described, tmp_path)
    (tmp_path / "added_tokens.json").write_text('{"[E2]": 1501}')
    with pytest.raises(DataError, match=r"added tokens: \[E2\]"):
        find_tokenizer(tmp_path, {}, tmp_path)


@pytest.mark.parametrize("kind", SIZES)
def test_any_damage_of_tokenizer_json_is_refused_in_words(kind: str, tmp_path: Path) -> None:
    """A part removed, exchanged or of another type; what is taken nevertheless has the source's ids."""
    folder, draw = saved(kind, tmp_path), random.Random(kind)
    content = json.loads((folder / TOKENIZER_JSON).read_text())
    described = json.loads((folder / "tokenizer_config.json").read_text())
    places: list[tuple[str, ...]] = [(key,) for key in content]
    places += [(key, inner) for key, value in content.items() if isinstance(value, dict) for inner in value]
    refused = 0
    for number in range(25):
        spoiled = json.loads(json.dumps(content))
        *path, last = draw.choice(places)
        part = spoiled
        for key in path:
            part = part[key]
        if draw.random() < 0.3:
            del part[last]
        else:
            part[last] = draw.choice([None, 1, -1, "x", [], {}, True, [1], {"type": "x"}])
        (folder / TOKENIZER_JSON).write_text(json.dumps(spoiled))
        try:
            (tmp_path / f"made{number}").mkdir()
            found = find_tokenizer(folder, described, tmp_path / f"made{number}")
        except DataError:
            refused += 1
            continue
        source = tokenizers.Tokenizer.from_file(str(folder / TOKENIZER_JSON))
        config = config_of(found, source.get_vocab_size())
        lines = TEXT[::100]
        expected = [one.ids for one in source.encode_batch(lines, add_special_tokens=False)]
        assert open_tokenizer(found.file, config).encode(lines) == expected
    assert 5 < refused < 25
