"""Checks ``controls.csv`` against the run folders: achieved and achievable scores on planted text."""

from collections.abc import Mapping, Sequence
from typing import Any

from . import rules, scores
from .checks import Check, compare
from .files import at, mean
from .rules import ALPHA
from .runs import Run

_SECTION = "controls"
#: Score -> paths of chance and of the achievable, factor to printed units, 1 if more is better (else -1), share of the
#: way that a positive control must exceed (%), and how far beyond chance a negative control may be.
_SCORES = {
    "MLM loss": ("achievable.masked_lm.chance_loss", "achievable.masked_lm.loss", 1.0, -1, 50.0, 0.1),
    "NSP": ("nsp.majority_class", "achievable.nsp.accuracy", 100.0, 1, 50.0, 5.0),
    "SOP": ("sop.majority_class", "achievable.sop.accuracy", 100.0, 1, 90.0, 5.0),
}
_EVERYWHERE = (float("-inf"), float("inf"))


def strengths(config: Mapping[str, Any]) -> str | None:
    """``topic 0.9, order 0.6, local 0.6`` for a run on planted text; None for any other run."""
    if not isinstance(at(config, "data.planted"), dict):
        return None
    return ", ".join(f"{name} {at(config, f'data.planted.{name}'):g}" for name in ("topic", "order", "local"))


def check(rows: Sequence[dict[str, str]], runs: Sequence[Run]) -> list[Check]:
    """Checks of all of ``controls.csv``; a planted text with finished runs but without a row is a disagreement."""
    by_name = {run.name: run for run in runs}
    checks = []
    for row in rows:
        where = f"{row['planted_text']}, {row['arm']} · {row['score']}"
        members = [by_name[name] for name in row["runs"].split() if name in by_name]
        if len(members) != len(row["runs"].split()) or not members:
            checks.append(
                compare(_SECTION, f"{where} · runs", row["runs"], " ".join(r.name for r in members), "folders")
            )
            continue
        source = f"results.json of {members[0].name}"
        derived = {"planted_text": strengths(members[0].config), **_derived(members, row["score"])}
        checks += [compare(_SECTION, f"{where} · {name}", row[name], value, source) for name, value in derived.items()]
    named = {row["planted_text"] for row in rows}
    texts = {strengths(run.config) for run in runs if run.state == "finished" and strengths(run.config)}
    return checks + [
        compare(_SECTION, str(text), None, "a row", "run folders") for text in sorted(map(str, texts - named))
    ]


def _derived(runs: Sequence[Run], score: str) -> dict[str, Any]:
    chance_at, best_at, scale, sign, part, margin = _SCORES[score]
    chance = mean([at(run.results, chance_at) * scale for run in runs])
    best = mean([at(run.results, best_at) * scale for run in runs])
    achieved = scores.summary(runs, score)
    assert achieved is not None
    head = "" if score == "MLM loss" else str(at(runs[0].results, f"{score.lower()}.head")).split()[0]
    columns: dict[str, Any] = {
        "head": head, "n": achieved.n, "achieved": achieved.mean, "low": achieved.low, "high": achieved.high,
        "achievable": best, "chance": chance, "way_percent": None, "way_low": None, "way_high": None,
    }  # fmt: skip
    possible, floor = sign * (best - chance), scores.floor(runs, score)
    achieved_values = list(scores.values(runs, score).values())
    if possible <= margin:
        beyond = [sign * (value - chance) - max(possible, 0.0) for value in achieved_values]
        tested = rules.estimate(beyond, _EVERYWHERE, floor)
        assert tested is not None
        return columns | {"control": "negative", "verdict": _verdict(
            rules.p_below(tested, margin), rules.p_above(tested, margin)
        )}  # fmt: skip
    way = rules.estimate(
        [100 * sign * (v - chance) / possible for v in achieved_values], _EVERYWHERE, 100 * floor / possible
    )
    assert way is not None
    trained = score == "MLM loss" or head == "trained"
    return columns | {
        "way_percent": way.mean, "way_low": way.low, "way_high": way.high,
        "control": "positive" if trained else "",
        "verdict": _verdict(rules.p_above(way, part), rules.p_below(way, part)) if trained else "",
    }  # fmt: skip


def _verdict(holds: float, fails: float) -> str:
    return "pass" if holds < ALPHA else "fail" if fails < ALPHA else "not settled"
