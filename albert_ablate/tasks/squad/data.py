"""SQuAD files and features: windows of pieces, gold positions (reference squad_utils).

A window is [CLS] question [SEP] part of the paragraph [SEP]. If several windows hold a piece, only the
window that gives it the most context on its shorter side may use it ("max context").
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
    """One question with its answers; no answers if it is unanswerable."""

    id: str
    paragraph: int  # index in ``SquadSet.paragraphs``
    text: str
    answers: tuple[str, ...]
    start: int  # index of the first answer's first character in the paragraph; -1 without an answer


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
    """Read an official file. Raises DataError naming the wrong paragraph and question."""
    with open_text(path) as source:
        try:
            content = json.load(source)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}, line {error.lineno}: not JSON ({error.msg}).") from error
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}: not JSON ({error}).") from error
    squad = SquadSet([], [])
    try:
        for article in content["data"]:
            for paragraph in article["paragraphs"]:
                where = f"{path}, {article.get('title', 'article')}, paragraph {len(squad.paragraphs)}"
                squad.paragraphs.append(as_text(paragraph["context"]))
                for qa in paragraph["qas"]:
                    squad.questions.append(_question(qa, len(squad.paragraphs) - 1, version, where))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        last = f"paragraph {len(squad.paragraphs)}, question {len(squad.questions) + 1}"
        raise DataError(
            f"{path}, {last}: not SQuAD's layout; expected is data / paragraphs / context, qas / id, question, "
            f"answers / text, answer_start ({type(error).__name__}: {error})."
        ) from error
    return _checked(squad, str(path))


def hub_squad(task: str, source: HubTask | None, split: str, version: str) -> SquadSet:
    """The set of one split on the hub, where a row is a question. Raises DataError."""
    squad, numbers = SquadSet([], []), dict[str, int]()
    for row in hub_rows(task, source, split, {}):
        v = row.values
        try:
            paragraph = numbers.setdefault(as_text(v["context"]), len(numbers))
            if paragraph == len(squad.paragraphs):
                squad.paragraphs.append(v["context"])
            answers = [
                {"text": t, "answer_start": s}
                for t, s in zip(v["answers"]["text"], v["answers"]["answer_start"], strict=True)
            ]
            where = f"{row.file}, row {row.line}"
            squad.questions.append(_question({**v, "answers": answers}, paragraph, version, where))
        except (KeyError, TypeError, ValueError) as error:
            raise row.error(f"not SQuAD's columns ({type(error).__name__}: {error}).") from error
    return _checked(squad, f"{task}, {split}")


def _question(qa: dict[str, Any], paragraph: int, version: str, where: str) -> Question:
    answers = qa["answers"]
    if not answers and version == "1.1":
        raise DataError(f"{where}, question {qa['id']}: no answer. SQuAD 1.1 has one to every question; is it 2.0?")
    texts = tuple(as_text(answer["text"]) for answer in answers)
    start = answers[0]["answer_start"] if answers else -1
    if not isinstance(start, int) or (answers and start < 0):
        raise TypeError(f"answer_start is {start!r}, not a position in the paragraph")
    return Question(str(qa["id"]), paragraph, as_text(qa["question"]), texts, start)


def _checked(squad: SquadSet, where: str) -> SquadSet:
    if not squad.questions:
        raise DataError(f"{where}: no questions.")
    seen: set[str] = set()
    for question in squad.questions:
        if question.id in seen:
            raise DataError(f"{where}: question id {question.id!r} occurs twice; predictions would be lost.")
        seen.add(question.id)
    return squad


@dataclass(frozen=True)
class Windows:
    """W windows of a set, in the order of their questions."""

    features: FeatureSet  # targets (W, 3): start, end, and 1 where the window has no answer
    question: np.ndarray  # (W,) index of the question
    first: np.ndarray  # (W,) position of the first paragraph piece in the window
    offset: np.ndarray  # (W,) index of that piece in the paragraph
    length: np.ndarray  # (W,) number of paragraph pieces in the window
    low: np.ndarray  # (W,) first piece of the paragraph that the window may use
    high: np.ndarray  # (W,) end (exclusive) of the pieces that it may use
    pieces: list[Aligned]  # by paragraph


def build_windows(squad: SquadSet, tokenizer: Tokenizer, task: SquadConfig, max_length: int) -> Windows:
    """Windows of every question; each paragraph is tokenised once."""
    pieces = align(squad.paragraphs, tokenizer)
    queries = [ids[: task.max_query] for ids in tokenizer.encode([q.text for q in squad.questions])]
    stride = max(1, round(task.stride * max_length / task.recipe.max_length))
    rows: list[list[int]] = []
    second, question, offset, length, targets = [], [], [], [], []
    bounds: list[tuple[np.ndarray, np.ndarray]] = []
    for number, (q, query) in enumerate(zip(squad.questions, queries, strict=True)):
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
    none = np.zeros(0, np.int64)
    low, high = (np.concatenate(side) for side in zip((none, none), *bounds, strict=True))
    return Windows(
        FeatureSet(Sequences.of_rows(rows, second), np.array(targets, np.int64).reshape(-1, 3)), np.array(question),
        np.array(second), np.array(offset), np.array(length), low, high, pieces,
    )  # fmt: skip


def document_spans(pieces: int, room: int, stride: int) -> list[tuple[int, int]]:
    """(first piece, number of pieces) of each window of a paragraph; at least one window."""
    spans, begin = [], 0
    while True:
        count = min(room, pieces - begin)
        spans.append((begin, count))
        if begin + count >= pieces:
            return spans
        begin += min(count, stride)


def max_context(spans: Sequence[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """(starts, ends) of the pieces of the paragraph that each window may use, ends exclusive.

    A piece belongs to the window with the largest min(pieces to its left, pieces to its right) +
    0.01 x length, the earliest if equal. The pieces of a window are contiguous.
    """
    begin, count = (np.array(column) for column in zip(*spans, strict=True))
    total = int((begin + count).max())
    index = np.arange(total)
    left = index - begin[:, None]  # (windows, pieces)
    right = begin[:, None] + count[:, None] - 1 - index
    scores = np.where((left >= 0) & (right >= 0), np.minimum(left, right) + 0.01 * count[:, None], -np.inf)
    owner = scores.argmax(0) if total else np.zeros(0, np.int64)
    first = np.searchsorted(owner, np.arange(len(spans)), side="left")
    last = np.searchsorted(owner, np.arange(len(spans)), side="right")
    return first, last


def gold_pieces(question: Question, document: Aligned) -> tuple[int, int] | None:
    """(first, last) piece with a character of the first answer; None without an answer."""
    if not question.answers or not len(document):
        return None
    start, end = question.start, question.start + len(question.answers[0])
    touched = np.flatnonzero((document.start < end) & (document.end > start))
    return (int(touched[0]), int(touched[-1])) if len(touched) else None


def _target(gold: tuple[int, int] | None, begin: int, count: int, first: int) -> tuple[int, int, int]:
    """(start, end, 0) as positions in the window; (0, 0, 1) if the window does not hold the whole answer."""
    if gold is None or gold[0] < begin or gold[1] >= begin + count:
        return 0, 0, 1
    return gold[0] - begin + first, gold[1] - begin + first, 0


def misplaced(squad: SquadSet) -> list[str]:
    """Ids of questions whose first answer is not at the position given in the file."""
    return [
        q.id for q in squad.questions
        if q.answers and squad.paragraphs[q.paragraph][q.start : q.start + len(q.answers[0])] != q.answers[0]
    ]  # fmt: skip
