"""Where facts stand: branches beside their mentions (K-BERT's sentence tree), or sentences after the text.

Liu et al. (2020), section 3, with these differences. The sentence is laid down first and branches are added while they
fit, so that facts never push its end out. Facts are taken in the order of their file.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from albert_ablate.data.tokenizer import CLS, SEP
from albert_ablate.tasks.knowledge.mentions import Mention

#: Subject -> the pieces of each of its facts, in order.
Pieces = Callable[[int], Sequence[Sequence[int]]]


@dataclass
class Counts:
    """Mentions, and facts that were matched, taken into a sequence, or dropped because they did not fit."""

    mentions: int = 0
    matched: int = 0
    injected: int = 0
    dropped: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(mine + theirs for mine, theirs in zip(vars(self).values(), vars(other).values(), strict=True)))


@dataclass(frozen=True)
class Row:
    """One sequence with facts. All lists have an entry for each token."""

    tokens: list[int]
    second: int  # first token of B, or of what follows A; the length if nothing does
    positions: list[int]  # soft: those of the sentence as if it had no branches
    branch: list[int]  # number of the token's branch, from 1; 0 in the sentence
    mention: list[int]  # number of the mention that the token belongs to, from 1; 0 for none


def with_branches(
    first: Sequence[int],
    second: Sequence[int] | None,
    mentions: tuple[Sequence[Mention], Sequence[Mention]],
    pieces: Pieces,
    room: int,
    counts: Counts,
) -> Row:
    """[CLS] A [SEP] or [CLS] A [SEP] B [SEP] of at most ``room`` tokens, each mention followed by its branches.

    ``mentions`` in A and in B. ``counts`` are added to.
    """
    sentence = _sentence(first, second)
    placed = [(m, 1) for m in mentions[0]] + [(m, len(first) + 2) for m in mentions[1]]
    left = room - len(sentence)
    added: dict[int, tuple[int, list[Sequence[int]]]] = {}  # place of a mention's last piece -> mention, branches
    belongs = [0] * len(sentence)
    for number, (mention, shift) in enumerate(placed, 1):
        belongs[mention.start + shift : mention.end + shift] = [number] * (mention.end - mention.start)
        taken = _fitting(pieces(mention.subject), left, counts)
        left -= sum(map(len, taken))
        counts.mentions += 1
        added[mention.end + shift - 1] = (number, taken)
    row, branches = Row([], 0, [], [], []), 0
    start = len(first) + 2  # of B, in the sentence
    for place, token in enumerate(sentence):
        _append(row, [token], [place], 0, belongs[place])
        number, taken = added.get(place, (0, []))
        start += sum(map(len, taken)) if place < len(first) + 2 else 0
        for branch in taken:
            branches += 1
            _append(row, branch, range(place + 1, place + 1 + len(branch)), branches, number)
    return Row(row.tokens, start, row.positions, row.branch, row.mention)


def with_sentences(
    first: Sequence[int],
    second: Sequence[int] | None,
    mentions: tuple[Sequence[Mention], Sequence[Mention]],
    pieces: Pieces,
    room: int,
    counts: Counts,
) -> Row:
    """[CLS] A [SEP] facts [SEP] or [CLS] A [SEP] B [SEP] facts [SEP]: the facts of each subject once, in order.

    Facts belong to the second segment. Without facts the last [SEP] is left out, too.
    """
    sentence = _sentence(first, second)
    left = room - len(sentence) - 1
    taken: list[int] = []
    counts.mentions += len(mentions[0]) + len(mentions[1])
    for subject in dict.fromkeys(m.subject for m in (*mentions[0], *mentions[1])):
        for fact in _fitting(pieces(subject), left - len(taken), counts):
            taken += fact
    tokens = [*sentence, *taken, SEP] if taken else sentence
    zeros = [0] * len(tokens)
    return Row(tokens, len(first) + 2, list(range(len(tokens))), zeros, zeros)


def _sentence(first: Sequence[int], second: Sequence[int] | None) -> list[int]:
    """[CLS] A [SEP] or [CLS] A [SEP] B [SEP]."""
    return [CLS, *first, SEP, *([] if second is None else [*second, SEP])]


def _fitting(facts: Sequence[Sequence[int]], left: int, counts: Counts) -> list[Sequence[int]]:
    """Those of ``facts`` that fit into ``left`` tokens, in order; the others are counted as dropped."""
    taken = []
    for fact in facts:
        counts.matched += 1
        if len(fact) <= left:
            taken.append(fact)
            left -= len(fact)
            counts.injected += 1
        else:
            counts.dropped += 1
    return taken


def _append(row: Row, tokens: Sequence[int], positions: Sequence[int], branch: int, mention: int) -> None:
    row.tokens.extend(tokens)
    row.positions.extend(positions)
    row.branch.extend([branch] * len(tokens))
    row.mention.extend([mention] * len(tokens))
