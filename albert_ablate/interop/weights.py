"""Tensor files of other libraries: safetensors, whole or in shards, and PyTorch's .bin without its pickles' code."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from albert_ablate.errors import ForeignCheckpointError

_SAFE, _BIN = "model.safetensors", "pytorch_model.bin"
#: Kinds of numbers that weights are stored in.
_REAL = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
#: Tensors that are named where many hold values that are not finite.
_NAMED = 8


def read_tensors(folder: Path) -> tuple[dict[str, Tensor], list[Path]]:
    """Every tensor of a checkpoint folder in fp32, and the files it was read from.

    Raises ForeignCheckpointError for a damaged or incomplete file, for other kinds of numbers, and for
    values that are not finite.
    """
    files, index = _files(folder)
    tensors: dict[str, Tensor] = {}
    place: dict[str, str] = {}
    for file in files:
        for name, tensor in _read(file).items():
            if name in tensors:
                raise ForeignCheckpointError(f"{file}: {name} stands in {place[name]} already.")
            tensors[name], place[name] = tensor, file.name
    if index is not None and index != place:
        wrong = sorted(name for name in index.keys() | place.keys() if index.get(name) != place.get(name))
        raise ForeignCheckpointError(
            f"{folder}: the index and the shards disagree on where a tensor is: {', '.join(wrong[:_NAMED])}."
        )
    weights = {name: _in_fp32(name, tensor) for name, tensor in tensors.items()}
    require_finite(weights, str(folder))
    return weights, files


def require_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    """Raise ForeignCheckpointError naming each tensor with a NaN or an infinite value, and how many it has."""
    found = {
        name: int((~torch.isfinite(tensor)).sum()) for name, tensor in tensors.items() if tensor.is_floating_point()
    }
    counts = [f"{name} ({count:,} of {tensors[name].numel():,})" for name, count in sorted(found.items()) if count]
    if counts:
        more = f" and {len(counts) - _NAMED:,} more tensors" if len(counts) > _NAMED else ""
        raise ForeignCheckpointError(
            f"{where}: weights that are not finite (NaN or infinite): {', '.join(counts[:_NAMED])}{more}. "
            "No output of such a model is a number; take a checkpoint from before training went wrong."
        )


def _files(folder: Path) -> tuple[list[Path], dict[str, str] | None]:
    """The files to read, and of shards which tensor each holds."""
    for whole in (_SAFE, _BIN):
        if (folder / whole).is_file():
            return [folder / whole], None
        index = folder / f"{whole}.index.json"
        if index.is_file():
            places = _places(index)
            names = sorted(set(places.values()))
            outside = [name for name in names if Path(name).name != name]
            missing = [name for name in names if not (folder / name).is_file()]
            if outside or missing:
                raise ForeignCheckpointError(
                    f"{index} names {', '.join(outside or missing)}, which the folder does not hold."
                )
            return [folder / name for name in names], places
    raise ForeignCheckpointError(f"{folder}: neither {_SAFE} nor {_BIN} (nor shards of one) is there.")


def _places(index: Path) -> dict[str, str]:
    """Tensor -> shard, as the index of shards says."""
    try:
        found = json.loads(index.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ForeignCheckpointError(f"{index}: not JSON ({_first_line(error)}).") from None
    places = found.get("weight_map") if isinstance(found, dict) else None
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise ForeignCheckpointError(f"{index}: no weight_map in it that names the shard of each tensor.")
    return places


def _read(file: Path) -> dict[str, Tensor]:
    try:
        found = (
            load_file(file)
            if file.suffix == ".safetensors"
            else torch.load(file, map_location="cpu", weights_only=True)
        )
    except Exception as error:  # of damaged bytes the two readers raise whatever they stumble over
        raise ForeignCheckpointError(f"{file}: not a readable weights file ({_first_line(error)}).") from error
    named = isinstance(found, dict) and all(isinstance(name, str) for name in found)
    if not named or not all(isinstance(tensor, Tensor) for tensor in found.values()):
        raise ForeignCheckpointError(f"{file}: it does not hold tensors by name.")
    return found


def _in_fp32(name: str, tensor: Tensor) -> Tensor:
    """Buffers of whole numbers stay as they are."""
    if name.endswith(("position_ids", "token_type_ids")):
        return tensor
    if tensor.dtype not in _REAL or tensor.layout is not torch.strided:
        kind = str(tensor.dtype).removeprefix("torch.")
        raise ForeignCheckpointError(f"{name} holds {kind}; weights in fp16, bf16, fp32 or fp64 can be imported.")
    return tensor.float()


def _first_line(error: Exception) -> str:
    """What went wrong, in a line; an error may come without words."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__
