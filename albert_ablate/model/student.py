"""Students: models with a teacher beside them, and how a student begins with layers of its teacher.

Letters: B batch, T tokens, H hidden, M layers of the student, N layers of the teacher.
"""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from albert_ablate.model.base import without_values
from albert_ablate.model.blocks import bank_entries
from albert_ablate.model.divergence import divergence
from albert_ablate.model.encoder import Encoder
from albert_ablate.model.imitation import Imitation
from albert_ablate.model.pretraining import PretrainingModel
from albert_ablate.model.rounding import compute_dtype
from albert_ablate.model.shape import Shape


class StudentModel(PretrainingModel):
    """Masked LM's model with a teacher, which is no part of it: neither trained nor saved.

    The teacher has no dropout and no gradients, and follows the student to its device.
    """

    training_only = ("imitation.",)
    imitation: Imitation  # of a student that is trained on losses over layers
    stage = 0  # of the training, where the method has several

    def __init__(self, shape: Shape, pooler: bool) -> None:
        super().__init__(shape, pooler)
        self._teachers: tuple[PretrainingModel, ...] = ()  # a tuple, which PyTorch does not register

    @property
    def teacher(self) -> PretrainingModel:
        """The teacher. Only a model that is trained has one."""
        (teacher,) = self._teachers
        return teacher

    def learn_from(self, teacher: PretrainingModel) -> None:
        """Take ``teacher`` as the teacher; it is frozen."""
        self._teachers = (teacher.requires_grad_(False).eval(),)

    def divergence(self, states: Tensor, taught: Tensor, weights: Tensor | None, temperature: float) -> Tensor:
        """Sum of the divergences over (R,) rows: (R, H) last states of the student and of the teacher.

        See ``divergence.divergence``.
        """
        teacher = self.teacher
        x = self.mlm_head.transform(states)
        with torch.no_grad():
            teacher_x = teacher.mlm_head.transform(taught)
        return divergence(
            x.to(compute_dtype(x)), self.mlm_head.matrix(self.encoder.embedding.word.weight), self.mlm_head.bias,
            teacher_x.to(compute_dtype(teacher_x)), teacher.mlm_head.matrix(teacher.encoder.embedding.word.weight),
            teacher.mlm_head.bias,
            weights, temperature,
        )  # fmt: skip

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        for teacher in self._teachers:
            teacher._apply(fn)  # type: ignore[no-untyped-call]
        moved: Self = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return moved


def load_teacher(checkpoint: Path, shape: Shape) -> PretrainingModel:
    """The encoder of a run's ``checkpoint`` with its masked-LM head, if it has one; without dropout and gradients.

    The students of a process share it. Raises KeyError if the checkpoint lacks a tensor of the encoder.
    """
    file = checkpoint / "model.safetensors"
    return _loaded(file, file.stat().st_mtime_ns, shape)


@lru_cache(maxsize=1)
def _loaded(file: Path, written: int, shape: Shape) -> PretrainingModel:
    """``load_teacher``; ``written``: when the file was, for a run that was trained again in its place."""
    from safetensors.torch import load_file

    stored = load_file(file)
    teacher = without_values(lambda: PretrainingModel(shape, pooler=False))
    with torch.no_grad():
        for name, tensor in teacher.state_dict().items():
            if name.startswith("encoder.") or name in stored:
                tensor.copy_(stored[name])
            else:
                tensor.zero_()  # of a head that the teacher lacks; the method refuses to read it
    return teacher.requires_grad_(False).eval()


def picked_layers(student: int, teacher: int) -> list[int]:
    """The teacher's layer, from 0, that each of the student's layers begins with: evenly spaced, with both ends.

    For 6 of 12 layers as in the released code of DistilBERT:

    >>> picked_layers(6, 12)
    [0, 2, 4, 7, 9, 11]
    """
    return [round(i * (teacher - 1) / max(student - 1, 1)) for i in range(student)]


def copied_blocks(student: Shape, teacher: Shape) -> dict[tuple[str, int], set[int]]:
    """(kind, index) of each of the student's blocks -> indices of the teacher's blocks that its layers begin with.

    A block that several layers share can begin with a single one only.
    """
    sources: dict[tuple[str, int], set[int]] = {}
    for layer, picked in enumerate(picked_layers(student.layers, teacher.layers)):
        pairs = zip(bank_entries(student, layer), bank_entries(teacher, picked), strict=True)
        for entry, (_, source) in pairs:
            sources.setdefault(entry, set()).add(source)
    return sources


@torch.no_grad()
def begin_with(student: PretrainingModel, teacher: PretrainingModel, transform: bool) -> None:
    """Copy the teacher's layers, tables, norms and output bias into the student (released code of DistilBERT).

    ``transform``: also the first product and the norm of the masked-LM head. Token types are copied if both have them.
    """
    ours, theirs = student.encoder, teacher.encoder
    ours.embedding.load_state_dict(
        {name: value for name, value in theirs.embedding.state_dict().items() if name in ours.embedding.state_dict()}
    )
    for (kind, entry), sources in copied_blocks(ours.shape, theirs.shape).items():
        (source,) = sources
        _bank(ours, kind)[entry].load_state_dict(_bank(theirs, kind)[source].state_dict())
    if ours.norm is not None and theirs.norm is not None:
        ours.norm.load_state_dict(theirs.norm.state_dict())
    if student.mlm_head.bias is not None and teacher.mlm_head.bias is not None:
        student.mlm_head.bias.copy_(teacher.mlm_head.bias)
    if transform:
        student.mlm_head.load_state_dict(teacher.mlm_head.state_dict())


@torch.no_grad()
def begin_outside_layers(student: PretrainingModel, teacher: PretrainingModel) -> None:
    """Copy the teacher's embedding and masked-LM head into the student, but no norm of another type.

    As in MobileBERT's released code, whose student takes all variables outside the layers that it has by name.
    """
    theirs = teacher.encoder.embedding.state_dict()
    if type(student.encoder.embedding.norm) is not type(teacher.encoder.embedding.norm):
        theirs = {name: value for name, value in theirs.items() if not name.startswith("norm.")}
    student.encoder.embedding.load_state_dict(theirs, strict=False)
    student.mlm_head.load_state_dict(teacher.mlm_head.state_dict())


def _bank(encoder: Encoder, kind: str) -> Any:
    bank = encoder.get_submodule(kind)
    assert isinstance(bank, nn.ModuleList)
    return bank
