"""Converts a model of this project to transformers: class, configuration and tensors.

| arm | class | equal to ours |
|---|---|---|
| share=all | AlbertForPreTraining | tensor by tensor; E = H has an identity projection |
| share=none, E = H | BertForPreTraining | tensor by tensor |
| any other | AlbertForPreTraining with one group per layer | in every output; shared blocks are repeated |
| a method with a replaced-token head | ElectraForPreTraining | in every output; shared blocks are repeated |
| BigBird with transformers' plan, E = H | BigBirdForPreTraining | tensor by tensor; shared blocks are repeated |
| no token types, E = H | DistilBertForMaskedLM | tensor by tensor; shared blocks are repeated |
| no token types, any other | the class of the arm with token types | in every output; the table of types is zero |
| MobileBERT's layers | MobileBertForPreTraining | tensor by tensor; shared blocks are repeated |
| causal, GPT-2's form | GPT2LMHeadModel | tensor by tensor; shared blocks are repeated |
| causal, BERT's form, E = H | BertLMHeadModel | as share=none, E = H; shared blocks are repeated |
| causal, GPT-2's form but for E | OPTForCausalLM | in every output; shared blocks are repeated |

A masked model with a switch of GPT-2's form, and a causal one of another form, are refused: no class computes them.

A model without pooler and sentence head, such as a generator, is an ElectraForMaskedLM, AlbertForMaskedLM,
BertForMaskedLM or BigBirdForMaskedLM. Without a trained masked-LM head only the encoder and its pooler go out:
AlbertModel, BertModel, BigBirdModel or DistilBertModel.
An imported model is exported as its original class, with its groups and the dropout of its heads.

An unrolled arm gives the same outputs, but when it is fine-tuned in transformers its copies diverge.
In training, transformers' ALBERT has no dropout after the feed-forward network; this project and
the reference do.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from albert_ablate.axes import Part
from albert_ablate.data.tokenizer import CLS
from albert_ablate.data.wordpiece import read_vocabulary, row_order
from albert_ablate.errors import ForeignCheckpointError
from albert_ablate.interop.big_bird import require_big_bird, sizes_of_blocks
from albert_ablate.interop.causal import to_causal
from albert_ablate.interop.config_json import field_of, same_groups
from albert_ablate.interop.exported import Exported, config_of, exported, layers_of, tensors_of, with_types
from albert_ablate.interop.mobilebert import to_mobilebert
from albert_ablate.interop.names import (
    Blocks,
    albert_names,
    bert_names,
    big_bird_names,
    discriminator_names,
    distilbert_names,
    generator_names,
)
from albert_ablate.interop.weights import require_finite
from albert_ablate.model.attention import PATTERNS
from albert_ablate.model.base import EncoderModel
from albert_ablate.model.electra import ElectraModel
from albert_ablate.model.shape import Shape

#: Dropout of the task heads that transformers adds to an exported model (paper, Table 14).
_CLASSIFIER_DROPOUT = 0.1
#: Of all norms of transformers' DistilBERT.
_DISTILBERT_EPSILON = 1e-12
#: The part of a model that is exported as a model of its own.
_GENERATOR = "generator."
#: The class of an encoder alone: whatever has its form, ELECTRA's, or one with a pooler and token types (BERT, ALBERT).
Body = Literal["any", "electra", "typed"]


def to_huggingface(
    model: EncoderModel, origin: Mapping[str, Any] | None = None, masked_lm: bool = True, first: int = CLS
) -> Exported:
    """A transformers model that computes the same function, without the generator.

    ``origin`` is the entry of an imported model's manifest; ``masked_lm`` says whether a masked-LM head was trained;
    ``first`` is the piece that a text begins with, for a causal model.
    Raises ForeignCheckpointError if a weight is not finite, and if no class computes the function.
    """
    origin = origin or {}
    require_finite(model.state_dict(), "The run's newest checkpoint")
    own = {name: tensor for name, tensor in tensors_of(model).items() if not name.startswith(_GENERATOR)}
    if PATTERNS[model.shape.pattern].past_only:
        return to_causal(model.shape, own, first)
    has_head = masked_lm and hasattr(model, "mlm_head")
    if model.shape.block_width is not None and "replaced_head.out.weight" not in own:
        return to_mobilebert(model.shape, own, masked_lm, origin.get("classifier_dropout", _CLASSIFIER_DROPOUT))
    if model.shape.blocks is not None:
        require_big_bird(model.shape, own)
    _require_berts_form(model.shape, has_head)
    shape, tensors = with_types(model.shape, own)
    if "replaced_head.out.weight" in tensors:
        if shape.projection and shape.embedding_size == shape.hidden_size:
            raise ForeignCheckpointError(
                "model.projection=always at E = H: transformers' ELECTRA projects only an embedding of another width, "
                "so no class computes this. Train with model.projection=auto."
            )
        return _electra(shape, tensors, "ElectraForPreTraining", origin)
    if origin.get("model_type") == "electra":
        return _electra(shape, tensors, "ElectraForMaskedLM", origin)
    return _masked_lm(model.shape, own, origin, masked_lm)


def generator_to_huggingface(model: EncoderModel) -> Exported | None:
    """The model's generator; None if it has no network as its generator.

    transformers' ElectraForMaskedLM has the erf GELU in its head and shares no blocks: a generator with the tanh GELU,
    with shared blocks, or with a projection at E = H goes out as a masked LM of ALBERT or BERT.
    """
    if not isinstance(model, ElectraModel) or model.generator is None:
        return None
    generator = model.generator
    if generator.shape.blocks is not None:
        require_big_bird(generator.shape, tensors_of(generator))
    _require_berts_form(generator.shape, True)
    shape, tensors = generator.shape, tensors_of(generator)
    shared = any(map(shape.share.shares, Part))
    extra = shape.projection and shape.embedding_size == shape.hidden_size
    if shape.activation == "gelu_erf" and not shared and not extra:
        return _electra(*with_types(shape, tensors), "ElectraForMaskedLM", {})
    return _masked_lm(shape, tensors, {})


def encoder_to_huggingface(
    shape: Shape, tensors: Mapping[str, Tensor], origin: Mapping[str, Any], body: Body
) -> Exported:
    """An encoder, with its pooler where it is among the ``tensors``, as the class without heads that ``body`` says.

    ``origin`` as in ``to_huggingface``. Raises ForeignCheckpointError if no class computes the function.
    """
    _require_berts_form(shape, False)
    if shape.blocks is not None:
        raise ForeignCheckpointError(
            "attention=bigbird: transformers' fine-tuned classes of BigBird have other heads than ours, so none "
            "computes this. Predict here, or fine-tune a run with attention=full."
        )
    if body == "electra":
        return _electra(*with_types(shape, tensors), "ElectraModel", origin)
    if body == "typed":
        shape, tensors = with_types(shape, tensors)
    if origin.get("model_type") not in ("albert", "bert"):  # another class now, which is chosen by the form
        origin = {name: value for name, value in origin.items() if name != "model_type"}
    return _masked_lm(shape, tensors, origin, masked_lm=False)


def has_distilberts_form(shape: Shape) -> bool:
    """Whether an encoder is DistilBERT's: dense, without token types and projection, and with its epsilon."""
    lacks = not (shape.has_projection or shape.type_vocab_size or shape.blocks)
    return lacks and shape.layer_norm_eps == _DISTILBERT_EPSILON


