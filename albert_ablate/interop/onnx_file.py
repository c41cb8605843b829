"""Writes a model as one ONNX graph, and checks that ONNX Runtime computes the same from it.

The graph is that of the plain modules, in fp32 and without dropout. Batch and length may vary. Attention in blocks is
chosen for a length: its graph takes texts of one length, and holds the blocks as constants.

Letters: B batch, T tokens, H hidden.
"""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from albert_ablate.errors import ConfigError, UserError
from albert_ablate.model.attention import PATTERNS
from albert_ablate.model.encoder import Encoder
from albert_ablate.model.shape import Shape
from albert_ablate.shipped import install_command

#: Name of the file in an exported folder.
NAME = "model.onnx"
#: Largest difference of an output from PyTorch's, relative to the largest output if that is above 1.
TOLERANCE = 1e-4
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
#: The output of an encoder without a head.
STATES = "last_hidden_state"
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
#: Sequences, and the tokens of each, that the graph is traced with. One would be taken as a constant.
_TRACED = (2, 8)


class OnnxError(UserError):
    """A model cannot be written as ONNX, or ONNX Runtime computes something else."""

    exit_code = 2


@dataclass(frozen=True)
class Traceable:
    """A model as a function of whole grids."""

    module: nn.Module  # (input_ids, attention_mask, token_type_ids), (B, T) int64 each -> a tensor, or one per output
    encoder: Encoder  # its encoder
    outputs: tuple[str, ...] = (STATES,)
    by_text: bool = False  # the outputs are (B, ...), not (B, T, ...)
    facts: Mapping[str, str] = field(default_factory=dict)  # metadata of the file

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the graph's inputs: token types only if the model has them."""
        return INPUTS if self.encoder.shape.type_vocab_size else INPUTS[:2]


class States(nn.Module):
    """The states of the last layer."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """-> (B, T, H)."""
        states: Tensor = self.encoder(input_ids, types_or_none(token_type_ids, input_ids), attention_mask)
        return states


def types_or_none(types: Tensor | None, ids: Tensor) -> Tensor:
    """``types``; for a model without token types, which does not read them, ``ids``."""
    return ids if types is None else types


def states_of(encoder: Encoder) -> Traceable:
    """An encoder without a head."""
    return Traceable(States(encoder).eval(), encoder)


def require_packages(option: str) -> None:
    """Raise ConfigError if a package is missing; ``option`` is what needs them."""
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise ConfigError(f"{option} needs the packages {', '.join(missing)}. Run `{install_command('onnx')}`.")


def fixed_length(shape: Shape, length: int | None, longest: int) -> int | None:
    """The tokens of every text of the graph; None if texts may have any length.

    ``length`` is what the user asked for, ``longest`` the tokens of the longest text. Raises ConfigError.
    """
    if not PATTERNS[shape.pattern].by_length:
        if length is not None:
            raise ConfigError(f"--length {length}: no effect, since this model takes texts of any length.")
        return None
    if length is not None and not 2 <= length <= shape.max_positions:
        raise ConfigError(f"--length {length}: the model has positions for 2 to {shape.max_positions:,} tokens.")
    return length or longest


def write_onnx(model: Traceable, path: Path, length: int | None) -> float:
    """Write ``path`` and check it; returns the largest difference, in the measure of ``TOLERANCE``.

    ``length``: as ``fixed_length`` returns it. Raises OnnxError if a difference is above ``TOLERANCE``.
    """
    longest = model.encoder.shape.max_positions
    grids = example(model, _TRACED[0], length or min(_TRACED[1], longest))
    batch = torch.export.Dim("batch", min=1)
    free: dict[int, Any] = {0: batch} if length else {0: batch, 1: torch.export.Dim("length", min=1, max=longest)}
    with torch.no_grad(), _plain(model.encoder), _quiet():
        model.module(*grids.values())  # fills the cache of plans, which must not be filled while the model is traced
        program = torch.onnx.export(
            model.module, tuple(grids.values()), dynamo=True, verbose=False, input_names=list(model.inputs),
            output_names=list(model.outputs), dynamic_shapes=(free,) * len(grids),
        )  # fmt: skip
        assert program is not None
        program.model.metadata_props.update({**model.facts, "length": str(length or f"1 to {longest}")})
        program.save(str(path))
    return check(model, path, length)


def check(model: Traceable, path: Path, length: int | None) -> float:
    """The largest difference between ONNX Runtime and PyTorch, over texts of several lengths with padding.

    Raises OnnxError if it is above ``TOLERANCE``.
    """
    longest = model.encoder.shape.max_positions
    lengths = [length] if length else sorted({2, min(17, longest), min(longest, 128)})
    run = session(path)
    worst = 0.0
    for batch in (1, 3):
        for tokens in lengths:
            grids = example(model, batch, tokens)
            worst = max(worst, difference(model, grids, run.run(None, arrays(grids))))
    if not worst <= TOLERANCE:  # also true for NaN
        raise OnnxError(
            f"ONNX Runtime computes other outputs than PyTorch: they differ by {worst:.1e}, more than {TOLERANCE:.0e}. "
            "The file is not kept."
        )
    return worst


def difference(model: Traceable, grids: Mapping[str, Tensor], found: Sequence[np.ndarray]) -> float:
    """The largest difference of ``found`` from PyTorch's outputs at real tokens, in the measure of ``TOLERANCE``."""
    with torch.no_grad():
        results = model.module(*grids.values())
    expected = results if isinstance(results, tuple) else (results,)
    real = grids["attention_mask"] != 0
    worst = 0.0
    for ours, theirs in zip(expected, map(torch.from_numpy, found), strict=True):
        kept, other = (ours, theirs) if model.by_text else (ours[real], theirs[real])
        worst = max(worst, float((kept - other).abs().max()) / max(1.0, float(kept.abs().max())))
    return worst


def example(model: Traceable, batch: int, length: int) -> dict[str, Tensor]:
    """Grids (B, T) of made-up ids. From the second on, texts are shorter and padded; each has a second part."""
    shape = model.encoder.shape
    place = torch.arange(batch * length).view(batch, length)
    ends = length - torch.arange(batch)[:, None] * length // (batch + 1)
    real = torch.arange(length) < ends
    ids = place * 7919 % shape.vocab_size * real
    types = ((torch.arange(length) >= ends // 2) & real).long()
    grids = {"input_ids": ids, "attention_mask": real.long(), "token_type_ids": types}
    return {name: grids[name] for name in model.inputs}


def arrays(grids: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Grids as ONNX Runtime takes them."""
    return {name: grid.numpy() for name, grid in grids.items()}


def session(path: Path, threads: int = 1, spin: bool = True) -> Any:
    """The file, loaded by ONNX Runtime on a CPU with all optimisations; operators one after another.

    ``spin``: whether its threads keep a processor busy while they wait for work, which is ONNX Runtime's default.
    """
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads, settings.inter_op_num_threads = threads, 1
    settings.log_severity_level = 3  # errors
    settings.add_session_config_entry("session.intra_op.allow_spinning", "1" if spin else "0")
    return onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])


@contextmanager
def _plain(encoder: Encoder) -> Iterator[None]:
    """Compute with the plain modules, which can be traced."""
    encoder.plain = True
    try:
        yield
    finally:
        encoder.plain = False


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on packages that it could also use, and without its records of tracing."""
    levels = {logging.getLogger(name): logging.getLogger(name).level for name in ("torch.onnx", "torch.__trace")}
    try:
        for logger in levels:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)
