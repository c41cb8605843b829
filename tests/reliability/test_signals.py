"""Stop signals in every phase: noticed within seconds, saved, exit code 75, and the same bits later."""

import os
import random
import signal
import time
from pathlib import Path

import pytest
from killing import assert_equal_records, begin, wait_for
from outcomes import shown
from runhelpers import only_folder, run, tiny_config, tiny_overrides, write_corpus
from taskhelpers import write_sst2

from albert_ablate import stopping
from albert_ablate.errors import PreemptedError
from albert_ablate.stopping import deferred, interruptible, stoppable

#: A system's, a cluster's ahead of a time limit, a person's.
SIGNALS = [signal.SIGTERM, signal.SIGUSR2, signal.SIGINT]
#: Setting -> when the signal is sent: something that the log or the folder shows.
PHASES = {
    "training": (["budget.steps=3000", "runtime.log_every=1"], "metrics.jsonl"),
    "evaluation": (["evaluation.max_pairs=100000", "evaluation.similarity_pairs=100000"], "; evaluating"),
    "fine-tuning": (["task=sst2", "tasks.sst2.steps=3000", "task.evaluations=3000"], "tasks"),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("signals")
    write_sst2(folder / "data", train=256, dev=64)
    run(tiny_config(folder, runs="warm"))  # the cache
    return folder


def seen(runs: Path, mark: str) -> bool:
    if mark == "; evaluating":
        return any(mark in file.read_text() for file in runs.glob("*/log.txt"))
    return any(file.stat().st_size for file in runs.glob("*/tasks/*/metrics.jsonl" if mark == "tasks" else f"*/{mark}"))


@pytest.mark.slow
@pytest.mark.parametrize("stop", SIGNALS, ids=lambda s: s.name)
@pytest.mark.parametrize("phase", PHASES)
def test_a_signal_saves_and_ends_with_75(phase: str, stop: signal.Signals, place: Path) -> None:
    more, mark = PHASES[phase]
    words = [*more, f"task.data_dir={place / 'data'}"]
    name = f"{phase}-{stop.name}"
    process = begin(tiny_overrides(place, *words, runs=name), place)
    wait_for(process, lambda: seen(place / name, mark))
    sent = time.monotonic()
    process.send_signal(stop)
    output, _ = process.communicate(timeout=30)
    took = time.monotonic() - sent
    assert process.returncode == 75, output
    assert "Traceback" not in output
    assert "same command continues" in output
    assert ("Time limit reached" in output) == (stop is signal.SIGUSR2)
    assert took < 10
    folder = only_folder(tiny_config(place, *words, runs=name))
    units = sorted(folder.path.glob("tasks/*/status.json"))
    assert (units[0] if units else folder.path / "status.json").read_text().count('"preempted"') == 1
    assert not (folder.path / "lock.json").exists()
    if phase == "training":
        assert folder.state() == "preempted"
        assert list(folder.checkpoints.iterdir())
    shown("SIGTERM, SIGUSR2, Ctrl-C", phase, "saved, exit 75, continues")


@pytest.mark.slow
def test_a_run_that_was_stopped_in_its_evaluation_ends_with_the_same_bits(place: Path) -> None:
    more = ["evaluation.max_pairs=2000"]
    expected = run(tiny_config(place, *more, runs="unstopped"))
    process = begin(tiny_overrides(place, *more, runs="stopped"), place)
    wait_for(process, lambda: seen(place / "stopped", "; evaluating"))
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 75
    config = tiny_config(place, *more, runs="stopped")
    assert only_folder(config).state() == "preempted"
    found = run(config)
    assert_equal_records(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["documents", "tokenizer"])
def test_a_signal_while_data_are_prepared(phase: str, tmp_path: Path) -> None:
    """Also while SentencePiece computes: a call into C++ that no signal interrupts by itself."""
    if phase == "documents":
        corpus = write_corpus(tmp_path / "corpus.txt", documents=40_000)
    else:
        corpus, draw = tmp_path / "corpus.txt", random.Random(0)
        words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9))) for _ in range(60_000)]
        sentences = (" ".join(draw.choices(words, k=12)).capitalize() + "." for _ in range(100_000))
        corpus.write_text("\n".join(s + "\n" * (i % 10 == 9) for i, s in enumerate(sentences)) + "\n")
    process = begin(tiny_overrides(tmp_path, "tokenizer.vocab_size=8000", corpus=corpus), tmp_path)
    begun = {"documents": "text/.*", "tokenizer": "tokenizers/.*"}[phase]
    wait_for(process, lambda: any((tmp_path / "cache").glob(begun)))
    time.sleep(1.0 if phase == "tokenizer" else 0.0)
    sent = time.monotonic()
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 75, output
    assert "same command continues" in output
    assert "Traceback" not in output
    assert time.monotonic() - sent < 5
    assert not any((tmp_path / "cache").glob(begun.replace(".*", "[!.]*")))
    shown("SIGTERM, SIGUSR2, Ctrl-C", "data", "nothing half made, exit 75, continues")


@pytest.mark.slow
def test_a_second_signal_leaves_at_once(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the first one waits for a step that takes long: thousands of micro-batches, each of them short."""
    words = ["budget.steps=3000", "batch.size=100000", "runtime.log_every=1"]
    process = begin(tiny_overrides(place, *words, runs="second"), place)
    wait_for(process, lambda: any((place / "second").glob("*/lock.json")))
    time.sleep(3)
    process.send_signal(signal.SIGTERM)
    time.sleep(2.5)
    assert process.poll() is None, "the step was over too soon to show anything"
    sent = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=10)
    assert time.monotonic() - sent < 1
    assert process.returncode == 75
    assert only_folder(tiny_config(place, *words, runs="second")).state() == "preempted"
    shown("second signal", "training", "leaves at once, exit 75; continues from the last checkpoint")


def test_two_signals_at_once_are_one_request() -> None:
    """A cluster signals every process of a job, and a sweep its cell."""

    def body() -> None:
        with deferred() as stopped:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
            assert stopped.wait(1)

    with pytest.raises(PreemptedError):
        body()


@pytest.mark.parametrize("stop", stopping.SIGNALS, ids=lambda s: s.name)
def test_handlers_are_given_back(stop: signal.Signals) -> None:
    before = signal.getsignal(stop)

    def body() -> None:
        with stoppable():
            assert signal.getsignal(stop) != before
            os.kill(os.getpid(), stop)
            time.sleep(1)

    with pytest.raises(PreemptedError):
        body()
    assert signal.getsignal(stop) is before


def test_a_deferred_signal_waits_for_the_body_and_is_then_raised() -> None:
    done = []

    def body() -> None:
        with stoppable():
            with deferred() as stopped:
                os.kill(os.getpid(), signal.SIGTERM)
                assert stopped.wait(1)
                done.append("body")
            done.append("after")

    with pytest.raises(PreemptedError):
        body()
    assert done == ["body"]


def test_a_long_call_gives_its_result_or_its_error() -> None:
    assert interruptible(lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        interruptible(lambda: 1 // 0)
