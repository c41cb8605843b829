"""What a teacher shows of every training sequence, computed once and kept on disk (``task.distil.cache``).

Only real tokens are kept, as fp32. Letters: S sequences, T tokens of one, W width of a batch, H width of the teacher,
N its heads, L compared layers.
"""

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from albert_ablate import console
from albert_ablate.files import building
from albert_ablate.model.imitation import Observed
from albert_ablate.tasks.batches import in_order
from albert_ablate.tasks.task import FeatureSet, TaskBatch

#: Disk space left free for everything else.
_SPARE_BYTES = 1_000_000_000
_STATES, _ATTENTION = "states.f32", "attention.f32"


@dataclass(frozen=True)
class Layout:
    """The sizes of the two files: states (1 + L, all tokens, H), and attention (L, all N T T of a sequence in a row).

    Without hidden states L is 0 in the first; without attention N is 0.
    """

    lengths: np.ndarray  # (S,)
    width: int  # H
    states: int  # 1 + L
    layers: int  # L of attention
    heads: int  # N

    @property
    def tokens(self) -> np.ndarray:
        """(S + 1,) first row of each sequence in the states."""
        starts: np.ndarray = np.concatenate([[0], np.cumsum(self.lengths)])
        return starts

    @property
    def pairs(self) -> np.ndarray:
        """(S + 1,) first number of each sequence in the attention of a layer."""
        starts: np.ndarray = np.concatenate([[0], np.cumsum(self.heads * self.lengths**2)])
        return starts

    @property
    def bytes(self) -> int:
        """Size of both files."""
        return int(4 * (self.states * self.tokens[-1] * self.width + self.layers * self.pairs[-1]))


class KeptOutputs:
    """The kept outputs of a teacher, read from disk batch by batch."""

    def __init__(self, folder: Path, layout: Layout) -> None:
        self._layout, self._tokens, self._pairs = layout, layout.tokens, layout.pairs
        self._states, self._attention = _files(folder, layout, "r")

    def __call__(self, batch: TaskBatch) -> Observed:
        """What the teacher showed of a batch whose targets are the numbers of its examples; 0 at padding."""
        examples = batch.targets.cpu().numpy()
        rows = (examples[:, None] * batch.choices + np.arange(batch.choices)).ravel()
        width, layout = batch.input_ids.shape[1], self._layout
        states = np.zeros((layout.states, len(rows), width, layout.width), np.float32)
        attention = np.zeros((layout.layers, len(rows), layout.heads, width, width), np.float32)
        for place, row in enumerate(rows):
            length = int(layout.lengths[row])
            states[:, place, :length] = self._states[:, self._tokens[row] : self._tokens[row + 1]]
            if layout.heads:
                pairs = self._attention[:, self._pairs[row] : self._pairs[row + 1]]
                attention[:, place, :, :length, :length] = pairs.reshape(layout.layers, layout.heads, length, length)
        device = batch.input_ids.device
        embedding, *hidden = torch.from_numpy(states).to(device)
        return Observed(embedding, tuple(hidden), tuple(torch.from_numpy(attention).to(device)) if layout.heads else ())


def keep_outputs(
    name: str, cache: Path, key: str, features: FeatureSet, observe: Callable[[TaskBatch], Observed],
    device: torch.device,
) -> KeptOutputs | None:  # fmt: skip
    """The outputs of all training sequences, computed if they are not kept yet; None if the disk has no room for them.

    ``key`` identifies the teacher and what is observed of it; ``observe`` observes a batch on ``device``.
    """
    sequences = features.sequences
    content = hashlib.sha256(key.encode())
    for part in (sequences.tokens, sequences.offsets, sequences.second):
        content.update(np.ascontiguousarray(part).tobytes())
    folder = cache / "teachers" / f"{name}-{content.hexdigest()[:16]}"
    first = observe(features.batch(np.arange(1)).to(device))
    layout = Layout(
        sequences.lengths,
        first.embedding.shape[-1],
        1 + len(first.hidden),
        len(first.attention),
        first.attention[0].shape[1] if first.attention else 0,
    )
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        size, free = layout.bytes / 1e9, (shutil.disk_usage(cache).free - _SPARE_BYTES) / 1e9
        if size > free:
            console.say(
                f"{name}: the outputs of the teacher would take {size:,.1f} GB, and the disk of {cache} has room for "
                f"{max(free, 0):,.1f} GB. They are computed in every step instead."
            )
            return None
        console.say(f"{name}: the outputs of the teacher take {size:,.3g} GB in {folder}; it may be deleted any time")
        with console.stage(f"computing the outputs of the teacher for {name}"), building(folder) as temporary:
            _write(temporary, layout, features, observe, device)
    return KeptOutputs(folder, layout)


def _write(
    folder: Path, layout: Layout, features: FeatureSet, observe: Callable[[TaskBatch], Observed], device: torch.device
) -> None:
    states, attention = _files(folder, layout, "w+")
    tokens, pairs = layout.tokens, layout.pairs
    for examples, batch in in_order(features):
        shown = observe(batch.to(device))
        rows = (examples[:, None] * features.choices + np.arange(features.choices)).ravel()
        for layer, state in enumerate((shown.embedding, *shown.hidden)):
            on_cpu = state.float().cpu().numpy()
            for place, row in enumerate(rows):
                states[layer, tokens[row] : tokens[row + 1]] = on_cpu[place, : layout.lengths[row]]
        for layer, scores in enumerate(shown.attention):
            on_cpu = scores.float().cpu().numpy()
            for place, row in enumerate(rows):
                length = layout.lengths[row]
                attention[layer, pairs[row] : pairs[row + 1]] = on_cpu[place, :, :length, :length].ravel()
    for file in (states, attention):
        if isinstance(file, np.memmap):
            file.flush()


def _files(folder: Path, layout: Layout, mode: str) -> tuple[np.ndarray, np.ndarray]:
    """Both files as arrays; a file without numbers does not exist."""
    shapes = {
        _STATES: (layout.states, int(layout.tokens[-1]), layout.width),
        _ATTENTION: (layout.layers, int(layout.pairs[-1])),
    }
    states, attention = (
        np.memmap(folder / name, np.float32, mode, shape=shape)  # type: ignore[call-overload]
        if all(shape)
        else np.zeros(shape, np.float32)
        for name, shape in shapes.items()
    )
    return states, attention
