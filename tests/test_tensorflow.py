"""ALBERT's TensorFlow release: a checkpoint in its layout, written by TensorFlow itself, read as a run."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_import import albert, assert_equal, imported, spiece
from transformers import AlbertForMaskedLM

from albert_ablate.commands.import_hf import main

tensorflow = pytest.importorskip("tensorflow")
__all__ = ["spiece"]  # a fixture

#: transformers' names -> the release's, in this order (from the documented variable names).
RENAMES = [
    (r"^albert\.", "bert."), (r"_embeddings\.weight$", "_embeddings"),
    (r"albert_layer_groups\.(\d+)\.albert_layers\.(\d+)", r"transformer.group_\1.inner_group_\2"),
    (r"attention\.LayerNorm", "LayerNorm"), (r"full_layer_layer_norm", "LayerNorm_1"),
    (r"attention\.dense", "attention_1.output.dense"), (r"attention\.(query|key|value)", r"attention_1.self.\1"),
    (r"\.ffn\.", ".ffn_1.intermediate.dense."), (r"\.ffn_output\.", ".ffn_1.intermediate.output.dense."),
    (r"bert\.pooler\.", "bert.pooler.dense."), (r"^predictions\.bias", "cls.predictions.output_bias"),
    (r"^predictions\.(dense|LayerNorm)", r"cls.predictions.transform.\1"),
    (r"^sop_classifier\.classifier\.weight", "cls.seq_relationship.output_weights"),
    (r"^sop_classifier\.classifier\.bias", "cls.seq_relationship.output_bias"),
    (r"(LayerNorm(_1)?)\.weight$", r"\1.gamma"), (r"(LayerNorm(_1)?)\.bias$", r"\1.beta"),
    (r"\.weight$", ".kernel"), (r"\.", "/"),
]  # fmt: skip


def release(theirs: Any, spiece: Path, folder: Path, checkpoint: str = "model.ckpt-best", **extra: Any) -> None:
    """``theirs`` as the release stores it: by TensorFlow's own saver, with an optimizer's slots."""
    variables = {}
    for name, tensor in theirs.state_dict().items():
        if name.endswith("position_ids") or "decoder" in name:
            continue
        if theirs.config.embedding_size == theirs.config.hidden_size and "embedding_hidden_mapping_in" in name:
            continue  # the released code has none there
        for pattern, words in RENAMES:
            name = re.sub(pattern, words, name)
        variables[name] = tensor.numpy().T if name.endswith("/kernel") else tensor.numpy()
    slots = {f"{name}/{slot}": np.zeros_like(v) for name, v in variables.items() for slot in ("adam_m", "adam_v")}
    variables |= slots | {"global_step": np.int64(125000)} | extra
    folder.mkdir(exist_ok=True)
    names, values = list(variables), [tensorflow.constant(value) for value in variables.values()]
    tensorflow.raw_ops.SaveV2(
        prefix=str(folder / checkpoint), tensor_names=names, shape_and_slices=[""] * len(names), tensors=values
    )
    shown = theirs.config.to_dict()
    kept = (
        "attention_probs_dropout_prob", "hidden_dropout_prob", "embedding_size", "hidden_size", "initializer_range",
        "intermediate_size", "max_position_embeddings", "num_attention_heads", "num_hidden_layers",
        "num_hidden_groups", "inner_group_num", "type_vocab_size", "vocab_size",
    )  # fmt: skip
    plain = {"hidden_act": "gelu", "net_structure_type": 0, "gap_size": 0, "num_memory_blocks": 0, "layers_to_keep": []}
    (folder / "albert_config.json").write_text(json.dumps({name: shown[name] for name in kept} | plain))
    (folder / "30k-clean.model").write_bytes(spiece.read_bytes())


@pytest.mark.parametrize(
    "change",
    [{}, {"num_hidden_groups": 2, "inner_group_num": 2}, {"embedding_size": 48}, {"num_hidden_groups": 4}],
    ids=str,
)
def test_a_release_folder(change: dict[str, Any], spiece: Path, tmp_path: Path) -> None:
    theirs = albert(spiece, tmp_path / "hf", **change)
    if "embedding_size" in change:
        mapping = theirs.albert.encoder.embedding_hidden_mapping_in
        mapping.weight.data, mapping.bias.data = mapping.weight.new_tensor(np.eye(48)), mapping.bias * 0
    release(theirs, spiece, tmp_path / "tf")
    model, folder = imported(tmp_path / "tf", tmp_path / "runs" / "mine")
    assert_equal(model, theirs)
    origin = folder.read("results.json")["imported"]
    assert origin["missing"] == []
    assert {"model.ckpt-best.index", "albert_config.json", "30k-clean.model"} < set(origin["files"])
    assert (folder.path / "spiece.model").read_bytes() == spiece.read_bytes()


def test_one_of_several_checkpoints_is_named_by_its_prefix(
    spiece: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = albert(spiece, tmp_path / "a"), albert(spiece, tmp_path / "b", AlbertForMaskedLM)
    release(first, spiece, tmp_path / "tf", "model.ckpt-100")
    release(second, spiece, tmp_path / "tf", "model.ckpt-200")
    assert main([str(tmp_path / "tf"), str(tmp_path / "mine")]) != 0
    assert f"Name one of them: {tmp_path / 'tf' / 'model.ckpt-100'}" in capsys.readouterr().err
    model, _ = imported(tmp_path / "tf" / "model.ckpt-100", tmp_path / "mine")
    assert_equal(model, first)
    imported(tmp_path / "tf" / "model.ckpt-200", tmp_path / "other")
    assert "random weights there" in capsys.readouterr().out  # it has no sentence head


def change_config(folder: Path, **values: Any) -> None:
    file = folder / "albert_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda f: (f / "albert_config.json").unlink(), "albert_config.json: not readable"),
        (lambda f: (f / "albert_config.json").write_text("{}"), "no vocab_size, embedding_size"),
        (lambda f: change_config(f, gap_size=2), "gap_size is 2"),
        (lambda f: change_config(f, hidden_act="relu"), "hidden_act is 'relu'"),
        (lambda f: change_config(f, num_hidden_groups=3), "missing: albert.encoder.albert_layer_groups.1"),
        (lambda f: (f / "30k-clean.model").unlink(), "no spiece.model"),
        (lambda f: (f / "model.ckpt-best.data-00000-of-00001").unlink(), "not a readable checkpoint"),
        (lambda f: (f / "model.ckpt-best.index").write_bytes(b"x" * 300), "not a readable checkpoint"),
    ],
)
def test_what_does_not_fit_is_refused(
    spoil: Any, words: str, spiece: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    release(albert(spiece, tmp_path / "hf"), spiece, tmp_path / "tf")
    spoil(tmp_path / "tf")
    assert main([str(tmp_path / "tf"), str(tmp_path / "mine")]) != 0
    assert words in capsys.readouterr().err
    assert not (tmp_path / "mine").exists()


def test_a_variable_of_another_model_is_refused(
    spiece: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other: dict[str, Any] = {"bert/encoder/layer_0/attention/self/query/kernel": np.zeros((48, 48), dtype=np.float32)}
    release(albert(spiece, tmp_path / "hf"), spiece, tmp_path / "tf", **other)
    assert main([str(tmp_path / "tf"), str(tmp_path / "mine")]) != 0
    assert "not ALBERT's: bert/encoder/layer_0/attention/self/query/kernel" in capsys.readouterr().err
