"""Reads raw files: JSON, YAML, lines of metrics, tables, headers of weights."""

import csv
import gzip
import json
import lzma
import math
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml


def read_json(file: Path) -> Any:
    """The content of a JSON file; an empty dictionary where it is missing or broken."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}


def read_yaml(file: Path) -> Any:
    """The content of a YAML file; an empty dictionary where it is missing or broken."""
    try:
        return yaml.load(file.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}


def read_lines(file: Path) -> list[dict[str, Any] | None]:
    """Objects of a file with one JSON object on each line; None for a broken line, as the last of a killed run."""
    text = open_text(file) if file.is_file() else ""
    return [_object(line) for line in text.split("\n") if line.strip()]


def _object(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def open_text(file: Path) -> str:
    """The text of a file, plain or compressed with gzip or xz."""
    opener: Any = {".gz": gzip.open, ".xz": lzma.open}.get(file.suffix, open)
    with opener(file, "rt", encoding="utf-8-sig", newline="") as source:
        return str(source.read())


def read_table(file: Path) -> list[dict[str, str]]:
    """Rows of a CSV file with a header line; every cell as text."""
    with file.open(encoding="utf-8", newline="") as source:
        return list(csv.DictReader(source))


def shapes(file: Path) -> dict[str, list[int]]:
    """Tensor name -> shape, from the header of a safetensors file."""
    with file.open("rb") as source:
        (length,) = struct.unpack("<Q", source.read(8))
        header = json.loads(source.read(length))
    return {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}


def at(values: Any, path: str) -> Any:
    """The value at a dotted path (``a.b``) of nested dictionaries; None where the path does not exist."""
    for key in path.split("."):
        values = values.get(key) if isinstance(values, dict) else None
    return values


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one dictionary with dotted names."""
    flattened: dict[str, Any] = {}
    for key, value in values.items():
        flattened |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flattened


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean."""
    return math.fsum(values) / len(values)


def middle(values: Sequence[float], share: float = 0.5) -> float:
    """The median, or the quantile at ``share``, interpolated linearly."""
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])
