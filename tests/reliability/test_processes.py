"""Several processes on one run (torchrun, gloo): the losses of one process, whole records, clean ends."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from killing import assert_equal_records, wait_for
from outcomes import shown
from runhelpers import ROOT, newest_checkpoint, one_thread, only_folder, run, status_of, tiny_config, tiny_overrides
from safetensors.torch import load_file

from albert_ablate.record.folder import RunFolder

pytestmark = pytest.mark.slow

#: Sums over processes are added in another order than over micro-batches.
TOLERANCE = 2e-5
LONG = ["budget.steps=700", "runtime.log_every=1", "runtime.checkpoint_every=100", "evaluation.curve_every=250"]


def torchrun(processes: int, words: list[str], cwd: Path, script: Path = ROOT / "run.py") -> "subprocess.Popen[str]":
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return subprocess.Popen(
        [*launcher, str(script), *words], cwd=cwd, env=one_thread(), stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def trained_by(processes: int, words: list[str], cwd: Path, code: int = 0) -> str:
    process = torchrun(processes, words, cwd)
    output, _ = process.communicate(timeout=180)
    assert process.returncode == code, output
    return output


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("processes")


@pytest.mark.parametrize(
    ("processes", "words"),
    [
        (2, ["share=all", "objective=sop", "batch.micro_size=2", "runtime.activation_checkpointing=true"]),
        (3, ["share=attention", "objective=nsp", "optimizer=adamw", "batch.micro_size=1"]),
        (2, ["share=none", "objective=none", "embed.size=32", "runtime.workers=1"]),
        (2, ["method=electra", "method.generator_width=0.5", "batch.micro_size=2"]),
        (2, ["method=causal", "objective=none", "batch.micro_size=2"]),
        (
            2,
            [
                "block=mobilebert",
                "model.trigram=true",
                "model.norm_type=no_norm",
                "model.lm_head=extended",
                "model.block_width=16",
                "model.feed_forwards=2",
                "batch.micro_size=2",
            ],
        ),
        (2, ["attention=bigbird", "attention.block=2", "attention.random=1", "batch.micro_size=2"]),
        (2, ["pairs.join_documents=true", "objective=none", "batch.micro_size=2"]),
        (2, ["method.blocks=pairs", "method=causal", "objective=none", "batch.micro_size=2"]),
    ],
    ids=lambda v: str(v) if isinstance(v, int) else "-".join(v[:2]),
)
def test_losses_are_those_of_one_process(processes: int, words: list[str], place: Path) -> None:
    """The masked-LM mean is over all masked positions of the batch, not a mean of the processes' means."""
    name = f"{words[0].partition('=')[2]}-{processes}"
    alone = run(tiny_config(place, *words, runs=f"{name}-alone"))
    output = trained_by(processes, tiny_overrides(place, *words, runs=name), place)
    together = only_folder(tiny_config(place, *words, runs=name))
    assert together.name == alone.name
    assert [line["step"] for line in together.metrics()] == [line["step"] for line in alone.metrics()]
    for mine, theirs in zip(together.metrics(), alone.metrics(), strict=True):
        assert mine["tokens"] == theirs["tokens"]
        for key in theirs.keys() - {"seconds", "tokens_per_second"}:
            assert mine[key] == pytest.approx(theirs[key], rel=TOLERANCE), key
    ours, other = (load_file(newest_checkpoint(folder) / "model.safetensors") for folder in (together, alone))
    assert max(float((ours[key] - other[key]).abs().max()) for key in ours) < 1e-4
    results, expected = together.read("results.json"), alone.read("results.json")
    if expected["masked_lm"] is not None:
        assert results["masked_lm"]["loss"] == pytest.approx(expected["masked_lm"]["loss"], rel=TOLERANCE)
        assert results["masked_lm"]["examples"] == expected["masked_lm"]["examples"]
    if "causal_lm" in expected:
        assert results["causal_lm"]["bits_per_byte"] == pytest.approx(
            expected["causal_lm"]["bits_per_byte"], rel=TOLERANCE
        )
        assert results["causal_lm"]["examples"] == expected["causal_lm"]["examples"]
    assert results["training"]["processes"] == together.read("manifest.json")["processes"] == processes
    assert output.count("held-out documents      result") == 1, "one process speaks"


