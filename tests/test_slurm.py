"""A sweep on a real SLURM: `eval "$(bash tests/slurm/cluster.sh start)"`, then this file."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from runhelpers import ROOT, only_folder, run, run_folders, timeless, tiny_config, tiny_overrides, weights_of

from albert_ablate.record.folder import RunFolder
from albert_ablate.record.lock import owner

pytestmark = [
    pytest.mark.slurm,
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


def scores(runs: Path) -> dict[str, dict[str, Any]]:
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
    output, _ = process.communicate(timeout=1200)
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


def test_a_time_limit_that_strikes_three_times_changes_no_bit(tmp_path: Path) -> None:
    """Two minutes a job and no periodic checkpoint: what is saved is saved because SLURM announces the limit."""
    steps = 2400  # of a tenth of a second and more: four minutes and more
    more = [
        f"budget.steps={steps}", "runtime.log_every=50", "runtime.checkpoint_every=1000000",
        "runtime.checkpoint_minutes=null", "evaluation.curve_every=1000000",
    ]  # fmt: skip
    short = [*LAUNCHER, "hydra.launcher.timeout_min=2", "hydra.launcher.signal_delay_s=30"]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "run.py"), "-m", *tiny_overrides(tmp_path, *more, runs="slurm"), *short],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'tests' / 'faults'}:{ROOT}", "FAULT_STEP_SECONDS": "0.1"},
    )  # fmt: skip
    end = time.monotonic() + 2400
    while process.poll() is None and time.monotonic() < end:
        for job in jobs("PENDING"):  # SLURM holds what was put back into the queue for two minutes
            subprocess.run(["scontrol", "update", f"JobId={job.partition('_')[0]}", "StartTime=now"], check=False)
        time.sleep(2)
    output, _ = process.communicate(timeout=60)
    print(output)
    assert process.returncode == 0, output
    folder = only_folder(tiny_config(tmp_path, *more, runs="slurm"))
    limits = folder.time_limits()
    assert folder.state() == "finished"
    assert len(limits) >= 3
    assert limits == sorted(set(limits))
    assert limits[0] > 0
    log = (folder.path / "log.txt").read_text()
    assert log.count("continuing after step") == len(limits)
    assert log.count("trained") == 1
    for step, count in zip(limits, ("first", "second", "third"), strict=False):
        assert f"Time limit reached at step {step:,} of {steps:,}, {count} of 100" in log
    undisturbed = run(tiny_config(tmp_path, *more, runs="here"))
    assert scores(tmp_path / "slurm") == scores(tmp_path / "here")
    assert weights_of(folder) == weights_of(undisturbed)
    assert timeless(folder.metrics()) == timeless(undisturbed.metrics())


def test_a_job_that_is_killed_is_noticed_and_its_cell_continues(tmp_path: Path) -> None:
    """Also on a cluster without accounts, as that of cluster.sh: the queue is asked."""
    words = [*tiny_overrides(tmp_path, runs="slurm"), "seed=0,1", *LONG]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "run.py"), "-m", *words, *LAUNCHER], cwd=tmp_path, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    killed, end = "", time.monotonic() + 240
    while not killed and process.poll() is None and time.monotonic() < end:
        saved = [f for f in run_folders(tmp_path / "slurm") if RunFolder(f.parent, f.name).saved_step()]
        if saved and (running := jobs("RUNNING")):
            killed = running[0]
            subprocess.run(["scancel", "--signal=KILL", "--full", killed], check=True)
        time.sleep(0.1)
    output, _ = process.communicate(timeout=1200)
    print(output)
    assert killed, output
    assert process.returncode == 0, output
    assert "sacct" not in output
    assert "Bypassing" not in output
    assert {RunFolder(tmp_path / "slurm", f.name).state() for f in run_folders(tmp_path / "slurm")} == {"finished"}


def test_one_cell_on_two_nodes_is_saved_at_the_limit_and_continues(tmp_path: Path) -> None:
    """The batch script of docs/slurm.md, without GPUs; `cluster.sh start 2`."""
    if len(subprocess.run(["sinfo", "-h", "-N"], capture_output=True, text=True).stdout.splitlines()) < 2:
        pytest.skip("one node: cluster.sh start 2")
    (script,) = re.findall(r"```bash\n(#!/bin/bash\n.*?)```", (ROOT / "docs" / "slurm.md").read_text(), re.S)
    for words in (" --gpus-per-node=1", " --mem=32G", "--cpus-per-task=8 ", "--cpus-per-task=8"):
        script = script.replace(words, "")
    script = script.replace("--time=04:00:00", "--time=00:02:00").replace("TERM@120", "TERM@60")
    script = script.replace(".venv/bin/torchrun", f"{Path(sys.executable).parent}/torchrun")
    script = script.replace("run.py scale=gpu model=large", str(ROOT / "run.py"))
    (tmp_path / "large.sh").write_text(script)
    more = ["budget.steps=1500", "runtime.log_every=50", "runtime.checkpoint_every=1000000",
            "runtime.checkpoint_minutes=null", "evaluation.curve_every=1000000"]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'tests' / 'faults'}:{ROOT}", "FAULT_STEP_SECONDS": "0.1"}
    subprocess.run(
        ["sbatch", "large.sh", *tiny_overrides(tmp_path, *more, runs="large")], cwd=tmp_path, check=True,
        env=environment,
    )  # fmt: skip
    end = time.monotonic() + 1800
    while subprocess.run(["squeue", "-h"], capture_output=True, text=True).stdout and time.monotonic() < end:
        for job in jobs("PENDING"):
            subprocess.run(["scontrol", "update", f"JobId={job.partition('_')[0]}", "StartTime=now"], check=False)
        time.sleep(2)
    print(*(f.read_text() for f in tmp_path.glob("large-*.log")))
    folder = only_folder(tiny_config(tmp_path, *more, runs="large"))
    assert folder.state() == "finished"
    log = (folder.path / "log.txt").read_text()
    assert log.count("continuing after step") >= 1
    assert log.count("trained") == 1
