"""A sweep on a Ray cluster of two nodes, which the test starts on this machine."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import hydra
import pytest
from runhelpers import ROOT, run_folders, tiny_overrides

from albert_ablate.door.launchers import asks_for_gpus, engine_of, threads_of
from albert_ablate.door.words import initialised
from albert_ablate.record.folder import RunFolder

pytest.importorskip("ray")

LONG = ["budget.steps=600", "runtime.log_every=50", "evaluation.curve_every=10000"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Environment of a program that finds two nodes with one core each."""
    place = tmp_path_factory.mktemp("r")  # Ray's sockets need a short path
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "RAY_TMPDIR": f"/tmp/ray-{os.getpid()}", "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",  # beside other tests the cells would starve
    }  # fmt: skip
    ray = [sys.executable, "-m", "ray.scripts.scripts"]
    node = ["--num-cpus=1", "--num-gpus=0", "--disable-usage-stats"]
    port = 20_000 + os.getpid() % 10_000

    def call(*words: str) -> None:
        subprocess.run([*ray, *words], check=True, env=environment, cwd=place, capture_output=True)

    call("start", "--head", f"--port={port}", "--include-dashboard=false", *node)
    try:
        call("start", f"--address=127.0.0.1:{port}", *node)
        yield {**environment, "RAY_ADDRESS": f"127.0.0.1:{port}"}
    finally:
        call("stop", "--force")


def start(place: Path, environment: dict[str, str], *words: str) -> subprocess.Popen[str]:
    kept = [word for word in tiny_overrides(place, runs="runs") if not word.startswith("runtime.threads=")]
    return subprocess.Popen(
        [sys.executable, str(ROOT / "run.py"), "-m", *kept, *words, *LONG, "hydra/launcher=ray"],
        cwd=place, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def test_two_nodes_train_a_sweep(tmp_path: Path, cluster: dict[str, str]) -> None:
    process = start(tmp_path, cluster, "seed=0,1,2")
    together, end = 0, time.monotonic() + 600
    while process.poll() is None and time.monotonic() < end:
        states = [RunFolder(f.parent, f.name).state() for f in run_folders(tmp_path / "runs")]
        together = max(together, states.count("running"))
        time.sleep(0.1)
    output, _ = process.communicate(timeout=60)
    print(output)
    assert process.returncode == 0, output
    assert together == 2  # each node has one core
    folders = run_folders(tmp_path / "runs")
    assert [RunFolder(f.parent, f.name).state() for f in folders] == ["finished"] * 3
    assert all("threads: 1\n" in (f / "config.yaml").read_text() for f in folders)


def test_a_stopped_sweep_saves_its_cells_and_continues(tmp_path: Path, cluster: dict[str, str]) -> None:
    process = start(tmp_path, cluster, "seed=0,1", "budget.steps=3000")
    end = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < end:
        if "running" in [RunFolder(f.parent, f.name).state() for f in run_folders(tmp_path / "runs")]:
            break
        time.sleep(0.1)
    time.sleep(5)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    print(output)
    assert process.returncode == 75, output
    assert "The same command runs the rest" in output
    folders = [RunFolder(f.parent, f.name) for f in run_folders(tmp_path / "runs")]
    end = time.monotonic() + 60
    while any(folder.state() == "running" for folder in folders) and time.monotonic() < end:
        time.sleep(0.5)
    assert {folder.state() for folder in folders} == {"preempted"}


def test_without_a_cluster_the_remedy_is_named(tmp_path: Path, cluster: dict[str, str]) -> None:
    process = start(tmp_path, cluster, "seed=0,1", "hydra.launcher.address=127.0.0.1:1")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 2, output
    assert "ray start --head" in output
    assert "Traceback" not in output


def test_the_cores_and_gpus_of_a_cell_are_those_that_ray_counts() -> None:
    with initialised():
        words = ["hydra/launcher=ray", "hydra.launcher.num_cpus=4"]
        cpus = hydra.compose("config", words, return_hydra_config=True)
        gpus = hydra.compose("config", [*words, "hydra.launcher.num_gpus=1"], return_hydra_config=True)
    assert engine_of(cpus.hydra).cluster
    assert threads_of(cpus.hydra, None) == 4
    assert not asks_for_gpus(cpus.hydra)
    assert asks_for_gpus(gpus.hydra)
