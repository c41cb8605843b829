"""SQuAD files and features: windows of pieces, gold positions (reference squad_utils).

A window is [CLS] question [SEP] part of the paragraph [SEP]. Of the windows that hold a piece, the
one in which it has the most context on its smaller side may use it ("max context").
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from albert_ablate.config.tasks import HubTask, SquadConfig
from albert_ablate.data.tokenizer import CLS, SEP, Tokenizer
from albert_ablate.errors import DataError
from albert_ablate.files import open_text
from albert_ablate.tasks.hub import hub_rows
from albert_ablate.tasks.squad.alignment import Aligned, align
from albert_ablate.tasks.tables import as_text
from albert_ablate.tasks.task import FeatureSet, Sequences


@dataclass(frozen=True)
class Question:
    """One question with its answers; none where it cannot be answered."""

    id: str
    paragraph: int
    text: str
    answers: tuple[str, ...]
    start: int  # character of the first answer in the paragraph; -1 without one


@dataclass
class SquadSet:
    """Paragraphs and questions of one file."""

    paragraphs: list[str]
    questions: list[Question]

    @property
    def golds(self) -> dict[str, tuple[str, ...]]:
        """Question id -> answers."""
        return {q.id: q.answers for q in self.questions}


def read_squad(path: Path, version: str) -> SquadSet:
    """An official file. Raises DataError naming the place of what is wrong."""
    with open_text(path) as source:
        try:
            content = json.load(source)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}, line {error.lineno}: not JSON ({error.msg}).") from error
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}: not JSON ({error}).") from error
    found = SquadSet([], [])
    try:
        for article in content["data"]:
            for paragraph in article["paragraphs"]:
                place = f"{path}, {article.get('title', 'article')}, paragraph {len(found.paragraphs)}"
                found.paragraphs.append(as_text(paragraph["context"]))
                for qa in paragraph["qas"]:
                    found.questions.append(_question(qa, len(found.paragraphs) - 1, version, place))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        where = f"paragraph {len(found.paragraphs)}, question {len(found.questions) + 1}"
        raise DataError(
            f"{path}, {where}: not SQuAD's layout; expected is data / paragraphs / context, qas / id, question, "
            f"answers / text, answer_start ({type(error).__name__}: {error})."
        ) from error
    return _checked(found, str(path))


def hub_squad(task: str, source: HubTask | None, split: str, version: str) -> SquadSet:
    """The same from the hub, a question a row."""
    found, places = SquadSet([], []), dict[str, int]()
    for row in hub_rows(task, source, split, {}):
        v = row.values
        try:
            place = places.setdefault(as_text(v["context"]), len(places))
            if place == len(found.paragraphs):
                found.paragraphs.append(v["context"])
            answers = [
                {"text": t, "answer_start": s}
                for t, s in zip(v["answers"]["text"], v["answers"]["answer_start"], strict=True)
            ]
            found.questions.append(_question({**v, "answers": answers}, place, version, f"{row.file}, row {row.line}"))
        except (KeyError, TypeError, ValueError) as error:
            raise row.error(f"not SQuAD's columns ({type(error).__name__}: {error}).") from error
    return _checked(found, f"{task}, {split}")


def _question(qa: dict[str, Any], paragraph: int, version: str, place: str) -> Question:
    answers = qa["answers"]
    if not answers and version == "1.1":
        raise DataError(f"{place}, question {qa['id']}: no answer. SQuAD 1.1 has one to every question; is it 2.0?")
    texts = tuple(as_text(answer["text"]) for answer in answers)
    start = answers[0]["answer_start"] if answers else -1
    if not isinstance(start, int) or (answers and start < 0):
        raise TypeError(f"answer_start is {start!r}, not a place in the paragraph")
    return Question(str(qa["id"]), paragraph, as_text(qa["question"]), texts, start)


def _checked(found: SquadSet, where: str) -> SquadSet:
    if not found.questions:
        raise DataError(f"{where}: no questions.")
    seen: set[str] = set()
    for question in found.questions:
        if question.id in seen:
            raise DataError(f"{where}: question id {question.id!r} occurs twice; predictions would be lost.")
        seen.add(question.id)
    return found


@dataclass(frozen=True)
class Windows:
    """Windows of a set, in the order of their questions."""

    features: FeatureSet  # targets (W, 3): start, end, and 1 where the window has no answer
    question: np.ndarray  # (W,)
    first: np.ndarray  # (W,) place of the first paragraph piece in the window
    offset: np.ndarray  # (W,) number of that piece in the paragraph
    length: np.ndarray  # (W,) paragraph pieces in the window
    low: np.ndarray  # (W,) first piece of the paragraph that the window may use
    high: np.ndarray  # (W,) the one after the last
    pieces: list[Aligned]  # of each paragraph


def build_windows(found: SquadSet, tokenizer: Tokenizer, task: SquadConfig, max_length: int) -> Windows:
    """Every question's windows; each paragraph is turned into pieces once."""
    pieces = align(found.paragraphs, tokenizer)
    queries = [ids[: task.max_query] for ids in tokenizer.encode([q.text for q in found.questions])]
    stride = max(1, round(task.stride * max_length / task.recipe.max_length))
    rows: list[list[int]] = []
    second, question, offset, length, targets = [], [], [], [], []
    bounds: list[tuple[np.ndarray, np.ndarray]] = []
    for number, (q, query) in enumerate(zip(found.questions, queries, strict=True)):
        document = pieces[q.paragraph]
        query = query[: max(0, max_length // 2 - 3)]
        spans = document_spans(len(document), max_length - len(query) - 3, stride)
        gold = gold_pieces(q, document)
        ids = document.ids.tolist()
        for begin, count in spans:
            rows.append([CLS, *query, SEP, *ids[begin : begin + count], SEP])
            second.append(len(query) + 2)
            question.append(number)
            offset.append(begin)
            length.append(count)
            targets.append(_target(gold, begin, count, len(query) + 2))
        bounds.append(max_context(spans))
    low, high = (np.concatenate(side) for side in zip(*bounds, strict=True))
    return Windows(
        FeatureSet(Sequences.of_rows(rows, second), np.array(targets, np.int64)), np.array(question), np.array(second),
        np.array(offset), np.array(length), low, high, pieces,
    )  # fmt: skip


def document_spans(pieces: int, room: int, stride: int) -> list[tuple[int, int]]:
    """(first piece, count) of each window of a paragraph; one window at least."""
    spans, begin = [], 0
    while True:
        count = min(room, pieces - begin)
        spans.append((begin, count))
        if begin + count >= pieces:
            return spans
        begin += min(count, stride)


def max_context(spans: Sequence[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """For each window the first and the one after the last piece of the paragraph that it may use.

    A piece belongs to the window with the largest min(pieces to its left, pieces to its right) +
    0.01 x length, the earliest of equals; what belongs to a window is one run of pieces.
    """
    begin, count = (np.array(column) for column in zip(*spans, strict=True))
    total = int((begin + count).max())
    places = np.arange(total)
    left = places - begin[:, None]  # (windows, pieces)
    right = begin[:, None] + count[:, None] - 1 - places
    scores = np.where((left >= 0) & (right >= 0), np.minimum(left, right) + 0.01 * count[:, None], -np.inf)
    owner = scores.argmax(0) if total else np.zeros(0, np.int64)
    first = np.searchsorted(owner, np.arange(len(spans)), side="left")
    last = np.searchsorted(owner, np.arange(len(spans)), side="right")
    return first, last


def gold_pieces(question: Question, document: Aligned) -> tuple[int, int] | None:
    """First and last piece that hold a character of the first answer; None where there is no answer."""
    if not question.answers or not len(document):
        return None
    start, end = question.start, question.start + len(question.answers[0])
    touched = np.flatnonzero((document.start < end) & (document.end > start))
    return (int(touched[0]), int(touched[-1])) if len(touched) else None


def _target(gold: tuple[int, int] | None, begin: int, count: int, first: int) -> tuple[int, int, int]:
    """Positions in the window; [CLS] and 1 where the window does not hold the whole answer."""
    if gold is None or gold[0] < begin or gold[1] >= begin + count:
        return 0, 0, 1
    return gold[0] - begin + first, gold[1] - begin + first, 0


def misplaced(found: SquadSet) -> list[str]:
    """Questions whose first answer does not stand where its file says."""
    return [
        q.id for q in found.questions
        if q.answers and found.paragraphs[q.paragraph][q.start : q.start + len(q.answers[0])] != q.answers[0]
    ]  # fmt: skip
