"""The width E of the factorised embedding (paper, section 3.1 and Table 3); read by ``model/embedding.py``."""

from typing import Protocol

from albert_ablate.axes.axis import Axis, Settings


class _Embed(Protocol):
    """The group ``embed``."""

    @property
    def size(self) -> int:
        """Width E of the embedding."""


def _contradictions(embed: _Embed, c: Settings) -> list[str]:
    if embed.size <= c.model.hidden or c.model.projection == "always":
        return []
    return [
        f"embed.size={embed.size} is larger than model.hidden={c.model.hidden} (model={c.model.name}): the "
        "factorisation V x E, E x H needs E <= H. Choose a smaller embed, embed=full (E = H), or a wider model; "
        "model.projection=always narrows the embedding, as the generators of ELECTRA do."
    ]


EMBED = Axis(
    "embed", "size", "width of the embedding", label="E={}", slug="e{}", column="E", contradictions=_contradictions
)
