"""The cells of a paper table and its differences, beside the same from the run folders."""

import math
from collections.abc import Sequence
from typing import Any

from albert_ablate.axes import AXES, EMBED

from . import printed, rules, scores
from .arms import cells, select
from .checks import Check, compare, unknown
from .files import at, mean
from .parameters import of_paper_cell
from .rules import Estimate
from .runs import Run
from .student import holm

Rows = Sequence[dict[str, str]]
#: The row that each row is compared with, by place from 0; None: with no other. Speed is relative to the last such.
AGAINST: dict[str, tuple[int | None, ...]] = {
    "table2": (1, None, 1, 1, 1, 1), "table3": (3, 3, 3, None, 7, 7, 7, None),
    "table4": (3, 3, 3, None, 7, 7, 7, None), "table5": (None, 0, 1), "table6": (None, 0), "table7": (None, 0),
    "table8": (None, 0), "table11": (None, 0, 1, 2, 3, 4), "table12": (None, 0, 1, 2), "table13": (None, 0),
}  # fmt: skip
_COST = ("params", "tokens/s", "speedup")
_OF_CELL = ("score", "unit", "n", "planned", "mean", "low", "high", "sd", "paper", "missing", "mark", "runs")
_OF_DIFFERENCE = (
    "arm", "against", "score", "unit", "n", "difference", "low", "high", "p", "p_holm", "paper", "verdict",
)  # fmt: skip
#: Columns that name an arm by a number, and the setting that it is.
_NUMBERED = {
    **{axis.name: axis.path for axis in AXES if not axis.labels},
    "hidden": "model.hidden", "layers": "model.layers", "embedding": EMBED.path, "steps_k": "", "time_h": "",
}  # fmt: skip
_UNKNOWN = "a column that this check does not know"


