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
from taskhelpers import write_sst2
from test_electra_interop import opened, order_of
from test_huggingface_parity import HIDDEN, architecture, bert, inputs
from test_import import PIECES, change_config, moved
from test_import import bert as bert_checkpoint
from transformers import (
    AutoTokenizer,
    DistilBertConfig,
    DistilBertForMaskedLM,
    DistilBertForQuestionAnswering,
    DistilBertForSequenceClassification,
    DistilBertModel,
)

from albert_ablate.axes import Share
from albert_ablate.commands.evaluate import main as evaluate
from albert_ablate.commands.export import main as export
from albert_ablate.commands.finetune import main as finetune
from albert_ablate.commands.import_hf import main as import_model
from albert_ablate.door.compose import compose_for_run, paper_setup
from albert_ablate.experiment import run_cell
from albert_ablate.files import read_json
from albert_ablate.interop.exported import Exported
from albert_ablate.interop.huggingface import to_huggingface
from albert_ablate.model.architecture import Architecture
from albert_ablate.model.electra import build_electra
from albert_ablate.model.pretraining import PretrainingModel, build_model
from albert_ablate.record.folder import RunFolder
from analysis.similarity import measure

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


def checkpoint(folder: Path, kind: Any = DistilBertForMaskedLM, **settings: Any) -> Any:
    """A random model of transformers in files, as the released ones are stored."""
    common: dict[str, Any] = {
        "vocab_size": 200, "dim": 48, "n_layers": 4, "n_heads": 4, "hidden_dim": 96, "max_position_embeddings": 64,
        "initializer_range": 0.1, "attn_implementation": "eager",
    }  # fmt: skip
    config = DistilBertConfig(**common | settings)
    model = moved(kind(config))
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": true, "tokenizer_class": "DistilBertTokenizer"}')
    return model


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"activation": "gelu_new", "n_heads": 2, "seq_classif_dropout": 0.3, "dropout": 0.2, "attention_dropout": 0.0},
        {"n_layers": 1, "hidden_dim": 100, "initializer_range": 0.05},
    ],
    ids=str,
)
def test_a_released_distilbert_comes_in_and_goes_out_again(settings: dict[str, Any], tmp_path: Path) -> None:
    theirs = checkpoint(tmp_path / "in", **settings)
    assert import_model([str(tmp_path / "in"), str(tmp_path / "mine")]) == 0
    model, config = opened(tmp_path / "mine"), compose_for_run(tmp_path / "mine" / "config.yaml", [])
    assert (config.method.name.value, config.method.teacher, config.has_pooler) == ("distilbert", None, False)
    assert config.objective.name.value == "none"
    assert config.model.hidden_dropout == settings.get("dropout", 0.1)
    assert config.model.attention_dropout == settings.get("attention_dropout", 0.1)
    assert_masked_lm(model, theirs, order_of(tmp_path / "mine"))
    manifest = read_json(tmp_path / "mine" / "manifest.json")
    assert (manifest["imported"]["missing"], manifest["imported"]["left_out"]) == ([], [])
    assert manifest["parameters"]["with_heads"] == theirs.num_parameters()
    assert export([str(tmp_path / "mine"), str(tmp_path / "out")]) == 0
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("in", "out"))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, atol=0, rtol=0)
    described, written = (read_json(tmp_path / name / "config.json") for name in ("in", "out"))
    fields = (
        "architectures", "model_type", "activation", "dim", "n_layers", "n_heads", "hidden_dim", "dropout",
        "attention_dropout", "seq_classif_dropout", "initializer_range", "max_position_embeddings", "pad_token_id",
    )  # fmt: skip
    assert {name: described[name] for name in fields} == {name: written[name] for name in fields}


def test_sinusoidal_positions_are_those_of_the_file(tmp_path: Path) -> None:
    """transformers computes the table, then loads the file's over it."""
    theirs = checkpoint(tmp_path / "in", sinusoidal_pos_embds=True)
    assert import_model([str(tmp_path / "in"), str(tmp_path / "mine")]) == 0
    assert_masked_lm(opened(tmp_path / "mine"), theirs, order_of(tmp_path / "mine"))


