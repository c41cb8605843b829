"""A checkpoint of transformers' ALBERT or BERT as a model of ours: settings, tensors, what it lacks.

What differs is handled here and nowhere else: tensors with or without the model's prefix, LayerNorm
parameters called gamma and beta, a projection at E = H, several layers in what ALBERT repeats, tied
output weights stored twice, missing heads, heads of tasks. transformers' ALBERT has no dropout after
the feed-forward network; imported models have ours in fine-tuning.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from albert_ablate.axes import Objective, Part, Share
from albert_ablate.errors import ForeignCheckpointError
from albert_ablate.interop.config_json import GELU, complete, defaulted
from albert_ablate.interop.names import PROJECTION, Blocks, albert_names, bert_names
from albert_ablate.model.sharing import Sharing

#: Heads that a checkpoint may lack: their names begin so, and what they are called in words.
_HEADS = {
    "pooler.": "pooler", "mlm_head.": "masked-LM head", "sentence_head.": "sentence head",
}  # fmt: skip
#: Buffers that older versions stored; they hold 0, 1, 2, ... and zeros.
_BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")
#: What transformers puts on the encoder for a task: classes, or where an answer starts and ends.
_TASK_HEADS = ("classifier.", "qa_outputs.")
#: Tensors that are named where many do not fit.
_NAMED = 12


@dataclass(frozen=True)
class Imported:
    """A checkpoint in our terms."""

    settings: dict[str, dict[str, Any]]  # group -> values, as in config.yaml
    tensors: dict[str, Tensor]  # by our names; those of missing heads are left out
    missing: tuple[str, ...]  # heads that it does not have, in words
    left_out: tuple[str, ...]  # tensors of a task's head


def from_huggingface(described: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Imported:
    """``config.json`` and the tensors of a checkpoint. Raises ForeignCheckpointError naming what does not fit."""
    config = complete(described)
    kind = config["model_type"]
    left_out = tuple(sorted(name for name in tensors if name.startswith(_TASK_HEADS)))
    renamed = _renamed(kind, {name: tensor for name, tensor in tensors.items() if name not in left_out})
    renamed = _untied(kind, renamed, config["tie_word_embeddings"])
    _require_sizes(kind, config, renamed, defaulted(described))
    inner = config["inner_group_num"] if kind == "albert" else 1
    layers = config["num_hidden_layers"] * inner
    groups = config["num_hidden_groups"] if kind == "albert" else layers
    own = groups * inner == layers  # no block serves two layers
    unshared = own and inner == 1  # where a stack is repeated, it keeps its name
    share, count, n = (Share.NONE, 1, 1) if unshared else (Share.ALL, groups, inner)
    blocks: list[Blocks]
    if kind == "bert":
        names = bert_names([(i, i) for i in range(layers)])
    else:
        blocks = [[(g * inner + i, g * inner + i) for i in range(inner)] for g in range(groups)]
        names = albert_names(blocks, projection=True)
    found, missing = _matched(kind, names, renamed)
    found, projection = _projection(found, config)
    if unshared and layers > 1:
        share, found = _tied(found, layers)
    settings = _settings(kind, config, share, count, n, layers, projection)
    return Imported(settings, found, missing, left_out)


def _renamed(kind: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """With the model's prefix, and LayerNorm's parameters called weight and bias; without stored buffers."""
    found: dict[str, Tensor] = {}
    for stored, tensor in tensors.items():
        name = f"{kind}.{stored}" if stored.split(".")[0] in ("embeddings", "encoder", "pooler") else stored
        name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        if name in (f"{kind}.{buffer}" for buffer in _BUFFERS):
            continue
        if name in found:
            raise ForeignCheckpointError(f"The checkpoint holds {name} twice, once under another name.")
        found[name] = tensor
    return found


def _untied(kind: str, tensors: Mapping[str, Tensor], tied: bool) -> dict[str, Tensor]:
    """Without the decoder that stands beside the word table; its bias counts, as in transformers.

    Raises ForeignCheckpointError where the two matrices differ, or where transformers would draw a new one.
    """
    head = "predictions" if kind == "albert" else "cls.predictions"
    decoder = f"{head}.decoder"
    found = {name: tensor for name, tensor in tensors.items() if not name.startswith(f"{decoder}.")}
    stored, table = tensors.get(f"{decoder}.weight"), found.get(f"{kind}.embeddings.word_embeddings.weight")
    if stored is not None and table is not None and not torch.equal(stored, table):
        raise ForeignCheckpointError(f"{decoder}.weight differs from the word embeddings; they are one matrix here.")
    absent = [name for name in (f"{decoder}.weight", f"{decoder}.bias") if name not in tensors]
    if not tied and absent and any(name.startswith(f"{head}.") for name in tensors):
        raise ForeignCheckpointError(
            f"config.json: tie_word_embeddings is false, but the checkpoint has no {' and no '.join(absent)}: "
            "transformers draws new values there. Set it to true if the output weights are the word embeddings."
        )
    if f"{decoder}.bias" in tensors:
        found[f"{head}.bias"] = tensors[f"{decoder}.bias"]
    unknown = [name for name in tensors if name not in found and name.removeprefix(decoder) not in (".weight", ".bias")]
    return found | {name: tensors[name] for name in unknown}


def _require_sizes(kind: str, c: Mapping[str, Any], tensors: Mapping[str, Tensor], hint: str) -> None:
    """Raise ForeignCheckpointError where a size of config.json is not that of the tensors: before a model is built."""
    width = "embedding_size" if kind == "albert" else "hidden_size"
    table = f"{kind}.embeddings"
    query, ffn = (
        ("albert_layer_groups.0.albert_layers.0.attention.query", "albert_layer_groups.0.albert_layers.0.ffn")
        if kind == "albert"
        else ("layer.0.attention.self.query", "layer.0.intermediate.dense")
    )
    expected = {
        f"{table}.word_embeddings.weight": ("vocab_size", width),
        f"{table}.position_embeddings.weight": ("max_position_embeddings", width),
        f"{table}.token_type_embeddings.weight": ("type_vocab_size", width),
        f"{kind}.encoder.{query}.weight": ("hidden_size", "hidden_size"),
        f"{kind}.encoder.{ffn}.weight": ("intermediate_size", "hidden_size"),
        f"{PROJECTION}.weight": ("hidden_size", "embedding_size"),
    }
    wrong = [
        f"{name} is {list(tensors[name].shape)}, but {' x '.join(f'{field}={c[field]}' for field in fields)}"
        for name, fields in expected.items()
        if name in tensors and list(tensors[name].shape) != [c[field] for field in fields]
    ]
    if wrong:
        raise ForeignCheckpointError(f"The tensors do not fit config.json: {'; '.join(wrong)}.{hint}")


def _matched(
    kind: str, names: Mapping[str, str | None], tensors: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Our names -> tensors; a head is there whole or not at all."""
    absent = {ours: theirs for theirs, ours in names.items() if ours is not None and theirs not in tensors}
    heads = {prefix: [ours for ours in names.values() if ours and ours.startswith(prefix)] for prefix in _HEADS}
    gone = [prefix for prefix, all_of in heads.items() if all(ours in absent for ours in all_of)]
    lacking = sorted(theirs for ours, theirs in absent.items() if not ours.startswith(tuple(gone)))
    extra = sorted(name for name in tensors if name not in names)
    if lacking or extra:
        parts = [f"{words}: {some(found)}" for words, found in (("missing", lacking), ("unknown", extra)) if found]
        raise ForeignCheckpointError(
            f"The checkpoint does not fit {kind} as config.json describes it. {'; '.join(parts)}."
        )
    found = {ours: tensors[theirs] for theirs, ours in names.items() if ours is not None and ours not in absent}
    return found, tuple(_HEADS[prefix] for prefix in gone)


