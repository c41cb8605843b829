"""Marks that ``tokenizer.strip_accents`` drops, counted by script: accents in English, parts of letters elsewhere."""

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
#: From this share of a text's characters on, dropped marks are said. In an English text some names have them.
_WORTH_SAYING = {True: 1e-3, False: 1e-4}
_BLOCK = 20_000  # sentences that are counted together
#: Marks of several scripts, after the letter that they stand on.
_ON_A_LETTER = re.compile(r"\w[\u0300-\u036f]+")
_NAMES = {"HIRAGANA": "Japanese kana", "KATAKANA": "Japanese kana"}


@dataclass(frozen=True)
class Marks:
    """What cleaning drops of a text."""

    characters: int  # of the text
    scripts: dict[str, int]  # marks dropped, most first
    examples: dict[str, str]  # a word of each script

    def words(self, language: str, wordpiece: bool) -> str | None:
        """A line for the user, or None where it is not worth one."""
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
    """Counted over the training side of ``text``, once for a text."""
    wordpiece = config.name == "wordpiece"
    key = digest([_MARKS_FORMAT, text_info(text)["fingerprint"], wordpiece])
    file = cache / "marks" / f"{key}.json"
    if not file.is_file():
        write_json(file, asdict(count_marks(sentences_of(text / "train.txt"), wordpiece)))
    found: dict[str, Any] = read_json(file)
    return Marks(**found)


def count_marks(sentences: Iterable[str], wordpiece: bool) -> Marks:
    """Of BERT's cleaning (all marks without a width) or ours (all with a combining class)."""
    characters = 0
    letters: Counter[str] = Counter()
    clusters: Counter[str] = Counter()  # letters with marks of several scripts
    examples: dict[str, str] = {}
    lines = iter(sentences)
    while block := list(islice(lines, _BLOCK)):
        characters += sum(map(len, block))
        text = unicodedata.normalize("NFC", "\n".join(line for line in block if not line.isascii()))
        found = Counter(text)
        for letter in sorted(found.keys() - letters.keys()):
            name = _script_of(letter, wordpiece)
            if name and name not in examples:
                examples[name] = _word_with(letter, text)
        letters.update(found)
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
    place = text.index(letter)
    begin = max(text.rfind(space, 0, place) for space in " \n") + 1
    return text[begin : place + 20].split()[0]


def _decomposed(text: str, wordpiece: bool) -> str:
    return unicodedata.normalize("NFD" if wordpiece else "NFKD", text)


def _dropped(character: str, wordpiece: bool) -> bool:
    return unicodedata.category(character) == "Mn" if wordpiece else unicodedata.combining(character) > 0


def _script_of(letter: str, wordpiece: bool) -> str:
    """Of a letter that loses a mark, or of a mark; empty where nothing is dropped."""
    parts = _decomposed(letter, wordpiece)
    return _named(_script(parts[0])) if any(_dropped(c, wordpiece) for c in parts) else ""


@cache
def _script(character: str) -> str:
    """The script of a letter or mark as Unicode's names have it, such as LATIN; empty where there is no name."""
    words = unicodedata.name(character, "").replace("-", " ").split()
    if len(words) > 1 and words[0] in ("HALFWIDTH", "FULLWIDTH", "COMBINING", "NEW", "MODIFIER"):
        del words[0]
    return words[0] if words else ""


def _named(name: str) -> str:
    return _NAMES.get(name, name.title())
