"""The texts of a table, and the table as Markdown and CSV; ``latex`` and ``web`` write the other two forms.

A cell reads ``ours ± half the 95% interval [paper]``. An em-dash with a letter stands for a missing number of ours,
with the reason below the table. A sign (†, ‡, …) marks an arm that must not be compared, one sign for each reason.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import pandas as pd

from ..judge.metrics import THOUSANDTHS, metric
from ..judge.numbers import DASH, DECIMALS, number, p_value, printed, signed, unit
from ..judge.tables import Comparison, Entry, Row, Table


def heading(column: Sequence[str]) -> str:
    """The heading of a column: ``SQuAD1.1 F1/EM``, ``MNLI``, ``MLM loss, nats``."""
    if len(column) == 2:
        return f"{column[0].split('_')[0]} F1/EM"
    if column[0] == "speedup":
        return "speed-up"
    spec = metric(column[0])
    return f"{spec.label}, {spec.unit}" if spec.unit in ("nats", "M") else spec.label


def column_head(column: Sequence[str]) -> str:
    """The heading with unit and direction: ``MLM, % ↑``, ``MLM loss, nats ↓``; an arrow points to better values."""
    unit_text = _UNITS.get(unit(column[0]), "")
    known = heading(column)
    named = known if not unit_text or known.endswith(unit_text) else f"{known}, {unit_text}"
    if column[0] in ("params", "speedup"):
        return named
    return f"{named} {'↑' if metric(column[0]).higher_is_better else '↓'}"


_UNITS = {"%": "%", "nats": "nats", "M": "M", "x": "×", "ms": "ms", "TFLOPs": "TFLOPs", THOUSANDTHS: THOUSANDTHS}
_SIGNS = "†‡§¶‖"


class Reasons:
    """Letters for the reasons of missing numbers, signs for those of marked arms, in the order of first use."""

    def __init__(self) -> None:
        self._letters: dict[str, str] = {}
        self._signs: dict[str, str] = {}

    def letter(self, reason: str) -> str:
        """The letter of ``reason``."""
        count = len(self._letters)
        return self._letters.setdefault(reason, chr(97 + count) if count < 26 else f"a{chr(71 + count)}")

    def sign(self, reason: str) -> str:
        """The sign of ``reason``: †, ‡, §, ¶, ‖, then the same signs twice."""
        count = len(self._signs)
        return self._signs.setdefault(reason, _SIGNS[count % len(_SIGNS)] * (1 + count // len(_SIGNS)))

    def signs(self, cell: Sequence[Entry]) -> str:
        """The signs of a cell's marks, without repetition."""
        return "".join(dict.fromkeys(self.sign(entry.mark) for entry in cell if entry.ours is not None and entry.mark))

    def notes(self) -> list[tuple[str, str]]:
        """(letter or sign, reason): letters first."""
        return [(key, reason) for known in (self._letters, self._signs) for reason, key in known.items()]

    def lines(self) -> list[str]:
        """The notes as text, ``a: not fine-tuned on mnli`` and ``† not better than the baseline``."""
        return [f"{key}{':' if key.isalpha() else ''} {reason}" for key, reason in self.notes()]


def text(cell: Sequence[Entry], reasons: Reasons, paper: bool = True, seeds: int = 0) -> str:
    """One cell as plain text, with its number of seeds if that is smaller than ``seeds``, the row's."""
    ours = [number(entry.metric, entry.ours) for entry in cell]
    if missing(cell):
        shown = f"{DASH}{reasons.letter(reason_of(cell))}"
    else:
        shown = " / ".join(ours) + reasons.signs(cell) + fewer(cell, seeds)
    paper_values = papers(cell)
    return f"{shown} [{paper_values}]" if paper_values and paper else shown


def missing(cell: Sequence[Entry]) -> bool:
    """Whether a cell has no number of ours."""
    return all(entry.ours is None for entry in cell)


def reason_of(cell: Sequence[Entry]) -> str:
    """Why a cell has no number of ours."""
    return cell[0].reason or "not measured"


def papers(cell: Sequence[Entry]) -> str:
    """The paper's numbers of a cell, ``88.8/81.5``; empty without any."""
    return "/".join(printed(entry.metric, entry.paper) for entry in cell if entry.paper is not None)


def fewer(cell: Sequence[Entry], seeds: int) -> str:
    """`` (n = 2)`` where a cell has fewer seeds than its row, ``seeds``; else empty."""
    fewest = min((entry.ours.n for entry in cell if entry.ours is not None), default=seeds)
    return f" (n = {fewest})" if fewest < seeds else ""


def footnotes(table: Table, reasons: Reasons) -> list[str]:
    """All notes under a table, in order; ``reasons`` holds those of the cells that were written."""
    return [*explanations(table), *reasons.lines(), *remarks(table)]


