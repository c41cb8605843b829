"""Reads Hugging Face datasets as rows for the task readers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from albert_ablate.config.tasks import HubTask
from albert_ablate.errors import DataError
from albert_ablate.shipped import install_command
from albert_ablate.tasks.tables import Row


def hub_rows(task: str, source: HubTask | None, split: str, labels: dict[str, tuple[str, ...]]) -> Iterator[Row]:
    """Rows of one split. Raises DataError if the dataset cannot be read.

    ``labels``: column -> label names. If the split's classes include them, class numbers are replaced by names:
    the hub orders MNLI's classes differently from the released code, so numbers would be wrong.
    """
    if source is None:
        raise DataError(f"tasks.{task}.hub is empty: there is no known dataset for it. Use task.source=files.")
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise DataError(f"task.source=hub needs the package datasets. Run `{install_command('hub')}`.") from error
    try:
        rows = datasets.load_dataset(source.path, source.config, split=split, revision=source.revision)
    except (OSError, ValueError, KeyError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"tasks.{task}: {source.path}, split {split}, could not be read ({type(error).__name__}: {error}). "
            "Without network access, give the official files with task.data_dir=FOLDER."
        ) from error
    return _rows(rows, source, _classes(rows, labels))


def _classes(rows: Any, labels: dict[str, tuple[str, ...]]) -> dict[str, list[str]]:
    """Column -> names of its class numbers, for columns whose classes include the task's labels."""
    classes = {}
    for column, names in labels.items():
        known = list(getattr(rows.features.get(column), "names", ()) or ())
        if set(names) <= set(known):
            classes[column] = known
    return classes


def _rows(rows: Any, source: HubTask, classes: dict[str, list[str]]) -> Iterator[Row]:
    for number, values in enumerate(rows, 1):
        named = {c: names[values[c]] for c, names in classes.items() if isinstance(values[c], int) and values[c] >= 0}
        yield Row(Path(source.path), number, {**values, **named})
