"""What a fine-tuning answers to the rows of a table: ``python -m albert_ablate.predict RUN/tasks/NAME FILE.csv``.

The table is a .csv, .tsv or .jsonl with the text columns of the task; a label column is not needed. The rows are
written with further columns: the class with the probability of each, each label with its probability, or numbers.
``--text`` and ``--second`` name text columns that are called otherwise. The answers do not depend on the order of the
rows. For files of words see ``tagging``.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from albert_ablate import console
from albert_ablate.arguments import Parser
from albert_ablate.command_line import program
from albert_ablate.commands.tagging import tag_file
from albert_ablate.commands.unit import load_unit
from albert_ablate.errors import ConfigError, DataError, RunFolderError
from albert_ablate.files import require_writable

if TYPE_CHECKING:
    from albert_ablate.tasks.answering import Answerer
    from albert_ablate.tasks.tables import Row

_ENDINGS = (".csv", ".tsv", ".jsonl")


@console.command
def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = Parser(prog=program("predict"), description="What a fine-tuning answers to the rows of a table.")
    parser.add_argument("unit", type=Path, help="the folder of a fine-tuning, RUN/tasks/NAME")
    parser.add_argument("file", type=Path, help="a .csv, .tsv or .jsonl (or .xz, .gz) with the texts")
    parser.add_argument(
        "settings", nargs="*", help="of an older version: where its task's files are: task.data_dir=DATA"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="the table to write (default: FILE.predicted.csv)")
    parser.add_argument("--text", metavar="COLUMN", help="the column of the text, or of the first one")
    parser.add_argument("--second", metavar="COLUMN", help="the column of the second text")
    options = parser.parse_intermixed_args(arguments)
    out = predict(options.unit, options.file, options.settings, options.out, options.text, options.second)
    console.say(f"  {out}")
    return 0


def predict(
    unit: Path,
    file: Path,
    settings: Sequence[str] = (),
    out: Path | None = None,
    text: str | None = None,
    second: str | None = None,
) -> Path:
    """Write the rows of ``file`` with the answers of a fine-tuning; returns the file written.

    ``text`` and ``second`` replace the names of text columns. Raises UserError.
    """
    if not file.is_file():
        raise DataError(f"{file}: no such file.")
    ending = _ending(file)
    out = out or file.with_name(f"{file.name[: file.name.rindex(ending)]}.predicted{ending}")
    _require_new(out, ending)
    opened = load_unit(unit, settings)
    from albert_ablate.tasks.tables import write_rows  # after the checks: torch loads slowly
    from albert_ablate.tasks.task import TagsWords

    if isinstance(opened.answerer.task, TagsWords):
        if second is not None:
            raise ConfigError(f"--second {second}: {opened.answerer.task.name} takes one text.")
        tag_file(opened.answerer, file, out, text)
        return out
    if ending.lower() not in _ENDINGS:
        raise DataError(f"{file}: a table is expected, with a name that ends in {', '.join(_ENDINGS)} (or .xz, .gz).")
    rows, added = answered(opened.answerer, file, text, second)
    write_rows(out, [row | cells for row, cells in zip(rows, added, strict=True)], ending)
    return out


def answered(
    answerer: "Answerer", file: Path, text: str | None, second: str | None
) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """(the rows of ``file``, the cells that the fine-tuning answers to each). Raises UserError."""
    from albert_ablate.tasks.tables import read_rows
    from albert_ablate.tasks.task import AnswersTexts

    task = answerer.task
    if not isinstance(task, AnswersTexts):
        raise ConfigError(
            f"{task.name}: its examples are more than the texts of a row. Its predictions on dev are in "
            f"{answerer.folder.path / 'predictions'}."
        )
    with console.stage(f"reading {file.name}"):
        rows = list(read_rows(file))
    if not rows:
        raise DataError(f"{file}: no rows.")
    columns = _columns(task.name, task.columns, rows[0], text, second)
    texts = [_texts(row, columns) for row in rows]
    # Sorted and without repeats, so that the batches do not depend on the order of the rows.
    distinct = sorted(set(texts))
    with console.stage(f"predicting {len(rows):,} rows"):
        outputs = answerer.predict(task.from_columns(distinct))
    cells = task.cells(outputs)
    for row in rows:
        if taken := sorted(cells.keys() & row.values.keys()):
            raise row.error(f"there is a column {taken[0]!r} already, which the predictions need. Rename it.")
    place = {key: number for number, key in enumerate(distinct)}
    made = [{name: _short(column[place[key]]) for name, column in cells.items()} for key in texts]
    return [row.values for row in rows], made


def _short(cell: object) -> object:
    """A cell; of a number that is not whole the seven digits that fp32 has."""
    return float(f"{cell:.7g}") if isinstance(cell, float) else cell


def _columns(
    task: str, known: tuple[tuple[str, ...], ...], row: "Row", text: str | None, second: str | None
) -> list[str]:
    """The column of each text. Raises DataError if the table lacks one."""
    given = (text, second)
    if second is not None and len(known) == 1:
        raise ConfigError(f"--second {second}: {task} takes one text.")
    options = ("--text", "--second")
    found = []
    for place, names in enumerate(known):
        chosen = given[place] if place < len(given) else None
        column = chosen or next((name for name in names if name in row.values), None)
        if column is None or column not in row.values:
            wanted = repr(chosen) if chosen else " or ".join(map(repr, names))
            remedy = f" {options[place]} COLUMN names another." if place < len(options) else ""
            raise row.error(f"no column {wanted}; there are {', '.join(row.values)}.{remedy}")
        found.append(column)
    return found


def _texts(row: "Row", columns: Sequence[str]) -> tuple[str, ...]:
    from albert_ablate.tasks.tables import require_columns

    require_columns(row, columns, "docs/tasks.md on predictions")
    return tuple(row.text(column) for column in columns)


def _ending(file: Path) -> str:
    name = file.name.removesuffix(".xz").removesuffix(".gz")
    return Path(name).suffix


def _require_new(out: Path, ending: str) -> None:
    """Raise RunFolderError, before any work, if ``out`` exists or cannot be written, or has another ending."""
    if not out.name.lower().endswith(ending.lower()):
        raise RunFolderError(f"--out {out}: the table keeps its form, so the name must end in {ending}.")
    if out.exists():
        raise RunFolderError(f"{out} exists already. Give a new name: --out FILE{ending}")
    try:
        require_writable(out.parent)
    except OSError as error:
        raise RunFolderError(f"{out} cannot be written ({error.strerror}). Give another: --out FILE{ending}") from error
