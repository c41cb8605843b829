"""Converts a checkpoint of transformers to this project's settings and tensors.

Of ALBERT, BERT, BigBird, DistilBERT, ELECTRA, GPT-2 and MobileBERT. This module, ``stored``, ``causal`` and
``mobilebert`` handle the differences: a projection at E = H, several layers in an ALBERT group, missing heads, and
task heads. transformers' ALBERT has no dropout after the feed-forward network; imported models have this project's
dropout in fine-tuning.

ELECTRA's two networks are two checkpoints. The discriminator becomes an ``electra`` run without a network as its
generator, the generator a masked-LM run. A DistilBERT becomes a ``distilbert`` run without a teacher, a GPT-2 a
``causal`` run.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from albert_ablate.axes import MethodName, Objective, Part, Share
from albert_ablate.errors import ForeignCheckpointError
from albert_ablate.interop import mobilebert
from albert_ablate.interop.big_bird import attention_of
from albert_ablate.interop.causal import of_gpt2
from albert_ablate.interop.config_json import ACTIVATIONS, GELU, complete, defaulted, field_of
from albert_ablate.interop.names import (
    FAMILIES,
    Blocks,
    albert_names,
    bert_names,
    big_bird_names,
    discriminator_names,
    distilbert_names,
    generator_names,
    gpt2_names,
)
from albert_ablate.interop.stored import under_current_names, untied

#: Heads that a checkpoint may lack: prefix of their tensors -> name for the user.
_MASKED_LM = {"pooler.": "pooler", "mlm_head.": "masked-LM head", "sentence_head.": "sentence head"}
_DISCRIMINATOR = {"pooler.": "pooler", "replaced_head.": "replaced-token head", "sentence_head.": "sentence head"}
#: Of families with other heads; the head of a GPT-2 is its word table.
_OF_FAMILY: dict[str, dict[str, str]] = {"distilbert": {"mlm_head.": "masked-LM head"}, "gpt2": {}}
#: Prefixes of task heads in transformers: for classes, for the start and end of an answer, of ELECTRA's choices, and
#: GPT-2's for classes and choices.
_TASK_HEADS = ("classifier.", "pre_classifier.", "qa_outputs.", "sequence_summary.", "score.", "multiple_choice_head.")
#: Prefixes of TinyBERT's projections to the teacher's width, and of heads that its distillation does not train.
_PROJECTIONS, _UNTRAINED = ("fit_dense.", "fit_denses."), ("cls.",)
#: What the released checkpoints were trained on beside their tokens.
_OBJECTIVES = {
    "albert": Objective.SOP, "bert": Objective.NSP, "distilbert": Objective.NONE, "electra": Objective.NONE,
    "big_bird": Objective.NONE, "gpt2": Objective.NONE, "mobilebert": Objective.NSP,
}  # fmt: skip
#: Part of a layer -> its banks, with the number of blocks that a layer has of each.
_BANKS: Mapping[Part, Mapping[str, int]] = {Part.ATTENTION: {"attention": 1}, Part.FFN: {"ffn": 1}}
#: Most tensors named in one message.
_NAMED = 12


@dataclass(frozen=True)
class Imported:
    """A checkpoint converted to this project's settings and tensor names."""

    settings: dict[str, dict[str, Any]]  # group -> values, as in config.yaml
    tensors: dict[str, Tensor]  # by this project's names, without missing heads
    missing: tuple[str, ...]  # names of the heads that the checkpoint lacks
    left_out: tuple[str, ...]  # tensors of task heads and of TinyBERT's distillation

    @property
    def left_out_as(self) -> str:
        """What the tensors that are left out belong to."""
        return "parts of TinyBERT's distillation" if _of_tiny(self.left_out) else "the head of a task"


