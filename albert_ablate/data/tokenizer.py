"""The SentencePiece tokenizer: cleaning, encoding, word starts (reference tokenization)."""

import gc
import re
import sys
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import sentencepiece

from albert_ablate.config.schema import TokenizerConfig
from albert_ablate.data.sentencepiece_model import read_model, require_usable, unreadable
from albert_ablate.data.wikitext import UNKNOWN
from albert_ablate.data.words import rule_in_digest, word_starts
from albert_ablate.data.words import starts_word as starts_word
from albert_ablate.errors import DataError
from albert_ablate.files import digest, sha256_file
from albert_ablate.record.folder import TOKENIZER

PAD, UNK, CLS, SEP, MASK = range(5)
#: Ids below this are special: never masked, never drawn as random replacements.
FIRST_PIECE = 5
SPECIALS = ("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]")


def clean(text: str, lowercase: bool, strip_accents: bool) -> str:
    """Collapses white space, decomposes, drops combining marks, lower-cases; always applied before SentencePiece."""
    if "  " in text or not text.isprintable() or text != text.strip():  # else there is nothing to collapse
        text = " ".join(text.split())
    if strip_accents and not text.isascii():
        text = unicodedata.normalize("NFKD", text)
        if not combining_marks().isdisjoint(text):
            text = "".join(c for c in text if not unicodedata.combining(c))
    return text.lower() if lowercase else text


@cache
def combining_marks() -> frozenset[str]:
    """The characters that ``strip_accents`` drops."""
    return frozenset(c for c in map(chr, range(sys.maxunicode + 1)) if unicodedata.combining(c))


