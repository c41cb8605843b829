"""Checks the cells of a table and its differences against the run folders."""

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
#: Table -> for each row, the index of the row it is compared with; None: no comparison. Speed-up is relative to the
#: last row with None.
AGAINST: dict[str, tuple[int | None, ...]] = {
    "table2": (1, None, 1, 1, 1, 1), "table3": (3, 3, 3, None, 7, 7, 7, None),
    "table4": (3, 3, 3, None, 7, 7, 7, None), "table5": (None, 0, 1), "table6": (None, 0), "table7": (None, 0),
    "table8": (None, 0), "table11": (None, 0, 1, 2, 3, 4), "table12": (None, 0, 1, 2), "table13": (None, 0),
    "electra_table5": (None, 0, 1, 4, 0), "electra_generators": (2, 2, None, 2, 2), "electra_two_stage": (None, 0, 1),
    "electra_tying": (None, 0, 1),
    "distilbert": (None, 0, 0, 1, 2), "distilbert_table4": (None, 0, 1, 2, 2, 2, 2, 2),
    "tinybert_table2": (None, 0, 1, 1, 1), "tinybert_table3": (None, 0, 0, 0, 0, 0), "tinybert_table4": (None, 0, 0),
    "tinybert_table7": (None, 0, 1),
    "mobilebert_table2": (None, 0, 1, 2, 3, 2, 5, 6, 7), "mobilebert_table3": (2, 2, None, 2),
    "mobilebert_table_operational": (None, 0, 0, 0, 0, 4), "mobilebert_table_transfer": (None, 0, 1, 2, 3, 4, 4),
    "bigbird_table1": (None, 0, 0, 0, 0, 0), "bigbird_length": (None, 0, 0, 0, 1, 2),
}  # fmt: skip
_COST = ("params", "tokens/s", "speedup")
_OF_CELL = ("score", "unit", "n", "planned", "mean", "low", "high", "sd", "paper", "missing", "mark", "runs")
_OF_DIFFERENCE = (
    "arm", "against", "score", "unit", "n", "difference", "low", "high", "p", "p_holm", "paper", "verdict",
)  # fmt: skip
#: Column that names an arm by a number -> the setting with that number.
_NUMBERED = {
    **{axis.name: axis.path for axis in AXES if not axis.labels},
    "hidden": "model.hidden", "layers": "model.layers", "embedding": EMBED.path, "steps_k": "", "time_h": "",
}  # fmt: skip
_UNKNOWN = "a column that this check does not know"


