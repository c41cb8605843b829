"""Reads tensor files of other libraries: safetensors and PyTorch's .bin, whole or in shards; pickles run no code."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from albert_ablate.errors import ForeignCheckpointError

_SAFE, _BIN = "model.safetensors", "pytorch_model.bin"
#: Supported number formats of weights.
_REAL = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
#: Most tensors named in one message.
_NAMED = 8


def read_tensors(folder: Path) -> tuple[dict[str, Tensor], list[Path]]:
    """(every tensor of a checkpoint folder in fp32, the files that were read).

    Raises ForeignCheckpointError for a damaged or incomplete file, for other number formats, and for
    values that are not finite.
    """
    files, index = _files(folder)
    tensors: dict[str, Tensor] = {}
    shard_of: dict[str, str] = {}
    for file in files:
        for name, tensor in _read(file).items():
            if name in tensors:
                raise ForeignCheckpointError(f"{file}: {name} is already in {shard_of[name]}.")
            tensors[name], shard_of[name] = tensor, file.name
    if index is not None and index != shard_of:
        wrong = sorted(name for name in index.keys() | shard_of.keys() if index.get(name) != shard_of.get(name))
        raise ForeignCheckpointError(
            f"{folder}: the index and the shards disagree on where a tensor is: {', '.join(wrong[:_NAMED])}."
        )
    weights = {name: _in_fp32(name, tensor) for name, tensor in tensors.items()}
    require_finite(weights, str(folder))
    return weights, files


def require_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    """Raise ForeignCheckpointError naming each tensor with NaN or infinite values, and their number."""
    counts = {
        name: int((~torch.isfinite(tensor)).sum()) for name, tensor in tensors.items() if tensor.is_floating_point()
    }
    bad = [f"{name} ({count:,} of {tensors[name].numel():,})" for name, count in sorted(counts.items()) if count]
    if bad:
        more = f" and {len(bad) - _NAMED:,} more tensors" if len(bad) > _NAMED else ""
        raise ForeignCheckpointError(
            f"{where}: weights that are not finite (NaN or infinite): {', '.join(bad[:_NAMED])}{more}. "
            "No output of such a model is a number; take a checkpoint from before training went wrong."
        )


def _files(folder: Path) -> tuple[list[Path], dict[str, str] | None]:
    """(the files to read, tensor -> shard if the checkpoint is sharded, else None)."""
    for whole in (_SAFE, _BIN):
        if (folder / whole).is_file():
            return [folder / whole], None
        index = folder / f"{whole}.index.json"
        if index.is_file():
            shards = _shards(index)
            names = sorted(set(shards.values()))
            outside = [name for name in names if Path(name).name != name]
            missing = [name for name in names if not (folder / name).is_file()]
            if outside or missing:
                raise ForeignCheckpointError(
                    f"{index} names {', '.join(outside or missing)}, which the folder does not hold."
                )
            return [folder / name for name in names], shards
    raise ForeignCheckpointError(f"{folder}: neither {_SAFE} nor {_BIN} (nor shards of one) is there.")


def _shards(index: Path) -> dict[str, str]:
    """Tensor -> shard, from the index of shards."""
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ForeignCheckpointError(f"{index}: not JSON ({_first_line(error)}).") from None
    shards = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(shards, dict) or not shards or not all(isinstance(name, str) for name in shards.values()):
        raise ForeignCheckpointError(f"{index}: no weight_map in it that names the shard of each tensor.")
    return shards


def _read(file: Path) -> dict[str, Tensor]:
    try:
        tensors = (
            load_file(file)
            if file.suffix == ".safetensors"
            else torch.load(file, map_location="cpu", weights_only=True)
        )
    except Exception as error:  # for damaged files the two readers raise errors of many types
        raise ForeignCheckpointError(f"{file}: not a readable weights file ({_first_line(error)}).") from error
    named = isinstance(tensors, dict) and all(isinstance(name, str) for name in tensors)
    if not named or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise ForeignCheckpointError(f"{file}: it does not hold tensors by name.")
    return tensors


def _in_fp32(name: str, tensor: Tensor) -> Tensor:
    """``tensor`` in fp32; integer buffers are unchanged. Raises ForeignCheckpointError for other number formats."""
    if name.endswith(("position_ids", "token_type_ids")):
        return tensor
    if tensor.dtype not in _REAL or tensor.layout is not torch.strided:
        kind = str(tensor.dtype).removeprefix("torch.")
        raise ForeignCheckpointError(f"{name} holds {kind}; weights in fp16, bf16, fp32 or fp64 can be imported.")
    return tensor.float()


def _first_line(error: Exception) -> str:
    """The first line of the error's message, or its type if the message is empty."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__
