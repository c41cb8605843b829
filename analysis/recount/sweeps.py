"""Checks the tables of recorded sweeps (``sweeps/*.csv``): the scores of the runs that each row names, and their sums.

Which runs make an arm is taken from the report, and so are the paper's values beside effects.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from . import rules, scores, tunings
from .checks import Check, compare, unknown
from .rules import Estimate
from .runs import Run
from .student import holm
from .task_setups import one_setup_each

Rows = Sequence[dict[str, str]]
FOLDER = "sweeps/"
_EFFECTS = "-effects.csv"
_NOT_DERIVED = "a seed without numbers; this check does not read the states of runs"


def check(files: Mapping[str, Rows], runs: Sequence[Run]) -> list[Check]:
    """Checks of every score and every effect of every sweep of a report. A named run without a folder disagrees."""
    by_name = {run.name: run for run in runs}
    checks = []
    for name, rows in sorted(files.items()):
        if not name.startswith(FOLDER) or name.endswith(_EFFECTS):
            continue
        section = name.removesuffix(".csv")
        starts = [row for row in rows if row["score"] == rows[0]["score"]]
        named = [tunings.of_kind(_members(row, by_name), row.get("fine_tuning")) for row in starts]
        kinds = [row.get("fine_tuning", "") for row in starts]
        arms, place = one_setup_each(named, tunings.between(kinds) if "fine_tuning" in rows[0] else ()), -1
        for row in rows:
            place += row["score"] == rows[0]["score"]
            checks += _row(section, f"arm {place + 1} · {row['score']}", row, arms[place])
        checks += _effects(section, files.get(section + _EFFECTS, ()), arms)
    return checks


def _members(row: Mapping[str, str], by_name: Mapping[str, Run]) -> list[Run]:
    """The runs that a row names."""
    return [by_name[run] for run in row["runs"].split() if run in by_name]


def _row(section: str, where: str, row: dict[str, str], members: Sequence[Run]) -> list[Check]:
    source = f"files of {members[0].name}" if members else "run folders"
    named = " ".join(run.name for run in members)
    measured = scores.summary(members, row["score"]) if members else None
    derived: dict[str, Any] = {"runs": named, "missing": measured is None, "unit": scores.unit(row["score"])}
    derived |= {"n": 0 if measured is None else measured.n}
    derived |= {k: None if measured is None else getattr(measured, k) for k in ("mean", "low", "high", "sd")}
    reported: dict[str, Any] = row | {"missing": bool(row["missing"])}
    return [compare(section, f"{where} · {name}", reported[name], value, source) for name, value in derived.items()]


def _effects(section: str, rows: Rows, arms: Sequence[Sequence[Run]]) -> list[Check]:
    derived = [_contrast(row, arms) for row in rows]
    lost = [_lost(row) for row in rows]
    judged = [
        index
        for index, (sample, marked) in enumerate(derived)
        if sample is not None and not marked and not lost[index] and sample.n > 1
    ]
    samples = [sample for index in judged if (sample := derived[index][0]) is not None]
    adjusted = dict(zip(judged, holm([rules.p_two_sided(sample) for sample in samples]), strict=True))
    checks = []
    for index, (row, (sample, marked)) in enumerate(zip(rows, derived, strict=True)):
        where = f"{row['effect']}{' against ' if row['against'] else ''}{row['against']} · {row['score']}"
        values: dict[str, Any] = {"n": 0, "difference": None, "low": None, "high": None, "p": None, "p_holm": None}
        if sample is not None:
            p = adjusted.get(index, 1.0)
            values = {
                "n": sample.n, "difference": sample.mean, "low": sample.low, "high": sample.high,
                "p": rules.p_two_sided(sample), "p_holm": p,
                "verdict": rules.difference_verdict(sample, p, marked, lost[index]),
            }  # fmt: skip
        checks += [
            compare(section, f"{where} · {name}", row[name], v, "files of its arms") for name, v in values.items()
        ]
        if lost[index]:
            checks.append(unknown(section, f"{where} · seeds", row["verdict"], _NOT_DERIVED))
    return checks


def _contrast(row: Mapping[str, str], arms: Sequence[Sequence[Run]]) -> tuple[Estimate | None, bool]:
    """The estimate of an effect from the arms that ``sum`` names (``+2 -1``: second minus first), and its mark."""
    terms = [(int(place) - 1, 1.0 if sign == "+" else -1.0) for sign, place in re.findall(r"([+-])(\d+)", row["sum"])]
    if not terms or any(not 0 <= place < len(arms) for place, _ in terms):
        return None, False
    key = row["score"]
    values = [scores.values(arms[place], key) for place, _ in terms]
    seeds = sorted(set.intersection(*(set(of_arm) for of_arm in values)))
    sums = [sum(factor * of_arm[seed] for (_, factor), of_arm in zip(terms, values, strict=True)) for seed in seeds]
    low, high = scores.bounds(key, *(arms[place] for place, _ in terms))
    ends = [sorted((factor * low, factor * high)) for _, factor in terms]
    floor = max(scores.floor(arms[place], key) for place, _ in terms)
    sample = rules.estimate(sums, (sum(end[0] for end in ends), sum(end[1] for end in ends)), floor)
    return sample, any(scores.unfit(arms[place], key) for place, _ in terms)


def _lost(row: Mapping[str, str]) -> str:
    """The reported verdict where it says that a seed ended without numbers; else empty."""
    return row["verdict"] if re.search(r"\d+ of \d+ seeds ", row["verdict"]) else ""
