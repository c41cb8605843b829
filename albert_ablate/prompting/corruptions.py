"""Minimal pairs made of good sentences by rules that leave a model without context at chance.

Each bad sentence has as many tokens as its good one. Words are changed only inside a sentence, and only words of
lower-case letters, so that neither capitals nor punctuation give the bad sentence away.

    swap         two neighbouring words change places: both sentences have the same words
    replace      a word becomes the word at a random place of another sentence: words come as frequently as they occur
    agreement    is/are, was/were, has/have, does/do, this/these (English)
    preposition  one of nine frequent prepositions becomes another (English)

In the last two, each word is replaced by the other one as often as the other one by it. So the frequency of words
alone favours the good sentence in one half of the pairs and the bad one in the other.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from albert_ablate import streams
from albert_ablate.config.kshot import Corruption
from albert_ablate.data.tokenizer import Tokenizer

_WORDS = (6, 25)  # fewest and most words of a sentence
_AGREEMENT = (("is", "are"), ("was", "were"), ("has", "have"), ("does", "do"), ("this", "these"))
_PREPOSITIONS = (("of", "in", "to", "for", "by", "with", "on", "from", "at"),)


@dataclass(frozen=True)
class Pair:
    """A good and a bad sentence."""

    id: str
    good: str
    bad: str
    phenomenon: str


@dataclass(frozen=True)
class _Change:
    """A bad version of a sentence, and the words that it changed from and to."""

    words: tuple[str, ...]
    change: tuple[str, str] = ("", "")


#: (the words of a sentence, all sentences, the generator of this sentence) -> its bad version, or None.
_Rule = Callable[[Sequence[str], Sequence[Sequence[str]], np.random.Generator], _Change | None]


def _inner(words: Sequence[str]) -> list[int]:
    """Places of words of lower-case letters, neither first nor last."""
    return [place for place in range(1, len(words) - 1) if words[place].isalpha() and words[place].islower()]


def _swap(words: Sequence[str], _: Sequence[Sequence[str]], draw: np.random.Generator) -> _Change | None:
    inner = set(_inner(words))
    places = [place for place in sorted(inner) if place + 1 in inner and words[place] != words[place + 1]]
    if not places:
        return None
    place = places[draw.integers(len(places))]
    return _Change((*words[:place], words[place + 1], words[place], *words[place + 2 :]))


def _replace(words: Sequence[str], sentences: Sequence[Sequence[str]], draw: np.random.Generator) -> _Change | None:
    other = sentences[int(draw.integers(len(sentences)))]
    places, others = _inner(words), _inner(other)
    if not places or not others:
        return None
    place, word = places[draw.integers(len(places))], other[others[draw.integers(len(others))]]
    return None if word == words[place] else _Change((*words[:place], word, *words[place + 1 :]))


def _confuse(sets: Sequence[Sequence[str]]) -> _Rule:
    """Replace a word of one of ``sets`` by another word of the same set."""
    partners = {word: [other for other in group if other != word] for group in sets for word in group}

    def corrupt(words: Sequence[str], _: Sequence[Sequence[str]], draw: np.random.Generator) -> _Change | None:
        places = [place for place in _inner(words) if words[place] in partners]
        if not places:
            return None
        place = places[draw.integers(len(places))]
        others = partners[words[place]]
        word = others[draw.integers(len(others))]
        return _Change((*words[:place], word, *words[place + 1 :]), (words[place], word))

    return corrupt


_RULES: dict[Corruption, _Rule] = {
    "swap": _swap, "replace": _replace, "agreement": _confuse(_AGREEMENT), "preposition": _confuse(_PREPOSITIONS),
}  # fmt: skip


def corrupted(
    sentences: Sequence[str], rules: Sequence[Corruption], most: int, tokenizer: Tokenizer, room: int
) -> Iterator[Pair]:
    """At most ``most`` pairs of each of ``rules``, of sentences of at most ``room`` tokens.

    They are the same for every model with this tokenizer that can read as much. A sentence gives at most one pair of a
    rule. A rule that finds nothing in the text gives none.
    """
    divided = [sentence.split() for sentence in dict.fromkeys(sentences)]
    fitting = [words for words in divided if _WORDS[0] <= len(words) <= _WORDS[1]]
    for rule in rules:
        made: dict[tuple[str, str], list[Pair]] = defaultdict(list)
        for pair, change in _made(fitting, rule, tokenizer, room):
            made[change].append(pair)
        yield from _balanced(made, most)


def _made(
    sentences: Sequence[Sequence[str]], rule: Corruption, tokenizer: Tokenizer, room: int
) -> Iterator[tuple[Pair, tuple[str, str]]]:
    """(pair, changed words) of each sentence to which ``rule`` applies, in an order by hashes."""
    found: list[tuple[Pair, tuple[str, str]]] = []
    for words in sentences:
        good = " ".join(words)
        made = _RULES[rule](words, sentences, streams.generator(0, "corruption", rule, good))
        if made is not None:
            name = f"{rule}-{streams.key(0, 'minimal pair', rule, good):016x}"
            found.append((Pair(name, good, " ".join(made.words), rule), made.change))
    found.sort(key=lambda item: item[0].id)
    encoded = tokenizer.encode([text for pair, _ in found for text in (pair.good, pair.bad)])
    for item, good_ids, bad_ids in zip(found, encoded[::2], encoded[1::2], strict=True):
        if len(good_ids) == len(bad_ids) <= room:
            yield item


def _balanced(made: dict[tuple[str, str], list[Pair]], most: int) -> list[Pair]:
    """At most ``most`` pairs, as many of each change of words as of its opposite."""
    couples: list[tuple[Pair, ...]] = []
    for (old, new), pairs in made.items():
        if old == new:  # nothing to balance
            couples += [(pair,) for pair in pairs]
        elif old < new:
            couples += zip(pairs, made.get((new, old), ()), strict=False)
    couples.sort(key=lambda couple: min(pair.id for pair in couple))
    size = max(map(len, couples), default=1)
    return [pair for couple in couples[: most // size] for pair in couple]
