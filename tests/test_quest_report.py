"""Google QUEST in reports: less error is better, in effects, in the best arm, in claims and in the audit."""

import json
from pathlib import Path

import numpy as np
import pytest
from reporthelpers import write_cell

from analysis import audit
from analysis.judge.claims import QUEST, in_question, judge, load_all, load_claims
from analysis.judge.metrics import metric, summarised, within
from analysis.judge.numbers import number, unit
from analysis.read.runs import load_runs
from analysis.recount.checks import DISAGREES
from analysis.report import gather
from analysis.write.render import column_head

ERRORS = {"none": 0.046, "all": 0.052}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seeds of two arms, fine-tuned on ``quest``; the arm that shares all has more error."""
    root = tmp_path_factory.mktemp("quest report") / "runs"
    for seed in range(3):
        for share, error in ERRORS.items():
            folder = write_cell(root, {"size": "base", "share": share, "embedding": "H", "objective": "sop"}, seed)
            noise = 0.0002 * np.random.default_rng([seed, len(share)]).standard_normal()
            value = error + noise
            scores = {
                "n": 1200, "mean_squared_error": {"value": value, "interval": [value - 0.0001, value + 0.0001]},
                "r2": {"value": 1 - value / 0.065, "interval": [0.1, 0.4]},
                "spearman": {"value": 0.35 + noise, "interval": [0.3, 0.4]},
                "discretising_gain": {"value": 0.01 + noise, "interval": [0.0095, 0.0105]},
            }  # fmt: skip
            results = json.loads((folder / "results.json").read_text())
            results["tasks"] = [
                {
                    "task": "quest", "start": "pretrained", "group": "q", "metric": "mean_squared_error", "seeds": [0],
                    "score": value, "spread": [value, value], "last_score": value, "average": value,
                    "recipe": {"steps": 100}, "set_up": {"task": {"name": "quest"}, "data": "feed"},
                    "sets": {"dev": scores}, "to_beat": {"dev": {"majority": 0.065}},
                }
            ]  # fmt: skip
            (folder / "results.json").write_text(json.dumps(results))
    return root


def test_the_error_is_printed_in_thousandths_and_less_is_better(runs: Path) -> None:
    found = load_runs(runs)
    unshared = found[found["share"] == "none"]
    assert metric("task:quest").higher_is_better is False
    assert number("task:quest", summarised(unshared, "task:quest")).startswith("4")
    assert unit("task:quest") == "×10⁻³"
    assert column_head(("task:quest",)) == "quest MSE, ×10⁻³ ↓"
    assert within("task:quest", found) == (0, float("inf"))


def test_claims_are_judged_where_a_run_has_the_task(runs: Path, tmp_path: Path) -> None:
    write_cell(tmp_path, {"share": "all"}, 0)
    assert not {claim.id for claim in load_claims(QUEST)} & {
        claim.id for claim in in_question(load_runs(tmp_path), load_all([]))
    }
    verdicts = {v.claim.id: v.verdict for v in judge(load_runs(runs), load_claims(QUEST))}
    assert verdicts == {"quest-better-than-mean": "reproduced", "quest-ties": "reproduced"}


def test_the_audit_confirms_every_number(runs: Path) -> None:
    reported = audit.Reported.made(gather(load_runs(runs), load_all([]), draw=False))
    checks = audit.audit(reported, reported.runs_of([runs]), audit._claims([]))
    assert [(c.where, c.reported, c.derived) for c in checks if c.state == DISAGREES] == []
    assert any("task:quest" in check.where for check in checks)
