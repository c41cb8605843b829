"""A table as LaTeX: booktabs rules, numbers aligned at the decimal point by siunitx, ours beside the paper's."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..judge.best import best_arms
from ..judge.numbers import DASH, number
from ..judge.tables import Entry, Row, Table
from .render import COMPARED, Reasons, column_head, compared, explanations, fewer, missing, papers, reason_of, remarks

#: The first line of every file.
PACKAGES = "% Needs \\usepackage{booktabs,graphicx,siunitx} (siunitx 3).\n"
_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "−": r"$-$", "—": "---", "×": r"$\times$",
    "†": r"\textdagger{}", "‡": r"\textdaggerdbl{}", "§": r"\S{}", "¶": r"\P{}", "‖": r"$\|$", "<": r"$<$",
    ">": r"$>$", "↑": r"$\uparrow$", "↓": r"$\downarrow$",
}  # fmt: skip
#: A number at the start of a text, and what follows it.
_NUMBER = re.compile(r"([+−-]?\d[\d,]*(?:\.\d+)?)(.*)", re.DOTALL)


def tex(text: str) -> str:
    """``text`` escaped for LaTeX."""
    return "".join(_TEX.get(character, character) for character in text)


@dataclass(frozen=True)
class _Cell:
    """A number that siunitx aligns, and the LaTeX behind it; a text alone where there is no number."""

    number: str = ""
    after: str = ""
    bold: bool = False

    @property
    def written(self) -> str:
        text = f"{{{self.after}}}" if self.after or not self.number else ""
        return (r"\bfseries " if self.bold else "") + self.number + text


def latex(table: Table) -> str:
    """A ``table`` environment, and one of the differences; the first line names the packages that they need."""
    reasons, best = Reasons(), best_arms(table)
    labels = [*table.label_columns, *(["n"] if table.filled else [])]
    named = [[*map(tex, row.labels), *([row.counted] if table.filled else [])] for row in table.rows]
    columns: list[list[_Cell]] = []
    top, below, rules = [tex(label) for label in labels], [""] * len(labels), []
    for index, column in enumerate(table.columns):
        cells = [row.cells[index] for row in table.rows]
        columns.append([_ours(row, cell, reasons, best) for row, cell in zip(table.rows, cells, strict=True)])
        head, place = tex(column_head(column)), len(labels) + len(columns)
        if any(map(papers, cells)):
            columns.append([_paper(papers(cell)) for cell in cells])
            top.append(f"\\multicolumn{{2}}{{c}}{{{head}}}")
            rules.append(f"\\cmidrule(lr){{{place}-{place + 1}}}")
            below += ["{ours}", "{paper}"]
        else:
            top.append(f"{{{head}}}")
            below.append("")
    body = [[*names, *(column[y].written for column in columns)] for y, names in enumerate(named)]
    kinds = "l" * len(table.label_columns) + "r" * (len(labels) - len(table.label_columns))
    notes = [tex(line) for line in explanations(table, "")]
    notes += [r"bold: best within noise (paired by seed, Holm's correction over the column)"] if best else []
    notes += [f"\\textsuperscript{{{tex(key)}}}{tex(reason)}" for key, reason in reasons.notes()]
    notes += [tex(line) for line in remarks(table)]
    head_rows = [top, "".join(rules), below] if rules else [top]
    document = PACKAGES + _environment(
        f"{table.title} ({table.heading} of the paper).", f"tab:{table.name}",
        kinds + "".join(map(_kind, columns)), head_rows, body, notes,
    )  # fmt: skip
    return document + _differences(table) if table.comparisons else document


def _differences(table: Table) -> str:
    rows = [compared(table, c) for c in table.comparisons]
    aligned = {COMPARED.index(name): [_split(row[COMPARED.index(name)]) for row in rows]
               for name in ("difference", "paper")}  # fmt: skip
    body = [
        [aligned[place][y].written if place in aligned else tex(text) for place, text in enumerate(row)]
        for y, row in enumerate(rows)
    ]
    kinds = "".join(_kind(aligned[place]) if place in aligned else "l" for place in range(len(COMPARED)))
    return _environment(
        f"Differences between arms of {table.heading}, paired by seed; p after Holm's correction.",
        f"tab:{table.name}-differences", kinds, [[f"{{{tex(name)}}}" for name in COMPARED]], body, [],
    )  # fmt: skip


def _ours(row: Row, cell: Sequence[Entry], reasons: Reasons, best: dict[str, frozenset[str]]) -> _Cell:
    if missing(cell):
        return _Cell("", f"{tex(DASH)}\\textsuperscript{{{reasons.letter(reason_of(cell))}}}")
    signs = reasons.signs(cell)
    after = f"\\textsuperscript{{{tex(signs)}}}" if signs else ""
    after += tex(fewer(cell, row.seeds))
    if len(cell) > 1:
        return _Cell("", tex(" / ".join(number(entry.metric, entry.ours) for entry in cell)) + after)
    split = _split(number(cell[0].metric, cell[0].ours))
    return _Cell(split.number, split.after + after, row.arm in best.get(cell[0].metric, ()))


def _paper(text: str) -> _Cell:
    return _split(text) if "/" not in text else _Cell("", tex(text))


def _split(text: str) -> _Cell:
    """The number at the start of ``text``, and the rest."""
    match = _NUMBER.fullmatch(text)
    if match is None:
        return _Cell("", tex(text))
    return _Cell(match[1].replace(",", "").replace("−", "-"), tex(match[2]))


def _kind(cells: Sequence[_Cell]) -> str:
    """A column of siunitx, as wide as its numbers and the longest text behind one; ``r`` without numbers."""
    numbers = [cell.number for cell in cells if cell.number]
    if not numbers:
        return "r"
    whole = max(len(number.lstrip("+-").partition(".")[0]) for number in numbers)
    decimals = max(len(number.partition(".")[2]) for number in numbers)
    sign = next((sign for sign in "+-" if any(number.startswith(sign) for number in numbers)), "")
    longest = max((cell.after for cell in cells if cell.number), key=len)
    return f"S[table-format={sign}{whole}.{decimals},table-space-text-post={{{longest}}}]"


_SETTINGS = (
    r"\sisetup{group-separator={,},group-minimum-digits=4,retain-explicit-plus,mode=text,reset-text-series=false}"
)


def _environment(
    caption: str, label: str, kinds: str, head: Sequence[Sequence[str] | str], body: Sequence[Sequence[str]],
    notes: Sequence[str],
) -> str:  # fmt: skip
    """``head``: rows, and rules between them as texts."""
    top = [part if isinstance(part, str) else " & ".join(part) + r" \\" for part in head]
    # LaTeX reads a bracket after \\ as its optional argument; an empty group at the start of a row prevents that.
    rows = ["{}" + " & ".join(row) + r" \\" for row in body]
    below = [r"\par\smallskip\raggedright\footnotesize " + r"\\ ".join(notes)] if notes else []
    return "\n".join(
        [
            r"\begin{table}[htbp]", r"\centering", _SETTINGS, f"\\caption{{{tex(caption)}}}", f"\\label{{{label}}}",
            r"\resizebox{\textwidth}{!}{%", f"\\begin{{tabular}}{{{kinds}}}", r"\toprule", *top, r"\midrule", *rows,
            r"\bottomrule", r"\end{tabular}}", *below, r"\end{table}", "",
        ]
    )  # fmt: skip
