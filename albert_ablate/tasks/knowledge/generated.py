"""A task on made-up nouns whose answers only a table of facts tells.

It shows whether a model reads facts, not whether facts are useful. A sentence names two nouns; the question is whether
the first of them is a person or a thing. The nouns of dev examples occur in no training example, so their
spelling tells nothing. The table says what each noun is, in one of 28 words that training and dev examples share.
"""

from collections.abc import Sequence

import numpy as np

from albert_ablate import streams
from albert_ablate.config.tasks import FactsConfig
from albert_ablate.files import digest
from albert_ablate.tasks.knowledge.facts import Fact, table
from albert_ablate.tasks.texts.sets import Example, ExampleSets

#: Raise when the same settings would give other examples or facts.
_FORMAT = 1
CLASSES = ("person", "thing")
#: Of each class as many, words that occur often in the embedded corpus. A table with exchanged objects says ``not this
#: one``: with 28 words, a hint of one in 54.
_OBJECTS = (
    ("president", "secretary", "judge", "citizen", "minister", "senator", "general", "governor", "man", "child",
     "consul", "slave", "friend", "enemy"),
    ("law", "bank", "treaty", "bill", "road", "school", "house", "report", "tax", "line", "silver", "railroad", "court",
     "fund"),
)  # fmt: skip
_PREDICATE = "is a"
#: Number of nouns of each side.
_NOUNS = {"train": 1200, "dev": 400}
_CONSONANTS, _VOWELS = "bdfgklmnprstvz", "aeiou"
_OPENINGS = ("The", "In the report the", "After the war the", "Last year the", "We know that the", "By law the")
_MIDDLES = (
    "was placed beside the", "was found near the", "was sent before the", "was named with the",
    "came after the", "will follow the", "was compared with the", "was preferred to the",
)  # fmt: skip
_ENDINGS = (".", "of the state.", "in the service of the country.", "during the year.", "and nothing more was said.")


def facts_fingerprint() -> str:
    """Fingerprint of the rules that generate examples and facts."""
    return digest([_FORMAT, CLASSES, _OBJECTS, _NOUNS, _OPENINGS, _MIDDLES, _ENDINGS])


def generated_table() -> str:
    """The table of facts: what each noun is."""
    return table(
        Fact(noun, _PREDICATE, _OBJECTS[kind][word]) for nouns in _nouns().values() for noun, kind, word in nouns
    )


def generated_examples(task: FactsConfig) -> ExampleSets:
    """The examples, the same for every seed and model; half of each side's nouns are of each class."""
    nouns = _nouns()
    sets = {
        side: _examples(side, nouns[side], count)
        for side, count in (("train", task.train_examples), ("dev", task.dev_examples))
    }
    counts = {"source": "generated sentences about made-up nouns"}
    return ExampleSets("classes", CLASSES, sets["train"], {"dev": sets["dev"]}, counts=counts)


def _nouns() -> dict[str, list[tuple[str, int, int]]]:
    """Side -> (noun, its class, its word): distinct nouns of three syllables, in a random order."""
    syllables = [consonant + vowel for consonant in _CONSONANTS for vowel in _VOWELS]
    draws = streams.integers(
        streams.key(0, "made-up nouns"), 0, len(syllables), np.arange(4 * sum(_NOUNS.values()))[:, None], np.arange(3)
    )
    words = list(dict.fromkeys("".join(syllables[i] for i in row) for row in draws.tolist()))
    made, start = {}, 0
    for side, count in _NOUNS.items():
        own = words[start : start + count]
        made[side] = [(noun, i % 2, (i // 2) % len(_OBJECTS[0])) for i, noun in enumerate(own)]
        start += count
    return made


def _examples(side: str, nouns: Sequence[tuple[str, int, int]], count: int) -> list[Example]:
    """Each noun is asked about equally often, beside another one that is drawn freely."""
    numbers = np.arange(count)

    def drawn(purpose: str, choices: int) -> list[int]:
        return list(streams.integers(streams.key(0, "facts task", side, purpose), 0, choices, numbers).tolist())

    parts = zip(
        drawn("other noun", len(nouns) - 1), drawn("opening", len(_OPENINGS)), drawn("middle", len(_MIDDLES)),
        drawn("ending", len(_ENDINGS)), strict=True,
    )  # fmt: skip
    examples = []
    for number, (other, opening, middle, ending) in enumerate(parts):
        asked = number % len(nouns)
        noun, kind, _ = nouns[asked]
        second = nouns[(asked + 1 + other) % len(nouns)][0]
        end = _ENDINGS[ending]
        text = f"{_OPENINGS[opening]} {noun} {_MIDDLES[middle]} {second}{'' if end == '.' else ' '}{end}"
        examples.append(Example(f"{side}-{number}", text, None, kind))
    return examples
