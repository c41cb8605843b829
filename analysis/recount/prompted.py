"""Checks zero-, one- and few-shot scores: the rules are applied again to the recorded option scores."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .checks import Check, compare, unknown
from .runs import Run

_SECTION = "k-shot scores"
_NO_OPTIONS = "its option scores are not kept"


def _total(option: dict[str, Any]) -> float:
    return math.fsum(option["tokens"])


def _share(options: Sequence[dict[str, Any]], value: Callable[[dict[str, Any]], float], place: int) -> float:
    """The exponential of one option's value among those of all: 1 over the sum of exponentials of differences."""
    return 1 / math.fsum(math.exp(value(option) - value(options[place])) for option in options)


def _calibrated(options: Sequence[dict[str, Any]], place: int) -> float:
    """The share of an option over its mean share after prompts without content; not normalised."""
    count = len(options[0]["content_free"])
    free = [_share(options, lambda option, n=n: option["content_free"][n], place) for n in range(count)]  # type: ignore[misc]
    return _share(options, _total, place) / (math.fsum(free) / count)


#: Rule -> (options of a question, place of one) -> its score.
_SCORES: dict[str, Callable[[Sequence[dict[str, Any]], int], float]] = {
    "sum": lambda options, place: _total(options[place]),
    "token": lambda options, place: _total(options[place]) / len(options[place]["tokens"]),
    "byte": lambda options, place: _total(options[place]) / len(options[place]["text"].encode()),
    "null": lambda options, place: _total(options[place]) - options[place]["null"],
    "calibrated": _calibrated,
    "bigram": lambda options, place: options[place]["bigram"],
}


def accuracy(lines: Sequence[dict[str, Any]], rule: str) -> float:
    """Share of the questions whose right option scores highest; of n equally high ones, each counts 1/n."""
    credits_ = []
    for line in lines:
        scores = [_SCORES[rule](line["options"], place) for place in range(len(line["options"]))]
        best = [place for place, score in enumerate(scores) if score == max(scores)]
        credits_.append(1 / len(best) if line["answer"] in best else 0.0)
    return math.fsum(credits_) / len(credits_)


def check(rows: Sequence[dict[str, str]], runs: Sequence[Run]) -> list[Check]:
    """Checks of every score in the runs' ``results.json``, and of ``rows`` of ``kshot.csv``."""
    checks: list[Check] = []
    derived: dict[tuple[str, str, str], tuple[float, float | None]] = {}
    for run in runs:
        for entry in run.results.get("kshot") or () if run.state != "copy" else ():
            where = f"{run.name} · {entry['task']} k={entry['k']}"
            files = [run.folder / "kshot" / name / "options.jsonl" for name in entry["units"]]
            if not all(file.is_file() for file in files):
                checks += [unknown(_SECTION, f"{where} · {r}", v, _NO_OPTIONS) for r, v in entry["accuracy"].items()]
                continue
            units = [_lines(file) for file in files]
            source = f"{run.folder / 'kshot'}: {', '.join(entry['units'])}"
            for rule, reported in entry["accuracy"].items():
                each = [accuracy(lines, rule) for lines in units]
                mean = math.fsum(each) / len(each)
                spread = math.sqrt(math.fsum((x - mean) ** 2 for x in each) / (len(each) - 1)) if each[1:] else None
                derived[run.name, entry["group"], rule] = mean, spread
                checks.append(compare(_SECTION, f"{where} · {rule}", reported, mean, source))
                checks.append(compare(_SECTION, f"{where} · {rule} sd", entry["spread"][rule], spread, source))
            bars = {"": entry.get("bigram"), **(entry.get("bigram_phenomena") or {})}
            for name, bar in bars.items():
                if bar is not None:
                    some = [line for line in units[0] if not name or line.get("phenomenon") == name]
                    shown = f"{where} · {name} · bigram" if name else f"{where} · bigram"
                    checks.append(compare(_SECTION, shown, bar["value"], accuracy(some, "bigram"), source))
                    derived[run.name, entry["group"], f"bigram {name}".strip()] = accuracy(some, "bigram"), None
            for name, shares in (entry.get("phenomena") or {}).items():
                some = [line for line in units[0] if line.get("phenomenon") == name]
                checks += [
                    compare(_SECTION, f"{where} · {name} · {rule}", share["value"], accuracy(some, rule), source)
                    for rule, share in shares.items()
                ]
    for row in rows:
        found = derived.get((row["run"], row["group"], row["rule"]))
        where = f"kshot.csv · {row['run']} · {row['task']} k={row['k']} · {row['rule']}"
        if found is None:
            checks.append(unknown(_SECTION, where, row["accuracy"], _NO_OPTIONS))
            continue
        checks.append(compare(_SECTION, where, row["accuracy"], found[0], "options.jsonl"))
        checks.append(compare(_SECTION, f"{where} sd", row["sd"], found[1], "options.jsonl"))
        bigram = derived.get((row["run"], row["group"], "bigram"), (None, None))[0]
        checks.append(compare(_SECTION, f"{where} bigram", row["bigram"], bigram, "options.jsonl"))
    return checks


def _lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def pairs(run: Run) -> Any:
    """The accuracy on minimal pairs as ``runs.csv`` has it: None where a run has none, or several sets."""
    found = [entry for entry in run.results.get("kshot") or () if entry["task"] == "minimal_pairs"]
    return found[0]["accuracy"].get("sum") if len(found) == 1 else None


def measured(run: Run, key: str) -> tuple[float, list[tuple[float, float]], bool] | None:
    """A score by prompts in %: its value, the intervals of its parts, and whether none of them is above chance.

    None if ``key`` is no such score, or the run lacks it. ``few-shot`` is the largest k.
    """
    if key == "minimal pairs":
        return _combined([(1.0, _single(run, "minimal_pairs", 0), "sum")])
    kind, _, task = key.partition(":")
    known = [entry["k"] for entry in run.results.get("kshot") or () if entry["task"] == task]
    zero, few = _single(run, task, 0), _single(run, task, max(known, default=0)) if any(known) else None
    if kind == "few-shot over chance":
        found = _combined([(1.0, few, "token")])
        return None if found is None or few is None else (found[0] - 100 * few["chance"], found[1], False)
    parts: dict[str, list[tuple[float, dict[str, Any] | None, str]]] = {
        "zero-shot": [(1.0, zero, "token")], "few-shot": [(1.0, few, "token")],
        "few-shot gain": [(1.0, few, "token"), (-1.0, zero, "token")],
        "calibration gain": [(1.0, few, "calibrated"), (-1.0, few, "sum")],
    }  # fmt: skip
    return _combined(parts[kind]) if kind in parts else None


def is_score(key: str) -> bool:
    """Whether ``key`` names a score by prompts."""
    return key == "minimal pairs" or key.startswith(("zero-shot:", "few-shot", "calibration gain:"))


def _single(run: Run, task: str, k: int) -> dict[str, Any] | None:
    found = [entry for entry in run.results.get("kshot") or () if entry["task"] == task and entry["k"] == k]
    return found[0] if len(found) == 1 else None


def _combined(
    parts: Sequence[tuple[float, dict[str, Any] | None, str]],
) -> tuple[float, list[tuple[float, float]], bool] | None:
    total, intervals, above = 0.0, [], False
    for factor, entry, rule in parts:
        if entry is None or rule not in entry["accuracy"]:
            return None
        low, high = entry["intervals"][rule]
        total += 100 * factor * entry["accuracy"][rule]
        intervals.append((100 * low, 100 * high))
        above = above or low > entry["chance"]
    return total, intervals, not above
