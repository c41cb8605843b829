"""Sweep files: their format, and the cells they list in relative terms."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import pydantic
import yaml
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as checked

from albert_ablate.errors import ConfigError, did_you_mean
from albert_ablate.shipped import shipped

#: The shipped sweeps.
SWEEPS = shipped("sweeps")

#: Types of pydantic's errors -> what is said of them.
_EXPECTED = {
    "dataclass_type": "keys with values are expected, such as title: my question",
    "dict_type": "settings with values are expected, such as {share: all, seed: [0, 1]}",
    "missing": "missing",
    "string_type": "a text is expected",
    "tuple_type": "a list is expected",
}

Values = dict[str, Any]
#: Settings whose value is a list: several values belong to one cell.
LISTS = ("task", "tracker", "kshot.k", "kshot.seeds", "kshot.rules")


@checked(frozen=True, config=ConfigDict(extra="forbid"))
class SweepFile:
    """One file: its own cells, or those of other files, under common settings."""

    title: str
    paper: str = ""  # the table or figure it reproduces
    counts_only: bool = False  # nothing to train
    settings: Values = Field(default_factory=dict)
    cells: tuple[Values, ...] = ()
    includes: tuple[str, ...] = ()
    reference: Values = Field(default_factory=dict)  # the arm that a report compares the others with


@dataclass(frozen=True)
class Row:
    """A cell in the file's terms, and the file that lists it."""

    terms: Values
    sweep: str
    places: dict[str, str] = field(default_factory=dict)  # key -> its file and line; the key "" is the cell itself
    reference: bool = False  # whether it belongs to the arm that the others are compared with

    def located(self, problem: str) -> str:
        """``problem``, which begins with the name of a setting, after the line of that setting or of the cell."""
        name = re.match(r"[\w./]*", problem)
        place = self.places.get(name[0] if name else "") or self.places.get("")
        return f"{place}: {problem}" if place else problem


def load(name: str) -> SweepFile:
    """The sweep called ``name`` in ``sweeps/``, or in the YAML file at the path ``name``.

    Raises ConfigError for an unknown sweep, with the nearest name, and for a file with another content.
    """
    path = _path(name)
    if not path.is_file():
        known = sweep_names()
        files = sorted(file for file in (*Path().glob(f"{name}.y*ml"), *Path().glob(f"*/{name}.y*ml")))
        hint = f"Did you mean sweep={files[0]}? " if files else did_you_mean(name, known, "sweep=")
        raise ConfigError(
            f"sweep={name}: there is no such sweep. {hint}There are: {', '.join(known)}, or a .yaml file."
        )
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        file = pydantic.TypeAdapter(SweepFile).validate_python(values)
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"sweep={name}: {path} cannot be read ({type(error).__name__}).") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"sweep={name}: {path} is not YAML: {_syntax(error)}.") from None
    except pydantic.ValidationError as error:
        raise ConfigError([_explain(path, problem) for problem in error.errors()]) from None
    if problems := [f"{path}: {problem}" for key in _keys(file) if (problem := _no_setting(key))]:
        raise ConfigError(problems)
    return file


def _path(name: str) -> Path:
    return Path(name) if name.endswith((".yaml", ".yml")) else SWEEPS / f"{name}.yaml"