def explanations(table: Table, paper: str = " [the paper's]") -> list[str]:
    """How the numbers of a table read; ``paper``: how the paper's stand beside ours."""
    lines = [f"ours ± half of the 95% t interval over seeds{paper}; n: seeds"] if table.filled else []
    ours = [entry.ours for row in table.rows for cell in row.cells for entry in cell if entry.ours is not None]
    if any(estimate.margin is None for estimate in ours):
        lines.append("in round brackets: the 95% interval where it ends at a bound, such as 0 or 100%")
    return lines


def remarks(table: Table) -> list[str]:
    """The table's notes on its runs and their set-up."""
    setup = "Set-up, with the paper's in brackets: " + ", ".join(table.deviations)
    return [*table.notes, *([setup] if table.deviations else [])]


def markdown(table: Table) -> str:
    """A Markdown table of the arms and one of their differences."""
    reasons = Reasons()
    lines = [f"### {table.heading}. {table.title}", ""]
    lines.append(pipes(_head(table), [_cells(table, row, reasons) for row in table.rows]))
    lines += ["", *(f"- {plain(note)}" for note in footnotes(table, reasons))]
    if table.comparisons:
        lines += ["", "Differences, paired by seed (p after Holm's correction over the table):", ""]
        lines.append(pipes(COMPARED, [compared(table, c) for c in table.comparisons]))
    return "\n".join(lines) + "\n"


def plain(text: str) -> str:
    """``text`` on one line of Markdown, escaped so that no tag, link or picture begins in it."""
    line = " ".join(text.split())
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", line).replace("](", "]\\(")


def pipes(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    top, *rows = [[plain(cell).replace("|", "\\|") for cell in row] for row in (head, *body)]
    return "\n".join([f"| {' | '.join(top)} |", "|" + "---|" * len(head), *(f"| {' | '.join(row)} |" for row in rows)])


def _head(table: Table) -> list[str]:
    seeds = ["n"] if table.filled else []
    return [*table.label_columns, *seeds, *(column_head(column) for column in table.columns)]


def _cells(table: Table, row: Row, reasons: Reasons) -> list[str]:
    seeds = [row.counted] if table.filled else []
    return [*row.labels, *seeds, *(text(cell, reasons, seeds=row.seeds) for cell in row.cells)]


COMPARED = ("arm", "against", "score", "difference", "95% interval", "p", "paper", "")


def compared(table: Table, c: Comparison) -> list[str]:
    """One comparison as a row of texts."""
    names = {row.arm: ", ".join(row.labels) for row in table.rows}
    d = c.difference
    decimals = DECIMALS[unit(c.metric)] + (1 if unit(c.metric) == "%" else 0)
    interval = DASH if math.isnan(d.low) else f"{signed(d.low, decimals)} to {signed(d.high, decimals)}"
    mean = signed(d.mean, decimals)
    p = DASH if d.n < 2 or c.mark or c.doubt else p_value(c.adjusted)
    return [
        names[c.arm], names[c.reference], heading([c.metric]), mean, interval, p,
        "" if c.paper is None else signed(c.paper, 1), c.verdict,
    ]  # fmt: skip


def frame(table: Table) -> pd.DataFrame:
    """A row for each arm and score: labels, seeds, mean, interval, standard deviation, paper's value, reasons, runs."""
    rows: list[dict[str, Any]] = []
    for row in table.rows:
        labels = dict(zip(table.label_columns, row.labels, strict=True))
        for entry in (entry for cell in row.cells for entry in cell):
            ours = entry.ours
            values = {"score": entry.metric, "unit": unit(entry.metric), "n": 0 if ours is None else ours.n}
            values |= {"planned": row.planned}
            values |= {name: None if ours is None else getattr(ours, name) for name in ("mean", "low", "high", "sd")}
            values |= {"paper": entry.paper, "missing": entry.reason if ours is None else None, "mark": entry.mark}
            kind = {"fine_tuning": row.tuned} if row.tuned else {}
            rows.append(labels | values | {"runs": " ".join(row.runs)} | kind)
    return pd.DataFrame(rows)


def differences(table: Table) -> pd.DataFrame:
    """A row for each comparison: arms, score, mean, interval, p, the paper's difference, verdict."""
    names = {row.arm: ", ".join(row.labels) for row in table.rows}
    return pd.DataFrame(
        {
            "arm": names[c.arm], "against": names[c.reference], "score": c.metric, "unit": unit(c.metric),
            "n": c.difference.n, "difference": c.difference.mean, "low": c.difference.low, "high": c.difference.high,
            "p": c.p, "p_holm": c.adjusted, "paper": c.paper, "verdict": c.verdict,
        }
        for c in table.comparisons
    )  # fmt: skip
