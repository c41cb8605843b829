"""Pieces of one tokenizer that another one has too."""

import numpy as np

from albert_ablate.data.tokenizer import FIRST_PIECE, Tokenizer
from albert_ablate.data.written import written


def same_pieces(ours: Tokenizer, theirs: Tokenizer) -> np.ndarray:
    """(V,) the number that each of our pieces has in ``theirs``; -1 for a piece that is not there.

    A piece is the same if a text shows it alike, with the space before it if it opens a word: ``▁the`` of a
    SentencePiece model is ``the`` of a WordPiece vocabulary. The special pieces have fixed numbers. Of several pieces
    that are written alike the first counts.
    """
    known: dict[str, int] = {}
    for number in range(FIRST_PIECE, theirs.vocab_size):
        if theirs.piece(number):  # empty for a row of an imported model that no piece belongs to
            known.setdefault(written(theirs, number), number)
    numbers = [known.get(written(ours, n), -1) if ours.piece(n) else -1 for n in range(FIRST_PIECE, ours.vocab_size)]
    return np.array([*range(FIRST_PIECE), *numbers], dtype=np.int64)
