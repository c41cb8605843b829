"""A table as HTML: sortable columns, ours and the paper's numbers side by side, a click opens a number's provenance."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

from ..judge.best import best_arms
from ..judge.numbers import DASH, number
from ..judge.tables import Comparison, Entry, Row, Table
from .render import COMPARED, Reasons, column_head, compared, explanations, fewer, missing, papers, reason_of, remarks

Best = Mapping[str, frozenset[str]]

_BEST = (
    "bold: the best arm of a column, and arms whose difference from it, paired by seed, is within noise (Holm's "
    "correction over the column); no bold where no arm differs"
)
#: Columns of the table of differences that hold numbers.
_NUMBERS = ("difference", "95% interval", "p", "paper")
#: What a reader with a screen reader hears in place of an arrow.
_SPOKEN = {"↑": "higher is better", "↓": "lower is better"}


def html(table: Table, kind: str = "") -> Markup:
    """The table, its notes, and its differences in a folded second table. A table of a sweep has the number 0.

    ``kind`` tells two forms of one table apart by their names.
    """
    name = table.heading + kind
    reasons, best = Reasons(), best_arms(table)
    beside = [bool(any(map(papers, cells))) for cells in zip(*(row.cells for row in table.rows), strict=True)]
    rows = [_row(table, row, reasons, best, beside) for row in table.rows]
    markup = framed(f"{name}. {table.title}", _head(table, beside), rows)
    read = [escape(line) for line in [*explanations(table, ""), *([_BEST] if best else [])]]
    read += [Markup(" · ").join(Markup("<sup>{}</sup> {}").format(*note) for note in reasons.notes())]
    markup += _notes([line for line in read if line])
    if about := remarks(table):
        markup += Markup("<details><summary>{}: set-up and notes on its runs</summary>{}</details>").format(
            name, _notes(list(map(escape, about)))
        )
    if table.comparisons:
        markup += _differences(table, name)
    return markup


def _notes(lines: Sequence[Markup]) -> Markup:
    return Markup('<ul class="notes">{}</ul>').format(Markup("").join(map(Markup("<li>{}</li>").format, lines)))


def framed(caption: str, head: Markup, rows: Sequence[Markup], kind: str = "") -> Markup:
    """A table in a box that scrolls: ``head`` is the content of ``thead``, ``kind`` a class of the table."""
    return Markup(
        '<div class="wide" role="region" tabindex="0" aria-label="{0} (scrolls)"><table class="sortable {1}">'
        '<caption class="unseen">{0}</caption><thead>{2}</thead><tbody>{3}</tbody></table></div>'
    ).format(caption, kind, head, Markup("").join(Markup("<tr>{}</tr>").format(row) for row in rows))


def heads(names: Sequence[str], numbers: Sequence[str] = ()) -> Markup:
    """A row of column heads, each a button that sorts; those in ``numbers`` are aligned as numbers."""
    cells = [sorting(name or "verdict", column, name in numbers) for column, name in enumerate(names)]
    return Markup("<tr>{}</tr>").format(Markup("").join(cells))


def sorting(name: str, column: int, number: bool, rows: int = 1) -> Markup:
    """The head of the column number ``column``, from 0."""
    span = Markup(' rowspan="{}"').format(rows) if rows > 1 else ""
    kind = Markup(' class="num"') if number else ""
    return Markup('<th scope="col" data-column="{}"{}{}><button type="button">{}</button></th>').format(
        column, kind, span, spoken(name)
    )


def spoken(name: str) -> Markup:
    """A head whose arrow is read aloud as words."""
    text, arrow = (name[:-1], name[-1]) if name[-1:] in _SPOKEN else (name, "")
    if not arrow:
        return escape(text)
    return Markup('{}<span aria-hidden="true">{}</span><span class="unseen">({})</span>').format(
        text, arrow, _SPOKEN[arrow]
    )


def _head(table: Table, beside: Sequence[bool]) -> Markup:
    """One row of heads, or two where the paper has numbers: the score, and below it ours and the paper's."""
    deep = 2 if any(beside) else 1
    names = [*table.label_columns, *(["n"] if table.filled else [])]
    top = [sorting(name, column, name == "n", deep) for column, name in enumerate(names)]
    below: list[Markup] = []
    column = len(names)
    for name, two in zip(map(column_head, table.columns), beside, strict=True):
        if two:
            top.append(Markup('<th scope="colgroup" colspan="2" class="group">{}</th>').format(spoken(name)))
            below += [sorting("ours", column, True), sorting("paper", column + 1, True)]
        else:
            top.append(sorting(name, column, True, deep))
        column += 2 if two else 1
    rows = [top, below] if below else [top]
    return Markup("").join(Markup("<tr>{}</tr>").format(Markup("").join(row)) for row in rows)


