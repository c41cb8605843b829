"""Tensor files of other libraries: safetensors, whole or in shards, and PyTorch's .bin without its pickles' code."""

import json
import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from albert_ablate.errors import CheckpointError

_SAFE, _BIN = "model.safetensors", "pytorch_model.bin"


def read_tensors(folder: Path) -> tuple[dict[str, Tensor], list[Path]]:
    """Every tensor of a checkpoint folder in fp32, and the files it was read from. Raises CheckpointError."""
    files = _files(folder)
    tensors: dict[str, Tensor] = {}
    for file in files:
        try:
            found = load_file(file) if file.suffix == ".safetensors" else _load_bin(file)
        except (OSError, RuntimeError, EOFError, SafetensorError, pickle.UnpicklingError) as error:
            raise CheckpointError(f"{file}: not a readable weights file ({str(error).splitlines()[0]}).") from error
        tensors |= {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in found.items()}
    return tensors, files


def _files(folder: Path) -> list[Path]:
    for whole in (_SAFE, _BIN):
        if (folder / whole).is_file():
            return [folder / whole]
        index = folder / f"{whole}.index.json"
        if index.is_file():
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            outside = [name for name in names if Path(name).name != name]
            missing = [name for name in names if not (folder / name).is_file()]
            if outside or missing:
                raise CheckpointError(f"{index} names {', '.join(outside or missing)}, which the folder does not hold.")
            return [folder / name for name in names]
    raise CheckpointError(f"{folder}: neither {_SAFE} nor {_BIN} (nor shards of one) is there.")


def _load_bin(file: Path) -> dict[str, Tensor]:
    found = torch.load(file, map_location="cpu", weights_only=True)
    if not isinstance(found, dict) or not all(isinstance(tensor, Tensor) for tensor in found.values()):
        raise CheckpointError(f"{file}: it does not hold tensors by name.")
    return found
