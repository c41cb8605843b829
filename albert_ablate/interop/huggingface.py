"""Converts a model of this project to transformers: class, configuration and tensors.

| arm | class | equal to ours |
|---|---|---|
| share=all | AlbertForPreTraining | tensor by tensor; E = H has an identity projection |
| share=none, E = H | BertForPreTraining | tensor by tensor |
| any other | AlbertForPreTraining with one group per layer | in every output; shared blocks are repeated |
| a method with a replaced-token head | ElectraForPreTraining | in every output; shared blocks are repeated |
| no token types, E = H | DistilBertForMaskedLM | tensor by tensor; shared blocks are repeated |
| no token types, any other | the class of the arm with token types | in every output; the table of types is zero |

A model without pooler and sentence head, such as a generator, is an ElectraForMaskedLM, AlbertForMaskedLM or
BertForMaskedLM. Without a trained masked-LM head only the encoder and its pooler go out: AlbertModel, BertModel or
DistilBertModel.
An imported model is exported as its original class, with its groups and the dropout of its heads.

An unrolled arm gives the same outputs, but when it is fine-tuned in transformers its copies diverge.
In training, transformers' ALBERT has no dropout after the feed-forward network; this project and
the reference do.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from albert_ablate.axes import Part
from albert_ablate.data.tokenizer import CLS, PAD, SEP
from albert_ablate.data.wordpiece import read_vocabulary, row_order
from albert_ablate.errors import ForeignCheckpointError
from albert_ablate.interop.config_json import field_of, same_groups
from albert_ablate.interop.names import (
    PROJECTION,
    Blocks,
    albert_names,
    bert_names,
    discriminator_names,
    distilbert_names,
    generator_names,
)
from albert_ablate.interop.weights import require_finite
from albert_ablate.model.base import EncoderModel
from albert_ablate.model.electra import ElectraModel
from albert_ablate.model.shape import Shape

#: Dropout of the task heads that transformers adds to an exported model (paper, Table 14).
_CLASSIFIER_DROPOUT = 0.1
_ACTIVATIONS = {"gelu_tanh": "gelu_new", "gelu_erf": "gelu"}
#: Heads that some classes lack: prefix of their tensors -> name for the user.
_HEADS = {
    "pooler.": "pooler", "sentence_head.": "sentence head", "copy_gate.": "copy gate", "mlm_head.": "masked-LM head",
}  # fmt: skip
_PREDICTING = ("sentence_head.", "mlm_head.")
#: Of all norms of transformers' DistilBERT.
_DISTILBERT_EPSILON = 1e-12
#: The part of a model that is exported as a model of its own.
_GENERATOR = "generator."


@dataclass(frozen=True)
class Exported:
    """What ``from_pretrained`` needs, without the tokenizer."""

    architecture: str  # class in transformers
    config: dict[str, Any]
    tensors: dict[str, Tensor]
    unrolled: bool  # shared blocks are exported as copies
    left_out: tuple[str, ...] = ()  # heads of the run that the class lacks


def to_huggingface(model: EncoderModel, origin: Mapping[str, Any] | None = None, masked_lm: bool = True) -> Exported:
    """A transformers model that computes the same function, without the generator.

    ``origin`` is the entry of an imported model's manifest; ``masked_lm`` says whether a masked-LM head was trained.
    Raises ForeignCheckpointError if a weight is not finite, and if no class computes the function.
    """
    origin = origin or {}
    require_finite(model.state_dict(), "The run's newest checkpoint")
    own = {name: tensor for name, tensor in _tensors_of(model).items() if not name.startswith(_GENERATOR)}
    shape, tensors = _with_types(model.shape, own)
    if "replaced_head.out.weight" in tensors:
        if shape.projection and shape.embedding_size == shape.hidden_size:
            raise ForeignCheckpointError(
                "model.projection=always at E = H: transformers' ELECTRA projects only an embedding of another width, "
                "so no class computes this. Train with model.projection=auto."
            )
        return _electra(shape, tensors, "ElectraForPreTraining", origin)
    if origin.get("model_type") == "electra":
        return _electra(shape, tensors, "ElectraForMaskedLM", origin)
    return _masked_lm(model.shape, own, origin, masked_lm)


def generator_to_huggingface(model: EncoderModel) -> Exported | None:
    """The model's generator; None if it has no network as its generator.

    transformers' ElectraForMaskedLM has the erf GELU in its head and shares no blocks: a generator with the tanh GELU,
    with shared blocks, or with a projection at E = H goes out as a masked LM of ALBERT or BERT.
    """
    if not isinstance(model, ElectraModel) or model.generator is None:
        return None
    generator = model.generator
    shape, tensors = generator.shape, _tensors_of(generator)
    shared = any(map(shape.share.shares, Part))
    extra = shape.projection and shape.embedding_size == shape.hidden_size
    if shape.activation == "gelu_erf" and not shared and not extra:
        return _electra(*_with_types(shape, tensors), "ElectraForMaskedLM", {})
    return _masked_lm(shape, tensors, {})


def in_order_of(vocabulary: Path, exported: Exported) -> Exported:
    """``exported`` with the rows of the word table, the output bias and special ids in the order of ``vocabulary``."""
    order = torch.from_numpy(row_order(read_vocabulary(vocabulary), exported.config["vocab_size"], vocabulary))
    back = torch.argsort(order)
    rows = ("word_embeddings.weight", ".predictions.bias", "generator_lm_head.bias", "vocab_projector.bias")
    tensors = {name: tensor[back] if f".{name}".endswith(rows) else tensor for name, tensor in exported.tensors.items()}
    ids = {f"{name}_token_id": int(order[i]) for name, i in (("pad", PAD), ("bos", CLS), ("eos", SEP))}
    return replace(exported, config=exported.config | ids, tensors=tensors)


def _with_types(shape: Shape, tensors: Mapping[str, Tensor]) -> tuple[Shape, Mapping[str, Tensor]]:
    """The same function with a table of two token types, of zeros if there was none."""
    if shape.type_vocab_size:
        return shape, tensors
    zeros = torch.zeros(2, shape.embedding_size)
    return replace(shape, type_vocab_size=2), {**tensors, "encoder.embedding.token_type.weight": zeros}


def _masked_lm(
    shape: Shape, tensors: Mapping[str, Tensor], origin: Mapping[str, Any], masked_lm: bool = True
) -> Exported:
    """A model without a replaced-token head, as ALBERT, BERT or DistilBERT; ``masked_lm`` as in ``to_huggingface``."""
    head = origin.get("classifier_dropout", _CLASSIFIER_DROPOUT)
    layers, unshared = _layers(shape), not any(map(shape.share.shares, Part))
    suffix = "ForMaskedLM" if masked_lm and "mlm_head.bias" in tensors else "Model"
    plain = not shape.has_projection and shape.layer_norm_eps == _DISTILBERT_EPSILON
    if plain and not shape.type_vocab_size:
        config = _distilbert_config(shape) | {"seq_classif_dropout": head}
        return _exported(f"DistilBert{suffix}", config, distilbert_names(layers), tensors, not unshared)
    shape, tensors = _with_types(shape, tensors)
    if suffix == "ForMaskedLM" and "sentence_head.dense.weight" in tensors:
        suffix = "ForPreTraining"
    if origin.get("model_type", "bert" if unshared and not shape.has_projection else "albert") == "bert":
        config = _config(shape, "bert") | {"classifier_dropout": head}
        return _exported(f"Bert{suffix}", config, bert_names(layers), tensors, not unshared)
    kept_groups = origin.get("num_hidden_groups", shape.groups) == shape.groups  # else layers are equal by chance
    tied = all(map(shape.share.shares, Part)) and kept_groups and same_groups(shape.layers // shape.inner, shape.groups)
    n = shape.inner if tied else 1
    stacks: list[Blocks] = [[(g * n + i, g * n + i) for i in range(n)] for g in range(shape.groups)]
    groups: list[Blocks] = stacks if tied else [[pair] for pair in layers]
    sizes = {"embedding_size": shape.embedding_size, "num_hidden_groups": len(groups), "inner_group_num": n}
    sizes |= {"num_hidden_layers": shape.layers // n, "classifier_dropout_prob": head}
    names = albert_names(groups, shape.has_projection)
    return _exported(f"Albert{suffix}", _config(shape, "albert") | sizes, names, tensors, not tied)


def _electra(shape: Shape, tensors: Mapping[str, Tensor], kind: str, origin: Mapping[str, Any]) -> Exported:
    config = _config(shape, "electra") | {
        "embedding_size": shape.embedding_size,
        "classifier_dropout": origin.get("classifier_dropout", _CLASSIFIER_DROPOUT),
    }
    names = discriminator_names if kind == "ElectraForPreTraining" else generator_names
    shared = any(map(shape.share.shares, Part))
    return _exported(kind, config, names(_layers(shape), shape.has_projection), tensors, shared)


def _layers(shape: Shape) -> Blocks:
    sharing = shape.sharing
    return [(sharing.index(Part.ATTENTION, i), sharing.index(Part.FFN, i)) for i in range(shape.layers)]


def _config(shape: Shape, kind: str) -> dict[str, Any]:
    return {
        "model_type": kind,
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.intermediate_size,
        "max_position_embeddings": shape.max_positions,
        "type_vocab_size": shape.type_vocab_size,
        "hidden_act": _ACTIVATIONS[shape.activation],
        "hidden_dropout_prob": shape.hidden_dropout,
        "attention_probs_dropout_prob": shape.attention_dropout,
        "initializer_range": shape.initializer_range,
        "layer_norm_eps": shape.layer_norm_eps,
        "pad_token_id": PAD,
        "bos_token_id": CLS,
        "eos_token_id": SEP,
        "dtype": "float32",
    }


def _distilbert_config(shape: Shape) -> dict[str, Any]:
    """``_config`` under DistilBERT's names; token types and the epsilon of norms are no fields of it."""
    common = _config(shape, "distilbert")
    left = ("type_vocab_size", "layer_norm_eps")
    return {field_of("distilbert", name): value for name, value in common.items() if name not in left}


