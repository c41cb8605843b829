"""The right answers of a fine-tuned task's dev sets, from the files that its manifest names."""

import csv
import io
import json
import unicodedata
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from albert_ablate.tasks.texts.glue import GLUE, GlueTask

from .files import open_text

_PACKED = ("", ".xz", ".gz")
_ERAS = {"1790-1849": 1850, "1850-1899": 1900, "1900-1949": 1950, "1950-today": 9999}


class NoGoldError(Exception):
    """Raised where the right answers are not available; the message is the reason."""


def where(given: str | None, data: Path | None) -> Path | None:
    """A file or folder named by the manifest, on this machine: at its path, else under the same name in ``data``."""
    if given is None:
        return data
    named = Path(given).expanduser()
    if data is not None and not named.exists():
        return data / named.name if (data / named.name).exists() else data
    return named


def glue(name: str, part: str, common: dict[str, Any], task: dict[str, Any], data: Path | None) -> list[Any]:
    """Targets in the order of the file: indices of labels, or numbers. Raises NoGoldError."""
    spec = GLUE[name]
    folders = (spec.folder, spec.folder.lower(), spec.folder.replace("-", ""), f"glue/{spec.folder}")
    file = _gold_file(where(common.get("data_dir"), data), folders, spec.dev[part], ".tsv", task.get("dev_file"))
    rows = _tabbed(file, spec)
    column = next((heading for heading in spec.target if rows and heading in rows[0]), None)
    if column is None:
        raise NoGoldError(f"{file.name} has no column {spec.target[0]}")
    if spec.labels is None:
        return [float(row[column]) for row in rows]
    cells = [row[column] for row in rows if row[column] not in ("-", "-1")]
    return [_label_index(word, spec.labels) for word in cells]


def _tabbed(file: Path, spec: GlueTask) -> list[dict[str, str]]:
    lines = [line.rstrip("\r").split("\t") for line in open_text(file).split("\n")]
    lines = [cells for cells in lines if any(cells)]
    headless = spec.header is not None and "label" not in lines[0]
    header = list(spec.header or ()) if headless else [cell.strip() for cell in lines.pop(0)]
    return [dict(zip(header, cells, strict=True)) for cells in lines if len(cells) == len(header)]


def texts(task: dict[str, Any], data: Path | None) -> dict[str, list[Any]]:
    """Row id -> its target cells, from a user's file. Raises NoGoldError."""
    given = task.get("dev_file") or task.get("train_file")
    file = where(given, data)
    if file is None or not file.is_file():
        raise NoGoldError(f"no gold at hand: {given} is not there")
    name = file.name.lower().removesuffix(".xz").removesuffix(".gz")
    targets = {}
    for line, row in table(open_text(file), name):
        key = str(row[task["id_column"]]) if task.get("id_column") else str(line)
        targets[key] = [row.get(column) for column in task["target_columns"]]
    return targets


def quest(task: dict[str, Any], common: dict[str, Any], data: Path | None) -> dict[str, tuple[str, dict[str, float]]]:
    """Row id -> (the body of its question, its targets), of Google QUEST's file or of a generated table."""
    if task["source"] == "generated":
        from albert_ablate.tasks.quest.generated import quest_table  # numpy and torch load slowly

        text = quest_table(task["questions"])
    else:
        named, root = task.get("dev_file") or task.get("train_file"), where(common.get("data_dir"), data)
        text = open_text(_gold_file(root, ("google-quest-challenge", "QUEST"), "train", ".csv", named))
    rows = [row for _, row in table(text, "train.csv")]
    targets = list(rows[0])[11:]
    return {row["qa_id"]: (row["question_body"], {n: round(float(row[n]), 9) for n in targets}) for row in rows}


def ner(task: dict[str, Any], common: dict[str, Any], data: Path | None, name: str) -> str:
    """The text of the file with the tags of a set, which may hold more sentences, or of the generated sentences."""
    if task["source"] == "generated":
        from albert_ablate.tasks.ner.generated import generated_sentences  # numpy and torch load slowly

        sentences = generated_sentences(task["sentences"])[name]
        blocks = [zip(s.written, s.tags or (), strict=True) for s in sentences]
        return "\n".join("".join(f"{word}\t{tag}\n" for word, tag in block) for block in blocks)
    root = where(common.get("data_dir"), data)
    files: dict[str, tuple[str | None, tuple[str, ...]]] = {
        "dev": (task.get("dev_file"), ("eng.testa", "dev", "valid")),
        "train": (task.get("train_file"), ("eng.train", "train")),
        "test": (task.get("test_file"), ("eng.testb", "test")),
    }  # fmt: skip
    sides = ("dev", "train") if name == "dev" else (name,)  # without a dev file a part of the training file
    for given, stems in (files[side] for side in sides):
        if given is not None:
            return open_text(_gold_file(root, (), "", "", given))
        if task.get("train_file") is not None:  # then nothing is looked for
            continue
        for stem, ending in ((s, e) for s in stems for e in ("", ".txt", ".conll", ".tsv", ".iob", ".bio", ".jsonl")):
            try:
                return open_text(_gold_file(root, ("CoNLL-2003", "conll2003", "NER"), stem, ending, None))
            except NoGoldError:
                continue
    raise NoGoldError("no gold at hand: its file is not there; say --data FOLDER")


