"""Finds the first step at which two runs differ: ``python -m analysis.first_difference RUN_A RUN_B``.

Compares their metrics line by line, without measured times; then settings, corpus and final
weights. Two runs of one seed and one configuration on one machine do not differ.
"""

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from albert_ablate.arguments import Parser
from albert_ablate.command_line import program
from albert_ablate.console import command
from albert_ablate.errors import RunFolderError
from albert_ablate.files import differences, sha256_file

from .read.places import require_run_folder
from .read.runs import load_metrics, load_runs

#: Columns with measured times.
_CLOCK = ("seconds", "tokens_per_second", "examples_per_second")
#: Groups of settings that do not change numbers.
_PLACES = ("paths", "runtime", "tracker", "sweep", "rerun")


def first_difference(a: Path, b: Path, tolerance: float = 0.0) -> dict[str, Any] | None:
    """Step and differing numbers (name -> both values) of the first metrics line that differs, or None.

    ``tolerance`` is relative. A line that only one run has is a difference if the other run has a later line.
    """
    first_lines, second_lines = (
        {line["step"]: line for line in load_metrics(folder).to_dict("records")} for folder in (a, b)
    )
    common = min(max(first_lines, default=0), max(second_lines, default=0))
    for step in sorted(step for step in first_lines.keys() | second_lines.keys() if step <= common):
        first, second = first_lines.get(step), second_lines.get(step)
        if first is None or second is None:
            return {"step": step, "values": {"line": (first is not None, second is not None)}}
        names = [name for name in {**first, **second} if name not in _CLOCK]
        values = {n: (first.get(n), second.get(n)) for n in names if not _equal(first.get(n), second.get(n), tolerance)}
        if values:
            return {"step": int(step), "values": values}
    return None


def _equal(a: Any, b: Any, tolerance: float) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return (math.isnan(a) and math.isnan(b)) or a == b or math.isclose(a, b, rel_tol=tolerance)
    return bool(a == b)


def describe(a: Path, b: Path, tolerance: float = 0.0) -> tuple[list[str], bool]:
    """Lines about the differences of two runs, and whether they are equal as far as both go. Raises RunFolderError."""
    for folder in (a, b):
        require_run_folder(folder)
        if not (folder / "metrics.jsonl").is_file():
            raise RunFolderError(f"{folder}: no metrics yet (it has no metrics.jsonl).")
    first, second = (load_runs(folder).iloc[0] for folder in (a, b))
    lines = [f"setting {d}" for d in differences(_settings(first["config"]), _settings(second["config"]))]
    if first["tokens_fingerprint"] != second["tokens_fingerprint"]:
        lines.append(f"tokens: {first['tokens_fingerprint']}, not {second['tokens_fingerprint']}")
    if first["commit"] != second["commit"]:
        lines.append(f"commit: {first['commit']}, not {second['commit']}")
    difference = first_difference(a, b, tolerance)
    if difference is not None:
        lines.append(f"first differing step: {difference['step']}")
        lines += [f"  {name}: {x}, not {y}" for name, (x, y) in difference["values"].items()]
        return lines, False
    last = min(load_metrics(folder)["step"].max() for folder in (a, b))
    lines.append(f"no metric differs up to step {int(last)}")
    hashes = [_weights(folder) for folder in (a, b)]
    if None in hashes:
        return lines, True
    lines.append("the newest weights are equal to the byte" if len(set(hashes)) == 1 else "the newest weights differ")
    return lines, len(set(hashes)) == 1


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    return {group: values for group, values in (config or {}).items() if group not in _PLACES}


def _weights(folder: Path) -> str | None:
    files = sorted(folder.glob("checkpoints/step_*/model.safetensors"))
    return sha256_file(files[-1]) if files else None


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. Exit code 0 if the runs are equal, 1 if they differ, 2 for a wrong folder."""
    parser = Parser(prog=program("difference"), description="The first step at which two runs differ.")
    parser.add_argument("runs", type=Path, nargs=2, metavar="RUN", help="a run folder")
    parser.add_argument("--tolerance", type=float, default=0.0, help="relative difference to ignore")
    options = parser.parse_args(arguments)
    lines, equal = describe(options.runs[0], options.runs[1], options.tolerance)
    print("\n".join(lines))
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
