"""The attention kernel of a run on a GPU: the fastest in a table that is measured once for each shape and card.

``<paths.cache>/attention/`` keeps the tables, so that all arms and seeds of a sweep use the same kernel.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from filelock import FileLock

from albert_ablate.config.schema import RunConfig
from albert_ablate.files import digest, read_json, write_json
from albert_ablate.model import flex_blocks
from albert_ablate.model.attention import PATTERNS
from albert_ablate.model.attention_kernels import AttentionCase, AttentionTimes, measure, seconds_on_gpu, use
from albert_ablate.model.shape import Shape
from albert_ablate.record.folder import RunFolder
from albert_ablate.record.manifest import Attention, Manifest
from albert_ablate.training.machine import Machine

#: Raise when the meaning of a measurement changes.
_FORMAT = 1
_FORMATS = {"bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass(frozen=True)
class ForwardPass:
    """The shape of the model and of the batch in a forward pass; ``length`` in tokens."""

    shape: Shape
    sequences: int
    length: int

    @classmethod
    def of_pretraining(cls, config: RunConfig) -> "ForwardPass":
        """The forward pass over a micro-batch of pretraining."""
        return cls(config.architecture(), min(config.batch.micro_size, config.batch.size), config.pairs.max_length)


def choose_attention(config: RunConfig, forward: ForwardPass, machine: Machine) -> Attention | None:
    """Make this process use the fastest kernel for ``forward``; returns the record of the choice.

    The kernels are measured unless the cache has their times. Returns None and changes nothing on a CPU and for a
    pattern with a special kernel: attention in blocks has the kernel of ``runtime.block_kernel`` from now on. Call it
    before the first step: compiled and captured code keeps its kernel.
    """
    flex_blocks.use(config.runtime.block_kernel)
    if machine.device.type != "cuda" or PATTERNS[forward.shape.pattern].kernel is not None:
        return None
    form, deterministic = _FORMATS[machine.precision], config.runtime.deterministic
    case = AttentionCase(forward.shape, forward.sequences, forward.length, form, deterministic)
    times = _table(case, machine, Path(config.paths.cache) / "attention")
    use(times.fastest)
    return Attention(kernel=times.fastest, **asdict(times))


def another_kernel(folder: RunFolder, attention: Attention | None) -> str | None:
    """The message if the run in ``folder`` was begun with another kernel, else None. Raises DamagedFileError."""
    if attention is None or not (folder.path / "manifest.json").is_file():
        return None
    first = folder.load("manifest.json", Manifest).attention
    if first is None or first.kernel == attention.kernel:
        return None
    return (
        f"begun with the attention kernel {first.kernel}, continues with {attention.kernel}: the last digits of its "
        "numbers may differ"
    )


def _table(case: AttentionCase, machine: Machine, folder: Path) -> AttentionTimes:
    """The times from the cache, else measured now. A lock lets concurrent processes measure only once."""
    key = {
        "format": _FORMAT, "card": machine.card, "torch": torch.__version__, "precision": machine.precision,
        "deterministic": case.deterministic, "sequences": case.sequences, "length": case.length,
        "heads": case.shape.heads, "width": case.shape.hidden_size // case.shape.heads,
        "pattern": case.shape.pattern, "dropout": case.shape.attention_dropout,
    }  # fmt: skip
    file = folder / f"{digest(key)}.json"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        if not file.is_file():
            write_json(file, {"for": key, "times": asdict(measure(case, machine.device, seconds_on_gpu))})
        return AttentionTimes(**read_json(file)["times"])
