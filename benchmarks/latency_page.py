"""The table and the figure of ``benchmarks.latency``."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from albert_ablate.files import write_text

TITLE = "A pass of the encoder"
#: Heading -> the text of a row's cell.
_CELLS = {
    "threads": lambda row: str(row["threads"]),
    "batch": lambda row: str(row["batch"]),
    "tokens": lambda row: f"{row['tokens']:,}",
    "form": lambda row: row["form"],
    "run": lambda row: row["run"],
    "ms": lambda row: _short(row["median ms"]),
    "p90": lambda row: _short(row["p90 ms"]),
    "min": lambda row: _short(row["min ms"]),
    "to the first": lambda row: "—" if row["ratio"] is None else f"{row['ratio']:.2f}",
    "95% interval": lambda row: "—" if row["ratio"] is None else f"{row['low']:.2f} to {row['high']:.2f}",
    "MB": lambda row: "—" if row["MB"] is None else f"{row['MB']:,.0f}",
}
_WORDS = ("form", "run")


@dataclass(frozen=True)
class Page:
    """Rows of ``benchmarks.latency.rows``, what is said below them, and the machine."""

    rows: Sequence[dict[str, Any]]
    notes: list[str]
    machine: str

    def markdown(self) -> str:
        """The table, which is readable as plain text too, and the notes as a list."""
        cells = [list(_CELLS), *([cell(row) for cell in _CELLS.values()] for row in self.rows)]
        widths = [max(len(line[column]) for line in cells) for column in range(len(_CELLS))]
        left = [name in _WORDS for name in _CELLS]
        rule = [
            ("-" * width if is_left else "-" * (width - 1) + ":") for width, is_left in zip(widths, left, strict=True)
        ]
        lines = [
            [
                text.ljust(width) if is_left else text.rjust(width)
                for text, width, is_left in zip(line, widths, left, strict=True)
            ]
            for line in cells
        ]
        table = "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:]))
        return f"# {TITLE}\n\n{table}\n\n" + "\n".join(f"- {note}" for note in (self.machine, *self.notes))

    def csv(self) -> str:
        """All rows with all digits."""
        text = io.StringIO()
        writer = csv.DictWriter(text, list(self.rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return text.getvalue()


def write(page: Page, out: Path) -> None:
    """Write the table as Markdown and CSV and the figure as SVG beside ``out``."""
    write_text(out.with_suffix(".md"), page.markdown() + "\n")
    write_text(out.with_suffix(".csv"), page.csv())
    figure(page).savefig(out.with_suffix(".svg"))


def figure(page: Page) -> Any:
    """Median against length with the least threads, log-log; a panel for each batch, a line for each arm."""
    from albert_ablate.drawing_library import Figure, NullLocator
    from analysis.draw.plotting import plain_log

    rows = [row for row in page.rows if row["threads"] == page.rows[0]["threads"]]
    batches = list(dict.fromkeys(row["batch"] for row in rows))
    runs, shapes = list(dict.fromkeys(row["run"] for row in rows)), {"eager": "-", "onnx": "--", "int8": ":"}
    drawn = Figure(figsize=(5 * len(batches), 4.2 + 0.2 * len(runs)), layout="constrained")
    panels = drawn.subplots(1, len(batches), squeeze=False)[0]
    lengths = sorted({row["tokens"] for row in rows})
    for panel, batch in zip(panels, batches, strict=True):
        for arm in dict.fromkeys((row["run"], row["form"]) for row in rows):
            points = [row for row in rows if (row["run"], row["form"], row["batch"]) == (*arm, batch)]
            panel.plot(
                [row["tokens"] for row in points], [row["median ms"] for row in points], shapes[arm[1]], marker="o",
                markersize=3, color=f"C{runs.index(arm[0])}", label=" ".join(arm),
            )  # fmt: skip
        panel.set(xscale="log", yscale="log", xlabel="tokens", title=f"batch {batch}")
        panel.set_xticks(lengths, [f"{length:,}" for length in lengths])
        panel.xaxis.set_minor_locator(NullLocator())
        panel.grid(alpha=0.3)
        panel.set_ylabel("milliseconds of a pass, median" if panel is panels[0] else "")
        plain_log(panel, x=False, y=True)
    handles, labels = panels[0].get_legend_handles_labels()
    forms = len({row["form"] for row in rows})
    drawn.legend(handles, labels, loc="outside lower center", ncols=forms, fontsize="small", handlelength=3.5)
    threads = page.rows[0]["threads"]
    drawn.suptitle(f"{page.machine.partition(';')[0]}; {threads} thread{'s' * (threads > 1)}", fontsize="small")
    return drawn


def _short(milliseconds: float) -> str:
    return f"{milliseconds:,.0f}" if milliseconds >= 100 else f"{milliseconds:.3g}"
