"""Tensor names of transformers' ALBERT and BERT, mapped to the names of this project.

If one block of this project serves several layers of transformers, several names map to it. ``None``
marks a tensor that this project does not have: the identity projection of transformers' ALBERT at E = H.
"""

from collections.abc import Sequence

#: Name in transformers -> name here, within one layer's attention block.
_ALBERT_ATTENTION = {
    "attention.query": "query", "attention.key": "key", "attention.value": "value", "attention.dense": "output",
    "attention.LayerNorm": "norm",
}  # fmt: skip
_ALBERT_FFN = {"ffn": "inner", "ffn_output": "outer", "full_layer_layer_norm": "norm"}
_BERT_ATTENTION = {
    "attention.self.query": "query", "attention.self.key": "key", "attention.self.value": "value",
    "attention.output.dense": "output", "attention.output.LayerNorm": "norm",
}  # fmt: skip
_BERT_FFN = {"intermediate.dense": "inner", "output.dense": "outer", "output.LayerNorm": "norm"}
_TABLES = {
    "embeddings.word_embeddings": "word", "embeddings.position_embeddings": "position",
    "embeddings.token_type_embeddings": "token_type",
}  # fmt: skip
PROJECTION = "albert.encoder.embedding_hidden_mapping_in"

#: For each block of transformers, in order: the indices of this project's attention and feed-forward block.
Blocks = Sequence[tuple[int, int]]


def albert_names(groups: Sequence[Blocks], projection: bool) -> dict[str, str | None]:
    """Names of AlbertForPreTraining. ``groups``: for each inner block of each group, the indices of its blocks here."""
    names = _tables("albert")
    for name in ("weight", "bias"):
        names[f"{PROJECTION}.{name}"] = f"encoder.embedding.projection.{name}" if projection else None
    for group, blocks in enumerate(groups):
        for inner, (attention, ffn) in enumerate(blocks):
            layer = f"albert.encoder.albert_layer_groups.{group}.albert_layers.{inner}"
            names |= _block(layer, _ALBERT_ATTENTION, f"encoder.attention.{attention}")
            names |= _block(layer, _ALBERT_FFN, f"encoder.ffn.{ffn}")
    names |= _pair("albert.pooler", "pooler.dense") | _pair("predictions.dense", "mlm_head.dense")
    names |= _pair("predictions.LayerNorm", "mlm_head.norm") | {"predictions.bias": "mlm_head.bias"}
    return names | _pair("sop_classifier.classifier", "sentence_head.dense")


def bert_names(layers: Blocks) -> dict[str, str | None]:
    """Names of BertForPreTraining. ``layers``: for each layer, the indices of its blocks here."""
    names = _tables("bert")
    for layer, (attention, ffn) in enumerate(layers):
        names |= _block(f"bert.encoder.layer.{layer}", _BERT_ATTENTION, f"encoder.attention.{attention}")
        names |= _block(f"bert.encoder.layer.{layer}", _BERT_FFN, f"encoder.ffn.{ffn}")
    names |= _pair("bert.pooler.dense", "pooler.dense")
    names |= _pair("cls.predictions.transform.dense", "mlm_head.dense")
    names |= _pair("cls.predictions.transform.LayerNorm", "mlm_head.norm")
    names |= {"cls.predictions.bias": "mlm_head.bias"}
    return names | _pair("cls.seq_relationship", "sentence_head.dense")


def _tables(model: str) -> dict[str, str | None]:
    names: dict[str, str | None] = {
        f"{model}.{foreign}.weight": f"encoder.embedding.{ours}.weight" for foreign, ours in _TABLES.items()
    }
    return names | _pair(f"{model}.embeddings.LayerNorm", "encoder.embedding.norm")


def _block(layer: str, parts: dict[str, str], ours: str) -> dict[str, str | None]:
    return {
        foreign_name: our_name
        for foreign, part in parts.items()
        for foreign_name, our_name in _pair(f"{layer}.{foreign}", f"{ours}.{part}").items()
    }


def _pair(foreign: str, ours: str) -> dict[str, str | None]:
    return {f"{foreign}.{name}": f"{ours}.{name}" for name in ("weight", "bias")}
