"""The record of a run is complete."""

import os
import subprocess
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from runhelpers import (
    ROOT,
    assert_intact,
    make_batches,
    newest_checkpoint,
    read_json,
    status_of,
    tiny_config,
)

from albert_ablate.axes import Objective
from albert_ablate.config.identity import identity
from albert_ablate.config.parse import parse
from albert_ablate.data.prepare import prepare
from albert_ablate.door.compose import paper_setup
from albert_ablate.model.pretraining import build_model
from albert_ablate.record.folder import RunFolder

OBJECTIVES = [o.value for o in Objective]


def test_the_folder_holds_everything(finished: RunFolder) -> None:
    assert {p.name for p in finished.path.iterdir()} == {
        "config.yaml", "manifest.json", "status.json", "metrics.jsonl", "results.json", "similarity.json",
        "checkpoints", "log.txt", "spiece.model",
    }  # fmt: skip
    for name in ("manifest.json", "status.json", "results.json", "similarity.json"):
        read_json(finished.path / name)
    assert not list(finished.path.rglob(".*"))  # no temporary file is left


def test_config_yaml_gives_the_configuration_back(finished: RunFolder, shared: Path) -> None:
    config = parse(yaml.safe_load((finished.path / "config.yaml").read_text()))
    given = tiny_config(shared, runs="reference")
    assert config == prepare(given).settled(given)


def test_manifest(finished: RunFolder, shared: Path) -> None:
    config = tiny_config(shared, runs="reference")
    prepared = prepare(config)
    config = prepared.settled(config)
    manifest = finished.read("manifest.json")
    assert manifest["identity"] == identity(config, prepared.train.fingerprint, "fp32")
    assert finished.name.endswith(manifest["identity"])
    assert manifest["name"] == finished.name
    assert set(manifest["source"]) == {"commit", "dirty"}
    head = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True)
    assert manifest["source"]["commit"] == (head.stdout.strip() if head.returncode == 0 else None)
    data = manifest["data"]
    assert data["text"]["fingerprint"]
    assert data["tokenizer"] == {"fingerprint": prepared.tokenizer.fingerprint, "vocab_size": 200}
    assert data["tokens"]["fingerprint"] == prepared.train.fingerprint
    assert data["tokens"]["train"] == len(prepared.train.tokens)
    assert data["text"]["train"]["documents"] == prepared.train.document_count
    assert data["text"]["valid"]["documents"] == prepared.valid.document_count
    read = {"sentences": {"files": 1, "documents": 60}}
    assert data["source"] == {"files": ["corpus.txt"], "validation_files": [], "read_as": read}
    assert data["pairs_per_epoch"] == make_batches(config, prepared).epoch_size
    assert manifest["packages"]["torch"] == metadata.version("torch")
    assert all(manifest["packages"][name] for name in ("torch", "numpy", "sentencepiece", "hydra-core", "pydantic"))
    assert manifest["hardware"]["device"] == "cpu"
    assert manifest["hardware"]["threads"] == 1
    assert manifest["hardware"]["cores"] == os.cpu_count()
    assert manifest["precision"] == "fp32"
    shape = config.architecture()
    model = build_model(shape, 0)
    counts = manifest["parameters"]
    heads = sum(p.numel() for m in (model.mlm_head, model.sentence_head) for p in m.parameters())
    pooler = sum(p.numel() for p in model.pooler.parameters())
    assert counts["encoder"] == sum(p.numel() for p in model.encoder.parameters())
    assert counts["with_pooler"] == counts["encoder"] + pooler
    assert counts["with_heads"] == counts["with_pooler"] + heads
    masked = config.masking.probability * config.pairs.max_length
    assert manifest["training_flops"] == pytest.approx(3 * shape.forward_flops(32, masked) * 8 * 12)
    stated = {line["field"]: line for line in manifest["deviations_from_paper"]}
    assert stated["budget.steps"] == {"field": "budget.steps", "ours": 12, "paper": 125000}
    assert stated["batch.size"] == {"field": "batch.size", "ours": 8, "paper": 4096}
    assert stated["data.name"]["ours"] == "text"
    assert "masking.max_ngram" not in stated


