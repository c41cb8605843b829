"""MobileBERT's layers through files of transformers, and runs that go out and come in."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from runhelpers import run, tiny_config
from test_distilbert_interop import loaded
from test_electra_interop import opened
from test_mobilebert import FORMS, RELEASED, form, moved, text
from transformers import AutoModelForPreTraining, MobileBertConfig, MobileBertForPreTraining

from albert_ablate.axes import Share
from albert_ablate.commands.export import main as export
from albert_ablate.commands.import_hf import main as import_model
from albert_ablate.errors import ForeignCheckpointError
from albert_ablate.interop.huggingface import to_huggingface
from albert_ablate.interop.imported import from_huggingface
from albert_ablate.model.pretraining import PretrainingModel

RUN = (
    "block=mobilebert", "share=none", "model.block_width=16", "model.feed_forwards=3", "model.attention_input=shared",
    "model.norm_type=no_norm", "model.activation=relu", "model.trigram=true", "model.table_width=hidden",
    "model.pooler=bare", "model.lm_head=extended", "budget.steps=2", "budget.warmup_steps=1",
)  # fmt: skip


@torch.no_grad()
def assert_equal_outputs(model: PretrainingModel, theirs: Any, grids: tuple[torch.Tensor, ...]) -> None:
    ids, types, mask = grids
    states = model.encoder(ids, types, mask)
    expected = theirs(ids, mask.long(), types)
    logits = model.token_logits(states.flatten(0, 1)).view(*ids.shape, -1)
    torch.testing.assert_close(logits[mask], expected.prediction_logits[mask], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.sentence_logits(states), expected.seq_relationship_logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("share", list(Share))
@pytest.mark.parametrize("name", ["released", "tiny"])
def test_out_and_in_again_is_the_same_model(name: str, share: Share, tmp_path: Path) -> None:
    model = moved(form(share, **FORMS[name])).eval()
    found = to_huggingface(model)
    assert (found.architecture, found.unrolled) == ("MobileBertForPreTraining", share is not Share.NONE)
    assert_equal_outputs(model, loaded(found, tmp_path / "out"), text())
    imported = from_huggingface(found.config, found.tensors)
    assert imported.settings["share"]["strategy"] == share.value
    assert imported.settings["block"] == {"type": "mobilebert"}
    state = model.state_dict()
    assert imported.tensors.keys() == state.keys()
    assert all(torch.equal(tensor, state[each]) for each, tensor in imported.tensors.items())


def test_heads_that_nothing_trained_stay_behind() -> None:
    model = moved(form(**RELEASED))
    assert to_huggingface(model, masked_lm=False).architecture == "MobileBertModel"
    assert to_huggingface(moved(form(**RELEASED), pooler=False)).architecture == "MobileBertForMaskedLM"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"attention_input": "body"}, "model.attention_input=shared or bottleneck"),
        ({"table_width": "embedding"}, "model.table_width=hidden"),
        ({"lm_head": "transform"}, "model.lm_head=extended"),
        ({"norm_type": "layer_norm", "layer_norm_eps": 1e-12}, "model.layer_norm_eps=1e-05 or model.norm_type=no_norm"),
    ],
    ids=str,
)  # fmt: skip
def test_other_forms_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ForeignCheckpointError, match=f"As MobileBERT it would need {words}"):
        to_huggingface(moved(form(**RELEASED | change)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"norm_type": "no_norm"}, "model.norm_type=no_norm: "), ({"trigram": True}, "model.trigram=true: "),
        ({"table_width": "hidden"}, "model.table_width=hidden: "), ({"pooler": "bare"}, "model.pooler=bare: "),
        ({"lm_head": "extended"}, "model.lm_head=extended: "),
    ],
    ids=str,
)  # fmt: skip
def test_parts_of_the_form_in_standard_layers_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ForeignCheckpointError, match=words):
        to_huggingface(moved(form(**change)))


def test_relu_in_standard_layers_goes_out(tmp_path: Path) -> None:
    found = to_huggingface(moved(replace(form(activation="relu"), layer_norm_eps=1e-12)))
    assert found.config["hidden_act"] == "relu"


def theirs(**other: Any) -> Any:
    sizes: dict[str, Any] = {
        "vocab_size": 97, "hidden_size": 32, "embedding_size": 12, "intra_bottleneck_size": 16, "intermediate_size": 40,
        "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 24,
    }  # fmt: skip
    return MobileBertForPreTraining(MobileBertConfig(**sizes | other))


def test_a_checkpoint_with_unused_tensors_comes_in() -> None:
    """transformers' default gives a tiny model bottlenecks that nothing reads, and each model a projection."""
    model = theirs(use_bottleneck_attention=True, trigram_input=False, embedding_size=32, num_feedforward_networks=2)
    imported = from_huggingface(model.config.to_dict(), model.state_dict())
    assert imported.settings["model"]["attention_input"] == "bottleneck"
    assert not any("shared" in name or "projection" in name for name in imported.tensors)
    assert imported.missing == ()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"intra_bottleneck_size": 20}, r"bottleneck.input.dense.weight is \[16, 32\], but intra_bottleneck_size=20"),
        ({"embedding_size": 16}, r"word_embeddings.weight is \[97, 12\], but vocab_size=97 x embedding_size=16"),
        ({"num_attention_heads": 5}, "num_attention_heads is 5, which does not divide intra_bottleneck_size=16"),
        ({"key_query_shared_bottleneck": False}, "transformers cannot run such a MobileBERT"),
        ({"normalization_type": "layer_norm"}, "layer_norm_eps is 1e-12; with layer_norm"),
        ({"normalization_type": "rms"}, "normalization_type is 'rms'; no_norm or layer_norm is expected"),
        ({"hidden_act": "silu"}, "hidden_act is 'silu'; gelu"), ({"use_bottleneck": False}, "use_bottleneck is false"),
        ({"num_feedforward_networks": 3}, "unknown: mobilebert.encoder.layer.0.ffn.2"),
    ],
    ids=str,
)  # fmt: skip
def test_what_does_not_fit_is_refused(values: dict[str, Any], words: str) -> None:
    model = theirs()
    with pytest.raises(ForeignCheckpointError, match=words):
        from_huggingface(model.config.to_dict() | values, model.state_dict())


def test_a_run_goes_out_and_comes_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out, back = run(tiny_config(tmp_path, *RUN)).path, tmp_path / "out", tmp_path / "again" / "back"
    capsys.readouterr()
    assert export([str(folder), str(out)]) == 0
    assert f"{out}: MobileBertForPreTraining\n" in capsys.readouterr().out
    model = AutoModelForPreTraining.from_pretrained(out).eval()
    ids = torch.tensor([[2, 17, 40, 9, 3, 21, 3]])
    grids = (ids, torch.tensor([[0, 0, 0, 0, 0, 1, 1]]), torch.ones_like(ids).bool())
    original = opened(folder)
    assert_equal_outputs(original, model, grids)
    assert import_model([str(out), str(back)]) == 0
    state = opened(back).state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in original.state_dict().items())
