"""The token store against sentence-by-sentence encoding."""

from pathlib import Path

import numpy as np
import pytest
from runhelpers import tiny_overrides, write_corpus

from albert_ablate.data import store as store_module
from albert_ablate.data.corpora import open_corpus
from albert_ablate.data.store import get_stores
from albert_ablate.data.text import prepare_text
from albert_ablate.data.tokenizer import Tokenizer
from albert_ablate.data.vocabulary import get_tokenizer
from albert_ablate.door.compose import compose


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tokenizer]:
    place = tmp_path_factory.mktemp("store")
    corpus = write_corpus(place / "corpus.txt")
    # Sentences of combining marks alone are cleaned to nothing; so is one whole document.
    corpus.write_text("\u0301.\n\n".replace(".", "") + corpus.read_text() + "\nAn end.\n\u0301\u0302\nAnd more.\n")
    config = compose(tiny_overrides(place, corpus=corpus))
    text = prepare_text(open_corpus(config.data), "en", 0.2, place / "cache")
    return text, get_tokenizer(config.tokenizer, text, place / "cache")


def expected(text: Path, tokenizer: Tokenizer, side: str) -> list[list[list[int]]]:
    documents = [d.split("\n") for d in (text / f"{side}.txt").read_text().split("\n\n") if d]
    encoded = [[ids for s in d if (ids := tokenizer.encode([s])[0])] for d in documents]
    return [d for d in encoded if d]


@pytest.mark.parametrize("block", [50_000, 7, 1])
def test_tokens_and_boundaries(
    block: int, prepared: tuple[Path, Tokenizer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, tokenizer = prepared
    monkeypatch.setattr(store_module, "_SENTENCES_PER_BLOCK", block)
    for side, store in zip(("train", "valid"), get_stores(text, tokenizer, tmp_path), strict=True):
        found = [
            [store.tokens[store.sentences[s] : store.sentences[s + 1]].tolist() for s in range(first, last)]
            for first, last in zip(store.documents[:-1], store.documents[1:], strict=True)
        ]
        assert found == expected(text, tokenizer, side)
        assert (np.diff(store.sentences) > 0).all()
        assert (np.diff(store.documents) > 0).all()
        assert store.tokens.dtype == np.uint16
        assert isinstance(store.tokens, np.memmap)


def test_a_large_vocabulary_takes_four_bytes(
    prepared: tuple[Path, Tokenizer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, tokenizer = prepared
    plain, _ = get_stores(text, tokenizer, tmp_path / "a")
    monkeypatch.setattr(tokenizer, "vocab_size", 2**16 + 1)
    wide, _ = get_stores(text, tokenizer, tmp_path / "b")
    assert wide.tokens.dtype == np.uint32
    np.testing.assert_array_equal(wide.tokens, plain.tokens)


def test_a_store_is_built_once_for_a_text_and_a_tokenizer(
    prepared: tuple[Path, Tokenizer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, tokenizer = prepared
    first, _ = get_stores(text, tokenizer, tmp_path)
    written = [p.stat().st_mtime_ns for p in sorted(tmp_path.rglob("*.npy"))]
    again, _ = get_stores(text, tokenizer, tmp_path)
    assert [p.stat().st_mtime_ns for p in sorted(tmp_path.rglob("*.npy"))] == written
    assert again.fingerprint == first.fingerprint
    monkeypatch.setattr(tokenizer, "fingerprint", "another")
    other, _ = get_stores(text, tokenizer, tmp_path)
    assert other.fingerprint != first.fingerprint
    assert len(list((tmp_path / "tokens").iterdir())) == 2


def test_a_build_that_fails_leaves_nothing(
    prepared: tuple[Path, Tokenizer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, tokenizer = prepared

    def fail(_: list[str]) -> None:
        raise RuntimeError("no more space")

    monkeypatch.setattr(tokenizer, "encode", fail)
    with pytest.raises(RuntimeError):
        get_stores(text, tokenizer, tmp_path)
    assert list((tmp_path / "tokens").iterdir()) == []
