"""The weights of a finished run as the first ones of another run, which may have another tokenizer and other heads."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from albert_ablate.config.schema import RunConfig
from albert_ablate.data.matching import same_pieces
from albert_ablate.data.tokenizer import Tokenizer
from albert_ablate.data.vocabulary import open_tokenizer, tokenizer_file
from albert_ablate.interop.imported import heads_called
from albert_ablate.model.base import EncoderModel
from albert_ablate.model.blocks import bank_entries
from albert_ablate.model.heads import PIECE_ROWS
from albert_ablate.model.shape import Shape
from albert_ablate.record.folder import RunFolder
from albert_ablate.record.init import Init, Pieces
from albert_ablate.record.manifest import Manifest
from albert_ablate.training.checkpoint import POSITIONS, WEIGHTS, newest, read_weights, repeated_to

_ENCODER = "encoder"


@dataclass
class Taken:
    """What became of the tensors of both models, by name."""

    taken: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)  # initialised from the seed
    repeated: list[str] = field(default_factory=list)  # tables of positions that had fewer rows
    cut: list[str] = field(default_factory=list)  # those that had more
    copied: list[str] = field(default_factory=list)  # of blocks that begin with a block of another number
    left: list[str] = field(default_factory=list)  # of the parent, without a place here


def continue_from(run: RunFolder, settings: RunConfig, model: EncoderModel, tokenizer: Tokenizer) -> Init:
    """Give ``model``, which reads the pieces of ``tokenizer``, the weights of a finished run with ``settings``.

    Raises UserError if its files cannot be read.
    """
    theirs = open_tokenizer(tokenizer_file(run.path), settings.tokenizer)
    rows = None if _listed(tokenizer) == _listed(theirs) else same_pieces(tokenizer, theirs)
    manifest = run.load("manifest.json", Manifest)
    lacking = () if manifest.imported is None else heads_called(manifest.imported.missing)
    result = take(newest(run.checkpoints), model, settings.architecture(), lacking, rows)
    record = Init(
        from_=run.name,
        identity=manifest.identity or run.identity,
        tensors_taken=result.taken,
        tensors_new=result.new,
        tensors_left=result.left,
    )
    for name in ("repeated", "cut", "copied"):
        if names := getattr(result, name):
            setattr(record, f"tensors_{name}", names)
    if rows is not None:
        matched = int((rows >= 0).sum())
        record.pieces = Pieces(matched=matched, new=len(rows) - matched)
    return record


def _listed(tokenizer: Tokenizer) -> list[str]:
    return [tokenizer.piece(number) for number in range(tokenizer.vocab_size)]


def said_of(record: Init) -> str:
    """``starts with the weights of NAME: 32 tensors``, and what is new, repeated and copied."""
    parts = [f"starts with the weights of {record.from_}: {len(record.tensors_taken)} tensors"]
    new = dict.fromkeys(name if _inside(name) else name.partition(".")[0] for name in record.tensors_new)
    if new:
        parts.append(f"initialised anew: {', '.join(new)}")
    if record.tensors_copied:
        parts.append("layers begin with copies of shared ones")
    if record.tensors_repeated:
        parts.append("its table of positions is repeated")
    if record.tensors_cut:
        parts.append("its table of positions is cut")
    if record.pieces is not None:
        whole = record.pieces.matched + record.pieces.new
        parts.append(f"{record.pieces.matched:,} of {whole:,} pieces are known to it, the others are initialised anew")
    return "; ".join(parts)


def take(
    checkpoint: Path, model: EncoderModel, parent: Shape, lacking: Collection[str], rows: np.ndarray | None
) -> Taken:
    """Give ``model`` the weights of ``checkpoint``, whose encoder has the shape ``parent``.

    ``lacking``: names of heads that hold random values there. ``rows``: (V,) the row of each of our pieces there, -1
    for a new one, whose row stays as it is; None with the same pieces. Tensors are matched by name and shape, a head as
    a whole. Raises CheckpointError if the file cannot be read.
    """
    state = model.state_dict()
    stored, result = read_weights(checkpoint / WEIGHTS), Taken()
    origins = _origins(model.encoder.shape, parent)
    found: dict[str, Tensor] = {}
    used = set()
    for name, own in state.items():
        source = _moved(name, origins)
        tensor = stored.get(source)
        if tensor is None or name.partition(".")[0] in lacking:
            continue
        if rows is not None and name.endswith(PIECE_ROWS):
            tensor = _by_piece(own, tensor, rows)
        elif name.endswith(POSITIONS) and tensor.shape[1:] == own.shape[1:] and len(tensor) != len(own):
            (result.repeated if len(tensor) < len(own) else result.cut).append(name)
            tensor = repeated_to(len(own), tensor)
        if tensor.shape == own.shape:
            found[name] = tensor
            used.add(source)
            if source != name:
                result.copied.append(name)
    heads = {name.partition(".")[0] for name in state if name not in found} - {_ENCODER}
    found = {name: tensor for name, tensor in found.items() if name.partition(".")[0] not in heads}
    model.load_state_dict(state | found)
    result.taken, result.new = sorted(found), sorted(state.keys() - found.keys())
    result.repeated, result.cut = ([n for n in names if n in found] for names in (result.repeated, result.cut))
    result.left = sorted(name for name in stored if name not in used or name.partition(".")[0] in heads)
    return result


def _inside(name: str) -> bool:
    return name.startswith(f"{_ENCODER}.")


def _origins(ours: Shape, theirs: Shape) -> dict[str, str]:
    """Prefix of the tensors of a block -> that of the block it begins with, which its first layer has there.

    The method has made sure that all layers of a block agree; fewer layers there all share one.
    """
    origins: dict[str, str] = {}
    for layer in range(ours.layers):
        there = bank_entries(theirs, min(layer, theirs.layers - 1))
        for (kind, index), (_, origin) in zip(bank_entries(ours, layer), there, strict=True):
            origins.setdefault(f"{_ENCODER}.{kind}.{index}.", f"{_ENCODER}.{kind}.{origin}.")
    return origins


def _moved(name: str, origins: Mapping[str, str]) -> str:
    """The name there of the tensor that ``name`` begins with."""
    parts = name.split(".")
    prefix = f"{'.'.join(parts[:3])}."
    return origins[prefix] + name.removeprefix(prefix) if prefix in origins else name


def _by_piece(own: Tensor, stored: Tensor, rows: np.ndarray) -> Tensor:
    """``own`` with the rows of ``stored`` for the pieces that both have; ``stored`` where the widths differ."""
    if stored.shape[1:] != own.shape[1:] or len(own) != len(rows):
        return stored
    known = torch.from_numpy(np.flatnonzero(rows >= 0))
    mixed = own.clone()
    mixed[known] = stored[torch.from_numpy(rows)[known]]
    return mixed
