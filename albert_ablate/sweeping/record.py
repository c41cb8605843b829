"""The record of a sweep, ``RUNS/.sweeps/<name>-<digest>.json``, which the board reads."""

import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from albert_ablate.errors import RunFolderError
from albert_ablate.files import digest, read_json, write_json
from albert_ablate.record.folder import RunFolder, standing_of
from albert_ablate.record.lock import owner
from albert_ablate.sweeping.cells import Placed
from albert_ablate.sweeping.remaining import training_work

#: Folder of the records, beside the run folders.
SWEEPS = ".sweeps"


@dataclass(frozen=True)
class Standing:
    """Current state of one cell."""

    label: str
    state: str  # missing, running, finished, failed, preempted
    reason: str | None
    step: int | None
    share: float | None  # of the budget
    speed: float | None  # tokens a second
    phase: str | None
    scores: str | None = None  # losses and accuracies of the last log line
    advice: str | None = None  # on a run that has become slow
    work: float | None = None  # FLOPs of its training; None outside a sweep, and in older records
    before: float = 0.0  # share of the training that was done when the sweep was started


def write_record(runs: Path, name: str, placed: Sequence[Placed], title: str = "", words: Sequence[str] = ()) -> Path:
    """Record the start of a sweep; the same cells under the same name share one record.

    ``title``: of the sweep file; ``words``: of the command line, for a report that suggests more seeds. ``reference``
    in the record: the folders of the arm that the others are compared with. ``reference_units``: its fine-tunings, as
    arms that differ in fine-tuning share their folders.
    """
    cells = [
        {
            "label": p.label,
            "folder": None if p.folder is None else p.folder.name,
            "units": _unit_names(p),
            "overrides": p.cell.overrides,
            "rows": p.cell.rows,
            "problem": None if p.problem is None else str(p.problem),
        }
        for p in placed
    ]
    path = runs / SWEEPS / f"{name}-{digest(cells, 8)}.json"
    started = time.time()
    process = {"host": socket.gethostname(), "pid": os.getpid()}
    reference = [p.folder.name for p in placed if p.cell.reference and p.folder is not None]
    facts = {"name": name, "title": title, "started": started, "ended": None, **process, "reference": reference}
    facts["reference_units"] = sorted({unit for p in placed if p.cell.reference for unit in _unit_names(p)})
    facts["words"] = list(words)
    write_json(path, {**facts, "cells": cells, "work": [_work(p) for p in placed]})
    return path


def _unit_names(p: Placed) -> list[str]:
    return [f"{unit.path.parent.name}/{unit.name}" for unit in p.units]


def _work(p: Placed) -> tuple[float, float]:
    """FLOPs of the cell's training, and the share of it that is done."""
    finished = p.folder is not None and p.folder.state() == "finished"
    work, done = training_work(p.cell.config, 0 if p.folder is None else p.folder.saved_step())
    return work, 1.0 if finished else done


def end_record(path: Path, **facts: Any) -> None:
    """Add how the sweep ended."""
    write_json(path, read_json(path) | {"ended": time.time(), **facts})


def records(runs: Path) -> list[Path]:
    """Every sweep recorded under ``runs``, the latest last."""
    return sorted((runs / SWEEPS).glob("*.json"), key=lambda path: path.stat().st_mtime)


def standings(record: Path) -> list[Standing]:
    """Current state of every cell of a recorded sweep, from the run folders."""
    runs, facts = record.parent.parent, read_json(record)
    cells = [standing(runs, cell) for cell in facts["cells"]]
    work = facts.get("work", [(None, 0.0)] * len(cells))  # older records have none
    return [replace(cell, work=flops, before=done) for cell, (flops, done) in zip(cells, work, strict=True)]


def single_runs(runs: Path) -> list[str]:
    """Names of all run folders under ``runs``."""
    return sorted(file.parent.name for file in runs.glob("[!.]*/status.json"))


def single_run(runs: Path, name: str) -> Standing:
    """Current state of a run folder, its fine-tunings and what it asks."""
    found = [*(runs / name).glob("tasks/[!.]*/status.json"), *(runs / name).glob("kshot/asked-*/status.json")]
    units = sorted(f"{file.parent.parent.name}/{file.parent.name}" for file in found)
    try:
        return standing(runs, {"label": name, "folder": name, "units": units})
    except RunFolderError as error:  # a damaged record must not hide other runs
        return Standing(name, "failed", str(error), None, None, None, None)


def _unit(run: RunFolder, name: str) -> RunFolder:
    """A unit of a run by its recorded name, ``tasks/NAME``; older records have only the name of a fine-tuning."""
    kind, _, rest = name.rpartition("/")
    return RunFolder(run.path / (kind or "tasks"), rest)


def standing(runs: Path, cell: dict[str, Any]) -> Standing:
    """Current state of a recorded cell."""
    if cell["folder"] is None:
        return Standing(cell["label"], "failed", cell["problem"], None, None, None, None)
    folder = RunFolder(runs, cell["folder"])
    units = [_unit(folder, name) for name in cell.get("units", [])]
    state, status = standing_of(folder, units)
    reason = None if status is None else status["reason"]
    holder = owner(folder.path) if state == "running" else None
    progress = {} if holder is None else holder["progress"]
    if state == "preempted" and reason is None:
        reason = "its process ended without recording a reason"
    return Standing(
        cell["label"], state, reason, progress.get("step"), progress.get("share"), progress.get("speed"),
        progress.get("phase"), progress.get("scores"), progress.get("advice"),
    )  # fmt: skip
