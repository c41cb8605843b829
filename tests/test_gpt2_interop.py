"""Causal models against transformers' GPT-2 and BERT decoder, through files, and runs that go out and come in."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from runhelpers import run, tiny_config
from safetensors.torch import load_file
from test_distilbert_interop import loaded
from test_electra_interop import opened
from test_gpt2 import GPT2, POST, form, moved, text
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel, OPTForCausalLM

from albert_ablate.axes import Share
from albert_ablate.commands.export import main as export
from albert_ablate.commands.import_hf import main as import_model
from albert_ablate.data.tokenizer import CLS, PAD, SEP
from albert_ablate.data.wordpiece import read_vocabulary, row_order
from albert_ablate.door.compose import compose_for_run
from albert_ablate.errors import ForeignCheckpointError
from albert_ablate.files import read_json
from albert_ablate.interop.huggingface import generator_to_huggingface, to_huggingface
from albert_ablate.interop.imported import from_huggingface
from albert_ablate.model.architecture import Architecture
from albert_ablate.model.electra import build_electra
from albert_ablate.model.pretraining import PretrainingModel, build_model

#: A causal run of GPT-2's form.
GPT2_RUN = (
    "method=causal", "objective=none", "share=none", "embed.size=32", "model.norm=pre", "model.embedding_norm=false",
    "model.residual_init=depth", "model.lm_head=plain", "model.layer_norm_eps=1e-5", "budget.steps=2",
    "budget.warmup_steps=1",
)  # fmt: skip


@torch.no_grad()
def assert_causal(model: PretrainingModel, theirs: Any, ids: torch.Tensor) -> None:
    states = model.encoder.hidden_states(ids, torch.zeros_like(ids))
    expected = theirs(ids, output_hidden_states=True)
    torch.testing.assert_close(states, list(expected.hidden_states), atol=1e-5, rtol=0)
    logits = model.token_logits(states[-1].flatten(0, 1))
    torch.testing.assert_close(logits, expected.logits.flatten(0, 1), atol=1e-5, rtol=0)


# --- the model --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", list(Share))
@pytest.mark.parametrize("activation", ["gelu_tanh", "gelu_erf"])
def test_gpt2s_form_goes_out(share: Share, activation: str, tmp_path: Path) -> None:
    model = moved(form(share, **GPT2, activation=activation, hidden_dropout=0.1, attention_dropout=0.2))
    found = to_huggingface(model, first=SEP)
    assert (found.architecture, found.unrolled, found.left_out) == ("GPT2LMHeadModel", share is not Share.NONE, ())
    theirs = loaded(found, tmp_path / "out")
    assert_causal(model.eval(), theirs, text())
    config = theirs.config
    assert (config.resid_pdrop, config.embd_pdrop, config.attn_pdrop) == (0.1, 0.1, 0.2)
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (SEP, SEP, PAD)
    assert config.n_inner == 4 * 48


@pytest.mark.parametrize("share", [Share.NONE, Share.ALL])
@pytest.mark.parametrize("types", [0, 2])
def test_the_causal_pattern_alone_goes_out_as_a_decoder_of_bert(share: Share, types: int, tmp_path: Path) -> None:
    model = moved(form(share, **POST, type_vocab_size=types)).eval()
    found = to_huggingface(model)
    assert (found.architecture, found.unrolled) == ("BertLMHeadModel", share is Share.ALL)
    theirs = loaded(found, tmp_path / "out")
    assert (theirs.config.is_decoder, theirs.config.bos_token_id) == (True, CLS)
    assert_causal(model, theirs, text())


@pytest.mark.parametrize("share", [Share.NONE, Share.ALL])
@pytest.mark.parametrize("activation", ["gelu_tanh", "gelu_erf"])
@pytest.mark.parametrize("width", [16, 64])
def test_an_embedding_of_another_width_goes_out_as_opt(
    share: Share, activation: str, width: int, tmp_path: Path
) -> None:
    other = {"activation": activation, "embedding_size": width, "layer_norm_eps": 1e-5, "hidden_dropout": 0.1}
    model = moved(form(share, **GPT2 | other)).eval()
    found = to_huggingface(model, first=SEP)
    assert (found.architecture, found.unrolled, found.left_out) == ("OPTForCausalLM", share is Share.ALL, ())
    assert found.predicts_next
    theirs = loaded(found, tmp_path / "out")
    assert isinstance(theirs, OPTForCausalLM)
    assert (theirs.config.word_embed_proj_dim, theirs.config.dropout, theirs.config.bos_token_id) == (width, 0.1, SEP)
    ids = text()
    with torch.no_grad():
        states = model.encoder.hidden_states(ids, torch.zeros_like(ids))
        logits = model.token_logits(states[-1].flatten(0, 1))
        expected = theirs(ids, output_hidden_states=True)
        torch.testing.assert_close(states[0], expected.hidden_states[0], atol=1e-5, rtol=0)  # the folded positions
        torch.testing.assert_close(logits, expected.logits.flatten(0, 1), atol=1e-5, rtol=0)
        padded = torch.cat([torch.full((len(ids), 3), PAD), ids], 1)  # positions follow the mask
        mask = torch.cat([torch.zeros(len(ids), 3, dtype=torch.long), torch.ones_like(ids)], 1)
        left = theirs(padded, attention_mask=mask).logits[:, 3:]
    torch.testing.assert_close(logits, left.flatten(0, 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("change", "gpt2", "bert"),
    [
        (
            {"embedding_size": 16, "layer_norm_eps": 1e-12},
            "As GPT-2 it would need embed=full;",
            "; as OPT, whose embedding may have another width, model.layer_norm_eps=1e-05.",
        ),
        (
            {"embedding_size": 16, "lm_head": "transform"},
            "model.lm_head=plain, embed=full;",
            "width, model.lm_head=plain.",
        ),
        ({"embedding_size": 16, "type_vocab_size": 2}, "method.token_types=false;", "width, method.token_types=false."),
        ({"norm": "post"}, "As GPT-2 it would need model.norm=pre;", "as BERT's decoder model.embedding_norm=true, "),
        ({"lm_head": "transform"}, "it would need model.lm_head=plain;", "model.norm=post, model.embedding_norm=true."),
        ({"embedding_norm": True}, "need model.embedding_norm=false;", "model.norm=post, model.lm_head=transform."),
        ({"type_vocab_size": 2}, "As GPT-2 it would need method.token_types=false;", "model.norm=post"),
        ({"projection": True}, "As GPT-2 it would need model.projection=auto;", "model.projection=auto."),
    ],
    ids=str,
)
def test_a_form_that_no_class_has_is_refused(change: dict[str, Any], gpt2: str, bert: str) -> None:
    with pytest.raises(ForeignCheckpointError) as error:
        to_huggingface(moved(form(**GPT2 | change)))
    assert gpt2 in str(error.value)
    assert bert in str(error.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"norm": "pre"}, "model.norm=pre: transformers' ALBERT"),
        ({"embedding_norm": False}, "model.embedding_norm=false: "),
        ({"lm_head": "plain"}, "model.lm_head=plain: "),
        ({"norm": "pre", "lm_head": "plain"}, "model.norm=pre, model.lm_head=plain: "),
    ],
    ids=str,
)
def test_a_masked_model_with_a_switch_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ForeignCheckpointError, match=words):
        to_huggingface(moved(form(**change)))
    electra = build_electra(form(**change), form(**change), "embeddings", "replaced", 0)
    with pytest.raises(ForeignCheckpointError, match=words):
        generator_to_huggingface(electra)
    if "norm" in change:
        with pytest.raises(ForeignCheckpointError, match=r"model\.norm=pre: "):
            to_huggingface(electra)


def test_a_plain_head_that_nothing_trained_stays_behind() -> None:
    assert to_huggingface(moved(form(lm_head="plain")), masked_lm=False).architecture == "BertModel"


# --- GPT-2 in ---------------------------------------------------------------------------------------------


def gpt2(**other: Any) -> Any:
    """A random GPT-2 of transformers, every parameter away from its initial value."""
    sizes: dict[str, Any] = {"vocab_size": 97, "n_positions": 40, "n_embd": 48, "n_layer": 3, "n_head": 4}
    theirs = GPT2LMHeadModel(GPT2Config(**sizes | other, attn_implementation="eager")).eval()  # type: ignore[call-arg]
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=draw))
    return theirs


def taken(theirs: Any, tensors: dict[str, torch.Tensor] | None = None) -> tuple[Any, PretrainingModel]:
    """(what an import reads, the model that it describes)."""
    imported = from_huggingface(theirs.config.to_dict(), theirs.state_dict() if tensors is None else tensors)
    m, share = imported.settings["model"], imported.settings["share"]
    fields = {field.name for field in dataclasses.fields(Architecture)}
    shape = Architecture(
        vocab_size=imported.settings["tokenizer"]["vocab_size"], embedding_size=imported.settings["embed"]["size"],
        hidden_size=m["hidden"], intermediate_size=m["intermediate"], share=Share(share["strategy"]), type_vocab_size=0,
        pattern="causal", **{name: value for name, value in m.items() if name in fields and name != "projection"},
    )  # fmt: skip
    model = build_model(shape, 0, pooler=False).eval()
    model.load_state_dict(imported.tensors)
    return imported, model


@pytest.mark.parametrize(
    "settings", [{}, {"activation_function": "gelu", "n_inner": 80, "n_head": 2}, {"n_layer": 1}], ids=str
)
def test_a_gpt2_comes_in(settings: dict[str, Any]) -> None:
    theirs = gpt2(**settings)
    imported, model = taken(theirs)
    assert_causal(model, theirs, text())
    assert imported.settings["method"] == {"name": "causal", "token_types": False, "pooler": "trained"}
    assert imported.settings["objective"] == {"name": "none"}
    assert (imported.settings["model"]["norm"], imported.settings["model"]["hidden_dropout"]) == ("pre", 0.1)
    assert imported.settings["share"]["strategy"] == "none"
    assert (imported.missing, imported.left_out) == ((), ())


@pytest.mark.parametrize("share", list(Share))
def test_out_and_in_again_is_the_same_model(share: Share) -> None:
    """Equal blocks in every layer are one block again."""
    model = moved(form(share, **GPT2))
    found = to_huggingface(model)
    imported = from_huggingface(found.config, found.tensors)
    assert imported.settings["share"]["strategy"] == share.value
    state = model.state_dict()
    assert imported.tensors.keys() == state.keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in imported.tensors.items())


def test_files_of_older_versions() -> None:
    """Without the model's name, with the mask of each layer and the word table a second time."""
    theirs = gpt2()
    old = {name.removeprefix("transformer."): tensor for name, tensor in theirs.state_dict().items()}
    assert "lm_head.weight" in old
    for layer in range(3):
        old[f"h.{layer}.attn.bias"] = torch.ones(1, 1, 40, 40).tril()
        old[f"h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    assert_causal(taken(theirs, old)[1], theirs, text())


def test_the_head_of_a_task_is_left_out() -> None:
    theirs = GPT2ForSequenceClassification(gpt2().config)
    assert taken(theirs)[0].left_out == ("score.weight",)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"n_embd": 40}, r"transformer.wte.weight is \[97, 48\], but vocab_size=97 x n_embd=40"),
        ({"n_positions": 20}, r"transformer.wpe.weight is \[40, 48\], but n_positions=20"),
        ({"n_inner": 90}, r"h.0.mlp.c_fc.weight is \[48, 192\], but n_embd=48 x n_inner=90"),
        ({"n_head": 5}, "n_head is 5, which does not divide n_embd=48"),
        ({"n_layer": 4}, "missing: transformer.h.3"),
        ({"n_layer": 2}, "unknown: transformer.h.2"),
        ({"n_inner": "all"}, "n_inner is 'all'; a whole number or null is expected"),
        ({"activation_function": "relu"}, "activation_function is 'relu'; gelu, gelu_python"),
        ({"embd_pdrop": 0.0}, "embd_pdrop is 0.0 and resid_pdrop 0.1; a model here has one"),
        ({"resid_pdrop": 1.5}, "resid_pdrop is 1.5; a number from 0 to below 1"),
        ({"scale_attn_weights": False}, "scale_attn_weights is false; true is needed"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is true; false is needed"),
        ({"add_cross_attention": True}, "add_cross_attention is true; false is needed"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_with_the_file_s_names(values: dict[str, Any], words: str) -> None:
    theirs = gpt2()
    with pytest.raises(ForeignCheckpointError, match=words):
        from_huggingface(theirs.config.to_dict() | values, theirs.state_dict())


def test_an_output_matrix_of_its_own_is_refused() -> None:
    theirs = gpt2()
    state, described = theirs.state_dict(), theirs.config.to_dict()
    with pytest.raises(ForeignCheckpointError, match=r"lm_head\.weight differs from the word embeddings"):
        from_huggingface(described, state | {"lm_head.weight": state["lm_head.weight"] + 1})
    del state["lm_head.weight"]
    with pytest.raises(ForeignCheckpointError, match="tie_word_embeddings is false, but the checkpoint has no lm_head"):
        from_huggingface(described | {"tie_word_embeddings": False}, state)


@pytest.mark.parametrize("files", ["json", "pair"])
def test_a_byte_level_tokenizer_is_refused(files: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "in"
    gpt2().save_pretrained(folder)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    tokenizer.train_from_iterator(["a text"] * 5, trainers.BpeTrainer(vocab_size=97, show_progress=False))
    if files == "json":
        tokenizer.save(str(folder / "tokenizer.json"))
    else:
        tokenizer.model.save(str(folder))
    assert import_model([str(folder), str(tmp_path / "mine")]) == 2
    assert "a byte-level BPE, as in GPT-2. Its pieces are byte sequences" in capsys.readouterr().err
    assert not (tmp_path / "mine").exists()


# --- runs -------------------------------------------------------------------------------------------------


def test_a_causal_run_goes_out_and_comes_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out, back = run(tiny_config(tmp_path, *GPT2_RUN)).path, tmp_path / "out", tmp_path / "again" / "back"
    capsys.readouterr()
    assert export([str(folder), str(out)]) == 0
    assert f"{out}: GPT2LMHeadModel\n" in capsys.readouterr().out
    original = opened(folder)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(out).eval()
    tokenizer = AutoTokenizer.from_pretrained(out)
    ids = tokenizer("Bade fogo.", return_tensors="pt").input_ids
    assert ids[0, 0] == SEP
    assert not set(ids[0, 1:].tolist()) & {CLS, SEP}, "the text may go on"
    assert tokenizer("Bade", "fogo").input_ids.count(SEP) == 2
    assert_causal(original, theirs, ids)
    generated = theirs.generate(ids, max_new_tokens=3, do_sample=False)
    assert torch.equal(generated[:, : ids.shape[1]], ids)
    card = (out / "README.md").read_text()
    assert "tags: [albert-ablate, causal-lm]" in card
    assert "A text begins with [SEP], which stood before each document in training." in card
    assert "No masked-LM head" not in card
    for kept in (True, False):  # transformers saves only tokenizer.json
        if not kept:
            (out / "spiece.model").unlink()
            shutil.rmtree(back)
        assert import_model([str(out), str(back)]) == 0
        again = opened(back).state_dict()
        assert again.keys() == original.state_dict().keys()
        for name, tensor in original.state_dict().items():
            torch.testing.assert_close(again[name], tensor, atol=0, rtol=0, msg=name)
    config = compose_for_run(back / "config.yaml", [])
    assert (config.method.name.value, config.has_pooler, config.model.norm) == ("causal", False, "pre")
    manifest = read_json(back / "manifest.json")
    assert manifest["parameters"]["with_heads"] == theirs.num_parameters()
    assert export([str(back), str(tmp_path / "once more")]) == 0
    before, after = (load_file(place / "model.safetensors") for place in (out, tmp_path / "once more"))
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_a_causal_run_of_another_width_goes_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [word for word in GPT2_RUN if not word.startswith("embed")]
    folder, out = run(tiny_config(tmp_path, *words, "tokenizer=wordpiece")).path, tmp_path / "out"
    assert export([str(folder), str(out)]) == 0
    assert "OPTForCausalLM" in capsys.readouterr().out
    theirs, original = transformers.AutoModelForCausalLM.from_pretrained(out).eval(), opened(folder)
    vocabulary = (out / "vocab.txt").read_text().splitlines()
    assert vocabulary[theirs.config.bos_token_id] == "[SEP]"
    order = torch.from_numpy(row_order(read_vocabulary(out / "vocab.txt"), len(vocabulary), out))
    ids = torch.arange(5, 15)[None]
    with torch.no_grad():
        states = original.encoder.hidden_states(ids, torch.zeros_like(ids))[-1]
        logits = original.token_logits(states.flatten(0, 1))
        expected = theirs(order[ids]).logits[0]
    torch.testing.assert_close(logits, expected[:, order], atol=1e-5, rtol=0)
    record = read_json(folder / "results.json")["causal_lm"]
    card = (out / "README.md").read_text()
    assert f"| held-out bits per byte | {record['bits_per_byte']:.3f} (95% interval " in card
    assert "transformers' OPT has no dropout on the embedding" in card


def test_a_causal_run_on_pairs_reads_cls(tmp_path: Path) -> None:
    """So does its tokenizer in transformers."""
    words = [word for word in GPT2_RUN if "budget" not in word]
    config = tiny_config(tmp_path, *words, "method.blocks=pairs", "budget.steps=2", "budget.warmup_steps=1")
    assert export([str(run(config).path), str(tmp_path / "out")]) == 0
    ids = AutoTokenizer.from_pretrained(tmp_path / "out")("Bade fogo.").input_ids
    assert (ids[0], ids[-1]) == (CLS, SEP)
    assert read_json(tmp_path / "out" / "config.json")["bos_token_id"] == CLS
    assert "A text begins with [SEP]" not in (tmp_path / "out" / "README.md").read_text()


def test_a_causal_run_with_word_pieces(tmp_path: Path) -> None:
    """Rows of the word table are in the order of vocab.txt, and the ids of the separator with them."""
    folder = run(tiny_config(tmp_path, *GPT2_RUN, "tokenizer=wordpiece")).path
    assert export([str(folder), str(tmp_path / "out")]) == 0
    vocabulary = (tmp_path / "out" / "vocab.txt").read_text().splitlines()
    described = read_json(tmp_path / "out" / "config.json")
    assert vocabulary[described["bos_token_id"]] == vocabulary[described["eos_token_id"]] == "[SEP]"
    assert vocabulary[described["pad_token_id"]] == "[PAD]"
    assert "leave special tokens out" in (tmp_path / "out" / "README.md").read_text()
    assert import_model([str(tmp_path / "out"), str(tmp_path / "again" / "back")]) == 0
    ours, again = (opened(place).state_dict() for place in (folder, tmp_path / "again" / "back"))
    assert all(torch.equal(tensor, again[name]) for name, tensor in ours.items())


def test_a_masked_run_of_gpt2s_form_is_refused_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It trains, and an export says what does not fit."""
    config = tiny_config(tmp_path, *GPT2_RUN[1:])
    folder = run(config).path
    assert export([str(folder), str(tmp_path / "out")]) == 2
    assert "model.norm=pre, model.embedding_norm=false, model.lm_head=plain: " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    counts = read_json(folder / "manifest.json")["parameters"]
    assert counts["norm"] == 2 * config.model.hidden
    stored = load_file(next((folder / "checkpoints").glob("step_*")) / "model.safetensors")
    assert counts["with_heads"] == sum(tensor.numel() for tensor in stored.values())
