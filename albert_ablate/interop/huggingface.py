"""Converts a model of this project to transformers: class, configuration and tensors.

| arm | class | equal to ours |
|---|---|---|
| share=all | AlbertForPreTraining | tensor by tensor; E = H has an identity projection |
| share=none, E = H | BertForPreTraining | tensor by tensor |
| any other | AlbertForPreTraining with one group per layer | in every output; shared blocks are repeated |

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
from torch import Tensor

from albert_ablate.axes import Part
from albert_ablate.data.tokenizer import CLS, PAD, SEP
from albert_ablate.data.wordpiece import read_vocabulary, row_order
from albert_ablate.interop.config_json import same_groups
from albert_ablate.interop.names import PROJECTION, Blocks, albert_names, bert_names
from albert_ablate.interop.weights import require_finite
from albert_ablate.model.pretraining import PretrainingModel

#: Dropout of the task heads that transformers adds to an exported model (paper, Table 14).
_CLASSIFIER_DROPOUT = 0.1
_ACTIVATIONS = {"gelu_tanh": "gelu_new", "gelu_erf": "gelu"}


@dataclass(frozen=True)
class Exported:
    """What ``from_pretrained`` needs, without the tokenizer."""

    architecture: str  # class in transformers
    config: dict[str, Any]
    tensors: dict[str, Tensor]
    unrolled: bool  # shared blocks are exported as copies


def to_huggingface(model: PretrainingModel, origin: Mapping[str, Any] | None = None) -> Exported:
    """A transformers model that computes the same function.

    ``origin`` is the entry of an imported model's manifest. Raises ForeignCheckpointError if a weight is not finite.
    """
    origin = origin or {}
    require_finite(model.state_dict(), "The run's newest checkpoint")
    shape, sharing = model.shape, model.shape.sharing
    layers = [(sharing.index(Part.ATTENTION, i), sharing.index(Part.FFN, i)) for i in range(shape.layers)]
    head = origin.get("classifier_dropout", _CLASSIFIER_DROPOUT)
    unshared = not any(map(shape.share.shares, Part))
    if origin.get("model_type", "bert" if unshared and not shape.has_projection else "albert") == "bert":
        config = _config(model, "bert") | {"classifier_dropout": head}
        return Exported("BertForPreTraining", config, _tensors(model, bert_names(layers)), not unshared)
    kept_groups = origin.get("num_hidden_groups", shape.groups) == shape.groups  # else layers are equal by chance
    tied = all(map(shape.share.shares, Part)) and kept_groups and same_groups(shape.layers // shape.inner, shape.groups)
    n = shape.inner if tied else 1
    stacks: list[Blocks] = [[(g * n + i, g * n + i) for i in range(n)] for g in range(shape.groups)]
    groups: list[Blocks] = stacks if tied else [[pair] for pair in layers]
    sizes = {"embedding_size": shape.embedding_size, "num_hidden_groups": len(groups), "inner_group_num": n}
    sizes |= {"num_hidden_layers": shape.layers // n, "classifier_dropout_prob": head}
    tensors = _tensors(model, albert_names(groups, shape.has_projection))
    return Exported("AlbertForPreTraining", _config(model, "albert") | sizes, tensors, not tied)


def in_order_of(vocabulary: Path, exported: Exported) -> Exported:
    """``exported`` with the rows of the word table, the output bias and special ids in the order of ``vocabulary``."""
    order = torch.from_numpy(row_order(read_vocabulary(vocabulary), exported.config["vocab_size"], vocabulary))
    back = torch.argsort(order)
    tensors = {
        name: tensor[back] if name.endswith(("word_embeddings.weight", "predictions.bias")) else tensor
        for name, tensor in exported.tensors.items()
    }
    ids = {f"{name}_token_id": int(order[i]) for name, i in (("pad", PAD), ("bos", CLS), ("eos", SEP))}
    return replace(exported, config=exported.config | ids, tensors=tensors)


def _config(model: PretrainingModel, kind: str) -> dict[str, Any]:
    shape = model.shape
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


def _tensors(model: PretrainingModel, names: dict[str, str | None]) -> dict[str, Tensor]:
    state = model.state_dict()
    unused = state.keys() - set(names.values())
    assert not unused, unused
    width = model.shape.hidden_size
    identity = {f"{PROJECTION}.weight": torch.eye(width), f"{PROJECTION}.bias": torch.zeros(width)}
    # Cloned, because safetensors refuses tensors that share memory.
    return {name: (identity[name] if ours is None else state[ours]).clone() for name, ours in names.items()}
