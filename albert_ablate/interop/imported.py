"""A checkpoint of transformers' ALBERT or BERT as a model of ours: settings, tensors, what it lacks.

What differs is handled here and nowhere else: tensors with or without the model's prefix, LayerNorm
parameters called gamma and beta, a projection at E = H, several layers in what ALBERT repeats, tied
output weights stored twice, missing heads, and the five spellings of two GELUs. transformers' ALBERT
has no dropout after the feed-forward network; imported models have ours in fine-tuning.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from albert_ablate.axes import Share
from albert_ablate.errors import CheckpointError
from albert_ablate.interop.names import Blocks, albert_names, bert_names
from albert_ablate.model.sharing import layer_blocks

_GELU = {
    "gelu": "gelu_erf", "gelu_python": "gelu_erf", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
}  # fmt: skip
#: Heads that a checkpoint may lack: their names begin so, and what they are called in words.
_HEADS = {
    "pooler.": "pooler", "mlm_head.": "masked-LM head", "sentence_head.": "sentence head",
}  # fmt: skip
#: Stored beside what they repeat or can be computed from.
_REPEATED = ("decoder.weight", "decoder.bias", "position_ids", "token_type_ids")


@dataclass(frozen=True)
class Imported:
    """A checkpoint in our terms."""

    settings: dict[str, dict[str, Any]]  # group -> values, as in config.yaml
    tensors: dict[str, Tensor]  # by our names; those of missing heads are left out
    missing: tuple[str, ...]  # heads that it does not have, in words


def from_huggingface(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Imported:
    """``config.json`` and the tensors of a checkpoint. Raises CheckpointError naming what does not fit."""
    kind = config.get("model_type")
    if kind not in ("albert", "bert"):
        raise CheckpointError(f"config.json: model_type is {kind!r}. ALBERT and BERT can be imported.")
    _refuse(config)
    full = {"inner_group_num": 1, "num_hidden_groups": 1, "type_vocab_size": 2, "layer_norm_eps": 1e-12} | dict(config)
    renamed = _renamed(kind, tensors)
    inner = int(full["inner_group_num"]) if kind == "albert" else 1
    layers = int(full["num_hidden_layers"]) * inner
    groups = int(full["num_hidden_groups"]) if kind == "albert" else layers
    own = groups * inner == layers  # no block serves two layers
    share, count, n = (Share.NONE, 1, 1) if own else (Share.ALL, groups, inner)
    blocks: list[Blocks]
    if kind == "bert":
        names = bert_names([(i, i) for i in range(layers)])
    else:
        blocks = [[(g * inner + i, g * inner + i) for i in range(inner)] for g in range(groups)]
        names = albert_names(blocks, projection=True)
    found, missing = _matched(kind, names, renamed)
    found, projection = _projection(found, full)
    if own and layers > 1:
        share, found = _tied(found, layers)
    settings = _settings(kind, full, share, count, n, layers, projection)
    return Imported(settings, found, missing)


def _refuse(config: Mapping[str, Any]) -> None:
    problems = []
    if config.get("hidden_act", "gelu") not in _GELU:
        problems.append(f"hidden_act is {config['hidden_act']!r}; {', '.join(_GELU)} can be imported")
    if config.get("position_embedding_type", "absolute") != "absolute":
        problems.append(f"position_embedding_type is {config['position_embedding_type']!r}, absolute is needed")
    problems += [f"{name} is set" for name in ("is_decoder", "add_cross_attention") if config.get(name)]
    if problems:
        raise CheckpointError(f"config.json: {'; '.join(problems)}.")


def _renamed(kind: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """With the model's prefix, and LayerNorm's parameters called weight and bias."""
    found = {}
    for name, tensor in tensors.items():
        if name.split(".")[0] in ("embeddings", "encoder", "pooler"):
            name = f"{kind}.{name}"
        name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        found[name] = tensor
    head = "predictions" if kind == "albert" else "cls.predictions"
    if f"{head}.decoder.bias" in found:
        found.setdefault(f"{head}.bias", found[f"{head}.decoder.bias"])
    decoder, table = found.get(f"{head}.decoder.weight"), found.get(f"{kind}.embeddings.word_embeddings.weight")
    if decoder is not None and table is not None and not torch.equal(decoder, table):
        raise CheckpointError(f"{head}.decoder.weight differs from the word embeddings; they are one matrix here.")
    return found


def _matched(
    kind: str, names: Mapping[str, str | None], tensors: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Our names -> tensors; a head is there whole or not at all."""
    absent = {ours: theirs for theirs, ours in names.items() if ours is not None and theirs not in tensors}
    heads = {prefix: [ours for ours in names.values() if ours and ours.startswith(prefix)] for prefix in _HEADS}
    gone = [prefix for prefix, all_of in heads.items() if all(ours in absent for ours in all_of)]
    lacking = sorted(theirs for ours, theirs in absent.items() if not ours.startswith(tuple(gone)))
    extra = sorted(name for name in tensors if name not in names and not name.endswith(_REPEATED))
    if lacking or extra:
        parts = [f"{words}: {', '.join(found)}" for words, found in (("missing", lacking), ("unknown", extra)) if found]
        raise CheckpointError(f"The checkpoint does not fit {kind} as config.json describes it. {'; '.join(parts)}.")
    found = {ours: tensors[theirs] for theirs, ours in names.items() if ours is not None and ours not in absent}
    return found, tuple(_HEADS[prefix] for prefix in gone)