def _row(table: Table, row: Row, reasons: Reasons, best: Best, beside: Sequence[bool]) -> Markup:
    cells = [Markup('<th scope="row">{}</th>').format(label) for label in row.labels]
    cells += [Markup('<td class="num" data-sort="{}">{}</td>').format(row.seeds, row.counted)] if table.filled else []
    for cell, two in zip(row.cells, beside, strict=True):
        cells.append(_ours(row, cell, reasons, best))
        if two:
            shown = papers(cell)
            printed = next((entry.paper for entry in cell if entry.paper is not None), None)
            sort = "" if printed is None else Markup(' data-sort="{}"').format(printed)
            cells.append(Markup('<td class="num paper"{}>{}</td>').format(sort, shown))
    return Markup("").join(cells)


def _ours(row: Row, cell: Sequence[Entry], reasons: Reasons, best: Best) -> Markup:
    if missing(cell):
        reason = reason_of(cell)
        return Markup('<td class="num missing" title="{}">{}<sup>{}</sup></td>').format(
            reason, DASH, reasons.letter(reason)
        )
    first = next(entry.ours.mean for entry in cell if entry.ours is not None)
    shown = Markup(" / ").join(_number(entry, row.arm in best.get(entry.metric, ())) for entry in cell)
    shown += Markup("<sup>{}</sup>").format(signs) if (signs := reasons.signs(cell)) else ""
    shown += escape(fewer(cell, row.seeds))
    if row.runs:
        mark = next((entry.mark for entry in cell if entry.mark), None)
        shown = Markup('<button type="button" class="number" data-arm="{}" data-score="{}"{}>{}</button>').format(
            row.arm, "|".join(entry.metric for entry in cell),
            Markup(' title="{}"').format(mark) if mark else "", shown,
        )  # fmt: skip
    return Markup('<td class="num" data-sort="{:.6g}">{}</td>').format(first, shown)


def _number(entry: Entry, is_best: bool) -> Markup:
    shown = number(entry.metric, entry.ours)
    mean, _, spread = shown.partition(" ")
    spread_text = Markup(' <span class="spread">{}</span>').format(spread) if spread else ""
    return Markup("<b>{}</b>{}" if is_best else "{}{}").format(mean, spread_text)


def _differences(table: Table, name: str) -> Markup:
    rows = [_comparison(table, c) for c in table.comparisons]
    return Markup(
        "<details data-print><summary>{}: {} differences between arms, paired by seed</summary>{}"
        '<p class="notes">p after Holm\'s correction over the table.</p></details>'
    ).format(name, len(rows), framed(f"Differences between arms of {name}", heads(COMPARED, _NUMBERS), rows))


def _comparison(table: Table, c: Comparison) -> Markup:
    kind = {"differs": "yes", "within noise": "noise"}.get(c.verdict, "weak")
    cells = []
    for name, shown in zip(COMPARED, compared(table, c), strict=True):
        sort = Markup(' data-sort="{:.6g}"').format(c.difference.mean) if name == "difference" else ""
        text = Markup('<span class="tag {}">{}</span>').format(kind, shown) if name == "" else escape(shown)
        numeric = Markup(' class="num"') if name in _NUMBERS else ""
        cells.append(Markup("<td{}{}>{}</td>").format(numeric, sort, text))
    return Markup("").join(cells)


def plain_table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Markup:
    """A sortable table of texts; a column of numbers is aligned as such."""
    numeric = [bool(rows) and all(_is_number(row[index]) for row in rows) for index in range(len(head))]
    names = [sorting(name, column, numeric[column]) for column, name in enumerate(head)]
    body = [
        Markup("").join(
            Markup('<td class="num">{}</td>' if is_number else "<td>{}</td>").format(cell)
            for cell, is_number in zip(row, numeric, strict=True)
        )
        for row in rows
    ]
    return framed(caption, Markup("<tr>{}</tr>").format(Markup("").join(names)), body)


def _is_number(text: str) -> bool:
    return text[:1].isdigit() or text[:1] in "+−-—" or text == ""
