"""One identity is one run, even with several folders: copies, results set aside, folders given twice."""

from pathlib import Path
from typing import Any

import pandas as pd

from albert_ablate.axes import AXES, SENTENCE_TASKS

from .records import printable

#: Settings that show that two folders with one identity are different runs.
_AXES = ("seed", *(axis.name for axis in AXES), "hidden", "layers")
#: Numbers that are equal in all copies of a run.
_NUMBERS = (
    "steps", "tokens", "mlm_loss", "mlm", *(task.value for task in SENTENCE_TASKS),
    *(f"{task}_own_head" for task in SENTENCE_TASKS), "replaced_auc", "bits_per_byte",
    "params_with_heads",
)  # fmt: skip


def without_copies(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs; rows that repeat another row's run get the state ``copy``.

    The finished folder counts; of several the one with complete records, then the newest, then the one with most
    fine-tunings. ``note`` of a copy says which folder counts and why, and in which numbers the two differ.
    """
    hashes = runs["identity"].astype(str).str.fullmatch("[0-9a-f]{12}")
    several = runs[hashes & runs["identity"].duplicated(keep=False)]
    state, note, copy_of = (runs[name].tolist() for name in ("state", "note", "copy_of"))
    positions = {index: position for position, index in enumerate(runs.index)}
    for _, frame in several.groupby("identity", sort=False):
        left = frame.to_dict("index")
        while left:
            taken = max(left, key=lambda index: _rank(left[index]))
            best = left.pop(taken)
            for index in [index for index, row in left.items() if _one_run(best, row)]:
                row = left.pop(index)
                position = positions[index]
                state[position], copy_of[position] = "copy", best["path"]
                note[position] = "; ".join(filter(None, [_copy_note(best, row), row["note"]]))
    return runs.assign(state=state, note=note, copy_of=copy_of)


def _rank(row: dict[Any, Any]) -> tuple[Any, ...]:
    updated = row["updated"]
    stamp = float("-inf") if pd.isna(updated) else updated.timestamp()
    return row["state"] == "finished", row["note"] == "", stamp, len(row["tasks"] or ()), row["path"]


def _one_run(a: dict[Any, Any], b: dict[Any, Any]) -> bool:
    return all(pd.isna(a[name]) or pd.isna(b[name]) or a[name] == b[name] for name in _AXES)


def _copy_note(best: dict[Any, Any], row: dict[Any, Any]) -> str:
    """``of runs/a, which counts: it is newer; its numbers are others: mlm_loss 5.4, there 5.6``."""
    if row["state"] != best["state"] and best["state"] == "finished":
        why = f"it is finished, this one {row['state']}"
    elif (row["note"] == "") != (best["note"] == ""):
        why = "its records are whole"
    elif row["updated"] != best["updated"]:
        why = "it is newer"
    else:
        why = "they are alike"
    others = contradictions(best, row)
    more = f"; same identity, other numbers: {', '.join(others)}" if others else ""
    return f"of {short(best['path'])}, which counts: {why}{more}"


def short(path: str) -> str:
    """``runs/NAME``: a run folder and its parent, without the rest of the path."""
    return "/".join(printable(part) for part in Path(path).parts[-2:])


def contradictions(best: dict[Any, Any], row: dict[Any, Any]) -> list[str]:
    """``mlm_loss 5.4, there 5.6`` for the numbers in which two finished copies differ."""
    numbers = [
        f"{name} {row[name]:.6g}, there {best[name]:.6g}" for name in _NUMBERS
        if not pd.isna(best[name]) and not pd.isna(row[name]) and best[name] != row[name]
    ]  # fmt: skip
    scores = [
        {(e["task"], e["start"], str(e.get("recipe"))): e["score"] for e in run["tasks"] or ()} for run in (best, row)
    ]
    numbers += [
        f"{key[0]} {scores[1][key]:.6g}, there {scores[0][key]:.6g}"
        for key in scores[0].keys() & scores[1].keys()
        if scores[0][key] != scores[1][key]
    ]
    return sorted(numbers)
