"""A quarter of an hour on a rented GPU, rehearsed on a CPU: what is run at which speed, limits of time, results."""

import itertools
import lzma
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from runhelpers import ROOT, one_thread, read_json, tiny_overrides, write_corpus
from taskhelpers import write_squad

sys.path.insert(0, str(ROOT))

from albert_ablate import files
from albert_ablate.door.compose import compose
from albert_ablate.errors import DataError
from analysis.read.cells import select
from analysis.read.runs import load_runs
from benchmarks.alone import Answer, Background, Call, alone, together
from benchmarks.rented_gpu import backends, first, results
from benchmarks.rented_gpu.campaign import Campaign, take, work_off
from benchmarks.rented_gpu.collect import ended
from benchmarks.rented_gpu.crew import Outcome
from benchmarks.rented_gpu.first import decide
from benchmarks.rented_gpu.ladder import Job, blocks, jobs, tunings
from benchmarks.rented_gpu.places import Folders
from benchmarks.rented_gpu.prepare import PACKAGES, copy_tasks, main, versions
from benchmarks.rented_gpu.results import LARGEST, MOST, pack
from benchmarks.rented_gpu.sections import Ask, Section, run_sections
from benchmarks.rented_gpu.sizes import FULL, TINY, backend_overrides, budget


@pytest.mark.parametrize(
    ("speed", "cells", "billions"),
    [(9e6, 45, 2.16), (7.5e6, 45, 2.16), (7.4e6, 33, 1.44), (3e6, 17, 0.78), (2e6, 9, 0.405), (0.9e6, 9, 0.252),
     (0.89e6, 0, 0.0)],
)  # fmt: skip
def test_the_ladder_from_speed_to_cells(speed: float, cells: int, billions: float) -> None:
    chosen = blocks(speed)
    made = jobs(chosen, FULL, 0.004)
    assert len(made) == len({job.overrides for job in made}) == cells
    assert sum(job.tokens for job in made) == pytest.approx(billions * 1e9)
    assert sum(block.total for block in chosen) == pytest.approx(billions * 1e9)


def test_a_cut_of_the_queue_leaves_whole_seeds() -> None:
    made = jobs(blocks(8e6), FULL, 0.004)
    seeds = [next(word for word in job.overrides if word.startswith("seed=")) for job in made]
    assert [(seed, len(list(group))) for seed, group in itertools.groupby(seeds[:21])] == [
        ("seed=0", 3), ("seed=1", 3), ("seed=2", 3), ("seed=0", 4), ("seed=1", 4), ("seed=2", 4),
    ]  # fmt: skip
    assert [job.tuning for job in tunings(blocks(8e6), FULL, 0.004, "tasks")] == [True] * 9


def test_every_cell_is_a_valid_configuration(tmp_path: Path) -> None:
    here = (f"data.path={tmp_path}", "data=packed")
    made = jobs(blocks(8e6), FULL, 0.004)
    for job in (made[0], made[12], made[26], made[44], tunings(blocks(8e6), FULL, 0.004, "tasks")[8]):
        config = compose([*job.overrides, *here, *backend_overrides("graph")])
        assert config.runtime.backend == "graph"
        assert config.budget.amount() == job.tokens or job.tuning
        assert config.budget.steps * FULL.batch_tokens == pytest.approx(config.budget.amount(), rel=1e-3)
        assert (config.model.hidden, config.model.layers, config.pairs.max_length) == (192, 6, 128)
    assert compose([*TINY.model, *budget(10, TINY), *here]).budget.steps == 4


def test_the_first_job_that_fits_is_taken() -> None:
    queue = [Job("long", (), 100), Job("short", (), 10), Job("shorter", (), 5)]
    taken = take(queue, 12, lambda job: job.tokens)
    assert taken is not None
    assert taken.name == "short"
    assert [job.name for job in queue] == ["long", "shorter"]
    assert take(queue, 4, lambda job: job.tokens) is None
    assert len(queue) == 2


