"""What the records of a run say about its teacher, and about the speed of its encoder; and the teacher's run itself."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from .task_setups import alike
from .tunings import OPEN

#: Column of the table of runs -> what it holds; missing for runs that are older than the record.
COLUMNS = {
    "inference_ms": "median time of a forward pass of the encoder over one sequence, milliseconds",
    "inference_setting": "length, device, threads and number format of that measurement: times compare only alike",
    "inference_spread": "90th over 10th percentile of that time: far above 1 where something else used the machine",
    "teacher": "identity of the run that a student learned from; missing for any other run",
    "teacher_flops_per_step": "FLOPs of the teacher's forward passes in a step of the student, which flops includes",
    "teacher_training_flops": "FLOPs of the teacher's own training; missing where they are not known",
    "taught_by": "the row of that run, if it is among the runs and finished",
}


def columns(config: Mapping[str, Any], manifest: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, Any]:
    """The values of ``COLUMNS`` of one run, from its ``config.yaml``, ``manifest.json`` and ``results.json``."""
    teacher, method = manifest.get("teacher") or {}, config.get("method") or {}
    measured = results.get("inference") or {}
    return {
        "inference_ms": measured.get("milliseconds"),
        "inference_setting": _setting(measured) if measured else None,
        "inference_spread": _spread(measured.get("percentiles")),
        "teacher": teacher.get("identity") or method.get("teacher_run"),
        "teacher_flops_per_step": teacher.get("flops_per_step"),
        "teacher_training_flops": teacher.get("training_flops"),
    }


def _spread(percentiles: Any) -> float | None:
    """The second over the first of two percentiles; None where they are not recorded."""
    return float(percentiles[1] / percentiles[0]) if percentiles and percentiles[0] else None


def _setting(measured: Mapping[str, Any]) -> str:
    """``1×64 tokens, cpu, 2 threads, bf16``."""
    size = f"{measured.get('sequences') or 1}×{measured.get('length')} tokens"
    threads, precision = measured.get("threads"), measured.get("precision")
    return f"{size}, {measured.get('device')}, {threads} threads, {precision}"


def with_teachers(runs: pd.DataFrame) -> pd.DataFrame:
    """``runs`` with the column ``taught_by``."""
    done = runs[runs["state"] == "finished"].drop_duplicates("identity").set_index("identity", drop=False)
    wanted = done[done.index.isin(runs["teacher"].dropna().unique())]
    rows = {str(identity): row.to_dict() for identity, row in wanted.iterrows()}
    taught = [None if pd.isna(teacher) else rows.get(str(teacher)) for teacher in runs["teacher"]]
    return runs.assign(taught_by=pd.Series(taught, index=runs.index, dtype=object))


def like(teacher: dict[str, Any], student: dict[str, Any] | None) -> pd.DataFrame:
    """The teacher's run with its fine-tunings that are like the student's."""
    entries = [e for e in teacher["tasks"] if e["start"] == "pretrained"]
    if student is not None:
        entries = [e for e in entries if e["task"] != student["task"] or alike(e, student, OPEN)]
    row = pd.DataFrame([teacher])
    return row.assign(tasks=pd.Series([entries], dtype=object))


def faster(run: Mapping[Any, Any]) -> float | None:
    """How many of its own inference times a student's teacher takes; None where they were not measured alike."""
    teacher = run["taught_by"]
    if not isinstance(teacher, dict) or pd.isna(run["inference_ms"]):
        return None
    if teacher["inference_setting"] != run["inference_setting"]:
        return None
    return float(teacher["inference_ms"] / run["inference_ms"])


def flops_alone(run: Mapping[Any, Any]) -> float | None:
    """FLOPs of training without the teacher's forward passes."""
    if pd.isna(run["flops"]):
        return None
    passes = run["teacher_flops_per_step"]
    return float(run["flops"]) - (0.0 if pd.isna(passes) else float(passes) * float(run["steps"]))


def flops_with_teacher(run: Mapping[Any, Any]) -> float | None:
    """FLOPs of training and of the teacher's training; those of training for a run without a teacher."""
    if pd.isna(run["flops"]):
        return None
    own = run["teacher_training_flops"]
    if not pd.isna(own):
        return float(run["flops"]) + float(own)
    return float(run["flops"]) if pd.isna(run["teacher"]) else None


def inference_flops(config: Mapping[str, Any]) -> float:
    """FLOPs of a forward pass of the encoder over one full sequence, from a run's settings; a multiply-add is two.

    As ``Architecture.encoder_flops``: matrix products of layers and attention, and the embedding's projection.
    """
    model, length, size = config["model"], config["pairs"]["max_length"], config["embed"]["size"]
    hidden, inner = model["hidden"], model["intermediate"]
    projected = size != hidden or model.get("projection", "auto") == "always"
    layer = 2 * length * (4 * hidden**2 + 2 * hidden * inner) + 4 * length**2 * hidden
    return float(model["layers"] * layer + (2 * length * size * hidden if projected else 0))
