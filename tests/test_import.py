"""transformers' models as runs: the same outputs, the same tokens, and back again tensor by tensor."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from runhelpers import run, tiny_config
from safetensors.torch import load_file
from taskhelpers import write_race, write_squad, write_sst2
from test_huggingface_parity import inputs
from transformers import (
    AlbertConfig,
    AlbertForMaskedLM,
    AlbertForPreTraining,
    AlbertModel,
    AutoModelForPreTraining,
    BertConfig,
    BertForPreTraining,
    BertModel,
    BertTokenizer,
)

from albert_ablate.commands.export import main as export_command
from albert_ablate.commands.finetune import main as finetune
from albert_ablate.commands.import_hf import main
from albert_ablate.data.vocabulary import open_tokenizer, tokenizer_file
from albert_ablate.door.compose import compose_for_run
from albert_ablate.model.pretraining import PretrainingModel, build_model
from albert_ablate.record.folder import RunFolder
from albert_ablate.training.checkpoint import load_weights, newest

TOLERANCE = 1e-5
ALBERT = [
    {},
    {"num_hidden_groups": 2},
    {"num_hidden_groups": 3, "num_hidden_layers": 5},
    {"inner_group_num": 2},
    {"inner_group_num": 3, "num_hidden_groups": 2, "num_hidden_layers": 4},
    {"num_hidden_groups": 4, "num_hidden_layers": 4},
    {"embedding_size": 48, "hidden_act": "gelu"},
    {"num_attention_heads": 8, "type_vocab_size": 3, "layer_norm_eps": 1e-6},
    {"max_position_embeddings": 40, "hidden_act": "gelu_pytorch_tanh", "intermediate_size": 100},
    {"num_hidden_layers": 1, "hidden_act": "gelu_fast"},
    {"num_hidden_groups": 5, "num_hidden_layers": 5, "inner_group_num": 2},
    {"num_hidden_layers": 1, "inner_group_num": 3},
    {"num_hidden_groups": 4, "num_hidden_layers": 4, "classifier_dropout_prob": 0.3},
]
BERT = [
    {},
    {"hidden_act": "gelu_new", "type_vocab_size": 4, "num_attention_heads": 2},
    {"num_hidden_layers": 1, "classifier_dropout": 0.3},
]
#: What an export writes as it came in, besides the tensors.
KEPT = (
    "num_hidden_layers", "num_hidden_groups", "inner_group_num", "embedding_size", "hidden_dropout_prob",
    "attention_probs_dropout_prob", "classifier_dropout_prob", "layer_norm_eps", "initializer_range", "type_vocab_size",
    "max_position_embeddings", "architectures", "pad_token_id",
)  # fmt: skip


@pytest.fixture(scope="module")
def spiece(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SentencePiece model of 200 pieces."""
    return run(tiny_config(tmp_path_factory.mktemp("run"))).path / "spiece.model"


def common(**other: Any) -> dict[str, Any]:
    return {
        "vocab_size": 200, "hidden_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
        "intermediate_size": 96, "max_position_embeddings": 64, "initializer_range": 0.1,
        "attn_implementation": "eager", **other,
    }  # fmt: skip


def moved(model: torch.nn.Module) -> Any:
    """No tensor at its initial value: zero biases would hide a missing one."""
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=draw))
    return model.eval()


def albert(spiece: Path, folder: Path, kind: type = AlbertForPreTraining, **other: Any) -> Any:
    config = AlbertConfig(**common(**{"embedding_size": 16, "hidden_act": "gelu_new", **other}))
    model = moved(kind(config))
    model.save_pretrained(folder)
    (folder / "spiece.model").write_bytes(spiece.read_bytes())
    return model


