"""Which positions attend to which in masked LM: all pairs, or BigBird's blocks; read by ``model/attention.py``."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Protocol

from albert_ablate.axes.axis import Axis, Settings


class Attention(StrEnum):
    """Which positions a position attends to."""

    FULL = "full"
    BIGBIRD = "bigbird"

    @property
    def in_blocks(self) -> bool:
        """Whether blocks of queries attend to chosen blocks of keys."""
        return self is Attention.BIGBIRD


#: Settings of the blocks, with their defaults: those of the paper (Zaheer et al., 2020, Table 8).
_BLOCKS: Mapping[str, Any] = {"block": 64, "window": 3, "global_blocks": 2, "random": 3, "plan": "seed"}
#: The released plans choose columns within so many of the first tokens.
_PLANNED_TOKENS = 1024


class _Group(Protocol):
    """The group ``attention``."""

    @property
    def name(self) -> Attention:
        """Which positions a position attends to."""

    @property
    def block(self) -> int:
        """Tokens of a block."""

    @property
    def window(self) -> int:
        """Blocks of the window around a block, itself included."""

    @property
    def global_blocks(self) -> int:
        """Blocks that see all and are seen by all."""

    @property
    def random(self) -> int:
        """Random blocks of a block."""

    @property
    def plan(self) -> str:
        """Where random blocks come from."""


def _contradictions(attention: _Group, c: Settings) -> list[str]:
    if not attention.name.in_blocks:
        return [
            f"attention.{key}={getattr(attention, key)}: no effect with attention={attention.name}. "
            f"Leave it at {default}, or use attention={Attention.BIGBIRD}."
            for key, default in _BLOCKS.items()
            if getattr(attention, key) != default
        ]
    problems = []
    window, random = attention.window, attention.random
    if window and window % 2 == 0:
        problems.append(
            f"attention.window={window}: a window has the block itself and as many blocks to its left as to its right. "
            f"Use an odd number such as {window + 1}, or 0 for none."
        )
    if not (window or attention.global_blocks or random):
        problems.append(
            "attention.window=0, attention.global_blocks=0, attention.random=0: a block would attend to nothing. Give "
            "one of them a number."
        )
    if attention.plan != "seed":
        problems += _plan_problems(attention)
    return problems


def unread_blocks(values: Mapping[str, Any]) -> frozenset[str]:
    """Full names of the group's settings that a run with the flat settings ``values`` does not read."""
    in_blocks = Attention(values.get("attention.name", Attention.FULL)).in_blocks
    return frozenset() if in_blocks else frozenset(f"attention.{key}" for key in _BLOCKS)


def _plan_problems(attention: _Group) -> list[str]:
    """What the released plans do not allow."""
    plan, random, problems = attention.plan, attention.random, list[str]()
    fixed = {"window": 3, "global_blocks": 2}
    problems += [
        f"attention.{key}={getattr(attention, key)} with attention.plan={plan}: its plan is made for {number}. "
        f"Use attention.plan=seed, or leave it at {number}."
        for key, number in fixed.items()
        if getattr(attention, key) != number
    ]
    if not random:
        problems.append(
            f"attention.random=0 with attention.plan={plan}: it plans random blocks. Use attention.plan=seed."
        )
    elif _PLANNED_TOKENS // attention.block < random + 4:
        problems.append(
            f"attention.block={attention.block} with attention.plan={plan}: it draws attention.random={random} blocks "
            f"from the first {_PLANNED_TOKENS} tokens, which have too few of this size. "
            f"Use blocks of {_PLANNED_TOKENS // (random + 4)} tokens or fewer, or attention.plan=seed."
        )
    return problems


ATTENTION = Axis(
    "attention", "name", "which positions attend to which",
    {Attention.FULL: "full attention", Attention.BIGBIRD: "BigBird"},
    before=Attention.FULL,
    beside={f"attention.{key}": value for key, value in _BLOCKS.items()},
    contradictions=_contradictions,
)  # fmt: skip
