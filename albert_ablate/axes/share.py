"""Which parameters all layers have in common (paper, section 3.1 and Table 4); read by ``model/sharing.py``."""

from enum import StrEnum
from typing import TYPE_CHECKING

from albert_ablate.axes.axis import Axis

if TYPE_CHECKING:
    from albert_ablate.config import RunConfig


class Share(StrEnum):
    """A sharing strategy."""

    ALL = "all"
    ATTENTION = "attention"
    FFN = "ffn"
    NONE = "none"

    @property
    def shared(self) -> tuple[bool, bool]:
        """Whether layers have (their attention blocks, their feed-forward blocks) in common."""
        return _SHARED[self]

    @staticmethod
    def of(attention: bool, ffn: bool) -> "Share":
        """The strategy under which layers have these blocks in common."""
        return next(strategy for strategy, shared in _SHARED.items() if shared == (attention, ffn))


_SHARED = {
    Share.ALL: (True, True), Share.ATTENTION: (True, False), Share.FFN: (False, True), Share.NONE: (False, False),
}  # fmt: skip


def _contradictions(c: "RunConfig") -> list[str]:
    found = []
    if c.share.groups > c.model.layers:
        found.append(
            f"share.groups={c.share.groups} exceeds model.layers={c.model.layers}: a group needs a layer. "
            f"Use share.groups={c.model.layers} or fewer."
        )
    if c.share.groups > 1 and c.share.strategy is Share.NONE:
        found.append(f"share.groups={c.share.groups} has no effect with share=none: nothing is shared. Set it to 1.")
    stacks, odd = divmod(c.model.layers, c.share.inner)
    if c.share.inner > 1 and (odd or stacks < c.share.groups):
        found.append(
            f"share.inner={c.share.inner} with share.groups={c.share.groups} does not divide "
            f"model.layers={c.model.layers}: every group repeats whole stacks of share.inner layers. Set it to 1."
        )
    if c.share.inner > 1 and c.share.strategy is Share.NONE:
        found.append(f"share.inner={c.share.inner} has no effect with share=none: nothing is shared. Set it to 1.")
    return found


SHARE = Axis(
    "share", "strategy", "what layers have in common",
    {
        Share.ALL: "all shared", Share.ATTENTION: "shared attention", Share.FFN: "shared FFN",
        Share.NONE: "not shared",
    },
    beside={"share.groups": 1}, contradictions=_contradictions,
)  # fmt: skip