class TableCheck:
    """One table: its reported rows, and the runs of its arms."""

    def __init__(self, name: str, rows: Rows, runs: Sequence[Run], survivors: bool = False) -> None:
        self.survivors = survivors
        self.name = name
        self.printed = printed.rows(name)
        self.headings = printed.headings(name)
        self.groups = _by_arm(rows)
        self.arms = cells(name)
        self.seeds = select(runs if name in AGAINST else (), self.arms)  # Table 1 needs no runs
        self.chosen = [arm.runs for arm in self.seeds]

    def cells(self) -> list[Check]:
        """Checks of every cell of the table."""
        if len(self.groups) != len(self.arms):
            return [compare(self.name, "arms", len(self.groups), len(self.arms), f"sweeps/{self.name}.yaml")]
        checks = []
        wanted = sorted(self._scores())
        for index, group in enumerate(self.groups):
            shown, where = sorted(row["score"] for row in group), f"{self.label(index)} · scores"
            checks.append(compare(self.name, where, shown, wanted, "docs/analysis.md"))
            names = {tuple(row[column] for column in row if column not in _OF_CELL): row for row in group}
            for row in names.values():
                checks += self._labels(index, row)
            for row in group:
                checks += self._cell(index, row)
        return checks

    def differences(self, rows: Rows) -> list[Check]:
        """Checks of ``tables/NAME-differences.csv``; a missing or an extra comparison is a disagreement."""
        section = f"{self.name} differences"
        reported: dict[tuple[str, ...], list[dict[str, str]]] = {}
        for row in rows:
            reported.setdefault((row["arm"], row["against"], row["score"]), []).append(row)
        checks = []
        for comparison in self.compared():
            where = f"{comparison['arm']} against {comparison['against']} · {comparison['score']}"
            same = reported.get((comparison["arm"], comparison["against"], comparison["score"]))
            if not same:
                checks.append(compare(section, where, None, comparison["estimate"].mean, comparison["source"]))
                continue
            checks += _difference(section, where, same.pop(0), comparison)
        left = [(key, row) for key, several in reported.items() for row in several]
        return checks + [
            compare(section, f"{a} against {b} · {s}", row["difference"], None, "no runs of both arms")
            for (a, b, s), row in left
        ]

    def _scores(self) -> list[str]:
        """The scores that every arm has a row for; without runs, only those that the paper prints."""
        if self.name == "table1":
            return ["params"]
        runs = [run for members in self.chosen for run in members]
        columns: Sequence[str] = scores.PRINTED
        held_out: Sequence[str] = scores.HELD_OUT
        if self.name.startswith(("electra", "distilbert")):
            columns = scores.PRINTED_BY_ELECTRA
        if self.name.startswith("tinybert"):
            columns = scores.PRINTED_BY_TINYBERT
        if self.name.startswith("mobilebert"):
            columns = scores.PRINTED_BY_MOBILEBERT
        if self.name.startswith("bigbird"):
            columns = scores.PRINTED_BY_BIGBIRD
        if self.name.startswith(("electra", "tinybert")):
            held_out = scores.SENTENCES
        known = {scores.OF_TASKS[key][0] for key in columns if key in scores.OF_TASKS}
        known |= {key.removeprefix("task:") for key in columns if key.startswith("task:")}
        probe = [scores.REPLACED] if scores.values(runs, scores.REPLACED) else []
        others = [f"task:{task}" for task in scores.tasks(runs) if task not in known]
        return ["params", *columns, *(["tokens/s", "speedup", *held_out, *probe, *others] if runs else [])]

    def _labels(self, index: int, row: dict[str, str]) -> list[Check]:
        """Checks of the numbers in a row's name: the paper's, or ours with the paper's in brackets."""
        checks, runs = [], self.chosen[index]
        for heading, column in self.headings.items():
            if heading not in row or column not in _NUMBERED:
                continue
            paper_value, ours = str(self.printed[index].get(column)), ""
            if runs and column in ("steps_k", "time_h"):
                name, unit = ("steps", 1e3) if column == "steps_k" else ("seconds", 3600)
                ours = f"{mean([at(run.results, f'training.{name}') for run in runs]) / unit:.3g}"
            elif runs:
                ours = str(at(runs[0].config, _NUMBERED[column]))
            bare = ours == paper_value or self.name == "table1" or (not runs and column in ("steps_k", "time_h"))
            wanted = paper_value if bare else f"{ours} [{paper_value}]".strip()
            source = _of(runs, "results.json" if column in ("steps_k", "time_h") else "config.yaml")
            checks.append(compare(self.name, f"arm {index + 1} · {heading}", row[heading], wanted, source))
        return checks

    def _cell(self, index: int, row: dict[str, str]) -> list[Check]:
        key, runs = row["score"], self.chosen[index]
        where = f"{self.label(index)} · {key}"
        ours = self.estimate(index, key)
        values: dict[str, Any] = {
            "unit": scores.unit(key), "n": 0 if ours is None else ours.n,
            "planned": len(self.seeds[index].planned),
            **{name: None if ours is None else getattr(ours, name) for name in ("mean", "low", "high", "sd")},
            "paper": printed.score(self.printed[index], key), "missing": ours is None,
            "mark": ours is not None and self.name != "table1" and self._marked(index, key),
            "runs": " ".join(run.name for run in runs),
        }  # fmt: skip
        source = _of(runs, _file_of(key))
        checks = []
        for name in row:
            if name in values:
                reported: Any = bool(row[name]) if name in ("missing", "mark") else row[name]
                checks.append(compare(self.name, f"{where} · {name}", reported, values[name], source))
            elif name not in _OF_CELL and name not in self.headings:
                checks.append(unknown(self.name, f"{where} · {name}", row[name], _UNKNOWN))
        return checks

    def estimate(self, index: int, key: str) -> Estimate | None:
        """Mean and interval of an arm's score; None where no run has it."""
        if self.name == "table1":
            return rules.estimate([of_paper_cell(self.arms[index]) / 1e6], (0, math.inf), exact=True)
        runs = self.chosen[index]
        if key != "speedup":
            return scores.summary(runs, key)
        unit = scores.values(self._unit(), "tokens/s").values()
        if not runs or not unit:
            return None
        whole = mean(list(unit))
        return rules.estimate([v / whole for v in scores.values(runs, "tokens/s").values()], (0, math.inf))

    def _marked(self, index: int, key: str) -> bool:
        if scores.unfit(self.chosen[index], key) or (key == "speedup" and scores.unfit(self._unit(), key)):
            return True
        return key != "params" and bool(self.doubt(index))

    def doubt(self, index: int) -> str:
        """Why an arm is not judged by its remaining seeds; empty where it is judged."""
        return rules.doubt(self.seeds[index].lost, len(self.seeds[index].planned))

    def counted(self, index: int) -> list[int]:
        """The number of an arm's seeds, and the number planned if that is larger."""
        n, planned = len(self.chosen[index]), len(self.seeds[index].planned)
        return [n] if n >= planned else [n, planned]

    def shown(self) -> list[int]:
        """The arms on the page: those with runs; every arm of a table that needs none."""
        return [index for index, runs in enumerate(self.chosen) if runs or self.name not in AGAINST]

    def measured(self) -> set[str]:
        """The scores on the page: those that an arm on it has a number of."""
        shown = self.shown()
        keys = {row["score"] for index in shown for row in self.groups[index]}
        return {key for key in keys if any(self.estimate(index, key) is not None for index in shown)}

    def _unit(self) -> list[Run]:
        """The runs of the row that speed-up is relative to."""
        return self.chosen[max(k for k, reference in enumerate(AGAINST[self.name]) if reference is None)]

    def paper(self, index: int, key: str) -> float | None:
        """The paper's number of an arm."""
        return printed.score(self.printed[index], key)

    def source(self, index: int) -> str:
        """The run folders of an arm as text, for a check's source."""
        return _of(self.chosen[index], "run folder")

    def label(self, index: int) -> str:
        """The name of an arm as the report prints it."""
        return ", ".join(self.named(index))

    def named(self, index: int) -> list[str]:
        """The cells of the columns that name an arm."""
        row = self.groups[index][0]
        return [row[heading] for heading in row if heading in self.headings and heading not in _OF_CELL]

    def compared(self) -> list[dict[str, Any]]:
        """The expected comparisons in order: labels, score, estimate, p, mark, the paper's difference."""
        comparisons: list[dict[str, Any]] = []
        names = [row["score"] for row in self.groups[0] if row["score"] not in _COST] if self.groups else []
        for index, reference in enumerate(AGAINST.get(self.name, ())):
            if reference is None:
                continue
            arm_runs, reference_runs = self.chosen[index], self.chosen[reference]
            lost = "" if self.survivors else self.doubt(index) or self.doubt(reference)
            one_training = {run.name for run in arm_runs} == {run.name for run in reference_runs}
            for key in names:
                if one_training and scores.of_pretraining(key):
                    continue
                a, b = scores.values(arm_runs, key), scores.values(reference_runs, key)
                low, high = scores.bounds(key, arm_runs, reference_runs)
                floors = {"a": scores.floor(arm_runs, key), "b": scores.floor(reference_runs, key)}
                pairs = [a[seed] - b[seed] for seed in sorted(a) if seed in b]
                resolution = rules.resolution_of_sum({"a": 1, "b": -1}, floors)
                estimate = rules.estimate(pairs, (low - high, high - low), resolution)
                if estimate is None:
                    continue
                x, y = (printed.score(self.printed[k], key) for k in (index, reference))
                comparisons.append(
                    {
                        "arm": self.label(index), "against": self.label(reference), "score": key, "estimate": estimate,
                        "marked": scores.unfit(arm_runs, key) or scores.unfit(reference_runs, key), "lost": lost,
                        "paper": None if x is None or y is None else x - y, "adjusted": 1.0,
                        "source": _of(arm_runs, _file_of(key)),
                    }
                )  # fmt: skip
        judged = [
            comparison
            for comparison in comparisons
            if not (comparison["marked"] or comparison["lost"]) and comparison["estimate"].n > 1
        ]
        for comparison, p in zip(
            judged, holm([rules.p_two_sided(comparison["estimate"]) for comparison in judged]), strict=True
        ):
            comparison["adjusted"] = p
        return comparisons


