"""ELECTRA against transformers: both networks and their losses, and runs that go out and come in."""

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
from test_huggingface_parity import HIDDEN, architecture, inputs
from test_import import PIECES, change_config, common, moved
from transformers import (
    AutoModelForPreTraining,
    AutoTokenizer,
    ElectraConfig,
    ElectraForMaskedLM,
    ElectraForPreTraining,
    ElectraForSequenceClassification,
    ElectraModel,
)

from albert_ablate.axes import Share
from albert_ablate.commands.evaluate import main as evaluate
from albert_ablate.commands.export import main as export
from albert_ablate.commands.finetune import main as finetune
from albert_ablate.commands.import_hf import main as import_model
from albert_ablate.data.batches import Batch
from albert_ablate.door.compose import compose_for_run
from albert_ablate.errors import ForeignCheckpointError
from albert_ablate.files import read_json
from albert_ablate.interop.exported import Exported
from albert_ablate.interop.huggingface import generator_to_huggingface, to_huggingface
from albert_ablate.methods import method_of
from albert_ablate.model import electra
from albert_ablate.model.architecture import Architecture
from albert_ablate.model.generator import generator_shape
from albert_ablate.record.folder import RunFolder
from albert_ablate.training.checkpoint import load_weights, newest
from analysis.similarity import measure

TOLERANCE = 1e-5


def ours(shape: Architecture, head: electra.Head = "replaced", tie: str = "embeddings") -> electra.ElectraModel:
    """Every parameter away from its initial value: zero biases would hide a missing one."""
    return moved(electra.build_electra(shape, generator_shape(shape, 0.5, 0.5), tie, head, seed=3))


def loaded(found: Exported | None, folder: Path) -> Any:
    """Through the files, as a user does; no tensor is missing, unknown or drawn anew."""
    assert found is not None
    folder.mkdir()
    save_file(found.tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({"architectures": [found.architecture], **found.config}))
    theirs, info = getattr(transformers, found.architecture).from_pretrained(
        folder, attn_implementation="eager", output_loading_info=True
    )
    assert not any(info.values()), info
    return theirs.eval()


def opened(folder: Path) -> Any:
    """The model of a run, in evaluation mode."""
    model = method_of(compose_for_run(folder / "config.yaml", [])).build({})
    load_weights(newest(folder / "checkpoints"), model)
    return model.eval()


def places(mask: torch.Tensor) -> torch.Tensor:
    """Indices of every third real token of the grid."""
    return mask.flatten().nonzero()[::3, 0]


def order_of(folder: Path) -> torch.Tensor:
    """Their id of each of ours; a run keeps the vocabulary in the order of the file."""
    first = [PIECES.index(piece) for piece in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")]
    size = compose_for_run(folder / "config.yaml", []).tokenizer.vocab_size
    return torch.tensor([*first, *(i for i in range(size) if i not in first)])


@torch.no_grad()
def assert_discriminator(model: Any, theirs: Any, order: torch.Tensor | None = None) -> None:
    """Equal logits at all real positions, and the mean of binary cross-entropies over them."""
    for batch, length in ((1, 5), (3, 17)):
        ids, types, mask = inputs(batch, length)
        labels = (ids % 3 == 0).long()
        words = ids if order is None else order[ids]
        expected = theirs(input_ids=words, token_type_ids=types, attention_mask=mask, labels=labels)
        real = mask.bool()
        logits = model.replaced_logits(model.encoder(ids, types, mask))
        torch.testing.assert_close(logits[real], expected.logits[real], atol=TOLERANCE, rtol=0)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits[real], labels[real].float())
        torch.testing.assert_close(loss, expected.loss, atol=TOLERANCE, rtol=0)