def _tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Every tensor under each of its names, those that are tied to another part's too."""
    return {name: tensor.detach() for name, tensor in module.named_parameters(remove_duplicate=False)}


def _exported(
    kind: str, config: dict[str, Any], names: Mapping[str, str | None], tensors: Mapping[str, Tensor], unrolled: bool
) -> Exported:
    """The tensors under transformers' ``names``; a head that has no such name is left out. A bare model has no head."""
    if kind.endswith("Model"):
        names = {name: ours for name, ours in names.items() if not (ours or "").startswith(_PREDICTING)}
    unused = tensors.keys() - set(names.values())
    left_out = tuple(label for prefix, label in _HEADS.items() if any(name.startswith(prefix) for name in unused))
    assert all(name.startswith(tuple(_HEADS)) for name in unused), unused
    width = tensors["encoder.embedding.word.weight"].shape[1]
    identity = {f"{PROJECTION}.weight": torch.eye(width), f"{PROJECTION}.bias": torch.zeros(width)}
    # Cloned, because safetensors refuses tensors that share memory.
    found = {
        name: (identity[name] if ours is None else tensors[ours]).clone()
        for name, ours in names.items()
        if ours is None or ours in tensors or not ours.startswith(tuple(_HEADS))  # a generator lacks some heads
    }
    return Exported(kind, config, found, unrolled, left_out)
