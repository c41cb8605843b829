"""Documents of one sentence each: masked LM alone, and sentence scores that such a text cannot give."""

import io
from pathlib import Path

import numpy as np
import pytest
from datahelpers import make_store, mask_settings, pair_settings
from rich.console import Console
from runhelpers import read_json, run, start, tiny_overrides, write_corpus

from albert_ablate.axes import Objective
from albert_ablate.commands.evaluate import evaluate
from albert_ablate.data.batches import PairBatches
from albert_ablate.data.segments import build_pairs, lone_sentences
from albert_ablate.data.tokenizer import CLS, SEP
from albert_ablate.door.compose import compose, compose_evaluation
from albert_ablate.errors import ConfigError, DataError
from albert_ablate.record.summary import summary
from analysis.compare import compare
from analysis.read.runs import load_runs

ALONE = pair_settings(single_sentence="alone", short_probability=0.0)


@pytest.fixture
def titles(tmp_path: Path) -> Path:
    """Two hundred documents of one sentence each."""
    text = write_corpus(tmp_path / "many.txt").read_text()
    file = tmp_path / "titles.txt"
    file.write_text("\n\n".join([line for line in text.splitlines() if line][:200]))
    return file


def test_a_sentence_alone_is_a_row_that_ends_with_the_first_separator() -> None:
    store = make_store([[9], [4, 5], [40]], first_id=10)
    pairs = build_pairs(store, Objective.NONE, ALONE, 0, 0)
    found = {int(d): (int(a), int(b)) for d, a, b in zip(pairs.document, pairs.a_length, pairs.b_length, strict=True)}
    assert found == {0: (9, 0), 1: (4, 5), 2: (29, 0)}  # the longest is cut to what fits
    assert lone_sentences(store, Objective.NONE, ALONE, 0, 0) == 0
    batch = PairBatches(store, np.ones(100, bool), Objective.NONE, ALONE, mask_settings(), 3, 0)[0]
    for row, document in enumerate(pairs.document.tolist()):
        a, b = found[document]
        length = int(batch.mask[row].sum())
        assert length == (a + b + 3 if b else a + 2)
        assert batch.input_ids[row, 0] == CLS
        assert (batch.input_ids[row, [a + 1, length - 1]] == SEP).all()
        assert batch.type_ids[row].sum() == (b + 1 if b else 0)


def test_the_other_rows_are_those_of_extend() -> None:
    store = make_store([[40, 5], [6], [7, 8, 9], [30, 30, 30]])
    extend = build_pairs(store, Objective.NONE, pair_settings(short_probability=0.0), 0, 0)
    alone = build_pairs(store, Objective.NONE, ALONE, 0, 0)
    paired = alone.take(np.flatnonzero(alone.b_length > 0))
    assert [getattr(paired, f).tolist() for f in ("a_start", "a_length", "b_start", "b_length", "document")] == [
        getattr(extend, f).tolist() for f in ("a_start", "a_length", "b_start", "b_length", "document")
    ]
    for task in (Objective.SOP, Objective.NSP):  # the sentence tasks see what they see with extend
        a, b = (build_pairs(store, task, s, 0, 0) for s in (ALONE, pair_settings(short_probability=0.0)))
        assert a.a_start.tolist() == b.a_start.tolist()
        assert (a.b_length > 0).all()


def test_masked_lm_alone_trains_on_single_sentences(titles: Path, tmp_path: Path) -> None:
    words = ("objective=none", "pairs.single_sentence=alone")
    done = run(compose(tiny_overrides(tmp_path, *words, corpus=titles)))
    results = read_json(done.path / "results.json")
    assert results["masked_lm"]["sequences"] > 10
    assert results["nsp"] is None
    assert results["sop"] is None
    assert results["left_out"] == {"nsp": "every pair has the same label", "sop": "no document has two sentences"}
    assert read_json(done.path / "manifest.json")["data"]["lone_sentences_left_out"] == 0
    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(summary(done))
    assert "no document has two sentences" in console.export_text()
    runs = load_runs(done.path.parent)
    assert runs["note"].tolist() == [""]
    compare(runs)


@pytest.mark.parametrize("objective", ["none", "sop", "nsp"])
def test_the_released_habit_on_single_sentences_ends_with_masked_lm_scored(
    objective: str, titles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every pair is random there, so no head can be fitted and no accuracy means anything."""
    words = (f"objective={objective}", "pairs.single_sentence=released", "budget.steps=6")
    done = run(compose(tiny_overrides(tmp_path, *words, corpus=titles)))
    results = read_json(done.path / "results.json")
    assert results["masked_lm"]["examples"] > 10
    assert results["left_out"] == dict.fromkeys(("nsp", "sop"), "every pair has the same label")
    said = capsys.readouterr().out
    assert "NSP will not be scored: every pair has the same label" in said
    assert said.index("will not be scored") < said.index("M parameters"), "said before training"


@pytest.mark.parametrize("objective", ["sop", "nsp"])
def test_a_sentence_alone_is_refused_for_sentence_objectives(objective: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"pairs.single_sentence=alone.*objective={objective}.*Use objective=none"):
        start(compose(tiny_overrides(tmp_path, f"objective={objective}", "pairs.single_sentence=alone")))
    assert not (tmp_path / "cache").exists()


def test_a_run_with_a_sentence_objective_is_evaluated_on_sentences_alone(titles: Path, tmp_path: Path) -> None:
    done = run(compose(tiny_overrides(tmp_path, "objective=sop", "budget.steps=4")))
    words = ["data=text", f"data.path={titles}", "data.validation_fraction=0.2", "pairs.single_sentence=alone"]
    words += ["pairs.max_length=32", "evaluation.max_pairs=32"]
    config = compose_evaluation(done.path / "config.yaml", words)
    results = evaluate(done, config).results.as_json()
    assert results["masked_lm"]["sequences"] == 32
    assert results["left_out"]["sop"] == "no document has two sentences"


@pytest.mark.parametrize("objective", ["none", "sop", "nsp"])
def test_single_sentences_without_a_choice_are_refused_with_the_remedies(
    objective: str, titles: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"single sentence.*pairs\.single_sentence=alone.*data\.documents_of=N"):
        start(compose(tiny_overrides(tmp_path, f"objective={objective}", corpus=titles)))
