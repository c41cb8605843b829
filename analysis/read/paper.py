"""The papers' tables and figure curves: the only source of their numbers.

ALBERT's are in ``paper.yaml``, ELECTRA's in ``electra.yaml``, DistilBERT's and TinyBERT's in ``distillation.yaml``,
MobileBERT's and BigBird's in ``shapes.yaml``.
"""

from functools import cache
from pathlib import Path
from typing import Any

import yaml

_FOLDER = Path(__file__).parent.parent
#: How the paper averages (Table 2's caption): F1 and EM of each SQuAD first, then five tasks.
AVERAGED = (("SQuAD1.1_F1", "SQuAD1.1_EM"), ("SQuAD2.0_F1", "SQuAD2.0_EM"), ("MNLI",), ("SST-2",), ("RACE",))


#: How ids of tables, figures and sweeps begin -> the file with their numbers; ALBERT's begin with none of these.
_FILES = {
    "electra": "electra", "distilbert": "distillation", "tinybert": "distillation", "mobilebert": "shapes",
    "bigbird": "shapes",
}  # fmt: skip


@cache
def record(name: str = "paper") -> dict[str, Any]:
    """The content of ``paper.yaml`` or of a file beside it, by the name without the ending."""
    text = (_FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def family(name: str) -> str:
    """Whose a table or figure is: ``electra``, another start of ``_FILES``, or ``albert`` for all others."""
    return next((start for start in _FILES if name.startswith(start)), "albert")


def of_electra(name: str) -> bool:
    """Whether a table or figure is ELECTRA's."""
    return family(name) == "electra"


def of_albert(name: str) -> bool:
    """Whether a table or figure is ALBERT's."""
    return family(name) == "albert"


def _record_of(name: str) -> dict[str, Any]:
    return record(_FILES.get(family(name), "paper"))


def table(name: str) -> dict[str, Any]:
    """A table by its id (``table3``): title, columns (name and unit), rows, disagreements. Raises StopIteration."""
    return next(entry for entry in _record_of(name)["tables"] if entry["id"] == name)


def heading(name: str) -> str:
    """``Table 3``, or ``ELECTRA, Table 5``."""
    printed = table(name)
    return printed.get("heading") or f"Table {printed['number_v6']}"


def figure(name: str) -> dict[str, dict[str, Any]]:
    """A figure by its id, such as ``figure1``: panel name -> its ``series`` and axis labels."""
    entry = next(entry for entry in _record_of(name)["figures"] if entry["id"] == name)
    return {panel["name"]: panel for panel in entry["panels"]}


def average(row: dict[str, Any]) -> float:
    """Avg of a row of a downstream table, computed from its printed scores, percent."""
    means = [sum(row[name] for name in task) / len(task) for task in AVERAGED]
    return sum(means) / len(means)
