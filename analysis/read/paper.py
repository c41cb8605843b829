"""The papers' tables and figure curves: the only source of their numbers.

ALBERT's are in ``paper.yaml``, ELECTRA's in ``electra.yaml``.
"""

from functools import cache
from pathlib import Path
from typing import Any

import yaml

_FOLDER = Path(__file__).parent.parent
#: How the paper averages (Table 2's caption): F1 and EM of each SQuAD first, then five tasks.
AVERAGED = (("SQuAD1.1_F1", "SQuAD1.1_EM"), ("SQuAD2.0_F1", "SQuAD2.0_EM"), ("MNLI",), ("SST-2",), ("RACE",))


#: Ids of ELECTRA's tables and figures begin with it, and so do its sweeps.
_ELECTRA = "electra"


@cache
def record(name: str = "paper") -> dict[str, Any]:
    """The content of ``paper.yaml``, or of ``electra.yaml`` for ``electra``."""
    text = (_FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def of_electra(name: str) -> bool:
    """Whether a table or figure is ELECTRA's."""
    return name.startswith(_ELECTRA)


def _record_of(name: str) -> dict[str, Any]:
    return record(_ELECTRA) if of_electra(name) else record()


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
