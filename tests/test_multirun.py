"""Several cells in one command: each in its folder, none stopped by another's failure, none run twice."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from runhelpers import (
    ROOT,
    command_line,
    one_thread,
    run,
    run_folders,
    timeless,
    tiny_config,
    tiny_overrides,
    weights_of,
)

from albert_ablate.record.folder import RunFolder


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("multirun")


AXES = ["embed.size=8,16", "share=all,none"]


@pytest.fixture(scope="module")
def grid(shared: Path) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """Four finished cells."""
    done = command_line("-m", *tiny_overrides(shared, *AXES, runs="grid"), cwd=shared)
    return shared / "grid", done


def states(runs: Path) -> dict[str, str]:
    """Axes of each cell -> state."""
    found = {}
    for folder in run_folders(runs):
        name = folder.name.rpartition("-")[0]
        found[name] = json.loads((folder / "status.json").read_text())["state"]
    return found


def test_every_combination_is_finished_in_a_folder_of_its_own(
    grid: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    runs, done = grid
    assert done.returncode == 0, done.stdout + done.stderr
    assert states(runs) == {f"e{e}-{s}-sop-nano-s0": "finished" for e in (8, 16) for s in ("all", "none")}
    for folder in run_folders(runs):
        assert (folder / "results.json").is_file()
        config = yaml.safe_load((folder / "config.yaml").read_text())
        assert folder.name.startswith(f"e{config['embed']['size']}-{config['share']['strategy']}-")


def test_a_cell_of_a_grid_equals_the_cell_alone(
    grid: tuple[Path, subprocess.CompletedProcess[str]], shared: Path
) -> None:
    """Nothing of an earlier cell reaches a later one."""
    alone = run(tiny_config(shared, "embed.size=16", "share=none", runs="alone"))
    among = RunFolder(grid[0], alone.name)
    assert weights_of(among) == weights_of(alone)
    assert timeless(among.metrics()) == timeless(alone.metrics())


def test_the_same_command_trains_nothing_again(
    grid: tuple[Path, subprocess.CompletedProcess[str]], shared: Path
) -> None:
    runs, _ = grid

    def content() -> dict[str, int]:
        return {str(p): p.stat().st_mtime_ns for folder in run_folders(runs) for p in folder.rglob("*")}

    before = content()
    done = command_line("-m", *tiny_overrides(shared, *AXES, runs="grid"), cwd=shared)
    assert done.returncode == 0, done.stdout + done.stderr
    assert content() == before
    assert "4 finished, 0 to run" in done.stdout


def test_a_cell_with_wrong_settings_is_refused_before_any_is_run(shared: Path) -> None:
    done = command_line("-m", *tiny_overrides(shared, "embed.size=8,64,16", runs="wrong"), cwd=shared)
    output = done.stdout + done.stderr
    assert done.returncode == 2, output
    assert not states(shared / "wrong")
    assert "embed.size=64" in output
    assert "model.hidden=32" in output
    assert "Traceback" not in output


def test_a_cell_that_diverges_does_not_stop_the_others(shared: Path) -> None:
    rates = "optimizer.learning_rate=0.002,1e30,0.001"
    words = tiny_overrides(shared, rates, "optimizer.clip_norm=null", "evaluation.curve_every=1000", runs="diverging")
    done = command_line("-m", *words, cwd=shared)
    output = done.stdout + done.stderr
    assert done.returncode == 3, output
    assert "Traceback" not in output
    found = {}
    for folder in run_folders(shared / "diverging"):
        config = yaml.safe_load((folder / "config.yaml").read_text())
        found[config["optimizer"]["learning_rate"]] = json.loads((folder / "status.json").read_text())["state"]
    assert found == {0.002: "finished", 1e30: "diverged", 0.001: "finished"}


def test_a_stop_signal_stops_the_whole_command(shared: Path) -> None:
    """A machine that asks a process to stop soon kills it: the cells still to come must not start."""
    words = tiny_overrides(
        shared, "seed=0,1,2", "budget.steps=400", "runtime.log_every=1", "evaluation.curve_every=1000", runs="stopped"
    )
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "run.py"), "-m", *words], cwd=shared, env=one_thread(), stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        end = time.monotonic() + 60
        while time.monotonic() < end and process.poll() is None:
            if any(file.stat().st_size for file in (shared / "stopped").rglob("metrics.jsonl")):
                break
            time.sleep(0.005)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 75, output
    assert states(shared / "stopped") == {"e16-all-sop-nano-s0": "preempted"}
