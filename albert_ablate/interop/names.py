"""Tensor names of transformers' models (ALBERT, BERT, BigBird, DistilBERT, ELECTRA, GPT-2, MobileBERT, OPT), and ours.

If one block of this project serves several layers of transformers, several names map to it. ``None``
marks a tensor that this project does not have: the identity projection of transformers' ALBERT at E = H.
"""

from collections.abc import Sequence
from dataclasses import dataclass

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
_DISTILBERT_ATTENTION = {
    "attention.q_lin": "query", "attention.k_lin": "key", "attention.v_lin": "value", "attention.out_lin": "output",
    "sa_layer_norm": "norm",
}  # fmt: skip
_DISTILBERT_FFN = {"ffn.lin1": "inner", "ffn.lin2": "outer", "output_layer_norm": "norm"}
_GPT2_ATTENTION = {
    "attn.c_attn.query": "query", "attn.c_attn.key": "key", "attn.c_attn.value": "value", "attn.c_proj": "output",
    "ln_1": "norm",
}  # fmt: skip
_GPT2_FFN = {"mlp.c_fc": "inner", "mlp.c_proj": "outer", "ln_2": "norm"}
_OPT_ATTENTION = {
    "self_attn.q_proj": "query", "self_attn.k_proj": "key", "self_attn.v_proj": "value", "self_attn.out_proj": "output",
    "self_attn_layer_norm": "norm",
}  # fmt: skip
_OPT_FFN = {"fc1": "inner", "fc2": "outer", "final_layer_norm": "norm"}
_BOTTLENECK = {"dense": "dense", "LayerNorm": "norm"}
_MOBILEBERT_FFN = {"intermediate.dense": "inner", "output.dense": "outer", "output.LayerNorm": "norm"}
_TABLES = {
    "embeddings.word_embeddings": "word", "embeddings.position_embeddings": "position",
    "embeddings.token_type_embeddings": "token_type",
}  # fmt: skip
PROJECTION = "albert.encoder.embedding_hidden_mapping_in"


@dataclass(frozen=True)
class Family:
    """Where transformers' checkpoints of one ``model_type`` keep what an import looks for."""

    width: str  # field of config.json with the width of the embedding
    query: str  # of the first layer, after the model's name
    inner: str  # the first product of that layer's feed-forward network
    projection: str  # of the embedding
    head: str  # prefix of the masked-LM head
    decoder: str  # its product with the word table, which may be stored a second time
    bias: str  # of the decoder, as it is named here
    body: str  # how names of the encoder's tensors begin


_BERT_LAYER = ("encoder.layer.0.attention.self.query", "encoder.layer.0.intermediate.dense")
_DISTILBERT_LAYER = ("transformer.layer.0.attention.q_lin", "transformer.layer.0.ffn.lin1")
_ALBERT_LAYER = "encoder.albert_layer_groups.0.albert_layers.0"
#: ``model_type`` -> its names.
FAMILIES = {
    "albert": Family(
        "embedding_size", f"{_ALBERT_LAYER}.attention.query", f"{_ALBERT_LAYER}.ffn", PROJECTION,
        "predictions.", "predictions.decoder", "predictions.bias", "albert",
    ),
    "bert": Family(
        "hidden_size", *_BERT_LAYER, "", "cls.predictions.", "cls.predictions.decoder", "cls.predictions.bias", "bert",
    ),
    "big_bird": Family(
        "hidden_size", *_BERT_LAYER, "", "cls.predictions.", "cls.predictions.decoder", "cls.predictions.bias", "bert",
    ),
    "distilbert": Family(
        "hidden_size", *_DISTILBERT_LAYER, "", "vocab_", "vocab_projector", "vocab_projector.bias", "distilbert",
    ),
    "electra": Family(
        "embedding_size", *_BERT_LAYER, "electra.embeddings_project",
        "generator_", "generator_lm_head", "generator_lm_head.bias", "electra",
    ),
    "mobilebert": Family(
        "embedding_size", *_BERT_LAYER, "mobilebert.embeddings.embedding_transformation",
        "cls.predictions.", "cls.predictions.decoder", "cls.predictions.bias", "mobilebert",
    ),
}  # fmt: skip

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
    names = _tables("bert") | _layers("bert", layers) | _pair("bert.pooler.dense", "pooler.dense")
    names |= _pair("cls.predictions.transform.dense", "mlm_head.dense")
    names |= _pair("cls.predictions.transform.LayerNorm", "mlm_head.norm")
    names |= {"cls.predictions.bias": "mlm_head.bias"}
    return names | _pair("cls.seq_relationship", "sentence_head.dense")


def big_bird_names(layers: Blocks) -> dict[str, str | None]:
    """Names of BigBirdForPreTraining: BERT's, but for the pooler. ``layers`` are as in ``bert_names``."""
    return {name.replace("bert.pooler.dense.", "bert.pooler."): ours for name, ours in bert_names(layers).items()}


def distilbert_names(layers: Blocks) -> dict[str, str | None]:
    """Names of DistilBertForMaskedLM, which has no token types and no pooler. ``layers`` are as in ``bert_names``."""
    names = {name: ours for name, ours in _tables("distilbert").items() if "token_type" not in name}
    for layer, (attention, ffn) in enumerate(layers):
        prefix = f"distilbert.transformer.layer.{layer}"
        names |= _block(prefix, _DISTILBERT_ATTENTION, f"encoder.attention.{attention}")
        names |= _block(prefix, _DISTILBERT_FFN, f"encoder.ffn.{ffn}")
    names |= _pair("vocab_transform", "mlm_head.dense") | _pair("vocab_layer_norm", "mlm_head.norm")
    return names | {"vocab_projector.bias": "mlm_head.bias"}


