"""Killed at any moment and started again, the same command ends with the same bits."""

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from killing import assert_equal_records, killed_until_done
from outcomes import shown
from runhelpers import command_line, only_folder, run_folders, tiny_config, tiny_overrides
from taskhelpers import write_sst2

from albert_ablate.files import read_json
from albert_ablate.record.folder import RunFolder

#: Long enough to be killed while it trains.
TRAINING = ["budget.steps=400", "budget.warmup_steps=20", "runtime.log_every=7", "runtime.checkpoint_every=25"]
TRAINING += ["evaluation.curve_every=60", "model.hidden_dropout=0.1"]
FINE_TUNING = ["budget.steps=12", "task=sst2", "tasks.sst2.steps=300", "task.evaluations=12", "runtime.log_every=5"]
ELECTRA = [*TRAINING, "method=electra", "method.generator_width=0.5"]
#: A student with its teacher, fine-tuned in both stages by the fine-tuned teacher.
STUDENT = ["method=tinybert", "objective=none", "share=none", "budget.steps=80", "runtime.checkpoint_every=10"]
STUDENT += ["task=sst2", "tasks.sst2.steps=80", "task.evaluations=6", "task.distil.teacher=pretraining"]
STUDENT += ["task.distil.epochs=4", "runtime.log_every=5", "model.hidden_dropout=0.1"]
#: A student that learns its teacher's layers in stages.
TRANSFER = ["method=mobilebert", "block=mobilebert", "share=none", "budget.steps=160", "runtime.checkpoint_every=10"]
TRANSFER += ["model.norm_type=no_norm", "model.trigram=true", "method.teacher_inside=4.0", "runtime.log_every=7"]
CAUSAL = [*TRAINING, "method=causal", "objective=none"]
BLOCKS = [
    *TRAINING, "attention=bigbird", "attention.block=2", "attention.random=1", "objective=none",
    "pairs.join_documents=true",
]  # fmt: skip
KINDS = {
    "pretraining": TRAINING, "fine-tuning": FINE_TUNING, "ELECTRA": ELECTRA, "student": STUDENT, "causal": CAUSAL,
    "blocks": BLOCKS, "transfer": TRANSFER,
}  # fmt: skip

#: A whole run: (its folder, seconds that it took).
Whole = Callable[[str], tuple[RunFolder, float]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kills")
    write_sst2(folder / "data", train=256, dev=64)
    return folder


def words_of(kind: str, place: Path, name: str) -> list[str]:
    return tiny_overrides(place, *_settings(kind, place), runs=name)


def folder_of(kind: str, place: Path, name: str) -> RunFolder:
    """The run; of a student and its teacher, the student."""
    if kind not in ("student", "transfer"):
        return only_folder(tiny_config(place, *_settings(kind, place), runs=name))
    (student,) = (path for path in run_folders(place / name) if "teacher" in read_json(path / "manifest.json"))
    return RunFolder(student.parent, student.name)


def _settings(kind: str, place: Path) -> list[str]:
    tuned = "task=sst2" in KINDS[kind]
    return KINDS[kind] + ([f"task.data_dir={place / 'data'}"] if tuned else [])


@pytest.fixture(scope="module")
def whole(place: Path) -> Whole:
    done: dict[str, tuple[RunFolder, float]] = {}

    def of(kind: str) -> tuple[RunFolder, float]:
        if kind not in done:
            begin_time = time.monotonic()
            ended = command_line(*words_of(kind, place, f"whole-{kind}"), cwd=place)
            assert ended.returncode == 0, ended.stdout + ended.stderr
            done[kind] = folder_of(kind, place, f"whole-{kind}"), time.monotonic() - begin_time
        return done[kind]

    return of


def rounds(kind: str, count: int, place: Path, whole: Whole, seed: int) -> None:
    expected, seconds = whole(kind)
    draw, kills = random.Random(seed), 0
    for number in range(count):
        name = f"{kind}-{seed}-{number}"
        kills += killed_until_done(words_of(kind, place, name), place, place / name, draw, longest=seconds)
        assert_equal_records(folder_of(kind, place, name), expected)
    print(f"\n{kind}: {count} rounds, {kills} kills, every bit equal")


@pytest.mark.slow
def test_killed_at_a_random_moment_electra_ends_with_the_same_bits(place: Path, whole: Whole) -> None:
    rounds("ELECTRA", 1, place, whole, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["student", "causal", "blocks", "transfer"])
def test_killed_at_a_random_moment_it_ends_with_the_same_bits(kind: str, place: Path, whole: Whole) -> None:
    rounds(kind, 1, place, whole, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pretraining", "fine-tuning"])
def test_killed_at_random_moments_a_run_ends_with_the_same_bits(kind: str, place: Path, whole: Whole) -> None:
    rounds(kind, 3, place, whole, seed=1)
    for phase in ("training", "saving", "evaluation") if kind == "pretraining" else ("fine-tuning",):
        shown("SIGKILL", phase, "continues to the same bits")


@pytest.mark.nightly
@pytest.mark.parametrize(("kind", "count"), [("pretraining", 20), ("fine-tuning", 10)])
def test_the_same_over_many_rounds(kind: str, count: int, place: Path, whole: Whole) -> None:
    rounds(kind, count, place, whole, seed=2)


@pytest.mark.slow
def test_killed_from_an_empty_cache_on(tmp_path: Path, place: Path, whole: Whole) -> None:
    """Kills while text, tokenizer and tokens are made, too: no half-made cache is ever used."""
    expected, seconds = whole("pretraining")
    words = [
        *words_of("pretraining", place, "unused"),
        f"paths.runs={tmp_path / 'runs'}",
        f"paths.cache={tmp_path / 'c'}",
    ]
    kills = killed_until_done(words, place, tmp_path / "runs", random.Random(3), longest=0.4 * seconds, most=6)
    found = only_folder(tiny_config(place, *TRAINING, f"paths.runs={tmp_path / 'runs'}"))
    assert_equal_records(found, expected)
    assert kills >= 3
    shown("SIGKILL", "data", "continues to the same bits")
