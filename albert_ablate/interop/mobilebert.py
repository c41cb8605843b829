"""Converts models with bottlenecks between this project and transformers' MobileBERT.

transformers computes two of the three sources of attention: queries and keys from a bottleneck of their own (the
released form), or everything from the narrowed input (MobileBERT-tiny). The form of the paper and that of its teacher
are refused. Of its norms, two have PyTorch's epsilon whatever config.json says.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from albert_ablate.axes import Part
from albert_ablate.errors import ForeignCheckpointError
from albert_ablate.interop.exported import Exported, config_of, exported, layers_of, with_types
from albert_ablate.interop.names import Blocks, mobilebert_names
from albert_ablate.model.shape import Shape

KIND = "mobilebert"
#: The matrix of the masked-LM head beside the word table; transformers stores it as (H - E, V).
_EXTRA = "cls.predictions.dense.weight"
_PROJECTION = f"{KIND}.embeddings.embedding_transformation"
#: Epsilon of transformers' LayerNorm in the embedding and after the last feed-forward network.
_EPSILON = 1e-5


def to_mobilebert(shape: Shape, tensors: Mapping[str, Tensor], masked_lm: bool, head: float) -> Exported:
    """A model with bottlenecks as MobileBertForPreTraining, MobileBertForMaskedLM or MobileBertModel.

    ``masked_lm``: whether a masked-LM head was trained; ``head``: dropout of task heads. Raises ForeignCheckpointError
    for a form that transformers does not compute.
    """
    shape, tensors = with_types(shape, tensors)
    has_head = masked_lm and "mlm_head.bias" in tensors
    needed = {
        "model.attention_input=shared or bottleneck": shape.attention_input != "body",
        "model.table_width=hidden": shape.tables_at_hidden, "model.embedding_norm=true": shape.embedding_norm,
        "model.projection=auto": not shape.projection or shape.trigram,
        f"model.layer_norm_eps={_EPSILON:g} or model.norm_type=no_norm":
            not shape.has_statistics or shape.layer_norm_eps == _EPSILON,
        "model.lm_head=extended": shape.lm_head == "extended" or not has_head,
    }  # fmt: skip
    lacking = [setting for setting, fits in needed.items() if not fits]
    if lacking:
        raise ForeignCheckpointError(
            f"No class of transformers computes this model. As MobileBERT it would need {', '.join(lacking)}."
        )
    names = mobilebert_names(
        layers_of(shape), shape.feed_forwards, shape.has_projection, shape.attention_input == "shared",
        shape.pooler == "tanh",
    )  # fmt: skip
    suffix = ("ForPreTraining" if "sentence_head.dense.weight" in tensors else "ForMaskedLM") if has_head else "Model"
    if "mlm_head.extra" in tensors:
        tensors = {**tensors, "mlm_head.extra": tensors["mlm_head.extra"].T.contiguous()}
    model = exported(f"MobileBert{suffix}", _config(shape, head), names, tensors, any(map(shape.share.shares, Part)))
    if has_head and _EXTRA not in model.tensors:  # E = H: a matrix without rows
        model.tensors[_EXTRA] = torch.zeros(0, shape.vocab_size)
    if not shape.has_projection:  # which transformers has and does not use
        width = shape.hidden_size
        model.tensors.update({f"{_PROJECTION}.weight": torch.eye(width), f"{_PROJECTION}.bias": torch.zeros(width)})
    return model


def _config(shape: Shape, head: float) -> dict[str, Any]:
    return config_of(shape, KIND) | {
        "embedding_size": shape.embedding_size, "trigram_input": shape.trigram, "use_bottleneck": True,
        "intra_bottleneck_size": shape.attention_width,
        "use_bottleneck_attention": shape.attention_input == "bottleneck",
        "key_query_shared_bottleneck": shape.attention_input == "shared",
        "num_feedforward_networks": shape.feed_forwards, "normalization_type": shape.norm_type,
        "classifier_activation": shape.pooler == "tanh", "classifier_dropout": head,
    }  # fmt: skip


def names_of(config: Mapping[str, Any], blocks: Blocks) -> dict[str, str | None]:
    """The names of an imported model's tensors."""
    names = mobilebert_names(
        blocks, config["num_feedforward_networks"], _projects(config), _source(config) == "shared",
        config["classifier_activation"],
    )  # fmt: skip
    if config["embedding_size"] == config["hidden_size"]:
        del names[_EXTRA]
    return names


