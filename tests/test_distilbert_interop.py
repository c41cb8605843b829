"""DistilBERT and TinyBERT against transformers: equal outputs, and runs that go out and come in."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from runhelpers import run, tiny_config
from safetensors.torch import load_file, save_file
from test_huggingface_parity import HIDDEN, architecture, bert, inputs
from test_import import moved
from transformers import AutoTokenizer, DistilBertForMaskedLM

from albert_ablate.axes import Share
from albert_ablate.commands.export import main as export
from albert_ablate.interop.huggingface import Exported, to_huggingface
from albert_ablate.model.architecture import Architecture
from albert_ablate.model.electra import build_electra
from albert_ablate.model.pretraining import PretrainingModel, build_model

TOLERANCE = 1e-5
#: A student's encoder, trained by masked LM.
PLAIN = ("share=none", "objective=none", "method.token_types=false", "method.pooler=trained", "embed.size=32")
SHORT = ("budget.steps=2", "budget.warmup_steps=1", "model.activation=gelu_erf")


def without_types(share: Share = Share.NONE, embedding: int = HIDDEN, **other: Any) -> Architecture:
    return architecture(share, embedding, type_vocab_size=0, **{"activation": "gelu_erf", **other})


def ours(shape: Architecture, pooler: bool = False) -> PretrainingModel:
    """Every parameter away from its initial value: zero biases would hide a missing one."""
    model: PretrainingModel = moved(build_model(shape, seed=3, pooler=pooler))
    return model


def loaded(found: Exported, folder: Path) -> Any:
    """Through the files, as a user does; no tensor is missing, unknown or drawn anew."""
    folder.mkdir()
    save_file(found.tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({"architectures": [found.architecture], **found.config}))
    theirs, info = getattr(transformers, found.architecture).from_pretrained(
        folder, attn_implementation="eager", output_loading_info=True
    )
    assert not any(info.values()), info
    return theirs.eval()


@torch.no_grad()
def assert_masked_lm(model: Any, theirs: Any, order: torch.Tensor | None = None) -> None:
    """Equal hidden states of every layer and logits at all real positions, whatever the segments are here."""
    for batch, length in ((1, 5), (3, 17)):
        ids, types, mask = inputs(batch, length)
        words = ids if order is None else order[ids]
        expected = theirs(input_ids=words, attention_mask=mask, output_hidden_states=True)
        real = mask.bool()
        states = model.encoder.hidden_states(ids, types, mask)
        assert len(states) == len(expected.hidden_states)
        for mine, other in zip(states[1:], expected.hidden_states[1:], strict=True):
            torch.testing.assert_close(mine[real], other[real], atol=TOLERANCE, rtol=0)
        logits = model.mlm_head(states[-1][real], model.encoder.embedding.word.weight)
        columns = torch.arange(logits.shape[1]) if order is None else order
        torch.testing.assert_close(logits, expected.logits[real][:, columns], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("activation", ["gelu_erf", "gelu_tanh"])
@pytest.mark.parametrize("share", list(Share))
def test_a_model_without_token_types_is_a_distilbert(share: Share, activation: str, tmp_path: Path) -> None:
    model = ours(without_types(share, activation=activation))
    found = to_huggingface(model)
    assert (found.architecture, found.unrolled) == ("DistilBertForMaskedLM", share is not Share.NONE)
    assert found.left_out == ()
    theirs = loaded(found, tmp_path / "out")
    assert_masked_lm(model, theirs)
    if share is Share.NONE:
        assert theirs.num_parameters() == sum(p.numel() for p in model.parameters())


@torch.no_grad()
def test_bert_with_a_zero_type_row_is_distilbert_with_the_same_weights(tmp_path: Path) -> None:
    """Both of transformers; BERT reads segment 0 only, whose row is what DistilBERT does not have."""
    shape = architecture(Share.NONE, HIDDEN)
    model, student = ours(shape, pooler=True), ours(dataclasses.replace(shape, type_vocab_size=0))
    own = student.state_dict()
    student.load_state_dict({name: tensor for name, tensor in model.state_dict().items() if name in own})
    table = model.encoder.embedding.token_type
    assert table is not None
    theirs = loaded(to_huggingface(student), tmp_path / "out")
    assert isinstance(theirs, DistilBertForMaskedLM)
    ids, _, mask = inputs(3, 17)
    real = mask.bool()
    expected = theirs(input_ids=ids, attention_mask=mask).logits[real]
    table.weight[0] = 0
    torch.testing.assert_close(bert(model)(input_ids=ids, attention_mask=mask).prediction_logits[real], expected)
    table.weight[0] = torch.linspace(0, 1, HIDDEN)
    other = bert(model)(input_ids=ids, attention_mask=mask).prediction_logits[real]
    assert (other - expected).abs().max() > 0.01


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        (without_types(embedding=16), "AlbertForMaskedLM"),
        (without_types(Share.ALL, 16), "AlbertForMaskedLM"),
        (without_types(projection=True), "AlbertForMaskedLM"),
        (without_types(layer_norm_eps=1e-6), "BertForMaskedLM"),
    ],
    ids=str,
)
def test_what_distilbert_cannot_be_has_a_zero_table_of_types(shape: Architecture, kind: str, tmp_path: Path) -> None:
    """An embedding of another width, a projection, another epsilon: DistilBERT has none of them."""
    model = ours(shape)
    found = to_huggingface(model)
    assert (found.architecture, found.config["type_vocab_size"]) == (kind, 2)
    theirs = loaded(found, tmp_path / "out")
    assert_masked_lm(model, theirs)
    ids, types, mask = inputs(3, 17)
    with torch.no_grad():
        one, two = (theirs(input_ids=ids, token_type_ids=t, attention_mask=mask).logits for t in (types, 1 - types))
    torch.testing.assert_close(one, two, atol=0, rtol=0)


def test_a_discriminator_without_token_types_has_a_zero_table(tmp_path: Path) -> None:
    shape = without_types(embedding=16)
    model = moved(build_electra(shape, None, "embeddings", "replaced", seed=3))
    theirs = loaded(to_huggingface(model), tmp_path / "out")
    ids, types, mask = inputs(3, 17)
    with torch.no_grad():
        expected = theirs(input_ids=ids, token_type_ids=types, attention_mask=mask).logits
        logits = model.replaced_logits(model.encoder(ids, types, mask))
    torch.testing.assert_close(logits[mask.bool()], expected[mask.bool()], atol=TOLERANCE, rtol=0)


def test_heads_that_distilbert_lacks_are_named(tmp_path: Path) -> None:
    found = to_huggingface(ours(without_types(), pooler=True))
    assert (found.architecture, found.left_out) == ("DistilBertForMaskedLM", ("pooler", "sentence head"))
    loaded(found, tmp_path / "out")


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        (without_types(), "DistilBertModel"),
        (architecture(Share.NONE, HIDDEN), "BertModel"),
        (architecture(Share.ALL, 16), "AlbertModel"),
    ],
    ids=str,
)
def test_a_masked_lm_head_that_was_not_trained_stays_behind(shape: Architecture, kind: str, tmp_path: Path) -> None:
    model = ours(shape, pooler=kind != "DistilBertModel")
    found = to_huggingface(model, masked_lm=False)
    assert found.architecture == kind
    assert found.left_out == (("masked-LM head",) if kind == "DistilBertModel" else ("sentence head", "masked-LM head"))
    theirs = loaded(found, tmp_path / "out")
    ids, types, mask = inputs(3, 17)
    segments = {} if kind == "DistilBertModel" else {"token_type_ids": types}
    with torch.no_grad():
        expected = theirs(input_ids=ids, attention_mask=mask, **segments)
        states = model.encoder(ids, types, mask)
    torch.testing.assert_close(states[mask.bool()], expected[0][mask.bool()], atol=TOLERANCE, rtol=0)
    if segments:
        torch.testing.assert_close(model.pooler(states), expected.pooler_output, atol=TOLERANCE, rtol=0)


def test_a_run_without_token_types_goes_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run(tiny_config(tmp_path, *PLAIN, *SHORT)).path
    capsys.readouterr()
    assert export([str(folder), str(tmp_path / "out")]) == 0
    assert f"{tmp_path / 'out'}: DistilBertForMaskedLM\n" in capsys.readouterr().out
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    encoded = tokenizer("Bade fogo.", "Gade.", return_tensors="pt")
    assert sorted(encoded) == ["attention_mask", "input_ids"]
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "out").eval()
    assert theirs(**encoded).logits.shape[-1] == 200
    text = (tmp_path / "out" / "README.md").read_text()
    assert "No token types" in text
    assert "table of types" not in text
    assert "Sentence label" not in text
    assert "keep their random initial weights" not in text
    assert load_file(tmp_path / "out" / "model.safetensors").keys() < theirs.state_dict().keys()
