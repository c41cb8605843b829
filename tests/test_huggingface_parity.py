"""Our encoder and heads against transformers' ALBERT and BERT with the same weights, dropout off."""

from typing import Any

import pytest
import torch
from modelhelpers import blocks_of
from torch import Tensor
from transformers import AlbertConfig, AlbertForPreTraining, BertConfig, BertForPreTraining

from albert_ablate.axes import Share
from albert_ablate.model.architecture import Architecture
from albert_ablate.model.blocks import AttentionBlock, FeedForwardBlock
from albert_ablate.model.pretraining import PretrainingModel, build_model

VOCABULARY, HIDDEN, LAYERS, HEADS = 97, 48, 6, 4
SHAPES = [(1, 1), (1, 5), (3, 17), (2, 33)]
TOLERANCE = 1e-5


def architecture(share: Share, embedding: int, **other: Any) -> Architecture:
    return Architecture(
        vocab_size=VOCABULARY, embedding_size=embedding, hidden_size=HIDDEN, layers=LAYERS, heads=HEADS,
        intermediate_size=4 * HIDDEN, max_positions=40, share=share, **other,
    )  # fmt: skip


def ours(shape: Architecture) -> PretrainingModel:
    """Every parameter away from its initial value: zero biases would hide a missing one."""
    model = build_model(shape, seed=3).eval()
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=draw))
    return model


def common(**other: Any) -> dict[str, Any]:
    return {
        "vocab_size": VOCABULARY, "hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "intermediate_size": 4 * HIDDEN, "max_position_embeddings": 40, "hidden_act": "gelu_new",
        "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "layer_norm_eps": 1e-12,
        "attn_implementation": "eager", **other,
    }  # fmt: skip


def linear(name: str, module: Any) -> dict[str, Tensor]:
    return {f"{name}.weight": module.weight, f"{name}.bias": module.bias}


def embedding_of(model: PretrainingModel) -> dict[str, Tensor]:
    e = model.encoder.embedding
    assert e.token_type is not None
    return {
        "embeddings.word_embeddings.weight": e.word.weight,
        "embeddings.position_embeddings.weight": e.position.weight,
        "embeddings.token_type_embeddings.weight": e.token_type.weight,
        **linear("embeddings.LayerNorm", e.norm),
    }


def albert(model: PretrainingModel, **other: Any) -> AlbertForPreTraining:
    """transformers' ALBERT with the weights of a share=all model; the projection is identity at E = H."""
    shape = model.shape
    config = AlbertConfig(
        **common(embedding_size=shape.embedding_size, classifier_dropout_prob=0.0, num_hidden_groups=shape.groups),
        **other,
    )
    theirs = AlbertForPreTraining(config).eval()
    weights = embedding_of(model)
    projection = model.encoder.embedding.projection
    if shape.has_projection:
        weights |= linear("encoder.embedding_hidden_mapping_in", projection)
    else:
        name = "encoder.embedding_hidden_mapping_in"
        weights |= {f"{name}.weight": torch.eye(HIDDEN), f"{name}.bias": torch.zeros(HIDDEN)}
    for group, (attention, ffn) in enumerate(
        zip(blocks_of(model.encoder, "attention"), blocks_of(model.encoder, "ffn"), strict=True)
    ):
        layer = f"encoder.albert_layer_groups.{group}.albert_layers.0"
        for part in ("query", "key", "value"):
            weights |= linear(f"{layer}.attention.{part}", getattr(attention, part))
        weights |= linear(f"{layer}.attention.dense", attention.output)
        weights |= linear(f"{layer}.attention.LayerNorm", attention.norm)
        weights |= linear(f"{layer}.ffn", ffn.inner) | linear(f"{layer}.ffn_output", ffn.outer)
        weights |= linear(f"{layer}.full_layer_layer_norm", ffn.norm)
    weights |= linear("pooler", model.pooler.dense)
    state = {f"albert.{name}": tensor for name, tensor in weights.items()}
    head = model.mlm_head
    state |= linear("predictions.dense", head.dense) | linear("predictions.LayerNorm", head.norm)
    state |= {"predictions.bias": head.bias, "predictions.decoder.bias": head.bias}  # type: ignore[dict-item]
    state |= {"predictions.decoder.weight": model.encoder.embedding.word.weight}
    state |= linear("sop_classifier.classifier", model.sentence_head.dense)
    theirs.load_state_dict(state)
    return theirs


def bert(model: PretrainingModel) -> BertForPreTraining:
    """transformers' BERT, every layer given the blocks that ours draws for it (E = H)."""
    theirs = BertForPreTraining(BertConfig(**common())).eval()
    weights = embedding_of(model)
    for i, blocks in enumerate(model.encoder.layer_blocks):
        attention, ffn = (model.encoder.get_submodule(f"{kind}.{entry}") for kind, entry in blocks)
        layer = f"encoder.layer.{i}"
        assert isinstance(attention, AttentionBlock)
        assert isinstance(ffn, FeedForwardBlock)
        for part in ("query", "key", "value"):
            weights |= linear(f"{layer}.attention.self.{part}", getattr(attention, part))
        weights |= linear(f"{layer}.attention.output.dense", attention.output)
        weights |= linear(f"{layer}.attention.output.LayerNorm", attention.norm)
        weights |= linear(f"{layer}.intermediate.dense", ffn.inner) | linear(f"{layer}.output.dense", ffn.outer)
        weights |= linear(f"{layer}.output.LayerNorm", ffn.norm)
    weights |= linear("pooler.dense", model.pooler.dense)
    state = {f"bert.{name}": tensor for name, tensor in weights.items()}
    head = model.mlm_head
    state |= linear("cls.predictions.transform.dense", head.dense)
    state |= linear("cls.predictions.transform.LayerNorm", head.norm)
    state |= {"cls.predictions.bias": head.bias, "cls.predictions.decoder.bias": head.bias}  # type: ignore[dict-item]
    state |= {"cls.predictions.decoder.weight": model.encoder.embedding.word.weight}
    state |= linear("cls.seq_relationship", model.sentence_head.dense)
    theirs.load_state_dict(state)
    return theirs


