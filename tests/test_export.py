"""Exported arms in transformers: the same logits, hidden states and tokens."""

import dataclasses
import json
import os
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from runhelpers import run, tiny_config
from safetensors.torch import load_file, save_file
from test_huggingface_parity import SHAPES, architecture, assert_equal, ours
from transformers import AlbertForPreTraining, AutoModel, AutoModelForPreTraining, AutoTokenizer

from albert_ablate.axes import Share
from albert_ablate.commands.export import main
from albert_ablate.commands.export_folder import tokenizer_settings
from albert_ablate.data.prepare import prepare_data
from albert_ablate.data.text import sentences_of
from albert_ablate.data.tokenizer import Tokenizer, clean
from albert_ablate.data.vocabulary import open_tokenizer
from albert_ablate.door.compose import compose
from albert_ablate.files import read_json, sha256_file
from albert_ablate.interop.huggingface import to_huggingface
from albert_ablate.interop.tokenizer_json import tokenizer_json
from albert_ablate.interop.tokenizer_read import find_tokenizer
from albert_ablate.model.pretraining import PretrainingModel, build_model
from albert_ablate.training.checkpoint import load_weights, newest

HIDDEN = 48
CLASSES = {(Share.ALL, 16): "AlbertForPreTraining", (Share.NONE, HIDDEN): "BertForPreTraining"}


def loaded(model: PretrainingModel, folder: Path) -> Any:
    """Through the files, as a user does."""
    found = to_huggingface(model)
    folder.mkdir()
    save_file(found.tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({"architectures": [found.architecture], **found.config}))
    theirs, info = AutoModelForPreTraining.from_pretrained(
        folder, attn_implementation="eager", output_loading_info=True
    )
    assert not any(info.values()), info
    assert type(theirs).__name__ == found.architecture
    return theirs.eval()


@pytest.mark.parametrize("embedding", [16, HIDDEN])
@pytest.mark.parametrize("share", list(Share))
def test_every_arm_gives_equal_outputs(share: Share, embedding: int, tmp_path: Path) -> None:
    model = ours(architecture(share, embedding))
    theirs = loaded(model, tmp_path / "out")
    if (share, embedding) in CLASSES:
        assert type(theirs).__name__ == CLASSES[share, embedding]
    for batch, length in SHAPES:
        assert_equal(model, theirs, batch, length)


@pytest.mark.parametrize(("share", "groups"), [(Share.ALL, 3), (Share.ALL, 4), (Share.ATTENTION, 2), (Share.FFN, 3)])
def test_groups_too(share: Share, groups: int, tmp_path: Path) -> None:
    model = ours(architecture(share, 16, groups=groups, activation="gelu_erf", type_vocab_size=3, layer_norm_eps=1e-6))
    theirs = loaded(model, tmp_path / "out")
    assert_equal(model, theirs, 3, 17)
    assert theirs.config.num_hidden_groups == (groups if share is Share.ALL else 6)


def test_groups_that_transformers_rounds_otherwise_are_repeated(tmp_path: Path) -> None:
    """18 layers in 14 groups: by its floats the tenth layer falls into the seventh group, here into the eighth."""
    model = ours(dataclasses.replace(architecture(Share.ALL, 16, groups=14), layers=18))
    theirs = loaded(model, tmp_path / "out")
    assert theirs.config.num_hidden_groups == 18
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        expected = theirs(input_ids=ids).prediction_logits
        states = model.encoder.hidden_states(ids, torch.zeros_like(ids), None)
        logits = model.mlm_head(states[-1], model.encoder.embedding.word.weight)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)


def test_weights_that_are_not_finite_are_named_and_not_exported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(tiny_config(tmp_path, "budget.steps=2", "budget.warmup_steps=1"))
    step = newest(folder.checkpoints)
    tensors = load_file(step / "model.safetensors")
    tensors["mlm_head.bias"][7] = float("nan")
    save_file(tensors, step / "model.safetensors")
    meta = read_json(step / "meta.json")
    meta["sha256"]["model.safetensors"] = sha256_file(step / "model.safetensors")
    (step / "meta.json").write_text(json.dumps(meta))
    assert main([str(folder.path), str(tmp_path / "out")]) == 2
    assert "weights that are not finite (NaN or infinite): mlm_head.bias (1 of 200)" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_shared_arm_is_as_small_there_as_here(tmp_path: Path) -> None:
    model = ours(architecture(Share.ALL, 16))
    theirs = loaded(model, tmp_path / "out")
    assert theirs.num_parameters() == sum(p.numel() for p in model.parameters())


def test_shared_blocks_are_repeated_where_transformers_cannot_share() -> None:
    assert not to_huggingface(ours(architecture(Share.ALL, 16))).unrolled
    found = to_huggingface(ours(architecture(Share.FFN, 16)))
    assert found.unrolled
    names = [f"albert.encoder.albert_layer_groups.{i}.albert_layers.0.ffn.weight" for i in (0, 5)]
    torch.testing.assert_close(found.tensors[names[0]], found.tensors[names[1]], rtol=0, atol=0)


