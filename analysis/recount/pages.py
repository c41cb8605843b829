"""The printed numbers of ``report.md``: each must be the derived one, rounded to the decimals that it shows."""

import math
import re
from collections.abc import Sequence
from typing import Any

from .checks import AGREES, DISAGREES, NOTHING, Check, words
from .rules import Estimate
from .tables import TableCheck

_SECTION = "report.md"
_NUMBER = re.compile(r"[+−-]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?")
#: Scores that are shown without an interval.
_ALONE = ("params", "speedup", "tokens/s")

Lines = list[list[str]]


def read(text: str) -> dict[str, list[Lines]]:
    """Heading (``Table 4``, ``What the paper claims, …``) -> its tables, each a list of rows without the head."""
    found: dict[str, list[Lines]] = {}
    heading, inside = "", False
    for line in text.split("\n"):
        if line.startswith("#"):
            heading = line.lstrip("# ").split(". ")[0]
        if line.startswith("|"):
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip()[1:-1])]
            if not inside:
                found.setdefault(heading, []).append([])
            found[heading][-1].append(cells)
        inside = line.startswith("|")
    return {name: [rows[2:] for rows in several] for name, several in found.items()}


def check_table(table: TableCheck, several: Sequence[Lines] | None) -> list[Check]:
    """A table of the page and its differences; it shows none of which fewer than two arms have runs."""
    found: list[Check] = []
    name = f"Table {table.name.removeprefix('table')}"
    if several is None:
        filled = sum(bool(runs) for runs in table.chosen) > 1
        return [_check(f"{name} · arms", "", [len(table.groups)], table.source(0))] if filled else found
    arms = several[0]
    if len(arms) != len(table.groups):
        return [_check(f"{name} · arms", str(len(arms)), [len(table.groups)], table.source(0))]
    for place, cells in enumerate(arms):
        keys = [row["score"] for row in table.groups[place]]
        if table.counted(place) and len(cells) > len(_columns(keys)) + len(table.named(place)):
            where = f"{name}, {table.label(place)} · n"
            found.append(_check(where, cells[len(table.named(place))], table.counted(place), table.source(place)))
        cells = cells[-len(_columns(keys)) :]
        for column, cell in zip(_columns(keys), cells, strict=True):
            estimates = [(key, table.estimate(place, key)) for key in column]
            ours = [value for key, one in estimates for value in _shown(key, one)]
            theirs = [number for key in column if (number := table.paper(place, key)) is not None]
            seeds = min((one.n for _, one in estimates if one is not None), default=0)
            fewer = [seeds] if 0 < seeds < len(table.chosen[place]) else []
            where = f"{name}, {table.label(place)} · {'/'.join(column)}"
            found.append(_check(where, cell, [*ours, *fewer, *theirs], table.source(place)))
    expected = table.compared()
    rows = several[1] if len(several) > 1 else []
    if len(rows) != len(expected):
        return [*found, _check(f"{name} · differences", str(len(rows)), [len(expected)], table.source(0))]
    for cells, one in zip(rows, expected, strict=True):
        estimate: Estimate = one["estimate"]
        where = f"{name}, {one['arm']} against {one['against']} · {one['score']}"
        ends = [] if math.isnan(estimate.low) else [estimate.low, estimate.high]
        p = [] if estimate.n < 2 or one["marked"] or one["lost"] else [one["adjusted"]]
        paper = [] if one["paper"] is None else [one["paper"]]
        for cell, values in zip(cells[3:7], ([estimate.mean], ends, p, paper), strict=True):
            found.append(_check(where, cell, values, one["source"]))
    return found


def check_claims(several: Sequence[Lines] | None, derived: Sequence[dict[str, Any]]) -> list[Check]:
    """The scorecard of the page; ``derived`` in its order."""
    rows = several[0] if several else []
    if len(rows) != len(derived):
        return [_check("scorecard · claims", str(len(rows)), [len(derived)], "the claims file")]
    found = []
    for cells, one in zip(rows, derived, strict=True):
        n, planned = one["n"], one["planned"]
        values: list[list[float]] = [
            [] if one["effect"] is None else [one["effect"]],
            [] if one["low"] is None or math.isnan(one["low"]) else [one["low"], one["high"]],
            [] if one["p_holm"] is None else [one["p_holm"]],
            [] if one["paper_effect"] is None else [one["paper_effect"]],
            [n, planned] if 0 < n < planned else [n],
        ]
        texts = [*cells[3:6], cells[6].split(" ")[0], cells[7]]
        found += [
            _check(f"scorecard · {cells[0]}", text, own, one["files"]) for text, own in zip(texts, values, strict=True)
        ]
    return found


def _columns(keys: Sequence[str]) -> list[list[str]]:
    """Scores that share a column: F1 and exact match of one SQuAD."""
    found: list[list[str]] = []
    for key in keys:
        if key.endswith("_EM") and found and found[-1] == [key.replace("_EM", "_F1")]:
            found[-1].append(key)
        else:
            found.append([key])
    return found


def _shown(key: str, found: Estimate | None) -> list[float]:
    """Mean and half the interval; its ends where a bound cuts it."""
    if found is None:
        return []
    if math.isnan(found.low) or key in _ALONE:
        return [found.mean]
    below, above = found.mean - found.low, found.high - found.mean
    if math.isclose(below, above, rel_tol=1e-6, abs_tol=1e-12):
        return [found.mean, above]
    return [found.mean, found.low, found.high]


def _check(where: str, text: str, values: Sequence[float], source: str) -> Check:
    """Whether the numbers of a text are ``values`` as they are rounded there, in order."""
    shown = _NUMBER.findall(text)
    if text == "<0.001":
        agrees = len(values) == 1 and values[0] < 0.001
    else:
        agrees = len(shown) == len(values) and all(_rounds(a, b) for a, b in zip(shown, values, strict=True))
    derived = ", ".join(words(float(f"{value:.8g}")) for value in values) or NOTHING
    return Check(_SECTION, where, text if shown else NOTHING, derived, AGREES if agrees else DISAGREES, source)


def _rounds(shown: str, value: float) -> bool:
    plain = shown.replace(",", "").replace("−", "-")
    decimals = len(plain.partition(".")[2])
    return abs(float(plain) - value) <= 0.5 * 10**-decimals * (1 + 1e-6)