@torch.no_grad()
def assert_generator(model: Any, theirs: Any, order: torch.Tensor | None = None) -> None:
    """Equal logits and mean cross-entropy at the masked positions of an encoder with a masked-LM head."""
    ids, types, mask = inputs(3, 17)
    where = places(mask)
    targets = torch.arange(len(where)) + 5
    order = torch.arange(len(model.mlm_head.bias)) if order is None else order
    labels = torch.full((ids.numel(),), -100).scatter(0, where, order[targets])
    expected = theirs(input_ids=order[ids], token_type_ids=types, attention_mask=mask, labels=labels.view_as(ids))
    states = model.encoder(ids, types, mask, rows=where)
    table = model.encoder.embedding.word.weight
    torch.testing.assert_close(
        model.mlm_head(states, table), expected.logits.flatten(0, 1)[where][:, order], atol=TOLERANCE, rtol=0
    )
    loss, _ = model.mlm_head.loss(states, table, targets)
    torch.testing.assert_close(loss / len(where), expected.loss, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("tie", ["embeddings", "none"])
@pytest.mark.parametrize("activation", ["gelu_erf", "gelu_tanh"])
@pytest.mark.parametrize("embedding", [16, HIDDEN // 2, HIDDEN])
def test_both_networks_give_transformers_outputs(embedding: int, activation: str, tie: str, tmp_path: Path) -> None:
    """Widths below, at and above the generator's; its head has the erf GELU in transformers' ELECTRA."""
    model = ours(architecture(Share.NONE, embedding, activation=activation), tie=tie)
    theirs = loaded(to_huggingface(model), tmp_path / "d")
    assert isinstance(theirs, ElectraForPreTraining)
    assert hasattr(theirs.electra, "embeddings_project") == (embedding != HIDDEN)
    assert_discriminator(model, theirs)
    other = loaded(generator_to_huggingface(model), tmp_path / "g")
    plain = "BertForMaskedLM" if embedding == HIDDEN // 2 else "AlbertForMaskedLM"
    assert type(other).__name__ == ("ElectraForMaskedLM" if activation == "gelu_erf" else plain)
    assert_generator(model.generator, other)


@pytest.mark.parametrize(("share", "compact"), [(Share.ALL, True), (Share.ATTENTION, False)])
def test_shared_blocks_are_repeated_for_the_discriminator(share: Share, compact: bool, tmp_path: Path) -> None:
    model = ours(architecture(share, 16, activation="gelu_erf"))
    found, generator = to_huggingface(model), generator_to_huggingface(model)
    assert generator is not None
    assert found.unrolled
    assert generator.unrolled != compact
    assert found.left_out == ("pooler", "sentence head")
    assert_discriminator(model, loaded(found, tmp_path / "d"))
    assert_generator(model.generator, loaded(generator, tmp_path / "g"))


@pytest.mark.parametrize(("head", "left_out"), [("masked", ()), ("all", ("copy gate",))])
def test_relatives_with_a_masked_lm_head_go_out_like_masked_lm(
    head: electra.Head, left_out: tuple[str, ...], tmp_path: Path
) -> None:
    model = ours(architecture(Share.ALL, 16), head)
    found = to_huggingface(model)
    assert (found.architecture, found.left_out) == ("AlbertForPreTraining", left_out)
    theirs = loaded(found, tmp_path / "out")
    ids, types, mask = inputs(3, 17)
    with torch.no_grad():
        expected = theirs(input_ids=ids, token_type_ids=types, attention_mask=mask)
        states = model.encoder(ids, types, mask)
        logits = model.mlm_head(states[mask.bool()], model.encoder.embedding.word.weight)
    torch.testing.assert_close(logits, expected.prediction_logits[mask.bool()], atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(model.sentence_logits(states), expected.sop_logits, atol=TOLERANCE, rtol=0)


def test_loss_and_gradients_are_those_of_both_networks_with_one_embedding(tmp_path: Path) -> None:
    """Masked LM plus 50 times the replaced tokens, on the same corrupted text; the tables get both gradients."""
    words = (
        "method=electra",
        "share=none",
        "objective=none",
        "model.activation=gelu_erf",
        "method.generator_width=0.5",
    )
    method = method_of(tiny_config(tmp_path, *words))
    model: Any = moved(method.build({}))
    discriminator = loaded(to_huggingface(model), tmp_path / "d")
    generator = loaded(generator_to_huggingface(model), tmp_path / "g")
    generator.electra.embeddings = discriminator.electra.embeddings
    generator.generator_lm_head.weight = discriminator.electra.embeddings.word_embeddings.weight
    ids, types, mask = inputs(3, 17)
    where = places(mask)
    targets = ids.flatten()[where]
    masked = ids.flatten().scatter(0, where, 4).view_as(ids)
    draws = torch.rand(len(where), generator=torch.Generator().manual_seed(2))
    batch = Batch(masked, types, mask.bool(), where, targets, torch.zeros(3).long(), draws)
    terms = {term.name: term for term in method.terms(model, batch)}
    counts = batch.counts()
    parts = [term.weight * term.loss_sum / (counts[term.per] + term.epsilon) for term in terms.values()]
    total = torch.stack(parts).sum()

    corrupted = method.corrupted(model, batch).input_ids  # type: ignore[attr-defined]
    labels = torch.full((ids.numel(),), -100).scatter(0, where, targets).view_as(ids)
    of_generator = generator(input_ids=masked, token_type_ids=types, attention_mask=mask, labels=labels).loss
    replaced = (corrupted != ids).long()
    assert 0 < replaced.sum() <= len(where)
    of_encoder = discriminator(input_ids=corrupted, token_type_ids=types, attention_mask=mask, labels=replaced).loss
    torch.testing.assert_close(terms["generator"].loss_sum / len(where), of_generator, atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(terms["replaced"].loss_sum / mask.sum(), of_encoder, atol=TOLERANCE, rtol=0)
    expected = of_generator + 50 * of_encoder
    torch.testing.assert_close(total, expected, atol=1e-4, rtol=0)
    total.backward()
    expected.backward()
    embedding, other = model.encoder.embedding, discriminator.electra
    pairs = {
        "word": (embedding.word.weight, other.embeddings.word_embeddings.weight),
        "norm": (embedding.norm.weight, other.embeddings.LayerNorm.weight),
        "projection": (embedding.projection.weight, other.embeddings_project.weight),
        "out": (model.replaced_head.out.weight, discriminator.discriminator_predictions.dense_prediction.weight),
        "dense": (model.generator.mlm_head.dense.weight, generator.generator_predictions.dense.weight),
    }
    for name, (mine, of_theirs) in pairs.items():
        assert mine.grad.abs().max() > 1e-3, name
        torch.testing.assert_close(mine.grad, of_theirs.grad, rtol=1e-4, atol=1e-4, msg=name)


CHECKPOINTS: list[tuple[Any, dict[str, Any]]] = [
    (ElectraForPreTraining, {"embedding_size": 16, "hidden_act": "gelu_new", "classifier_dropout": 0.3}),
    (ElectraForPreTraining, {"embedding_size": 48, "type_vocab_size": 3, "layer_norm_eps": 1e-6}),
    (ElectraForPreTraining, {"embedding_size": 64}),
    (ElectraForMaskedLM, {"embedding_size": 16}),
    (ElectraForMaskedLM, {"embedding_size": 64, "num_hidden_layers": 1}),
]


def checkpoint(folder: Path, kind: Any, **settings: Any) -> Any:
    """A random model of transformers in files, as the released ones are stored."""
    model = moved(kind(ElectraConfig(**common(**settings))))
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    return model


@pytest.mark.parametrize(("kind", "settings"), CHECKPOINTS, ids=str)
def test_released_networks_come_in_and_go_out_again(kind: Any, settings: dict[str, Any], tmp_path: Path) -> None:
    theirs = checkpoint(tmp_path / "in", kind, **settings)
    assert import_model([str(tmp_path / "in"), str(tmp_path / "mine")]) == 0
    model, config = opened(tmp_path / "mine"), compose_for_run(tmp_path / "mine" / "config.yaml", [])
    manifest = read_json(tmp_path / "mine" / "manifest.json")
    assert manifest["imported"]["missing"] == ["pooler", "sentence head"]
    order = order_of(tmp_path / "mine")
    if kind is ElectraForPreTraining:
        assert (config.method.name.value, model.generator) == ("electra", None)
        assert_discriminator(model, theirs, order)
    else:
        assert config.method.name.value == "mlm"
        assert_generator(model, theirs, order)
    assert manifest["parameters"]["with_heads"] == sum(p.numel() for p in model.parameters())
    assert export([str(tmp_path / "mine"), str(tmp_path / "out")]) == 0
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("in", "out"))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, atol=0, rtol=0)
    described, written = (read_json(tmp_path / name / "config.json") for name in ("in", "out"))
    fields = ("architectures", "hidden_act", "embedding_size", "layer_norm_eps", "type_vocab_size", "pad_token_id")
    assert {name: described[name] for name in fields} == {name: written[name] for name in fields}
    assert written["classifier_dropout"] == settings.get("classifier_dropout", 0.1)
    assert not (tmp_path / "out" / "generator").exists()


def test_names_of_older_files_and_encoders_of_tasks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = checkpoint(tmp_path / "in", ElectraForMaskedLM, embedding_size=16)
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in theirs.state_dict().items()
    }
    assert "generator_lm_head.weight" in old, "the word table a second time"
    (tmp_path / "in" / "model.safetensors").unlink()
    torch.save(old | {"electra.embeddings.position_ids": torch.arange(64)}, tmp_path / "in" / "pytorch_model.bin")
    assert import_model([str(tmp_path / "in"), str(tmp_path / "mine")]) == 0
    assert_generator(opened(tmp_path / "mine"), theirs, order_of(tmp_path / "mine"))
    for kind in (ElectraModel, ElectraForSequenceClassification):
        checkpoint(tmp_path / kind.__name__, kind, embedding_size=16)
        capsys.readouterr()
        assert import_model([str(tmp_path / kind.__name__), str(tmp_path / f"mine-{kind.__name__}")]) == 0
        said = capsys.readouterr().out
        assert "it has no pooler, no replaced-token head, no sentence head: random weights there" in said
        assert ("classifier.out_proj.weight" in said) == (kind is ElectraForSequenceClassification)


def test_what_no_class_computes_is_refused_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shape = dataclasses.replace(architecture(Share.NONE, HIDDEN), projection=True)
    with pytest.raises(ForeignCheckpointError, match=r"model.projection=always at E = H.*model.projection=auto"):
        to_huggingface(ours(shape))
    checkpoint(tmp_path / "in", ElectraForMaskedLM, embedding_size=16)
    change_config(tmp_path / "in", hidden_act="gelu_new")
    assert import_model([str(tmp_path / "in"), str(tmp_path / "mine")]) == 2
    assert "hidden_act is 'gelu_new'; the head of transformers' ElectraForMaskedLM" in capsys.readouterr().err
    checkpoint(tmp_path / "other", ElectraForPreTraining, embedding_size=16)
    change_config(tmp_path / "other", embedding_size=24)
    assert import_model([str(tmp_path / "other"), str(tmp_path / "mine")]) == 2
    assert "embeddings_project.weight is [48, 16], but hidden_size=48 x embedding_size=24" in capsys.readouterr().err
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize(("share", "activation"), [("none", "gelu_erf"), ("all", "gelu_tanh")])
def test_a_run_goes_out_and_both_networks_come_back(
    share: str, activation: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("method=electra", f"share={share}", "objective=none", f"model.activation={activation}", "budget.steps=2")
    folder = run(tiny_config(tmp_path, *words, "budget.warmup_steps=1", "method.generator_width=0.5")).path
    original, out = opened(folder), tmp_path / "out"
    capsys.readouterr()
    assert export([str(folder), str(out)]) == 0
    said = capsys.readouterr().out
    kind = "ElectraForMaskedLM" if share == "none" else "AlbertForMaskedLM"
    assert f"{out}: ElectraForPreTraining" in said
    assert "left out, which it lacks: pooler, sentence head" in said
    assert f"{out / 'generator'}: {kind}" in said
    card = (out / "README.md").read_text()
    assert f'{kind}.from_pretrained("FOLDER", subfolder="generator")' in card
    assert "keep their random initial weights" not in card
    assert_discriminator(original, AutoModelForPreTraining.from_pretrained(out).eval())
    tokens = [AutoTokenizer.from_pretrained(path)("Bade fogo.")["input_ids"] for path in (out, out / "generator")]
    assert tokens[0] == tokens[1]
    for part, name in ((out, "back"), (out / "generator", "back-generator")):
        assert import_model([str(part), str(tmp_path / "again" / name)]) == 0
    again, generator = (opened(tmp_path / "again" / name) for name in ("back", "back-generator"))
    assert again.shape.share.value == generator.shape.share.value == share
    for mine, back in ((original, again), (original.generator, generator)):
        state = back.state_dict()
        for name, tensor in mine.named_parameters(remove_duplicate=False):
            if not name.startswith(("generator.", "pooler.", "sentence_head.")):
                torch.testing.assert_close(state[name], tensor.detach(), atol=0, rtol=0, msg=name)


def test_an_imported_discriminator_is_scored_fine_tuned_and_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has no masked-LM head: that number is absent, with the reason."""
    words = ("method=electra", "share=none", "budget.steps=2", "budget.warmup_steps=1")
    config = tiny_config(tmp_path, *words)
    assert export([str(run(config).path), str(tmp_path / "out")]) == 0
    back = tmp_path / "again" / "back"
    assert import_model([str(tmp_path / "out"), str(back)]) == 0
    text = ["data=text", f"data.path={config.data.path}", "data.validation_fraction=0.2"]
    sizes = ["evaluation.max_pairs=16", "evaluation.probe_pairs=16", f"paths.cache={tmp_path / 'cache'}"]
    assert evaluate([str(back), *text, *sizes]) == 0
    assert "not trained by this method" in capsys.readouterr().out
    results = read_json(back / "results.json")
    assert results["masked_lm"] is None
    assert results["sop"]["head"] == "fitted on the frozen encoder"
    write_sst2(tmp_path / "data")
    task = ["task=sst2", f"task.data_dir={tmp_path / 'data'}", "tasks.sst2.max_length=32", "task.evaluations=1"]
    assert finetune([str(back), *task]) == 0
    (entry,) = RunFolder(back.parent, back.name).read("results.json")["tasks"]
    assert entry["task"] == "sst2"
    assert len(measure(back, Path(str(config.data.path)), sequences=4)["l2"]) == config.model.layers