def test_files_without_a_prefix_and_with_repeated_output_weights(tmp_path: Path) -> None:
    theirs = checkpoint(tmp_path / "in")
    (tmp_path / "in" / "model.safetensors").unlink()
    old = {name.removeprefix("distilbert."): tensor for name, tensor in theirs.state_dict().items()}
    assert "vocab_projector.weight" in old, "the word table a second time"
    torch.save(old | {"embeddings.position_ids": torch.arange(64)}, tmp_path / "in" / "pytorch_model.bin")
    assert import_model([str(tmp_path / "in"), str(tmp_path / "mine")]) == 0
    assert_masked_lm(opened(tmp_path / "mine"), theirs, order_of(tmp_path / "mine"))


@pytest.mark.parametrize(
    ("kind", "left_out"),
    [
        (DistilBertModel, ""),
        (DistilBertForQuestionAnswering, "qa_outputs.bias, qa_outputs.weight"),
        (
            DistilBertForSequenceClassification,
            "classifier.bias, classifier.weight, pre_classifier.bias, pre_classifier.weight",
        ),
    ],
)
def test_heads_of_tasks_are_left_out_and_named(
    kind: Any, left_out: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = checkpoint(tmp_path / "in", kind)
    assert import_model([str(tmp_path / "in"), str(tmp_path / "mine")]) == 0
    said = capsys.readouterr().out
    assert "it has no masked-LM head: random weights there" in said
    assert ("; left out, the head of a task: " + left_out in said) == bool(left_out)
    model, order = opened(tmp_path / "mine"), order_of(tmp_path / "mine")
    ids, types, mask = inputs(3, 17)
    with torch.no_grad():
        encoder = theirs if kind is DistilBertModel else theirs.distilbert
        expected = encoder(input_ids=order[ids], attention_mask=mask).last_hidden_state
        states = model.encoder(ids, types, mask)
    torch.testing.assert_close(states[mask.bool()], expected[mask.bool()], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"dim": 40}, "distilbert.embeddings.word_embeddings.weight is [200, 48], but vocab_size=200 x dim=40"),
        ({"n_heads": 5}, "n_heads is 5, which does not divide dim=48"),
        ({"hidden_dim": 90}, "ffn.lin1.weight is [96, 48], but hidden_dim=90 x dim=48"),
        ({"activation": "relu"}, "activation is 'relu'; gelu, gelu_python"),
        ({"dropout": 1.5}, "dropout is 1.5; a number from 0 to below 1 is expected"),
        ({"sinusoidal_pos_embds": 1}, "sinusoidal_pos_embds is 1; true or false is expected"),
        ({"n_layers": 5}, "missing: distilbert.transformer.layer.4"),
        ({"n_layers": 3}, "unknown: distilbert.transformer.layer.3"),
        ({"n_layers": 1001}, "n_layers=1001 is more than 1,000 layers"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_with_the_file_s_names(
    values: dict[str, Any], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint(tmp_path / "in")
    change_config(tmp_path / "in", **values)
    assert import_model([str(tmp_path / "in"), str(tmp_path / "mine")]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "mine").exists()


def test_an_imported_distilbert_is_scored_fine_tuned_and_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_config(tmp_path, *PLAIN, *SHORT)
    assert export([str(run(config).path), str(tmp_path / "out")]) == 0
    back = tmp_path / "again" / "back"
    assert import_model([str(tmp_path / "out"), str(back)]) == 0
    text = ["data=text", f"data.path={config.data.path}", "data.validation_fraction=0.2"]
    sizes = ["evaluation.max_pairs=16", "evaluation.probe_pairs=16", f"paths.cache={tmp_path / 'cache'}"]
    assert evaluate([str(back), *text, *sizes]) == 0
    results = read_json(back / "results.json")
    assert results["masked_lm"]["loss"] > 0
    assert results["sop"]["head"] == "fitted on the frozen encoder"
    assert results["inference"]["length"] == 32
    assert "random one" not in capsys.readouterr().out
    write_sst2(tmp_path / "data")
    task = ["task=sst2", f"task.data_dir={tmp_path / 'data'}", "tasks.sst2.max_length=32", "task.evaluations=1"]
    assert finetune([str(back), *task]) == 0
    (entry,) = RunFolder(back.parent, back.name).read("results.json")["tasks"]
    assert entry["task"] == "sst2"
    assert len(measure(back, Path(str(config.data.path)), sequences=4)["l2"]) == config.model.layers


def test_a_distilled_run_goes_out_and_comes_back(tmp_path: Path) -> None:
    words = ("method=distilbert", "share=none", "objective=none", "embed.size=32", "model.layers=1", *SHORT)
    config = tiny_config(tmp_path, *words)
    folder = run_cell(config, paper_setup(config)).path
    assert export([str(folder), str(tmp_path / "out")]) == 0
    original = opened(folder)
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "out").eval()
    assert isinstance(theirs, DistilBertForMaskedLM)
    assert_masked_lm(original, theirs)
    assert import_model([str(tmp_path / "out"), str(tmp_path / "again" / "back")]) == 0
    again = opened(tmp_path / "again" / "back").state_dict()
    assert again.keys() == original.state_dict().keys()
    for name, tensor in original.state_dict().items():
        torch.testing.assert_close(again[name], tensor, atol=0, rtol=0, msg=name)
    taught = (f"method.teacher={tmp_path / 'again' / 'back'}", f"tokenizer.model_path={folder / 'spiece.model'}")
    config = tiny_config(tmp_path, *words, *taught, "seed=1")
    student = run_cell(config, paper_setup(config))
    assert read_json(student.path / "manifest.json")["teacher"]["run"] == "back"
    assert student.metrics()[0]["cosine_loss"] < 0.01, "it begins with all layers of its teacher"


def test_a_run_of_tinybert_goes_out_as_an_encoder_and_comes_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing trained its masked-LM head, and nothing its pooler without a sentence objective."""
    words = ("method=tinybert", "share=none", "objective=none", "embed.size=32", "model.layers=1", *SHORT)
    config = tiny_config(tmp_path, *words)
    folder = run_cell(config, paper_setup(config)).path
    capsys.readouterr()
    assert export([str(folder), str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert f"{tmp_path / 'out'}: BertModel; left out, which it lacks: sentence head, masked-LM head\n" in said
    assert not any("imitation" in name for name in load_file(tmp_path / "out" / "model.safetensors"))
    text = (tmp_path / "out" / "README.md").read_text()
    assert "No masked-LM head was trained, so there is none." in text
    assert "the pooler keeps its random initial weights" in text
    assert "tags: [albert-ablate, feature-extraction]" in text
    original = opened(folder)
    theirs = transformers.AutoModel.from_pretrained(tmp_path / "out").eval()
    ids, types, mask = inputs(3, 17)
    with torch.no_grad():
        expected = theirs(input_ids=ids, token_type_ids=types, attention_mask=mask)
        states = original.encoder(ids, types, mask)
    torch.testing.assert_close(states[mask.bool()], expected[0][mask.bool()], atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(original.pooler(states), expected.pooler_output, atol=TOLERANCE, rtol=0)
    assert import_model([str(tmp_path / "out"), str(tmp_path / "again" / "back")]) == 0
    assert "it has no masked-LM head, no sentence head" in capsys.readouterr().out
    again = opened(tmp_path / "again" / "back").encoder.state_dict()
    for name, tensor in original.encoder.state_dict().items():
        torch.testing.assert_close(again[name], tensor, atol=0, rtol=0, msg=name)


@pytest.mark.parametrize("name", ["fit_dense", "fit_denses.2"])
def test_of_a_released_tinybert_the_encoder_comes_in(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its file has projections to the teacher's width, and heads that its distillation never trained."""
    theirs = bert_checkpoint(tmp_path / "in")
    stored = load_file(tmp_path / "in" / "model.safetensors")
    extra = {f"{name}.weight": torch.zeros(64, 48), f"{name}.bias": torch.zeros(64)}
    save_file(stored | extra, tmp_path / "in" / "model.safetensors", metadata={"format": "pt"})
    assert import_model([str(tmp_path / "in"), str(tmp_path / "mine")]) == 0
    said = capsys.readouterr().out
    assert "it has no masked-LM head, no sentence head: random weights there" in said
    assert "left out, parts of TinyBERT's distillation: cls.predictions.bias" in said
    assert f"{name}.weight" in said
    model, order = opened(tmp_path / "mine"), order_of(tmp_path / "mine")
    ids, types, mask = inputs(3, 17)
    with torch.no_grad():
        expected = theirs.bert(input_ids=order[ids], token_type_ids=types, attention_mask=mask)
        states = model.encoder(ids, types, mask)
    torch.testing.assert_close(states[mask.bool()], expected[0][mask.bool()], atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(model.pooler(states), expected.pooler_output, atol=TOLERANCE, rtol=0)
