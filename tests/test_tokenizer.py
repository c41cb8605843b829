"""Cleaning, training, word starts and the checks of a foreign model."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from runhelpers import tiny_overrides, write_corpus

from albert_ablate.config.schema import TokenizerConfig
from albert_ablate.data.corpora import open_corpus
from albert_ablate.data.store import get_stores
from albert_ablate.data.text import prepare_text
from albert_ablate.data.tokenizer import Tokenizer, clean, starts_word
from albert_ablate.data.vocabulary import get_tokenizer
from albert_ablate.data.vocabulary_training import trained_with
from albert_ablate.door.compose import compose
from albert_ablate.errors import DataError

Change = Callable[..., TokenizerConfig]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokenizer")


@pytest.fixture(scope="module")
def text(place: Path) -> Path:
    """A prepared corpus with the signs and digits that the tests look for."""
    corpus = write_corpus(place / "corpus.txt")
    extra = 'In 1,234 days, "they" (and 3, 45, 6) paid £9 – or €7 - to Zoë\'s café.'
    corpus.write_text(corpus.read_text() + "\n" + "\n".join([extra] * 40) + "\n")
    config = compose(tiny_overrides(place, corpus=corpus))
    return prepare_text(open_corpus(config.data), "en", 0.2, place / "cache")


@pytest.fixture(scope="module")
def settings(place: Path) -> TokenizerConfig:
    return compose(tiny_overrides(place)).tokenizer


@pytest.fixture(scope="module")
def tokenizer(settings: TokenizerConfig, text: Path, place: Path) -> Tokenizer:
    return get_tokenizer(settings, text, place / "cache")


def test_the_layout_is_alberts(tokenizer: Tokenizer) -> None:
    pieces = [tokenizer.pieces.id_to_piece(i) for i in range(13)]
    assert pieces == ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]", "(", ")", '"', "-", ".", "–", "£", "€"]


def test_special_names_in_text_are_ordinary_text(tokenizer: Tokenizer) -> None:
    (ids,) = tokenizer.encode(["a [MASK] and a [SEP]"])
    assert not {0, 2, 3, 4} & set(ids)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("  Hello \t World\n", "hello world"),
        ("Zoë's CAFÉ", "zoe's cafe"),
        ("ﬁne ½", "fine 1⁄2"),
        ("İ", "i"),
    ],
)
def test_cleaning(raw: str, expected: str) -> None:
    assert clean(raw, lowercase=True, strip_accents=True) == expected


def test_cleaning_can_keep_case_and_accents() -> None:
    assert clean(" Zoë  X", lowercase=False, strip_accents=False) == "Zoë X"


def test_text_is_cleaned_before_encoding(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode(["THEY PAID"]) == tokenizer.encode(["they  paid"])


@pytest.mark.parametrize(
    "piece", ["▁foo", "▁", "<unk>", "'", "'s", "2", "2012", ".", ")", "(", "–", "ü", "naïve", "=", "£"]
)
def test_pieces_that_open_a_word(piece: str) -> None:
    assert starts_word(piece)


@pytest.mark.parametrize("piece", ["t", "s", "foo", "on", "re-", "S"])
def test_pieces_that_continue_a_word(piece: str) -> None:
    assert not starts_word(piece)


def test_word_starts_stand_by_id(tokenizer: Tokenizer) -> None:
    assert tokenizer.word_starts.shape == (tokenizer.vocab_size,)
    for i in range(5, tokenizer.vocab_size):
        assert tokenizer.word_starts[i] == starts_word(tokenizer.pieces.id_to_piece(i))


def test_a_digit_and_its_comma_are_parted(text: Path, place: Path, settings: TokenizerConfig) -> None:
    joined = place / "joined"
    lines = ["in 3, 4, 5, days", "or 3 and 13 or 35 days", "quickly jumping vexed foxes by lamps, two words of text"]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines * 100),
        model_prefix=str(joined), vocab_size=60, hard_vocab_limit=False, pad_id=0, pad_piece="<pad>", unk_id=1,
        bos_id=-1, eos_id=-1, control_symbols=["[CLS]", "[SEP]", "[MASK]"], user_defined_symbols=["▁3,"],
        split_by_number=False, minloglevel=2,
    )  # fmt: skip
    model = place / "joined.model"
    size = sentencepiece.SentencePieceProcessor(model_file=str(model)).get_piece_size()
    plain = dataclasses.replace(settings, model_path=str(model), vocab_size=size, split_digit_commas=False)
    split = Tokenizer(model, dataclasses.replace(plain, split_digit_commas=True))
    whole = Tokenizer(model, plain)
    names = lambda t: [t.pieces.id_to_piece(i) for i in t.encode(["in 3, days"])[0]]  # noqa: E731
    assert "▁3," in names(whole)
    assert "▁3," not in names(split)
    place_of_three = next(i for i, piece in enumerate(names(split)) if piece.endswith("3"))
    assert names(split)[place_of_three + 1] == ","


def test_training_gives_the_same_bytes_anywhere(text: Path, settings: TokenizerConfig, tmp_path: Path) -> None:
    models = [get_tokenizer(settings, text, tmp_path / name).path.read_bytes() for name in ("a", "b/deeper")]
    assert models[0] == models[1]


def test_a_trained_model_is_reused_and_another_setting_is_not(
    text: Path, settings: TokenizerConfig, place: Path
) -> None:
    cache = place / "cache"
    first = get_tokenizer(settings, text, cache)
    written = first.path.stat().st_mtime_ns
    assert get_tokenizer(settings, text, cache).path.stat().st_mtime_ns == written
    other = get_tokenizer(dataclasses.replace(settings, vocab_size=150), text, cache)
    assert other.path != first.path
    assert other.fingerprint != first.fingerprint


def train(place: Path, name: str, **options: Any) -> Path:
    words = ["onetwothree", "wordsoftext", "numbersandletters", "abound"]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(words * 60), model_prefix=str(place / name), vocab_size=50, hard_vocab_limit=False,
        minloglevel=2, **options,
    )  # fmt: skip
    return place / f"{name}.model"


ALBERT = {"pad_id": 0, "pad_piece": "<pad>", "unk_id": 1, "bos_id": -1, "eos_id": -1}


LAYOUT = ALBERT | {"control_symbols": ["[CLS]", "[SEP]", "[MASK]"]}
UNMARKED = LAYOUT | {"model_type": "char", "add_dummy_prefix": False}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, ["tokenizer.model_path", "ids 0 to 4", "[MASK]"]),
        (UNMARKED, ["tokenizer.model_path", "word mark '▁'"]),
        (LAYOUT, ["tokenizer.vocab_size=200", "Set tokenizer.vocab_size="]),
    ],
    ids=["layout", "word mark", "size"],
)
def test_a_model_that_does_not_fit_is_refused(
    options: dict[str, Any], words: list[str], text: Path, settings: TokenizerConfig, tmp_path: Path
) -> None:
    model = train(tmp_path, "foreign", **options)
    chosen = dataclasses.replace(settings, model_path=str(model))
    with pytest.raises(DataError) as caught:
        get_tokenizer(chosen, text, tmp_path)
    assert all(word in str(caught.value) for word in words), caught.value


def test_an_impossible_vocabulary_is_refused(text: Path, settings: TokenizerConfig, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"tokenizer.vocab_size=200000 .*Set it to \d+ or less"):
        get_tokenizer(dataclasses.replace(settings, vocab_size=200_000), text, tmp_path)


def test_a_cache_that_came_without_its_text(
    settings: TokenizerConfig, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copied to a machine with another version of the library, it holds no tokenizer for that version."""
    cache = tmp_path / "cache"
    copied = Path(shutil.copytree(text, cache / "text" / text.name))
    kept = get_tokenizer(settings, copied, cache)
    for side in ("train", "valid"):
        (copied / f"{side}.txt").unlink()
    assert get_tokenizer(settings, copied, cache).path == kept.path, "for this version there is one"
    with pytest.raises(DataError, match=r"train\.txt is not there: the cache was copied without its text"):
        get_stores(copied, kept, cache)
    monkeypatch.setattr(sentencepiece, "__version__", "9.8.7")
    with pytest.raises(DataError) as caught:
        get_tokenizer(settings, copied, cache)
    said = str(caught.value)
    assert "trained on this text with these settings by sentencepiece 9.8.7, which is installed here" in said
    assert said.endswith(f"tokenizer.model_path={kept.path}.")
    given = dataclasses.replace(settings, model_path=str(kept.path))
    assert get_tokenizer(given, copied, cache).fingerprint == kept.fingerprint, "as the message says"
    with pytest.raises(DataError, match=f"remove {copied}"):
        get_tokenizer(dataclasses.replace(settings, vocab_size=150), copied, cache)
    assert trained_with(dataclasses.replace(settings, name="bpe")) == "sentencepiece 9.8.7"
