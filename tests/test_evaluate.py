"""Scoring a finished run again, or on another corpus."""

import dataclasses
import io
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from runhelpers import run, start, tiny_config, write_corpus
from test_import import bert

from albert_ablate.commands.evaluate import main
from albert_ablate.commands.import_hf import main as import_command
from albert_ablate.data.prepare import prepare_data
from albert_ablate.data.store import find_training
from albert_ablate.door.compose import compose_evaluation
from albert_ablate.errors import ConfigError, DataError
from albert_ablate.evaluation.heldout import build_held_out
from albert_ablate.files import read_json, write_json
from albert_ablate.record.folder import RunFolder
from albert_ablate.record.summary import summary
from analysis.compare import _loss
from analysis.judge.metrics import unfit
from analysis.read.cells import main_setup, matching
from analysis.read.runs import load_runs

SHORT = ["evaluation.max_pairs=16", "evaluation.probe_pairs=16", "evaluation.similarity_pairs=8"]
SHORT += ["runtime.threads=1", "runtime.precision=fp32", "runtime.device=cpu"]


def test_the_same_corpus_gives_the_runs_own_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run(tiny_config(tmp_path))
    before = folder.read("results.json")
    assert main([str(folder.path), "runtime.precision=fp32", "runtime.device=cpu"]) == 0
    assert "held-out documents" in capsys.readouterr().out
    (file,) = (folder.path / "evaluations").iterdir()
    found = read_json(file)
    for part in ("masked_lm", "nsp", "sop"):
        assert found["results"][part] == before[part]
    assert found["similarity"] == folder.read("similarity.json")
    assert folder.read("results.json") == before


def test_another_corpus_has_a_record_of_its_own(tmp_path: Path) -> None:
    folder = run(tiny_config(tmp_path))
    other = write_corpus(tmp_path / "other.txt", seed=9)
    words = ["data=text", f"data.path={other}", "data.validation_fraction=0.2", *SHORT]
    words.append(f"paths.cache={tmp_path / 'cache'}")
    assert main([str(folder.path), *words]) == 0
    (file,) = (folder.path / "evaluations").iterdir()
    found = read_json(file)
    assert found["data"]["text"]["fingerprint"] != folder.read("manifest.json")["data"]["text"]["fingerprint"]
    assert found["results"]["masked_lm"]["sequences"] == 16


def test_an_imported_model_is_scored_with_its_own_tokenizer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bert(tmp_path / "in")
    assert import_command([str(tmp_path / "in"), str(tmp_path / "runs" / "mine")]) == 0
    corpus = write_corpus(tmp_path / "corpus.txt")
    words = ["data=text", f"data.path={corpus}", "data.validation_fraction=0.2", "pairs.max_length=32", *SHORT]
    words.append(f"paths.cache={tmp_path / 'cache'}")
    assert main([str(tmp_path / "runs" / "mine"), *words]) == 0
    assert "masked-LM loss" in capsys.readouterr().out
    row = load_runs(tmp_path / "runs").iloc[0]
    assert row["state"] == "finished"
    assert row["mlm_loss"] > 0
    assert len(row["l2"]) == 4
    assert row["tokens_fingerprint"]
    assert row["nsp_head"] == "trained"
    runs = load_runs(tmp_path / "runs")
    assert not matching(runs, {"share": "none", "objective": "nsp", "embedding": "H"}).any()  # no arm of ours
    assert main_setup(runs).empty


def test_what_is_no_setting_of_an_evaluation_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run(tiny_config(tmp_path)).path
    assert main([str(folder), "share=none"]) == 2
    assert "trained already" in capsys.readouterr().err
    assert main([str(tmp_path), "data=embedded"]) == 2
    assert "no run folder" in capsys.readouterr().err


# --- another text than the run's own --------------------------------------------------------------


