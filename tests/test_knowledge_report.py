"""Arms that differ in the facts of their fine-tunings, in the report and in the audit."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from albert_ablate.config.labels import TUNED, arm_labels, run_labels
from albert_ablate.door.compose import compose
from albert_ablate.sweeping.definition import rows
from albert_ablate.tasks.knowledge.reading import locate_facts
from albert_ablate.tasks.unit_settings import common_settings
from analysis.judge.claims import FACTS, in_question, load_all, load_claims
from analysis.read import tunings
from analysis.recount import tunings as again

#: The terms of each arm of the sweep, and the settings of its cell.
ARMS = [row.terms for row in rows(["knowledge"]) if row.terms["seed"] == 0]
OWN = [{key: value for key, value in terms.items() if key.startswith("knowledge")} for terms in ARMS]


def words(terms: dict[str, Any]) -> list[str]:
    def text(value: Any) -> str:
        return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)

    rate = f"task.scaling.learning_rate={ARMS[0]['task.scaling.learning_rate']}"  # the sweep's
    return ["task=facts", "task.pool=mean", rate, *(f"{key}={text(value)}" for key, value in terms.items())]


def entry(terms: dict[str, Any]) -> dict[str, Any]:
    """What a run records of a fine-tuning with the settings of an arm."""
    config = compose(words(terms))
    task = config.tasks["facts"]
    common = common_settings(config.task, task, locate_facts(config.knowledge, task, Path("cache")))
    return {
        "task": "facts", "start": "pretrained", "score": 0.5, "metric": "accuracy", "seeds": [0], "recipe": {},
        "set_up": {"all_tasks": common, "task": {}, "data": "feed", "precision": "fp32"},
    }  # fmt: skip


@pytest.fixture(scope="module")
def entries() -> list[dict[str, Any]]:
    return [entry(terms) for terms in OWN]


def test_each_arm_of_the_sweep_has_its_own_fine_tuning(entries: list[dict[str, Any]]) -> None:
    settings = tunings.of_arms({str(number): terms for number, terms in enumerate(ARMS)})
    for number in range(len(ARMS)):
        chosen = tunings.chosen(entries, settings[str(number)])
        assert [e["set_up"] for e in chosen] == [entries[number]["set_up"]]
    repeated = again.of_arms(ARMS)
    for number, own in enumerate(repeated):
        assert [again._belongs(e, own) for e in entries] == [other == number for other in range(len(ARMS))]


def test_arms_may_differ_in_their_facts_alone(entries: list[dict[str, Any]]) -> None:
    free = tunings.free(tunings.of_arms({str(number): terms for number, terms in enumerate(ARMS)}))
    assert free
    assert all(name.startswith("set_up.all_tasks.knowledge") for name in free)


def test_the_claims_name_arms_of_the_sweep() -> None:
    claims = load_claims(FACTS)
    shown = [{"knowledge" if k == "knowledge.name" else k: v for k, v in terms.items()} for terms in OWN]
    for claim in claims:
        for terms in claim.arms.values():
            assert terms in shown, claim.id
    assert {"kbert-domain", "kbert-not-noise", "kbert-matrix", "kbert-softpos", "kbert-text"} == {c.id for c in claims}


def test_claims_are_judged_where_facts_were_read(entries: list[dict[str, Any]]) -> None:
    own = {claim.id for claim in load_claims(FACTS)}
    for tasks, there in (([entries[0]], False), ([entries[0], entries[1]], True)):
        runs = pd.DataFrame({"method": ["mlm"], "tasks": [tasks]})
        assert bool(own & {claim.id for claim in in_question(runs, load_all([]))}) is there


def test_kinds_of_fine_tuning_have_names(entries: list[dict[str, Any]]) -> None:
    config = compose(["task=facts"]).as_dict()
    runs = tunings.in_kinds(pd.DataFrame({"config": [config], "tasks": [entries]}))
    assert len(runs) == len(ARMS)
    names = arm_labels([{**row["config"]} for row in runs.to_dict("records")])
    assert len(set(names)) == len(ARMS)
    assert all(TUNED in row for row in runs["config"])
    assert [again._kind(e, {"knowledge": ""}) for e in entries] == [row[TUNED] for row in runs["config"]]


def test_cells_of_the_sweep_are_named_by_their_facts() -> None:
    labels = run_labels([compose(words(terms)).as_dict() for terms in OWN])
    assert labels[0] == "knowledge=none"
    assert len(set(labels)) == len(ARMS)
