"""The same sequences of a text for several models with different tokenizers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np

from albert_ablate.axes import IN_ORDER
from albert_ablate.config.schema import DataConfig, PairsConfig
from albert_ablate.data.corpora import open_corpus
from albert_ablate.data.segments import Pairs, build_pairs
from albert_ablate.data.store import TokenStore
from albert_ablate.data.text import divided, split_sentences, without_control
from albert_ablate.data.tokenizer import Tokenizer

_BLOCK = 20_000  # sentences that are encoded together
#: The seed that a run's held-out sequences are cut with, too; not a seed of a run.
_SEED = 0


def read_text(text: Path, data: DataConfig) -> list[list[str]]:
    """Documents of a file as lists of sentences, split as a run with these settings does. Raises DataError."""
    corpus = open_corpus(replace(data, source="files", path=str(text), validation_path=None))
    return [list(_sentences(document, corpus.one_sentence_per_line, data.language)) for document in corpus.documents()]


def _sentences(document: str, one_a_line: bool, language: str) -> Iterator[str]:
    cleaned, _ = without_control(document)
    for sentence in cleaned.splitlines() if one_a_line else split_sentences(cleaned, language):
        yield from filter(None, divided(sentence))


def stores_of(documents: Sequence[Sequence[str]], tokenizers: Mapping[str, Tokenizer]) -> dict[str, TokenStore]:
    """The text in the pieces of each tokenizer. A sentence without pieces in one of them is left out for all."""
    lengths = [len(document) for document in documents]
    sentences = list(chain.from_iterable(documents))
    encoded = {name: _encoded(tokenizer, sentences) for name, tokenizer in tokenizers.items()}
    kept = np.all([[len(ids) > 0 for ids in rows] for rows in encoded.values()], axis=0).astype(bool)
    inside = [int(part.sum()) for part in np.split(kept, np.cumsum(lengths)[:-1])]
    bounds = _offsets([count for count in inside if count])
    return {
        name: _store([ids for ids, keep in zip(rows, kept, strict=True) if keep], bounds)
        for name, rows in encoded.items()
    }


def _encoded(tokenizer: Tokenizer, sentences: Sequence[str]) -> list[list[int]]:
    blocks = (sentences[start : start + _BLOCK] for start in range(0, len(sentences), _BLOCK))
    return [ids for block in blocks for ids in tokenizer.encode(list(block))]


def _store(rows: Sequence[Sequence[int]], documents: np.ndarray) -> TokenStore:
    tokens = np.fromiter(chain.from_iterable(rows), dtype=np.int64)
    return TokenStore(tokens, _offsets([len(ids) for ids in rows]), documents, fingerprint="")


def _offsets(lengths: Sequence[int]) -> np.ndarray:
    return np.cumsum([0, *lengths]).astype(np.int64)


def same_pairs(stores: Mapping[str, TokenStore], settings: PairsConfig, sequences: int) -> dict[str, Pairs]:
    """The first ``sequences`` sequences of the text, the same in each store, of at most ``max_length`` pieces.

    For cutting, each sentence has the most pieces that any tokenizer gives it, so that sequences fit for all.
    A sequence that begins or ends within a sentence does so at the same share of its pieces in each store. With one
    tokenizer these are the sequences that the run itself is measured on.
    """
    sentences = np.max([np.diff(store.sentences) for store in stores.values()], axis=0)
    documents = next(iter(stores.values())).documents
    longest = TokenStore(np.zeros(sentences.sum(), np.int64), _offsets(sentences.tolist()), documents, fingerprint="")
    if not longest.document_count:
        return {}
    planned = build_pairs(longest, IN_ORDER, replace(settings, short_probability=0.0), _SEED, epoch=0)
    moved = {name: _moved(planned, longest, store) for name, store in stores.items()}
    whole = np.all([(p.a_length > 0) & ((p.b_length > 0) == (planned.b_length > 0)) for p in moved.values()], axis=0)
    rows = np.flatnonzero(whole)[:sequences]
    return {name: pairs.take(rows) for name, pairs in moved.items()}


def _moved(pairs: Pairs, longest: TokenStore, store: TokenStore) -> Pairs:
    """``pairs`` with offsets into ``store`` instead of ``longest``, which has the same sentences."""

    def span(start: np.ndarray, length: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        begin, end = (
            _moved_offsets(offsets, longest.sentences, store.sentences) for offsets in (start, start + length)
        )
        return begin, end - begin

    (a_start, a_length), (b_start, b_length) = span(pairs.a_start, pairs.a_length), span(pairs.b_start, pairs.b_length)
    return replace(pairs, a_start=a_start, a_length=a_length, b_start=b_start, b_length=b_length)


def _moved_offsets(offsets: np.ndarray, longest: np.ndarray, target: np.ndarray) -> np.ndarray:
    sentence = np.minimum(np.searchsorted(longest, offsets, side="right") - 1, len(longest) - 2)
    within, length = offsets - longest[sentence], longest[sentence + 1] - longest[sentence]
    return target[sentence] + within * (target[sentence + 1] - target[sentence]) // length
