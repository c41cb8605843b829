"""Checks the fine-tunings of a run: its results.json against theirs, and theirs against their predictions."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .checks import Check, compare, same, unknown
from .files import at, mean, middle, read_json, read_lines
from .predictions import Counted, count
from .runs import Run

_SECTION = "fine-tuned tasks"
_NO_UNIT = "its fine-tuning folders are not kept"
_RESAMPLED = "an interval of resamples, which are not drawn again"


def check(run: Run, data: Path | None) -> list[Check]:
    """Checks of every score of the run's tasks. Replaces the entries of ``run.tasks`` by those from the raw files."""
    checks: list[Check] = []
    entries = []
    for entry in run.tasks:
        entry_checks, derived = _entry(run, entry, data)
        checks += entry_checks
        entries.append(derived)
    run.tasks = entries
    return checks


def _entry(run: Run, entry: dict[str, Any], data: Path | None) -> tuple[list[Check], dict[str, Any]]:
    """Checks of one task over its fine-tuning seeds, and its entry derived from their folders."""
    where = f"{run.name} · {entry['task']}"
    folders = [run.folder / "tasks" / name for name in entry.get("units") or ()]
    if not folders or not all((folder / "results.json").is_file() for folder in folders):
        return [unknown(_SECTION, f"{where} · {name}", value, _NO_UNIT) for name, value in _numbers(entry)], entry
    checks: list[Check] = []
    units = []
    for folder in folders:
        unit_checks, unit = _unit(f"{where} · {folder.name}", folder, data)
        checks += unit_checks
        units.append(unit)
    derived = _gathered(entry, units)
    source = f"{run.folder / 'tasks'}: {', '.join(folder.name for folder in folders)}"
    tolerance = max(unit["relative"] for unit in units)
    for name in ("seeds", "score", "spread", "last_score", "average"):
        checks.append(compare(_SECTION, f"{where} · {name}", entry.get(name), derived[name], source, tolerance))
    ours = dict(_numbers(derived))
    checks += [
        compare(_SECTION, f"{where} · {name}", value, ours.get(name), source, tolerance)
        for name, value in _numbers(entry)
        if name.startswith("sets.")
    ]
    # Rounded predictions give a rounded score: enough for a check, but the recorded score is more precise.
    return checks, entry if tolerance > 1e-6 else derived


def _gathered(entry: dict[str, Any], units: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The entry of a task: median scores over seeds, and the sets of the median seed (the lower one of two)."""
    units = sorted(units, key=lambda unit: unit["seed"])
    best = [unit["score"] for unit in units]
    chosen = units[best.index(sorted(best)[(len(best) - 1) // 2])]
    return entry | {
        "seeds": [unit["seed"] for unit in units],
        "score": middle(best),
        "spread": [min(best), max(best)],
        "last_score": middle([unit["last"] for unit in units]),
        "average": middle([unit["average"] for unit in units]),
        "sets": chosen["sets"],
        "to_beat": chosen["to_beat"],
    }


def _unit(where: str, folder: Path, data: Path | None) -> tuple[list[Check], dict[str, Any]]:
    """Checks of one fine-tuning, and its scores derived from its predictions."""
    manifest, results = read_json(folder / "manifest.json"), read_json(folder / "results.json")
    best = results.get("best") or {}
    sets = copy.deepcopy(best.get("sets") or {})
    counted = count(folder, manifest, sets, data)
    checks = []
    for name, metrics in sets.items():
        if name in counted.open:
            label = f"{where} · {name}"
            checks += [unknown(_SECTION, f"{label}.{n}", v, counted.open[name]) for n, v in _leaves(metrics)]
        else:
            checks += _compared(f"{where} · {name}", metrics, counted.scores[name], counted)
    metric = str(results.get("metric"))
    first: dict[str, Any] = next(iter(sets.values()), {})
    names = metric.split(" and ")
    score, average = best.get("score"), best.get("average")
    if all(isinstance(first.get(name), dict) for name in names):
        derived = mean([first[name]["value"] for name in names])
        pair = [first[name]["value"] for name in ("f1", "exact") if name in first]
        derived_average = mean(pair) if len(pair) == 2 else derived
        file = str(folder / "results.json")
        checks.append(compare(_SECTION, f"{where} · score", score, derived, file, counted.relative))
        checks.append(compare(_SECTION, f"{where} · average", average, derived_average, file, counted.relative))
        score, average = derived, derived_average
    return checks, {
        "seed": results.get("seed"), "score": score, "average": average, "sets": sets,
        "last": (results.get("last") or {}).get("score"), "to_beat": results.get("to_beat") or {},
        "relative": counted.relative,
    }  # fmt: skip


def _compared(where: str, metrics: dict[str, Any], scores: dict[str, dict[str, Any]], counted: Counted) -> list[Check]:
    """Checks of one set. Values from the predictions (``scores``) replace the recorded ones in ``metrics``."""
    checks = []
    for name, recorded in metrics.items():
        if not isinstance(recorded, dict) or "value" not in recorded:
            continue
        if name not in scores:
            checks.append(unknown(_SECTION, f"{where}.{name}", recorded["value"], "not counted again from predictions"))
            continue
        for part in ("value", "interval"):
            label = f"{where}.{name}.{part}"
            if part in scores[name]:
                derived = scores[name][part]
                checks.append(compare(_SECTION, label, recorded[part], derived, str(counted.file), counted.relative))
                if not same(recorded[part], derived):
                    recorded[part] = derived
            elif part in recorded:
                checks.append(unknown(_SECTION, label, recorded[part], _RESAMPLED))
    return checks


def _numbers(entry: dict[str, Any]) -> list[tuple[str, Any]]:
    """The numbers of an entry that a report may show, by name."""
    numbers = [(name, entry.get(name)) for name in ("score", "average")]
    for name, metrics in entry["sets"].items():
        numbers += [(f"sets.{name}.{leaf}", value) for leaf, value in _leaves(metrics)]
    return numbers


def _leaves(metrics: dict[str, Any]) -> list[tuple[str, Any]]:
    """The values and intervals of the metrics of a set, by name: ``accuracy.value``, ``accuracy.interval``."""
    return [
        (f"{name}.{part}", value[part])
        for name, value in metrics.items()
        if isinstance(value, dict) and "value" in value
        for part in ("value", "interval")
        if part in value
    ]


def later_epochs(run: Path, entry: dict[str, Any] | None) -> float | None:
    """Squared error after two epochs less the lowest one later, in thousandths: the mean over a task's fine-tunings."""
    gains: list[float] = []
    for name in (entry or {}).get("units") or ():
        unit = run / "tasks" / name
        steps, epochs = (at(read_json(unit / "results.json"), f"training.{part}") for part in ("steps", "epochs"))
        if not steps or not (unit / "metrics.jsonl").is_file():
            return None
        lines = [line for line in read_lines(unit / "metrics.jsonl") if line is not None and "dev_score" in line]
        passed = [(line["step"] / steps * epochs, line["dev_score"]) for line in lines]
        at_two = [error for epoch, error in passed if 1.98 <= epoch <= 2.02]
        after = [error for epoch, error in passed if epoch > 2.02]
        if not at_two or not after:
            return None
        gains.append(1000 * (at_two[-1] - min(after)))
    return sum(gains) / len(gains) if gains else None
