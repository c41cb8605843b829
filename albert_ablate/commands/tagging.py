"""Words with the tags that a fine-tuning gives them, for the command ``predict``.

A .jsonl with texts is written with the entities of each; any other file holds words, one a line, the word first and an
empty line between sentences, and is written with the tag as a further column.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from albert_ablate import console
from albert_ablate.errors import DataError
from albert_ablate.files import write_text

if TYPE_CHECKING:  # they load torch
    from albert_ablate.tasks.answering import Answerer
    from albert_ablate.tasks.task import TagsWords

#: Endings of tables, whose texts are not read here.
_TABLES = (".csv",)


def tag_file(answerer: "Answerer", file: Path, out: Path, text: str | None) -> None:
    """Write ``file`` with tags or entities to ``out``; ``text`` names the texts of a .jsonl. Raises DataError."""
    from albert_ablate.tasks.task import TagsWords

    task = answerer.task
    assert isinstance(task, TagsWords)
    name = file.name.lower().removesuffix(".xz").removesuffix(".gz")
    if name.endswith(_TABLES):
        raise DataError(
            f"{file}: {task.name} reads a .jsonl with a text in each line, or a file with a word in each line, and an "
            "empty line between sentences."
        )
    with console.stage(f"tagging {file.name}"):
        if name.endswith(".jsonl"):
            _tag_texts(answerer, task, file, out, text or "text")
        else:
            _tag_words(answerer, task, file, out)


def _tag_texts(answerer: "Answerer", task: "TagsWords", file: Path, out: Path, column: str) -> None:
    from albert_ablate.tasks.tables import json_rows, require_columns, write_rows

    rows = list(json_rows(file))
    if not rows:
        raise DataError(f"{file}: no rows.")
    for row in rows:
        require_columns(row, [column], "docs/tasks.md on predictions")
        if "entities" in row.values:
            raise row.error("there is a key 'entities' already, which the predictions need. Rename it.")
    texts = [row.text(column) for row in rows]
    # Sorted and without repeats, so that the batches do not depend on the order of the rows.
    distinct = sorted(set(texts))
    features = task.of_texts(distinct)
    found = dict(zip(distinct, task.entities(features, answerer.predict(features)), strict=True))
    made = [
        row.values | {"entities": [{**e._asdict(), "probability": float(f"{e.probability:.7g}")} for e in found[text]]}
        for row, text in zip(rows, texts, strict=True)
    ]
    write_rows(out, made, ".jsonl")


def _tag_words(answerer: "Answerer", task: "TagsWords", file: Path, out: Path) -> None:
    from albert_ablate.tasks.ner.data import blocks

    lines = [[cells for _, cells in block] for block in blocks(file)]
    if not lines:
        raise DataError(f"{file}: no words.")
    sentences = [tuple(cells[0] for cells in block) for block in lines]
    distinct = sorted(set(sentences))
    features = task.of_words(distinct)
    found = dict(zip(distinct, task.word_tags(features, answerer.predict(features)), strict=True))
    write_text(out, "\n".join(_columns(block, found[words]) for block, words in zip(lines, sentences, strict=True)))


def _columns(block: Sequence[Sequence[str]], tags: Sequence[tuple[str, float]]) -> str:
    return "".join("\t".join([*cells, tag]) + "\n" for cells, (tag, _) in zip(block, tags, strict=True))
