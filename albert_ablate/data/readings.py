"""How the files of a corpus were read: a record, a message, and doubts about the result."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from albert_ablate.data.corpora import Corpus

_KINDS = {
    "sentences": "one sentence a line", "prose": "prose", "headings": "WikiText, an article a document",
    "jsonl": "JSON lines", "json": "JSON", "table": "a table", "parquet": "parquet",
}  # fmt: skip
#: Mean sentence length in characters above which splitting has probably failed: for scripts with spaces (about 85
#: words), and for scripts without.
_IMPLAUSIBLE = 500
_IMPLAUSIBLE_UNSPACED = 200


def read_as(corpus: "Corpus") -> dict[str, Any]:
    """``read_as``: files and documents of each form; ``left_aside``: files not read. Empty for other corpora."""
    counts = {
        kind: {"files": corpus.files[kind], "documents": corpus.tally[f"documents of {kind}"]}
        for kind in _KINDS
        if corpus.files[kind]
    }
    return ({"read_as": counts} if counts else {}) | ({"left_aside": corpus.left_aside} if corpus.left_aside else {})


def describe_reading(source: dict[str, Any]) -> str:
    """``read as one sentence a line: 28 files, 84 documents; as prose: 2 files, 6 documents``; empty without files."""
    forms = [
        f"as {_KINDS[kind]}: {_count(n['files'], 'file')}, {_count(n['documents'], 'document')}"
        for kind, n in source.get("read_as", {}).items()
    ]
    return "; ".join([*([f"read {'; '.join(forms)}"] if forms else []), *source.get("left_aside", [])])


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def describe_unknown(info: dict[str, Any]) -> str | None:
    """How many words of a WikiText corpus are ``<unk>``; None if there are none."""
    count = info["met"].get("unknown_words", 0)
    return (
        f"{_count(count, 'word')} of it {'is' if count == 1 else 'are'} <unk>: an unknown token each" if count else None
    )


def doubts(info: dict[str, Any]) -> Iterator[str]:
    """Signs that sentences or documents were not split correctly, each with a remedy."""
    met, forms = info["met"], info["source"].get("read_as", {})
    sides = info["train"], info["valid"]
    sentences, words = (sum(side[key] for side in sides) for key in ("sentences", "words"))
    mean = met.get("characters", 0) / max(sentences, 1)
    spaced = met.get("characters", 0) <= 20 * words
    length = f"{words / max(sentences, 1):.0f} words" if spaced else f"{mean:.0f} characters"
    if info["settings"].get("headings") and not met.get("titles"):
        yield (
            "no line is the title of an article, such as ` = Title = `, so only the ends of files end documents. "
            "Leave data.format at auto if the text is not WikiText."
        )
    wrapped, without = met.get("wrapped", 0), met.get("wrapped_without_mark", 0)
    if without > 0.5 * wrapped:
        yield (
            f"{without:,} of {_count(wrapped, 'paragraph')} of several lines hold no sentence mark, and each was read "
            f"as one sentence ({length} on average). If a line is a sentence, set data.format=sentences; where the "
            "language writes no such marks (Thai, Lao), put each sentence on a line of its own."
        )
    elif mean > (_IMPLAUSIBLE if spaced else _IMPLAUSIBLE_UNSPACED):
        remedy = (
            "If a line holds several sentences, set data.format=prose."
            if "sentences" in forms
            else "Few marks that end a sentence were found. If a line is a sentence, set data.format=sentences; else "
            "put sentences on lines of their own."
        )
        yield f"a sentence has {length} on average. {remedy}"