def in_order_of(vocabulary: Path, model: Exported) -> Exported:
    """``model`` with the rows of the word table, the output bias and special ids in the order of ``vocabulary``."""
    order = torch.from_numpy(row_order(read_vocabulary(vocabulary), model.config["vocab_size"], vocabulary))
    back = torch.argsort(order)
    tables = ("word_embeddings.weight", ".wte.weight", ".embed_tokens.weight")
    rows = (*tables, ".predictions.bias", "generator_lm_head.bias", "vocab_projector.bias")
    tensors = {name: tensor[back] if f".{name}".endswith(rows) else tensor for name, tensor in model.tensors.items()}
    columns = "cls.predictions.dense.weight"  # MobileBERT's second output matrix
    tensors |= {name: tensor[:, back] for name, tensor in tensors.items() if name == columns}
    ids = {name: int(order[model.config[name]]) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    return replace(model, config=model.config | ids, tensors=tensors)


def _require_berts_form(shape: Shape, has_head: bool) -> None:
    """Raise ForeignCheckpointError for a masked model of a form that none of the classes has.

    ``has_head``: whether its masked-LM head goes out.
    """
    switches = {
        "model.norm=pre": shape.norm_first, "model.embedding_norm=false": not shape.embedding_norm,
        f"model.lm_head={shape.lm_head}": has_head and shape.lm_head != "transform",
        "model.norm_type=no_norm": not shape.has_statistics, "model.trigram=true": shape.trigram,
        "model.table_width=hidden": shape.tables_at_hidden and shape.has_projection,
        "model.pooler=bare": shape.pooler == "bare", "block=mobilebert": shape.block_width is not None,
    }  # fmt: skip
    chosen = [name for name, is_set in switches.items() if is_set]
    if chosen:
        raise ForeignCheckpointError(
            f"{', '.join(chosen)}: transformers' ALBERT, BERT, DistilBERT and ELECTRA have a LayerNorm on the "
            "embedding and after each residual sum, and a masked-LM head with a transform, so no class computes this. "
            "It can be used here, or trained without."
        )


def _masked_lm(
    shape: Shape, tensors: Mapping[str, Tensor], origin: Mapping[str, Any], masked_lm: bool = True
) -> Exported:
    """A model without a replaced-token head, as ALBERT, BERT or DistilBERT; ``masked_lm`` as in ``to_huggingface``."""
    head = origin.get("classifier_dropout", _CLASSIFIER_DROPOUT)
    layers, unshared = layers_of(shape), not any(map(shape.share.shares, Part))
    suffix = "ForMaskedLM" if masked_lm and "mlm_head.bias" in tensors else "Model"
    if has_distilberts_form(shape):
        config = _distilbert_config(shape) | {"seq_classif_dropout": head}
        return exported(f"DistilBert{suffix}", config, distilbert_names(layers), tensors, not unshared)
    shape, tensors = with_types(shape, tensors)
    if suffix == "ForMaskedLM" and "sentence_head.dense.weight" in tensors:
        suffix = "ForPreTraining"
    if shape.blocks is not None or origin.get("model_type") == "big_bird":
        config = config_of(shape, "big_bird") | sizes_of_blocks(shape.blocks) | {"classifier_dropout": head}
        return exported(f"BigBird{suffix}", config, big_bird_names(layers), tensors, not unshared)
    if origin.get("model_type", "bert" if unshared and not shape.has_projection else "albert") == "bert":
        config = config_of(shape, "bert") | {"classifier_dropout": head}
        return exported(f"Bert{suffix}", config, bert_names(layers), tensors, not unshared)
    kept_groups = origin.get("num_hidden_groups", shape.groups) == shape.groups  # else layers are equal by chance
    tied = all(map(shape.share.shares, Part)) and kept_groups and same_groups(shape.layers // shape.inner, shape.groups)
    n = shape.inner if tied else 1
    stacks: list[Blocks] = [[(g * n + i, g * n + i) for i in range(n)] for g in range(shape.groups)]
    groups: list[Blocks] = stacks if tied else [[pair] for pair in layers]
    sizes = {"embedding_size": shape.embedding_size, "num_hidden_groups": len(groups), "inner_group_num": n}
    sizes |= {"num_hidden_layers": shape.layers // n, "classifier_dropout_prob": head}
    names = albert_names(groups, shape.has_projection)
    return exported(f"Albert{suffix}", config_of(shape, "albert") | sizes, names, tensors, not tied)


def _electra(shape: Shape, tensors: Mapping[str, Tensor], kind: str, origin: Mapping[str, Any]) -> Exported:
    config = config_of(shape, "electra") | {
        "embedding_size": shape.embedding_size,
        "classifier_dropout": origin.get("classifier_dropout", _CLASSIFIER_DROPOUT),
    }
    names = discriminator_names if kind == "ElectraForPreTraining" else generator_names
    shared = any(map(shape.share.shares, Part))
    return exported(kind, config, names(layers_of(shape), shape.has_projection), tensors, shared)


def _distilbert_config(shape: Shape) -> dict[str, Any]:
    """``config_of`` under DistilBERT's names; token types and the epsilon of norms are no fields of it."""
    common = config_of(shape, "distilbert")
    left = ("type_vocab_size", "layer_norm_eps")
    return {field_of("distilbert", name): value for name, value in common.items() if name not in left}
