"""Converts causal models between this project and transformers: GPT-2 in both directions; outwards BERT as a decoder,
and OPT, whose embedding may be narrower than its states.

GPT-2 keeps query, key and value of a layer in one matrix, and its matrices are transposed: (in, out). Here a name such
as ``attn.c_attn.query`` is a part of its ``attn.c_attn``. OPT adds positions after the projection of the word vectors,
which has no bias. Here words and positions are projected together, which is linear: the projected positions with the
bias are OPT's.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from albert_ablate.axes import Part
from albert_ablate.data.tokenizer import SEP
from albert_ablate.errors import ForeignCheckpointError
from albert_ablate.interop.config_json import field_of
from albert_ablate.interop.exported import Exported, config_of, exported, layers_of, with_types
from albert_ablate.interop.names import bert_names, gpt2_names, opt_names
from albert_ablate.model.shape import Shape

_FUSED, _PARTS = "attn.c_attn", ("query", "key", "value")
#: How names of matrices end that GPT-2 stores as (in, out).
_TRANSPOSED = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
#: The word table a second time, as the output matrix.
_OUTPUT = "lm_head.weight"
#: Of all norms of transformers' OPT, and the row of its table at which positions begin.
_OPT_EPSILON, _OPT_OFFSET = 1e-5, 2
#: BERT's name of a field -> OPT's; and fields that OPT lacks.
_OPT_FIELDS = {
    "intermediate_size": "ffn_dim", "hidden_act": "activation_function", "hidden_dropout_prob": "dropout",
    "attention_probs_dropout_prob": "attention_dropout", "initializer_range": "init_std",
}  # fmt: skip
_NOT_OPT = ("type_vocab_size", "layer_norm_eps")
#: Parts of the model without heads; files that hold nothing else leave out its name.
_BODY = ("wte.", "wpe.", "h.", "ln_f.")
#: Constants that older versions stored.
_BUFFERS = (".attn.bias", ".attn.masked_bias")


def to_causal(shape: Shape, tensors: Mapping[str, Tensor], first: int) -> Exported:
    """A causal model as GPT2LMHeadModel, BertLMHeadModel or OPTForCausalLM; ``first`` is the piece that begins a text.

    Raises ForeignCheckpointError for a model of none of these forms.
    """
    gpt2, bert, opt = _other_than_gpt2(shape), _other_than_bert(shape), _other_than_opt(shape)
    layers, unrolled = layers_of(shape), any(map(shape.share.shares, Part))
    ends = {"bos_token_id": first, "eos_token_id": SEP}
    if not gpt2:
        model = exported("GPT2LMHeadModel", _gpt2_config(shape) | ends, gpt2_names(layers), tensors, unrolled)
        return replace(model, tensors=_fused(model.tensors))
    if not bert:
        shape, tensors = with_types(shape, tensors)
        config = config_of(shape, "bert") | ends | {"is_decoder": True}
        return exported("BertLMHeadModel", config, bert_names(layers), tensors, unrolled)
    factorised = shape.embedding_size != shape.hidden_size
    if factorised and not opt:
        names = opt_names(layers)
        return exported("OPTForCausalLM", _opt_config(shape) | ends, names, _projected(shape, tensors), unrolled)
    raise ForeignCheckpointError(
        "No class of transformers computes this causal model. As GPT-2 it would need "
        f"{', '.join(gpt2)}; as BERT's decoder {', '.join(bert)}"
        + (f"; as OPT, whose embedding may have another width, {', '.join(opt)}." if factorised else ".")
    )


def _other_than_gpt2(shape: Shape) -> list[str]:
    """The settings that GPT-2 would need."""
    needed = {
        "model.norm=pre": shape.norm_first, "model.embedding_norm=false": not shape.embedding_norm,
        "model.lm_head=plain": shape.lm_head == "plain", "embed=full": shape.embedding_size == shape.hidden_size,
        "model.projection=auto": not shape.projection, "method.token_types=false": not shape.type_vocab_size,
        **_common_form(shape),
    }  # fmt: skip
    return [name for name, fits in needed.items() if not fits]


def _other_than_bert(shape: Shape) -> list[str]:
    """The settings that a decoder of BERT would need."""
    needed = {
        "model.norm=post": not shape.norm_first, "model.embedding_norm=true": shape.embedding_norm,
        "model.lm_head=transform": shape.lm_head == "transform",
        "embed=full": shape.embedding_size == shape.hidden_size, "model.projection=auto": not shape.projection,
        **_common_form(shape),
    }  # fmt: skip
    return [name for name, fits in needed.items() if not fits]


def _other_than_opt(shape: Shape) -> list[str]:
    """The settings that OPT with an embedding of another width would need."""
    needed = {
        "model.norm=pre": shape.norm_first, "model.embedding_norm=false": not shape.embedding_norm,
        "model.lm_head=plain": shape.lm_head == "plain", "method.token_types=false": not shape.type_vocab_size,
        f"model.layer_norm_eps={_OPT_EPSILON:g}": shape.layer_norm_eps == _OPT_EPSILON, **_common_form(shape),
    }  # fmt: skip
    return [name for name, fits in needed.items() if not fits]


def _opt_config(shape: Shape) -> dict[str, Any]:
    """``config_of`` under OPT's names; the epsilon of norms is no field of it."""
    common = config_of(shape, "opt")
    own = {_OPT_FIELDS.get(name, name): value for name, value in common.items() if name not in _NOT_OPT}
    more = {"word_embed_proj_dim": shape.embedding_size, "do_layer_norm_before": True, "layerdrop": 0.0}
    return own | more | {"tie_word_embeddings": True}