def test_one_dead_process_ends_the_job_and_it_continues_to_the_same_bits(place: Path) -> None:
    trained_by(2, tiny_overrides(place, *LONG, runs="undisturbed"), place)
    expected = only_folder(tiny_config(place, *LONG, runs="undisturbed"))
    words = tiny_overrides(place, *LONG, runs="killed")
    process = torchrun(2, words, place)
    wait_for(process, lambda: len(lines_of(place / "killed")) > 150)
    os.kill(last_worker(process, "run.py"), signal.SIGKILL)
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    folder = only_folder(tiny_config(place, *LONG, runs="killed"))
    assert folder.state() == "preempted", output
    assert newest_checkpoint(folder).name < "step_00000700"
    trained_by(2, words, place)
    assert_equal_records(folder, expected)
    shown("one of several processes dies", "training", "all end; continues to the same bits")


def test_a_stop_signal_reaches_all_and_another_number_of_processes_is_refused(place: Path) -> None:
    words = tiny_overrides(place, *LONG, runs="stopped")
    process = torchrun(2, words, place)
    wait_for(process, lambda: len(lines_of(place / "stopped")) > 50)
    sent = time.monotonic()
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert time.monotonic() - sent < 20
    folder = only_folder(tiny_config(place, *LONG, runs="stopped"))
    assert status_of(folder)["state"] == "preempted", output
    told = re.search(r"step (\d+) of 700", status_of(folder)["reason"])
    assert told is not None
    step = int(told[1])
    assert newest_checkpoint(folder).name == f"step_{step:08d}"
    refused = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), *words], cwd=place, env=one_thread(), capture_output=True, text=True
    )
    assert refused.returncode == 1
    assert "was begun with 2 processes, now there is 1" in refused.stderr
    assert "torchrun --nproc-per-node=2 run.py" in refused.stderr
    assert "Traceback" not in refused.stderr
    trained_by(2, words, place)
    assert RunFolder(folder.path.parent, folder.name).state() == "finished"
    shown("another number of processes", "between runs", "refused in words")


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are listed by Linux alone")
@pytest.mark.parametrize("end", ["finished", "stopped", "refused"])
def test_no_thread_of_the_group_outlives_it(end: str, place: Path) -> None:
    """A thread of gloo's that frees a tensor while Python leaves aborts a process that has done its work."""
    more = {"finished": [], "stopped": LONG, "refused": ["batch.size=1", "batch.micro_size=1"]}[end]
    words = tiny_overrides(place, *more, runs=f"threads-{end}")
    process = torchrun(2, words, place, Path(__file__).with_name("threads_at_exit.py"))
    if end == "stopped":
        wait_for(process, lambda: len(lines_of(place / "threads-stopped")) > 50)
        process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=180)
    assert (process.returncode == 0) is (end == "finished"), output
    left = re.findall(r"threads at exit: (.*)", output)
    assert len(left) == 2, output
    assert "gloo" not in " ".join(left)


LOSES_ITS_PEER = """
import os, torch
from albert_ablate.training.distributed import joined
from albert_ablate.errors import PeerLostError
from threads_at_exit import say_threads
try:
    with joined("cpu") as world:
        world.sum([1.0])
        if not world.main:
            os._exit(0)
        world.sum([1.0])
except PeerLostError as error:
    kept = error  # as a caller may
    print("lost")
say_threads()
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are listed by Linux alone")
def test_no_thread_of_the_group_outlives_a_lost_peer() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    shared = {"WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "x", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", LOSES_ITS_PEER], env=one_thread() | shared | {"RANK": rank, "PYTHONPATH": path},
            stdout=subprocess.PIPE, text=True,
        )
        for rank in "01"
    ]  # fmt: skip
    said = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert "lost" in said[0]
    assert "threads at exit" in said[0]
    assert "gloo" not in said[0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["batch.size=1", "batch.micro_size=1"], "batch.size=1 is less than the 2 processes that share it"),
        (["-m", "seed=0,1"], "A sweep runs in one process, but torchrun has started 2"),
    ],
)
def test_what_cannot_be_shared_is_refused(words: list[str], said: str, place: Path) -> None:
    flags = [word for word in words if word.startswith("-")]
    process = torchrun(2, [*flags, *tiny_overrides(place, runs="refused"), *words[len(flags) :]], place)
    output, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert said in output
    assert not (place / "refused").exists() or not any((place / "refused").glob("e*"))


def last_worker(process: "subprocess.Popen[str]", script: str) -> int:
    """The process id of torchrun's second process."""
    children = subprocess.run(["pgrep", "-P", str(process.pid), "-f", script], capture_output=True, text=True)
    return max(map(int, children.stdout.split()))


def lines_of(runs: Path) -> list[str]:
    return [line for file in runs.glob("*/metrics.jsonl") for line in file.read_text().splitlines()]
