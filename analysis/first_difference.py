"""The first step at which two runs differ: ``python -m analysis.first_difference RUN_A RUN_B``.

Compares their metrics line by line, without what a clock gave; then settings, corpus and final
weights. Two runs of one seed and one configuration on one machine have no difference.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from albert_ablate.console import command, program
from albert_ablate.errors import RunFolderError
from albert_ablate.files import differences, sha256_file

from .places import require_run_folder
from .runs import load_metrics, load_runs

#: Columns that a clock gives.
_CLOCK = ("seconds", "tokens_per_second", "examples_per_second")
#: Groups that say where and how a run was made.
_PLACES = ("paths", "runtime", "tracker", "sweep", "rerun")


def first_difference(a: Path, b: Path, tolerance: float = 0.0) -> dict[str, Any] | None:
    """Step and differing numbers (name -> both values) of the first metrics line that differs, or None.

    ``tolerance`` is relative. A line that only one run has is a difference when the other goes on.
    """
    mine, theirs = ({line["step"]: line for line in load_metrics(folder).to_dict("records")} for folder in (a, b))
    common = min(max(mine, default=0), max(theirs, default=0))
    for step in sorted(step for step in mine.keys() | theirs.keys() if step <= common):
        one, other = mine.get(step), theirs.get(step)
        if one is None or other is None:
            return {"step": step, "values": {"line": (one is not None, other is not None)}}
        names = [name for name in {**one, **other} if name not in _CLOCK]
        values = {n: (one.get(n), other.get(n)) for n in names if not _equal(one.get(n), other.get(n), tolerance)}
        if values:
            return {"step": int(step), "values": values}
    return None


def _equal(a: Any, b: Any, tolerance: float) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return (math.isnan(a) and math.isnan(b)) or a == b or math.isclose(a, b, rel_tol=tolerance)
    return bool(a == b)


def words(a: Path, b: Path, tolerance: float = 0.0) -> tuple[list[str], bool]:
    """What to say of two runs, and whether they are equal as far as both go. Raises RunFolderError."""
    for folder in (a, b):
        require_run_folder(folder)
        if not (folder / "metrics.jsonl").is_file():
            raise RunFolderError(f"{folder}: no metrics yet (it has no metrics.jsonl).")
    one, other = (load_runs(folder).iloc[0] for folder in (a, b))
    found = [f"setting {d}" for d in differences(_settings(one["config"]), _settings(other["config"]))]
    if one["tokens_fingerprint"] != other["tokens_fingerprint"]:
        found.append(f"tokens: {one['tokens_fingerprint']}, not {other['tokens_fingerprint']}")
    if one["commit"] != other["commit"]:
        found.append(f"commit: {one['commit']}, not {other['commit']}")
    difference = first_difference(a, b, tolerance)
    if difference is not None:
        found.append(f"first differing step: {difference['step']}")
        found += [f"  {name}: {x}, not {y}" for name, (x, y) in difference["values"].items()]
        return found, False
    last = min(load_metrics(folder)["step"].max() for folder in (a, b))
    found.append(f"no metric differs up to step {int(last)}")
    hashes = [_weights(folder) for folder in (a, b)]
    if None in hashes:
        return found, True
    found.append("the newest weights are equal to the byte" if len(set(hashes)) == 1 else "the newest weights differ")
    return found, len(set(hashes)) == 1


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    return {group: values for group, values in (config or {}).items() if group not in _PLACES}


def _weights(folder: Path) -> str | None:
    files = sorted(folder.glob("checkpoints/step_*/model.safetensors"))
    return sha256_file(files[-1]) if files else None


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns 0 where the runs are equal, 1 where they differ, 2 for a wrong folder."""
    parser = argparse.ArgumentParser(
        prog=program("analysis.first_difference"), description="The first step at which two runs differ."
    )
    parser.add_argument("runs", type=Path, nargs=2, metavar="RUN", help="a run folder")
    parser.add_argument("--tolerance", type=float, default=0.0, help="relative difference to overlook")
    options = parser.parse_args(arguments)
    found, equal = words(options.runs[0], options.runs[1], options.tolerance)
    print("\n".join(found))
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
