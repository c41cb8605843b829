"""RACE: multiple choice with four answers (reference race_utils; paper, appendix A.3)."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F

from albert_ablate.config.tasks import FineTuneConfig, RaceConfig
from albert_ablate.data.tokenizer import Tokenizer
from albert_ablate.errors import DataError
from albert_ablate.model.architecture import Architecture
from albert_ablate.tasks import metrics
from albert_ablate.tasks.heads import PooledModel
from albert_ablate.tasks.hub import hub_rows
from albert_ablate.tasks.knowledge.reading import Knowledge
from albert_ablate.tasks.tables import Row, as_text, find, json_rows, named
from albert_ablate.tasks.task import (  # fmt: skip
    Baselines,
    Distribution,
    FeatureSet,
    HeadSettings,
    Meaning,
    Outputs,
    Sequences,
    SetScores,
    TaskBatch,
)

_LETTERS = "ABCD"
_LEVEL = re.compile("middle|high")


@dataclass(frozen=True)
class RaceQuestion:
    """One question about a passage."""

    id: str
    passage: str
    level: str
    article: str
    question: str
    options: tuple[str, ...]
    answer: int


def race_files(common: FineTuneConfig, task: RaceConfig) -> dict[str, list[Path]]:
    """``train/middle`` and so on -> files: official folders with one .txt per passage, or a .jsonl of passages.

    Raises DataError if a file is missing.
    """
    given = {"train": task.train_file, "dev": task.dev_file}
    if any(given.values()):
        files = {}
        for side, file in given.items():
            if file is None:
                raise DataError(f"tasks.{task.name}.{side}_file is empty: name both files, or neither.")
            files[f"{side}/all"] = [named(f"tasks.{task.name}.{side}_file", file)]
        return files
    return {f"{side}/{level}": _passages(common, task, side, level) for side in given for level in task.levels}


def _passages(common: FineTuneConfig, task: RaceConfig, side: str, level: str) -> list[Path]:
    if common.data_dir is not None:
        root = Path(common.data_dir).expanduser()
        for folder in (root / side / level, root / "RACE" / side / level, root / "race" / side / level):
            whole = folder / "all.txt"
            files = [whole] if whole.is_file() else sorted(folder.glob("*.txt"))
            if files:
                return files
    return [find(f"tasks.{task.name}.{side}_file", common.data_dir, ("RACE",), f"{side}-{level}", (".jsonl", ".txt"))]


def read_race(task: RaceConfig, files: dict[str, list[Path]] | None, side: str) -> list[RaceQuestion]:
    """Every question of one side. Raises DataError naming the wrong line."""
    questions: list[RaceQuestion] = []
    if files is None:
        for row in hub_rows(task.name, task.hub, {"train": "train", "dev": "validation"}[side], {}):
            v = row.values
            passage = {**v, "questions": [v["question"]], "options": [v["options"]], "answers": [v["answer"]]}
            level = "middle" if str(v["example_id"]).startswith("middle") else "high"
            if level in task.levels:
                passage["id"] = f"{v['example_id']}#{row.line}"  # on the hub a row is a question
                questions += _questions(Row(row.file, row.line, passage), level)
        return questions
    for key, paths in files.items():
        if not key.startswith(side):
            continue
        for path in paths:
            for row in json_rows(path):
                level = key.partition("/")[2]
                stated = _LEVEL.match(str(row.values.get("id", "")))  # middle13.txt
                questions += _questions(row, stated.group() if level == "all" and stated else level)
    if not questions:
        raise DataError(f"tasks.{task.name}: no {side} questions.")
    seen: set[str] = set()
    for question in questions:
        if question.id in seen:
            raise DataError(f"tasks.{task.name}: question {question.id!r} occurs twice in {side}; ids must differ.")
        seen.add(question.id)
    return questions


def _questions(row: Row, level: str) -> list[RaceQuestion]:
    v = row.values
    try:
        passage = str(v.get("id") or f"{row.file.name}-{row.line}")
        for name in ("questions", "options", "answers"):
            if not isinstance(v[name], list):
                raise TypeError(f"{name} is {type(v[name]).__name__}, not a list")
        article = as_text(v["article"])
        parts = list(zip(v["questions"], v["options"], v["answers"], strict=True))
        made = []
        for number, (question, options, answer) in enumerate(parts):
            if answer not in tuple(_LETTERS) or not isinstance(options, list) or len(options) != len(_LETTERS):
                raise row.error(
                    f"question {number + 1}: four options and an answer A to D are expected, not {answer!r}."
                )
            made.append(
                RaceQuestion(
                    f"{level}/{passage}-{number}",
                    f"{level}/{passage}",
                    level,
                    article,
                    as_text(question),
                    tuple(map(as_text, options)),
                    _LETTERS.index(answer),
                )
            )
        return made
    except (KeyError, ValueError, TypeError) as error:
        raise row.error(
            "not RACE's layout; expected are id, article, questions, options, answers "
            f"({type(error).__name__}: {error})."
        ) from error


def filled(question: str, option: str) -> str:
    """The question with the option in place of every gap (_); without a gap the option follows the question."""
    return question.replace("_", option) if "_" in question else f"{question} {option}"


class RaceTask:
    """Four sequences [CLS] article [SEP] question with option [SEP]; softmax over their scores."""

    metric = "accuracy"
    distribution: Distribution | None = "classes"  # the choices
    meaning = Meaning("choices")

    def __init__(
        self,
        task: RaceConfig,
        train: list[RaceQuestion],
        dev: list[RaceQuestion],
        tokenizer: Tokenizer,
        max_length: int,
        knowledge: Knowledge | None = None,
    ) -> None:
        """``knowledge``: facts that are read beside the texts."""
        self._knowledge = knowledge
        self.name = task.name
        self._questions = {"all": dev}
        levels = sorted({q.level for q in dev}, reverse=True)
        if len(levels) > 1:
            self._questions |= {level: [q for q in dev if q.level == level] for level in levels}
        #: Most pieces of question and option: 128 of 512, proportionally fewer in shorter sequences.
        self._query = min(task.max_query, max(8, round(task.max_query * max_length / task.recipe.max_length)))
        self.train = self._features(train, tokenizer, max_length)
        self.dev = {"all": self._features(dev, tokenizer, max_length)}
        self.test: dict[str, FeatureSet] = {}
        self.examples = len(train)
        self.counts: dict[str, Any] = {
            "train": len(train), "dev": {name: len(questions) for name, questions in self._questions.items()},
            "articles_cut": self._cut,
        }  # fmt: skip

    def _features(self, questions: list[RaceQuestion], tokenizer: Tokenizer, max_length: int) -> FeatureSet:
        texts = list(dict.fromkeys(q.article for q in questions))
        articles = dict(zip(texts, tokenizer.encode(texts), strict=True))
        asked = tokenizer.encode([filled(q.question, option) for q in questions for option in q.options])
        second = [ids[-self._query :] for ids in asked]  # the end is kept
        whole = [articles[q.article] for q in questions for _ in q.options]
        first = [ids[: max_length - 3 - len(query)] for ids, query in zip(whole, second, strict=True)]
        self._cut = sum(len(a) < len(b) for a, b in zip(first, whole, strict=True)) // len(_LETTERS)
        targets = np.array([q.answer for q in questions], np.int64)
        if self._knowledge is None:
            sequences = Sequences.of(first, second)
        else:
            sequences = self._knowledge.sequences(first, second, max_length, tokenizer)
        return FeatureSet(sequences, targets, choices=len(_LETTERS))

    def build(self, shape: Architecture, head: HeadSettings) -> nn.Module:
        """One score for each sequence."""
        return PooledModel(shape, 1, head)

    def loss(self, model: nn.Module, batch: TaskBatch) -> Tensor:
        """Cross-entropy over the four choices, summed over questions."""
        return F.cross_entropy(model(batch), batch.targets, reduction="sum")

    def outputs(self, model: nn.Module, batch: TaskBatch) -> dict[str, Tensor]:
        """``logits`` (B, 4)."""
        return {"logits": model(batch)}

    def scores(self, name: str, outputs: Outputs) -> SetScores:
        """Accuracy over all, middle and high; the interval treats passages as independent."""
        right = outputs["logits"].argmax(1) == np.array([q.answer for q in self._questions["all"]])
        by_level: dict[str, Any] = {}
        levels = np.array([q.level for q in self._questions["all"]])
        passages = np.array([q.passage for q in self._questions["all"]])
        for level in self._questions:
            rows = np.ones(len(right), bool) if level == "all" else levels == level
            by_level[level] = {"n": int(rows.sum())} | metrics.clustered(right[rows].astype(float), passages[rows])
        record = {"n": len(right), "accuracy": {k: by_level["all"][k] for k in ("value", "interval")}}
        record |= {level: by_level[level] for level in by_level if level != "all"}
        return SetScores(record, float(right.mean()), float(right.mean()))

    def files(self, name: str, outputs: Outputs) -> dict[str, str]:
        """``predictions.json``: question id -> letter."""
        letters = [_LETTERS[i] for i in outputs["logits"].argmax(1)]
        ids = [q.id for q in self._questions["all"]]
        return {"predictions.json": json.dumps(dict(zip(ids, letters, strict=True)), indent=1) + "\n"}

    def baselines(self, bag_of_words: bool) -> Baselines:
        """Accuracy of always answering the most frequent letter."""
        answers = np.bincount([q.answer for q in self._questions["all"]], minlength=4)
        return {"all": {"score": {"majority": float(answers.max() / answers.sum())}}}
