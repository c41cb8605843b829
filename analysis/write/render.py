"""Writes a table in four forms: Markdown, LaTeX (booktabs), CSV and HTML.

A cell reads ``ours ± half the 95% interval [paper]``. An em-dash with a letter stands for a missing number of ours,
with the reason below the table; a dagger marks an arm that must not be compared.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import pandas as pd
from markupsafe import Markup, escape

from ..judge.metrics import metric
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


class Reasons:
    """Assigns letters to the reasons for missing numbers, in the order of their first use."""

    def __init__(self) -> None:
        self._letters: dict[str, str] = {}

    def letter(self, reason: str) -> str:
        """The letter of ``reason``."""
        count = len(self._letters)
        return self._letters.setdefault(reason, chr(97 + count) if count < 26 else f"a{chr(71 + count)}")

    def lines(self) -> list[str]:
        """A line for each letter, ``a: not fine-tuned on mnli``."""
        return [f"{letter}: {reason}" for reason, letter in self._letters.items()]


def text(cell: Sequence[Entry], reasons: Reasons, paper: bool = True, seeds: int = 0) -> str:
    """One cell as plain text, with its number of seeds if that is smaller than ``seeds``, the row's."""
    ours = [number(entry.metric, entry.ours) for entry in cell]
    if all(entry.ours is None for entry in cell):
        shown = f"{DASH}{reasons.letter(cell[0].reason or 'not measured')}"
    else:
        shown = " / ".join(ours) + ("†" if any(entry.mark for entry in cell) else "")
        fewest = min(entry.ours.n for entry in cell if entry.ours is not None)
        shown += f" (n = {fewest})" if fewest < seeds else ""
    paper_values = [printed(entry.metric, entry.paper) for entry in cell if entry.paper is not None]
    return f"{shown} [{'/'.join(paper_values)}]" if paper_values and paper else shown


def marks(table: Table) -> list[str]:
    """``† reason`` for every distinct reason not to compare an arm."""
    distinct = {entry.mark for row in table.rows for cell in row.cells for entry in cell if entry.mark}
    return [f"† {mark}" for mark in sorted(distinct)]


def footnotes(table: Table, reasons: Reasons) -> list[str]:
    """All notes under a table, in order."""
    lines = ["ours ± half of the 95% t interval over seeds [the paper's]; n: seeds"] if table.filled else []
    ours = [entry.ours for row in table.rows for cell in row.cells for entry in cell if entry.ours is not None]
    if any(estimate.margin is None for estimate in ours):
        lines.append("in round brackets: the 95% interval where it ends at a bound, such as 0 or 100%")
    lines += [*reasons.lines(), *marks(table), *table.notes]
    if table.deviations:
        lines.append("Set-up, with the paper's in brackets: " + ", ".join(table.deviations))
    return lines


def markdown(table: Table) -> str:
    """A Markdown table of the arms and one of their differences."""
    reasons = Reasons()
    lines = [f"### Table {table.number}. {table.title}", ""]
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
    return [*table.label_columns, *seeds, *(heading(column) for column in table.columns)]


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


_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "−": r"$-$", "—": "---", "×": r"$\times$",
    "†": r"\textdagger{}", "<": r"$<$", ">": r"$>$",
}  # fmt: skip


def tex(text: str) -> str:
    """``text`` escaped for LaTeX."""
    return "".join(_TEX.get(character, character) for character in text)


def latex(table: Table) -> str:
    """A ``table`` environment for a document with booktabs and graphicx; differences as a second one."""
    reasons = Reasons()
    body = [_cells(table, row, reasons) for row in table.rows]
    document = _environment(
        f"{table.title} (Table {table.number} of the paper).", f"tab:{table.name}", _head(table), body
    )
    notes = r"\\ ".join(tex(note) for note in footnotes(table, reasons))
    document = (
        document.replace("\\end{table}", f"\\par\\smallskip\\footnotesize {notes}\n\\end{{table}}")
        if notes
        else document
    )
    if table.comparisons:
        rows = [compared(table, c) for c in table.comparisons]
        document += _environment(
            f"Differences between arms of Table {table.number}, paired by seed; p after Holm's correction.",
            f"tab:{table.name}-differences", COMPARED, rows,
        )  # fmt: skip
    return document


