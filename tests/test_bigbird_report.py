"""Arms of BigBird in the report: their claims, and the column that says what they see."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from reporthelpers import cells, write_cell

from albert_ablate.axes import ATTENTION
from albert_ablate.config.labels import arm_labels
from albert_ablate.door.compose import compose
from analysis.judge.claims import BIGBIRD, Verdict, in_question, judge, load_all, load_claims
from analysis.read.runs import load_runs

#: What a choice adds to the accuracy of masked LM, in the order of the paper's Table 1.
LAW = {
    ("attention", "full"): 0.050, ("attention.window", 3): 0.010, ("attention.random", 3): 0.015,
    ("attention.global_blocks", 2): 0.020,
}  # fmt: skip


def simulated(root: Path, law: dict[Any, float]) -> dict[str, Verdict]:
    """The verdicts on four seeds of the sweep."""
    for terms in cells("bigbird_table1"):
        for seed in range(4):
            folder = write_cell(root, terms, seed, noise=0.0002, law=law)
            settings = yaml.safe_load((folder / "config.yaml").read_text())
            group = {path.partition(".")[2]: value for path, value in ATTENTION.beside.items()}
            group |= {key.partition(".")[2]: value for key, value in terms.items() if key.startswith("attention.")}
            settings["attention"] = {"name": terms["attention"]} | group
            settings["pairs"] |= {"join_documents": True}
            (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    return {verdict.claim.id: verdict for verdict in judge(load_runs(root), load_claims(BIGBIRD))}


def test_the_papers_order_is_reproduced_and_its_reverse_contradicted(tmp_path: Path) -> None:
    order = ("bigbird-full-best", "bigbird-window-helps", "bigbird-random-over-window", "bigbird-global-closes-gap")
    found = simulated(tmp_path / "a", LAW)
    assert [found[name].verdict for name in order] == ["reproduced"] * 4
    assert found["bigbird-linear-time"].verdict == "not tested"
    found = simulated(tmp_path / "b", {**LAW, ("attention.random", 3): 0.005, ("attention.global_blocks", 2): 0.004})
    assert [found[name].verdict for name in order[2:]] == ["contradicted"] * 2


def test_claims_are_judged_where_a_run_attends_in_blocks() -> None:
    own = {claim.id for claim in load_claims(BIGBIRD)}
    assert len(own) == 6
    for attention, there in (("full", False), ("bigbird", True)):
        runs = pd.DataFrame({"method": ["mlm"], "attention": [attention], "tasks": [[]]})
        assert (own <= {claim.id for claim in in_question(runs, load_all([]))}) is there
        assert bool(own & {claim.id for claim in in_question(runs, load_all([]))}) is there


@pytest.mark.parametrize("table", ["bigbird_table1", "bigbird_length"])
def test_claims_name_arms_of_the_sweeps(table: str) -> None:
    """Every arm of a claim is that of a cell, as far as the claim says it."""
    listed = cells("bigbird_table1") + cells("bigbird_length")
    assert cells(table)
    for claim in load_claims(BIGBIRD):
        for terms in claim.arms.values():
            assert isinstance(terms, dict)
            assert any(terms.items() <= cell.items() for cell in listed), (claim.id, terms)


def test_labels_say_what_an_arm_reads() -> None:
    """Full attention has no blocks, so its label names none."""
    overrides = (
        ["attention=full"], ["attention=bigbird", "attention.block=16"],
        ["attention=bigbird", "attention.block=16", "attention.random=0"],
    )  # fmt: skip
    labels = arm_labels([compose(words).as_dict() for words in overrides])
    assert labels == ["full attention", "BigBird, random=3", "BigBird, random=0"]