PIECES = ["[PAD]", *(f"[unused{i}]" for i in range(3)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PIECES += [
    *"abcdefghijklmnopqrstuvwxyz",
    *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz"),
    ".",
    ",",
    "the",
    "##ing",
    "run",
]


def bert(folder: Path, kind: type = BertForPreTraining, **other: Any) -> Any:
    model = moved(kind(BertConfig(**common(**other))))
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    return model


def imported(folder: Path, out: Path) -> tuple[PretrainingModel, RunFolder]:
    assert main([str(folder), str(out)]) == 0
    return opened(out)


def opened(out: Path) -> tuple[PretrainingModel, RunFolder]:
    config = compose_for_run(out / "config.yaml", [])
    model = build_model(config.architecture(), 7)
    load_weights(newest(out / "checkpoints"), model)
    return model.eval(), RunFolder(out.parent, out.name)


@torch.no_grad()
def assert_equal(model: PretrainingModel, theirs: Any, order: torch.Tensor | None = None) -> None:
    """``order``: their id of each of ours, where the vocabulary was put in another order."""
    for batch, length in ((1, 3), (3, 17), (2, 33)):
        ids, types, mask = inputs(batch, length)
        expected = theirs(
            input_ids=ids if order is None else order[ids], token_type_ids=types, attention_mask=mask,
            output_hidden_states=True,
        )  # fmt: skip
        real = mask.bool()
        states = model.encoder.hidden_states(ids, types, mask)
        last = expected.hidden_states[-1]
        torch.testing.assert_close(states[-1][real], last[real], atol=TOLERANCE, rtol=0)
        torch.testing.assert_close(states[0][real], expected.hidden_states[0][real], atol=TOLERANCE, rtol=0)
        if "prediction_logits" in expected:
            logits = model.mlm_head(states[-1][real], model.encoder.embedding.word.weight)
            others = expected.prediction_logits[real]
            others = others if order is None else others[:, order]
            torch.testing.assert_close(logits, others, atol=TOLERANCE, rtol=0)
            sentence = model.sentence_head(model.pooler(states[-1]))
            other = expected.sop_logits if hasattr(expected, "sop_logits") else expected.seq_relationship_logits
            torch.testing.assert_close(sentence, other, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("change", ALBERT, ids=str)
def test_albert_in_and_out_again(change: dict[str, Any], spiece: Path, tmp_path: Path) -> None:
    theirs = albert(spiece, tmp_path / "in", **change)
    model, folder = imported(tmp_path / "in", tmp_path / "runs" / "mine")
    assert_equal(model, theirs)
    assert export_command([str(folder.path), str(tmp_path / "out")]) == 0
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("in", "out"))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=0, atol=0)
    described, written = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("in", "out"))
    assert {name: described.get(name) for name in KEPT} == {name: written.get(name) for name in KEPT}
    parameters = folder.read("manifest.json")["parameters"]
    assert parameters["with_heads"] == sum(p.numel() for p in model.parameters()) == theirs.num_parameters()


@pytest.mark.parametrize("change", BERT, ids=str)
def test_bert_with_its_vocabulary_in_our_order(change: dict[str, Any], tmp_path: Path) -> None:
    theirs = bert(tmp_path / "in", **change)
    model, folder = imported(tmp_path / "in", tmp_path / "mine")
    config = compose_for_run(folder.path / "config.yaml", [])
    tokenizer = open_tokenizer(tokenizer_file(folder.path), config.tokenizer)
    reference = BertTokenizer(str(tmp_path / "in" / "vocab.txt"))
    order = torch.tensor([PIECES.index(p) for p in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")])
    order = torch.cat([order, torch.tensor([i for i in range(200) if i not in order])])
    assert_equal(model, theirs, order)
    text = "The running Ünrun, abc; 漢 xyz."
    (ids,) = tokenizer.encode([text])
    assert order[torch.tensor(ids)].tolist() == reference(text, add_special_tokens=False)["input_ids"]
    (places,) = tokenizer.encode_with_offsets([text])
    assert [i for i, _, _ in places] == ids
    assert text[places[1][1] : places[1][2]] == "run"
    assert export_command([str(folder.path), str(tmp_path / "out")]) == 0
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("in", "out"))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=0, atol=0)
    kept: dict[str, Any] = {"attn_implementation": "eager", "output_loading_info": True}
    loaded: Any = BertForPreTraining.from_pretrained(tmp_path / "out", **kept)
    again, info = loaded
    assert not any(info.values()), info
    assert again.config.pad_token_id == 0
    given = theirs.config.classifier_dropout
    assert again.config.classifier_dropout == (theirs.config.hidden_dropout_prob if given is None else given)
    assert BertTokenizer.from_pretrained(tmp_path / "out")(text)["input_ids"] == reference(text)["input_ids"]
    starts = [str(reference.convert_ids_to_tokens(int(order[i]))) for i in ids if not tokenizer.word_starts[i]]
    assert starts
    assert all(piece.startswith("##") for piece in starts)
    assert config.objective.name.value == "nsp"


