"""Entities counted a second time: sentences of columns or with spans, and F1 with exact boundaries."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

#: The words of a sentence and their tags.
Tagged = tuple[tuple[str, ...], tuple[str, ...]]
#: (label, first, end) of an entity, in words or characters.
Entity = tuple[str, int, int]


def columns(text: str) -> Iterator[Tagged]:
    """Sentences of columns, the word first and the tag last; documents' first lines are left out."""
    rows: list[list[str]] = []
    for line in [*text.split("\n"), ""]:
        cells = [cell.strip(" ") for cell in line.strip("\r").split("\t" if "\t" in line else " ")]
        cells = [cell for cell in cells if cell]
        if cells and cells[0] != "-DOCSTART-":
            rows.append(cells)
        elif rows:
            yield tuple(row[0] for row in rows), tuple(row[-1] for row in rows)
            rows = []


def with_spans(text: str) -> Iterator[tuple[str, set[Entity]]]:
    """Texts of JSON lines with their spans."""
    for line in filter(str.strip, text.split("\n")):
        row: dict[str, Any] = json.loads(line)
        spans = row["entities"] if "entities" in row else row["spans"]
        yield row["text"], {(span["label"], span["start"], span["end"]) for span in spans}


def found(tags: Sequence[str], strict: bool = False) -> set[Entity]:
    """The entities of IOB1 or IOB2; with ``strict`` only those that begin with B-."""
    made, start = set(), None
    for place, tag in enumerate([*tags, "O"]):
        if start is not None and tag != f"I-{tags[start][2:]}":
            if not strict or tags[start][0] == "B":
                made.add((tags[start][2:], start, place))
            start = None
        if start is None and tag != "O":
            start = place
    return made


def scores(pairs: Sequence[tuple[set[Entity], set[Entity]]]) -> dict[str, dict[str, Any]]:
    """F1, precision and recall of (predicted, right) entities of each sentence."""
    right = sum(len(a & b) for a, b in pairs)
    predicted, present = (sum(len(pair[side]) for pair in pairs) for side in (0, 1))
    values = {
        "f1": 2 * right / (predicted + present) if predicted + present else 0.0,
        "precision": right / predicted if predicted else 0.0, "recall": right / present if present else 0.0,
    }  # fmt: skip
    return {name: {"value": value} for name, value in values.items()}