def _difference(section: str, where: str, row: dict[str, str], comparison: dict[str, Any]) -> list[Check]:
    estimate: Estimate = comparison["estimate"]
    adjusted = comparison["adjusted"]
    values = {
        "unit": scores.unit(comparison["score"]), "n": estimate.n, "difference": estimate.mean, "low": estimate.low,
        "high": estimate.high, "p": rules.p_two_sided(estimate), "p_holm": adjusted, "paper": comparison["paper"],
        "verdict": rules.difference_verdict(estimate, adjusted, comparison["marked"], comparison["lost"]),
    }  # fmt: skip
    checks = [
        compare(section, f"{where} · {k}", row[k], v, comparison["source"]) for k, v in values.items() if k in row
    ]
    return checks + [unknown(section, f"{where} · {k}", v, _UNKNOWN) for k, v in row.items() if k not in _OF_DIFFERENCE]


def _by_arm(rows: Rows) -> list[list[dict[str, str]]]:
    """The rows of each arm: a new arm begins where the first score is repeated."""
    groups: list[list[dict[str, str]]] = []
    for row in rows:
        if not groups or row["score"] == groups[0][0]["score"]:
            groups.append([])
        groups[-1].append(row)
    return groups


def _file_of(key: str) -> str:
    """The file of a run folder that a score comes from."""
    if key in ("tokens/s", "speedup"):
        return "metrics.jsonl"
    if key in scores.LATENCIES:
        return "latency.json"
    return "similarity.json" if key.endswith("roughness") else "manifest.json" if key == "params" else "results.json"


def _of(runs: Sequence[Run], file: str) -> str:
    """``results.json of NAME and 2 more``."""
    if not runs:
        return "no finished run"
    more = f" and {len(runs) - 1} more" if len(runs) > 1 else ""
    return f"{file} of {runs[0].name}{more}"
