"""``config.json`` of transformers' models of ``DEFAULTS``, as transformers reads it.

Missing fields have transformers' defaults, which differ: without ``hidden_act`` ALBERT has the tanh GELU,
GPT-2 and BigBird too, MobileBERT ReLU, and the others the erf GELU; without dropout fields the others drop 10% and
ALBERT nothing
(transformers 5, ``AlbertConfig``, ``BertConfig``, ``DistilBertConfig``, ``ElectraConfig``, ``GPT2Config`` and
``MobileBertConfig``). Types are checked as strictly as in transformers. A value that transformers accepts and this
project does not support is refused, naming the field.
"""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from albert_ablate.errors import ForeignCheckpointError

#: ``hidden_act`` of transformers -> ``model.activation``.
GELU = {
    "gelu": "gelu_erf", "gelu_python": "gelu_erf", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
}  # fmt: skip
#: The same, with the one of MobileBERT, which transformers' other models have only if their config.json says so.
ACTIVATIONS = GELU | {"relu": "relu"}
_COMMON: dict[str, Any] = {
    "max_position_embeddings": 512, "type_vocab_size": 2, "initializer_range": 0.02, "layer_norm_eps": 1e-12,
    "pad_token_id": 0, "tie_word_embeddings": True, "architectures": None, "chunk_size_feed_forward": 0,
}  # fmt: skip
#: ``model_type`` -> its fields with other names -> those of BERT.
_RENAMED = {
  "distilbert": {
    "dim": "hidden_size", "n_layers": "num_hidden_layers", "n_heads": "num_attention_heads",
    "hidden_dim": "intermediate_size", "activation": "hidden_act", "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob", "seq_classif_dropout": "classifier_dropout",
  },
  "gpt2": {
    "n_embd": "hidden_size", "n_layer": "num_hidden_layers", "n_head": "num_attention_heads",
    "n_inner": "intermediate_size", "n_positions": "max_position_embeddings", "activation_function": "hidden_act",
    "resid_pdrop": "hidden_dropout_prob", "attn_pdrop": "attention_probs_dropout_prob",
    "layer_norm_epsilon": "layer_norm_eps",
  },
}  # fmt: skip
#: transformers' defaults.
DEFAULTS: dict[str, dict[str, Any]] = {
    "albert": _COMMON | {
        "vocab_size": 30000, "embedding_size": 128, "hidden_size": 4096, "num_hidden_layers": 12,
        "num_hidden_groups": 1, "num_attention_heads": 64, "intermediate_size": 16384, "inner_group_num": 1,
        "hidden_act": "gelu_new", "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
        "classifier_dropout_prob": 0.1,
    },
    "bert": _COMMON | {
        "vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
        "intermediate_size": 3072, "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1, "classifier_dropout": None,
    },
    "big_bird": _COMMON | {
        "vocab_size": 50358, "max_position_embeddings": 4096, "hidden_size": 768, "num_hidden_layers": 12,
        "num_attention_heads": 12, "intermediate_size": 3072, "hidden_act": "gelu_new", "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1, "classifier_dropout": None, "attention_type": "block_sparse",
        "block_size": 64, "num_random_blocks": 3,
    },
    "distilbert": {
        "vocab_size": 30522, "max_position_embeddings": 512, "dim": 768, "n_layers": 6, "n_heads": 12,
        "hidden_dim": 3072, "activation": "gelu", "dropout": 0.1, "attention_dropout": 0.1, "seq_classif_dropout": 0.2,
        "qa_dropout": 0.1, "initializer_range": 0.02, "sinusoidal_pos_embds": False, "pad_token_id": 0,
        "tie_word_embeddings": True, "architectures": None, "chunk_size_feed_forward": 0,
    },
    "electra": _COMMON | {
        "vocab_size": 30522, "embedding_size": 128, "hidden_size": 256, "num_hidden_layers": 12,
        "num_attention_heads": 4, "intermediate_size": 1024, "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1, "classifier_dropout": None,
    },
    "mobilebert": _COMMON | {
        "vocab_size": 30522, "hidden_size": 512, "num_hidden_layers": 24, "num_attention_heads": 4,
        "intermediate_size": 512, "hidden_act": "relu", "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.1, "embedding_size": 128, "trigram_input": True, "use_bottleneck": True,
        "intra_bottleneck_size": 128, "use_bottleneck_attention": False, "key_query_shared_bottleneck": True,
        "num_feedforward_networks": 4, "normalization_type": "no_norm", "classifier_activation": True,
        "classifier_dropout": None,
    },
    "gpt2": {
        "vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12, "n_inner": None,
        "activation_function": "gelu_new", "resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1,
        "layer_norm_epsilon": 1e-5, "initializer_range": 0.02, "pad_token_id": None, "tie_word_embeddings": True,
        "architectures": None,
    },
}  # fmt: skip
#: Smallest value that a model supports, if it is not 1.
_LEAST = {
    "vocab_size": 32,
    "max_position_embeddings": 8,
    "n_positions": 8,
    "type_vocab_size": 2,
    "chunk_size_feed_forward": 0,
}
#: More layers are refused as a mistake.
_MOST_LAYERS = 1000
#: Fields that change the meaning of the weights -> values at which they do not.
_PLAIN: dict[str, tuple[Any, ...]] = {
    "is_decoder": (False,), "add_cross_attention": (False,), "is_encoder_decoder": (False,),
    "position_embedding_type": ("absolute",), "pruned_heads": (None, {}), "quantization_config": (None,),
    "use_bias": (True,), "rescale_embeddings": (False,),
    "scale_attn_weights": (True,), "use_bottleneck": (True,), "scale_attn_by_inverse_layer_idx": (False,),
    "dtype": (None, "float32", "float16", "bfloat16", "float64"),
}  # fmt: skip


