"""Checkpoints: complete folders or none. Weights as safetensors, optimizer state as tensors."""

import pickle
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from albert_ablate.errors import CheckpointError, DamagedFileError, DiskFullError
from albert_ablate.files import building, differences, read_json, replacing, sha256_file, write_json

_NAME = re.compile(r"step_(\d{8})$")
WEIGHTS = "model.safetensors"
STATE = "state.pt"
#: Left free for everything else that a run writes.
_SPARE_BYTES = 20_000_000


@dataclass(frozen=True)
class Owner:
    """What a checkpoint belongs to."""

    identity: str
    described: dict[str, Any] = field(default_factory=dict)  # what it is made from; read to say what differs
    device: str = "cpu"  # the kind that it is trained on: cpu or cuda
    card: str = "cpu"  # the GPU's name; cpu where there is none


@dataclass(frozen=True)
class Snapshot:
    """What a checkpoint holds besides plain numbers."""

    weights: dict[str, Tensor]
    optimizer: dict[str, Any]

    def bytes(self) -> int:
        """Size of its tensors."""
        moments = [v for state in self.optimizer["state"].values() for v in state.values() if isinstance(v, Tensor)]
        return sum(tensor.nbytes for tensor in (*self.weights.values(), *moments))


def snapshot(model: nn.Module, optimizer: Optimizer, copied: bool) -> Snapshot:
    """The state of training now; ``copied``, so that training may go on while it is written."""

    def taken(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.detach().to("cpu", copy=copied).contiguous()
        if isinstance(value, list):  # groups of parameters, whose learning rate is a tensor on a GPU
            return [taken(item) for item in value]
        return {k: taken(v) for k, v in value.items()} if isinstance(value, dict) else value

    return Snapshot(taken(dict(model.state_dict())), taken(optimizer.state_dict()))


def save(
    folder: Path,
    step: int,
    owner: Owner,
    state: Snapshot,
    progress: dict[str, Any],
    keep: int,
    beside: Sequence[Path] = (),
) -> Path:
    """Write ``folder/step_XXXXXXXX`` whole, then drop all but the newest ``keep``.

    ``beside`` are files of ``folder`` that it is not intact without. ``progress`` is plain numbers.
    Random state is not stored: every draw is a function of the seed and the step. Older checkpoints
    go when this one reads back as it was written. Raises DiskFullError, before anything is written,
    where the disk has no room for it.
    """
    target = folder / f"step_{step:08d}"
    if intact(target) is None:
        if target.exists():
            shutil.rmtree(target)
        require_space(folder, state.bytes())
        with building(target) as temporary:
            save_file(state.weights, temporary / WEIGHTS)
            with (temporary / STATE).open("wb") as out:
                torch.save(state.optimizer, out)
            hashes = {name: sha256_file(temporary / name) for name in (WEIGHTS, STATE)}
            belongs = {"identity": owner.identity, "described": owner.described}
            belongs |= {"device": owner.device, "card": owner.card}
            others = {path.name: sha256_file(path) for path in beside}
            write_json(
                temporary / "meta.json", {"step": step, **belongs, "sha256": hashes, "beside": others, **progress}
            )
    if intact(target) is None:
        raise CheckpointError(f"{target} does not read back as it was written; the disk may be failing.")
    for old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return target


def require_space(folder: Path, needed: int) -> None:
    """Raise DiskFullError where a checkpoint of ``needed`` bytes would fill the disk of ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < needed + _SPARE_BYTES:
        raise DiskFullError(
            f"A checkpoint needs {needed / 1e6:,.0f} MB and the disk of {folder} has {free / 1e6:,.0f} MB left. Free "
            "some space, and the same command continues."
        )


def clear_unfinished(folder: Path) -> None:
    """Remove what a killed process left half written."""
    for path in (*folder.glob(".step_*"), *folder.glob(".*.safetensors.*")):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def checkpoints(folder: Path) -> list[Path]:
    """Checkpoint folders, oldest first, intact or not."""
    return sorted(path for path in folder.glob("step_*") if _NAME.match(path.name))


def intact(path: Path) -> dict[str, Any] | None:
    """Meta data of the checkpoint at ``path``, or None where a file is missing or differs from its hash."""
    try:
        meta: dict[str, Any] = read_json(path / "meta.json")
        files = {path / name: meta["sha256"][name] for name in (WEIGHTS, *meta["sha256"])}
        files |= {path.parent / name: recorded for name, recorded in meta.get("beside", {}).items()}
        good = all(sha256_file(file) == recorded for file, recorded in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return meta if good else None


def require_device(folder: Path, device: str, card: str) -> str | None:
    """Raise CheckpointError where the newest checkpoint of ``folder`` was written on another kind of ``device``.

    CPU and CUDA round and sum differently, so the run would end with numbers that neither of them gives. Returns what
    to say where only the ``card`` is another one. A checkpoint that does not name its device was written on a CPU.
    """
    for path in reversed(checkpoints(folder)):
        try:
            meta = read_json(path / "meta.json")
            begun_on, first_card = str(meta.get("device", "cpu")), str(meta.get("card", "cpu"))
        except (OSError, DamagedFileError, AttributeError):
            continue  # damaged; the one before it is used
        if begun_on != device:
            there = "runtime.device=cpu" if begun_on == "cpu" else "runtime.device=cuda on a machine with a GPU"
            raise CheckpointError(
                f"{folder.parent} was begun on {_in_words(begun_on, first_card)} and would continue on "
                f"{_in_words(device, card)}: it would end with numbers that neither gives. Continue it with {there}; "
                "rerun=all starts it anew, and so does removing its checkpoints."
            )
        if first_card != card:
            return f"begun on {first_card}, continues on {card}: the last digits of its numbers may differ"
        return None
    return None


def _in_words(device: str, card: str) -> str:
    return "a CPU" if device == "cpu" else f"a GPU ({card})"


def load_latest(
    folder: Path, owner: Owner, model: nn.Module, optimizer: Optimizer | None = None
) -> dict[str, Any] | None:
    """Load the newest intact checkpoint and return its meta data, or None where there is none.

    Raises CheckpointError where checkpoints exist and none is intact, or the newest belongs to
    another configuration: a run never restarts at step 0 by itself.
    """
    damaged = []
    for path in reversed(checkpoints(folder)):
        meta = intact(path)
        if meta is None:
            damaged.append(path.name)
            continue
        if meta["identity"] != owner.identity:
            found = differences(meta.get("described", {}), owner.described) if "described" in meta else []
            words = "".join(f"\n  - {difference}" for difference in found)
            raise CheckpointError(f"{path} belongs to run {meta['identity']}, not to {owner.identity}.{words}")
        load_weights(path, model)
        if optimizer is not None:
            _load_state(path / STATE, optimizer)
        return meta | {"damaged": damaged}
    if damaged:
        raise CheckpointError(f"{folder}: every checkpoint is damaged ({', '.join(damaged)}). Remove it to start anew.")
    return None


def _load_state(path: Path, optimizer: Optimizer) -> None:
    """Without running what a pickle may hold. Raises CheckpointError."""
    try:
        optimizer.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except (pickle.UnpicklingError, RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: not a readable training state ({str(error).splitlines()[0]}).") from error


def newest(folder: Path) -> Path:
    """The newest intact checkpoint. Raises CheckpointError where there is none."""
    found = next((path for path in reversed(checkpoints(folder)) if intact(path) is not None), None)
    if found is None:
        raise CheckpointError(f"{folder}: no intact checkpoint to start from. Was the run trained to its end?")
    return found


def load_matching(checkpoint: Path, model: nn.Module) -> list[str]:
    """Copy every tensor whose name and shape ``model`` has; returns the names that it did not find."""
    weights, own = _read_weights(checkpoint / WEIGHTS), model.state_dict()
    found = {name: weights[name] for name in own if name in weights and weights[name].shape == own[name].shape}
    model.load_state_dict(own | found)
    return sorted(own.keys() - found.keys())


def load_weights(checkpoint: Path, model: nn.Module) -> None:
    """Load ``model.safetensors`` strictly. Raises CheckpointError listing what does not fit."""
    load_strictly(checkpoint / WEIGHTS, model)


def save_weights(path: Path, model: nn.Module) -> None:
    """Write the weights alone, atomically."""
    with replacing(path) as temporary:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}, temporary)


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{path}: not a readable weights file ({str(error).splitlines()[0]}).") from error


def load_strictly(path: Path, model: nn.Module) -> None:
    """Load a safetensors file. Raises CheckpointError listing what does not fit."""
    weights = _read_weights(path)
    own = model.state_dict()
    wrong = sorted(own.keys() ^ weights.keys())
    common = own.keys() & weights.keys()
    wrong += sorted(n for n in common if (own[n].shape, own[n].dtype) != (weights[n].shape, weights[n].dtype))
    if wrong:
        raise CheckpointError(f"{path} does not fit this model; these tensors differ: {', '.join(wrong)}.")
    model.load_state_dict(weights)
