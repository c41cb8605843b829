"""The table of zero-, one- and few-shot scores on the terminal."""

from collections.abc import Sequence

from albert_ablate.record.kshot import KShotEntry
from albert_ablate.record.score_table import ScoreRow, ScoreTable


def prompted_table(entries: Sequence[KShotEntry]) -> ScoreTable:
    """A line for each task and k, and for each phenomenon; a column for each rule. Accuracies in %."""
    rules = list(dict.fromkeys(rule for entry in entries for rule in entry.accuracy))
    rows = []
    for entry in entries:
        k = f"k={entry.k}" if entry.k_used == entry.k else f"k={entry.k} ({entry.k_used:.1f} fit)"
        scores = [_cell(entry.accuracy.get(rule), entry.spread.get(rule)) for rule in rules]
        majority = "" if entry.majority is None else f" · {_cell(entry.majority)} majority"
        bigram = "" if entry.bigram is None else f" · {_cell(entry.bigram.value)} bigram"
        rows.append(ScoreRow((f"  {entry.task}", k, *scores), f"{_cell(entry.chance)} chance{majority}{bigram}"))
        for name, shares in entry.phenomena.items():
            cells = [_cell(shares[rule].value if rule in shares else None) for rule in rules]
            bar = entry.bigram_phenomena.get(name)
            rows.append(ScoreRow((f"    {name}", "", *cells), "" if bar is None else f"{_cell(bar.value)} bigram"))
    return ScoreTable(("  task", "", *rules), "to beat", rows, names=2, below="to beat: ")


def _cell(value: float | None, spread: float | None = None) -> str:
    if value is None:
        return "–"
    return f"{100 * value:.1f}" + ("" if spread is None else f" ± {100 * spread:.1f}")