def table(text: str, name: str) -> list[tuple[int, dict[str, Any]]]:
    """(line, row) for each row of a .jsonl, a .csv or a tab-separated file."""
    if name.endswith((".jsonl", ".json", ".ndjson")):
        return [(n, json.loads(line)) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    if name.endswith(".csv"):
        reader = csv.reader(io.StringIO(text, newline=""))
        lines = [(reader.line_num, cells) for cells in reader]
    else:
        lines = [(n, line.rstrip("\r").split("\t")) for n, line in enumerate(text.split("\n"), 1)]
    lines = [(n, cells) for n, cells in lines if any(cells)]
    header = [cell.strip() for cell in lines[0][1]]
    return [(n, dict(zip(header, cells, strict=False))) for n, cells in lines[1:]]


def squad(task: dict[str, Any], common: dict[str, Any], data: Path | None) -> dict[str, tuple[list[str], int]]:
    """Question id -> (its answers, the number of its paragraph). Raises NoGoldError."""
    stem = f"dev-v{task['version']}"
    file = _gold_file(where(common.get("data_dir"), data), ("SQuAD", "squad"), stem, ".json", task.get("dev_file"))
    answers, paragraph_number = {}, 0
    for article in json.loads(open_text(file))["data"]:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                answers[str(question["id"])] = ([answer["text"] for answer in question["answers"]], paragraph_number)
            paragraph_number += 1
    return answers


def race(task: dict[str, Any], common: dict[str, Any], data: Path | None) -> dict[str, str]:
    """Question id -> the letter of the right answer. Raises NoGoldError."""
    letters: dict[str, str] = {}
    for level, file in _race_files(task, common, data):
        for number, line in enumerate(open_text(file).split("\n"), 1):
            if not line.strip():
                continue
            row = json.loads(line)
            name = str(row.get("id") or f"{file.name}-{number}")
            named_level = next(
                (known_level for known_level in ("middle", "high") if name.startswith(known_level)), level
            )
            row_level = named_level if level == "all" else level
            for k, letter in enumerate(row["answers"]):
                letters[f"{row_level}/{name}-{k}"] = letter
    return letters


def _race_files(task: dict[str, Any], common: dict[str, Any], data: Path | None) -> list[tuple[str, Path]]:
    if task.get("dev_file"):
        return [("all", _gold_file(data, (), "", "", task["dev_file"]))]
    root, level_files = where(common.get("data_dir"), data), []
    for level in task.get("levels", ("middle", "high")):
        folders = [root / name / "dev" / level for name in ("", "RACE", "race")] if root else []
        files = next((sorted(folder.glob("*.txt")) for folder in folders if folder.is_dir()), [])
        files = [file for file in files if file.name == "all.txt"] or files
        if not files:
            suffix = ".jsonl"
            files = [_gold_file(root, ("RACE", "race"), f"dev-{level}", suffix, None)]
        level_files += [(level, file) for file in files]
    return level_files


def generated(task: str, identifier: str) -> str:
    """The class of an example of the embedded corpus, which follows from its id."""
    if task == "era":
        year = int(identifier.split("-")[0])
        return next(era for era, end in _ERAS.items() if year < end)
    from albert_ablate import streams  # torch loads slowly

    address, _, position = identifier.rpartition("-")
    return ("intact", "swapped")[int(streams.generator(0, "word order", address, int(position)).integers(2))]


def _gold_file(root: Path | None, folders: Sequence[str], stem: str, suffix: str, given: str | None) -> Path:
    """The file ``given``, else a file with the official name. Raises NoGoldError."""
    if given is not None:
        file = where(given, root)
        if file is not None and file.is_file():
            return file
        raise NoGoldError(f"no gold at hand: {given} is not there")
    if root is None:
        raise NoGoldError("no gold at hand: its data came from the hub; say --data FOLDER")
    folders_to_search = [root, *(root / name for name in folders)]
    for folder in folders_to_search:
        for name in (f"{stem}{suffix}{packed}" for packed in _PACKED):
            if (folder / name).is_file():
                return folder / name
    near = {file.resolve() for folder in folders_to_search if folder.is_dir() for file in folder.glob(f"{stem}[-_.]*")}
    if len(near) == 1:
        return near.pop()
    raise NoGoldError(f"no gold at hand: {root} has no {stem}{suffix}; say --data FOLDER")


def same_class(label: str) -> Any:
    """A key that is equal for spellings of one class: numbers by value, text in Unicode normal form C."""
    try:
        number = Decimal(str(label).strip())
    except InvalidOperation:
        return unicodedata.normalize("NFC", str(label).strip())
    return number if number.is_finite() else str(label).strip()


def _label_index(label: str, labels: Sequence[str]) -> int:
    known = [same_class(label) for label in labels]
    if same_class(label) not in known:
        raise NoGoldError(f"its label {label!r} is none of {', '.join(labels)}")
    return known.index(same_class(label))
