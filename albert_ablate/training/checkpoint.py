"""Checkpoints: complete folders or none. Weights as safetensors, optimizer state as tensors."""

import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim import Optimizer

from albert_ablate.errors import CheckpointError
from albert_ablate.files import building, read_json, sha256_file, write_json

_NAME = re.compile(r"step_(\d{8})$")
WEIGHTS = "model.safetensors"
STATE = "state.pt"


def save(
    folder: Path, step: int, identity: str, model: nn.Module, optimizer: Optimizer, progress: dict[str, Any], keep: int
) -> Path:
    """Write ``folder/step_XXXXXXXX`` whole, then drop all but the newest ``keep``.

    ``progress`` is plain numbers. Random state is not stored: every draw is a function of the seed
    and the step.
    """
    target = folder / f"step_{step:08d}"
    if _intact(target) is None:
        if target.exists():
            shutil.rmtree(target)
        with building(target) as temporary:
            save_weights(temporary / WEIGHTS, model)
            torch.save(optimizer.state_dict(), temporary / STATE)
            hashes = {name: sha256_file(temporary / name) for name in (WEIGHTS, STATE)}
            write_json(temporary / "meta.json", {"step": step, "identity": identity, "sha256": hashes, **progress})
    for old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return target


def checkpoints(folder: Path) -> list[Path]:
    """Checkpoint folders, oldest first, intact or not."""
    return sorted(path for path in folder.glob("step_*") if _NAME.match(path.name))


def _intact(path: Path) -> dict[str, Any] | None:
    """Meta data of the checkpoint at ``path``, or None where a file is missing or differs from its hash."""
    try:
        meta: dict[str, Any] = read_json(path / "meta.json")
        good = all(sha256_file(path / name) == recorded for name, recorded in meta["sha256"].items())
    except (OSError, ValueError, KeyError):
        return None
    return meta if good else None


def load_latest(
    folder: Path, identity: str, model: nn.Module, optimizer: Optimizer | None = None
) -> dict[str, Any] | None:
    """Load the newest intact checkpoint and return its meta data, or None where there is none.

    Raises CheckpointError where checkpoints exist and none is intact, or the newest belongs to
    another configuration: a run never restarts at step 0 by itself.
    """
    damaged = []
    for path in reversed(checkpoints(folder)):
        meta = _intact(path)
        if meta is None:
            damaged.append(path.name)
            continue
        if meta["identity"] != identity:
            raise CheckpointError(f"{path} belongs to run {meta['identity']}, not to {identity}.")
        load_weights(path, model)
        if optimizer is not None:
            optimizer.load_state_dict(torch.load(path / STATE, map_location="cpu", weights_only=True))
        return meta | {"damaged": damaged}
    if damaged:
        raise CheckpointError(f"{folder}: every checkpoint is damaged ({', '.join(damaged)}). Remove it to start anew.")
    return None


def newest(folder: Path) -> Path:
    """The newest intact checkpoint. Raises CheckpointError where there is none."""
    found = next((path for path in reversed(checkpoints(folder)) if _intact(path) is not None), None)
    if found is None:
        raise CheckpointError(f"{folder}: no intact checkpoint to start from. Was the run trained to its end?")
    return found


def load_matching(checkpoint: Path, model: nn.Module) -> list[str]:
    """Copy every tensor whose name and shape ``model`` has; returns the names that it did not find."""
    weights, own = load_file(checkpoint / WEIGHTS), model.state_dict()
    found = {name: weights[name] for name in own if name in weights and weights[name].shape == own[name].shape}
    model.load_state_dict(own | found)
    return sorted(own.keys() - found.keys())


def load_weights(checkpoint: Path, model: nn.Module) -> None:
    """Load ``model.safetensors`` strictly. Raises CheckpointError listing what does not fit."""
    load_strictly(checkpoint / WEIGHTS, model)


def save_weights(path: Path, model: nn.Module) -> None:
    """Write the weights alone, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, temporary)
    os.replace(temporary, path)


def load_strictly(path: Path, model: nn.Module) -> None:
    """Load a safetensors file. Raises CheckpointError listing what does not fit."""
    weights = load_file(path)
    own = model.state_dict()
    wrong = sorted(own.keys() ^ weights.keys())
    wrong += sorted(name for name in own.keys() & weights.keys() if own[name].shape != weights[name].shape)
    if wrong:
        raise CheckpointError(f"{path} does not fit this model; these tensors differ: {', '.join(wrong)}.")
    model.load_state_dict(weights)