class LosingCrew:
    """One worker; ``lost``: how often its process dies in the job of that name."""

    def __init__(self, lost: dict[str, int]) -> None:
        self.lost = lost
        self.given: list[str] = []
        self.job: Job | None = None

    def idle(self) -> list[int]:
        return [] if self.job else [0]

    def running(self) -> list[Job]:
        return [self.job] if self.job else []

    def give(self, worker: int, job: Job) -> None:
        self.job = job
        self.given.append(job.name)

    def ended(self, seconds: float) -> list[tuple[Job, Outcome]]:
        job, self.job = self.job, None
        assert job is not None
        self.lost[job.name] = self.lost.get(job.name, 0) - 1
        return [(job, Outcome("lost" if self.lost[job.name] >= 0 else "finished", 1.0))]


def test_a_lost_cell_is_tried_once_more_at_the_end_and_the_rest_is_noted(tmp_path: Path) -> None:
    folders = Folders(tmp_path, tmp_path, tmp_path)
    end = time.monotonic() + TINY.campaign
    campaign = Campaign(folders, TINY, {}, end, {"jobs": {}}, packed_at=end, speed=1.0)
    crew = LosingCrew({"a": 1, "b": 2})
    queue = [Job(name, (), 1) for name in "abc"] + [Job("too long", (), 1e6)]
    work_off(campaign, crew, queue, end)
    assert crew.given == ["a", "b", "c", "a", "b"]
    states = {name: job["state"] for name, job in read_json(folders.journal)["jobs"].items()}
    assert states == {"a": "finished", "b": "lost", "c": "finished", "too long": "not started"}


class Clock:
    """Time that passes only where work is done."""

    def __init__(self) -> None:
        self.time = 100.0

    def now(self) -> float:
        return self.time

    def together(self, calls: Sequence[Call], seconds: float) -> list[Answer]:
        """Each call sleeps for the seconds that it needs."""
        needed: list[float] = [arguments[0] for _, arguments in calls]
        self.time += min(max(needed), seconds)
        late = Answer(error=f"not finished after {seconds:.0f} s")
        return [Answer("done") if one <= seconds else late for one in needed]


def test_sections_are_cut_at_their_limit_and_skipped_where_time_is_short() -> None:
    clock, seen = Clock(), list[tuple[str, dict[str, Any]]]()
    sections = [
        Section("quick", 10, 5, lambda ask: ask(time.sleep, 3)),
        Section("slow", 10, 5, lambda ask: ask(time.sleep, 50)),
        Section("twice", 10, 5, lambda ask: [ask(time.sleep, 6), ask(time.sleep, 6)]),
        Section("too late", 10, 8, lambda ask: ask(time.sleep, 1)),
        Section("short", 10, 2, lambda ask: ask(time.sleep, 1)),
    ]
    found = run_sections(sections, 30, clock.now, clock.together, lambda *told: seen.append(told))
    assert found == {
        "quick": {"value": "done", "seconds": 3},
        "slow": {"error": "not finished after 10 s", "seconds": 10},
        "twice": {"error": "not finished after 4 s", "seconds": 10},
        "too late": {"skipped": "7 s left, 8 needed"},
        "short": {"value": "done", "seconds": 1},
    }
    assert seen == list(found.items()), "each is told when it is over"
    assert clock.now() <= 130


def sleeper(folder: str, seconds: float) -> int:
    """Starts a process of its own, as a loader of batches does."""
    child = subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({seconds})"])
    (Path(folder) / "pid").write_text(str(child.pid))
    time.sleep(seconds)
    return 1


def failing() -> None:
    raise ValueError("of this kind")


def dying() -> None:
    os._exit(9)


def test_a_call_that_hangs_fails_or_dies_ends_nothing_else(tmp_path: Path) -> None:
    assert alone(os.getpid, seconds=120).error is None  # the libraries are loaded
    began = time.monotonic()
    answers = together([(sleeper, (str(tmp_path), 60.0)), (os.getpid, ()), (failing, ()), (dying, ())], 8)
    assert time.monotonic() - began < 30
    assert answers[0].error == "not finished after 8 s"
    assert answers[1].value not in (None, os.getpid())
    assert answers[2].error == "ValueError: of this kind"
    assert answers[3].error is not None
    assert "code 9" in answers[3].error
    time.sleep(0.2)
    state = Path(f"/proc/{(tmp_path / 'pid').read_text()}/stat")
    assert not state.exists() or state.read_text().split()[2] == "Z", "what it started is ended too"