class TableCheck:
    """One table: its rows as the report has them, and the runs of its arms."""

    def __init__(self, name: str, rows: Rows, runs: Sequence[Run], survivors: bool = False) -> None:
        self.survivors = survivors
        self.name = name
        self.printed = printed.rows(name)
        self.headings = printed.headings(name)
        self.groups = _by_arm(rows)
        self.arms = cells(name)
        self.seeds = select(runs if name in AGAINST else (), self.arms)  # Table 1 is counted, not run
        self.chosen = [arm.runs for arm in self.seeds]

    def cells(self) -> list[Check]:
        """Every cell of the table."""
        if len(self.groups) != len(self.arms):
            return [compare(self.name, "arms", len(self.groups), len(self.arms), f"sweeps/{self.name}.yaml")]
        found = []
        wanted = sorted(self._scores())
        for place, group in enumerate(self.groups):
            shown, where = sorted(row["score"] for row in group), f"{self.label(place)} · scores"
            found.append(compare(self.name, where, shown, wanted, "docs/analysis.md"))
            names = {tuple(row[one] for one in row if one not in _OF_CELL): row for row in group}
            for row in names.values():
                found += self._labels(place, row)
            for row in group:
                found += self._cell(place, row)
        return found

    def differences(self, rows: Rows) -> list[Check]:
        """Every number of ``tables/NAME-differences.csv``; a comparison too many or too few is a disagreement."""
        section = f"{self.name} differences"
        reported: dict[tuple[str, ...], list[dict[str, str]]] = {}
        for row in rows:
            reported.setdefault((row["arm"], row["against"], row["score"]), []).append(row)
        found = []
        for one in self.compared():
            where = f"{one['arm']} against {one['against']} · {one['score']}"
            same = reported.get((one["arm"], one["against"], one["score"]))
            if not same:
                found.append(compare(section, where, None, one["estimate"].mean, one["source"]))
                continue
            found += _difference(section, where, same.pop(0), one)
        left = [(key, row) for key, several in reported.items() for row in several]
        return found + [
            compare(section, f"{a} against {b} · {s}", row["difference"], None, "no runs of both arms")
            for (a, b, s), row in left
        ]

    def _scores(self) -> list[str]:
        """What every arm has a row for: without runs only what the paper prints."""
        if self.name == "table1":
            return ["params"]
        runs = [run for members in self.chosen for run in members]
        others = [f"task:{task}" for task in scores.tasks(runs) if task not in scores.PRINTED_TASKS]
        return ["params", *scores.PRINTED, *(["tokens/s", "speedup", *scores.HELD_OUT, *others] if runs else [])]

    def _labels(self, place: int, row: dict[str, str]) -> list[Check]:
        """What of a row's name is a number: the paper's, or ours with the paper's in brackets."""
        found, runs = [], self.chosen[place]
        for heading, column in self.headings.items():
            if heading not in row or column not in _NUMBERED:
                continue
            theirs, ours = str(self.printed[place].get(column)), ""
            if runs and column in ("steps_k", "time_h"):
                name, unit = ("steps", 1e3) if column == "steps_k" else ("seconds", 3600)
                ours = f"{mean([at(run.results, f'training.{name}') for run in runs]) / unit:.3g}"
            elif runs:
                ours = str(at(runs[0].config, _NUMBERED[column]))
            bare = ours == theirs or self.name == "table1" or (not runs and column in ("steps_k", "time_h"))
            wanted = theirs if bare else f"{ours} [{theirs}]".strip()
            source = _of(runs, "results.json" if column in ("steps_k", "time_h") else "config.yaml")
            found.append(compare(self.name, f"arm {place + 1} · {heading}", row[heading], wanted, source))
        return found

    def _cell(self, place: int, row: dict[str, str]) -> list[Check]:
        key, runs = row["score"], self.chosen[place]
        where = f"{self.label(place)} · {key}"
        ours = self.estimate(place, key)
        values: dict[str, Any] = {
            "unit": scores.unit(key), "n": 0 if ours is None else ours.n,
            "planned": len(self.seeds[place].planned),
            **{name: None if ours is None else getattr(ours, name) for name in ("mean", "low", "high", "sd")},
            "paper": printed.score(self.printed[place], key), "missing": ours is None,
            "mark": ours is not None and self.name != "table1" and self._marked(place, key),
            "runs": " ".join(run.name for run in runs),
        }  # fmt: skip
        source = _of(runs, _file_of(key))
        found = []
        for name in row:
            if name in values:
                reported: Any = bool(row[name]) if name in ("missing", "mark") else row[name]
                found.append(compare(self.name, f"{where} · {name}", reported, values[name], source))
            elif name not in _OF_CELL and name not in self.headings:
                found.append(unknown(self.name, f"{where} · {name}", row[name], _UNKNOWN))
        return found

    def estimate(self, place: int, key: str) -> Estimate | None:
        """The score of an arm; None without runs that have it."""
        if self.name == "table1":
            return rules.estimate([of_paper_cell(self.arms[place]) / 1e6], (0, math.inf), exact=True)
        runs = self.chosen[place]
        if key != "speedup":
            return scores.summary(runs, key)
        unit = scores.values(self._unit(), "tokens/s").values()
        if not runs or not unit:
            return None
        whole = mean(list(unit))
        return rules.estimate([v / whole for v in scores.values(runs, "tokens/s").values()], (0, math.inf))

    def _marked(self, place: int, key: str) -> bool:
        if scores.unfit(self.chosen[place], key) or (key == "speedup" and scores.unfit(self._unit(), key)):
            return True
        return key != "params" and bool(self.doubt(place))

    def doubt(self, place: int) -> str:
        """Why the seeds of an arm that are left decide nothing; empty where they may."""
        return rules.doubt(self.seeds[place].lost, len(self.seeds[place].planned))

    def counted(self, place: int) -> list[int]:
        """Its seeds, and how many were planned where that is more."""
        n, planned = len(self.chosen[place]), len(self.seeds[place].planned)
        return [n] if n >= planned else [n, planned]

    def _unit(self) -> list[Run]:
        """Runs of the row that speed-up is relative to."""
        return self.chosen[max(k for k, other in enumerate(AGAINST[self.name]) if other is None)]

    def paper(self, place: int, key: str) -> float | None:
        """The paper's number of an arm."""
        return printed.score(self.printed[place], key)

    def source(self, place: int) -> str:
        """Where the numbers of an arm come from, in words."""
        return _of(self.chosen[place], "run folder")

    def label(self, place: int) -> str:
        """The name of an arm as the report prints it."""
        return ", ".join(self.named(place))

    def named(self, place: int) -> list[str]:
        """What stands in the columns that name an arm."""
        row = self.groups[place][0]
        return [row[heading] for heading in row if heading in self.headings and heading not in _OF_CELL]

    def compared(self) -> list[dict[str, Any]]:
        """The comparisons that there should be, in order: labels, score, estimate, p, mark, the paper's."""
        found: list[dict[str, Any]] = []
        names = [row["score"] for row in self.groups[0] if row["score"] not in _COST] if self.groups else []
        for place, other in enumerate(AGAINST.get(self.name, ())):
            if other is None:
                continue
            ours, theirs = self.chosen[place], self.chosen[other]
            lost = "" if self.survivors else self.doubt(place) or self.doubt(other)
            for key in names:
                a, b = scores.values(ours, key), scores.values(theirs, key)
                low, high = scores.bounds(key, ours, theirs)
                floors = {"a": scores.floor(ours, key), "b": scores.floor(theirs, key)}
                pairs = [a[seed] - b[seed] for seed in sorted(a) if seed in b]
                resolution = rules.resolution_of_sum({"a": 1, "b": -1}, floors)
                estimate = rules.estimate(pairs, (low - high, high - low), resolution)
                if estimate is None:
                    continue
                x, y = (printed.score(self.printed[k], key) for k in (place, other))
                found.append(
                    {
                        "arm": self.label(place), "against": self.label(other), "score": key, "estimate": estimate,
                        "marked": scores.unfit(ours, key) or scores.unfit(theirs, key), "lost": lost,
                        "paper": None if x is None or y is None else x - y, "adjusted": 1.0,
                        "source": _of(ours, _file_of(key)),
                    }
                )  # fmt: skip
        judged = [one for one in found if not (one["marked"] or one["lost"]) and one["estimate"].n > 1]
        for one, p in zip(judged, holm([rules.p_two_sided(one["estimate"]) for one in judged]), strict=True):
            one["adjusted"] = p
        return found


