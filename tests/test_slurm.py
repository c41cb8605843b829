"""A sweep on a real SLURM: `eval "$(bash tests/slurm/cluster.sh start)"`, then this file."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from runhelpers import ROOT, run_folders, tiny_overrides

from albert_ablate.lock import owner
from albert_ablate.runs import RunFolder

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.xdist_group("sweeps"),
    pytest.mark.skipif(
        "SLURM_CONF" not in os.environ or shutil.which("sbatch") is None, reason="no SLURM cluster: tests/slurm"
    ),
]

CELLS = ["seed=0,1", "embed.size=8,16"]
LONG = ["budget.steps=2500", "runtime.log_every=50", "runtime.checkpoint_every=200", "evaluation.curve_every=10000"]
LAUNCHER = [
    "hydra/launcher=submitit_slurm", "hydra.launcher.partition=local", "hydra.launcher.cpus_per_task=1",
    "hydra.launcher.timeout_min=30", "hydra.launcher.mem_gb=null",
]  # fmt: skip


def jobs(state: str) -> list[str]:
    listed = subprocess.run(["squeue", "-h", "-r", "-t", state, "-o", "%F_%K"], capture_output=True, text=True)
    return listed.stdout.split()


def scores(runs: Path) -> dict[str, object]:
    found = {}
    for path in run_folders(runs):
        results = RunFolder(runs, path.name).read("results.json")
        found[path.name] = {key: results[key] for key in ("masked_lm", "nsp", "sop")}
    return found


def test_a_requeued_job_continues_and_every_cell_is_finished(tmp_path: Path) -> None:
    def words(runs: str) -> list[str]:
        tiny = [w for w in tiny_overrides(tmp_path, runs=runs) if not w.startswith("embed.size=")]
        return ["-m", *tiny, *CELLS, *LONG]

    command = [sys.executable, str(ROOT / "run.py")]
    process = subprocess.Popen(
        [*command, *words("slurm"), *LAUNCHER], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip
    runs, requeued, cell = tmp_path / "slurm", None, None
    end = time.monotonic() + 240
    while requeued is None and process.poll() is None and time.monotonic() < end:
        holders = [(f, owner(f)) for f in run_folders(runs)]
        training = [f for f, lock in holders if lock and (lock["progress"].get("step") or 0) > 200]
        running = jobs("RUNNING")
        if training and running:
            requeued, cell = running[0], training[0]
            subprocess.run(["scontrol", "requeue", requeued], check=True)
        time.sleep(0.1)
    output, _ = process.communicate(timeout=400)
    print(output)
    assert requeued is not None, output
    assert cell is not None
    assert process.returncode == 0, output
    assert {RunFolder(runs, f.name).state() for f in run_folders(runs)} == {"finished"}
    assert len(run_folders(runs)) == 4
    logs = [(f / "log.txt").read_text() for f in run_folders(runs)]
    assert sum("continuing after step" in log for log in logs) == 1  # the requeued job's cell, and no other
    assert all(log.count("trained") == 1 for log in logs)
    subprocess.run([*command, *words("here")], cwd=tmp_path, check=True, capture_output=True)
    assert scores(runs) == scores(tmp_path / "here")