def complete(config: Mapping[str, Any], file: str = "config.json") -> dict[str, Any]:
    """``config`` with all defaults filled in; DistilBERT's and GPT-2's under BERT's names too.

    Raises ForeignCheckpointError naming each wrong field.
    """
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in DEFAULTS:
        raise ForeignCheckpointError(
            f"{file}: model_type is {_shown(kind)}. ALBERT, BERT, BigBird, DistilBERT, ELECTRA, GPT-2 and MobileBERT "
            "can be "
            "imported."
        )
    full = DEFAULTS[kind] | dict(config)
    problems = [f"{name} is {_shown(full[name])}; {why}" for name, why in _wrong_values(kind, full).items()]
    problems += [
        f"{name} is {_shown(full[name])}; {' or '.join(map(_shown, plain))} is needed"
        for name, plain in _PLAIN.items()
        if name in full and not any(type(full[name]) is type(value) and full[name] == value for value in plain)
    ]
    if kind == "distilbert":
        full["layer_norm_eps"] = 1e-12
    full |= {common: full[own] for own, common in _RENAMED.get(kind, {}).items()}
    if kind == "gpt2" and full["n_inner"] is None:
        full["intermediate_size"] = 4 * full["n_embd"] if _is_whole(full["n_embd"]) else None
    problems = problems or _contradictions(kind, full)
    if problems:
        raise ForeignCheckpointError(f"{file}: {'; '.join(problems)}.{defaulted(config)}")
    return full


def defaulted(config: Mapping[str, Any]) -> str:
    """A sentence that lists the sizes taken from transformers' defaults; empty if ``config`` sets all of them."""
    defaults = DEFAULTS[config["model_type"]]
    left = [
        f"{name}={value}" for name, value in defaults.items() if name not in config and _is_whole(value) and value > 1
    ]
    return f" What it leaves out has transformers' default: {', '.join(left)}." if left else ""


def field_of(kind: str, name: str) -> str:
    """What the ``config.json`` of a model calls BERT's field ``name``."""
    own = {common: own for own, common in _RENAMED.get(kind, {}).items()}
    return own.get(name, name)


def kept_for_export(described: Mapping[str, Any]) -> dict[str, Any]:
    """Fields that only an export needs: the class, its groups, and the dropout of task heads.

    BERT and ELECTRA without a dropout of task heads use that of the hidden states.
    """
    config = complete(described)
    fields: dict[str, Any]
    if config["model_type"] == "gpt2":
        fields = {}
    elif config["model_type"] == "albert":
        fields = {
            "num_hidden_groups": config["num_hidden_groups"],
            "classifier_dropout": config["classifier_dropout_prob"],
        }
    else:
        dropout = config["classifier_dropout"]
        fields = {"classifier_dropout": config["hidden_dropout_prob"] if dropout is None else dropout}
    return {"model_type": config["model_type"], **fields}


