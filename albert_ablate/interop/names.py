"""Tensor names of transformers' ALBERT and BERT, and what they are called here.

A map goes from their name to ours: where one of our blocks serves several layers of theirs, several
names lead to it. ``None`` stands for a tensor that ours does without: the identity projection that
transformers' ALBERT has where E = H.
"""

from collections.abc import Sequence

#: Their name -> ours, of one layer's attention block.
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

#: For each of their blocks, in their order: the place of our attention and of our feed-forward block.
Blocks = Sequence[tuple[int, int]]


def albert_names(groups: Sequence[Blocks], projection: bool) -> dict[str, str | None]:
    """Their ALBERT for pretraining: ``groups`` of inner blocks, each with the blocks of ours that it holds."""
    found = _tables("albert")
    for name in ("weight", "bias"):
        found[f"{PROJECTION}.{name}"] = f"encoder.embedding.projection.{name}" if projection else None
    for group, blocks in enumerate(groups):
        for inner, (attention, ffn) in enumerate(blocks):
            layer = f"albert.encoder.albert_layer_groups.{group}.albert_layers.{inner}"
            found |= _block(layer, _ALBERT_ATTENTION, f"encoder.attention.{attention}")
            found |= _block(layer, _ALBERT_FFN, f"encoder.ffn.{ffn}")
    found |= _pair("albert.pooler", "pooler.dense") | _pair("predictions.dense", "mlm_head.dense")
    found |= _pair("predictions.LayerNorm", "mlm_head.norm") | {"predictions.bias": "mlm_head.bias"}
    return found | _pair("sop_classifier.classifier", "sentence_head.dense")


def bert_names(layers: Blocks) -> dict[str, str | None]:
    """Their BERT for pretraining: each of ``layers`` with the blocks of ours that it holds."""
    found = _tables("bert")
    for place, (attention, ffn) in enumerate(layers):
        found |= _block(f"bert.encoder.layer.{place}", _BERT_ATTENTION, f"encoder.attention.{attention}")
        found |= _block(f"bert.encoder.layer.{place}", _BERT_FFN, f"encoder.ffn.{ffn}")
    found |= _pair("bert.pooler.dense", "pooler.dense")
    found |= _pair("cls.predictions.transform.dense", "mlm_head.dense")
    found |= _pair("cls.predictions.transform.LayerNorm", "mlm_head.norm")
    found |= {"cls.predictions.bias": "mlm_head.bias"}
    return found | _pair("cls.seq_relationship", "sentence_head.dense")


def _tables(model: str) -> dict[str, str | None]:
    found: dict[str, str | None] = {
        f"{model}.{theirs}.weight": f"encoder.embedding.{ours}.weight" for theirs, ours in _TABLES.items()
    }
    return found | _pair(f"{model}.embeddings.LayerNorm", "encoder.embedding.norm")


def _block(layer: str, parts: dict[str, str], ours: str) -> dict[str, str | None]:
    return {
        name: mine
        for theirs, part in parts.items()
        for name, mine in _pair(f"{layer}.{theirs}", f"{ours}.{part}").items()
    }


def _pair(theirs: str, ours: str) -> dict[str, str | None]:
    return {f"{theirs}.{name}": f"{ours}.{name}" for name in ("weight", "bias")}
