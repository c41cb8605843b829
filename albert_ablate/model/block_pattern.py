"""BigBird's attention pattern in blocks: sizes and counts, without the random choices (Zaheer et al., 2020, section 2).

Letters: b tokens of a block, n blocks of a sequence, r random blocks, L tokens.
"""

from dataclasses import dataclass
from functools import lru_cache

#: Up to so many tokens the released code computes full attention (``core/modeling.py``).
RELEASED_FULL_LENGTH = 512
#: The kernels of attention in blocks, as ``runtime.block_kernel`` names them.
GATHER, FLEX = "gather", "flex"
#: Rows of a tile of FlexAttention; tiles are powers of two.
LEAST_TILE, _MOST_TILE = 16, 64


def tile_of(block: int) -> int:
    """Rows of FlexAttention's tiles for blocks of so many tokens, which tiles must divide."""
    return min(block & -block, _MOST_TILE)


@dataclass(frozen=True)
class BlockPattern:
    """Internal transformer construction (ITC): existing tokens are global.

    A sequence is padded to whole blocks. Each block of queries, a row, attends to the global blocks, to those of its
    window and to ``random`` others; a global row attends to all blocks. Of ``global_blocks`` the first half, rounded
    up, stands at the start and the rest at the end: 2 are the first and the last block.
    """

    block: int  # b
    window: int  # blocks, the row's own in the middle; 0: none
    global_blocks: int
    random: int  # r
    #: ``seed``: random blocks are drawn from all others by the run's seed, for each layer and head. ``released``: as
    #: the authors' code, by the layer's number, among the first tokens. ``transformers``: as that library, which in
    #: evaluation has the first block r times more in place of random ones.
    plan: str = "seed"
    seed: int = 0

    def blocks(self, length: int) -> int:
        """Number of blocks of a sequence, n."""
        return -(-length // self.block)

    def is_global(self, row: int, blocks: int) -> bool:
        """Whether the row is a global block."""
        at_start = -(-self.global_blocks // 2)
        return row < at_start or row >= blocks - (self.global_blocks - at_start)

    def fixed(self, row: int, blocks: int) -> tuple[int, ...]:
        """The blocks that a row attends to whatever the random choice, each once, in order."""
        if self.is_global(row, blocks):
            return tuple(range(blocks))
        reach = self.window // 2
        near = range(row - reach, row + reach + 1) if self.window else range(0)
        return tuple(column for column in range(blocks) if column in near or self.is_global(column, blocks))

    def is_full(self, length: int) -> bool:
        """Whether all pairs are seen, so that attention is full attention, without repeated blocks.

        With the plan ``seed``: if no row leaves a block out. With ``transformers``: up to (5 + 2r) b tokens, as there;
        with ``released``: up to 512 tokens, as there, and up to (5 + 2r) b, where its drawing would fail.
        """
        n = self.blocks(length)
        if self.plan == "seed":
            return all(count >= n for count in self.counts(n))
        return n <= 5 + 2 * self.random or (self.plan == "released" and length <= RELEASED_FULL_LENGTH)

    def counts(self, blocks: int) -> tuple[int, ...]:
        """The number of blocks that each row attends to, where a block that is chosen twice counts twice."""
        return _counts(self, blocks)

    def keys(self, length: int) -> float:
        """Mean number of keys of a query, over all layers and heads, as the kernel computes them."""
        if self.is_full(length):
            return length
        return sum(self.counts(self.blocks(length))) * self.block**2 / length


@lru_cache(maxsize=256)
def _counts(pattern: BlockPattern, blocks: int) -> tuple[int, ...]:
    """See ``BlockPattern.counts``."""
    fixed = [len(pattern.fixed(row, blocks)) for row in range(blocks)]
    if pattern.plan == "seed":
        return tuple(min(count + pattern.random, blocks) for count in fixed)
    return tuple(count if count == blocks else count + pattern.random for count in fixed)
