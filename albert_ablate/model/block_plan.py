"""Which blocks of keys each block of queries attends to, with the random choices of BigBird.

Letters: N heads, b tokens of a block, n blocks of a sequence, r random blocks, L tokens.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from albert_ablate import streams
from albert_ablate.model.block_pattern import BlockPattern

#: Lengths with a plan of their own in the authors' code, and in transformers, which has no such plan at 2,048 tokens.
_PAPER_LENGTHS = {"released": (1024, 2048, 3072, 4096), "transformers": (1024, 3072, 4096)}
#: The authors draw that plan for so many tokens, whatever the length; transformers for its number of positions.
_PAPER_GRID = 4096
#: Its random blocks are among so many of the first tokens.
_PAPER_REACH = 1024


@dataclass(frozen=True)
class Place:
    """Where a plan is used."""

    layer: int
    heads: int
    length: int  # L
    positions: int  # rows of the position table
    training: bool


@lru_cache(maxsize=512)
def key_blocks(pattern: BlockPattern, place: Place) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """For each head and each of the n rows: the blocks that the row attends to; a repeated block counts twice.

    Depends on the arguments alone: other generators are neither read nor changed.
    """
    n = pattern.blocks(place.length)
    fixed = [pattern.fixed(row, n) for row in range(n)]
    if pattern.is_full(place.length):
        return ((tuple(range(n)),) * n,) * place.heads
    if pattern.plan == "seed":
        chosen = _seeded(pattern, place, fixed)
    elif pattern.plan == "transformers" and not place.training:
        chosen = [[np.zeros(pattern.random, dtype=np.int64)] * n] * place.heads
    elif place.length in _PAPER_LENGTHS[pattern.plan]:
        chosen = _paper_plan(pattern, place)
    else:
        chosen = _later_plan(pattern, place)
    return tuple(
        tuple(
            fixed[row] if pattern.is_global(row, n) else (*fixed[row], *(int(block) for block in chosen[head][row]))
            for row in range(n)
        )
        for head in range(place.heads)
    )


def share_seen(pattern: BlockPattern, layers: int, heads: int, length: int, positions: int) -> float:
    """Share of all pairs of L tokens that are seen in training, a mean over layers and heads."""
    n, b = pattern.blocks(length), pattern.block
    width = [min(b, length - column * b) for column in range(n)]
    seen = sum(
        width[row] * sum(width[column] for column in set(columns))
        for layer in range(layers)
        for head in key_blocks(pattern, Place(layer, heads, length, positions, training=True))
        for row, columns in enumerate(head)
    )
    return seen / (layers * heads * length**2)


def _seeded(pattern: BlockPattern, place: Place, fixed: list[tuple[int, ...]]) -> list[list[np.ndarray]]:
    """The r blocks with the smallest hashed numbers among those that are not fixed, for each head and row."""
    n = len(fixed)
    index, key = np.arange(n), streams.key(pattern.seed, "random blocks", place.layer)
    chosen = []
    for head in range(place.heads):
        number = streams.uniform(key, head, index[:, None], index)  # (n, n)
        for row, columns in enumerate(fixed):
            number[row, list(columns)] = 2.0  # after all others
        order = np.argsort(number, axis=1, kind="stable")
        most = [min(pattern.random, n - len(columns)) for columns in fixed]
        chosen.append([np.sort(order[row, : most[row]]) for row in range(n)])
    return chosen


def _paper_plan(pattern: BlockPattern, place: Place) -> list[list[np.ndarray]]:
    """The plan of the paper's own experiments (``bigbird_block_rand_mask``), head after head.

    Its lines are drawn for a longer sequence, so the choice is not always what a shorter one needs: at 1,024 tokens the
    last block, which is global, may be chosen once more. Later rows choose among the first 1,024 tokens, so that their
    random blocks are those of the sequence's beginning.
    """
    b, r, n = pattern.block, pattern.random, pattern.blocks(place.length)
    grid = (place.positions if pattern.plan == "transformers" else _PAPER_GRID) // b
    last = _PAPER_REACH // b - 1 if 2 * b < _PAPER_REACH else grid - 1
    middle = np.arange(1, grid - 1, dtype=np.int32)
    draw = np.random.RandomState(place.layer)
    chosen = []
    for _ in range(place.heads):
        rows = [np.zeros(0, dtype=np.int32)]
        for row in range(1, grid - 1):
            before = row - 2
            if row <= 2:
                candidates = middle[row + 1 : last]
            elif row >= grid - 3 or before > last:
                candidates = middle[:last]
            elif row + 1 == last:
                candidates = middle[:before]
            else:
                candidates = np.concatenate([middle[:before], middle[row + 1 : last]])
            rows.append(draw.permutation(candidates)[:r])
        chosen.append(rows[: n - 1] + rows[:1])
    return chosen


def _later_plan(pattern: BlockPattern, place: Place) -> list[list[np.ndarray]]:
    """The plan of other lengths (``bigbird_block_rand_mask_with_head``): all choose among the first 2r + 5 blocks."""
    r, n = pattern.random, pattern.blocks(place.length)
    reach = 2 * r + 5
    draw = np.random.RandomState(place.layer)
    chosen = [[np.zeros(0, dtype=np.int32)] for _ in range(place.heads)]
    for row in range(1, n):
        taken = {row - 1, row, row + 1, 0, reach - 1}
        taken |= {reach - 2} if row == 1 else set()
        taken |= {1} if row == reach - 2 else set()
        for head in chosen:
            order = draw.permutation(np.arange(reach, dtype=np.int32))
            head.append(np.array([block for block in order if block not in taken][:r], dtype=np.int32))
    return chosen