def _difference(section: str, where: str, row: dict[str, str], one: dict[str, Any]) -> list[Check]:
    estimate: Estimate = one["estimate"]
    adjusted = one["adjusted"]
    values = {
        "unit": scores.unit(one["score"]), "n": estimate.n, "difference": estimate.mean, "low": estimate.low,
        "high": estimate.high, "p": rules.p_two_sided(estimate), "p_holm": adjusted, "paper": one["paper"],
        "verdict": rules.difference_verdict(estimate, adjusted, one["marked"], one["lost"]),
    }  # fmt: skip
    found = [compare(section, f"{where} · {k}", row[k], v, one["source"]) for k, v in values.items() if k in row]
    return found + [unknown(section, f"{where} · {k}", v, _UNKNOWN) for k, v in row.items() if k not in _OF_DIFFERENCE]


def _by_arm(rows: Rows) -> list[list[dict[str, str]]]:
    """Rows of each arm: a new one begins where the first score comes again."""
    found: list[list[dict[str, str]]] = []
    for row in rows:
        if not found or row["score"] == found[0][0]["score"]:
            found.append([])
        found[-1].append(row)
    return found


def _file_of(key: str) -> str:
    """The file of a run folder that a score comes from."""
    if key in ("tokens/s", "speedup"):
        return "metrics.jsonl"
    return "similarity.json" if key.endswith("roughness") else "manifest.json" if key == "params" else "results.json"


def _of(runs: Sequence[Run], file: str) -> str:
    """``results.json of NAME and 2 more``."""
    if not runs:
        return "no finished run"
    more = f" and {len(runs) - 1} more" if len(runs) > 1 else ""
    return f"{file} of {runs[0].name}{more}"