@contextmanager
def _no_collection() -> Iterator[None]:
    """Disables garbage collection, which otherwise scans a block's lists repeatedly: a third of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class Tokenizer:
    """A trained SentencePiece model with its cleaning rules."""

    #: Name of the file in a run folder.
    kept_as = TOKENIZER

    def __init__(self, model: Path, config: TokenizerConfig) -> None:
        self.config = config
        self.path = model
        try:
            self.pieces = sentencepiece.SentencePieceProcessor(model_file=str(model))
        except (OSError, RuntimeError) as error:
            raise unreadable(model, str(error)) from error
        require_usable(read_model(model), model, config.name)
        self.vocab_size: int = self.pieces.get_piece_size()
        specials = tuple(self.pieces.id_to_piece(i) for i in range(FIRST_PIECE))
        if specials != SPECIALS:
            raise DataError(
                f"tokenizer.model_path={model}: ids 0 to 4 are {list(specials)}, but {list(SPECIALS)} are needed. "
                "Use a model trained with ALBERT's layout, or leave tokenizer.model_path empty to train one."
            )
        vocabulary = [self.pieces.id_to_piece(i) for i in range(self.vocab_size)]
        if not any(piece.startswith("▁") for piece in vocabulary):
            raise DataError(f"tokenizer.model_path={model}: no piece carries the word mark '▁', so words are unknown.")
        #: (V,) bool: pieces that open a word.
        self.word_starts = word_starts(vocabulary, config.words)
        rule = rule_in_digest(self.word_starts, word_starts(vocabulary, "reference"))
        self.fingerprint = digest([sha256_file(model), _cleaning(config), *rule])
        self._digit_comma = {i for i, p in enumerate(vocabulary) if re.search(r"\d,$", p)}

    def encode(self, sentences: list[str], threads: int = -1) -> list[list[int]]:
        """Ids of each cleaned sentence, without special tokens; ``wikitext.UNKNOWN`` becomes the unknown piece."""
        return encoded_around(UNKNOWN, UNK, sentences, lambda parts: self._encode(parts, threads), self._continued)

    def _encode(self, sentences: list[str], threads: int) -> list[list[int]]:
        cleaned = [clean(s, self.config.lowercase, self.config.strip_accents) for s in sentences]
        with _no_collection():
            encoded: list[list[int]] = self.pieces.encode(cleaned, out_type=int, num_threads=threads)
        if self._digit_comma and self.config.split_digit_commas:
            for ids in encoded:
                if not self._digit_comma.isdisjoint(ids):
                    ids[:] = [new for old in ids for new in self._without_comma(old)]
        return encoded

    def encode_masked(self, texts: list[str]) -> list[list[int]]:
        """The same for texts in which ``[MASK]`` stands for the mask piece."""
        return encoded_around(SPECIALS[MASK], MASK, texts, self.encode, self._continued)

    def piece(self, number: int) -> str:
        """The piece with this id; ``▁`` opens a word, or ``##`` continues one."""
        return str(self.pieces.id_to_piece(number))

    def characters(self, number: int) -> tuple[bool, str]:
        """Whether the piece with this id carries the mark of a new word, and its characters without a mark."""
        piece = self.piece(number)
        return piece.startswith("▁"), piece.removeprefix("▁")

    def _continued(self, ids: list[int]) -> list[int]:
        """``ids`` of a text that continues a word: the first piece loses its word mark."""
        first = self.pieces.id_to_piece(ids[0])
        bare = self.pieces.piece_to_id(first.removeprefix("▁")) if len(first) > 1 else UNK
        if first == "▁":
            return ids[1:]
        return [bare, *ids[1:]] if first.startswith("▁") and bare != UNK else ids

    def encode_with_offsets(self, cleaned: list[str], threads: int = -1) -> list[list[tuple[int, int, int]]]:
        """(id, begin, end) of each piece, in characters of texts that are already cleaned.

        The ids are those of ``encode``. A piece that opens a word may begin at the space before it.
        """
        encodings = self.pieces.encode(cleaned, return_type="offset_mapping", num_threads=threads)
        rows = [
            [(i, *span) for i, span in zip(encoding["ids"], encoding["offsets"], strict=True)] for encoding in encodings
        ]
        if self._digit_comma and self.config.split_digit_commas:
            return [[new for old in row for new in self._divided(*old)] for row in rows]
        return rows

    def _divided(self, piece_id: int, begin: int, end: int) -> list[tuple[int, int, int]]:
        ids = self._without_comma(piece_id)
        if len(ids) == 1:
            return [(piece_id, begin, end)]
        ends = end - np.cumsum([0, *(len(self.pieces.id_to_piece(i).replace("▁", "")) for i in reversed(ids))])
        return [(i, int(a), int(b)) for i, a, b in zip(ids, ends[:0:-1], ends[-2::-1], strict=True)]

    def _without_comma(self, piece_id: int) -> list[int]:
        """A piece such as ``3,`` becomes the pieces of ``3`` and ``,`` (inherited from XLNet)."""
        if piece_id not in self._digit_comma:
            return [piece_id]
        piece = self.pieces.id_to_piece(piece_id)
        inner = self.pieces.encode(piece[:-1].replace("▁", ""), out_type=str)
        if not piece.startswith("▁") and inner and inner[0].startswith("▁"):
            inner = inner[1:] if inner[0] == "▁" else [inner[0][1:], *inner[1:]]
        return [self.pieces.piece_to_id(p) for p in [*inner, ","]]


def encoded_around(
    mark: str,
    piece: int,
    sentences: list[str],
    encode: Callable[[list[str]], list[list[int]]],
    continued: Callable[[list[int]], list[int]] = list,
) -> list[list[int]]:
    """``encode`` of every sentence, with the id ``piece`` for each ``mark`` in it.

    ``continued`` converts the ids of a part that follows a mark without a space.
    """
    if not any(mark in sentence for sentence in sentences):
        return encode(sentences)
    parts = [sentence.split(mark) for sentence in sentences]
    encoded = iter(encode([part for row in parts for part in row]))
    rows: list[list[int]] = []
    for row in parts:
        ids = list(next(encoded))
        for part in row[1:]:
            more = next(encoded)
            ids += [piece, *(continued(more) if more and not part[:1].isspace() else more)]
        rows.append(ids)
    return rows


def _cleaning(config: TokenizerConfig) -> list[bool]:
    return [config.lowercase, config.strip_accents, config.split_digit_commas]
