"""Reads examples of one or two texts with a label, several labels, or numbers: GLUE's files and a user's files."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from albert_ablate import streams
from albert_ablate.config.tasks import FineTuneConfig, GlueConfig, TaskBase, TextConfig
from albert_ablate.errors import DataError
from albert_ablate.tasks.hub import hub_rows
from albert_ablate.tasks.tables import Row, find, named, read_rows, require_columns, require_unique
from albert_ablate.tasks.texts.balance import hold_out
from albert_ablate.tasks.texts.glue import GLUE, GlueTask
from albert_ablate.tasks.texts.labels import classes, label_index, require_labels
from albert_ablate.tasks.texts.sets import Example, ExampleSets, Kind


def task_files(common: FineTuneConfig, task: GlueConfig | TextConfig) -> dict[str, Path]:
    """``train``, each dev set and each existing test set -> its file. Raises DataError if a file is missing."""
    if isinstance(task, TextConfig):
        return _user_files(task)
    spec, where = GLUE[task.name], f"tasks.{task.name}"
    main, *optional = spec.dev
    files = {"train": _glue_file(f"{where}.train_file", task.train_file, common, spec, "train")}
    files[main] = _glue_file(f"{where}.dev_file", task.dev_file, common, spec, spec.dev[main])
    for name in (*optional, *spec.test):  # further dev sets and test sets are optional
        if common.data_dir is not None and task.dev_file is None:
            try:
                files[name] = _glue_file(where, None, common, spec, (spec.dev | spec.test)[name])
            except DataError:
                continue
    return files


def _glue_file(field: str, given: str | None, common: FineTuneConfig, spec: GlueTask, stem: str) -> Path:
    if given is not None:
        return named(field, given)
    return find(field, common.data_dir, (spec.folder, spec.folder.replace("-", "")), stem, (".tsv",))


def _user_files(task: TextConfig) -> dict[str, Path]:
    if task.train_file is None:
        raise DataError(f"tasks.{task.name}.train_file is empty: name a .tsv, .csv or .jsonl file (or .xz, .gz).")
    files = {"train": named(f"tasks.{task.name}.train_file", task.train_file)}
    if task.dev_file is not None:
        files["dev"] = named(f"tasks.{task.name}.dev_file", task.dev_file)
    return files


def read_glue(task: GlueConfig, files: dict[str, Path] | None) -> ExampleSets:
    """A GLUE task from its files, or from the hub if ``files`` is None. Raises DataError."""
    spec = GLUE[task.name]
    short: list[int] = []
    unlabelled: list[int] = []

    def rows(name: str) -> list[Row]:
        if files is None:
            split = "train" if name == "train" else (spec.hub_dev or {"dev": "validation"})[name]
            return list(hub_rows(task.name, task.hub, split, {"label": spec.labels or ()}))
        return list(read_rows(files[name], _header(files[name], spec), short if spec.short_rows else None))

    def examples(name: str, labelled: bool) -> list[Example]:
        table = rows(name)
        if not table:
            raise DataError(f"tasks.{task.name}: {files[name] if files else name}: no rows.")
        first, second = _column(table[0], spec.first), _column(table[0], spec.second) if spec.second else None
        target = _column(table[0], spec.target) if labelled else None
        identifier = next((c for c in ("index", "id", "idx") if c in table[0].values), None)
        wanted = [name for name in (first, second, target, identifier) if name is not None]
        made = []
        for number, row in enumerate(table):
            require_columns(row, wanted, "docs/tasks.md for the official columns")
            value = None if target is None else _glue_target(row, target, spec, unlabelled)
            if target is not None and value is None:
                continue
            key = str(row.values[identifier]) if identifier else str(number)
            made.append((Example(key, row.text(first), row.text(second) if second else None, value), row))
        if not made:
            raise DataError(f"tasks.{task.name}: {files[name] if files else name}: no row has a label.")
        require_unique([(example.id, row) for example, row in made], "the id")
        return [example for example, _ in made]

    test = [name for name in spec.test if files is not None and name in files]
    dev = [name for name in spec.dev if files is None or name in files]
    kind: Kind = "values" if spec.labels is None else "classes"
    sets = ExampleSets(
        kind, spec.labels or ("score",), examples("train", True), {name: examples(name, True) for name in dev},
        {name: examples(name, False) for name in test}, columns=(spec.first, *([spec.second] if spec.second else [])),
    )  # fmt: skip
    sets.counts = {
        "rows_with_missing_fields_left_out": len(short),
        "rows_without_a_gold_label_left_out": len(unlabelled),
    }
    return sets


def _header(file: Path, spec: GlueTask) -> Sequence[str] | None:
    """The official header if the file lacks a header line, else None."""
    if spec.header is None or file.name.startswith("test"):
        return None
    first = next(iter(read_rows(file, [f"field {i}" for i in range(len(spec.header))])), None)
    return None if first is None or "label" in first.values.values() else spec.header


def _column(row: Row, names: Sequence[str]) -> str:
    column = next((name for name in names if name in row.values), None)
    if column is None:
        require_columns(row, [names[0]], "docs/tasks.md for the official columns")
    return str(column)


def _glue_target(row: Row, column: str, spec: GlueTask, unlabelled: list[int]) -> int | tuple[float, ...] | None:
    if spec.labels is None:
        return (number(row, column),)
    word = str(row.values[column])
    if word in ("-", "-1"):  # annotators did not agree, or a hidden label
        unlabelled.append(row.line)
        return None
    return label_index(row, column, spec.labels)


def number(row: Row, column: str) -> float:
    """The finite number in a cell. Raises DataError for anything else."""
    given = row.values[column]
    try:
        value = float("nan") if isinstance(given, bool) or "_" in str(given) else float(given)
    except (TypeError, ValueError, OverflowError):
        value = float("nan")
    if not np.isfinite(value):
        raise row.error(f"{row.values[column]!r} in column {column!r} is not a number.")
    return value


def read_text(task: TextConfig, files: dict[str, Path]) -> ExampleSets:
    """A task from a user's files; without a dev file, ``balance.hold_out`` splits the training rows.

    Raises DataError for missing columns, for labels that are empty, unknown or spelt in two ways, for
    invalid numbers and for repeated ids.
    """
    rows = {name: list(read_rows(path)) for name, path in files.items()}
    where = f"tasks.{task.name}"
    wanted = [*task.text_columns, *task.target_columns, *([task.id_column] if task.id_column else [])]
    for name, table in rows.items():
        if not table:
            raise DataError(f"{where}: {files[name]}: no rows.")
        for row in table:
            require_columns(row, wanted, f"{where}.text_columns and {where}.target_columns")
    kind: Kind = "values" if task.kind == "text_regression" else "labels"
    names, notes = task.target_columns, list[str]()
    if kind == "labels" and len(names) == 1:
        kind, field = "classes", f"{where}.labels"
        if task.labels is None:
            names, notes = classes(rows["train"], task.target_columns[0], field)
            if len(names) < 2:
                raise DataError(f"{where}: {files['train']} has the single label {names[0]!r}; two are needed.")
        else:
            names = task.labels
            require_labels(names, field)

    def target(row: Row) -> int | tuple[float, ...]:
        if kind == "classes":
            return label_index(row, task.target_columns[0], names, f"{where}.labels")
        if kind == "values":
            return tuple(number(row, column) for column in task.target_columns)
        return tuple(float(label_index(row, column, ("0", "1"))) for column in task.target_columns)

    def examples(table: Sequence[Row]) -> list[Example]:
        made = []
        for row in table:
            texts = [row.text(column) for column in task.text_columns]
            key = row.identifier(task.id_column) if task.id_column else str(row.line)
            made.append((Example(key, texts[0], texts[1] if len(texts) > 1 else None, target(row)), row))
        require_unique([(example.id, row) for example, row in made], "the id")
        return [example for example, _ in made]

    train, dev = examples(rows["train"]), {}
    if "dev" in rows:
        dev = {"dev": examples(rows["dev"])}
    else:
        train, dev["dev"] = hold_out(train, task)
        if not train or not dev["dev"]:
            raise DataError(
                f"{where}: {len(train)} training and {len(dev['dev'])} dev rows; raise {where}.dev_fraction."
            )
    return ExampleSets(kind, names, train, dev, notes=notes, columns=tuple((name,) for name in task.text_columns))


def limited(examples: list[Any], limit: int | None, purpose: str) -> list[Any]:
    """All examples, or ``limit`` of them in their order, the same for every run."""
    if limit is None or limit >= len(examples):
        return examples
    draws = streams.uniform(streams.key(0, "limit", purpose), np.arange(len(examples)))
    return [examples[i] for i in np.sort(np.argsort(draws)[:limit])]


def limit_sets(sets: ExampleSets, task: TaskBase) -> None:
    """Apply ``max_train`` and ``max_dev``, and fill the counts of the record."""
    sets.train = limited(sets.train, task.max_train, "train")
    sets.dev = {name: limited(examples, task.max_dev, "dev") for name, examples in sets.dev.items()}
    seen = {(example.first, example.second) for example in sets.train}
    sets.counts["train"] = len(sets.train)
    sets.counts["dev"] = {name: len(examples) for name, examples in sets.dev.items()}
    sets.counts["dev_texts_also_in_train"] = {name: _overlap(examples, seen) for name, examples in sets.dev.items()}


def _overlap(examples: Iterable[Example], seen: set[tuple[str, str | None]]) -> int:
    return sum((example.first, example.second) in seen for example in examples)