def _projected(shape: Shape, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with positions in H: (P, E) -> (P + 2, H), the first two rows unused, as OPT counts from 2."""
    word = "encoder.embedding"
    found = dict(tensors)
    bias = found.pop(f"{word}.projection.bias")
    positions = found[f"{word}.position.weight"].double() @ found[f"{word}.projection.weight"].double().T + bias
    unused = torch.zeros(_OPT_OFFSET, shape.hidden_size)
    found[f"{word}.position.weight"] = torch.cat([unused, positions.to(bias.dtype)])
    return found


def _common_form(shape: Shape) -> dict[str, bool]:
    """What both forms need, as they have none of MobileBERT's parts."""
    return {
        "block=standard": shape.block_width is None, "model.norm_type=layer_norm": shape.has_statistics,
        "model.trigram=false": not shape.trigram,
    }  # fmt: skip


def _gpt2_config(shape: Shape) -> dict[str, Any]:
    """``config_of`` under GPT-2's names."""
    common = config_of(shape, "gpt2")
    del common["type_vocab_size"]
    own = {field_of("gpt2", name): value for name, value in common.items()}
    return own | {"embd_pdrop": shape.hidden_dropout, "tie_word_embeddings": True}


def _fused(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of separate queries, keys and values, (out, in) -> as GPT-2 stores them."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        whole = name.replace(f"{_FUSED}.{_PARTS[0]}.", f"{_FUSED}.")
        if whole != name:
            tensor = torch.cat([tensors[name.replace(f".{_PARTS[0]}.", f".{part}.")] for part in _PARTS])
        elif f"{_FUSED}." in name:
            continue
        found[whole] = tensor.T.contiguous() if whole.endswith(_TRANSPOSED) else tensor
    return found


def of_gpt2(config: Mapping[str, Any], tensors: Mapping[str, Tensor], hint: str) -> dict[str, Tensor]:
    """Tensors of a GPT-2 -> under the names of ``gpt2_names``, (out, in), queries, keys and values separate.

    ``config``: from ``config_json.complete``; ``hint``: a sentence that a message on sizes ends with. Raises
    ForeignCheckpointError for an output matrix of its own, and for sizes other than the configuration's.
    """
    named: dict[str, Tensor] = {}
    for stored, tensor in tensors.items():
        name = f"transformer.{stored}" if stored.startswith(_BODY) else stored
        if name.startswith("transformer.h.") and name.endswith(_BUFFERS):
            continue
        if name in named:
            raise ForeignCheckpointError(f"The checkpoint holds {name} twice, once under another name.")
        named[name] = tensor
    output, table = named.pop(_OUTPUT, None), named.get("transformer.wte.weight")
    if output is not None and table is not None and not torch.equal(output, table):
        raise ForeignCheckpointError(f"{_OUTPUT} differs from the word embeddings; they are one matrix here.")
    if not config["tie_word_embeddings"] and output is None:
        raise ForeignCheckpointError(
            f"config.json: tie_word_embeddings is false, but the checkpoint has no {_OUTPUT}: transformers draws new "
            "values there. Set it to true if the output weights are the word embeddings."
        )
    _require_sizes(config, named, hint)
    return _separate(named)


def _separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of ``_fused``."""
    found: dict[str, Tensor] = {}
    for name, stored in tensors.items():
        tensor = stored.T if name.endswith(_TRANSPOSED) else stored
        if f"{_FUSED}." not in name:
            found[name] = tensor.contiguous()
            continue
        for part, third in zip(_PARTS, tensor.chunk(3), strict=True):
            found[name.replace(f"{_FUSED}.", f"{_FUSED}.{part}.")] = third.contiguous()
    return found


def _require_sizes(c: Mapping[str, Any], tensors: Mapping[str, Tensor], hint: str) -> None:
    width, inner = c["hidden_size"], c["intermediate_size"]
    first = "transformer.h.0"
    expected = {
        "transformer.wte.weight": ([c["vocab_size"], width], f"vocab_size={c['vocab_size']} x n_embd={width}"),
        "transformer.wpe.weight": ([c["n_positions"], width], f"n_positions={c['n_positions']} x n_embd={width}"),
        f"{first}.attn.c_attn.weight": ([width, 3 * width], f"n_embd={width} x 3 n_embd"),
        f"{first}.mlp.c_fc.weight": ([width, inner], f"n_embd={width} x n_inner={inner}"),
    }
    wrong = [
        f"{name} is {list(tensors[name].shape)}, but {words}"
        for name, (size, words) in expected.items()
        if name in tensors and list(tensors[name].shape) != size
    ]
    if wrong:
        raise ForeignCheckpointError(f"The tensors do not fit config.json: {'; '.join(wrong)}.{hint}")