def from_huggingface(described: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Imported:
    """Convert a checkpoint from its ``config.json`` and tensors.

    Raises ForeignCheckpointError naming what does not fit.
    """
    config = complete(described)
    kind = config["model_type"]
    of_tiny = kind == "bert" and _of_tiny(tensors)
    unused = (*_TASK_HEADS, *_PROJECTIONS, *_UNTRAINED) if of_tiny else _TASK_HEADS
    left_out = tuple(sorted(name for name in tensors if name.startswith(unused)))
    kept = {name: tensor for name, tensor in tensors.items() if name not in left_out}
    if kind == "gpt2":
        renamed = of_gpt2(config, kept, defaulted(described))
    else:
        renamed = untied(kind, under_current_names(kind, kept), config["tie_word_embeddings"])
        if kind == mobilebert.KIND:
            mobilebert.require_computed(config)
            renamed = mobilebert.of_mobilebert(config, renamed, defaulted(described))
        else:
            _require_sizes(kind, config, renamed, defaulted(described))
    discriminates = kind == "electra" and not any(name.startswith(FAMILIES[kind].head) for name in renamed)
    if kind == "electra" and not discriminates:
        _require_erf(config)
    inner = config["inner_group_num"] if kind == "albert" else 1
    layers = config["num_hidden_layers"] * inner
    groups = config["num_hidden_groups"] if kind == "albert" else layers
    unshared = groups == layers and inner == 1  # a repeated stack stays a stack, even if no block serves two layers
    share, count, n = (Share.NONE, 1, 1) if unshared else (Share.ALL, groups, inner)
    own: Blocks = [(i, i) for i in range(layers)]
    if kind == "albert":
        names = albert_names([own[g * inner : (g + 1) * inner] for g in range(groups)], projection=True)
    elif kind == "bert":
        names = bert_names(own)
    elif kind == "big_bird":
        names = big_bird_names(own)
    elif kind == "distilbert":
        names = distilbert_names(own)
    elif kind == "gpt2":
        names = gpt2_names(own)
    elif kind == mobilebert.KIND:
        names = mobilebert.names_of(config, own)
    else:
        of_network = discriminator_names if discriminates else generator_names
        names = of_network(own, projection=config["embedding_size"] != config["hidden_size"])
    heads = _DISCRIMINATOR if discriminates else _OF_FAMILY.get(kind, _MASKED_LM)
    matched, missing = _matched(kind, names, renamed, heads)
    matched, projection = (matched, "auto") if kind == mobilebert.KIND else _projection(matched, config)
    if unshared and layers > 1:
        share, matched = _tied(matched, layers, mobilebert.banks(config) if kind == mobilebert.KIND else _BANKS)
    settings = _settings(kind, config, share, count, n, layers, projection)
    if discriminates:
        settings["method"] = {"name": MethodName.ELECTRA.value, "generator": "uniform"}
    if kind == "distilbert":
        settings["method"] = {"name": MethodName.DISTILBERT.value, "token_types": False, "pooler": "trained"}
    if kind == "big_bird":
        settings["attention"] = attention_of(config)
    if kind == "gpt2":
        settings["method"] = {"name": MethodName.CAUSAL.value, "token_types": False, "pooler": "trained"}
        settings["model"] |= {"norm": "pre", "embedding_norm": False, "residual_init": "depth", "lm_head": "plain"}
    if kind == mobilebert.KIND:
        own_settings = mobilebert.settings_of(config)
        settings["model"] |= own_settings.pop("model")
        settings |= own_settings
    return Imported(settings, matched, missing, left_out)


def heads_called(names: Iterable[str]) -> set[str]:
    """The modules of the heads that ``Imported.missing`` calls ``names``."""
    wanted = set(names)
    return {prefix.rstrip(".") for prefix, name in (_MASKED_LM | _DISCRIMINATOR).items() if name in wanted}


def _of_tiny(names: Iterable[str]) -> bool:
    return any(name.startswith(_PROJECTIONS) for name in names)


def _require_sizes(kind: str, c: Mapping[str, Any], tensors: Mapping[str, Tensor], hint: str) -> None:
    """Raise ForeignCheckpointError if a size in config.json differs from the tensors; runs before a model is built."""
    family = FAMILIES[kind]
    width, table = family.width, f"{family.body}.embeddings"
    expected = {
        f"{table}.word_embeddings.weight": ("vocab_size", width),
        f"{table}.position_embeddings.weight": ("max_position_embeddings", width),
        f"{table}.token_type_embeddings.weight": ("type_vocab_size", width),
        f"{family.body}.{family.query}.weight": ("hidden_size", "hidden_size"),
        f"{family.body}.{family.inner}.weight": ("intermediate_size", "hidden_size"),
        f"{family.projection}.weight": ("hidden_size", "embedding_size"),
    }
    wrong = [
        f"{name} is {list(tensors[name].shape)}, but {' x '.join(f'{field_of(kind, f)}={c[f]}' for f in fields)}"
        for name, fields in expected.items()
        if name in tensors and list(tensors[name].shape) != [c[field] for field in fields]
    ]
    if wrong:
        raise ForeignCheckpointError(f"The tensors do not fit config.json: {'; '.join(wrong)}.{hint}")


def _require_erf(config: Mapping[str, Any]) -> None:
    """Raise ForeignCheckpointError if a generator has one activation in its layers and another in its head."""
    if GELU[config["hidden_act"]] != "gelu_erf":
        raise ForeignCheckpointError(
            f"config.json: hidden_act is {config['hidden_act']!r}; the head of transformers' ElectraForMaskedLM has "
            "the erf GELU whatever it says, and a model here has one GELU. A generator with 'gelu' can be imported."
        )


def _matched(
    kind: str, names: Mapping[str, str | None], tensors: Mapping[str, Tensor], named: Mapping[str, str]
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """(tensors by this project's names, names of missing heads). A head is complete or missing.

    ``named``: prefix of a head that the model here has -> its name.

    Raises ForeignCheckpointError for other missing tensors and for unknown ones.
    """
    absent = {ours: foreign for foreign, ours in names.items() if ours is not None and foreign not in tensors}
    heads = {prefix: [ours for ours in names.values() if ours and ours.startswith(prefix)] for prefix in named}
    gone = [prefix for prefix, all_of in heads.items() if all(ours in absent for ours in all_of)]
    lacking = sorted(foreign for ours, foreign in absent.items() if not ours.startswith(tuple(gone)))
    extra = sorted(name for name in tensors if name not in names)
    if lacking or extra:
        groups = (("missing", lacking), ("unknown", extra))
        parts = [f"{label}: {some(listed)}" for label, listed in groups if listed]
        raise ForeignCheckpointError(
            f"The checkpoint does not fit {kind} as config.json describes it. {'; '.join(parts)}."
        )
    matched = {ours: tensors[foreign] for foreign, ours in names.items() if ours is not None and ours not in absent}
    return matched, tuple(named[prefix] for prefix in gone)


def some(names: Iterable[str]) -> str:
    """The first of ``names``, and the number of the rest."""
    every = list(names)
    more = f" and {len(every) - _NAMED:,} more" if len(every) > _NAMED else ""
    return ", ".join(every[:_NAMED]) + more


def _projection(tensors: dict[str, Tensor], config: Mapping[str, Any]) -> tuple[dict[str, Tensor], str]:
    """(``tensors`` without an identity projection at E = H, ``model.projection``)."""
    weight, bias = (tensors.get(f"encoder.embedding.projection.{name}") for name in ("weight", "bias"))
    if weight is not None and config["embedding_size"] > config["hidden_size"]:
        return tensors, "always"
    if weight is None or bias is None or config["embedding_size"] != config["hidden_size"]:
        return tensors, "auto"
    if torch.equal(weight, torch.eye(len(weight))) and not bias.any():
        return {name: tensor for name, tensor in tensors.items() if ".projection." not in name}, "auto"
    return tensors, "always"


def _tied(
    tensors: dict[str, Tensor], layers: int, banks: Mapping[Part, Mapping[str, int]]
) -> tuple[Share, dict[str, Tensor]]:
    """(the sharing strategy of a model whose layers hold equal blocks, its tensors without the copies).

    ``banks``: part of a layer -> its banks, with the number of blocks that a layer has of each.
    """
    shared = {
        part for part in Part if all(_equal_blocks(tensors, bank, each, layers) for bank, each in banks[part].items())
    }
    copies = {
        f"encoder.{bank}.{entry}."
        for part in shared
        for bank, each in banks[part].items()
        for entry in range(each, each * layers)
    }
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(tuple(copies))}
    return Share.of(shared), kept


def _equal_blocks(tensors: Mapping[str, Tensor], bank: str, each: int, layers: int) -> bool:
    """Whether all layers have the same blocks of ``bank``, ``each`` of them."""
    return all(
        torch.equal(tensor, tensors[name.replace(f".{bank}.{entry}.", f".{bank}.{layer * each + entry}.")])
        for entry in range(each)
        for name, tensor in tensors.items()
        if name.startswith(f"encoder.{bank}.{entry}.")
        for layer in range(1, layers)
    )


def _settings(
    kind: str, c: Mapping[str, Any], share: Share, groups: int, inner: int, layers: int, projection: str
) -> dict[str, dict[str, Any]]:
    return {
        "embed": {"size": c["hidden_size"] if kind == "gpt2" else c[FAMILIES[kind].width]},
        "share": {"strategy": share.value, "groups": groups, "inner": inner},
        "objective": {"name": _OBJECTIVES[kind].value},
        "model": {
            "hidden": c["hidden_size"], "layers": layers, "heads": c["num_attention_heads"],
            "intermediate": c["intermediate_size"], "max_positions": c["max_position_embeddings"],
            "type_vocab": c.get("type_vocab_size", 2), "projection": projection,
            "hidden_dropout": float(c["hidden_dropout_prob"]),
            "attention_dropout": float(c["attention_probs_dropout_prob"]),
            "activation": ACTIVATIONS[c["hidden_act"]],
            "initializer_range": c["initializer_range"],
            "layer_norm_eps": c["layer_norm_eps"],
        },
        "tokenizer": {"vocab_size": c["vocab_size"]},
    }  # fmt: skip