@pytest.mark.parametrize("objective", ["sop", "nsp", "none"])
def test_a_run_becomes_a_folder_that_transformers_loads(
    objective: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(tiny_config(tmp_path, f"objective={objective}", "share=all"))
    out = tmp_path / "deep" / "out"
    assert main([str(folder.path), str(out)]) == 0
    assert "AlbertForPreTraining" in capsys.readouterr().out
    theirs = AlbertForPreTraining.from_pretrained(out, attn_implementation="eager").eval()
    config = tiny_config(tmp_path, f"objective={objective}", "share=all")
    model = build_model(config.architecture(), 0)
    load_weights(max((folder.path / "checkpoints").glob("step_*")), model)
    model.eval()
    text = "Bade fogo. Kanse bade?"
    tokenizer = AutoTokenizer.from_pretrained(out)
    encoded = tokenizer(text, return_tensors="pt")
    own = Tokenizer(folder.path / "spiece.model", config.tokenizer)
    assert encoded["input_ids"][0, 1:-1].tolist() == own.encode([text])[0]
    pair = tokenizer("Bade fogo.", "Kanse bade?", return_tensors="pt")
    assert sorted(set(pair["token_type_ids"][0].tolist())) == [0, 1]
    with torch.no_grad():
        expected = theirs(**pair)
        states = model.encoder.hidden_states(pair["input_ids"], pair["token_type_ids"], None)
        sentence = model.sentence_head(model.pooler(states[-1]))
    torch.testing.assert_close(sentence, expected.sop_logits, atol=1e-5, rtol=0)
    card = (out / "README.md").read_text()
    assert folder.name in card
    assert ("No sentence objective" in card) == (objective == "none")
    assert "Sentence label 0: the second segment follows the first; 1: swapped (SOP) or random (NSP)." in card
    assert read_json(out / "provenance.json")["identity"] == folder.identity
    assert AutoModel.from_pretrained(out).config.model_type == "albert"
    assert not list(out.parent.glob(".out*"))


def test_what_cannot_be_exported_is_refused_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), str(tmp_path / "out")]) == 2
    assert "no run folder" in capsys.readouterr().err
    folder = run(tiny_config(tmp_path)).path
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").touch()
    assert main([str(folder), str(tmp_path / "there")]) == 2
    assert "exists already and is not empty" in capsys.readouterr().err
    (folder / "spiece.model").unlink()
    assert main([str(folder), str(tmp_path / "out")]) == 2
    assert "tokenizer cannot be exported" in capsys.readouterr().err


def test_files_hold_every_tensor_once(tmp_path: Path) -> None:
    folder = run(tiny_config(tmp_path, "share=none", "embed.size=32")).path
    assert main([str(folder), str(tmp_path / "out")]) == 0
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    assert not [name for name in tensors if "decoder" in name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        AutoModelForPreTraining.from_pretrained(tmp_path / "out")


@pytest.mark.data
@pytest.mark.skipif("ALBERT_ABLATE_DATA" not in os.environ, reason="ALBERT_ABLATE_DATA is not set")
def test_tokens_are_those_of_training_on_real_text(tmp_path: Path) -> None:
    """The exported folder, its file alone and sentencepiece against ours, on encyclopedia articles."""
    file = Path(os.environ["ALBERT_ABLATE_DATA"]) / "corpus-small" / "wiki-small-valid.jsonl.xz"
    config = compose(["data=text", f"data.path={file}", "tokenizer.vocab_size=2000", f"paths.cache={tmp_path}"])
    prepared = prepare_data(config)
    sentences = [s for path in (tmp_path / "text").glob("*/*.txt") for s in sentences_of(path)]
    sentences += ['Hindī (Devanagari: हिन्दी), "naïve" (café) £5 – 2000.', "ಕುಟ್ಟೋ ಕಲ್ಲು"]
    (tmp_path / "out").mkdir()
    values = tokenizer_json(prepared.tokenizer.path, config.tokenizer)
    (tmp_path / "out" / "tokenizer.json").write_text(json.dumps(values))
    (tmp_path / "out" / "config.json").write_text('{"model_type": "albert"}')
    (tmp_path / "out" / "tokenizer_config.json").write_text(json.dumps(tokenizer_settings(config)))
    ours_ = prepared.tokenizer.encode(sentences)
    plain = prepared.tokenizer.pieces.encode([clean(s, True, True) for s in sentences])
    commas = {s for s, a, b in zip(sentences, ours_, plain, strict=True) if a != b}
    assert all(re.search(r"\d,", sentence) for sentence in commas)
    assert len(commas) < len(sentences) / 20
    folder = AutoTokenizer.from_pretrained(tmp_path / "out")(sentences, add_special_tokens=False)["input_ids"]
    AutoTokenizer.from_pretrained(tmp_path / "out").save_pretrained(tmp_path / "saved")
    found = find_tokenizer(tmp_path / "saved", {}, tmp_path / "out")
    assert open_tokenizer(found.file, config.tokenizer).encode(sentences) == ours_, "and back again"
    file_alone = tokenizers.Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    alone = [found.ids for found in file_alone.encode_batch_fast(sentences, add_special_tokens=False)]
    for name, theirs in (("AutoTokenizer", folder), ("tokenizer.json", alone)):
        different = [s for s, a, b in zip(sentences, ours_, theirs, strict=True) if a != b and s not in commas]
        print(
            f"{name}: {len(different)} of {len(sentences)} sentences differ, and {len(commas)} in pieces such as '3,'"
        )
        assert not different


def test_the_run_folder_that_one_stands_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``export .`` names the run, also below a folder with an equals sign; and it fills an empty folder in place."""
    folder = run(tiny_config(tmp_path, 'paths.runs="' + str(tmp_path / "lr=0.1") + '"'))
    out = tmp_path / "out=1"
    out.mkdir()
    kept = out.stat().st_ino
    monkeypatch.chdir(folder.path)
    assert main([".", str(out)]) == 0
    assert out.stat().st_ino == kept
    assert f"# {folder.name}\n" in (out / "README.md").read_text()
    assert read_json(out / "provenance.json")["run"] == folder.name
    assert not [path for path in out.iterdir() if path.name.startswith(".")]
