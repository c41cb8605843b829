"""BERT's tokenizer: a WordPiece vocabulary, encoded by the tokenizers library.

The five special pieces move to the project's fixed ids 0 to 4; all other pieces keep their order. The rows of
an imported word table are permuted in the same way (``row_order``).
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from albert_ablate.config.schema import TokenizerConfig
from albert_ablate.data.tokenizer import UNK, Tokenizer, encoded_around
from albert_ablate.data.wikitext import UNKNOWN
from albert_ablate.data.words import rule_in_digest, word_piece_starts
from albert_ablate.errors import DataError
from albert_ablate.files import digest, sha256_file
from albert_ablate.shipped import install_command

#: File of the vocabulary in a run folder.
VOCABULARY = "vocab.txt"
NAME = "wordpiece"
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
#: Longer words, in characters, become one unknown piece, as in BERT.
LONGEST_WORD = 100


class WordPiece(Tokenizer):
    """The tokenizer of a ``vocab.txt``, with BERT's own cleaning; ``config`` tells callers not to clean."""

    kept_as = VOCABULARY

    def __init__(self, vocabulary: Path, config: TokenizerConfig) -> None:
        tokenizers = library()
        listed = read_vocabulary(vocabulary)
        order = row_order(listed, config.vocab_size, vocabulary)
        self.path = vocabulary
        self.config = replace(config, lowercase=False, strip_accents=False)  # its own cleaning does that
        self.vocab_size = config.vocab_size
        #: Number of pieces in the file; an imported model may have more rows.
        self.named = len(listed)
        pieces = dict(zip(listed, np.argsort(order).tolist(), strict=False))  # a repeated piece keeps its last row
        model = tokenizers.models.WordPiece(vocab=pieces, unk_token=SPECIALS[1], max_input_chars_per_word=LONGEST_WORD)
        self._model: Any = pipeline(model, config)
        vocabulary_in_order = [""] * config.vocab_size  # rows without a piece count as words
        for piece, new in pieces.items():
            vocabulary_in_order[new] = piece
        #: (V,) bool: pieces that open a word.
        self.word_starts = word_piece_starts(vocabulary_in_order, config.words)
        rule = rule_in_digest(self.word_starts, word_piece_starts(vocabulary_in_order, "reference"))
        parts = [sha256_file(vocabulary), config.lowercase, config.strip_accents, config.vocab_size]
        self.fingerprint = digest([*parts, *rule])

    def encode(self, sentences: list[str], threads: int = -1) -> list[list[int]]:
        """Ids of each sentence, without special tokens; ``wikitext.UNKNOWN`` becomes the unknown piece."""
        return encoded_around(
            UNKNOWN,
            UNK,
            sentences,
            lambda parts: [coded.ids for coded in self._model.encode_batch_fast(parts, add_special_tokens=False)],
        )

    def piece(self, number: int) -> str:
        """The piece with this id; empty for a row of an imported model that no piece belongs to."""
        return self._model.id_to_token(number) or ""

    def characters(self, number: int) -> tuple[bool, str]:
        """Whether the piece with this id opens a word, and its characters without the mark of those that do not."""
        piece = self.piece(number)
        return not piece.startswith("##"), piece.removeprefix("##")

    def _continued(self, ids: list[int]) -> list[int]:
        """As it is: a word piece that opens a word carries no mark."""
        return ids

    def encode_with_offsets(self, cleaned: list[str], threads: int = -1) -> list[list[tuple[int, int, int]]]:
        """(id, begin, end) of each piece, in characters; the ids are those of ``encode``."""
        encodings = self._model.encode_batch(cleaned, add_special_tokens=False)
        return [[(i, *span) for i, span in zip(coded.ids, coded.offsets, strict=True)] for coded in encodings]


def library() -> Any:
    """The package tokenizers. Raises DataError if it is not installed."""
    try:
        import tokenizers
        import tokenizers.models
    except ModuleNotFoundError as error:
        raise DataError(
            f"tokenizer.name=wordpiece: word pieces need tokenizers. Run `{install_command('huggingface')}`."
        ) from error
    return tokenizers


def pipeline(model: Any, config: TokenizerConfig) -> Any:
    """A pipeline of BERT's cleaning, BERT's division into words, and ``model``."""
    from tokenizers import Tokenizer as Pipeline
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer

    whole: Any = Pipeline(model)
    whole.normalizer = BertNormalizer(lowercase=config.lowercase, strip_accents=config.strip_accents)
    whole.pre_tokenizer = BertPreTokenizer()
    return whole


def read_vocabulary(path: Path) -> list[str]:
    """The pieces of a vocabulary file, one per line. Raises DataError if it is unreadable or lacks a special piece."""
    try:
        pieces = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: not a readable vocabulary of word pieces ({type(error).__name__}). One piece a line is expected, "
            "in UTF-8; a SentencePiece model needs tokenizer=unigram or tokenizer=bpe."
        ) from error
    pieces = pieces[:-1] if pieces and not pieces[-1] else pieces
    missing = [piece for piece in SPECIALS if piece not in pieces]
    if missing:
        raise DataError(f"{path}: no {', '.join(missing)} in it; a WordPiece vocabulary of BERT has all five.")
    return pieces


def require_whole(tokenizer: Tokenizer) -> None:
    """Raise DataError if a WordPiece vocabulary for a new model has empty rows or a repeated piece."""
    if not isinstance(tokenizer, WordPiece):
        return
    pieces = read_vocabulary(tokenizer.path)
    last = {piece: line for line, piece in enumerate(pieces, 1)}
    twice = next((piece for line, piece in enumerate(pieces, 1) if last[piece] != line), None)
    if twice is not None:
        raise DataError(
            f"tokenizer.model_path={tokenizer.path}, line {last[twice]}: {twice!r} occurs a second time. "
            "Each piece has one line."
        )
    if tokenizer.named < tokenizer.vocab_size:
        raise DataError(
            f"tokenizer.vocab_size={tokenizer.vocab_size}, but {tokenizer.path.name} has {tokenizer.named} pieces. "
            f"Set tokenizer.vocab_size={tokenizer.named}."
        )


def row_order(pieces: list[str], rows: int, path: Path) -> np.ndarray:
    """(rows,) the file's ids in the project's order: the special pieces, then the rest.

    Raises DataError if the file has more pieces than ``rows``.
    """
    if rows < len(pieces):
        raise DataError(
            f"{path}: {len(pieces)} pieces, but the model has {rows} rows. Set tokenizer.vocab_size={len(pieces)}."
        )
    last = {piece: index for index, piece in enumerate(pieces)}  # transformers, too, uses the last of repeated pieces
    first = [last[piece] for piece in SPECIALS]
    rest = np.setdiff1d(np.arange(rows), first)
    return np.concatenate([first, rest])