def _projection(found: dict[str, Tensor], config: Mapping[str, Any]) -> tuple[dict[str, Tensor], str]:
    """Without an identity projection at E = H, which ours does without."""
    weight, bias = (found.get(f"encoder.embedding.projection.{name}") for name in ("weight", "bias"))
    if weight is None or bias is None or int(config["embedding_size"]) != int(config["hidden_size"]):
        return found, "auto"
    if torch.equal(weight, torch.eye(len(weight))) and not bias.any():
        return {name: tensor for name, tensor in found.items() if ".projection." not in name}, "auto"
    return found, "always"


def _tied(found: dict[str, Tensor], layers: int) -> tuple[Share, dict[str, Tensor]]:
    """The strategy of an unrolled model whose layers hold copies, and its tensors without them."""
    same = {bank: _equal_blocks(found, bank, layers) for bank in ("attention", "ffn")}
    strategies = {(True, True): Share.ALL, (True, False): Share.ATTENTION, (False, True): Share.FFN}
    share = strategies.get((same["attention"], same["ffn"]), Share.NONE)
    used = {
        f"encoder.{bank}.{layer_blocks(share, i, layers)[place]}."
        for i in range(layers)
        for place, bank in enumerate(same)
    }
    kept = {
        name: tensor
        for name, tensor in found.items()
        if not name.startswith(("encoder.attention.", "encoder.ffn.")) or name.startswith(tuple(used))
    }
    return share, kept


def _equal_blocks(found: Mapping[str, Tensor], bank: str, layers: int) -> bool:
    first = {name: tensor for name, tensor in found.items() if name.startswith(f"encoder.{bank}.0.")}
    return all(
        torch.equal(tensor, found[name.replace(f".{bank}.0.", f".{bank}.{layer}.")])
        for layer in range(1, layers)
        for name, tensor in first.items()
    )


def _settings(
    kind: str, c: Mapping[str, Any], share: Share, groups: int, inner: int, layers: int, projection: str
) -> dict[str, dict[str, Any]]:
    return {
        "embed": {"size": int(c["embedding_size"] if kind == "albert" else c["hidden_size"])},
        "share": {"strategy": share.value, "groups": groups, "inner": inner},
        "objective": {"name": "sop" if kind == "albert" else "nsp"},
        "model": {
            "hidden": int(c["hidden_size"]), "layers": layers, "heads": int(c["num_attention_heads"]),
            "intermediate": int(c["intermediate_size"]), "max_positions": int(c["max_position_embeddings"]),
            "type_vocab": int(c["type_vocab_size"]), "projection": projection,
            "hidden_dropout": float(c.get("hidden_dropout_prob", 0.0)),
            "attention_dropout": float(c.get("attention_probs_dropout_prob", 0.0)),
            "activation": _GELU[c.get("hidden_act", "gelu")],
            "initializer_range": float(c.get("initializer_range", 0.02)),
            "layer_norm_eps": float(c["layer_norm_eps"]),
        },
        "tokenizer": {"vocab_size": int(c["vocab_size"])},
    }  # fmt: skip
