"""Reads TensorFlow checkpoints of the ALBERT release under the names of transformers.

A release folder holds ``albert_config.json``, ``30k-clean.model`` and ``model.ckpt-best.index`` with its data
files. Kernels are stored as (in, out), the transpose of PyTorch's. "gelu" is the tanh form in the released code.
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from albert_ablate.errors import DataError, ForeignCheckpointError
from albert_ablate.interop.config_json import complete
from albert_ablate.interop.names import PROJECTION
from albert_ablate.interop.weights import require_finite
from albert_ablate.shipped import install_command

CONFIG = "albert_config.json"
_INDEX = ".index"
_BEST = "model.ckpt-best"

_BLOCK = re.compile(r"encoder/transformer/group_(\d+)/inner_group_(\d+)/(.+)")
#: Module of the release -> module of transformers, within one inner block.
_BLOCK_PARTS = {
    "attention_1/self/query": "attention.query", "attention_1/self/key": "attention.key",
    "attention_1/self/value": "attention.value", "attention_1/output/dense": "attention.dense",
    "LayerNorm": "attention.LayerNorm", "ffn_1/intermediate/dense": "ffn",
    "ffn_1/intermediate/output/dense": "ffn_output", "LayerNorm_1": "full_layer_layer_norm",
}  # fmt: skip
_PARTS = {
    "bert/embeddings/LayerNorm": "albert.embeddings.LayerNorm",
    "bert/encoder/embedding_hidden_mapping_in": PROJECTION,
    "bert/pooler/dense": "albert.pooler",
    "cls/predictions/transform/dense": "predictions.dense",
    "cls/predictions/transform/LayerNorm": "predictions.LayerNorm",
}
_VALUES = {"kernel": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}
#: Variables that are not the kernel, bias or norm of a module.
_WHOLE = {
    **{f"bert/embeddings/{name}": f"albert.embeddings.{name}.weight"
       for name in ("word_embeddings", "position_embeddings", "token_type_embeddings")},
    "cls/predictions/output_bias": "predictions.bias",
    "cls/seq_relationship/output_weights": "sop_classifier.classifier.weight",
    "cls/seq_relationship/output_bias": "sop_classifier.classifier.bias",
}  # fmt: skip
_NEEDED = (
    "vocab_size", "embedding_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
    "max_position_embeddings", "type_vocab_size",
)  # fmt: skip
#: Optimizer state stored with a variable.
_SLOTS = re.compile(r"/(adam|lamb)_[mv]$")
#: Settings of unreleased variants -> the value of the published ALBERT.
_PLAIN = {"net_structure_type": 0, "gap_size": 0, "num_memory_blocks": 0, "ln_type": "postln"}


def checkpoint_prefix(name: str) -> Path | None:
    """The prefix of the checkpoint (without ``.index``) in the release folder ``name``, or at that prefix itself.

    None if there is no TensorFlow checkpoint. Raises ForeignCheckpointError if a folder holds several and none is
    ``model.ckpt-best``.
    """
    path = Path(name)
    if (path / "config.json").is_file():  # a checkpoint of transformers takes precedence
        return None
    if not path.is_dir():
        return path if path.with_name(path.name + _INDEX).is_file() else None
    prefixes = sorted(file.with_suffix("") for file in path.glob(f"*{_INDEX}"))
    if len(prefixes) > 1 and path / _BEST not in prefixes:
        names = ", ".join(str(prefix) for prefix in prefixes)
        raise ForeignCheckpointError(f"{path} holds several checkpoints. Name one of them: {names}.")
    return path / _BEST if path / _BEST in prefixes else (prefixes[0] if prefixes else None)


def read_release(prefix: Path) -> tuple[dict[str, Any], dict[str, Tensor], list[Path]]:
    """(configuration, tensors by transformers' names, files that were read).

    Raises ForeignCheckpointError for an unreadable file or an unknown variable, DataError without TensorFlow.
    """
    config = _config(prefix.parent / CONFIG)
    complete(config, CONFIG)
    tensors: dict[str, Tensor] = {}
    unknown = []
    for variable, tensor in _variables(prefix).items():
        name = _name(variable)
        if name is None:
            unknown.append(variable)
        else:
            tensors[name] = tensor.T if variable.endswith("/kernel") else tensor
    if unknown:
        raise ForeignCheckpointError(f"{prefix}: variables that are not ALBERT's: {', '.join(sorted(unknown))}.")
    width, table = config["hidden_size"], tensors.get("albert.embeddings.word_embeddings.weight")
    if (
        config["embedding_size"] == width and table is not None and table.shape[-1] == width
    ):  # the release has no projection there, transformers an identity
        tensors.setdefault(f"{PROJECTION}.weight", torch.eye(width))
        tensors.setdefault(f"{PROJECTION}.bias", torch.zeros(width))
    require_finite(tensors, str(prefix))
    files = sorted(prefix.parent.glob(f"{prefix.name}.data-*"))
    return config, tensors, [prefix.with_name(prefix.name + _INDEX), *files]


def _config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ForeignCheckpointError(
            f"{path}: not readable ({type(error).__name__}). It belongs beside the checkpoint."
        ) from None
    except (ValueError, RecursionError) as error:
        raise ForeignCheckpointError(f"{path}: not JSON ({error}).") from None
    if not isinstance(config, dict):
        raise ForeignCheckpointError(f"{path}: a JSON object is expected.")
    missing = [name for name in _NEEDED if name not in config]
    if missing:
        raise ForeignCheckpointError(f"{path}: no {', '.join(missing)} in it.")
    changed = [f"{name} is {config[name]!r}" for name, plain in _PLAIN.items() if config.get(name, plain) != plain]
    if changed:
        raise ForeignCheckpointError(f"{path}: {', '.join(changed)}; only ALBERT as it was published can be imported.")
    activation = config.get("hidden_act", "gelu")
    return {**config, "model_type": "albert", "hidden_act": "gelu_new" if activation == "gelu" else activation}


def _variables(prefix: Path) -> Mapping[str, Tensor]:
    """The variables of encoder and heads in fp32, without the state of optimizer and trainer."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # silences TensorFlow's log lines about the hardware
    try:
        import tensorflow
    except ModuleNotFoundError as error:
        raise DataError(
            f"{prefix}: TensorFlow checkpoints need TensorFlow. Run `{install_command('tensorflow')}`."
        ) from error
    try:
        reader = tensorflow.train.load_checkpoint(str(prefix))
        names = [name for name in reader.get_variable_to_shape_map() if not _SLOTS.search(name)]
        named = {name.removeprefix("module/"): name for name in names}
        kept = {name: stored for name, stored in named.items() if name.startswith(("bert/", "cls/"))}
        return {name: torch.from_numpy(reader.get_tensor(stored)).float() for name, stored in kept.items()}
    except (tensorflow.errors.OpError, ValueError, RuntimeError) as error:
        raise ForeignCheckpointError(f"{prefix}: not a readable checkpoint ({str(error).splitlines()[0]}).") from error


def _name(variable: str) -> str | None:
    """The name of a variable in transformers, or None if it is not ALBERT's."""
    if variable in _WHOLE:
        return _WHOLE[variable]
    module, _, value = variable.rpartition("/")
    block = _BLOCK.fullmatch(module.removeprefix("bert/"))
    if block:
        group, inner, part = block.groups()
        module = _BLOCK_PARTS.get(part, "")
        name = f"albert.encoder.albert_layer_groups.{group}.albert_layers.{inner}.{module}"
    else:
        name = module = _PARTS.get(module, "")
    return f"{name}.{_VALUES[value]}" if module and value in _VALUES else None
