"""The right answers of a fine-tuned task's dev sets, from the files that its manifest names."""

import csv
import io
import json
import unicodedata
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from albert_ablate.tasks.glue import GLUE, GlueTask

from .files import open_text

_PACKED = ("", ".xz", ".gz")
_ERAS = {"1790-1849": 1850, "1850-1899": 1900, "1900-1949": 1950, "1950-today": 9999}


class NoGoldError(Exception):
    """Why there are no right answers to compare with."""


def where(given: str | None, data: Path | None) -> Path | None:
    """A file or folder of the manifest, here: as it is named, else by its own name in ``data``."""
    if given is None:
        return data
    named = Path(given).expanduser()
    if data is not None and not named.exists():
        return data / named.name if (data / named.name).exists() else data
    return named


def glue(name: str, part: str, common: dict[str, Any], task: dict[str, Any], data: Path | None) -> list[Any]:
    """Targets in the order of the file: places of labels, or numbers. Raises NoGoldError."""
    spec = GLUE[name]
    folders = (spec.folder, spec.folder.lower(), spec.folder.replace("-", ""), f"glue/{spec.folder}")
    file = _found(where(common.get("data_dir"), data), folders, spec.dev[part], ".tsv", task.get("dev_file"))
    rows = _tabbed(file, spec)
    column = next((one for one in spec.target if rows and one in rows[0]), None)
    if column is None:
        raise NoGoldError(f"{file.name} has no column {spec.target[0]}")
    if spec.labels is None:
        return [float(row[column]) for row in rows]
    words = [row[column] for row in rows if row[column] not in ("-", "-1")]
    return [_place(word, spec.labels) for word in words]


def _tabbed(file: Path, spec: GlueTask) -> list[dict[str, str]]:
    lines = [line.rstrip("\r").split("\t") for line in open_text(file).split("\n")]
    lines = [cells for cells in lines if any(cells)]
    own = spec.header is not None and "label" not in lines[0]
    header = list(spec.header or ()) if own else [cell.strip() for cell in lines.pop(0)]
    return [dict(zip(header, cells, strict=True)) for cells in lines if len(cells) == len(header)]


def texts(task: dict[str, Any], data: Path | None) -> dict[str, list[Any]]:
    """Row's id -> its target cells, of a user's own file. Raises NoGoldError."""
    given = task.get("dev_file") or task.get("train_file")
    file = where(given, data)
    if file is None or not file.is_file():
        raise NoGoldError(f"no gold at hand: {given} is not there")
    name = file.name.lower().removesuffix(".xz").removesuffix(".gz")
    found = {}
    for line, row in _rows(open_text(file), name):
        key = str(row[task["id_column"]]) if task.get("id_column") else str(line)
        found[key] = [row.get(column) for column in task["target_columns"]]
    return found


def _rows(text: str, name: str) -> list[tuple[int, dict[str, Any]]]:
    """(line, row) of a .jsonl, a .csv or a file with tabs."""
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
    """Question's id -> (its answers, the place of its paragraph). Raises NoGoldError."""
    stem = f"dev-v{task['version']}"
    file = _found(where(common.get("data_dir"), data), ("SQuAD", "squad"), stem, ".json", task.get("dev_file"))
    found, place = {}, 0
    for article in json.loads(open_text(file))["data"]:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                found[str(question["id"])] = ([answer["text"] for answer in question["answers"]], place)
            place += 1
    return found


def race(task: dict[str, Any], common: dict[str, Any], data: Path | None) -> dict[str, str]:
    """Question's id -> its letter. Raises NoGoldError."""
    found: dict[str, str] = {}
    for level, file in _race_files(task, common, data):
        for number, line in enumerate(open_text(file).split("\n"), 1):
            if not line.strip():
                continue
            row = json.loads(line)
            name = str(row.get("id") or f"{file.name}-{number}")
            own = next((one for one in ("middle", "high") if name.startswith(one)), level)
            level_here = own if level == "all" else level
            for k, letter in enumerate(row["answers"]):
                found[f"{level_here}/{name}-{k}"] = letter
    return found


def _race_files(task: dict[str, Any], common: dict[str, Any], data: Path | None) -> list[tuple[str, Path]]:
    if task.get("dev_file"):
        return [("all", _found(data, (), "", "", task["dev_file"]))]
    root, found = where(common.get("data_dir"), data), []
    for level in task.get("levels", ("middle", "high")):
        folders = [root / name / "dev" / level for name in ("", "RACE", "race")] if root else []
        files = next((sorted(folder.glob("*.txt")) for folder in folders if folder.is_dir()), [])
        files = [file for file in files if file.name == "all.txt"] or files
        if not files:
            suffix = ".jsonl"
            files = [_found(root, ("RACE", "race"), f"dev-{level}", suffix, None)]
        found += [(level, file) for file in files]
    return found


def generated(task: str, identifier: str) -> str:
    """The class of an example of the embedded corpus, which its id decides."""
    if task == "era":
        year = int(identifier.split("-")[0])
        return next(era for era, end in _ERAS.items() if year < end)
    from albert_ablate import streams  # torch loads slowly

    address, _, place = identifier.rpartition("-")
    return ("intact", "swapped")[int(streams.generator(0, "word order", address, int(place)).integers(2))]


def _found(root: Path | None, folders: Sequence[str], stem: str, suffix: str, given: str | None) -> Path:
    """A file of an official name, or the one that is named. Raises NoGoldError."""
    if given is not None:
        file = where(given, root)
        if file is not None and file.is_file():
            return file
        raise NoGoldError(f"no gold at hand: {given} is not there")
    if root is None:
        raise NoGoldError("no gold at hand: its data came from the hub; say --data FOLDER")
    places = [root, *(root / name for name in folders)]
    for place in places:
        for name in (f"{stem}{suffix}{packed}" for packed in _PACKED):
            if (place / name).is_file():
                return place / name
    near = {file.resolve() for place in places if place.is_dir() for file in place.glob(f"{stem}[-_.]*")}
    if len(near) == 1:
        return near.pop()
    raise NoGoldError(f"no gold at hand: {root} has no {stem}{suffix}; say --data FOLDER")


def same_class(word: str) -> Any:
    """Equal for spellings of one class: numbers by value, words by their normal form."""
    try:
        number = Decimal(str(word).strip())
    except InvalidOperation:
        return unicodedata.normalize("NFC", str(word).strip())
    return number if number.is_finite() else str(word).strip()


def _place(word: str, labels: Sequence[str]) -> int:
    known = [same_class(label) for label in labels]
    if same_class(word) not in known:
        raise NoGoldError(f"its label {word!r} is none of {', '.join(labels)}")
    return known.index(same_class(word))
