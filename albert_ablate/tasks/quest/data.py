"""Reads Google QUEST's files, or a generated table in their format, and splits the questions into folds."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from albert_ablate import streams
from albert_ablate.config.tasks import FineTuneConfig, QuestConfig
from albert_ablate.errors import DataError
from albert_ablate.tasks.quest.columns import HEADER, INPUTS, TARGETS
from albert_ablate.tasks.quest.generated import quest_table
from albert_ablate.tasks.tables import Row, find, named, read_rows, require_unique, rows_of
from albert_ablate.tasks.texts.examples import number
from albert_ablate.tasks.texts.sets import Example, ExampleSets

#: Decimals to which targets are rounded: the file has both 0.6666666666666666 and 0.6666666666666667.
DECIMALS = 9
_HERE = "docs/quest.md"
_TEST = "test"


@dataclass(frozen=True)
class QuestExample(Example):
    """A row; ``first`` and ``second`` are the texts of the first pass."""

    title: str = ""
    question: str = ""  # the body, which identifies the question


def quest_files(common: FineTuneConfig, task: QuestConfig) -> dict[str, Path]:
    """``train``, ``dev`` if the user names it, and ``test`` where test.csv lies beside train.csv.

    Raises DataError: a file is missing; the message says where the data are from and where they belong.
    """
    if task.train_file is not None:
        files = {"train": named(f"tasks.{task.name}.train_file", task.train_file)}
    elif common.data_dir is None:
        raise DataError(
            f"{task.name}: where is train.csv of Google QUEST? Download it from Kaggle (competition "
            "google-quest-challenge; an account and its accepted rules are needed), put it and test.csv into a folder, "
            "and give task.data_dir=FOLDER. task=quest_generated needs no download."
        )
    else:
        folders = ("google-quest-challenge", "QUEST")
        files = {"train": find(f"tasks.{task.name}.train_file", common.data_dir, folders, "train", (".csv",))}
    if task.dev_file is not None:
        files["dev"] = named(f"tasks.{task.name}.dev_file", task.dev_file)
    beside = [files["train"].with_name(f"{_TEST}.csv{packed}") for packed in ("", ".xz", ".gz")]
    found = next((file for file in beside if file.is_file() and file != files["train"]), None)
    return files if found is None else files | {_TEST: found}


def read_quest(task: QuestConfig, files: dict[str, Path] | None) -> ExampleSets:
    """The examples of a task; ``files`` None: generated. Without a dev file, a fold of the questions is held out.

    Raises DataError for other columns than the official ones, empty texts, targets that are no numbers from 0 to 1,
    repeated ids, and a split that leaves a side empty.
    """
    names = TARGETS[task.targets]
    test: dict[str, list[Example]] = {}
    if files is None:
        train = _examples(task, _generated_rows(task), HEADER, names)
    else:
        train = _examples(task, read_rows(files["train"]), HEADER, names)
        if _TEST in files:
            test[_TEST] = [*_examples(task, read_rows(files[_TEST]), INPUTS, ())]
    if files is not None and "dev" in files:
        dev = _examples(task, read_rows(files["dev"]), HEADER, names)
    else:
        sides = folds_of([example.question for example in train], task.folds)
        dev = [example for example, side in zip(train, sides, strict=True) if side == task.fold]
        train = [example for example, side in zip(train, sides, strict=True) if side != task.fold]
        if not train or not dev:
            where = f"tasks.{task.name}"
            raise DataError(
                f"{where}.fold={task.fold} of {where}.folds={task.folds} leaves {len(train)} training and {len(dev)} "
                f"dev rows. Try another fold, or fewer."
            )
    sets = ExampleSets("values", names, list[Example](train), {"dev": list[Example](dev)}, test)
    sets.counts["questions"] = {"train": _questions(train), "dev": _questions(dev)}
    return sets


def folds_of(questions: Sequence[str], folds: int) -> np.ndarray:
    """(N,) the fold of each row, from 0: a hash of the text of its question, so that equal questions share one."""
    return np.array([streams.key(0, "quest fold", question) % folds for question in questions])


def _questions(examples: Sequence[QuestExample]) -> int:
    return len({example.question for example in examples})


def _generated_rows(task: QuestConfig) -> Iterator[Row]:
    return rows_of(Path("generated.csv"), io.StringIO(quest_table(task.questions), newline=""))


def _examples(
    task: QuestConfig, rows: Iterator[Row], header: Sequence[str], names: Sequence[str]
) -> list[QuestExample]:
    made, checked = [], False
    for row in rows:
        if not checked:
            _require_header(row, header)
            checked = True
        made.append((_example(task, row, names), row))
    if not made:
        raise DataError(f"tasks.{task.name}: the table has no rows.")
    require_unique([(example.id, row) for example, row in made], "qa_id")
    return [example for example, _ in made]


def _require_header(row: Row, header: Sequence[str]) -> None:
    """Raise DataError that names the first column that is not the official one."""
    found = list(row.values)
    for place, (have, want) in enumerate(zip(found, header, strict=False), 1):
        if have != want:
            raise DataError(f"{row.file}: column {place} is {have!r}, but {want!r} belongs there. See {_HERE}.")
    if len(found) > len(header):
        more = f"{found[len(header)]!r} is one too many"
        raise DataError(f"{row.file}: {len(found)} columns, but {len(header)} are expected; {more}. See {_HERE}.")
    if len(found) < len(header):
        kind = " This looks like test.csv, which has no targets." if tuple(found) == INPUTS else ""
        raise DataError(
            f"{row.file}: {len(found)} columns, but {len(header)} are expected; {header[len(found)]!r} is the first "
            f"that is missing.{kind} See {_HERE}."
        )


def _example(task: QuestConfig, row: Row, names: Sequence[str]) -> QuestExample:
    title, body = row.text("question_title"), row.text("question_body")
    whole = f"{title} {body}"
    first, second = (title, body) if task.input == "pair" else (whole, None)
    if task.input == "question_answer":
        second = row.text("answer")
    target = tuple(_share(row, name) for name in names) or None
    return QuestExample(row.identifier("qa_id"), first, second, target, title, body)


def _share(row: Row, column: str) -> float:
    """A target, rounded so that both spellings of a third are one value. Raises DataError outside of 0 to 1."""
    value = number(row, column)
    if not 0 <= value <= 1:
        raise row.error(f"{row.values[column]!r} in column {column!r} is not between 0 and 1.")
    return round(value, DECIMALS)
