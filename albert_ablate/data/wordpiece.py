"""BERT's tokenizer: a vocabulary of word pieces, through the tokenizers library.

Its five special pieces are moved to the ids that they have everywhere here, so an imported word
table has its rows in ``order``; all other pieces keep their order.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from albert_ablate.config import TokenizerConfig
from albert_ablate.data.tokenizer import Tokenizer
from albert_ablate.errors import DataError
from albert_ablate.files import digest, sha256_file

#: Its file in a run folder.
VOCABULARY = "vocab.txt"
NAME = "wordpiece"
_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class WordPiece(Tokenizer):
    """``vocab.txt`` with BERT's own cleaning; ``config`` asks callers for none of theirs."""

    def __init__(self, vocabulary: Path, config: TokenizerConfig) -> None:
        try:
            import tokenizers
            from tokenizers.models import WordPiece as Pieces
            from tokenizers.normalizers import BertNormalizer
            from tokenizers.pre_tokenizers import BertPreTokenizer
        except ModuleNotFoundError as error:
            raise DataError(
                f"{vocabulary}: word pieces need tokenizers. Run `pip install -e '.[huggingface]'`."
            ) from error
        found = read_vocabulary(vocabulary)
        order = row_order(found, config.vocab_size, vocabulary)
        self.path = vocabulary
        self.fingerprint = digest([sha256_file(vocabulary), config.lowercase, config.strip_accents, config.vocab_size])
        self.config = replace(config, lowercase=False, strip_accents=False)  # its own cleaning does that
        self.vocab_size = config.vocab_size
        pieces = {found[old]: new for new, old in enumerate(order.tolist()) if old < len(found)}
        model: Any = tokenizers.Tokenizer(Pieces(vocab=pieces, unk_token=_SPECIALS[1], max_input_chars_per_word=100))
        model.normalizer = BertNormalizer(lowercase=config.lowercase, strip_accents=config.strip_accents)
        model.pre_tokenizer = BertPreTokenizer()
        self._model = model
        #: (V,) bool: pieces that open a word; rows without a piece count as words.
        self.word_starts = np.ones(config.vocab_size, dtype=bool)
        self.word_starts[[new for piece, new in pieces.items() if piece.startswith("##")]] = False

    def encode(self, sentences: list[str], threads: int = -1) -> list[list[int]]:
        """Ids of each sentence, without special tokens."""
        return [found.ids for found in self._model.encode_batch_fast(sentences, add_special_tokens=False)]

    def encode_with_offsets(self, cleaned: list[str], threads: int = -1) -> list[list[tuple[int, int, int]]]:
        """(id, begin, end) of each piece, in characters; the ids are those of ``encode``."""
        found = self._model.encode_batch(cleaned, add_special_tokens=False)
        return [[(i, *place) for i, place in zip(one.ids, one.offsets, strict=True)] for one in found]


def read_vocabulary(path: Path) -> list[str]:
    """One piece a line. Raises DataError where a special piece is missing."""
    try:
        pieces = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a readable vocabulary ({type(error).__name__}).") from error
    pieces = pieces[:-1] if pieces and not pieces[-1] else pieces
    missing = [piece for piece in _SPECIALS if piece not in pieces]
    if missing:
        raise DataError(f"{path}: no {', '.join(missing)} in it; a WordPiece vocabulary of BERT has all five.")
    return [piece.rstrip("\r") for piece in pieces]


def row_order(pieces: list[str], rows: int, path: Path) -> np.ndarray:
    """(rows,) ids of the vocabulary file in our order: the special pieces, then the rest. Raises DataError."""
    if rows < len(pieces):
        raise DataError(f"{path}: {len(pieces)} pieces, but the model has {rows} rows.")
    first = [pieces.index(piece) for piece in _SPECIALS]
    rest = np.setdiff1d(np.arange(rows), first)
    return np.concatenate([first, rest])
