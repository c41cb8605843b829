"""PEER: segment pairs and n-gram masks, one document and one word at a time, as the released script makes them.

Written from the description of that script, with Python's ``random`` and lists. Only ``benchmarks.data`` uses it.
"""

import random
from collections.abc import Iterator

from albert_ablate.data.tokenizer import CLS, MASK, SEP

Instance = tuple[list[int], list[int], list[int], int]  # ids, masked columns, the original ids at these, label


def instances(documents: list[list[list[int]]], length: int, word_starts: list[bool], seed: int) -> Iterator[Instance]:
    """Every SOP instance of ``documents``, which are lists of sentences, which are lists of ids."""
    draw = random.Random(seed)
    room = length - 3
    for document in documents:
        target = draw.randint(2, room) if draw.random() < 0.1 else room
        chunk: list[list[int]] = []
        size = 0
        for index, sentence in enumerate(document):
            chunk.append(sentence)
            size += len(sentence)
            if size < target and index < len(document) - 1:
                continue
            if len(chunk) > 1:
                split = draw.randint(1, len(chunk) - 1)
                a = [i for s in chunk[:split] for i in s]
                b = [i for s in chunk[split:] for i in s]
                swapped = draw.random() < 0.5
                if swapped:
                    a, b = b, a
                _truncate(a, b, room, draw)
                yield _masked([CLS, *a, SEP, *b, SEP], word_starts, swapped, draw)
            chunk, size = [], 0


def _truncate(a: list[int], b: list[int], room: int, draw: random.Random) -> None:
    while len(a) + len(b) > room:
        longer = a if len(a) > len(b) else b
        if draw.random() < 0.5:
            del longer[0]
        else:
            longer.pop()


def _masked(ids: list[int], word_starts: list[bool], swapped: bool, draw: random.Random) -> Instance:
    words: list[list[int]] = []
    for column, piece in enumerate(ids):
        if piece in (CLS, SEP):
            continue
        if words and not word_starts[piece] and words[-1][-1] == column - 1:
            words[-1].append(column)
        else:
            words.append([column])
    budget = max(1, round(len(ids) * 0.15))
    sizes, weights = [1, 2, 3], [1.0, 1 / 2, 1 / 3]
    order = list(range(len(words)))
    draw.shuffle(order)
    output = list(ids)
    covered: set[int] = set()
    for first in order:
        if len(covered) >= budget:
            break
        most = min(3, len(words) - first)
        n = draw.choices(sizes[:most], weights[:most])[0]
        span = [column for word in words[first : first + n] for column in word]
        while n and len(covered) + len(span) > budget:
            n -= 1
            span = [column for word in words[first : first + n] for column in word]
        if not span or any(column in covered for column in span):
            continue
        for column in span:
            covered.add(column)
            kind = draw.random()
            if kind < 0.8:
                output[column] = MASK
            elif kind >= 0.9:
                output[column] = draw.randint(5, len(word_starts) - 1)
    columns = sorted(covered)
    return output, columns, [ids[column] for column in columns], int(swapped)
