"""Vectors of words from a text file, and the nearest words by their cosine."""

from itertools import islice
from pathlib import Path

import numpy as np

from albert_ablate.errors import DataError
from albert_ablate.files import open_text

#: The setting that names the file.
FIELD = "task.augment.word_vectors"
#: Words that are read from the beginning of a file, as in TinyBERT's released code; files begin with frequent words.
_MOST = 100_000


class WordVectors:
    """The first 100,000 words of a file in GloVe's form: a word and its numbers on each line, divided by spaces."""

    def __init__(self, path: Path) -> None:
        """Raises DataError if the file is not there or a line has another form."""
        words, rows = _read(path)
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        self._directions = rows / np.where(norms > 0, norms, 1.0)  # (words, width) fp32
        self._words = words
        self._place = {word: place for place, word in reversed(list(enumerate(words)))}  # the first of equal words

    def nearest(self, word: str, most: int) -> list[str]:
        """The ``most`` other words with the greatest cosine, nearest first; none for a word without a vector."""
        place = self._place.get(word, self._place.get(word.lower()))
        if place is None:
            return []
        cosines = self._directions @ self._directions[place]
        cosines[place] = -np.inf
        count = min(most, len(cosines) - 1)
        return [self._words[other] for other in np.argsort(-cosines, kind="stable")[:count]]


def require_file(path: Path) -> None:
    """Raise DataError if there is no file of word vectors at ``path``."""
    if not path.is_file():
        raise DataError(f"{FIELD}={path}: no such file. Name a text file of word vectors, such as glove.6B.50d.txt.")


def _read(path: Path) -> tuple[list[str], np.ndarray]:
    require_file(path)
    words: list[str] = []
    rows: list[np.ndarray] = []
    width = 0
    with open_text(path) as lines:
        for number, line in enumerate(islice(lines, _MOST + 1), 1):
            parts = line.rstrip().split(" ")
            if number == 1 and len(parts) == 2 and all(part.isdigit() for part in parts):
                continue  # the header of word2vec's form: number of words and width
            width = width or len(parts) - 1
            if width < 2 or len(parts) <= width:
                raise _malformed(path, number, f"{len(parts) - 1} numbers, where {max(width, 2)} are expected")
            try:
                row = np.array(parts[-width:], np.float32)
            except ValueError:
                raise _malformed(path, number, "not a number in every place after the word") from None
            if not np.isfinite(row).all():
                raise _malformed(path, number, "a number that is not finite")
            words.append(" ".join(parts[:-width]))  # GloVe's largest file has words with spaces
            rows.append(row)
    if len(words) < 2:
        raise DataError(f"{FIELD}={path}: fewer than two words in it.")
    return words[:_MOST], np.stack(rows[:_MOST])


def _malformed(path: Path, line: int, what: str) -> DataError:
    return DataError(
        f"{FIELD}={path}, line {line}: {what}. Each line has a word and as many numbers as the first one, divided by "
        "single spaces."
    )