def _wrong_values(kind: str, full: Mapping[str, Any]) -> dict[str, str]:
    """Each wrong field -> the expected values."""
    wrong = {}
    for name, default in DEFAULTS[kind].items():
        fits, expected = _expectation(name, default)
        if not fits(full[name]):
            wrong[name] = expected
    pad, rows = full["pad_token_id"], full["vocab_size"]
    if "pad_token_id" not in wrong and pad is not None and _is_whole(rows) and not -rows <= pad < rows:
        wrong["pad_token_id"] = f"the vocabulary has {rows} rows"
    return wrong


def _expectation(name: str, default: Any) -> tuple[Callable[[Any], bool], str]:
    if name == "pad_token_id":
        return lambda value: value is None or _is_whole(value), "a whole number or null is expected"
    if name == "architectures":
        return lambda value: value is None or _are_names(value), "a list of names is expected"
    if name == "attention_type":
        return lambda value: value in ("block_sparse", "original_full"), "block_sparse or original_full is expected"
    if name == "n_inner":
        return lambda value: value is None or (_is_whole(value) and value >= 1), "a whole number or null is expected"
    if name == "normalization_type":
        return lambda value: value in ("no_norm", "layer_norm"), "no_norm or layer_norm is expected"
    if default == "relu":
        return (
            lambda value: isinstance(value, str) and value in ACTIVATIONS,
            f"{', '.join(ACTIVATIONS)} can be imported",
        )
    if name in ("hidden_act", "activation", "activation_function"):
        return lambda value: isinstance(value, str) and value in GELU, f"{', '.join(GELU)} can be imported"
    if isinstance(default, bool):
        return lambda value: isinstance(value, bool), "true or false is expected"
    if isinstance(default, int):
        least = _LEAST.get(name, 1)
        return lambda value: _is_whole(value) and value >= least, f"a whole number of {least} or more is expected"
    if "dropout" in name or name.endswith("pdrop"):
        empty = default is None
        fits = lambda value: (empty and value is None) or (_is_number(value) and 0 <= value < 1)  # noqa: E731
        return fits, "a number from 0 to below 1 is expected"
    return lambda value: isinstance(value, float) and math.isfinite(value) and value > 0, "a number above 0 is expected"


def _contradictions(kind: str, full: Mapping[str, Any]) -> list[str]:
    """Problems of fields that are valid by themselves but not together."""
    problems: list[str] = []
    fields = ("intra_bottleneck_size" if kind == "mobilebert" else "hidden_size", "num_attention_heads",
              "num_hidden_layers")  # fmt: skip
    hidden, heads, layers = (full[field] for field in fields)
    width_field, heads_field, layers_field = (field_of(kind, field) for field in fields)
    if hidden % heads:
        problems.append(f"{heads_field} is {heads}, which does not divide {width_field}={hidden}")
    if kind == "gpt2" and full["embd_pdrop"] != full["resid_pdrop"]:
        problems.append(
            f"embd_pdrop is {full['embd_pdrop']} and resid_pdrop {full['resid_pdrop']}; a model here has one dropout "
            "rate for both"
        )
    inner, groups = (full["inner_group_num"], full["num_hidden_groups"]) if kind == "albert" else (1, 1)
    if layers * inner > _MOST_LAYERS:
        times = f" x inner_group_num={inner}" if inner > 1 else ""
        problems.append(f"{layers_field}={layers}{times} is more than {_MOST_LAYERS:,} layers")
    elif groups > layers:
        problems.append(f"num_hidden_groups is {groups}, but num_hidden_layers is {layers}: a group needs a layer")
    elif not same_groups(layers, groups):
        problems.append(
            f"num_hidden_layers={layers} in num_hidden_groups={groups}: by transformers' rounding a layer falls into "
            "another group than here"
        )
    return problems


def same_groups(layers: int, groups: int) -> bool:
    """Whether transformers' ALBERT, which divides floats, assigns every layer to the same group as this project."""
    return all(int(layer / (layers / groups)) == layer * groups // layers for layer in range(layers))


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    shown = json.dumps(value) if value is None or isinstance(value, bool) else repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
