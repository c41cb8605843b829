"""The token store: a corpus as one memory-mapped array with sentence and document boundaries."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, pairwise
from mmap import mmap
from pathlib import Path
from typing import Any

import numpy as np

from albert_ablate import streams
from albert_ablate.data.text import intact, side_of_text, text_info
from albert_ablate.data.tokenizer import UNK, Tokenizer
from albert_ablate.errors import DataError
from albert_ablate.files import building, digest, read_json, write_json

#: Raise when the files' content changes for the same key.
STORE_FORMAT = 1
SIDES = ("train", "valid")
_COUNTED = 10_000_000
_SENTENCES_PER_BLOCK = 50_000
_CHARACTERS_PER_BLOCK = 8_000_000  # limits blocks of long sentences


@dataclass(frozen=True)
class TokenStore:
    """All sentences of one side of a corpus.

    Sentence ``s`` is ``tokens[sentences[s]:sentences[s + 1]]``; document ``d`` is the sentences
    ``documents[d]`` up to ``documents[d + 1]``. No sentence and no document is empty.
    """

    tokens: np.ndarray  # (tokens,) uint16 or uint32; all three are memory-mapped
    sentences: np.ndarray  # (sentences + 1,) int64 token offsets
    documents: np.ndarray  # (documents + 1,) int64 sentence offsets
    fingerprint: str

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process opens the files instead of being sent what is in them."""
        return _unpacked, (*map(_packed, (self.tokens, self.sentences, self.documents)), self.fingerprint)

    @property
    def document_count(self) -> int:
        """Number of documents."""
        return len(self.documents) - 1

    def unknown_share(self) -> float:
        """Share of the unknown piece among the first ten million tokens."""
        return float(np.mean(self.tokens[:_COUNTED] == UNK))

    def document_marks(self) -> Iterator[str]:
        """A digest of the tokens of each document."""
        for start, end in pairwise(self.sentences[self.documents].tolist()):
            yield hashlib.blake2b(self.tokens[start:end].astype(np.uint32).tobytes(), digest_size=16).hexdigest()

    def part(self, fraction: float) -> "TokenStore":
        """The share ``fraction`` of the documents, the same for every seed; smaller shares are subsets of larger ones.

        Only training documents are left out: tokenizer and held-out documents are those of the whole corpus.
        """
        if fraction == 1 or not self.document_count:
            return self
        draws = streams.uniform(streams.key(0, "part of a corpus"), np.arange(self.document_count))
        count = max(1, round(fraction * self.document_count))
        chosen = np.sort(np.argsort(draws)[:count])
        spans = [slice(*self.documents[d : d + 2]) for d in chosen]
        lengths = [np.diff(self.sentences[s.start : s.stop + 1]) for s in spans]
        tokens = [self.tokens[self.sentences[s.start] : self.sentences[s.stop]] for s in spans]
        return TokenStore(
            tokens=np.concatenate(tokens),
            sentences=offsets(np.concatenate(lengths)),
            documents=offsets(np.array([len(part) for part in lengths])),
            fingerprint=digest([self.fingerprint, fraction]),
        )


def _packed(values: np.ndarray) -> np.ndarray | Path:
    """The ``.npy`` file that ``values`` are the whole of, mapped; else ``values``."""
    if isinstance(values, np.memmap) and values.filename is not None and isinstance(values.base, mmap):
        return Path(values.filename)
    return values


def _unpacked(*parts: Any) -> TokenStore:
    return TokenStore(*(np.load(part, mmap_mode="r") if isinstance(part, Path) else part for part in parts))


def get_stores(text: Path, tokenizer: Tokenizer, cache: Path) -> tuple[TokenStore, TokenStore]:
    """(training, held-out) stores of a prepared text, built once per text and tokenizer."""
    fingerprint, folder = _location(text, tokenizer, cache)
    if not folder.is_dir():
        with building(folder) as temporary:
            for side in SIDES:
                write_side(side_of_text(text, side), tokenizer, temporary / side)
            write_json(temporary / "info.json", {"fingerprint": fingerprint, "text": text.name})
    return open_side(folder, "train"), open_side(folder, "valid")