def speeds(attention: str = "flash", **rates: float) -> dict[str, Any]:
    tokens = {name.removeprefix("p"): rate for name, rate in rates.items()}
    return {"value": {"tokens per second": tokens, "attention": attention, "log": []}}


RIGHT = {"value": {"passed": True}}
MEASURED: dict[str, dict[str, Any]] = {
    "golden losses": RIGHT,
    "backends agree": {"value": {"eager": {"passed": True}, "compiled": {"passed": True}, "graph": {"passed": True}}},
    "speed, eager": speeds(p1=1e6, p3=2e6),
    "speed, compiled": speeds("cudnn", p1=2e6, p3=4e6),
    "speed, graph": speeds("cudnn", p1=5e6, p3=7e6),
}


def test_the_campaign_takes_the_fastest_backend_and_number_of_processes() -> None:
    assert decide(MEASURED, FULL) == {
        "go": True, "backend": "graph", "attention": "cudnn", "processes": 3, "tokens_per_second": 7e6, "assumed": None,
    }  # fmt: skip
    alone = MEASURED | {"speed, graph": speeds(p1=5e6, p3=4.9e6)}
    assert (decide(alone, FULL)["backend"], decide(alone, FULL)["processes"]) == ("graph", 1)


@pytest.mark.parametrize(
    ("changed", "backend"),
    [({"speed, graph": {"error": "x"}}, "compiled"),
     ({"speed, graph": {"skipped": "x"}, "speed, compiled": {"error": "x"}}, "eager"),
     ({"backends agree": {"error": "x"}}, "eager"),
     ({"backends agree": {"value": {"compiled": {"passed": True}, "graph": {"passed": False, "error": "x"}}}},
      "compiled"),
     ({"speed, eager": {"error": "x"}}, "graph")],
)  # fmt: skip
def test_a_backend_counts_that_trains_right_and_was_measured(changed: dict[str, Any], backend: str) -> None:
    found = decide(MEASURED | changed, FULL)
    assert (found["go"], found["backend"]) == (True, backend)


def test_the_campaign_starts_only_on_right_losses_and_a_measured_speed() -> None:
    unmeasured = {f"speed, {name}": {"error": "x"} for name in FULL.backends}
    wrong = {"value": {"passed": False}}
    for changed in (
        {"golden losses": wrong},
        {"golden losses": {"error": "x"}},
        {"golden losses": {"skipped": "x"}},
        unmeasured,
    ):
        found = decide(MEASURED | changed, FULL)
        assert (found["go"], found["backend"]) == (False, "eager")
        assert found["why"]


class AnsweringAsk(Ask):
    """Answers at once: losses or a digest of weights by the words of the call, or an error."""

    def __init__(self, answer: Callable[[tuple[str, ...]], Any], broken: str) -> None:
        self.answer = answer
        self.broken = f"runtime.backend={broken}"
        self.waves: list[int] = []  # calls that run at the same time

    def answers(self, calls: Sequence[Call]) -> list[Answer]:
        self.waves.append(len(calls))
        told = [arguments[0] for _, arguments in calls]
        return [Answer(error="broken") if self.broken in words else Answer(self.answer(words)) for words in told]


def test_backends_are_held_to_the_first_one_and_spoil_no_other(tmp_path: Path) -> None:
    folders = Folders(tmp_path, tmp_path, tmp_path)

    def losses(words: tuple[str, ...]) -> list[float]:
        return [3.0, 2.53 if "runtime.backend=compiled" in words else 2.5]

    ask = AnsweringAsk(losses, broken="graph")
    assert backends.agree(ask, folders, FULL) == {
        "eager": {"passed": True, "largest difference": 0.0},
        "compiled": {"passed": False, "largest difference": pytest.approx(0.03)},
        "graph": {"passed": False, "error": "broken"},
    }
    assert ask.waves == [3], "all at the same time"
    without_reference = backends.agree(AnsweringAsk(losses, broken="eager"), folders, FULL)
    assert [found["passed"] for found in without_reference.values()] == [False] * 3