def some(names: Iterable[str]) -> str:
    """The first of ``names``, and how many more there are."""
    every = list(names)
    more = f" and {len(every) - _NAMED:,} more" if len(every) > _NAMED else ""
    return ", ".join(every[:_NAMED]) + more


def _projection(found: dict[str, Tensor], config: Mapping[str, Any]) -> tuple[dict[str, Tensor], str]:
    """Without an identity projection at E = H, which ours does without."""
    weight, bias = (found.get(f"encoder.embedding.projection.{name}") for name in ("weight", "bias"))
    if weight is None or bias is None or config["embedding_size"] != config["hidden_size"]:
        return found, "auto"
    if torch.equal(weight, torch.eye(len(weight))) and not bias.any():
        return {name: tensor for name, tensor in found.items() if ".projection." not in name}, "auto"
    return found, "always"


def _tied(found: dict[str, Tensor], layers: int) -> tuple[Share, dict[str, Tensor]]:
    """The strategy of an unrolled model whose layers hold copies, and its tensors without them."""
    shared = {part for part in Part if _equal_blocks(found, part, layers)}
    share = Share.of(shared)
    sharing = Sharing(share, layers)
    used = {f"encoder.{part}.{sharing.index(part, layer)}." for layer in range(layers) for part in Part}
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
        "embed": {"size": c["embedding_size"] if kind == "albert" else c["hidden_size"]},
        "share": {"strategy": share.value, "groups": groups, "inner": inner},
        "objective": {"name": (Objective.SOP if kind == "albert" else Objective.NSP).value},
        "model": {
            "hidden": c["hidden_size"], "layers": layers, "heads": c["num_attention_heads"],
            "intermediate": c["intermediate_size"], "max_positions": c["max_position_embeddings"],
            "type_vocab": c["type_vocab_size"], "projection": projection,
            "hidden_dropout": float(c["hidden_dropout_prob"]),
            "attention_dropout": float(c["attention_probs_dropout_prob"]),
            "activation": GELU[c["hidden_act"]],
            "initializer_range": c["initializer_range"],
            "layer_norm_eps": c["layer_norm_eps"],
        },
        "tokenizer": {"vocab_size": c["vocab_size"]},
    }  # fmt: skip
