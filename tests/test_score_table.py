"""The scores of a run on terminals of several widths: nothing is cut, and no name or number is broken."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from albert_ablate.record.folder import RunFolder
from albert_ablate.record.score_table import ScoreRow, ScoreTable
from albert_ablate.record.summary import summary

PICTURES = Path(__file__).parent / "pictures"
TASKS = ScoreTable(
    ("  fine-tuned", "metric", "best\non dev", "95% interval", "last"), "to beat: majority\n· bag of words",
    [
        ScoreRow(("  text_classification c2c9", "micro f1", "72.7%", "44.4% to 92.3%", "72.7%"), "0.0% · 76.9%"),
        ScoreRow(("", "mean squared error", "1.533", "0.766 to 2.414", "1.533")),
        ScoreRow(("  era", "accuracy", "58.5%", "54.5% to 62.4%", "58.5%"), "25.0% · 73.7%", "3 seeds: 58.5% median"),
    ],
    names=2, least=18, below="to beat: ", legend="to beat: majority · bag of words",
)  # fmt: skip


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_table_of_tasks_is_the_picture(width: int) -> None:
    out = io.StringIO()
    Console(file=out, width=width).print(TASKS)
    assert out.getvalue() == (PICTURES / f"scores-{width}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [60, 80])
def test_the_summary_of_a_run_fits_and_keeps_every_number(finished: RunFolder, width: int) -> None:
    out, wide = io.StringIO(), io.StringIO()
    Console(file=out, width=width).print(summary(finished))
    Console(file=wide, width=400).print(summary(finished))
    assert all(len(line) <= width for line in out.getvalue().splitlines())
    narrow = [
        *(word.strip(":") for word in out.getvalue().split()),
        str(finished.path),
    ]  # only a path may be too long for a line
    assert [word for word in wide.getvalue().split() if word.strip(":") not in narrow] == []
