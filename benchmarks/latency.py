"""How long the encoders of runs take for a pass, and how much memory: ``python -m benchmarks.latency RUN RUN``.

Encoder alone, fp32, full sequences without padding. For each number of threads a new process calls all arms (a run in
one form: eager PyTorch, ONNX Runtime, its dynamic int8) in turn, call by call. Given are the median, the 90th
percentile, the minimum, and the ratio of medians to the first run in the same form, with a 95% bootstrap interval over
rounds. Memory is the peak of a new process for each arm and length. ``--record`` leaves ``latency.json`` in each run
folder for the report.
"""

import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from albert_ablate.arguments import Parser
from albert_ablate.commands.given import open_run
from albert_ablate.console import command, stage
from albert_ablate.errors import ConfigError
from albert_ablate.files import write_json
from albert_ablate.record.latency import LATENCY, Latency, Processor, Timing
from albert_ablate.record.part import write_record
from benchmarks import forms, intervals, latency_page
from benchmarks.forms import EXPORTED, FORMS, Arm, Graphs, Limits, in_a_process
from benchmarks.measure import RESULTS, first_line, machine

LENGTHS = (64, 128, 256, 512, 1024, 2048, 4096)
BATCHES, THREADS = (1, 8), (1, 2)
#: Arm -> seconds of its calls, for each (threads, sequences, length).
Taken = Mapping[tuple[int, int, int], Mapping[str, Sequence[float]]]


def names_of(runs: Sequence[Path]) -> dict[Path, str]:
    """A, B, C, ... for the folders, in their order."""
    return {run: chr(ord("A") + number) if number < 26 else f"R{number + 1}" for number, run in enumerate(runs)}