def _environment(caption: str, label: str, head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    # LaTeX reads a bracket after \\ as its optional argument; an empty group at the start of a row prevents that.
    rows = ["{}" + " & ".join(tex(cell) for cell in row) + r" \\" for row in body]
    return "\n".join(
        [
            r"\begin{table}[htbp]", r"\centering", f"\\caption{{{tex(caption)}}}", f"\\label{{{label}}}",
            r"\resizebox{\textwidth}{!}{%", f"\\begin{{tabular}}{{{'l' * len(head)}}}", r"\toprule",
            " & ".join(tex(cell) for cell in head) + r" \\", r"\midrule", *rows, r"\bottomrule", r"\end{tabular}}",
            r"\end{table}", "",
        ]
    )  # fmt: skip


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
            rows.append(labels | values | {"runs": " ".join(row.runs)})
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


def html(table: Table) -> Markup:
    """The table as HTML with sortable columns; a click on a number of ours opens its provenance."""
    reasons = Reasons()
    markup = _html_table(_head(table), [_html_row(table, row, reasons) for row in table.rows])
    notes = "".join(f"<li>{escape(note)}</li>" for note in footnotes(table, reasons))
    markup += f'<ul class="notes">{notes}</ul>' if notes else ""
    if table.comparisons:
        head = [name or "verdict" for name in COMPARED]
        markup += f"<details><summary>{len(table.comparisons)} differences between arms, paired by seed</summary>"
        markup += _html_table(head, [_html_comparison(table, c) for c in table.comparisons])
        markup += '<p class="notes">p after Holm\'s correction over the table.</p></details>'
    return Markup(markup)


def _html_table(head: Sequence[str], rows: Sequence[str]) -> str:
    names = "".join(f'<th scope="col"><button type="button">{escape(name)}</button></th>' for name in head)
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    table = f'<table class="sortable"><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="wide">{table}</div>'


def _html_row(table: Table, row: Row, reasons: Reasons) -> str:
    labels = "".join(f'<th scope="row">{escape(label)}</th>' for label in row.labels)
    labels += f"<td data-sort='{row.seeds}'>{row.counted}</td>" if table.filled else ""
    return labels + "".join(_html_cell(row, cell, reasons) for cell in row.cells)


def _html_cell(row: Row, cell: Sequence[Entry], reasons: Reasons) -> str:
    first = next((entry.ours.mean for entry in cell if entry.ours is not None), None)
    paper_values = "/".join(printed(entry.metric, entry.paper) for entry in cell if entry.paper is not None)
    sort = "" if first is None else f' data-sort="{first:.6g}"'
    shown = escape(text(cell, reasons, paper=False, seeds=row.seeds))
    if first is None:
        ours = f'<span class="missing" title="{escape(cell[0].reason or "")}">{DASH}<sup>{shown[1:]}</sup></span>'
    elif row.runs:
        keys = escape("|".join(entry.metric for entry in cell))
        mark = next((entry.mark for entry in cell if entry.mark), None)
        title = f' title="{escape(mark)}"' if mark else ""
        ours = f'<button type="button" class="number" data-arm="{row.arm}" data-score="{keys}"{title}>{shown}</button>'
    else:
        ours = f"<span>{shown}</span>"
    return (
        f"<td{sort}>{ours}" + (f'<span class="paper">{escape(paper_values)}</span>' if paper_values else "") + "</td>"
    )


def _html_comparison(table: Table, c: Comparison) -> str:
    cells = compared(table, c)
    keep = {"differs": "yes", "within noise": "noise"}.get(c.verdict, "weak")
    shown = [f"<td>{escape(cell)}</td>" for cell in cells]
    shown[3] = f'<td data-sort="{c.difference.mean:.6g}">{escape(cells[3])}</td>'
    shown[-1] = f'<td><span class="tag {keep}">{escape(c.verdict)}</span></td>'
    return "".join(shown)