def test_bits_and_resuming_are_compared_for_each_backend(tmp_path: Path) -> None:
    folders = Folders(tmp_path, tmp_path, tmp_path)
    draws = itertools.count()

    def digest(words: tuple[str, ...]) -> str:
        return (
            f"{next(draws)}" if {"runtime.backend=compiled", "runtime.deterministic=false"} <= set(words) else "equal"
        )

    ask = AnsweringAsk(digest, broken="graph")
    default, deterministic = "runtime.deterministic=false", "runtime.deterministic=true"
    equal, broken = {"equal": True}, {"error": "broken"}
    assert backends.same_bits(ask, folders, FULL) == {
        "eager": {default: equal, deterministic: equal},
        "compiled": {default: {"equal": False}, deterministic: equal},
        "graph": {default: broken, deterministic: broken},
    }
    assert backends.resumed(ask, folders, FULL) == {"eager": equal, "compiled": equal, "graph": broken}
    assert ask.waves == [12, 6, 3], "stopped beside undisturbed ones, then those that continue"


def test_what_decides_fits_into_the_time_even_where_each_section_takes_its_limit(tmp_path: Path) -> None:
    folders, idle = Folders(tmp_path, tmp_path, tmp_path), Background(os.getpid)
    decisive = first.decisive(folders, FULL, idle)
    assert sum(section.seconds for section in decisive) <= FULL.first - 10
    informative = first.informative(folders, FULL, idle, "graph")
    names = [section.name for section in (*decisive, *informative)]
    assert len(names) == len(set(names)), "each is a key of checks.json"
    assert {f"speed, {name}" for name in FULL.backends} | {"golden losses", "backends agree"} <= set(names)
    assert all(section.least <= section.seconds for section in (*decisive, *informative))


def test_versions_of_the_wheels_are_those_on_record() -> None:
    assert list(versions()) == list(PACKAGES)
    assert versions()["sentencepiece"] == "0.2.3"


def test_the_files_of_the_tasks_alone_are_carried_under_names_that_are_found_again(tmp_path: Path) -> None:
    there = tmp_path / "there"
    names = (
        "mnli/train-subset.tsv.xz", "mnli/dev_matched.tsv.xz", "mnli/dev_mismatched-1000.tsv.xz",
        "sst2/train.tsv.xz", "sst2/dev.tsv", "squad/train-v1.1-subset.json.xz", "squad/dev-v1.1.json",
    )  # fmt: skip
    content = (write_squad(tmp_path / "questions") / "dev-v1.1.json").read_bytes()
    for name in (*names, "corpus/wiki.jsonl.xz", "squad/dev-v2.0.json"):
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        (there / name).write_bytes(lzma.compress(content) if name.endswith(".xz") else content)
    copy_tasks(there, tmp_path / "tasks", FULL)
    carried = {str(file.relative_to(tmp_path / "tasks")) for file in (tmp_path / "tasks").rglob("*") if file.is_file()}
    assert carried == set(names)
    copy_tasks(tmp_path / "tasks", tmp_path / "again", FULL)
    (there / "squad" / "train-v1.1-subset.json.xz").unlink()
    with pytest.raises(DataError, match=r"no file train-v1\.1\.json"):
        copy_tasks(there, tmp_path / "third", FULL)


@pytest.mark.skipif("ALBERT_ABLATE_DATA" not in os.environ, reason="the tasks' real files are not at hand")
def test_the_real_files_are_taken_as_they_lie(tmp_path: Path) -> None:
    copy_tasks(Path(os.environ["ALBERT_ABLATE_DATA"]), tmp_path, FULL)
    assert sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file()) < 10e6


