"""A table of scores on a terminal. Where it does not fit, baselines move below their score, then names above it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions
from rich.text import Text

_GAP = "  "


@dataclass(frozen=True)
class ScoreRow:
    """A score: its cells from left to right, and its baselines."""

    cells: tuple[str, ...]  # names (and metric), then numbers
    baselines: str = ""
    note: str = ""  # always on a line of its own


@dataclass(frozen=True)
class ScoreTable:
    """Rows below a head; the first ``names`` columns are text, the others numbers; the first number is bold."""

    head: tuple[str, ...]  # of the cells; a line break makes a head of two lines
    baselines: str  # head of the last column
    rows: Sequence[ScoreRow]
    names: int = 1
    least: int = 0  # width of the first column
    below: str = ""  # what precedes baselines on a line of their own
    legend: str = ""  # what they are, where they stand on lines of their own

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        """The lines at this width."""
        head = [text.split("\n") for text in self.head]
        cells = list(zip(*(row.cells for row in self.rows), strict=True))
        widths = [max(map(_width, [*lines, *column])) for lines, column in zip(head, cells, strict=True)]
        widths[0] = max(widths[0], self.least)
        last = self.baselines.split("\n")
        whole = sum(widths) + len(_GAP) * len(widths)
        beside = whole + max(map(_width, [*last, *(row.baselines for row in self.rows)])) <= options.max_width
        above = not beside and whole - len(_GAP) > options.max_width
        if above:
            yield Text(self.head[0], style="dim")
        for number in range(tall := max(map(len, [*head, *([last] if beside else [])]))):
            texts = [_line_of(lines, number - tall) for lines in head]
            yield self._line(texts, widths, _line_of(last, number - tall) if beside else "", above, head=True)
        for row in self.rows:
            if above and row.cells[0]:
                yield Text(row.cells[0])
            yield self._line(row.cells, widths, row.baselines if beside else "", above)
            if row.baselines and not beside:
                yield Text(f"      {self.below}{row.baselines}")
            if row.note:
                yield Text(f"      {row.note}")
        if self.legend and not beside:
            yield Text(f"  {self.legend}", style="dim")

    def _line(
        self, cells: Sequence[str], widths: Sequence[int], baselines: str, above: bool, head: bool = False
    ) -> Text:
        """One line; with ``above`` without its first column, which has a line of its own."""
        line = Text(style="dim" if head else "")
        for index, (text, width) in enumerate(zip(cells, widths, strict=True)):
            if above and index == 0:
                line.append("    ")
                continue
            gap = " " * (width - _width(text))
            padded = text + gap if index < self.names else gap + text
            line.append(padded, style="bold" if index == self.names and not head else "")
            line.append(_GAP)
        line.append(baselines)
        line.rstrip()
        return line


def _width(text: str) -> int:
    return Text(text).cell_len


def _line_of(lines: Sequence[str], from_the_end: int) -> str:
    """The line of a head at a negative index; empty above its first."""
    return lines[from_the_end] if -from_the_end <= len(lines) else ""
