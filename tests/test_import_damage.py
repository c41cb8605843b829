"""Damaged and incomplete checkpoints: imported with the outputs that transformers gives, or refused in words."""

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_import import PIECES, albert, bert, change_config, imported, opened, spiece
from transformers import AlbertConfig, AutoModelForPreTraining, BertConfig, logging

from albert_ablate.commands.import_hf import main
from albert_ablate.interop.config_json import DEFAULTS
from albert_ablate.model.pretraining import PretrainingModel

__all__ = ["spiece"]  # a fixture

#: Ids of the test's BERT vocabulary in our order.
ORDER = [PIECES.index(piece) for piece in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")]
ORDER += [i for i in range(200) if i not in ORDER]
REMOVED = object()
VALUES = [
    REMOVED, None, "x", "48", True, False, -1, 0, 1, 2, 3, 5, 48, 200, 10**6, 10**18, 0.0, 0.3, 1.0, -0.5, 1e-5,
    math.nan, math.inf, [], [1], {}, {"a": 1}, "gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "relu", "absolute",
]  # fmt: skip
FIELDS = [
    "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "max_position_embeddings",
    "type_vocab_size", "vocab_size", "hidden_act", "hidden_dropout_prob", "attention_probs_dropout_prob",
    "layer_norm_eps", "initializer_range", "pad_token_id", "tie_word_embeddings", "model_type", "is_decoder",
    "add_cross_attention", "position_embedding_type", "pruned_heads", "quantization_config", "architectures",
    "classifier_dropout", "classifier_dropout_prob", "embedding_size", "num_hidden_groups", "inner_group_num",
]  # fmt: skip


@pytest.fixture(scope="module")
def whole(spiece: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An intact checkpoint of each kind; a smaller word list than transformers' default, so that defaults show."""
    place = tmp_path_factory.mktemp("whole")
    albert(spiece, place / "albert")
    bert(place / "bert")
    return {kind: place / kind for kind in ("albert", "bert")}


def copy(folder: Path, to: Path) -> Path:
    to.mkdir(parents=True)
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


def taken(folder: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> bool:
    """Whether it is imported; else it is refused with exit code 2, in words, and nothing is left."""
    capsys.readouterr()
    code = main([str(folder), str(out)])
    said = capsys.readouterr().err
    assert code in (0, 2), said
    if code == 2:
        assert said.strip()
        assert "Traceback" not in said
        assert not out.exists()
        assert not [path for path in out.parent.iterdir() if path.name.startswith(f".{out.name}")]
    return code == 0


@torch.no_grad()
def assert_as_transformers(model: PretrainingModel, folder: Path) -> None:
    """Logits of both heads, with transformers' own reading of the files."""
    theirs = AutoModelForPreTraining.from_pretrained(folder, attn_implementation="eager").eval()
    order = torch.tensor(ORDER) if theirs.config.model_type == "bert" else torch.arange(200)
    draw = torch.Generator().manual_seed(3)
    ids = torch.randint(0, 200, (2, 8), generator=draw)
    types = (torch.arange(8) > 3).long().expand(2, 8)
    expected = theirs(input_ids=order[ids], token_type_ids=types)
    states = model.encoder.hidden_states(ids, types, None)
    logits = model.mlm_head(states[-1], model.encoder.embedding.word.weight)
    torch.testing.assert_close(logits, expected.prediction_logits[:, :, order], atol=1e-5, rtol=0)
    sentence = model.sentence_head(model.pooler(states[-1]))
    other = expected.sop_logits if hasattr(expected, "sop_logits") else expected.seq_relationship_logits
    torch.testing.assert_close(sentence, other, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["albert", "bert"])
def test_two_hundred_edits_of_config_json(
    kind: str, whole: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half of them for each kind; every one that is taken gives what transformers gives."""
    logging.set_verbosity_error()
    draw = random.Random(f"edits of {kind}")
    edits = draw.sample([(field, value) for field in FIELDS for value in VALUES], 100)
    accepted = 0
    for number, (field, value) in enumerate(edits):
        folder = copy(whole[kind], tmp_path / f"in{number}")
        described = json.loads((folder / "config.json").read_text())
        described |= {field: value}
        (folder / "config.json").write_text(json.dumps({k: v for k, v in described.items() if v is not REMOVED}))
        out = tmp_path / f"out{number}"
        if taken(folder, out, capsys):
            accepted += 1
            model, _ = opened(out)
            assert_as_transformers(model, folder)
    assert 5 < accepted < 95


def without(folder: Path, *fields: str) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k not in fields}))


def change_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def indexed(folder: Path, index: Any, shards: bool = True) -> None:
    """The weights as one shard with this index; "good" in it stands for the right map."""
    tensors = load_file(folder / "model.safetensors")
    good = dict.fromkeys(tensors, "shard.safetensors")
    (folder / "model.safetensors").rename(folder / "shard.safetensors")
    text = index if isinstance(index, str) else json.dumps(index(good) if callable(index) else index)
    (folder / "model.safetensors.index.json").write_text(text)


def pickled(folder: Path, content: Any) -> None:
    (folder / "model.safetensors").unlink()
    if isinstance(content, bytes):
        (folder / "pytorch_model.bin").write_bytes(content)
    else:
        torch.save(content, folder / "pytorch_model.bin")


QUERY = "albert.encoder.albert_layer_groups.0.albert_layers.0.attention.query.weight"
REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "index without map": (lambda f: indexed(f, {"metadata": {}}), "no weight_map in it"),
    "index is no JSON": (lambda f: indexed(f, "{not json"), "index.json: not JSON"),
    "index is a list": (lambda f: indexed(f, [1]), "no weight_map in it"),
    "index nested": (lambda f: indexed(f, "[" * 100_000), "index.json: not JSON"),
    "index of numbers": (lambda f: indexed(f, {"weight_map": {"a": 1}}), "no weight_map in it"),
    "index names too much": (
        lambda f: indexed(f, lambda m: {"weight_map": m | {"a": "shard.safetensors"}}),
        "disagree on where a tensor is: a.",
    ),
    "index names too little": (
        lambda f: indexed(f, lambda m: {"weight_map": {k: v for k, v in m.items() if k != QUERY}}),
        f"disagree on where a tensor is: {QUERY}.",
    ),
    "empty .bin": (lambda f: pickled(f, b""), "not a readable weights file"),
    ".bin of a list": (lambda f: pickled(f, [torch.zeros(2)]), "does not hold tensors by name"),
    ".bin of numbers": (lambda f: pickled(f, {"a": 1}), "does not hold tensors by name"),
    ".bin by number": (lambda f: pickled(f, {1: torch.zeros(2)}), "does not hold tensors by name"),
    "layers null": (
        lambda f: change_config(f, num_hidden_layers=None),
        "num_hidden_layers is null; a whole number of 1 or more is expected",
    ),
    "no hidden_size": (lambda f: without(f, "hidden_size"), "has transformers' default: hidden_size=4096"),
    "no vocab_size": (lambda f: without(f, "vocab_size"), "has transformers' default: vocab_size=30000"),
    "no intermediate_size": (lambda f: without(f, "intermediate_size"), "intermediate_size=16384"),
    "no max_position_embeddings": (lambda f: without(f, "max_position_embeddings"), "max_position_embeddings=512"),
    "no num_attention_heads": (
        lambda f: without(f, "num_attention_heads"),
        "num_attention_heads is 64, which does not divide hidden_size=48",
    ),
    "empty config": (lambda f: (f / "config.json").write_text("{}"), "model_type is null"),
    "config of a list": (lambda f: (f / "config.json").write_text("[]"), "a JSON object is expected"),
    "config nested": (lambda f: (f / "config.json").write_text("[" * 100_000), "not JSON"),
    "config not UTF-8": (lambda f: (f / "config.json").write_bytes(b"\xff{}"), "not JSON"),
    "rounding of groups": (
        lambda f: change_config(f, num_hidden_layers=18, num_hidden_groups=14),
        "by transformers' rounding",
    ),
    "a billion layers": (lambda f: change_config(f, num_hidden_layers=10**9), "more than 1,000 layers"),
    "tokenizer settings": (
        lambda f: (f / "tokenizer_config.json").write_text('{"do_lower_case": "false"}'),
        "do_lower_case is 'false'; true or false is expected",
    ),
    "tokenizer of another class": (
        lambda f: (f / "tokenizer_config.json").write_text('{"tokenizer_class": "XLNetTokenizer"}'),
        "tokenizer_class is 'XLNetTokenizer'",
    ),
    "two tokenizers": (lambda f: (f / "vocab.txt").write_text("a"), "both spiece.model (SentencePiece) and vocab.txt"),
    "empty spiece.model": (lambda f: (f / "spiece.model").write_bytes(b""), "spiece.model"),
    "integer weights": (
        lambda f: change_tensors(f, lambda t: t.update({QUERY: t[QUERY].long()})),
        f"{QUERY} holds int64",
    ),
    "NaN": (
        lambda f: change_tensors(f, lambda t: t[QUERY][3, 4:6].fill_(math.nan)),
        f"weights that are not finite (NaN or infinite): {QUERY} (2 of 2,304)",
    ),
    "infinity": (
        lambda f: change_tensors(f, lambda t: t["predictions.bias"][:3].fill_(-math.inf)),
        "predictions.bias (3 of 200)",
    ),
    "infinite in fp32": (
        lambda f: change_tensors(f, lambda t: t.update({QUERY: t[QUERY].double() * 1e300})),
        f"{QUERY} (2,304 of 2,304)",
    ),
    "a tensor twice": (
        lambda f: change_tensors(
            f,
            lambda t: t.update(
                {"embeddings.word_embeddings.weight": t["albert.embeddings.word_embeddings.weight"].clone()}
            ),
        ),
        "holds albert.embeddings.word_embeddings.weight twice",
    ),
    "another decoder": (
        lambda f: change_tensors(f, lambda t: t.update({"predictions.decoder.weight": torch.ones(200, 16)})),
        "decoder.weight differs from the word embeddings",
    ),
    "untied without decoder": (
        lambda f: change_config(f, tie_word_embeddings=False),
        "the checkpoint has no predictions.decoder.weight",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_each_fault_is_refused_in_words(
    name: str, whole: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, words = REFUSED[name]
    folder = copy(whole["albert"], tmp_path / "in")
    spoil(folder)
    capsys.readouterr()
    assert main([str(folder), str(tmp_path / "out")]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def damaged(content: bytes, draw: random.Random) -> bytes:
    """Cut, with bytes changed, or with a piece of it repeated."""
    place = draw.randrange(len(content))
    kind = draw.randrange(3)
    if kind == 0:
        return content[:place]
    if kind == 1:
        spoiled = bytearray(content)
        for _ in range(draw.randint(1, 20)):
            spoiled[draw.randrange(min(len(spoiled), 4000))] = draw.randrange(256)
        return bytes(spoiled)
    return content[:place] + content[max(0, place - 50) :]


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "spiece.model"])
def test_damaged_bytes(name: str, whole: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is taken nevertheless, such as a changed weight, gives what transformers makes of the same bytes."""
    draw = random.Random(name)
    content = (whole["albert"] / name).read_bytes()
    refused = 0
    for number in range(15):
        folder = copy(whole["albert"], tmp_path / f"in{number}")
        (folder / name).write_bytes(damaged(content, draw))
        if taken(folder, tmp_path / f"out{number}", capsys):
            assert_as_transformers(opened(tmp_path / f"out{number}")[0], folder)
        else:
            refused += 1
    assert refused


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["albert", "bert"])
def test_the_decoders_bias_counts(kind: str, tied: bool, whole: dict[str, Path], tmp_path: Path) -> None:
    folder = copy(whole[kind], tmp_path / "in")
    head = "predictions" if kind == "albert" else "cls.predictions"
    table = f"{kind}.embeddings.word_embeddings.weight"

    def add(tensors: dict[str, torch.Tensor]) -> None:
        tensors[f"{head}.decoder.bias"] = tensors[f"{head}.bias"] + torch.randn(200)
        tensors[f"{head}.decoder.weight"] = tensors[table].clone()

    change_tensors(folder, add)
    change_config(folder, tie_word_embeddings=tied)
    model, _ = imported(folder, tmp_path / "out")
    assert_as_transformers(model, folder)


SHAPE = {
    "model_type", "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
    "max_position_embeddings", "embedding_size", "architectures",
}  # fmt: skip


@pytest.mark.parametrize(("kind", "dropout"), [("albert", 0.0), ("bert", 0.1)])
def test_fields_that_are_not_there_have_transformers_defaults(
    kind: str, dropout: float, whole: dict[str, Path], tmp_path: Path
) -> None:
    folder = copy(whole[kind], tmp_path / "in")
    without(folder, *(json.loads((folder / "config.json").read_text()).keys() - SHAPE))
    model, run = imported(folder, tmp_path / "out")
    assert_as_transformers(model, folder)
    assert (model.shape.hidden_dropout, model.shape.attention_dropout) == (dropout, dropout)
    assert model.shape.activation == ("gelu_tanh" if kind == "albert" else "gelu_erf")
    assert run.read("manifest.json")["imported"]["classifier_dropout"] == 0.1


def test_a_head_without_values_of_its_own_is_not_made_up(whole: dict[str, Path], tmp_path: Path) -> None:
    """Fine-tuned for a task: the encoder comes along, the task's head is left out and named."""
    folder = copy(whole["albert"], tmp_path / "in")
    change_tensors(
        folder, lambda t: t.update({"classifier.weight": torch.ones(3, 48), "classifier.bias": torch.ones(3)})
    )
    model, run = imported(folder, tmp_path / "out")
    assert run.read("manifest.json")["imported"]["left_out"] == ["classifier.bias", "classifier.weight"]
    assert_as_transformers(model, folder)


@pytest.mark.parametrize(("kind", "theirs"), [("albert", AlbertConfig()), ("bert", BertConfig())])
def test_the_table_of_defaults_is_that_of_transformers(kind: str, theirs: Any) -> None:
    assert {name: getattr(theirs, name) for name in DEFAULTS[kind]} == DEFAULTS[kind]