def scored(folder: RunFolder, tmp_path: Path, *words: str) -> dict[str, Any]:
    """The record of an evaluation on made-up text, or on what ``words`` say."""
    other = tmp_path / "other.txt"
    if not other.exists():
        write_corpus(other, documents=30, seed=9)
    out = tmp_path / f"record{len(list(tmp_path.glob('record*')))}.json"
    given = [f"paths.cache={tmp_path / 'cache'}", "data=text", f"data.path={other}", *SHORT, *words]
    assert main([str(folder.path), *given, "--out", str(out)]) == 0
    found: dict[str, Any] = read_json(out)["results"]
    return found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, Path]:
    """A run, and the folder with its corpus and cache."""
    place = tmp_path_factory.mktemp("home")
    return run(tiny_config(place)), place


def test_a_foreign_text_says_nothing_of_training(
    home: tuple[RunFolder, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, place = home
    found = scored(folder, place, "data.validation_fraction=0.2")
    said = " ".join(capsys.readouterr().out.split())
    assert "lateau" not in said
    assert "train longer" not in said
    assert "nats worse than the piece frequencies of this text" in said
    assert "unigram, this text" in said
    assert "held-out documents result" not in said
    assert "unigram, run's own text" in said
    masked, own = found["masked_lm"], found["scored"]
    assert not [name for name in ("masked_lm", "nsp", "sop") if "left_baseline" in found[name]]
    assert own["of_documents"] == 30
    assert 1 < own["documents"] < 15
    assert f"scored: {own['documents']} of 30 documents, {own['tokens']:,} of {own['of_tokens']:,} pieces" in said
    assert "held out by data.validation_fraction=0.2; 1 scores the whole text" in said
    assert own["seen_in_training"] == 0
    assert masked["bars"]["of"] == "this text"
    assert masked["bars"]["run_unigram_loss"] > 0


def test_the_bar_of_the_runs_own_text_counts_its_training_pieces(home: tuple[RunFolder, Path]) -> None:
    folder, place = home
    found = scored(folder, place, "data.validation_fraction=1", "evaluation.max_pairs=64")
    manifest = folder.read("manifest.json")
    trained = find_training(place / "cache", manifest["data"]["tokens"]["fingerprint"], 1.0)
    assert trained is not None
    assert len(trained.tokens) == manifest["data"]["tokens"]["train"]
    counts = 1 + np.bincount(trained.tokens, minlength=200)
    words = ["data=text", f"data.path={place / 'other.txt'}", "data.validation_fraction=1", "evaluation.max_pairs=64"]
    config = compose_evaluation(folder.path / "config.yaml", [*words, f"paths.cache={place / 'cache'}"])
    own = dataclasses.replace(config.tokenizer, model_path=str(folder.path / "spiece.model"))
    prepared = prepare_data(dataclasses.replace(config, tokenizer=own), trains=False)
    config = prepared.settled(config)
    held_out = build_held_out(config, prepared.train, prepared.valid, prepared.tokenizer.word_starts)
    targets = [int(target) for batch in held_out.plain.batches() for target in batch.targets]
    assert found["masked_lm"]["examples"] == len(targets)
    expected = -sum(math.log(counts[target] / counts.sum()) for target in targets) / len(targets)
    assert found["masked_lm"]["bars"]["run_unigram_loss"] == pytest.approx(expected)


def test_a_text_is_scored_whole_in_two_ways(home: tuple[RunFolder, Path], capsys: pytest.CaptureFixture[str]) -> None:
    folder, place = home
    words = ("evaluation.max_pairs=4096",)
    by_share = scored(folder, place, *words, "data.validation_fraction=1")
    assert "NSP will not be scored: no training documents to fit a head on" in capsys.readouterr().out
    by_path = scored(folder, place, *words, f"data.validation_path={place / 'other.txt'}")
    for part in ("masked_lm", "nsp", "sop"):
        assert by_share[part] == by_path[part]
    assert by_share["scored"]["documents"] == by_share["scored"]["of_documents"] == 30
    assert by_share["sop"]["head"] == "trained"
    assert by_share["nsp"] is None
    assert by_share["masked_lm"]["unigram_loss"] > 0


def test_a_text_of_one_document_has_no_bar_of_its_own(
    home: tuple[RunFolder, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder, place = home
    one = write_corpus(tmp_path / "one.txt", documents=1)
    found = scored(folder, place, f"data.path={one}", "data.validation_fraction=1")
    assert "unigram_loss" not in found["masked_lm"]
    said = " ".join(capsys.readouterr().out.split())
    assert "No bar of this text: the text has no other document to count pieces in." in said
    assert "those of the run's own text" in said


def test_what_the_run_was_trained_on_is_no_held_out_text(
    home: tuple[RunFolder, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, place = home
    words = (f"data.path={place / 'corpus.txt'}", "data.validation_fraction=1", "evaluation.max_pairs=4096")
    found = scored(folder, place, *words)
    trained = folder.read("manifest.json")["data"]["text"]["train"]["documents"]
    assert found["scored"]["seen_in_training"] == trained
    assert f"! {trained} of the scored documents are among those that the run was trained on." in (
        " ".join(capsys.readouterr().out.split())
    )


def test_without_the_runs_own_text_its_bar_is_left_out(
    home: tuple[RunFolder, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, place = home
    copy = tmp_path / "copy"
    shutil.copytree(folder.path, copy)
    settings = (copy / "config.yaml").read_text().replace(str(place / "cache"), str(tmp_path / "gone"))
    (copy / "config.yaml").write_text(settings)
    found = scored(RunFolder(tmp_path, "copy"), tmp_path)
    assert "run_unigram_loss" not in found["masked_lm"]["bars"]
    assert found["scored"]["seen_in_training"] is None
    assert "No bar of the run's own text: the run's own text is not in" in " ".join(capsys.readouterr().out.split())


def test_a_part_of_the_text_is_found_again(tmp_path: Path) -> None:
    folder = run(tiny_config(tmp_path, "data.fraction=0.5"))
    fingerprint = folder.read("manifest.json")["data"]["tokens"]["fingerprint"]
    found = find_training(tmp_path / "cache", fingerprint, 0.5)
    assert found is not None
    assert found.fingerprint == fingerprint
    assert find_training(tmp_path / "cache", fingerprint, 1.0) is None


def test_a_whole_text_cannot_be_trained_on(home: tuple[RunFolder, Path], tmp_path: Path) -> None:
    folder, place = home
    with pytest.raises(ConfigError, match=r"data\.validation_fraction=1: every document would be held out"):
        start(tiny_config(tmp_path, "data.validation_fraction=1"))
    scored(folder, place, f"data.validation_path={place / 'other.txt'}")  # leaves a cached text without training side
    words = (f"data.path={place / 'other.txt'}", f"data.validation_path={place / 'other.txt'}")
    with pytest.raises(DataError, match="0 training and 30 held-out documents"):
        start(tiny_config(place, *words, runs="other"))


@pytest.mark.parametrize("older", [False, True])
def test_an_imported_model_is_on_no_plateau(older: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever the text; ``older`` results were adopted when they still held the words of a trained run."""
    bert(tmp_path / "in")
    place = tmp_path / "runs" / "mine"
    assert import_command([str(tmp_path / "in"), str(place)]) == 0
    corpus = write_corpus(tmp_path / "corpus.txt")
    words = ["data=text", f"data.path={corpus}", "pairs.max_length=32", *SHORT, f"paths.cache={tmp_path / 'cache'}"]
    assert main([str(place), *words, "data.validation_fraction=0.3"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "No bar of the run's own text: that of an imported model is not known." in said
    if older:
        results = read_json(place / "results.json")
        del results["masked_lm"]["bars"], results["scored"]
        for name in ("masked_lm", "nsp"):
            results[name]["left_baseline"] = False
        write_json(place / "results.json", results)
    shown = io.StringIO()
    Console(file=shown, width=100).print(summary(RunFolder(place.parent, "mine")))
    assert "lateau" not in shown.getvalue()
    assert "piece frequencies of this text" in " ".join(shown.getvalue().split())
    runs = load_runs(tmp_path / "runs")
    assert runs["mlm_left_baseline"].isna().all()
    assert unfit(runs, "MLM") is None
    assert unfit(runs, "NSP") is None
    assert "!" not in _loss(5.0, runs["mlm_left_baseline"].iloc[0], "finished")
    assert "!" in _loss(5.0, False, "finished")
