"""The benchmarks run, and their peers do the same work; no seconds are asserted."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runhelpers import ROOT, one_thread, read_json

sys.path.insert(0, str(ROOT))

from albert_ablate.model import imitation
from albert_ablate.model.encoder import Encoder
from benchmarks import distillation, length
from benchmarks.cases import Case, batches_of, examples_of, made_up_store, word_starts
from benchmarks.measure import Measured, take_turns
from benchmarks.plain_data import instances
from benchmarks.sides import Resident, our_side, our_trainer

TINY = Case("tiny", h=64, layers=2, e=16, v=200, b=4, t=32)


def counter() -> Callable[[], Any]:
    calls: list[int] = []
    return lambda: calls.append(1)


def failing() -> Callable[[], Any]:
    raise ValueError("cannot be built")


def test_contenders_take_turns() -> None:
    found = take_turns({"a": counter, "b": counter}, 0, least=3)
    assert [len(one.seconds) for one in found.values()] == [3, 3]
    assert all(one.peak_mb >= one.start_mb > 0 for one in found.values())
    assert Measured([3.0, 1.0, 2.0], 1, 1).median == 2


def test_a_contender_that_fails_ends_the_benchmark() -> None:
    with pytest.raises(SystemExit, match="b failed"):
        take_turns({"a": counter, "b": failing}, 0)


def test_the_plain_peer_makes_what_we_make() -> None:
    """Pairs as long, as many masks, as often swapped; words masked whole."""
    store, starts = made_up_store(TINY.v), word_starts(TINY.v)
    sentences = [store.tokens[a:b].tolist() for a, b in zip(store.sentences[:-1], store.sentences[1:], strict=True)]
    documents = [sentences[a:b] for a, b in zip(store.documents[:-1], store.documents[1:], strict=True)]
    theirs = list(instances(documents, TINY.t, starts.tolist(), 0))
    batches = batches_of(TINY)
    ours = [batches[step] for step in range(batches.epoch_size // TINY.b)]
    lengths = np.concatenate([b.mask.sum(1).numpy() for b in ours])
    assert np.mean([len(i[0]) for i in theirs]) == pytest.approx(lengths.mean(), rel=0.02)
    masked = sum(len(b.targets) for b in ours) / lengths.sum()
    assert sum(len(i[1]) for i in theirs) / sum(len(i[0]) for i in theirs) == pytest.approx(masked, rel=0.02)
    assert np.mean([i[3] for i in theirs]) == pytest.approx(0.5, abs=0.03)
    for ids, columns, targets, _ in theirs[:200]:
        original = list(ids)
        for column, target in zip(columns, targets, strict=True):
            original[column] = target
        for column in columns:  # a continuation is masked with what it continues
            if not starts[original[column]] and original[column - 1] >= 5:
                assert column - 1 in columns


def test_transformers_gets_our_pairs_unmasked() -> None:
    example = examples_of(TINY)[0]
    assert 4 not in example["input_ids"]
    assert len(example["input_ids"]) == len(example["token_type_ids"]) == len(example["special_tokens_mask"])


def test_a_resident_batch_is_moved_once_and_trains_like_any_other() -> None:
    batch = batches_of(TINY)[0]
    resident = Resident(**vars(batch), kept={})
    device = torch.device("meta")
    first, again = (next(resident.micro(1)).pin_memory().to(device) for _ in range(2))
    assert list(map(id, first.tensors().values())) == list(map(id, again.tensors().values()))
    assert {tensor.device for tensor in resident.tensors().values()} == {device}
    assert replace(resident, positions=batch.positions).to(device).labels is first.labels, "padded, too"
    side = our_side(TINY)
    losses = [side.update(0, each).values for each in (side.resident(batch), batch)]  # a rate of 0 changes nothing
    assert torch.equal(*losses)


def test_gpu_benchmark_at_tiny_size(tmp_path: Path) -> None:
    words = ["-m", "benchmarks.gpu", "--tiny", "--seconds", "0", "--out", str(tmp_path / "gpu.json")]
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=one_thread(), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    (row,) = read_json(tmp_path / "gpu.json")["rows"]
    assert row["ours"] > 0
    assert row["transformers"] > 0


@pytest.mark.parametrize("name", ["distilbert", "tinybert"])
def test_a_student_alone_does_its_whole_work_without_a_pass_of_the_teacher(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []
    states = Encoder._states

    def counted(encoder: Encoder, *given: Any, **more: Any) -> Any:
        passes.append(encoder.shape.layers)
        return states(encoder, *given, **more)

    monkeypatch.setattr(Encoder, "_states", counted)
    monkeypatch.setattr(imitation, "observe", imitation.observe)  # put back at the end
    student, both = our_trainer(TINY, f"method={name}"), our_trainer(TINY, f"method={name}")
    distillation.PARTS[name][0](TINY, student)
    student.terms(student.batches[0])
    passes.clear()
    for number in range(3):
        alone = student.terms(student.batches[number])
        assert passes == [2]
        passes.clear()
        together = both.terms(both.batches[number])
        assert sorted(passes) == [2, 4]
        passes.clear()
        assert [(term.name, term.per, term.weight) for term in alone] == [(t.name, t.per, t.weight) for t in together]
        assert all(term.loss_sum.isfinite() and term.loss_sum > 0 for term in alone)
        distillation.PARTS[name][1](both, both.batches[number])
        assert passes == [4]
        passes.clear()
    sum(term.loss_sum for term in alone).backward()  # type: ignore[union-attr]
    assert student.model.get_parameter("encoder.embedding.word.weight").grad is not None


def test_length_measures_three_ways_of_attention_and_says_where_blocks_overtake() -> None:
    taken = length.measured([320], seconds=0, least=1)
    assert set(taken[320]) == {"full", "fused", "blocks"}
    (row,) = length.rows(taken)
    assert 0.3 < row["pairs seen"] < 0.6
    assert all(row[f"{name} ms"] > 0 for name in length.CONTENDERS)
    table = [
        {"tokens": tokens, "full ms": tokens**2, "fused ms": 2 * tokens**2, "blocks ms": 1500.0 * tokens,
         "full MB": 90 + 3 * tokens**2, "fused MB": 80 + tokens, "blocks MB": 70 + 4 * tokens}
        for tokens in (512, 1024, 2048)
    ]  # fmt: skip
    first, second, time, memory = length.notes(table)
    assert first == (
        "blocks against full: faster at 2,048 tokens, less memory at 512, 1,024, 2,048 tokens; 1.37 times as fast at "
        "2,048 tokens"
    )
    assert second.startswith("blocks against fused: faster at 1,024, 2,048 tokens, less memory nowhere; 2.73 times")
    assert time == "exponent of time from 1,024 tokens: full 2.00, fused 2.00, blocks 1.00"
    assert memory == "exponent of memory, without what every length needs: full 2.00, fused 1.00, blocks 1.00"
