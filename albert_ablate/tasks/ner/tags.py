"""Tags of words: IOB1 and IOB2 (Tjong Kim Sang and Veenstra, 1999), and spans of characters as tags.

Both schemes mark words inside an entity with I-X and words outside with O. In IOB2 every entity begins with B-X; in
IOB1 only one that directly follows another of its own type. Everything here is turned into IOB2.
"""

from collections.abc import Sequence
from typing import Literal

OUTSIDE = "O"
#: How the entities of a file are tagged; ``mixed``: some in each way; ``none``: no tag tells.
Scheme = Literal["IOB1", "IOB2", "mixed", "none"]


def parts(tag: str) -> tuple[str, str] | None:
    """(prefix, label) of a tag, ("O", "") outside; None if it is no tag of IOB1 or IOB2."""
    if tag == OUTSIDE:
        return OUTSIDE, ""
    prefix, dash, label = tag.partition("-")
    return (prefix, label) if dash and label and prefix in ("B", "I") else None


def label_of(tag: str) -> str:
    """The label of an entity's tag; empty outside."""
    return "" if tag == OUTSIDE else tag[2:]


def continued(tag: str) -> str:
    """The tag of what follows a word with ``tag`` in the same entity."""
    return tag if tag == OUTSIDE else f"I-{label_of(tag)}"


def to_iob2(tags: Sequence[str]) -> tuple[str, ...]:
    """The same entities in IOB2. Each B-X begins one, and each I-X that does not follow a word of its type."""
    before, made = OUTSIDE, []
    for tag in tags:
        starts = tag != OUTSIDE and (tag[0] == "B" or label_of(before) != label_of(tag))
        made.append(f"B-{label_of(tag)}" if starts else tag)
        before = tag
    return tuple(made)


def scheme_of(sentences: Sequence[Sequence[str]]) -> Scheme:
    """The scheme of a file's sentences: IOB1 if some entity begins with I-X, IOB2 if one begins with a needless B-X."""
    inside = needless = False
    for tags in sentences:
        before = OUTSIDE
        for tag in tags:
            new = tag != OUTSIDE and label_of(before) != label_of(tag)
            inside |= new and tag[0] == "I"
            needless |= new and tag[0] == "B"
            before = tag
    return "mixed" if inside and needless else "IOB1" if inside else "IOB2" if needless else "none"


def tag_names(labels: Sequence[str]) -> tuple[str, ...]:
    """The tags of these labels, in the order of a model's outputs: O, then B-X and I-X of each label."""
    return (OUTSIDE, *(f"{prefix}-{label}" for label in labels for prefix in "BI"))


def labels_of(names: Sequence[str]) -> tuple[str, ...]:
    """The labels of ``tag_names``."""
    return tuple(label_of(name) for name in names if name.startswith("B-"))


def entities(tags: Sequence[str], strict: bool = False) -> list[tuple[str, int, int]]:
    """(label, first word, end word) of each entity, by the rules of seqeval.

    As in the script conlleval an I-X may begin an entity; with ``strict`` only a B-X does (IOB2).
    """
    if strict:
        from seqeval.scheme import IOB2, Entities

        return [(entity.tag, entity.start, entity.end) for entity in Entities([list(tags)], IOB2).entities[0]]
    from seqeval.metrics.sequence_labeling import get_entities  # loads scikit-learn

    return [(label, start, end + 1) for label, start, end in get_entities(list(tags))]