def inputs(batch: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, types and a mask whose rows end at different lengths, never empty."""
    draw = torch.Generator().manual_seed(length)
    ids = torch.randint(5, VOCABULARY, (batch, length), generator=draw)
    lengths = torch.tensor([max(1, length - 3 * row) for row in range(batch)])
    mask = (torch.arange(length) < lengths[:, None]).long()
    types = (torch.arange(length) >= lengths[:, None] // 2).long() * mask
    return ids * mask, types, mask


@torch.no_grad()
def assert_equal(model: PretrainingModel, theirs: torch.nn.Module, batch: int, length: int) -> None:
    ids, types, mask = inputs(batch, length)
    expected = theirs(input_ids=ids, token_type_ids=types, attention_mask=mask, output_hidden_states=True)
    real = mask.bool()
    states = model.encoder.hidden_states(ids, types, mask)
    assert len(states) == len(expected.hidden_states) == LAYERS + 1
    for mine, other in zip(states, expected.hidden_states, strict=True):
        torch.testing.assert_close(mine[real], other[real], atol=TOLERANCE, rtol=0)
    logits = model.mlm_head(states[-1][real], model.encoder.embedding.word.weight)
    torch.testing.assert_close(logits, expected.prediction_logits[real], atol=TOLERANCE, rtol=0)
    sentence = model.sentence_head(model.pooler(states[-1]))
    other = expected.sop_logits if hasattr(expected, "sop_logits") else expected.seq_relationship_logits
    torch.testing.assert_close(sentence, other, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(("batch", "length"), SHAPES)
@pytest.mark.parametrize("embedding", [16, HIDDEN])
@pytest.mark.parametrize("groups", [1, 3])
def test_all_shared_equals_albert(batch: int, length: int, embedding: int, groups: int) -> None:
    model = ours(architecture(Share.ALL, embedding, groups=groups))
    assert_equal(model, albert(model), batch, length)


@pytest.mark.parametrize(("batch", "length"), SHAPES)
@pytest.mark.parametrize("share", list(Share))
def test_every_strategy_equals_bert_with_the_same_tensors(batch: int, length: int, share: Share) -> None:
    model = ours(architecture(share, HIDDEN))
    assert_equal(model, bert(model), batch, length)


def test_groups_that_do_not_divide_the_layers_are_placed_as_in_albert() -> None:
    model = ours(architecture(Share.ALL, 16, groups=4))
    assert_equal(model, albert(model), 2, 17)


def test_the_erf_gelu_equals_albert_v1() -> None:
    model = ours(architecture(Share.ALL, 16, activation="gelu_erf"))
    theirs = albert(model)
    for module in theirs.modules():
        if hasattr(module, "activation") and callable(module.activation):
            module.activation = torch.nn.GELU()
    assert_equal(model, theirs, 2, 17)


def test_the_comparison_sees_the_layer_norm_epsilon_and_the_gelu() -> None:
    for change in ({"layer_norm_eps": 1e-3}, {"activation": "gelu_erf"}):
        model = ours(architecture(Share.ALL, 16, **change))
        with pytest.raises(AssertionError):
            assert_equal(model, albert(model), 3, 17)


def unshare(model: PretrainingModel) -> PretrainingModel:
    """A copy with blocks of its own in every layer."""
    values = {k: getattr(model.shape, k) for k in model.shape.__dataclass_fields__}
    copy = build_model(Architecture(**values | {"share": Share.NONE, "groups": 1}), seed=0).double().eval()
    state = {k: v for k, v in model.state_dict().items() if not k.startswith(("encoder.attention", "encoder.ffn"))}
    for i, blocks in enumerate(model.encoder.layer_blocks):
        for bank, index in blocks:
            block = getattr(model.encoder, bank)[index].state_dict()
            state |= {f"encoder.{bank}.{i}.{name}": tensor for name, tensor in block.items()}
    copy.load_state_dict(state)
    return copy


def loss(model: PretrainingModel) -> Tensor:
    ids, types, mask = inputs(3, 17)
    positions = torch.tensor([1, 4, 18, 40])
    targets = torch.tensor([7, 8, 9, 10])
    out = model(ids, types, mask, positions, targets, torch.tensor([0, 1, 1]))
    assert out.sentence_loss_sum is not None
    return out.mlm_loss_sum + out.sentence_loss_sum


@pytest.mark.parametrize(("share", "groups"), [(s, 1) for s in Share] + [(s, 2) for s in Share if s is not Share.NONE])
def test_gradients_of_shared_blocks_are_sums_over_layers(share: Share, groups: int) -> None:
    model = ours(architecture(share, 16, groups=groups)).double()
    copy = unshare(model)
    loss(model).backward()
    loss(copy).backward()
    for bank in ("attention", "ffn"):
        mine, theirs = getattr(model.encoder, bank), getattr(copy.encoder, bank)
        for index in range(len(mine)):
            users = [i for i, blocks in enumerate(model.encoder.layer_blocks) if (bank, index) in blocks]
            for name, parameter in mine[index].named_parameters():
                total = sum(theirs[i].get_parameter(name).grad for i in users)
                torch.testing.assert_close(parameter.grad, total, rtol=1e-10, atol=1e-12)
    word, other = model.encoder.embedding.word.weight.grad, copy.encoder.embedding.word.weight.grad
    torch.testing.assert_close(word, other, rtol=1e-10, atol=1e-12)
