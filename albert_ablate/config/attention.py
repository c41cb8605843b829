"""The settings of the group ``attention``: which positions attend to which."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from albert_ablate.axes.attention import Attention
from albert_ablate.config.tasks import Count
from albert_ablate.model.block_pattern import BlockPattern


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class AttentionConfig:
    """Full attention, or BigBird's."""

    name: Attention
    block: Annotated[int, Field(ge=1, le=65536)]  # tokens of a block
    window: Count  # blocks; odd, or 0
    global_blocks: Count
    random: Count  # blocks of each row of blocks and head
    plan: Literal["seed", "released", "transformers"]

    def pattern(self, seed: int) -> BlockPattern | None:
        """The blocks of a run with ``seed``; None for full attention."""
        if not self.name.in_blocks:
            return None
        return BlockPattern(self.block, self.window, self.global_blocks, self.random, self.plan, seed)
