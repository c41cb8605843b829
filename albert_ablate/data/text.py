"""Sentences: documents split, de-duplicated and divided into training and held-out text.

The result is a cached folder in the reference's own form (one sentence a line, a blank line after
each document), so that any tokenizer can be trained on it without reading the corpus again.
"""

import hashlib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import sentencex

from albert_ablate.data.corpora import Corpus
from albert_ablate.errors import DataError
from albert_ablate.files import building, digest, read_json, write_json

#: Raise when the files' content changes for the same key.
TEXT_FORMAT = 1


def split_sentences(document: str, language: str) -> Iterator[str]:
    """Sentences of ``document`` in order; a paragraph's end always ends a sentence."""
    for paragraph in document.splitlines():
        if paragraph.strip():
            yield from (found for s in sentencex.segment(language, paragraph) if (found := " ".join(s.split())))


def prepare_text(corpus: Corpus, language: str, validation_fraction: float, cache: Path) -> Path:
    """Folder with ``train.txt``, ``valid.txt`` and ``info.json`` (with ``fingerprint``), built once.

    Held-out documents are the corpus's own validation part, or the share ``validation_fraction``
    of its documents, chosen by a hash of their text; an exact copy of an earlier document is left
    out, so none can stand on both sides. Raises DataError for an empty side.
    """
    settings = {
        "format": TEXT_FORMAT,
        "corpus": corpus.fingerprint,
        "splitter": "none" if corpus.one_sentence_per_line else f"sentencex {metadata.version('sentencex')}",
        "language": language,
        "validation_fraction": None if corpus.validation else validation_fraction,
    }
    fingerprint = digest(settings)
    folder = cache / "text" / f"{corpus.name}-{fingerprint}"
    if folder.is_dir():
        return folder
    with building(folder) as temporary:
        seen: set[bytes] = set()
        counts = {side: {"documents": 0, "sentences": 0, "words": 0} for side in ("train", "valid")}
        duplicates = 0
        with (temporary / "train.txt").open("w") as train, (temporary / "valid.txt").open("w") as valid:
            for side, document in _sided(corpus, validation_fraction):
                mark = hashlib.blake2b(document.encode(), digest_size=16).digest()
                lines = document.splitlines() if corpus.one_sentence_per_line else split_sentences(document, language)
                sentences = [line for line in lines if line.strip()]
                if not sentences:
                    continue
                if mark in seen:
                    duplicates += 1
                    continue
                seen.add(mark)
                (train if side == "train" else valid).write("\n".join(sentences) + "\n\n")
                counts[side]["documents"] += 1
                counts[side]["sentences"] += len(sentences)
                counts[side]["words"] += sum(len(sentence.split()) for sentence in sentences)
        _require_both(corpus, counts)
        info = {"fingerprint": fingerprint, "duplicates_dropped": duplicates, **counts, "settings": settings}
        write_json(temporary / "info.json", info | {"source": corpus.source})
    return folder


def _sided(corpus: Corpus, fraction: float) -> Iterator[tuple[str, str]]:
    """(side, document); held-out first, so that a copy in the training text is the one dropped."""
    if corpus.validation is not None:
        yield from (("valid", document) for document in corpus.validation())
        yield from (("train", document) for document in corpus.documents())
        return
    for document in corpus.documents():
        yield side_of(document, fraction), document


def side_of(document: str, validation_fraction: float) -> str:
    """``valid`` for the share of documents that is held out, else ``train``; decided by a hash of the text."""
    draw = int.from_bytes(hashlib.blake2b(document.encode(), digest_size=8).digest(), "little") / 2**64
    return "valid" if draw < validation_fraction else "train"


def _require_both(corpus: Corpus, counts: dict[str, dict[str, int]]) -> None:
    train, valid = counts["train"]["documents"], counts["valid"]["documents"]
    if train + valid == 0:
        raise DataError(f"data={corpus.name}: the corpus is empty: no document with a sentence was found.")
    if not train or not valid:
        raise DataError(
            f"data={corpus.name}: {train} training and {valid} held-out documents; both sides need at least one. "
            "Give data.validation_path, raise data.validation_fraction, or use a corpus with more documents "
            "(plain .txt: two blank lines separate documents)."
        )


def sentences_of(path: Path) -> Iterator[str]:
    """Every sentence of a prepared text file, without document boundaries."""
    with path.open(encoding="utf-8") as lines:
        yield from (line.rstrip("\n") for line in lines if line != "\n")


def text_info(folder: Path) -> dict[str, Any]:
    """What ``prepare_text`` counted."""
    return read_json(folder / "info.json")
