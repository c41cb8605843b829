"""Seconds to the first training step, with and without cached data and tokenizer: ``python -m benchmarks.startup``."""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measure import report

ROOT = Path(__file__).resolve().parent.parent


def first_step(cache: Path) -> float:
    """Seconds from the start of a run to its first line of metrics; the run is then killed."""
    with tempfile.TemporaryDirectory() as runs:
        overrides = [f"paths.runs={runs}", f"paths.cache={cache}", "runtime.log_every=1"]
        began = time.perf_counter()
        with subprocess.Popen([sys.executable, str(ROOT / "run.py"), *overrides], stdout=-3, stderr=-3) as process:
            while not any(file.stat().st_size for file in Path(runs).glob("*/metrics.jsonl")):
                if process.poll() is not None:
                    raise SystemExit("the run ended before its first step")
                time.sleep(0.005)
            seconds = time.perf_counter() - began
            process.kill()
        return seconds


def main() -> None:
    """Print the median of several starts."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        cold = first_step(Path(cache))
        warm = [first_step(Path(cache)) for _ in range(options.starts)]
    rows = [{"start": "first, nothing cached", "seconds": cold}, {"start": "warm", "seconds": statistics.median(warm)}]
    report("startup", "First training step", rows, [f"warm: median of {len(warm)}"], options.out)


if __name__ == "__main__":
    main()
