"""Reads the files of a run folder and checks them.

A file is checked before its numbers are used: it may be half written, changed by hand, made by another
program, or hostile. Missing fields are allowed (older folders lack some); a field that exists must have the type
that ``albert_ablate.record`` gives it, which the file was written with.
"""

import json
import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from albert_ablate.record.latency import LATENCY, Latency
from albert_ablate.record.manifest import Manifest
from albert_ablate.record.metrics import Line
from albert_ablate.record.part import Part, field_of
from albert_ablate.record.results import Results
from albert_ablate.record.settings import Settings
from albert_ablate.record.similarity import Similarity
from albert_ablate.record.status import Status

#: Largest file that is read, in bytes, and most values in it after YAML aliases are expanded.
_MOST_BYTES, _MOST_VALUES = 50_000_000, 200_000
_DEEPEST = 100
#: Characters that a report cannot hold: control characters, and halves of surrogate pairs.
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")

_FORMS: dict[str, type[Part]] = {
    "status.json": Status, "config.yaml": Settings, "manifest.json": Manifest, "results.json": Results,
    "similarity.json": Similarity, LATENCY: Latency,
}  # fmt: skip


def read_record(file: Path, form: type[Part] | None = None) -> dict[str, Any]:
    """The content of a file of a run folder. Raises ValueError with a short reason.

    ``form``: the type of the file, where its name does not decide it.
    """
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise ValueError("too large")
        text = file.read_text(encoding="utf-8")
        parsed = parse_yaml(text) if file.suffix == ".yaml" else json.loads(text, parse_constant=_refuse)
        record = _printable(parsed)
    except (OSError, UnicodeError, json.JSONDecodeError, RecursionError, yaml.YAMLError) as error:
        raise ValueError("") from error
    (form or _FORMS[file.name]).read(record)
    assert isinstance(record, dict)  # every form is a dictionary
    return record


def reason_of(error: ValueError) -> str:
    """The first fault as a suffix, ``: masked_lm.loss is 'x'``; empty where the file does not parse."""
    if not isinstance(error, ValidationError):
        return f": {error}" if str(error) else ""
    problem = error.errors()[0]
    if not problem["loc"]:  # a fault of the whole file: from a validator of ours, or it is no dictionary
        return f": {problem['ctx']['error']}" if problem["type"] == "value_error" else ""
    return f": {field_of(problem)}: {problem['msg']}"


def read_line(text: str) -> dict[str, Any] | None:
    """A line of ``metrics.jsonl``; None where it is broken."""
    try:
        line = json.loads(text, parse_constant=_refuse)
        Line.read(line)
    except (ValueError, RecursionError):
        return None
    return dict(line)


def printable(text: str) -> str:
    """``text`` with a replacement mark for every character that a report cannot hold."""
    return _UNPRINTABLE.sub("\ufffd", text)


def parse_yaml(text: str) -> Any:
    """Plain values of YAML: its tags never make an object. Raises YAMLError."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    depth = 0
    for event in yaml.parse(text, loader):  # deep nesting would overflow the stack of the C loader
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise yaml.YAMLError("nested too deeply")
    return yaml.load(text, loader)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def _printable(parsed: Any) -> Any:
    """A copy without aliases and unprintable characters. Raises ValueError for more values than a record has."""
    left = _MOST_VALUES

    def copy(value: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise ValueError("more values than a record has")
        if isinstance(value, dict):
            return {printable(str(key)): copy(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [copy(inner) for inner in value]
        return printable(value) if isinstance(value, str) else value

    return copy(parsed)