def _syntax(error: yaml.YAMLError) -> str:
    """What is wrong with the text of a YAML file, and in which line."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    return " ".join(str(error).split())


def _places(path: Path) -> tuple[dict[str, str], list[dict[str, str]]]:
    """Key -> its file and line, for the settings of a sweep file and for each cell; the key "" is the cell itself."""

    def keys(node: Any) -> dict[str, str]:
        return {str(key.value): f"{path.name}, line {key.start_mark.line + 1}" for key, _ in node.value}

    root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    parts = {key.value: value for key, value in root.value} if isinstance(root, yaml.MappingNode) else {}
    cells = parts["cells"].value if "cells" in parts else []
    settings = keys(parts["settings"]) if "settings" in parts else {}
    return settings, [{"": f"{path.name}, the cell in line {cell.start_mark.line + 1}"} | keys(cell) for cell in cells]


def _keys(file: SweepFile) -> dict[str, None]:
    """Every key of the settings and of the cells."""
    return {key: None for values in (file.settings, *file.cells) for key in values}


def _no_setting(key: str) -> str | None:
    """The problem of a key that is not a setting of a cell, or None."""
    if re.match(r"hydra\b", key) or key in ("defaults", "sweep", "rerun"):
        return f"{key}: not a setting of a cell. Give it on the command line, beside sweep=."
    if not re.fullmatch(r"[A-Za-z_][\w.]*", key):
        return (
            f"{key}: there is no such setting. Keys are the names of settings, such as seed or optimizer.learning_rate."
        )
    return None


def sweep_names() -> list[str]:
    """The shipped sweeps, table1 before table10."""
    return sorted(
        (file.stem for file in SWEEPS.glob("*.yaml")), key=lambda name: (name.rstrip("0123456789"), len(name), name)
    )


def rows(names: Iterable[str]) -> list[Row]:
    """Every cell of the named sweeps in order, in the terms of the files. Lists in ``settings`` are outer loops."""
    return [row for name in names for row in _rows(name, ())]


def _rows(name: str, above: tuple[str, ...]) -> list[Row]:
    if name in above:
        raise ConfigError(f"sweep={above[0]}: includes itself by way of {' -> '.join((*above, name))}.")
    file = load(name)
    settings, cells = _places(_path(name))
    listed = [
        Row(file.settings | point, Path(name).stem, settings | places)
        for cell, places in zip(file.cells, cells, strict=True)
        for point in _grid(cell)
    ]
    listed += [
        replace(row, terms=row.terms | file.settings, places=row.places | settings)
        for child in file.includes
        for row in _rows(child, (*above, name))
    ]
    if not listed:
        raise ConfigError(f"sweep={name}: the file lists no cells. Give cells: or includes:.")
    outer = {key: value for key, value in file.settings.items() if isinstance(value, list) and key not in LISTS}
    multiplied = [replace(row, terms=row.terms | point) for point in _grid(outer) for row in listed]
    return _marked(name, file.reference, multiplied) if file.reference else multiplied


def _marked(name: str, reference: Values, listed: Sequence[Row]) -> list[Row]:
    """The rows, those of the arm ``reference`` marked. Raises ConfigError unless it names exactly one arm."""
    values = {
        key: list(dict.fromkeys(str(row.terms.get(key)) for row in listed)) for row in listed for key in row.terms
    }
    swept = [key for key, several in values.items() if len(several) > 1 and key != "seed"]
    problems = []
    for key, value in reference.items():
        if key not in swept:
            what = f"the cells do not differ in it. They differ in {', '.join(swept) or 'nothing'}"
            problems.append(f"sweep={name}: reference: {key}: {what}.")
        elif str(value) not in values[key]:
            problems.append(
                f"sweep={name}: reference: {key}={value}: no cell has it. There is {', '.join(values[key])}."
            )
    if problems:
        raise ConfigError(problems)
    chosen = [row for row in listed if all(str(row.terms.get(key)) == str(v) for key, v in reference.items())]
    arms = {repr(sorted((k, str(v)) for k, v in row.terms.items() if k != "seed")) for row in chosen}
    if len(arms) != 1:
        open_keys = [key for key in swept if key not in reference]
        more = f"Add {', '.join(open_keys)}" if arms else "Give the values of one cell"
        raise ConfigError(
            f"sweep={name}: reference: {len(arms)} arms have these values. {more}, so that it names one arm."
        )
    return [replace(row, reference=row in chosen) for row in listed]


def _grid(values: Values) -> list[Values]:
    """Every combination of the listed values; the last key varies fastest."""
    lists = [value if isinstance(value, list) and k not in LISTS else [value] for k, value in values.items()]
    return [dict(zip(values, point, strict=True)) for point in product(*lists)]


def _explain(path: Path, problem: Any) -> str:
    field = ".".join(str(part) for part in problem["loc"])
    known = ", ".join(SweepFile.__dataclass_fields__)
    if message := _no_setting(field) if field in ("defaults", "hydra") or field.startswith("hydra/") else None:
        return f"{path}: {message}"
    if problem["type"] == "unexpected_keyword_argument":
        return (
            f"{path}: {field}: there is no such key. {did_you_mean(field, SweepFile.__dataclass_fields__)}"
            f"A sweep file may have: {known}. Settings go under settings: or cells:."
        )
    reason = _EXPECTED.get(problem["type"], problem["msg"])
    return f"{path}: {field or 'the file'}: {reason}. A sweep file may have: {known}."
