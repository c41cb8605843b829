"""Checkpoints: folders that are written completely or not at all.

Weights are safetensors; the optimizer's state is a file of tensors.
"""

import pickle
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
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
from albert_ablate.model.base import EncoderModel

_NAME = re.compile(r"step_(\d{8})$")
WEIGHTS = "model.safetensors"
STATE = "state.pt"
#: Disk space left free for the other files of a run.
_SPARE_BYTES = 20_000_000


@dataclass(frozen=True)
class Owner:
    """The run or unit that a checkpoint belongs to."""

    identity: str
    described: dict[str, Any] = field(default_factory=dict)  # settings and data of the identity, to report differences
    device: str = "cpu"  # the kind of device it is trained on: cpu or cuda
    card: str = "cpu"  # the GPU's name; cpu without one


@dataclass(frozen=True)
class Snapshot:
    """The tensors of a checkpoint."""

    weights: dict[str, Tensor]
    optimizer: dict[str, Any]

    def bytes(self) -> int:
        """Size of the tensors in bytes."""
        moments = [v for state in self.optimizer["state"].values() for v in state.values() if isinstance(v, Tensor)]
        return sum(tensor.nbytes for tensor in (*self.weights.values(), *moments))


def snapshot(model: nn.Module, optimizer: Optimizer, copied: bool) -> Snapshot:
    """The current weights and optimizer state. ``copied``: as copies, so that training can continue during writing.

    Equal states are written to equal bytes: pickle writes a string once for each object, and after a restart the
    optimizer's keys would be other objects in the states that were read than in those that began later.
    """

    def on_cpu(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.detach().to("cpu", copy=copied).contiguous()
        if isinstance(value, list):  # parameter groups; their learning rate is a tensor on a GPU
            return [on_cpu(item) for item in value]
        if isinstance(value, dict):
            return {sys.intern(k) if isinstance(k, str) else k: on_cpu(v) for k, v in value.items()}
        return value

    return Snapshot(on_cpu(dict(model.state_dict())), on_cpu(optimizer.state_dict()))


def save(
    folder: Path,
    step: int,
    owner: Owner,
    state: Snapshot,
    progress: dict[str, Any],
    keep: int,
    beside: Sequence[Path] = (),
) -> Path:
    """Write ``folder/step_XXXXXXXX``, then delete all but the newest ``keep`` checkpoints; returns its path.

    ``beside``: files of ``folder`` that the checkpoint depends on. ``progress``: plain numbers. Random state is not
    stored, because every draw is a function of the seed and the step. Older checkpoints are deleted only after this one
    has been read back and verified. Raises DiskFullError before anything is written if the disk lacks space, and
    CheckpointError if verification fails.
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
            beside_hashes = {path.name: sha256_file(path) for path in beside}
            meta = {"step": step, **belongs, "sha256": hashes, "beside": beside_hashes, **progress}
            write_json(temporary / "meta.json", meta)
    if intact(target) is None:
        raise CheckpointError(f"{target} does not read back as it was written; the disk may be failing.")
    for outdated in checkpoints(folder)[:-keep]:
        shutil.rmtree(outdated)
    return target


def require_space(folder: Path, needed: int) -> None:
    """Raise DiskFullError if a checkpoint of ``needed`` bytes would fill the disk of ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < needed + _SPARE_BYTES:
        raise DiskFullError(
            f"A checkpoint needs {needed / 1e6:,.0f} MB and the disk of {folder} has {free / 1e6:,.0f} MB left. Free "
            "some space, and the same command continues."
        )


def clear_unfinished(folder: Path) -> None:
    """Remove the incomplete files of a killed process."""
    for path in (*folder.glob(".step_*"), *folder.glob(".*.safetensors.*")):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def checkpoints(folder: Path) -> list[Path]:
    """Checkpoint folders, oldest first, intact or not."""
    return sorted(path for path in folder.glob("step_*") if _NAME.match(path.name))


def intact(path: Path) -> dict[str, Any] | None:
    """Metadata of the checkpoint at ``path``, or None if a file is missing or differs from its hash."""
    try:
        meta: dict[str, Any] = read_json(path / "meta.json")
        files = {path / name: meta["sha256"][name] for name in (WEIGHTS, *meta["sha256"])}
        files |= {path.parent / name: recorded for name, recorded in meta.get("beside", {}).items()}
        unchanged = all(sha256_file(file) == recorded for file, recorded in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return meta if unchanged else None


def require_device(folder: Path, device: str, card: str) -> str | None:
    """Raise CheckpointError if the newest checkpoint of ``folder`` was written on another kind of ``device``.

    CPU and CUDA round and sum differently, so the run would end with numbers of neither. If only the ``card`` differs,
    a message is returned, else None. A checkpoint that does not name its device was written on a CPU.
    """
    for path in reversed(checkpoints(folder)):
        try:
            meta = read_json(path / "meta.json")
            begun_on, first_card = str(meta.get("device", "cpu")), str(meta.get("card", "cpu"))
        except (OSError, DamagedFileError, AttributeError):
            continue  # damaged; the previous checkpoint is used
        if begun_on != device:
            remedy = "runtime.device=cpu" if begun_on == "cpu" else "runtime.device=cuda on a machine with a GPU"
            raise CheckpointError(
                f"{folder.parent} was begun on {_device_label(begun_on, first_card)} and would continue on "
                f"{_device_label(device, card)}: it would end with numbers that neither gives. Continue it with "
                f"{remedy}. To start it anew, use rerun=all or remove its checkpoints."
            )
        if first_card != card:
            return f"begun on {first_card}, continues on {card}: the last digits of its numbers may differ"
        return None
    return None


def _device_label(device: str, card: str) -> str:
    return "a CPU" if device == "cpu" else f"a GPU ({card})"


def load_latest(
    folder: Path, owner: Owner, model: nn.Module, optimizer: Optimizer | None = None
) -> dict[str, Any] | None:
    """Load the newest intact checkpoint and return its metadata, or None if there are no checkpoints.

    Raises CheckpointError if all checkpoints are damaged or the newest intact one belongs to another configuration: a
    run never restarts at step 0 by itself.
    """
    damaged = []
    for path in reversed(checkpoints(folder)):
        meta = intact(path)
        if meta is None:
            damaged.append(path.name)
            continue
        if meta["identity"] != owner.identity:
            changes = differences(meta.get("described", {}), owner.described) if "described" in meta else []
            listed = "".join(f"\n  - {change}" for change in changes)
            raise CheckpointError(f"{path} belongs to run {meta['identity']}, not to {owner.identity}.{listed}")
        load_weights(path, model)
        if optimizer is not None:
            _load_state(path / STATE, optimizer)
        return meta | {"damaged": damaged}
    if damaged:
        raise CheckpointError(f"{folder}: every checkpoint is damaged ({', '.join(damaged)}). Remove it to start anew.")
    return None


def _load_state(path: Path, optimizer: Optimizer) -> None:
    """Load optimizer state without executing code that a pickle may contain. Raises CheckpointError."""
    try:
        optimizer.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except (pickle.UnpicklingError, RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: not a readable training state ({str(error).splitlines()[0]}).") from error


def newest(folder: Path) -> Path:
    """The newest intact checkpoint. Raises CheckpointError if there is none."""
    path = next((path for path in reversed(checkpoints(folder)) if intact(path) is not None), None)
    if path is None:
        raise CheckpointError(f"{folder}: no intact checkpoint to start from. Was the run trained to its end?")
    return path


#: How the name of a table of positions ends.
POSITIONS = "embedding.position.weight"


def load_matching(checkpoint: Path, model: nn.Module) -> list[str]:
    """Load the tensors that agree with ``model`` in name and shape; returns the names of the model's other tensors."""
    return _loaded(read_weights(checkpoint / WEIGHTS), model)


def load_extended(checkpoint: Path, model: nn.Module) -> tuple[list[str], list[str]]:
    """``load_matching`` where a table of positions may have fewer rows than the model's: they are repeated.

    Returns the names of the model's other tensors, and of the tables that were repeated.
    """
    weights, repeated = read_weights(checkpoint / WEIGHTS), []
    for name, own in model.state_dict().items():
        stored = weights.get(name)
        if stored is None or not name.endswith(POSITIONS) or stored.shape[1:] != own.shape[1:]:
            continue
        if len(stored) < len(own):
            weights[name] = repeated_to(len(own), stored)
            repeated.append(name)
    return _loaded(weights, model), repeated


def repeated_to(rows: int, table: Tensor) -> Tensor:
    """The first ``rows`` rows of ``table``, repeated from its first row on where it has fewer."""
    return table.repeat(-(-rows // len(table)), 1)[:rows].contiguous()


def _loaded(weights: Mapping[str, Tensor], model: nn.Module) -> list[str]:
    """See ``load_matching``."""
    state = model.state_dict()
    matching = {name: weights[name] for name in state if name in weights and weights[name].shape == state[name].shape}
    model.load_state_dict(state | matching)
    return sorted(state.keys() - matching.keys())


def load_weights(checkpoint: Path, model: nn.Module) -> None:
    """Load ``model.safetensors`` strictly. Raises CheckpointError with the tensors that do not fit."""
    load_strictly(checkpoint / WEIGHTS, model)


def save_weights(path: Path, model: nn.Module) -> None:
    """Write only the weights, atomically."""
    with replacing(path) as temporary:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}, temporary)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file. Raises CheckpointError."""
    try:
        return load_file(path)
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{path}: not a readable weights file ({str(error).splitlines()[0]}).") from error


def load_strictly(path: Path, model: nn.Module) -> None:
    """Load a safetensors file strictly. Raises CheckpointError with the tensors that do not fit.

    Tensors that only training needs are left out if the model has none (``EncoderModel.training_only``).
    """
    weights = read_weights(path)
    state = model.state_dict()
    if isinstance(model, EncoderModel):
        left_out = tuple(prefix for prefix in model.training_only if not any(n.startswith(prefix) for n in state))
        weights = {name: tensor for name, tensor in weights.items() if not name.startswith(left_out)}
    differing = sorted(state.keys() ^ weights.keys())
    common = state.keys() & weights.keys()
    differing += sorted(n for n in common if (state[n].shape, state[n].dtype) != (weights[n].shape, weights[n].dtype))
    if differing:
        raise CheckpointError(f"{path} does not fit this model; these tensors differ: {', '.join(differing)}.")
    model.load_state_dict(weights)
