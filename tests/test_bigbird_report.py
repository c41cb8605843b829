"""Arms of BigBird in the report: their claims, and the column that says what they see."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from matplotlib.text import Text
from reporthelpers import cells, write_cell

from albert_ablate.axes import ATTENTION
from albert_ablate.config.labels import arm_labels
from albert_ablate.door.compose import compose
from analysis import audit
from analysis.draw.arms import learning_curves, seed_spread
from analysis.draw.forest import forest
from analysis.draw.style import Drawing
from analysis.judge.claims import BIGBIRD, Verdict, in_question, judge, load_all, load_claims
from analysis.judge.effects import build_sweep
from analysis.judge.tables import arms_of, build
from analysis.read import paper
from analysis.read.runs import load_runs
from analysis.read.sweeps import groups
from analysis.recount.checks import DISAGREES
from analysis.report import gather
from analysis.write.page import html, markdown

#: What a choice adds to the accuracy of masked LM, in the order of the paper's Table 1.
LAW = {
    ("attention", "full"): 0.050, ("attention.window", 3): 0.010, ("attention.random", 3): 0.015,
    ("attention.global_blocks", 2): 0.020,
}  # fmt: skip


def write(root: Path, law: dict[Any, float], *tables: str) -> Path:
    """Four seeds of the cells of these sweeps."""
    for terms in cells(*tables):
        for seed in range(4):
            folder = write_cell(root, terms, seed, noise=0.0002, law=law)
            settings = yaml.safe_load((folder / "config.yaml").read_text())
            group = {path.partition(".")[2]: value for path, value in ATTENTION.beside.items()}
            group |= {key.partition(".")[2]: value for key, value in terms.items() if key.startswith("attention.")}
            settings["attention"] = {"name": terms["attention"]} | group
            for key in (key for key in terms if key.split(".")[0] in ("pairs", "batch", "model", "warm_start")):
                of, _, name = key.partition(".")
                settings[of][name] = terms[key]
            (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    return root


def simulated(root: Path, law: dict[Any, float], table: str = "bigbird_table1") -> dict[str, Verdict]:
    """The verdicts on the cells of a sweep."""
    runs = load_runs(write(root, law, table))
    return {verdict.claim.id: verdict for verdict in judge(runs, load_claims(BIGBIRD))}


def test_the_papers_order_is_reproduced_and_its_reverse_contradicted(tmp_path: Path) -> None:
    order = ("bigbird-full-best", "bigbird-window-helps", "bigbird-random-over-window", "bigbird-global-closes-gap")
    found = simulated(tmp_path / "a", LAW)
    assert [found[name].verdict for name in order] == ["reproduced"] * 4
    assert found["bigbird-linear-time"].verdict == "not tested"
    assert [found[name].paper for name in order] == [pytest.approx(1.5), pytest.approx(2.6), pytest.approx(1.8), None]
    found = simulated(tmp_path / "b", {**LAW, ("attention.random", 3): 0.005, ("attention.global_blocks", 2): 0.004})
    assert [found[name].verdict for name in order[2:]] == ["contradicted"] * 2


def test_rows_are_named_as_their_cells() -> None:
    names = ("window", "random", "global_blocks")
    for row, terms in zip(paper.table("bigbird_table1")["rows"], arms_of("bigbird_table1").values(), strict=True):
        parts = [name.partition("_")[0] for name in names if terms.get(f"attention.{name}")]
        listed = ", ".join(parts[:-1]) + (" and " if parts[:-1] else "") + parts[-1] if parts else "full"
        assert row["attention"] == listed
    for row, terms in zip(paper.table("bigbird_length")["rows"], arms_of("bigbird_length").values(), strict=True):
        kind = "full" if terms["attention"] == "full" else "blocks"
        assert row["attention and tokens"] == f"{kind}, {terms['pairs.max_length']:,}"


@pytest.mark.parametrize(("gain", "verdict"), [(0.03, "reproduced"), (-0.03, "contradicted")])
def test_what_a_longer_context_is_worth(gain: float, verdict: str, tmp_path: Path) -> None:
    found = simulated(tmp_path, {("pairs.max_length", 2048): gain}, "bigbird_length")["bigbird-longer-context"]
    assert (found.verdict, found.score) == (verdict, "MLM loss")
    assert found.effect is not None
    assert found.effect.mean == pytest.approx(4 * gain, abs=0.01)


def test_the_papers_tables_are_shown_and_audited(tmp_path: Path) -> None:
    report = gather(load_runs(write(tmp_path, LAW, "bigbird_table1", "bigbird_length")), load_all([]), draw=False)
    text = markdown(report)
    assert "### BigBird, Table 1. Building blocks of sparse attention" in text
    assert "### BigBird, Table 10. Cost and worth of length" in text
    assert "| blocks, 2,048 | 1.678 at 4,096 |" in text
    assert "s: Zaheer et al., Big Bird: Transformers for Longer Sequences" in html(report)
    assert "MobileBERT, Table 2" not in html(report)
    table = build(load_runs(tmp_path), "bigbird_table1")
    printed = {
        row.labels[0]: next(e.paper for cell in row.cells for e in cell if e.metric == "MLM") for row in table.rows
    }
    assert printed == {
        "full": 64.2, "window, random and global": None, "window and random": 62.7, "window and global": None,
        "window": 58.3, "random": 60.1,
    }  # fmt: skip
    reported = audit.Reported.made(report)
    checks = audit.audit(reported, reported.runs_of([tmp_path]), audit._claims([]))
    assert [f"{c.where}: {c.reported}, {c.derived}" for c in checks if c.state == DISAGREES] == []


def test_claims_are_judged_where_a_run_attends_in_blocks() -> None:
    own = {claim.id for claim in load_claims(BIGBIRD)}
    assert len(own) == 7
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
            if isinstance(terms, str):
                assert terms.partition(".")[0] in ("bigbird_table1", "bigbird_length")
                continue
            assert any(terms.items() <= cell.items() for cell in listed), (claim.id, terms)


def test_labels_say_what_an_arm_reads() -> None:
    """Full attention has no blocks, so its label names none."""
    overrides = (
        ["attention=full"], ["attention=bigbird", "attention.block=16"],
        ["attention=bigbird", "attention.block=16", "attention.random=0"],
    )  # fmt: skip
    labels = arm_labels([compose(words).as_dict() for words in overrides])
    assert labels == ["full attention", "BigBird, random=3", "BigBird, random=0"]


def test_tables_of_papers_that_no_run_speaks_of_are_not_missing(tmp_path: Path) -> None:
    for terms in cells("table5"):
        write_cell(tmp_path / "albert", terms, 0)
    text = markdown(gather(load_runs(tmp_path / "albert"), [], draw=False))
    assert "ELECTRA's tables" in text
    assert "BigBird's tables" not in text
    assert "MobileBERT's tables" not in text


@pytest.fixture(scope="module")
def long_names(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Runs whose arms have long names, and no sentence task."""
    return load_runs(write(tmp_path_factory.mktemp("long"), LAW, "bigbird_table1"))


def effects_of(runs: pd.DataFrame) -> Drawing:
    (group,) = groups(runs)
    return forest(build_sweep(group, 1))


@pytest.mark.parametrize("draw", [seed_spread, learning_curves, effects_of])
def test_no_label_of_a_figure_is_cut(draw: Callable[[pd.DataFrame], Drawing], long_names: pd.DataFrame) -> None:
    figure = draw(long_names).figure
    figure.draw_without_rendering()
    texts = [text for text in figure.findobj(Text) if any(map(str.isalpha, text.get_text()))]
    boxes = {text.get_text(): text.get_window_extent() for text in texts}
    assert any("window=3" in text for text in boxes)
    width, height = figure.bbox.width, figure.bbox.height
    assert not [text for text, box in boxes.items() if min(box.x0, box.y0) < -1 or box.x1 > width or box.y1 > height]


def test_arms_without_a_sentence_task_have_no_panel_for_it(long_names: pd.DataFrame) -> None:
    assert [axes.get_title(loc="left") for axes in learning_curves(long_names).figure.axes] == ["Masked LM"]