def differing(configs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each run the settings that not all runs have alike; places and the machine's settings are left out."""
    flat = [_flat(config) for config in configs]
    keys = dict.fromkeys(key for one in flat for key in one)
    apart = [key for key in keys if len({str(one.get(key)) for one in flat}) > 1]
    kept = [key for key in apart if not key.startswith(("paths.", "runtime.", "sweep", "tracker"))]
    return [{key: one.get(key) for key in kept} for one in flat]


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{before}{key}.") if isinstance(value, dict) else {f"{before}{key}": value}
    return found


def arms_of(
    positions: Mapping[Path, int], chosen: Sequence[str], graphs: Mapping[Path, Graphs]
) -> list[Arm]:  # fmt: skip
    """Every run in every form; arms of one form follow each other."""
    names = names_of(list(positions))
    return [
        Arm(f"{names[run]} {form}", run, form, longest, graphs[run].files[form] if form in EXPORTED else {})
        for form in chosen
        for run, longest in positions.items()
    ]


def rows(arms: Sequence[Arm], taken: Taken, memory: Mapping[tuple[str, int], float]) -> list[dict[str, Any]]:
    """A row for each number of threads, of sequences, length and arm."""
    first = {arm.form: arm.name for arm in reversed(arms)}  # of each form, that of the first run
    table = []
    for (threads, batch, length), times in taken.items():
        for arm in (arm for arm in arms if arm.name in times):
            seconds = times[arm.name]
            median, reference = intervals.median(seconds), times.get(first[arm.form])
            row: dict[str, Any] = {
                "threads": threads, "batch": batch, "tokens": length, "run": arm.name.partition(" ")[0],
                "form": arm.form, "median ms": 1000 * median.value, "low ms": 1000 * median.low,
                "high ms": 1000 * median.high, "p90 ms": 1000 * _p90(seconds), "min ms": 1000 * min(seconds),
            }  # fmt: skip
            against = None if reference is None else intervals.ratio(seconds, reference)
            row |= {"ratio": None if against is None else against.value}
            row |= {"low": against and against.low, "high": against and against.high}
            table.append(row | {"MB": memory.get((arm.name, length)), "calls": len(seconds)})
    return table


def _p90(seconds: Sequence[float]) -> float:
    return sorted(seconds)[min(len(seconds) - 1, int(0.9 * len(seconds)))]


def record(run: Path, table: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> None:
    """Write ``latency.json`` of a run: the rows of it."""
    timings = [
        Timing(
            form=row["form"], threads=row["threads"], sequences=row["batch"], length=row["tokens"],
            milliseconds=row["median ms"], interval=[row["low ms"], row["high ms"]], p90=row["p90 ms"],
            calls=row["calls"], megabytes=row["MB"],
        )
        for row in table
    ]  # fmt: skip
    where = Processor(
        cpu=facts["cpu"], processors=facts["processors"], torch=facts["torch"], onnxruntime=facts["onnxruntime"]
    )
    write_record(run / LATENCY, Latency(machine=where, taken=datetime.now(UTC).isoformat(), timings=timings))


def measured(
    arms: Sequence[Arm], lengths: Sequence[int], batches: Sequence[int], threads: Sequence[int], limits: Limits
) -> dict[tuple[int, int, int], dict[str, list[float]]]:
    """(threads, sequences, length) -> arm -> seconds; a new process for each number of threads."""
    taken: dict[tuple[int, int, int], dict[str, list[float]]] = {}
    for count in threads:
        with stage(f"timing {len(arms)} arms with {count} thread{'s' * (count > 1)}"):
            found = in_a_process(forms.timed, arms, lengths, batches, limits, count, threads=count)
        taken |= {(count, batch, length): times for (batch, length), times in found.items()}
    return dict(sorted(taken.items()))


def memory_of(arms: Sequence[Arm], lengths: Sequence[int]) -> dict[tuple[str, int], float]:
    """(arm, length) -> MB, each from a new process."""
    with stage("measuring memory"):
        return {
            (arm.name, length): in_a_process(forms.peak_mb, arm, length)
            for arm in arms
            for length in lengths
            if length <= arm.positions
        }


def notes(graphs: Mapping[Path, Graphs], lost: Exception | None, positions: Mapping[Path, int]) -> list[str]:
    """How far the forms are apart, and what was left out."""
    found = [f"Not measured: {lost}"] if lost else []
    names = names_of(list(positions))
    if graphs:
        worst = max(one.difference for one in graphs.values())
        found.append(
            f"onnx: outputs equal PyTorch's to {worst:.1e}, relative to the largest output if that is above 1."
        )
    apart = {names[run]: one.of_int8 for run, one in graphs.items() if one.of_int8 is not None}
    if apart:
        listed = ", ".join(f"{name} {difference:.1e}" for name, difference in apart.items())
        found.append(
            f"int8 (ONNX Runtime's quantize_dynamic): largest difference from fp32, in the same measure: {listed}."
        )
    return found


def _chosen(options: Any) -> tuple[list[str], Exception | None]:
    """The forms, and why others are left out. Raises ConfigError."""
    asked = list(dict.fromkeys(options.forms or FORMS))
    if not set(asked) & set(EXPORTED):
        return asked, None
    lost = forms.require_exports(explicit=bool(options.forms))
    return (asked, None) if lost is None else ([form for form in asked if form not in EXPORTED], lost)


def _checked(options: Any, positions: Mapping[Path, int]) -> tuple[list[int], list[int], list[int]]:
    """Lengths, batches and threads, each sorted. Raises ConfigError for what cannot be measured."""
    longest = max(positions.values())
    lengths = sorted(set(options.lengths or [length for length in LENGTHS if length <= longest] or [longest]))
    batches, threads = sorted(set(options.batches)), sorted(set(options.threads))
    for name, values, least in (("--lengths", lengths, 2), ("--batches", batches, 1), ("--threads", threads, 1)):
        if values[0] < least:
            raise ConfigError(f"{name} {values[0]}: the least is {least}.")
    if lengths[-1] > longest:
        raise ConfigError(f"--lengths {lengths[-1]}: the runs have positions for at most {longest:,} tokens.")
    if threads[-1] > (cores := os.cpu_count() or 1):
        raise ConfigError(f"--threads {threads[-1]}: this machine has {cores} processors.")
    for name, value in (("--calls", options.calls), ("--warm-up", options.warm_up)):
        if value < 1:
            raise ConfigError(f"{name} {value}: the least is 1.")
    return lengths, batches, threads


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write; returns the exit code."""
    parser = Parser(prog="python -m benchmarks.latency", description=first_line(__doc__))
    parser.add_argument("runs", type=Path, nargs="+", help="run folders; ratios are to the first")
    parser.add_argument("--lengths", type=int, nargs="+", help="tokens (default: 64 to 4096, as positions allow)")
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCHES), help="sequences (default: 1 8)")
    parser.add_argument("--threads", type=int, nargs="+", default=list(THREADS), help="default: 1 2")
    parser.add_argument("--forms", nargs="+", choices=FORMS, help="default: all that the installed packages allow")
    parser.add_argument("--calls", type=int, default=100, help="of an arm at a length (default: 100)")
    parser.add_argument("--warm-up", type=int, default=10, help="calls before them (default: 10)")
    parser.add_argument("--seconds", type=float, default=10, help="after which there are fewer calls (default: 10)")
    parser.add_argument(
        "--no-memory", action="store_true", help="leave out the memory, a process for each arm and length"
    )
    parser.add_argument("--record", action="store_true", help="leave latency.json in each run folder, for the report")
    parser.add_argument("--out", type=Path, default=RESULTS / "latency.json", help="JSON; .csv, .md and .svg beside it")
    options = parser.parse_args(arguments)
    runs = list(dict.fromkeys(open_run(run).path for run in options.runs))
    configs = [yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8")) for run in runs]
    positions = {run: int(config["model"]["max_positions"]) for run, config in zip(runs, configs, strict=True)}
    lengths, batches, threads = _checked(options, positions)
    chosen, lost = _chosen(options)
    with tempfile.TemporaryDirectory() as folder:
        graphs = _graphs(positions, lengths, chosen, Path(folder)) if set(chosen) & set(EXPORTED) else {}
        arms = arms_of(positions, chosen, graphs)
        limits = Limits(options.warm_up, options.calls, options.seconds, min(5, options.calls))
        taken = measured(arms, lengths, batches, threads, limits)
        memory = {} if options.no_memory else memory_of(arms, lengths)
    table = rows(arms, taken, memory)
    facts = machine() | {"processors": os.cpu_count() or 1, "onnxruntime": _runtime() if graphs else None}
    known = [
        f"{name}: {run.name}" + "".join(f", {key}={value}" for key, value in apart.items() if key != "seed")
        for (run, name), apart in zip(names_of(runs).items(), differing(configs), strict=True)
    ]
    page = latency_page.Page(table, [*known, *notes(graphs, lost, positions)], _machine_line(facts))
    print(page.markdown())
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.out, {"title": latency_page.TITLE, "machine": facts, "notes": page.notes, "rows": table})
    latency_page.write(page, options.out)
    print(f"\nwritten to {options.out}, with .csv, .md and .svg beside it")
    for run, name in names_of(runs).items():
        if options.record:
            record(run, [row for row in table if row["run"] == name], facts)
    return 0


def _graphs(
    positions: Mapping[Path, int], lengths: Sequence[int], chosen: Sequence[str], folder: Path
) -> dict[Path, Graphs]:
    """The exported graphs of every run, each checked, by a process of its own."""
    graphs = {}
    for number, (run, longest) in enumerate(positions.items()):
        place = folder / str(number)
        place.mkdir()
        with stage(f"exporting {run.name}"):
            possible = [length for length in lengths if length <= longest]
            graphs[run] = in_a_process(forms.exported, run, possible, chosen, place)
    return graphs


def _runtime() -> str:
    import onnxruntime

    return str(onnxruntime.__version__)


def _machine_line(facts: Mapping[str, Any]) -> str:
    also = f", ONNX Runtime {facts['onnxruntime']}" if facts["onnxruntime"] else ""
    return f"{facts['cpu']}, {facts['processors']} processors; PyTorch {facts['torch']}{also}; fp32"


if __name__ == "__main__":
    sys.exit(main())