def find_train(text: Path, tokenizer: Tokenizer, cache: Path) -> TokenStore | None:
    """The training store of a prepared text if it is already built, else None. Raises DataError if it is damaged."""
    _, folder = _location(text, tokenizer, cache)
    return open_side(folder, "train") if folder.is_dir() else None


def store_fingerprint(text: str, tokenizer: str) -> str:
    """Fingerprint of the tokens, from the fingerprints of their text and tokenizer."""
    return digest([STORE_FORMAT, text, tokenizer])


def _location(text: Path, tokenizer: Tokenizer, cache: Path) -> tuple[str, Path]:
    """(fingerprint, folder) of the token store."""
    fingerprint = store_fingerprint(text_info(text)["fingerprint"], tokenizer.fingerprint)
    return fingerprint, cache / "tokens" / f"{text.name.rsplit('-', 1)[0]}-{fingerprint}"


def find_training(cache: Path, fingerprint: str, fraction: float) -> TokenStore | None:
    """The training tokens with the recorded ``fingerprint`` if the cache has them, else None.

    ``fraction``: the share of the documents that the run trained on.
    """
    for info in sorted((cache / "tokens").glob("[!.]*/info.json")):
        try:
            with intact(info.parent):
                whole = read_json(info)["fingerprint"]
        except DataError:  # damaged; reported when the folder is needed
            continue
        if fingerprint == (whole if fraction == 1 else digest([whole, fraction])):
            return open_side(info.parent, "train").part(fraction)
    return None


def open_side(folder: Path, side: str) -> TokenStore:
    """One of ``SIDES`` of a folder of tokens, memory-mapped. Raises DataError if the folder is damaged."""
    with intact(folder):  # np.load runs no pickled code: allow_pickle is off
        store = TokenStore(
            tokens=np.load(folder / side / "tokens.npy", mmap_mode="r"),
            sentences=np.load(folder / side / "sentences.npy", mmap_mode="r"),
            documents=np.load(folder / side / "documents.npy", mmap_mode="r"),
            fingerprint=read_json(folder / "info.json")["fingerprint"],
        )
        if store.sentences[-1] != len(store.tokens) or store.documents[-1] != len(store.sentences) - 1:
            raise ValueError("the boundaries do not fit the tokens")
        return store


def write_side(source: Path, tokenizer: Tokenizer, folder: Path) -> None:
    """Encodes one side of a text block by block; memory holds one block of tokens and the offsets."""
    folder.mkdir()
    kind = np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32
    lengths: list[np.ndarray] = []
    sentences_in: list[int] = []  # non-empty sentences of each document
    raw = folder / "tokens.raw"
    open_document = 0
    with source.open(encoding="utf-8") as lines, raw.open("wb") as out:
        for block in _blocks(lines):
            encoded = tokenizer.encode([line for line in block if line])
            counts = np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded))
            lengths.append(counts[counts > 0])
            np.fromiter(chain.from_iterable(encoded), dtype=kind, count=int(counts.sum())).tofile(out)
            token_counts = iter(counts.tolist())
            for line in block:
                if line:
                    open_document += next(token_counts) > 0
                elif open_document:
                    sentences_in.append(open_document)
                    open_document = 0
    if open_document:
        sentences_in.append(open_document)
    count = raw.stat().st_size // np.dtype(kind).itemsize
    tokens = np.lib.format.open_memmap(folder / "tokens.npy", mode="w+", dtype=kind, shape=(count,))
    if count:
        tokens[:] = np.memmap(raw, dtype=kind, mode="r")
    tokens.flush()
    raw.unlink()
    np.save(folder / "sentences.npy", offsets(np.concatenate([np.zeros(0, np.int64), *lengths])))
    np.save(folder / "documents.npy", offsets(np.asarray(sentences_in, dtype=np.int64)))


def offsets(lengths: np.ndarray) -> np.ndarray:
    """(n,) lengths -> (n + 1,) int64: the start of each part, and the end of the last."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _blocks(lines: Iterator[str]) -> Iterator[list[str]]:
    block: list[str] = []
    size = 0
    for line in lines:
        block.append(line.rstrip("\n"))
        size += len(line)
        if len(block) == _SENTENCES_PER_BLOCK or size >= _CHARACTERS_PER_BLOCK:
            yield block
            block, size = [], 0
    if block:
        yield block
