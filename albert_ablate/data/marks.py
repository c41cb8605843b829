"""Combining marks that ``tokenizer.strip_accents`` drops, counted by script.

In English they are accents; in other languages they may be part of a letter.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from albert_ablate.config.schema import TokenizerConfig
from albert_ablate.data.text import sentences_of, text_info
from albert_ablate.files import digest, read_json, write_json

#: Raise when the count changes for the same text.
_MARKS_FORMAT = 1
#: Share of dropped marks from which the user is warned, by whether the text is English, where some names have accents.
_WORTH_SAYING = {True: 1e-3, False: 1e-4}
_BLOCK = 20_000  # sentences that are counted together
#: A letter followed by combining marks that several scripts use.
_ON_A_LETTER = re.compile(r"\w[\u0300-\u036f]+")
_NAMES = {"HIRAGANA": "Japanese kana", "KATAKANA": "Japanese kana"}


@dataclass(frozen=True)
class Marks:
    """Combining marks that cleaning drops from a text."""

    characters: int  # of the text
    scripts: dict[str, int]  # script -> dropped marks, in descending order
    examples: dict[str, str]  # script -> a word with such a mark

    def warning(self, language: str, wordpiece: bool) -> str | None:
        """A warning for the user; None if few marks are dropped."""
        total = sum(self.scripts.values())
        if total < max(1, _WORTH_SAYING[language.split("-")[0].lower() == "en"] * self.characters):
            return None
        parts = [
            f"{count:,} {name} ({_change(self.examples[name], wordpiece)})" for name, count in self.scripts.items()
        ]
        more = f" and {len(parts) - 4} more scripts" if len(parts) > 4 else ""
        return (
            f"tokenizer.strip_accents=true drops {total:,} marks of the training text, {total / self.characters:.2%} "
            f"of its characters: {', '.join(parts[:4])}{more}. tokenizer.strip_accents=false keeps them, as is right "
            "where they belong to the letters."
        )


def _change(word: str, wordpiece: bool) -> str:
    return f"{word} → {''.join(c for c in _decomposed(word, wordpiece) if not _dropped(c, wordpiece))}"


def dropped_marks(text: Path, config: TokenizerConfig, cache: Path) -> Marks:
    """Dropped marks of the training side of ``text``, counted once and cached."""
    wordpiece = config.name == "wordpiece"
    key = digest([_MARKS_FORMAT, text_info(text)["fingerprint"], wordpiece])
    file = cache / "marks" / f"{key}.json"
    if not file.is_file():
        write_json(file, asdict(count_marks(sentences_of(text / "train.txt"), wordpiece)))
    fields: dict[str, Any] = read_json(file)
    return Marks(**fields)


def count_marks(sentences: Iterable[str], wordpiece: bool) -> Marks:
    """Marks dropped by BERT's cleaning (all nonspacing marks) or by ours (all with a combining class)."""
    characters = 0
    letters: Counter[str] = Counter()
    clusters: Counter[str] = Counter()  # letters with marks of several scripts
    examples: dict[str, str] = {}
    lines = iter(sentences)
    while block := list(islice(lines, _BLOCK)):
        characters += sum(map(len, block))
        text = unicodedata.normalize("NFC", "\n".join(line for line in block if not line.isascii()))
        counts = Counter(text)
        for letter in sorted(counts.keys() - letters.keys()):
            name = _script_of(letter, wordpiece)
            if name and name not in examples:
                examples[name] = _word_with(letter, text)
        letters.update(counts)
        clusters.update(_ON_A_LETTER.findall(text))
    scripts: Counter[str] = Counter()
    for letter, count in letters.items():
        if not "\u0300" <= letter <= "\u036f":
            dropped = sum(_dropped(c, wordpiece) for c in _decomposed(letter, wordpiece))
            scripts[_script_of(letter, wordpiece)] += dropped * count
    for cluster, count in clusters.items():
        name = _script_of(cluster, wordpiece)
        scripts[name] += (len(cluster) - 1) * count
        examples.setdefault(name, cluster)
    return Marks(characters, {name: count for name, count in scripts.most_common() if name}, examples)


def _word_with(letter: str, text: str) -> str:
    index = text.index(letter)
    begin = max(text.rfind(space, 0, index) for space in " \n") + 1
    return text[begin : index + 20].split()[0]


def _decomposed(text: str, wordpiece: bool) -> str:
    return unicodedata.normalize("NFD" if wordpiece else "NFKD", text)


def _dropped(character: str, wordpiece: bool) -> bool:
    return unicodedata.category(character) == "Mn" if wordpiece else unicodedata.combining(character) > 0


def _script_of(letter: str, wordpiece: bool) -> str:
    """The script of a mark, or of a letter that loses a mark; empty if nothing is dropped."""
    parts = _decomposed(letter, wordpiece)
    return _named(_script(parts[0])) if any(_dropped(c, wordpiece) for c in parts) else ""


@cache
def _script(character: str) -> str:
    """The script in the Unicode name of a letter or mark, such as LATIN; empty if it has no name."""
    words = unicodedata.name(character, "").replace("-", " ").split()
    if len(words) > 1 and words[0] in ("HALFWIDTH", "FULLWIDTH", "COMBINING", "NEW", "MODIFIER"):
        del words[0]
    return words[0] if words else ""


def _named(name: str) -> str:
    return _NAMES.get(name, name.title())
