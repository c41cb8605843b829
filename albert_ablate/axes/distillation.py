"""Settings of distillation in the group ``method``: their defaults and what contradicts them."""

from collections.abc import Mapping
from typing import Any, Protocol

from albert_ablate.axes.axis import Settings
from albert_ablate.axes.share import Share

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


#: Settings of MobileBERT's transfer, with their defaults.
MOBILEBERT: Mapping[str, Any] = {
    "transfer": "progressive", "transfer_share": 0.324, "feature_weight": 100.0, "mean_weight": 5000.0,
    "spread_weight": 5.0, "map_weight": 1.0, "feature_form": "normalised", "stage_rates": "released",
    "stage_ramp": "released", "alpha": 0.5, "teacher_inside": 8.0,
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
    return problems + _teacher_problems(method, _sizes(method, c))


def transfer_problems(method: Student, c: Settings) -> list[str]:
    """Problems of the settings of MobileBERT's transfer."""
    group, problems = vars(method), list[str]()
    weights = tuple(key for key in MOBILEBERT if key.endswith("_weight"))
    transfer = f"method.transfer={group['transfer']}"
    if group["transfer"] != "none" and not any(group[weight] for weight in weights):
        problems.append(f"{transfer}: all of {', '.join(weights)} are 0, so nothing is transferred. Use none.")
    if group["feature_form"] == "plain" and (group["mean_weight"] or group["spread_weight"]):
        problems.append(
            "method.feature_form=plain: it contains the means and the variances already. "
            "Set method.mean_weight=0 and method.spread_weight=0."
        )
    if group["transfer"] == "progressive" and c.share.strategy != Share.NONE:
        problems.append(
            f"{transfer} with share={c.share.strategy}: the layer that learns would change all layers that share its "
            "weights. Use share=none, or method.transfer=joint or auxiliary."
        )
    return problems + _teacher_problems(method, _inverted_sizes(group["teacher_inside"], c))


def _teacher_problems(method: Student, sizes: list[str]) -> list[str]:
    """Problems of a student's teacher; ``sizes``: those of one that is trained first."""
    group, problems = vars(method), list[str]()
    if method.teacher is not None:
        problems += [
            f"method.{key}={group[key]:g}: no effect with method.teacher={method.teacher}. "
            f"Leave it at {TEACHER[key]:g}."
            for key in ("teacher_depth", "teacher_width")
            if group[key] != TEACHER[key]
        ]
    else:
        problems += sizes
    if method.teacher_run is not None and method.teacher is None:
        problems.append(f"method.teacher_run={method.teacher_run}: it is filled in. Give method.teacher=RUN instead.")
    return problems


def _inverted_sizes(factor: float, c: Settings) -> list[str]:
    """Problems of the size of a teacher that is trained first, with layers ``factor`` times as wide inside."""
    width = c.attention_width * factor
    if width == round(width) and round(width) % c.model.heads == 0:
        return []
    return [
        f"method.teacher_inside={factor:g}: width {width:g} inside the teacher's layers, which {c.model.heads} heads "
        "do not divide. Say a multiple such as 8; both have equally many heads."
    ]


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