def banks(config: Mapping[str, Any]) -> dict[Part, dict[str, int]]:
    """Part of a layer -> its banks, with the number of blocks that a layer has of each."""
    inside = {"inner_ffn": config["num_feedforward_networks"], "expansion": 1}
    return {Part.ATTENTION: {"reduction": 1, "bottleneck_attention": 1}, Part.FFN: inside}


def settings_of(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Settings that only MobileBERT has."""
    return {
        "block": {"type": "mobilebert"},
        "model": {
            "norm_type": config["normalization_type"], "trigram": config["trigram_input"], "table_width": "hidden",
            "pooler": "tanh" if config["classifier_activation"] else "bare", "lm_head": "extended",
            "block_width": config["intra_bottleneck_size"], "feed_forwards": config["num_feedforward_networks"],
            "attention_input": _source(config),
        },
    }  # fmt: skip


def _projects(config: Mapping[str, Any]) -> bool:
    projects: bool = config["trigram_input"] or config["embedding_size"] != config["hidden_size"]
    return projects


def _source(config: Mapping[str, Any]) -> str:
    if config["use_bottleneck_attention"]:
        return "bottleneck"
    return "shared" if config["key_query_shared_bottleneck"] else "body"


def require_computed(config: Mapping[str, Any]) -> None:
    """Raise ForeignCheckpointError for a form that transformers does not compute, or computes with two epsilons."""
    if _source(config) == "body":
        raise ForeignCheckpointError(
            "config.json: use_bottleneck_attention and key_query_shared_bottleneck are false; transformers cannot run "
            "such a MobileBERT. One of them is needed."
        )
    if config["normalization_type"] == "layer_norm" and config["layer_norm_eps"] != _EPSILON:
        raise ForeignCheckpointError(
            f"config.json: layer_norm_eps is {config['layer_norm_eps']}; with layer_norm, transformers' MobileBERT has "
            f"{_EPSILON:g} in some norms whatever it says, and a model here has one epsilon. {_EPSILON:g} is needed."
        )


def of_mobilebert(config: Mapping[str, Any], tensors: Mapping[str, Tensor], hint: str) -> dict[str, Tensor]:
    """The tensors that a model here has: the extra output matrix as (V, H - E), nothing that is unused.

    transformers' default gives a model whose attention is inside the bottleneck a shared one too, and every model has a
    projection of the embedding.
    ``hint``: a sentence that a message on sizes ends with. Raises ForeignCheckpointError for sizes other than
    config.json's.
    """
    unused = [".bottleneck.attention."] if _source(config) == "bottleneck" else []
    unused += [] if _projects(config) else [f"{_PROJECTION}."]
    kept = {name: tensor for name, tensor in tensors.items() if not any(part in name for part in unused)}
    _require_sizes(config, kept, hint)
    extra = kept.get(_EXTRA)
    if extra is not None and config["hidden_size"] > config["embedding_size"]:
        kept[_EXTRA] = extra.T.contiguous()
    elif extra is not None:
        del kept[_EXTRA]
    return kept


def _require_sizes(c: Mapping[str, Any], tensors: Mapping[str, Tensor], hint: str) -> None:
    h, w = ("hidden_size",), ("intra_bottleneck_size",)
    first = f"{KIND}.encoder.layer.0"
    expected = {
        f"{KIND}.embeddings.word_embeddings.weight": ("vocab_size", "embedding_size"),
        f"{KIND}.embeddings.position_embeddings.weight": ("max_position_embeddings", *h),
        f"{KIND}.embeddings.token_type_embeddings.weight": ("type_vocab_size", *h),
        f"{first}.bottleneck.input.dense.weight": (*w, *h), f"{first}.attention.self.query.weight": (*w, *w),
        f"{first}.intermediate.dense.weight": ("intermediate_size", *w),
    }  # fmt: skip
    wrong = [
        f"{name} is {list(tensors[name].shape)}, but {' x '.join(f'{field}={c[field]}' for field in fields)}"
        for name, fields in expected.items()
        if name in tensors and list(tensors[name].shape) != [c[field] for field in fields]
    ]
    extra, narrow = tensors.get(_EXTRA), c["hidden_size"] - c["embedding_size"]
    if extra is not None and list(extra.shape) != [narrow, c["vocab_size"]]:
        wrong.append(
            f"{_EXTRA} is {list(extra.shape)}, but hidden_size - embedding_size={narrow} x vocab_size={c['vocab_size']}"
        )
    if wrong:
        raise ForeignCheckpointError(f"The tensors do not fit config.json: {'; '.join(wrong)}.{hint}")
