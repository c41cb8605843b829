"""BERT's tokenizer: a vocabulary of word pieces, through the tokenizers library.

Its five special pieces are moved to the ids that they have everywhere here, so an imported word
table has its rows in ``order``; all other pieces keep their order.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from albert_ablate.config import TokenizerConfig
from albert_ablate.data.tokenizer import UNK, Tokenizer, encoded_around
from albert_ablate.data.wikitext import UNKNOWN
from albert_ablate.data.words import rule_in_digest, word_piece_starts
from albert_ablate.errors import DataError
from albert_ablate.files import digest, sha256_file

#: Its file in a run folder.
VOCABULARY = "vocab.txt"
NAME = "wordpiece"
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
#: Longer words are unknown as a whole, as for BERT.
LONGEST_WORD = 100


class WordPiece(Tokenizer):
    """``vocab.txt`` with BERT's own cleaning; ``config`` asks callers for none of theirs."""

    kept_as = VOCABULARY

    def __init__(self, vocabulary: Path, config: TokenizerConfig) -> None:
        tokenizers = library()
        found = read_vocabulary(vocabulary)
        order = row_order(found, config.vocab_size, vocabulary)
        self.path = vocabulary
        self.config = replace(config, lowercase=False, strip_accents=False)  # its own cleaning does that
        self.vocab_size = config.vocab_size
        #: Pieces that the file has; an imported model may have more rows.
        self.named = len(found)
        pieces = dict(zip(found, np.argsort(order).tolist(), strict=False))  # of a piece that is there twice, the later
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
        """Ids of each sentence, without special tokens; ``wikitext.UNKNOWN`` in one is the unknown piece."""
        return encoded_around(
            UNKNOWN,
            UNK,
            sentences,
            lambda parts: [found.ids for found in self._model.encode_batch_fast(parts, add_special_tokens=False)],
        )

    def piece(self, number: int) -> str:
        """The piece with this id; empty for a row of an imported model that no piece belongs to."""
        return self._model.id_to_token(number) or ""

    def _continued(self, ids: list[int]) -> list[int]:
        """As it is: a word piece that opens a word carries no mark."""
        return ids

    def encode_with_offsets(self, cleaned: list[str], threads: int = -1) -> list[list[tuple[int, int, int]]]:
        """(id, begin, end) of each piece, in characters; the ids are those of ``encode``."""
        found = self._model.encode_batch(cleaned, add_special_tokens=False)
        return [[(i, *place) for i, place in zip(one.ids, one.offsets, strict=True)] for one in found]


def library() -> Any:
    """The package tokenizers. Raises DataError where it is not installed."""
    try:
        import tokenizers
        import tokenizers.models
    except ModuleNotFoundError as error:
        raise DataError(
            "tokenizer.name=wordpiece: word pieces need tokenizers. Run `pip install -e '.[huggingface]'`."
        ) from error
    return tokenizers


def pipeline(model: Any, config: TokenizerConfig) -> Any:
    """``model`` behind BERT's own cleaning and division into words."""
    from tokenizers import Tokenizer as Pipeline
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer

    whole: Any = Pipeline(model)
    whole.normalizer = BertNormalizer(lowercase=config.lowercase, strip_accents=config.strip_accents)
    whole.pre_tokenizer = BertPreTokenizer()
    return whole


def read_vocabulary(path: Path) -> list[str]:
    """One piece a line. Raises DataError where a special piece is missing."""
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
    """Raise DataError where a vocabulary that a new model is trained with has empty rows or a piece twice."""
    if not isinstance(tokenizer, WordPiece):
        return
    pieces = read_vocabulary(tokenizer.path)
    last = {piece: line for line, piece in enumerate(pieces, 1)}
    twice = next((piece for line, piece in enumerate(pieces, 1) if last[piece] != line), None)
    if twice is not None:
        raise DataError(
            f"tokenizer.model_path={tokenizer.path}, line {last[twice]}: {twice!r} stands there a second time. "
            "Each piece has one line."
        )
    if tokenizer.named < tokenizer.vocab_size:
        raise DataError(
            f"tokenizer.vocab_size={tokenizer.vocab_size}, but {tokenizer.path.name} has {tokenizer.named} pieces. "
            f"Set tokenizer.vocab_size={tokenizer.named}."
        )


def row_order(pieces: list[str], rows: int, path: Path) -> np.ndarray:
    """(rows,) ids of the vocabulary file in our order: the special pieces, then the rest. Raises DataError."""
    if rows < len(pieces):
        raise DataError(
            f"{path}: {len(pieces)} pieces, but the model has {rows} rows. Set tokenizer.vocab_size={len(pieces)}."
        )
    last = {piece: place for place, piece in enumerate(pieces)}  # as transformers reads one that is there twice
    first = [last[piece] for piece in SPECIALS]
    rest = np.setdiff1d(np.arange(rows), first)
    return np.concatenate([first, rest])
