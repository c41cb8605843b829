"""The real program in a process of its own, killed at random moments and started again until it is done."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import forked
import yaml
from runhelpers import ROOT, newest_checkpoint, one_thread, timeless

from albert_ablate.files import read_json
from albert_ablate.record.folder import RunFolder

#: What a clock gave, in results.
_TIMING = ("seconds", "tokens_per_second", "evaluation", "inference")


def begin(words: list[str], cwd: Path) -> "subprocess.Popen[str]":
    """``python run.py WORDS``."""
    command = [sys.executable, str(ROOT / "run.py"), *words]
    return subprocess.Popen(
        command, cwd=cwd, env=one_thread(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip


def wait_for(process: "subprocess.Popen[str] | forked.Command", ready: Any, seconds: float = 90) -> None:
    """Until ``ready()`` or the process is over."""
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end and not ready():
        time.sleep(0.005)


def killed_until_done(
    words: list[str], cwd: Path, runs: Path, draw: random.Random, longest: float, most: int = 4, patience: float = 180
) -> int:
    """Run the command until it is done; returns the number of kills, at most ``most``.

    One kill in four falls at any moment of ``longest`` seconds, the others while the run is owned: in
    training, saving, evaluation and fine-tuning.
    """
    kills = 0
    while True:
        process = forked.Command(str(ROOT / "run.py"), *words, cwd=cwd, environment=one_thread())
        began = time.time()
        if kills < most:
            if draw.random() < 0.75:
                wait_for(process, lambda: any(f.stat().st_mtime >= began for f in runs.glob("*/lock.json")))  # noqa: B023
                time.sleep(draw.uniform(0, 0.5 * longest))
            else:
                time.sleep(draw.uniform(0, longest))
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                kills += 1
        output = "".join(process.communicate(timeout=patience))
        assert process.returncode in (0, -signal.SIGKILL), output
        if process.returncode == 0:
            return kills


def without_clock(value: Any) -> Any:
    """Nested results without what a clock gave."""
    if isinstance(value, dict):
        return {k: without_clock(v) for k, v in value.items() if k not in _TIMING}
    return [without_clock(v) for v in value] if isinstance(value, list) else value


def record_of(folder: RunFolder) -> dict[str, Any]:
    """Everything that two runs of one seed must have in common, to the byte.

    Of the checkpoints the newest alone: where a run was stopped by a signal, it left one there.
    """
    older = [path for path in folder.checkpoints.glob("step_*") if path != newest_checkpoint(folder)]
    found: dict[str, Any] = {
        str(path.relative_to(folder.path)): path.read_bytes()
        for path in sorted(folder.path.rglob("*"))
        if path.suffix in (".safetensors", ".pt", ".model", ".tsv") and not any(o in path.parents for o in older)
    }
    config = yaml.safe_load((folder.path / "config.yaml").read_text())
    found["config.yaml"] = {k: v for k, v in config.items() if k != "paths"}
    found["checkpoint"] = newest_checkpoint(folder).name if folder.checkpoints.is_dir() else None
    for path in sorted(folder.path.rglob("metrics.jsonl")):
        one = RunFolder(path.parent.parent, path.parent.name)
        found[str(path.relative_to(folder.path))] = timeless(one.metrics())
    for path in sorted(folder.path.rglob("results.json")):
        found[str(path.relative_to(folder.path))] = without_clock(read_json(path))
    return found


def assert_equal_records(found: RunFolder, expected: RunFolder) -> None:
    """Equal to the byte, but for what a clock gave."""
    mine, theirs = record_of(found), record_of(expected)
    assert mine.keys() == theirs.keys(), mine.keys() ^ theirs.keys()
    different = [name for name in mine if mine[name] != theirs[name]]
    assert not different, different