def test_groups_that_happen_to_be_equal_go_out_as_they_came(spiece: Path, tmp_path: Path) -> None:
    """Here they are one; there they keep their names."""
    theirs = albert(spiece, tmp_path / "in", num_hidden_groups=4)
    groups = theirs.albert.encoder.albert_layer_groups
    for group in groups[1:]:
        group.load_state_dict(groups[0].state_dict())
    theirs.save_pretrained(tmp_path / "in")
    model, folder = imported(tmp_path / "in", tmp_path / "mine")
    assert model.shape.share.value == "all"
    assert_equal(model, theirs)
    assert export_command([str(folder.path), str(tmp_path / "out")]) == 0
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("in", "out"))
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_albert_stays_albert_without_a_projection_of_its_own(spiece: Path, tmp_path: Path) -> None:
    """E = H, the identity as projection, nothing shared: here that is BERT's shape."""
    theirs = albert(spiece, tmp_path / "in", embedding_size=48, num_hidden_groups=4)
    mapping = theirs.albert.encoder.embedding_hidden_mapping_in
    with torch.no_grad():
        mapping.weight.copy_(torch.eye(48))
        mapping.bias.zero_()
    theirs.save_pretrained(tmp_path / "in")
    model, folder = imported(tmp_path / "in", tmp_path / "mine")
    assert not model.shape.has_projection
    assert export_command([str(folder.path), str(tmp_path / "out")]) == 0
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("in", "out"))
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize("objective", ["sop", "nsp", "none"])
@pytest.mark.parametrize("size", [16, 32])
@pytest.mark.parametrize("share", ["all", "attention", "ffn", "none"])
def test_every_cell_goes_out_and_comes_back_as_it_was(share: str, size: int, objective: str, tmp_path: Path) -> None:
    axes = (f"share={share}", f"embed.size={size}", f"objective={objective}")
    config = tiny_config(tmp_path, *axes, "model.layers=3", "model.max_positions=64")
    folder = run(config)
    assert export_command([str(folder.path), str(tmp_path / "out")]) == 0
    model, again = imported(tmp_path / "out", tmp_path / "back")
    assert model.shape.share.value == share
    assert model.shape.has_projection == (size != 32)
    original = build_model(config.architecture(), 0)
    load_weights(newest(folder.path / "checkpoints"), original)
    for name, tensor in original.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], tensor, rtol=0, atol=0)
    assert_equal(original.eval(), AutoModelForPreTraining.from_pretrained(tmp_path / "out"))
    assert again.state() == "finished"


@pytest.mark.parametrize(
    ("kind", "missing"), [(AlbertModel, {"masked-LM head", "sentence head"}), (AlbertForMaskedLM, {"sentence head"})]
)
def test_a_checkpoint_without_heads(
    kind: type, missing: set[str], spiece: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = albert(spiece, tmp_path / "in", kind)
    model, folder = imported(tmp_path / "in", tmp_path / "mine")
    assert missing <= set(folder.read("results.json")["imported"]["missing"])
    assert "random weights there" in capsys.readouterr().out
    assert_equal(model, theirs)


def test_bin_files_and_old_names(tmp_path: Path) -> None:
    theirs = bert(tmp_path / "in", BertModel)
    state = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in theirs.state_dict().items()
    }
    (tmp_path / "in" / "model.safetensors").unlink()
    torch.save(state | {"embeddings.position_ids": torch.arange(64)}, tmp_path / "in" / "pytorch_model.bin")
    model, _ = imported(tmp_path / "in", tmp_path / "mine")
    order = torch.tensor([0, 4, 5, 6, 7, 1, 2, 3, *range(8, 200)])
    assert_equal(model, theirs, order)


def test_shards(spiece: Path, tmp_path: Path) -> None:
    theirs = albert(spiece, tmp_path / "in")
    theirs.save_pretrained(tmp_path / "in", max_shard_size="20KB")
    (tmp_path / "in" / "model.safetensors").unlink(missing_ok=True)
    assert (tmp_path / "in" / "model.safetensors.index.json").is_file()
    model, _ = imported(tmp_path / "in", tmp_path / "mine")
    assert_equal(model, theirs)


class Malicious:
    def __reduce__(self) -> Any:
        return os.mkdir, ("pwned",)


