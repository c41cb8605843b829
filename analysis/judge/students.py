"""What students keep of their teachers' scores, and what they cost, as a table beside the arms of their sweep."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from albert_ablate.axes import METHOD, MethodName
from albert_ablate.config.labels import TUNED, settings_of

from .metrics import (
    ALONE,
    FASTER,
    INFERENCE,
    METRICS,
    RETENTION,
    TINYBERTS,
    WITH_TEACHER,
    measured_apart,
    summarised,
    tasks_of,
    unfit,
)
from .tables import Entry, Row, Table

#: Why an arm has no number of a student.
_NO_TEACHER, _TEACHER_ABSENT = "learned without a teacher", "its teacher is not among these runs, or not like it"


def distils(frame: pd.DataFrame) -> bool:
    """Whether the runs of an arm learned from a teacher."""
    return MethodName(frame[METHOD.name].iloc[0]).distils


def same_size(frames: Mapping[str, pd.DataFrame], keys: Sequence[str]) -> list[tuple[str, str]]:
    """Each student with each arm of masked LM that has its size: (student, the other arm).

    They have equally many parameters and, of the settings ``keys`` that vary, equal ones outside the group ``method``.
    """
    shared = [key for key in keys if not key.startswith((f"{METHOD.group}.", f"{TUNED}."))]
    sizes = {arm: (_values(frame, shared), _parameters(frame)) for arm, frame in frames.items()}
    plain = [arm for arm, frame in frames.items() if frame[METHOD.name].iloc[0] == METHOD.before]
    return [
        (arm, other) for arm, frame in frames.items() if distils(frame) for other in plain if sizes[other] == sizes[arm]
    ]


def about_students(frames: Mapping[str, pd.DataFrame], keys: Sequence[str]) -> list[str]:
    """The students among arms, their teachers, and the arms of their sizes; empty without students."""
    students = [arm for arm, frame in frames.items() if distils(frame)]
    teachers = {row["identity"] for arm in students for row in frames[arm]["taught_by"] if isinstance(row, dict)}
    shown = {*students, *(other for _, other in same_size(frames, keys))}
    return [arm for arm, frame in frames.items() if arm in shown or teachers & set(frame["identity"])]


def students_of(table: Table, frames: Mapping[str, pd.DataFrame], keys: Sequence[str]) -> Table | None:
    """The students among the arms of ``table``, their teachers and models of their size; None without students.

    Columns: parameters, inference, FLOPs of training without and with the teacher's, and the part of the teacher's
    score that a student keeps, on each fine-tuned task and in the mean.
    """
    students = [arm for arm, frame in frames.items() if distils(frame)]
    if not students:
        return None
    shown = about_students(frames, keys)
    rows = [row for row in table.rows if row.arm in shown]
    columns = _columns(pd.concat([frames[arm] for arm in students]))
    made = [
        Row(
            row.arm, row.labels, tuple(tuple(_entry(frames[row.arm], key) for key in column) for column in columns),
            row.runs, row.seeds, row.planned, row.tuned,
        )
        for row in rows
    ]  # fmt: skip
    notes = [
        "kept: a student's score as a percentage of its teacher's, seed by seed. FLOPs of training alone leave out the "
        "teacher's forward passes; those with the teacher's count them and the training of the teacher, once for each "
        "student."
    ]
    if apart := measured_apart(*(frames[row.arm] for row in rows)):
        notes.append(f"Do not compare times of inference: {apart}.")
    return Table(
        f"{table.name}-students", 0, table.title, table.label_columns, columns, tuple(made), selection=table.selection,
        notes=tuple(notes), called="Students and their teachers",
    )  # fmt: skip


def _columns(students: pd.DataFrame) -> tuple[tuple[str, ...], ...]:
    tasks = tasks_of(students)
    printed = [name for name, spec in METRICS.items() if spec.task in tasks and name not in TINYBERTS]
    others = [f"task:{task}" for task in tasks if not any(METRICS[name].task == task for name in printed)]
    kept = [f"{RETENTION} {key}" for key in (*printed, *others)]
    keys = ["params", INFERENCE, FASTER, ALONE, WITH_TEACHER, *kept, *([RETENTION] if len(tasks) > 1 else [])]
    return tuple((key,) for key in keys)


def _entry(frame: pd.DataFrame, key: str) -> Entry:
    measured = summarised(frame, key)
    if measured is not None:
        return Entry(key, measured, None, mark=unfit(frame, key))
    if key.startswith(RETENTION) or key == FASTER:
        return Entry(key, None, None, _TEACHER_ABSENT if distils(frame) else _NO_TEACHER)
    return Entry(key, None, None, "what its teacher cost is not known" if key == WITH_TEACHER else "not measured")


def _values(frame: pd.DataFrame, keys: Sequence[str]) -> tuple[Any, ...]:
    settings = settings_of(frame["config"].iloc[0])
    return tuple(repr(settings.get(key)) for key in keys)


def _parameters(frame: pd.DataFrame) -> float:
    return float(frame["params_with_pooler"].iloc[0] or 0)
