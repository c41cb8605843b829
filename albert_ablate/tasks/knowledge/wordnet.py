"""The nouns of WordNet as facts, from the files ``data.noun`` and ``index.noun`` of WordNet 3.0 (Debian: wordnet-base).

A line of ``data.noun``: offset, file number, type, number of words (hexadecimal), each word with its id, number of
pointers, and for each pointer its sign, the offset and type of the other synset, and the words it holds for. A line of
``index.noun``: a lemma, and at its end the offsets of its synsets, the most frequent sense first (wndb(5WN)). Lines of
the licence begin with two blanks.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from albert_ablate.errors import DataError
from albert_ablate.files import open_text
from albert_ablate.tasks.knowledge.facts import Fact

FILES = ("data.noun", "index.noun")
#: Sign of a pointer -> predicate, in the order of a noun's facts. The first two are hypernyms, the others holonyms.
PREDICATES = {"@": "is a", "@i": "is a", "#p": "part of", "#m": "member of", "#s": "substance of"}


@dataclass(frozen=True)
class _Synset:
    words: list[str]
    pointers: list[tuple[str, str]]  # (sign, offset of another noun synset)


def wordnet_facts(folder: Path) -> tuple[list[Fact], str]:
    """The facts of all nouns in ``folder``, and the text of the licence.

    Each noun has the facts of its first sense only, because a text does not say which one is meant. The object is the
    first word of the other synset. Raises DataError if a file is missing or has another format.
    """
    for name in FILES:
        if not (folder / name).is_file():
            raise DataError(
                f"{folder}: no {name} there. Name the folder of WordNet's files; on Debian `apt-get install "
                "wordnet-base` puts them into /usr/share/wordnet."
            )
    synsets = dict(_synsets(folder / FILES[0]))
    first = dict(_first_senses(folder / FILES[1]))
    facts: dict[Fact, None] = {}
    for offset, synset in synsets.items():
        for word in synset.words:
            if first.get(word.lower()) != offset:
                continue
            for sign, predicate in PREDICATES.items():
                others = [synsets[other] for pointer, other in synset.pointers if pointer == sign and other in synsets]
                facts |= {Fact(_plain(word), predicate, _plain(other.words[0])): None for other in others}
    with open_text(folder / FILES[0]) as lines:
        licence = "".join(line[2:] for line in lines if line.startswith("  "))
    return [fact for fact in facts if fact.subject != fact.object], licence


def _synsets(path: Path) -> Iterator[tuple[str, _Synset]]:
    for number, fields in _lines(path):
        try:
            count = int(fields[3], 16)
            words = [fields[4 + 2 * i] for i in range(count)]
            start = 4 + 2 * count
            pointers = [fields[start + 1 + 4 * i : start + 5 + 4 * i] for i in range(int(fields[start]))]
            nouns = [(sign, offset) for sign, offset, kind, _ in pointers if kind == "n"]
        except (ValueError, IndexError) as error:
            raise DataError(f"{path}, line {number}: not a synset of WordNet 3.0 ({type(error).__name__}).") from error
        if not words:
            raise DataError(f"{path}, line {number}: a synset without words.")
        yield fields[0], _Synset(words, nouns)


def _first_senses(path: Path) -> Iterator[tuple[str, str]]:
    """(lemma, offset of its most frequent sense)."""
    for number, fields in _lines(path):
        try:
            senses = int(fields[2])
            yield fields[0], fields[-senses:][0] if 0 < senses < len(fields) else fields[len(fields)]
        except (ValueError, IndexError) as error:
            raise DataError(f"{path}, line {number}: not a lemma of WordNet 3.0 ({type(error).__name__}).") from error


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(number, fields before the gloss) of each line after the licence."""
    with open_text(path) as lines:
        for number, line in enumerate(lines, 1):
            if not line.startswith("  ") and line.strip():
                yield number, line.partition(" | ")[0].split()


def _plain(word: str) -> str:
    return word.replace("_", " ")
