"""The whole round: a run exported, trained on in transformers, saved there with its tokenizer, and imported again."""

from pathlib import Path
from typing import Any

import pytest
import torch
from runhelpers import run, tiny_config
from test_import import opened
from transformers import AutoModelForPreTraining, AutoModelForSequenceClassification, AutoTokenizer

from albert_ablate.commands.export import main as export
from albert_ablate.commands.import_hf import main as import_model
from albert_ablate.data.tokenizer import CLS, SEP
from albert_ablate.data.vocabulary import open_tokenizer, tokenizer_file
from albert_ablate.door.compose import compose_for_run

TEXT = ["Bade fogo, kanse bade!", "Dade 12 (nÔse) vore-pame.", "Kanse tobe?"]
ARMS = {
    "AlbertForPreTraining": ("share=all", "embed.size=16"),
    "BertForPreTraining": ("share=none", "embed.size=32", "objective=nsp"),
}
CASED = ("tokenizer.lowercase=false", "tokenizer.strip_accents=false", "tokenizer.split_digit_commas=false")


def one_step(model: Any, ids: torch.Tensor, labels: dict[str, torch.Tensor]) -> None:
    """Of AdamW, on a batch."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model(input_ids=ids, **labels).loss.backward()
    optimizer.step()
    model.eval()


@pytest.mark.parametrize("cased", [False, True], ids=["uncased", "cased"])
@pytest.mark.parametrize("kind", ["unigram", "bpe", "wordpiece"])
@pytest.mark.parametrize("architecture", ARMS)
def test_out_trained_there_and_in_again(architecture: str, kind: str, cased: bool, tmp_path: Path) -> None:
    words = (f"tokenizer={kind}", "tokenizer.vocab_size=150", "budget.steps=2", "budget.warmup_steps=1")
    folder = run(tiny_config(tmp_path, *ARMS[architecture], *words, *(CASED if cased else ())))
    assert export([str(folder.path), str(tmp_path / "out")]) == 0
    theirs = AutoModelForPreTraining.from_pretrained(tmp_path / "out", attn_implementation="eager")
    source = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert type(theirs).__name__ == architecture
    ids = source(TEXT, return_tensors="pt", padding=True)
    before = theirs.get_input_embeddings().weight.clone()
    sentence = "sentence_order_label" if architecture.startswith("Albert") else "next_sentence_label"
    one_step(theirs, ids["input_ids"], {"labels": ids["input_ids"], sentence: torch.tensor([0, 1, 0])})
    assert not torch.equal(theirs.get_input_embeddings().weight, before)
    theirs.save_pretrained(tmp_path / "saved")
    source.save_pretrained(tmp_path / "saved")
    assert not [name for name in ("spiece.model", "vocab.txt") if (tmp_path / "saved" / name).exists()]

    assert import_model([str(tmp_path / "saved"), str(tmp_path / "back")]) == 0
    model, again = opened(tmp_path / "back")
    config = compose_for_run(again.path / "config.yaml", [])
    assert (config.tokenizer.name, config.tokenizer.lowercase) == (kind, not cased)
    assert config.tokenizer.split_digit_commas == (not cased or kind == "wordpiece")
    own = open_tokenizer(tokenizer_file(again.path), config.tokenizer)
    for text, mine in zip(TEXT, own.encode(TEXT), strict=True):
        encoded = source(text, return_tensors="pt")
        assert encoded["input_ids"][0].tolist() == [CLS, *mine, SEP]
        with torch.no_grad():
            expected = theirs(**encoded)
            states = model.encoder.hidden_states(torch.tensor([[CLS, *mine, SEP]]), encoded["token_type_ids"], None)
            logits = model.mlm_head(states[-1], model.encoder.embedding.word.weight)
        torch.testing.assert_close(logits, expected.prediction_logits, atol=1e-5, rtol=0)


def test_an_encoder_fine_tuned_there_comes_back_without_the_tasks_head(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(tiny_config(tmp_path, "budget.steps=2", "budget.warmup_steps=1"))
    assert export([str(folder.path), str(tmp_path / "out")]) == 0
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out", num_labels=3)
    source = AutoTokenizer.from_pretrained(tmp_path / "out")
    ids = source(TEXT, return_tensors="pt", padding=True)["input_ids"]
    one_step(theirs, ids, {"labels": torch.tensor([0, 1, 2])})
    theirs.save_pretrained(tmp_path / "saved")
    source.save_pretrained(tmp_path / "saved")
    capsys.readouterr()
    assert import_model([str(tmp_path / "saved"), str(tmp_path / "back")]) == 0
    said = capsys.readouterr().out
    assert "it has no masked-LM head, no sentence head: random weights there" in said
    assert "left out, the head of a task: classifier.bias, classifier.weight" in said
    model, _ = opened(tmp_path / "back")
    with torch.no_grad():
        expected = theirs.albert(input_ids=ids)
        states = model.encoder.hidden_states(ids, torch.zeros_like(ids), None)
    torch.testing.assert_close(states[-1], expected.last_hidden_state, atol=1e-5, rtol=0)
    torch.testing.assert_close(model.pooler(states[-1]), expected.pooler_output, atol=1e-5, rtol=0)
