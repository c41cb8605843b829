"""Which parameters the layers share (paper, section 3.1 and Table 4); read by ``model/sharing.py``."""

from collections.abc import Mapping, Set
from enum import StrEnum
from typing import Protocol

from albert_ablate.axes.axis import Axis, Settings


class Part(StrEnum):
    """A part of a layer that a strategy may share."""

    ATTENTION = "attention"
    FFN = "ffn"


class Share(StrEnum):
    """A sharing strategy."""

    ALL = "all"
    ATTENTION = "attention"
    FFN = "ffn"
    NONE = "none"

    def shares(self, part: Part) -> bool:
        """Whether the layers share this part."""
        return part in _SHARED[self]

    @staticmethod
    def of(parts: Set[Part]) -> "Share":
        """The strategy that shares exactly these parts."""
        return next(strategy for strategy, shared in _SHARED.items() if shared == parts)


_SHARED: Mapping[Share, Set[Part]] = {
    Share.ALL: {Part.ATTENTION, Part.FFN}, Share.ATTENTION: {Part.ATTENTION}, Share.FFN: {Part.FFN}, Share.NONE: set(),
}  # fmt: skip


class _Group(Protocol):
    """The group ``share``."""

    @property
    def strategy(self) -> Share:
        """The sharing strategy."""

    @property
    def groups(self) -> int:
        """Number of groups of consecutive layers; each group has its own parameters."""

    @property
    def inner(self) -> int:
        """Number of layers in the stack that a group repeats."""


def _contradictions(share: _Group, c: Settings) -> list[str]:
    problems = []
    if share.groups > c.model.layers:
        problems.append(
            f"share.groups={share.groups} exceeds model.layers={c.model.layers}: a group needs a layer. "
            f"Use share.groups={c.model.layers} or fewer."
        )
    if share.groups > 1 and share.strategy is Share.NONE:
        problems.append(f"share.groups={share.groups} has no effect with share=none: nothing is shared. Set it to 1.")
    stacks, odd = divmod(c.model.layers, share.inner)
    if share.inner > 1 and (odd or stacks < share.groups):
        problems.append(
            f"share.inner={share.inner} with share.groups={share.groups} does not divide "
            f"model.layers={c.model.layers}: every group repeats whole stacks of share.inner layers. Set it to 1."
        )
    if share.inner > 1 and share.strategy is Share.NONE:
        problems.append(f"share.inner={share.inner} has no effect with share=none: nothing is shared. Set it to 1.")
    return problems


SHARE = Axis(
    "share", "strategy", "what layers have in common",
    {
        Share.ALL: "all shared", Share.ATTENTION: "shared attention", Share.FFN: "shared FFN",
        Share.NONE: "not shared",
    },
    beside={"share.groups": 1}, contradictions=_contradictions,
)  # fmt: skip