def test_the_paper_preset_states_no_deviation_from_itself() -> None:
    from albert_ablate.config.deviations import deviations
    from albert_ablate.door.compose import compose

    config = compose(["scale=paper"])
    assert deviations(config, paper_setup(config)) == []


def test_status_and_log(finished: RunFolder) -> None:
    status = status_of(finished)
    assert status["state"] == "finished"
    assert status["reason"] is None
    assert status["started"] <= status["updated"]
    assert status["pid"] == os.getpid()
    log = (finished.path / "log.txt").read_text()
    assert finished.name in log
    assert "evaluating" in log


def test_metrics(finished: RunFolder, shared: Path) -> None:
    lines = finished.metrics()
    assert [line["step"] for line in lines] == [3, 5, 6, 9, 10, 12]
    config = tiny_config(shared)
    tokens = np.cumsum([int(make_batches(config)[step].mask.sum()) for step in range(12)])
    for line in lines:
        assert line["tokens"] == tokens[line["step"] - 1]
        assert line["tokens_per_second"] > 0
        assert 0 <= line["mlm_accuracy"] <= 1
        assert 0 <= line["sentence_accuracy"] <= 1
        assert line["gradient_norm"] > 0
        curve = line["step"] in (5, 10, 12)
        assert ("held_out_mlm_loss" in line) is curve
        assert ("held_out_mlm_accuracy" in line) is curve
        assert ("held_out_sentence_accuracy" in line) is curve
    assert [line["learning_rate"] for line in lines][:1] == [pytest.approx(0.002 * (1 - 2 / 12))]
    assert lines[-1]["learning_rate"] == pytest.approx(0.002 / 12)
    assert [line["seconds"] for line in lines] == sorted(line["seconds"] for line in lines)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_results(by_objective: dict[str, RunFolder], objective: str) -> None:
    results = by_objective[objective].read("results.json")
    assert {"masked_lm", "nsp", "sop", "training"} <= set(results)
    mlm = results["masked_lm"]
    assert mlm["interval"][0] <= mlm["accuracy"] <= mlm["interval"][1]
    assert mlm["loss_interval"][0] < mlm["loss"] < mlm["loss_interval"][1]
    assert mlm["gain_over_unigram"] == pytest.approx(mlm["unigram_loss"] - mlm["loss"])
    assert mlm["examples"] > mlm["sequences"] > 1
    assert 0 <= mlm["unigram_accuracy"] <= 1
    assert mlm["left_baseline"] is False
    for task in ("nsp", "sop"):
        record = results[task]
        assert record["interval"][0] <= record["accuracy"] <= record["interval"][1]
        assert record["examples"] == 32
        assert 0.5 <= record["majority_class"] < 1
        assert record["head"] == ("trained" if task == objective else "fitted on the frozen encoder")
        assert isinstance(record["left_baseline"], bool)
        assert ("own_head" in record) is (objective not in (task, "none"))
    training = results["training"]
    assert training["steps"] == 12
    assert training["tokens"] == by_objective[objective].metrics()[-1]["tokens"]


def test_similarity(finished: RunFolder) -> None:
    record = finished.read("similarity.json")
    for name in ("l2", "degrees", "l2_sd", "degrees_sd"):
        assert len(record[name]) == 2  # layers
        assert all(value > 0 for value in record[name])
    assert record["sequences"] == 8
    assert len(record["without_special"]["l2"]) == 2


def test_checkpoint_holds_weights_moments_and_progress(finished: RunFolder, shared: Path) -> None:
    path = newest_checkpoint(finished)
    assert {p.name for p in path.iterdir()} == {"model.safetensors", "state.pt", "meta.json"}
    meta = read_json(path / "meta.json")
    assert meta["step"] == 12
    assert meta["identity"] == finished.read("manifest.json")["identity"]
    assert meta["tokens"] == finished.metrics()[-1]["tokens"]
    assert_intact(path)
    state = torch.load(path / "state.pt", weights_only=True)
    model = build_model(tiny_config(shared).architecture(), 0)
    assert len(state["state"]) == len(list(model.parameters()))
    assert {int(entry["step"]) for entry in state["state"].values()} == {12}
