"""Splits documents into sentences, removes duplicates, and divides them into training and held-out text.

The result is a cached folder in the reference's format (one sentence per line, a blank line after
each document), so that any tokenizer can be trained on it without reading the corpus again.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from albert_ablate import console
from albert_ablate.data.corpora import Corpus
from albert_ablate.data.readings import describe_reading, describe_unknown, doubts, read_as
from albert_ablate.data.splitting import split_sentences as split_sentences
from albert_ablate.errors import DataError
from albert_ablate.files import building, digest, read_json, write_json
from albert_ablate.languages import borrowed_rules

#: Raise when the files' content changes for the same key.
TEXT_FORMAT = 1
#: Raise when rules of reading or of leaving out change: cached texts are then read again. A text that does not change
#: keeps its fingerprint, and its runs keep their identity.
_READING_RULES = 2
#: Characters of the longest sentence: in UTF-8 it stays below the limit of SentencePiece's trainer.
LONGEST = 4096
#: NUL and other control characters that are not white space, and lone surrogates.
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1b\x7f\ud800-\udfff]")
#: Rules of reading added later: texts that they changed have another fingerprint.
_CHANGES = ("joined_without_space", "mended")
_LEFT_OUT = {
    "documents_without_text": "documents without a text",
    "control_characters": "control characters",
    "sentences_divided": f"sentences of more than {LONGEST:,} characters, divided",
}


def without_control(document: str) -> tuple[str, int]:
    """(``document`` without NUL, control characters and lone surrogates; how many were removed)."""
    return _CONTROL.subn("", document)


def divided(sentence: str) -> Iterator[str]:
    """``sentence`` in parts of at most LONGEST characters, divided at a space where possible."""
    start = 0
    while len(sentence) - start > LONGEST:
        space = sentence.rfind(" ", start, start + LONGEST + 1)
        end = space if space > start else start + LONGEST
        yield sentence[start:end].strip()
        start = end
    yield sentence[start:].strip()


def prepare_text(corpus: Corpus, language: str, validation_fraction: float, cache: Path, trains: bool = True) -> Path:
    """Folder with ``train.txt``, ``valid.txt`` and ``info.json`` (with ``fingerprint``), built once.

    Held-out documents are the corpus's validation part, or the share ``validation_fraction`` of its
    documents, chosen by a hash of their text. Exact copies of an earlier document are dropped, so that
    no document is on both sides. How files were read, and what was left out or divided, is counted,
    shown and recorded. Raises DataError for an empty side; the training side of a text that is only
    scored (not ``trains``) may be empty.
    """
    settings = _settings(corpus, language, validation_fraction)
    folder = text_folder(corpus, language, validation_fraction, cache)
    if not folder.is_dir():
        with building(folder) as temporary:
            corpus.tally.clear()
            counts, left_out = _write_sides(corpus, language, validation_fraction, temporary)
            _require_both(corpus, counts, trains)
            duplicates = left_out.pop("duplicates", 0)
            changed = {key: corpus.tally[key] for key in _CHANGES if corpus.tally[key]}
            extra = ({"left_out": left_out} if left_out else {}) | ({"reading": changed} if changed else {})
            source = corpus.source | read_as(corpus) | ({"left_out": dict(left_out)} if left_out else {})
            write_json(
                temporary / "info.json",
                {"fingerprint": digest(settings | extra), "duplicates_dropped": duplicates, **counts,
                 "settings": settings, "source": source, "met": dict(corpus.tally)},
            )  # fmt: skip
    info = text_info(folder)
    _require_both(corpus, info, trains)
    _say_reading(corpus, language, info)
    _say_left_out(corpus.name, info)
    return folder


def text_folder(corpus: Corpus, language: str, validation_fraction: float, cache: Path) -> Path:
    """The folder in which ``prepare_text`` keeps its result; it may not exist yet."""
    key = digest([_settings(corpus, language, validation_fraction), _READING_RULES])
    return cache / "text" / f"{corpus.name}-{key}"


def _settings(corpus: Corpus, language: str, validation_fraction: float) -> dict[str, Any]:
    """All settings that decide the text."""
    return {
        "format": TEXT_FORMAT,
        "corpus": corpus.fingerprint,
        "splitter": "none" if corpus.one_sentence_per_line else f"sentencex {metadata.version('sentencex')}",
        "language": language,
        "validation_fraction": None if corpus.validation else validation_fraction,
    } | corpus.reading


def _write_sides(
    corpus: Corpus, language: str, fraction: float, folder: Path
) -> tuple[dict[str, dict[str, int]], Counter[str]]:
    """Writes both sides. Returns the counts of each side, and the counts of what was left out."""
    seen: set[bytes] = set()
    left_out: Counter[str] = Counter()
    counts = {side: {"documents": 0, "sentences": 0, "words": 0} for side in ("train", "valid")}
    with (
        (folder / "train.txt").open("w", encoding="utf-8") as train,
        (folder / "valid.txt").open("w", encoding="utf-8") as valid,
    ):
        for side, document in _sided(corpus, fraction, left_out):
            mark = hashlib.blake2b(document.encode(), digest_size=16).digest()
            lines = (
                document.splitlines()
                if corpus.one_sentence_per_line
                else split_sentences(document, language, corpus.tally)
            )
            sentences = list(_of_fair_length(lines, left_out))
            if not sentences:
                left_out["documents_without_text"] += 1
                continue
            if mark in seen:
                left_out["duplicates"] += 1
                continue
            seen.add(mark)
            (train if side == "train" else valid).write("\n".join(sentences) + "\n\n")
            counts[side]["documents"] += 1
            counts[side]["sentences"] += len(sentences)
            counts[side]["words"] += sum(len(sentence.split()) for sentence in sentences)
            corpus.tally["characters"] += sum(map(len, sentences))
    return counts, left_out


def _of_fair_length(lines: Iterable[str], left_out: Counter[str]) -> Iterator[str]:
    for line in lines:
        if len(line) > LONGEST:
            left_out["sentences_divided"] += 1
            yield from filter(None, divided(line))
        elif line.strip():
            yield line


def _sided(corpus: Corpus, fraction: float, left_out: Counter[str]) -> Iterator[tuple[str, str]]:
    """(side, document); held-out first, so that of two copies the one in the training text is dropped."""

    def cleaned(documents: Iterator[str]) -> Iterator[str]:
        for document in documents:
            text, dropped = without_control(document)
            if dropped:
                left_out["control_characters"] += dropped
            yield text

    if corpus.validation is not None:
        yield from (("valid", document) for document in cleaned(corpus.validation()))
        yield from (("train", document) for document in cleaned(corpus.documents()))
        return
    for document in cleaned(corpus.documents()):
        yield side_of(document, fraction), document


def _say_reading(corpus: Corpus, language: str, info: dict[str, Any]) -> None:
    """Shows the forms of the files, whose rules split sentences, and doubts about the result."""
    if reading := describe_reading(info["source"]):
        console.say(f"data {corpus.name}: {reading}")
    if unknown := describe_unknown(info):
        console.say(f"data {corpus.name}: {unknown}")
    if corpus.splits and (rules := borrowed_rules(language)):
        console.say(f"data {corpus.name}: {rules}")
    for doubt in doubts(info):
        console.say(f"data {corpus.name}: ! {doubt}")


def _say_left_out(name: str, info: dict[str, Any]) -> None:
    counts = {_LEFT_OUT[key]: count for key, count in info["source"].get("left_out", {}).items()}
    if info["duplicates_dropped"]:
        counts["copies of earlier documents"] = info["duplicates_dropped"]
    if counts:
        listed = ", ".join(f"{count:,} {label}" for label, count in counts.items())
        console.say(f"data {name}: left out or divided: {listed}")


def side_of(document: str, validation_fraction: float) -> str:
    """``valid`` for a held-out document, else ``train``; decided by a hash of the text."""
    draw = int.from_bytes(hashlib.blake2b(document.encode(), digest_size=8).digest(), "little") / 2**64
    return "valid" if draw < validation_fraction else "train"


def _require_both(corpus: Corpus, counts: dict[str, Any], trains: bool) -> None:
    train, valid = counts["train"]["documents"], counts["valid"]["documents"]
    if train + valid == 0:
        raise DataError(f"data={corpus.name}: the corpus is empty: no document with a sentence was found.")
    if not valid or (trains and not train):
        raise DataError(
            f"data={corpus.name}: {train} training and {valid} held-out documents; both sides need at least one. "
            "Give data.validation_path, raise data.validation_fraction, or use a corpus with more documents"
            f"{f' ({corpus.advice})' if corpus.advice else ''}."
        )


def side_of_text(folder: Path, side: str) -> Path:
    """The file with the sentences of one ``side`` of a prepared text. Raises DataError if the cache lacks it."""
    file = folder / f"{side}.txt"
    if not file.is_file():
        raise DataError(
            f"{file} is not there: the cache was copied without its text. Copy the text too, or remove {folder}, and "
            "it is prepared from the corpus again."
        )
    return file


def sentences_of(path: Path) -> Iterator[str]:
    """Every sentence of a prepared text file, without document boundaries."""
    with path.open(encoding="utf-8") as lines:
        yield from (line.rstrip("\n") for line in lines if line != "\n")


def text_info(folder: Path) -> dict[str, Any]:
    """The counts of ``prepare_text``. Raises DataError if the cached folder is damaged."""
    with intact(folder):
        info: dict[str, Any] = read_json(folder / "info.json")
        for key in ("fingerprint", "train", "valid", "duplicates_dropped", "source", "met"):
            info[key]
        return info


@contextmanager
def intact(folder: Path) -> Iterator[None]:
    """Turns any failure in reading a cached folder into DataError: folders are written atomically, so it is damaged."""
    try:
        yield
    except (OSError, ValueError, LookupError, TypeError, EOFError, RecursionError) as error:
        raise DataError(
            f"{folder}: the cached folder is damaged ({type(error).__name__}: {error}). Remove it, and run the same "
            "command again."
        ) from error
