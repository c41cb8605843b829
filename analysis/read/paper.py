"""The paper's tables and figure curves, read from ``paper.yaml``: the only source of its numbers."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml

_FILE = Path(__file__).parent.parent / "paper.yaml"
#: How the paper averages (Table 2's caption): F1 and EM of each SQuAD first, then five tasks.
AVERAGED = (("SQuAD1.1_F1", "SQuAD1.1_EM"), ("SQuAD2.0_F1", "SQuAD2.0_EM"), ("MNLI",), ("SST-2",), ("RACE",))


@cache
def record() -> dict[str, Any]:
    """The content of ``paper.yaml``."""
    return yaml.load(_FILE.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def table(name: str) -> dict[str, Any]:
    """A table by its id (``table3``): title, columns (name and unit), rows, disagreements. Raises StopIteration."""
    return next(entry for entry in record()["tables"] if entry["id"] == name)


def figure(name: str) -> dict[str, dict[str, Any]]:
    """A figure by its id, such as ``figure1``: panel name -> its ``series`` and axis labels."""
    entry = next(entry for entry in record()["figures"] if entry["id"] == name)
    return {panel["name"]: panel for panel in entry["panels"]}


def average(row: dict[str, Any]) -> float:
    """Avg of a row of a downstream table, computed from its printed scores, percent."""
    means = [sum(row[name] for name in task) / len(task) for task in AVERAGED]
    return sum(means) / len(means)
