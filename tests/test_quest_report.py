"""Google QUEST in reports: less error is better, in effects, in the best arm, in claims and in the audit."""

import json
from pathlib import Path

import numpy as np
import pytest
from reporthelpers import write_cell

from analysis import audit, report
from analysis.judge import targets
from analysis.judge.claims import QUEST, in_question, judge, load_all, load_claims
from analysis.judge.metrics import metric, summarised, values, within
from analysis.judge.numbers import number, unit
from analysis.read.later_epochs import GAIN, with_gain
from analysis.read.runs import load_runs
from analysis.recount.checks import DISAGREES
from analysis.recount.fine_tunings import later_epochs
from analysis.report import gather
from analysis.write.render import column_head

ERRORS = {"none": 0.046, "all": 0.052}


def target(error: float, spearman: float | None = 0.4) -> dict[str, float | None]:
    r2 = 1 - error / 0.09
    means = {"mean_squared_error_of_the_mean": 0.09, "mean_absolute_error": 0.2, "training_mean": 0.4}
    return {"mean_squared_error": error, "r2": r2, "spearman": spearman} | means


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
            unit = folder / "tasks" / "quest-s0-aaaaaaaa"
            unit.mkdir(parents=True)
            errors = {1: value + 0.01, 2: value + 0.0012 + 0.0001 * seed, 3: value + 0.0002, 4: value}  # by epoch
            points = [{"step": 100 * epoch, "dev_score": error} for epoch, error in errors.items()]
            (unit / "metrics.jsonl").write_text("".join(json.dumps(p) + "\n" for p in [{"step": 50}, *points]))
            scores["by_target"] = {
                "question_expect_short_answer": target(value + 0.02),
                "question_type_spelling": target(0.0004, None),
            }
            state = {"step": 400, "score": value, "average": value, "sets": {"dev": scores}}
            shared = {
                "task": "quest", "start": "pretrained", "group": "q", "metric": "mean_squared_error",
                "recipe": {"steps": 100}, "set_up": {"task": {"name": "quest"}, "data": "feed"},
                "to_beat": {"dev": {"majority": 0.065}},
            }  # fmt: skip
            training = {"steps": 400, "epochs": 4.004, "examples": 1000, "seconds": 1.0}
            own = {"seed": 0, "best": state, "last": state, "selection": "best of 4", "training": training}
            (unit / "results.json").write_text(json.dumps(shared | own))
            (unit / "status.json").write_text((folder / "status.json").read_text())
            results = json.loads((folder / "results.json").read_text())
            gathered = {
                "seeds": [0], "score": value, "spread": [value, value], "scores": [value], "last_score": value,
                "last_scores": [value], "average": value, "sets": {"dev": scores}, "units": [unit.name],
            }  # fmt: skip
            results["tasks"] = [shared | gathered]
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
    assert verdicts == dict.fromkeys(("quest-better-than-mean", "quest-ties", "quest-two-epochs"), "reproduced")


def test_the_gain_of_later_epochs(runs: Path) -> None:
    """Squared error after two epochs less the lowest one later, in thousandths; without a later one there is none."""
    found = load_runs(runs)
    assert sorted(values(found, "QUEST later epochs")) == pytest.approx(
        [0.0012, 0.0012, 0.0013, 0.0013, 0.0014, 0.0014]
    )
    (verdict,) = [v for v in judge(found, load_claims(QUEST)) if v.claim.id == "quest-two-epochs"]
    assert verdict.effect is not None
    assert verdict.effect.mean == pytest.approx(-1.3)
    entry = {"metric": "mean_squared_error", "units": ["quest-s0-aaaaaaaa"], "sets": {"dev": {}}}
    folder = next(runs.glob("*-s2-*"))
    assert with_gain(folder, [entry])[0]["sets"]["dev"][GAIN] == pytest.approx(0.0014)
    assert later_epochs(folder, entry) == pytest.approx(1.4)
    assert with_gain(folder, [entry | {"metric": "accuracy"}]) == [entry | {"metric": "accuracy"}]
    assert with_gain(folder, [entry | {"units": ["gone"]}]) == [entry | {"units": ["gone"]}]


def test_two_epochs_alone_have_no_gain_of_later_ones(tmp_path: Path) -> None:
    unit = tmp_path / "tasks" / "u"
    unit.mkdir(parents=True)
    lines = [{"step": 100, "dev_score": 0.06}, {"step": 200, "dev_score": 0.05}]
    (unit / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (unit / "results.json").write_text(json.dumps({"training": {"steps": 200, "epochs": 2.0}}))
    entry = {"metric": "mean_squared_error", "units": ["u"], "sets": {"dev": {}}}
    assert with_gain(tmp_path, [entry]) == [entry]
    assert later_epochs(tmp_path, entry) is None


def test_the_report_has_a_table_by_target(runs: Path, tmp_path: Path) -> None:
    numbers = targets.frame(load_runs(runs))
    assert list(numbers["target"]) == ["question_expect_short_answer"] * 2 + ["question_type_spelling"] * 2
    assert list(numbers["mean_squared_error"][:2]) == pytest.approx([0.072, 0.066], abs=5e-4)
    assert [len(names.split()) for names in numbers["runs"]] == [3] * 4
    assert targets.rows(numbers)[2][3:] == ["0.4", "90.0", "99.6", "—"]
    assert targets.note(numbers).endswith("so no rank correlation: question type spelling.")
    assert report.main([str(runs), "--out", str(tmp_path / "out")]) == 0
    text, page = ((tmp_path / "out" / name).read_text() for name in ("report.md", "index.html"))
    assert "## Scores by target" in text
    assert 'id="targets"' in page
    for shown in (text, page):
        assert "no rank correlation: question type spelling" in shown
    assert audit.main([str(runs), "--report", str(tmp_path / "out")]) == 0
    numbers["r2"] += (numbers.index == 0) * 0.1
    numbers.to_csv(tmp_path / "out" / "targets.csv", index=False)
    assert audit.main([str(runs), "--report", str(tmp_path / "out")]) == 1


def test_the_audit_confirms_every_number(runs: Path) -> None:
    reported = audit.Reported.made(gather(load_runs(runs), load_all([]), draw=False))
    checks = audit.audit(reported, reported.runs_of([runs]), audit._claims([]))
    assert [(c.where, c.reported, c.derived) for c in checks if c.state == DISAGREES] == []
    assert any("task:quest" in check.where for check in checks)