def change_config(folder: Path, **values: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda f: change_config(f, model_type="roberta"), "model_type is 'roberta'"),
        (lambda f: change_config(f, hidden_act="relu"), "hidden_act is 'relu'"),
        (lambda f: change_config(f, position_embedding_type="relative_key"), "position_embedding_type"),
        (lambda f: change_config(f, num_hidden_groups=2), "missing: albert.encoder.albert_layer_groups.1"),
        (
            lambda f: change_config(f, intermediate_size=95),
            "ffn.weight is [96, 48], but intermediate_size=95 x hidden_size=48",
        ),
        (lambda f: (f / "config.json").unlink(), "no config.json"),
        (lambda f: (f / "config.json").write_text("["), "not JSON"),
        (lambda f: (f / "spiece.model").unlink(), "no spiece.model"),
        (lambda f: (f / "model.safetensors").write_bytes(b"x" * 100), "not a readable weights file"),
        (lambda f: (f / "model.safetensors").unlink(), "neither model.safetensors nor pytorch_model.bin"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_name(
    spoil: Any, words: str, spiece: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    albert(spiece, tmp_path / "in")
    spoil(tmp_path / "in")
    assert main([str(tmp_path / "in"), str(tmp_path / "mine")]) != 0
    assert words in capsys.readouterr().err
    assert not (tmp_path / "mine").exists()


def test_a_pickle_with_code_is_never_run(
    spiece: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    albert(spiece, tmp_path / "in")
    (tmp_path / "in" / "model.safetensors").unlink()
    torch.save({"x": Malicious()}, tmp_path / "in" / "pytorch_model.bin")
    assert main([str(tmp_path / "in"), str(tmp_path / "mine")]) != 0
    assert "not a readable weights file" in capsys.readouterr().err
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("kind", ["albert", "bert"])
def test_every_kind_of_task_runs_with_the_tokenizer_that_came_along(kind: str, spiece: Path, tmp_path: Path) -> None:
    _ = albert(spiece, tmp_path / "in") if kind == "albert" else bert(tmp_path / "in")
    _, folder = imported(tmp_path / "in", tmp_path / "runs" / "mine")
    for write in (write_sst2, write_squad, write_race):
        write(tmp_path / "data")
    write_squad(tmp_path / "data", "2.0")
    lengths = [f"tasks.{name}.max_length=64" for name in ("sst2", "race", "squad11", "squad20")]
    lengths += [f"tasks.{name}.{part}" for name in ("squad11", "squad20") for part in ("max_query=24", "stride=16")]
    words = ["task=[sst2,squad11,squad20,race]", f"task.data_dir={tmp_path / 'data'}", *lengths, "task.evaluations=2"]
    assert finetune([str(folder.path), *words]) == 0
    entries = folder.read("results.json")["tasks"]
    assert [entry["task"] for entry in entries] == ["race", "squad11", "squad20", "sst2"]
    predicted = json.loads(next(folder.path.glob("**/squad11*/predictions/predictions.json")).read_text())
    contexts = (tmp_path / "data" / "dev-v1.1.json").read_text()
    assert predicted
    assert all(text in contexts for text in predicted.values())


def test_a_name_on_the_hub(spiece: Path, tmp_path: Path) -> None:
    """Offline, the hub's client answers from its cache; a name that it does not have is answered in words."""
    theirs = albert(spiece, tmp_path / "in")
    stored = tmp_path / "cache" / "models--someone--albert-tiny"
    (stored / "snapshots").mkdir(parents=True)
    (tmp_path / "in").rename(stored / "snapshots" / ("a" * 40))
    (stored / "refs").mkdir()
    (stored / "refs" / "main").write_text("a" * 40)
    offline = os.environ | {"HF_HUB_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    results = {}
    for name in ("someone/albert-tiny", "someone/else"):
        words = [sys.executable, "-m", "albert_ablate.import_hf", name, str(tmp_path / Path(name).name)]
        results[name] = subprocess.run(words, env=offline, capture_output=True, text=True)
    assert results["someone/albert-tiny"].returncode == 0, results
    found = RunFolder(tmp_path, "albert-tiny")
    assert found.read("results.json")["imported"]["from"] == "someone/albert-tiny"
    config = compose_for_run(found.path / "config.yaml", [])
    model = build_model(config.architecture(), 0)
    load_weights(newest(found.path / "checkpoints"), model)
    assert_equal(model.eval(), theirs)
    assert results["someone/else"].returncode == 2
    assert "no such folder, and the hub gave nothing" in results["someone/else"].stderr
    assert "Traceback" not in results["someone/else"].stderr
