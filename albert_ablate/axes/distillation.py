"""Settings of distillation in the group ``method``: their defaults and what contradicts them."""

from collections.abc import Mapping
from typing import Any, Protocol

from albert_ablate.axes.axis import Settings

#: Settings of the teacher and of the student's first weights, with their defaults.
TEACHER: Mapping[str, Any] = {
    "teacher": None, "teacher_run": None, "teacher_depth": 2.0, "teacher_width": 1.0, "start": "random",
}  # fmt: skip
#: Settings of DistilBERT, with their defaults.
DISTILBERT: Mapping[str, Any] = {
    "copy_transform": False, "kl_weight": 5.0, "mlm_weight": 2.0, "cosine_weight": 1.0, "kl_temperature": 2.0,
    "kl_positions": "all",
}  # fmt: skip
#: Settings of TinyBERT, with their defaults.
TINYBERT: Mapping[str, Any] = {
    "embedding_weight": 1.0, "hidden_weight": 1.0, "attention_weight": 1.0, "layer_map": "uniform",
    "attention_target": "scores", "projections": "paper", "padding": "left_out", "inputs": "plain",
}  # fmt: skip


class Student(Protocol):
    """The group ``method`` of a student."""

    @property
    def teacher(self) -> str | None:
        """A run folder."""

    @property
    def teacher_run(self) -> str | None:
        """The identity of that run."""

    @property
    def teacher_depth(self) -> float:
        """Layers of a teacher that is trained first, as a multiple of the student's."""

    @property
    def teacher_width(self) -> float:
        """Width of a teacher that is trained first, as a multiple of the student's."""


def distillation_problems(method: Student, weights: tuple[str, ...], c: Settings) -> list[str]:
    """Problems of a student's settings; ``weights``: the settings that weigh its losses."""
    group = vars(method)
    problems = []
    if not any(group[weight] for weight in weights):
        named = ", ".join(f"method.{weight}=0" for weight in weights)
        problems.append(f"{named}: nothing is left to learn. Give one of them a weight.")
    if method.teacher is not None:
        problems += [
            f"method.{key}={group[key]:g}: no effect with method.teacher={method.teacher}. "
            f"Leave it at {TEACHER[key]:g}."
            for key in ("teacher_depth", "teacher_width")
            if group[key] != TEACHER[key]
        ]
    else:
        problems += _sizes(method, c)
    if method.teacher_run is not None and method.teacher is None:
        problems.append(f"method.teacher_run={method.teacher_run}: it is filled in. Give method.teacher=RUN instead.")
    return problems


def _sizes(method: Student, c: Settings) -> list[str]:
    """Problems of the size of a teacher that is trained first."""
    layers, hidden = c.model.layers * method.teacher_depth, c.model.hidden * method.teacher_width
    problems = []
    if layers != round(layers) or layers < 1:
        problems.append(
            f"method.teacher_depth={method.teacher_depth:g}: {layers:g} layers, that is {method.teacher_depth:g} x "
            f"model.layers={c.model.layers}. Say a multiple that gives whole layers, such as 2."
        )
    if hidden != round(hidden) or round(hidden) % c.model.heads:
        problems.append(
            f"method.teacher_width={method.teacher_width:g}: width {hidden:g}, which {c.model.heads} heads do not "
            "divide. Say a multiple such as 2; teacher and student have equally many heads."
        )
    return problems
