"""Checks the printed numbers of ``report.md``: each must equal the derived number, rounded to the printed decimals."""

import math
import re
from collections.abc import Sequence
from typing import Any

from .checks import AGREES, DISAGREES, NOTHING, Check, as_text
from .printed import heading
from .rules import Estimate
from .tables import TableCheck

_SECTION = "report.md"
_NUMBER = re.compile(r"[+−-]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?")
#: Scores that are shown without an interval.
_ALONE = ("params", "speedup", "tokens/s")

Lines = list[list[str]]


def read(text: str) -> dict[str, list[Lines]]:
    """Heading (``Table 4``, ``What the paper claims, …``) -> its tables, each as rows without the head."""
    by_heading: dict[str, list[Lines]] = {}
    heading, inside = "", False
    for line in text.split("\n"):
        if line.startswith("#"):
            heading = line.lstrip("# ").split(". ")[0]
        if line.startswith("|"):
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip()[1:-1])]
            if not inside:
                by_heading.setdefault(heading, []).append([])
            by_heading[heading][-1].append(cells)
        inside = line.startswith("|")
    return {name: [rows[2:] for rows in several] for name, several in by_heading.items()}


def check_table(table: TableCheck, several: Sequence[Lines] | None) -> list[Check]:
    """Checks of a table of the page and of its differences; tables with fewer than two filled arms are not on it."""
    checks: list[Check] = []
    name = heading(table.name)
    if several is None:
        filled = sum(bool(runs) for runs in table.chosen) > 1
        return [_check(f"{name} · arms", "", [len(table.groups)], table.source(0))] if filled else checks
    arms, shown = several[0], table.shown()
    if len(arms) != len(shown):
        return [_check(f"{name} · arms", str(len(arms)), [len(shown)], table.source(0))]
    measured = table.measured()
    for index, cells in zip(shown, arms, strict=True):
        keys = [row["score"] for row in table.groups[index] if row["score"] in measured]
        if table.counted(index) and len(cells) > len(_columns(keys)) + len(table.named(index)):
            where = f"{name}, {table.label(index)} · n"
            checks.append(_check(where, cells[len(table.named(index))], table.counted(index), table.source(index)))
        cells = cells[-len(_columns(keys)) :]
        for column, cell in zip(_columns(keys), cells, strict=True):
            estimates = [(key, table.estimate(index, key)) for key in column]
            ours = [value for key, estimate in estimates for value in _shown(key, estimate)]
            paper_values = [number for key in column if (number := table.paper(index, key)) is not None]
            seeds = min((estimate.n for _, estimate in estimates if estimate is not None), default=0)
            fewer = [seeds] if 0 < seeds < len(table.chosen[index]) else []
            where = f"{name}, {table.label(index)} · {'/'.join(column)}"
            checks.append(_check(where, cell, [*ours, *fewer, *paper_values], table.source(index)))
    expected = table.compared()
    rows = several[1] if len(several) > 1 else []
    if len(rows) != len(expected):
        return [*checks, _check(f"{name} · differences", str(len(rows)), [len(expected)], table.source(0))]
    for cells, comparison in zip(rows, expected, strict=True):
        difference: Estimate = comparison["estimate"]
        where = f"{name}, {comparison['arm']} against {comparison['against']} · {comparison['score']}"
        ends = [] if math.isnan(difference.low) else [difference.low, difference.high]
        p = [] if difference.n < 2 or comparison["marked"] or comparison["lost"] else [comparison["adjusted"]]
        paper = [] if comparison["paper"] is None else [comparison["paper"]]
        for cell, values in zip(cells[3:7], ([difference.mean], ends, p, paper), strict=True):
            checks.append(_check(where, cell, values, comparison["source"]))
    return checks


def check_claims(several: Sequence[Lines], derived: Sequence[dict[str, Any]]) -> list[Check]:
    """Checks of the verdicts of the page; ``several``: its tables; ``derived``: their rows in the same order."""
    rows = [row for table in several for row in table]
    if len(rows) != len(derived):
        return [_check("scorecard · claims", str(len(rows)), [len(derived)], "the claims file")]
    checks = []
    for cells, claim in zip(rows, derived, strict=True):
        n, planned = claim["n"], claim["planned"]
        values: list[list[float]] = [
            [] if claim["effect"] is None else [claim["effect"]],
            [] if claim["low"] is None or math.isnan(claim["low"]) else [claim["low"], claim["high"]],
            [] if claim["p_holm"] is None else [claim["p_holm"]],
            [] if claim["paper_effect"] is None else [claim["paper_effect"]],
            [n, planned] if 0 < n < planned else [n],
        ]
        texts = [*cells[3:6], cells[6].split(" ")[0], cells[7]]
        checks += [
            _check(f"scorecard · {cells[0]}", text, expected, claim["files"])
            for text, expected in zip(texts, values, strict=True)
        ]
    return checks


def _columns(keys: Sequence[str]) -> list[list[str]]:
    """The scores of each column: F1 and exact match of one SQuAD share a column."""
    columns: list[list[str]] = []
    for key in keys:
        if key.endswith("_EM") and columns and columns[-1] == [key.replace("_EM", "_F1")]:
            columns[-1].append(key)
        else:
            columns.append([key])
    return columns


def _shown(key: str, estimate: Estimate | None) -> list[float]:
    """The printed numbers: mean and half the interval, or its ends where a bound cuts it."""
    if estimate is None:
        return []
    if math.isnan(estimate.low) or key in _ALONE:
        return [estimate.mean]
    below, above = estimate.mean - estimate.low, estimate.high - estimate.mean
    if math.isclose(below, above, rel_tol=1e-6, abs_tol=1e-12):
        return [estimate.mean, above]
    return [estimate.mean, estimate.low, estimate.high]


def _check(where: str, text: str, values: Sequence[float], source: str) -> Check:
    """Compares the numbers in a text with ``values``, in order, each rounded to the printed decimals."""
    shown = _NUMBER.findall(text)
    if text == "<0.001":
        agrees = len(values) == 1 and values[0] < 0.001
    else:
        agrees = len(shown) == len(values) and all(_rounds(a, b) for a, b in zip(shown, values, strict=True))
    derived = ", ".join(as_text(float(f"{value:.8g}")) for value in values) or NOTHING
    return Check(_SECTION, where, text if shown else NOTHING, derived, AGREES if agrees else DISAGREES, source)


def _rounds(shown: str, value: float) -> bool:
    plain = shown.replace(",", "").replace("−", "-")
    decimals = len(plain.partition(".")[2])
    return abs(float(plain) - value) <= 0.5 * 10**-decimals * (1 + 1e-6)
