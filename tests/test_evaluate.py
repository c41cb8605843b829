"""Scoring a finished run again, or on another corpus."""

from pathlib import Path

import pytest
from runhelpers import run, tiny_config, write_corpus
from test_import import bert

from albert_ablate.evaluate import main
from albert_ablate.files import read_json
from albert_ablate.import_hf import main as import_command
from analysis.cells import main_setup, matching
from analysis.runs import load_runs

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
