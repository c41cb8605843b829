"""A sweep under random kills: ``python tests/reliability/soak.py --minutes 60``.

Runs a sweep undisturbed once, then again and again from nothing while its runner, its cells and their
servers are killed at random moments, until the minutes are over. Every cell has to finish with the
bits of the undisturbed sweep. Prints a line a round and the counts at the end; exit code 1 at the
first difference.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]

from killing import assert_equal_records, begin  # noqa: E402
from runhelpers import run_folders, tiny_overrides  # noqa: E402

from albert_ablate.record.folder import RunFolder  # noqa: E402

CELLS = ["-m", "embed.size=8,16", "share=all,none", "seed=0,1"]
SETTINGS = ["budget.steps=200", "budget.warmup_steps=20", "runtime.checkpoint_every=20", "runtime.retries=2"]


def main() -> int:
    """Exit code 0 where every round ended with the same bits."""
    parser = argparse.ArgumentParser(description="A sweep under random kills.")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw, end = random.Random(options.seed), time.monotonic() + 60 * options.minutes
    place = Path(tempfile.mkdtemp(prefix="soak-"))
    words = tiny_overrides(place, *SETTINGS, runs="clean")
    clean = begin([*CELLS, *words], place)
    output, _ = clean.communicate()
    assert clean.returncode == 0, output
    expected = {folder.name: RunFolder(folder.parent, folder.name) for folder in run_folders(place / "clean")}
    rounds = starts = 0
    kills = {"runner": 0, "worker": 0}
    while time.monotonic() < end:
        runs = place / f"round-{rounds}"
        started, killed = disturbed([*CELLS, *tiny_overrides(place, *SETTINGS, runs=runs.name)], place, draw)
        found = [RunFolder(folder.parent, folder.name) for folder in run_folders(runs)]
        assert {folder.name for folder in found} == expected.keys()
        for folder in found:
            assert folder.state() == "finished", folder.status()
            assert_equal_records(folder, expected[folder.name])
        rounds, starts = rounds + 1, starts + started
        kills = {who: kills[who] + killed[who] for who in kills}
        print(f"round {rounds}: {len(found)} cells equal, {started} starts, kills {killed}", flush=True)
    words_of_kills = f"{kills['runner']} kills of the runner, {kills['worker']} of workers"
    print(f"{rounds} rounds of {len(expected)} cells, {starts} starts of the sweep, {words_of_kills}: every bit equal")
    return 0


def disturbed(words: list[str], cwd: Path, draw: random.Random) -> tuple[int, dict[str, int]]:
    """One sweep, started again until it is done; at most three kills of the runner."""
    starts, kills = 0, {"runner": 0, "worker": 0}
    while True:
        process = begin(words, cwd)
        starts += 1
        while process.poll() is None:
            time.sleep(draw.uniform(1, 8))
            if process.poll() is not None:
                break
            workers = descendants(process.pid)
            if kills["runner"] < 3 and draw.random() < 0.3:
                os.kill(process.pid, signal.SIGKILL)
                kills["runner"] += 1
            elif workers and draw.random() < 0.5:
                try:
                    os.kill(draw.choice(workers), signal.SIGKILL)
                    kills["worker"] += 1
                except ProcessLookupError:
                    pass
        process.communicate()
        if process.returncode == 0:
            return starts, kills


def descendants(pid: int) -> list[int]:
    """Process ids below ``pid``."""
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True).stdout.split()
    return [int(child) for child in found] + [deeper for child in found for deeper in descendants(int(child))]


if __name__ == "__main__":
    sys.exit(main())
