"""The losses of a student on the answers of a teacher (TinyBERT's prediction layer; Hinton et al., 2015).

Letters: B examples, C classes, labels or choices, T the temperature.
"""

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from albert_ablate.config.tasks import DistilConfig
from albert_ablate.tasks.task import Distribution, TaskBatch


def soft_loss(
    student: Tensor, teacher: Tensor, answers: Distribution, temperature: float, mean: Literal["examples", "classes"]
) -> Tensor:
    """The sum over examples of T² KL(teacher ‖ student), in nats, from (B, C) logits of both.

    Its gradient is that of the soft cross-entropy, which differs by the entropy of the teacher. ``classes``: one
    softmax over C; ``labels``: a sigmoid for each label, averaged over labels. ``mean="classes"`` divides by C, as the
    released code does; for labels that is done already.
    """
    s, t = student.float() / temperature, teacher.float() / temperature
    each = _DIVERGENCES[answers](s, t)  # (B, C)
    divided = answers == "labels" or mean == "classes"
    return temperature**2 * (each.mean(1) if divided else each.sum(1)).sum()


def soft_loss_of(distil: DistilConfig, answers: Distribution) -> Callable[[nn.Module, TaskBatch], Tensor]:
    """The loss of a model on a batch whose targets are the teacher's logits."""
    return lambda model, batch: soft_loss(model(batch), batch.targets, answers, distil.temperature, distil.mean)


def _of_classes(s: Tensor, t: Tensor) -> Tensor:
    return F.kl_div(F.log_softmax(s, 1), F.log_softmax(t, 1), reduction="none", log_target=True)


def _of_labels(s: Tensor, t: Tensor) -> Tensor:
    ours, theirs = (torch.stack([F.logsigmoid(x), F.logsigmoid(-x)]) for x in (s, t))  # (2, B, C)
    return F.kl_div(ours, theirs, reduction="none", log_target=True).sum(0)


#: (student, teacher), scaled (B, C) logits -> (B, C), the terms of the divergence of each example.
_DIVERGENCES: Mapping[Distribution, Callable[[Tensor, Tensor], Tensor]] = {
    "classes": _of_classes, "labels": _of_labels,
}  # fmt: skip
