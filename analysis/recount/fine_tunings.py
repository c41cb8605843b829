"""The fine-tunings of a run: predictions against each one's results.json, and those against the run's."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .checks import Check, compare, same, unknown
from .files import mean, middle, read_json
from .predictions import Counted, count
from .runs import Run

_SECTION = "fine-tuned tasks"
_NO_UNIT = "its fine-tuning folders are not kept"
_RESAMPLED = "an interval of resamples, which are not drawn again"


def check(run: Run, data: Path | None) -> list[Check]:
    """Every score of the run's tasks. ``run.tasks`` then holds what the raw files give, where they give it."""
    found: list[Check] = []
    entries = []
    for entry in run.tasks:
        checks, derived = _entry(run, entry, data)
        found += checks
        entries.append(derived)
    run.tasks = entries
    return found


def _entry(run: Run, entry: dict[str, Any], data: Path | None) -> tuple[list[Check], dict[str, Any]]:
    """Checks of one task and setting over its fine-tuning seeds, and the entry as its folders give it."""
    where = f"{run.name} · {entry['task']}"
    folders = [run.folder / "tasks" / name for name in entry.get("units") or ()]
    if not folders or not all((folder / "results.json").is_file() for folder in folders):
        return [unknown(_SECTION, f"{where} · {name}", value, _NO_UNIT) for name, value in _numbers(entry)], entry
    found: list[Check] = []
    units = []
    for folder in folders:
        checks, unit = _unit(f"{where} · {folder.name}", folder, data)
        found += checks
        units.append(unit)
    derived = _gathered(entry, units)
    source = f"{run.folder / 'tasks'}: {', '.join(folder.name for folder in folders)}"
    tolerance = max(unit["relative"] for unit in units)
    for name in ("seeds", "score", "spread", "last_score", "average"):
        found.append(compare(_SECTION, f"{where} · {name}", entry.get(name), derived[name], source, tolerance))
    ours = dict(_numbers(derived))
    found += [
        compare(_SECTION, f"{where} · {name}", value, ours.get(name), source, tolerance)
        for name, value in _numbers(entry)
        if name.startswith("sets.")
    ]
    # Predictions that are kept rounded give a rounded score: a check of the record, no better number.
    return found, entry if tolerance > 1e-6 else derived


def _gathered(entry: dict[str, Any], units: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Median over seeds, and the sets of the seed that has it (of an even number the lower one)."""
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
    """Checks of one fine-tuning, and its scores as its predictions give them."""
    manifest, results = read_json(folder / "manifest.json"), read_json(folder / "results.json")
    best = results.get("best") or {}
    sets = copy.deepcopy(best.get("sets") or {})
    counted = count(folder, manifest, sets, data)
    found = []
    for name, metrics in sets.items():
        if name in counted.open:
            place = f"{where} · {name}"
            found += [unknown(_SECTION, f"{place}.{n}", v, counted.open[name]) for n, v in _leaves(metrics)]
        else:
            found += _compared(f"{where} · {name}", metrics, counted.scores[name], counted)
    metric = str(results.get("metric"))
    first: dict[str, Any] = next(iter(sets.values()), {})
    names = metric.split(" and ")
    score, average = best.get("score"), best.get("average")
    if all(isinstance(first.get(name), dict) for name in names):
        own = mean([first[name]["value"] for name in names])
        pair = [first[name]["value"] for name in ("f1", "exact") if name in first]
        own_average = mean(pair) if len(pair) == 2 else own
        file = str(folder / "results.json")
        found.append(compare(_SECTION, f"{where} · score", score, own, file, counted.relative))
        found.append(compare(_SECTION, f"{where} · average", average, own_average, file, counted.relative))
        score, average = own, own_average
    return found, {
        "seed": results.get("seed"), "score": score, "average": average, "sets": sets,
        "last": (results.get("last") or {}).get("score"), "to_beat": results.get("to_beat") or {},
        "relative": counted.relative,
    }  # fmt: skip


def _compared(where: str, metrics: dict[str, Any], own: dict[str, dict[str, Any]], counted: Counted) -> list[Check]:
    """Checks of one set; what the predictions give takes the place of the record in ``metrics``."""
    found = []
    for name, recorded in metrics.items():
        if not isinstance(recorded, dict) or "value" not in recorded:
            continue
        if name not in own:
            found.append(unknown(_SECTION, f"{where}.{name}", recorded["value"], "not counted again from predictions"))
            continue
        for part in ("value", "interval"):
            place = f"{where}.{name}.{part}"
            if part in own[name]:
                derived = own[name][part]
                found.append(compare(_SECTION, place, recorded[part], derived, str(counted.file), counted.relative))
                if not same(recorded[part], derived):
                    recorded[part] = derived
            elif part in recorded:
                found.append(unknown(_SECTION, place, recorded[part], _RESAMPLED))
    return found


def _numbers(entry: dict[str, Any]) -> list[tuple[str, Any]]:
    """What a report may take from an entry, by name."""
    found = [(name, entry.get(name)) for name in ("score", "average")]
    for name, metrics in entry["sets"].items():
        found += [(f"sets.{name}.{leaf}", value) for leaf, value in _leaves(metrics)]
    return found


def _leaves(metrics: dict[str, Any]) -> list[tuple[str, Any]]:
    """``accuracy.value`` and ``accuracy.interval`` of the metrics of a set."""
    return [
        (f"{name}.{part}", value[part])
        for name, value in metrics.items()
        if isinstance(value, dict) and "value" in value
        for part in ("value", "interval")
        if part in value
    ]
