"""Time and memory of a large report: ``python -m benchmarks.report runs --runs 1000``.

The run folders are copies of those in ``runs`` with other seeds, identities and scores, so that none counts as a copy
of another one. Checkpoints and fine-tunings are left out.
"""

import argparse
import json
import random
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

import yaml

from albert_ablate.files import digest
from analysis.report import report_on
from benchmarks.measure import first_line, report

_COPIED = ("status.json", "similarity.json", "metrics.jsonl")
#: Standard deviation of what is added to accuracy and loss.
_NOISE = (0.002, 0.02)


def multiplied(runs: Path, out: Path, count: int) -> None:
    """``count`` run folders in ``out``, made of those in ``runs``; the seeds of each round are new."""
    sources = sorted(file.parent for file in runs.glob("*/results.json"))
    draw = random.Random(0)
    for number in range(count):
        again, index = divmod(number, len(sources))
        _copy(sources[index], out, again, draw)


def _copy(source: Path, out: Path, again: int, draw: random.Random) -> None:
    config = yaml.safe_load((source / "config.yaml").read_text(encoding="utf-8"))
    config["seed"] += 1000 * again
    identity = digest([source.name, again], 12)
    folder = out / f"{source.name.rpartition('-s')[0]}-s{config['seed']}-{identity}"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    manifest = json.loads((source / "manifest.json").read_text(encoding="utf-8")) | {"identity": identity}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    results = json.loads((source / "results.json").read_text(encoding="utf-8"))
    for name, noise in zip(("accuracy", "loss"), _NOISE, strict=True):
        results["masked_lm"][name] += draw.gauss(0, noise)
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
    for name in _COPIED:
        if (source / name).is_file():
            shutil.copy(source / name, folder / name)


def main() -> None:
    """Measure one report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=first_line(__doc__))
    parser.add_argument("source", type=Path, help="folder of finished runs, such as runs")
    parser.add_argument("--runs", type=int, default=1000, help="run folders in the report (default: 1000)")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs, out = Path(folder) / "runs", Path(folder) / "report"
        multiplied(options.source, runs, options.runs)
        wall, cpu = time.perf_counter(), time.process_time()
        report_on([runs], out)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        page = (out / "index.html").stat().st_size / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
    row = {"runs": options.runs, "seconds": wall, "CPU seconds": cpu, "peak MB": peak, "page MB": page}
    report("report", "A large report", [row], ["page: the size of index.html"], options.out)


if __name__ == "__main__":
    main()