def test_results_that_are_too_large_are_left_out_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "LARGEST", 100_000)
    folders = Folders(tmp_path, tmp_path / "work", tmp_path / "out")
    run = folders.runs / "a"
    for name in ("results.json", "metrics.jsonl", "checkpoints/step_1/model.safetensors", "tasks/x/best.safetensors"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text("{}")
    (run / "tasks" / "x" / "predictions").mkdir()
    (run / "tasks" / "x" / "predictions" / "dev.json").write_bytes(os.urandom(100_000))
    folders.trace.write_bytes(bytes(100_001))
    assert pack(folders, weights=False) == ["predictions of the fine-tunings", "trace.json.gz: 0.1 MiB"]
    with tarfile.open(folders.packed / "runs.tar.xz") as archive:
        assert archive.getnames() == ["runs/a/metrics.jsonl", "runs/a/results.json"]


def test_a_campaign_has_ended_when_all_its_files_are_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = Folders(tmp_path, tmp_path / "work", tmp_path / "out")
    folders.work.mkdir()
    for file in (folders.checks, folders.decisions, folders.log):
        file.write_text("{}")
    folders.journal.write_text('{"ended": true}')
    seen = {}

    def replacing(path: Path) -> AbstractContextManager[Path]:
        seen[path.name] = ended(folders)
        return files.replacing(path)

    monkeypatch.setattr(results, "replacing", replacing)
    pack(folders, weights=False)
    assert seen == dict.fromkeys(
        ("checks.json", "decisions.json", "campaign.log", "runs.tar.xz", "campaign.json"), False
    )
    assert ended(folders)


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory: pytest.TempPathFactory) -> tuple[Folders, list[str]]:
    """Everything, on a CPU: prepared, first, campaign, collected."""
    folder = tmp_path_factory.mktemp("rented")
    write_corpus(folder / "corpus.txt", documents=80)
    sst2 = folder / "tasks" / "sst2"
    sst2.mkdir(parents=True)
    for name, count in (("train", 40), ("dev", 12)):
        rows = [f"{'good' if n % 2 else 'bad'} film number {n}\t{n % 2}" for n in range(count)]
        (sst2 / f"{name}.tsv").write_text("\n".join(["sentence\tlabel", *rows]) + "\n")
    words = [w for w in tiny_overrides(folder) if w.startswith(("data", "tokenizer", "paths.cache"))]
    carried = folder / "carried"
    tasks = ["--tasks", str(folder / "tasks"), "--tiny"]
    assert main([*words, "--out", str(carried), *tasks, "--no-wheels"]) == 0
    folders = Folders(carried, folder / "work", folder / "out")
    said = [command("first", folders), command("collect", folders, "--seconds", "200")]
    return folders, said


def command(name: str, folders: Folders, *more: str) -> str:
    words = [sys.executable, "-m", f"benchmarks.rented_gpu.{name}", *folders.arguments(), "--tiny", *more]
    done = subprocess.run(words, cwd=ROOT, env=one_thread(), capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_rehearsal_checks_measures_and_decides(rehearsal: tuple[Folders, list[str]]) -> None:
    folders, said = rehearsal
    checks = read_json(folders.out / "checks.json")
    sections: dict[str, Any] = checks["sections"]
    assert {name: found for name, found in sections.items() if "error" in found} == {}
    assert sections["golden losses"]["value"]["passed"] is True
    assert sections["corpus"]["value"]["source"]["commit"]
    assert "campaign started" in said[0]
    assert read_json(folders.out / "decisions.json")["go"] is True


@pytest.mark.slow
def test_a_rehearsal_brings_ordinary_runs_back(rehearsal: tuple[Folders, list[str]], tmp_path: Path) -> None:
    folders, said = rehearsal
    files = sorted(folders.out.iterdir())
    assert len(files) <= MOST
    assert max(file.stat().st_size for file in files) <= LARGEST
    journal = read_json(folders.out / "campaign.json")
    assert "why" not in journal
    assert journal["ended"] is True
    states = {name: job["state"] for name, job in journal["jobs"].items() if not name.startswith("pilot")}
    assert set(states.values()) == {"finished"}, said[1]
    assert len(states) == 18, "nine cells and their fine-tunings"
    with tarfile.open(folders.out / "runs.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    runs = load_runs(tmp_path / "runs")
    assert len(runs) == 9
    terms = {name: {"size": "base", "embedding": "H/6", "objective": name, "share": "all"} for name in ("nsp", "sop")}
    chosen = select(runs, terms)
    assert {arm: sorted(frame["seed"]) for arm, frame in chosen.runs.items()} == {"nsp": [0, 1, 2], "sop": [0, 1, 2]}
    with tarfile.open(folders.out / "weights-1.tar") as archive:
        assert len(archive.getnames()) == 9
