"""A model as transformers reads it: class, configuration and tensors under transformers' names."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from albert_ablate.axes import Part
from albert_ablate.data.tokenizer import CLS, PAD, SEP
from albert_ablate.interop.names import PROJECTION, Blocks
from albert_ablate.model.shape import Shape

_ACTIVATIONS = {"gelu_tanh": "gelu_new", "gelu_erf": "gelu", "relu": "relu"}
#: Heads that some classes lack: prefix of their tensors -> name for the user.
_HEADS = {
    "pooler.": "pooler", "sentence_head.": "sentence head", "copy_gate.": "copy gate", "mlm_head.": "masked-LM head",
}  # fmt: skip
#: How the names of classes end that predict the next piece.
_CAUSAL = ("LMHeadModel", "ForCausalLM")
_PREDICTING = ("sentence_head.", "mlm_head.")


@dataclass(frozen=True)
class Exported:
    """What ``from_pretrained`` needs, without the tokenizer."""

    architecture: str  # class in transformers
    config: dict[str, Any]
    tensors: dict[str, Tensor]
    unrolled: bool  # shared blocks are exported as copies
    left_out: tuple[str, ...] = ()  # heads of the run that the class lacks

    @property
    def predicts_next(self) -> bool:
        """Whether it is a causal LM."""
        return self.architecture.endswith(_CAUSAL)

    @property
    def bare(self) -> bool:
        """Whether the class has no head that predicts pieces."""
        return is_bare(self.architecture)


def is_bare(architecture: str) -> bool:
    """Whether a class of transformers has no head that predicts pieces or sentences."""
    return architecture.endswith("Model") and not architecture.endswith(_CAUSAL)


def with_types(shape: Shape, tensors: Mapping[str, Tensor]) -> tuple[Shape, Mapping[str, Tensor]]:
    """The same function with a table of two token types, of zeros if there was none."""
    if shape.type_vocab_size:
        return shape, tensors
    zeros = torch.zeros(2, shape.hidden_size if shape.tables_at_hidden else shape.embedding_size)
    return replace(shape, type_vocab_size=2), {**tensors, "encoder.embedding.token_type.weight": zeros}


def layers_of(shape: Shape) -> Blocks:
    """For each layer, the indices of its blocks."""
    sharing = shape.sharing
    return [(sharing.index(Part.ATTENTION, i), sharing.index(Part.FFN, i)) for i in range(shape.layers)]


def config_of(shape: Shape, kind: str) -> dict[str, Any]:
    """Content of ``config.json`` under BERT's names, for the ``model_type`` ``kind``."""
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


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Every tensor under each of its names, those that are tied to another part's too."""
    return {name: tensor.detach() for name, tensor in module.named_parameters(remove_duplicate=False)}


def exported(
    kind: str, config: dict[str, Any], names: Mapping[str, str | None], tensors: Mapping[str, Tensor], unrolled: bool
) -> Exported:
    """The tensors under transformers' ``names``; a head that has no such name is left out. A bare model has no head."""
    if is_bare(kind):
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
