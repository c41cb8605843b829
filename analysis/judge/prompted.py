"""Zero-, one- and few-shot scores of runs as tables: one line for each run, task and number of demonstrations."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

#: The scoring rules in the order of the columns.
RULES = ("sum", "token", "byte", "null", "calibrated")
#: Columns of ``kshot.csv``: accuracies, shares and bounds from 0 to 1.
COLUMNS = (
    "run", "task", "k", "seeds", "group", "scoring", "rule", "accuracy", "sd", "low", "high", "chance", "majority",
    "k_used", "questions", "bigram",
)  # fmt: skip
HEAD = ("run", "task", "k", *(f"{rule}, %" for rule in RULES), "chance · majority · bigram, %", "scored by")


def _entries(runs: pd.DataFrame) -> Iterator[tuple[str, dict[str, Any]]]:
    """(run, entry of ``kshot`` in its results) of every run that is no copy."""
    for run in runs[runs["state"] != "copy"].to_dict("records"):
        yield from ((run["run"], entry) for entry in run.get("kshot") or ())


def frame(runs: pd.DataFrame) -> pd.DataFrame:
    """One row for each run, task, number of demonstrations and rule; empty without such scores.

    ``sd`` is over seeds of the demonstrations; ``low`` and ``high`` bound the first seed's 95% interval over questions.
    """
    rows = []
    for run, entry in _entries(runs):
        for rule, accuracy in entry["accuracy"].items():
            low, high = entry["intervals"][rule]
            nested = ("accuracy", "seeds", "bigram")
            shared = {name: entry.get(name) for name in COLUMNS if name in entry and name not in nested}
            seeds = {"seeds": len(entry["seeds"]), "bigram": (entry.get("bigram") or {}).get("value")}
            scored = {"rule": rule, "accuracy": accuracy, "sd": entry["spread"].get(rule), "low": low, "high": high}
            rows.append({"run": run} | shared | seeds | scored)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def rows(runs: pd.DataFrame) -> list[list[str]]:
    """The lines of the report's table, and one below for each phenomenon of minimal pairs; empty without scores."""
    lines = []
    for run, entry in _entries(runs):
        k = str(entry["k"]) if entry["k_used"] == entry["k"] else f"{entry['k']} ({entry['k_used']:.1f} fit)"
        scores = [_percent(entry["accuracy"].get(rule), entry["spread"].get(rule)) for rule in RULES]
        bars = [_percent(entry[name]) for name in ("chance", "majority")]
        beat = " · ".join([*bars, _percent((entry.get("bigram") or {}).get("value"))])
        lines.append([run, entry["task"], k, *scores, beat, entry["scoring"]])
        for name, shares in (entry.get("phenomena") or {}).items():
            each = [_percent(shares[rule]["value"] if rule in shares else None) for rule in RULES]
            of_bigram = ((entry.get("bigram_phenomena") or {}).get(name) or {}).get("value")
            beat = " · ".join([*bars, _percent(of_bigram)])
            lines.append([run, f"{entry['task']}: {name}", k, *each, beat, entry["scoring"]])
    return lines


def _percent(value: float | None, spread: float | None = None) -> str:
    if value is None:
        return "—"
    return f"{100 * value:.1f}" + ("" if spread is None else f" ± {100 * spread:.1f}")


#: What the table says below its title.
NOTE = (
    "Accuracy of the most probable option, mean ± standard deviation over seeds of the demonstrations. A masked model "
    "is scored by pseudo-log-likelihood; accuracies of both kinds of models are comparable, their sums are not. "
    "Beside minimal pairs: how often a bigram model of the training text prefers the good sentence."
)