def mobilebert_names(
    layers: Blocks, feed_forwards: int, projection: bool, shared: bool, pooler: bool
) -> dict[str, str | None]:
    """Names of MobileBertForPreTraining, as in ``interop.mobilebert``. ``layers`` are as in ``bert_names``.

    ``feed_forwards``: networks of a layer, of which transformers names the last apart; ``projection``, ``shared`` and
    ``pooler``: whether there is a projection of the embedding, a bottleneck of queries and keys, and a pooler.
    """
    names = _tables("mobilebert")
    if projection:
        names |= _pair("mobilebert.embeddings.embedding_transformation", "encoder.embedding.projection")
    for layer, (attention, ffn) in enumerate(layers):
        prefix, ours = f"mobilebert.encoder.layer.{layer}", f"encoder.bottleneck_attention.{attention}"
        names |= _block(f"{prefix}.bottleneck.input", _BOTTLENECK, f"encoder.reduction.{attention}.bottleneck")
        if shared:
            names |= _block(f"{prefix}.bottleneck.attention", _BOTTLENECK, f"{ours}.shared")
        names |= _block(prefix, _BERT_ATTENTION, ours)
        for entry in range(feed_forwards):
            last = entry == feed_forwards - 1
            network = prefix if last else f"{prefix}.ffn.{entry}"
            names |= _block(network, _MOBILEBERT_FFN, f"encoder.inner_ffn.{ffn * feed_forwards + entry}")
        names |= _block(f"{prefix}.output.bottleneck", _BOTTLENECK, f"encoder.expansion.{ffn}")
    names |= _pair("mobilebert.pooler.dense", "pooler.dense") if pooler else {}
    names |= _pair("cls.predictions.transform.dense", "mlm_head.dense")
    names |= _pair("cls.predictions.transform.LayerNorm", "mlm_head.norm")
    names |= {"cls.predictions.dense.weight": "mlm_head.extra", "cls.predictions.bias": "mlm_head.bias"}
    return names | _pair("cls.seq_relationship", "sentence_head.dense")


def gpt2_names(layers: Blocks) -> dict[str, str | None]:
    """Names of GPT2LMHeadModel, as in ``interop.causal``. ``layers`` are as in ``bert_names``."""
    names: dict[str, str | None] = {
        f"transformer.{foreign}.weight": f"encoder.embedding.{ours}.weight"
        for foreign, ours in (("wte", "word"), ("wpe", "position"))
    }
    for layer, (attention, ffn) in enumerate(layers):
        names |= _block(f"transformer.h.{layer}", _GPT2_ATTENTION, f"encoder.attention.{attention}")
        names |= _block(f"transformer.h.{layer}", _GPT2_FFN, f"encoder.ffn.{ffn}")
    return names | _pair("transformer.ln_f", "encoder.norm")


def opt_names(layers: Blocks) -> dict[str, str | None]:
    """Names of OPTForCausalLM with an embedding of another width. ``layers`` are as in ``bert_names``."""
    names: dict[str, str | None] = {
        f"model.decoder.{foreign}.weight": f"{ours}.weight"
        for foreign, ours in (
            ("embed_tokens", "encoder.embedding.word"), ("embed_positions", "encoder.embedding.position"),
            ("project_in", "encoder.embedding.projection"), ("project_out", "mlm_head.dense"),
        )
    }  # fmt: skip
    for layer, (attention, ffn) in enumerate(layers):
        names |= _block(f"model.decoder.layers.{layer}", _OPT_ATTENTION, f"encoder.attention.{attention}")
        names |= _block(f"model.decoder.layers.{layer}", _OPT_FFN, f"encoder.ffn.{ffn}")
    return names | _pair("model.decoder.final_layer_norm", "encoder.norm")


def discriminator_names(layers: Blocks, projection: bool) -> dict[str, str | None]:
    """Names of ElectraForPreTraining, which has no pooler. ``layers`` are as in ``bert_names``."""
    head = _pair("discriminator_predictions.dense", "replaced_head.dense")
    return (
        _electra_encoder(layers, projection)
        | head
        | _pair("discriminator_predictions.dense_prediction", "replaced_head.out")
    )


def generator_names(layers: Blocks, projection: bool) -> dict[str, str | None]:
    """Names of ElectraForMaskedLM, which has no pooler. ``layers`` are as in ``bert_names``."""
    head = _pair("generator_predictions.dense", "mlm_head.dense")
    head |= _pair("generator_predictions.LayerNorm", "mlm_head.norm")
    return _electra_encoder(layers, projection) | head | {"generator_lm_head.bias": "mlm_head.bias"}


def _electra_encoder(layers: Blocks, projection: bool) -> dict[str, str | None]:
    names = _tables("electra") | _layers("electra", layers)
    return names | _pair("electra.embeddings_project", "encoder.embedding.projection") if projection else names


def _layers(model: str, layers: Blocks) -> dict[str, str | None]:
    names: dict[str, str | None] = {}
    for layer, (attention, ffn) in enumerate(layers):
        names |= _block(f"{model}.encoder.layer.{layer}", _BERT_ATTENTION, f"encoder.attention.{attention}")
        names |= _block(f"{model}.encoder.layer.{layer}", _BERT_FFN, f"encoder.ffn.{ffn}")
    return names


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
