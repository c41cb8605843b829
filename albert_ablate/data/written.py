"""Pieces as they are written in a text, and how many bytes documents have."""

from pathlib import Path

import numpy as np

from albert_ablate.data.store import TokenStore
from albert_ablate.data.tokenizer import FIRST_PIECE, Tokenizer
from albert_ablate.data.wordpiece import NAME as WORDPIECE

#: What the bytes were counted in.
TEXT, DECODED = "text", "decoded tokens"


def document_bytes(text: Path | None, store: TokenStore, tokenizer: Tokenizer) -> tuple[np.ndarray, str]:
    """(D,) bytes of each document of ``store``, and ``TEXT`` or ``DECODED``.

    A document has the bytes of its sentences in UTF-8, before any cleaning, and one more for the space or the
    separator after each. ``text``: the file of the side that ``store`` holds. Without it, or if a document in it has no
    token, the bytes are those of the pieces, with the space that opens a word; the unknown piece counts one.
    """
    if text is not None:
        counted = _bytes_of_text(text)
        if len(counted) == store.document_count:
            return counted, TEXT
    sums = np.concatenate([[0], np.cumsum(_bytes_of_pieces(tokenizer)[store.tokens])])
    return np.diff(sums[store.sentences[store.documents]]), DECODED


def _bytes_of_text(file: Path) -> np.ndarray:
    """Bytes of each document of a file with a sentence a line and a blank line after each document."""
    counted, open_document = [], 0
    with file.open("rb") as lines:
        for line in lines:
            content = line.rstrip(b"\n")
            if content:
                open_document += len(content) + 1
            elif open_document:
                counted.append(open_document)
                open_document = 0
    return np.array([*counted, *([open_document] if open_document else [])], dtype=np.int64)


def _bytes_of_pieces(tokenizer: Tokenizer) -> np.ndarray:
    """(V,) bytes of each piece in a text."""
    sizes = np.array([len(written(tokenizer, n).encode()) for n in range(tokenizer.vocab_size)], dtype=np.int64)
    sizes[:FIRST_PIECE] = 1
    return sizes


def written(tokenizer: Tokenizer, number: int) -> str:
    """The piece with the id ``number`` as a text shows it, with the space before it if it opens a word."""
    piece = tokenizer.piece(number)
    if tokenizer.config.name != WORDPIECE:
        return piece.replace("▁", " ")
    return piece.removeprefix("##") if piece.startswith("##") else f" {piece}"
