"""Which states of the last layer a head for whole sequences reads, and whether it has a pooler."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from finetunehelpers import run_of
from runhelpers import start
from taskhelpers import with_tasks
from torch import Tensor

from albert_ablate.axes import Share
from albert_ablate.config.tasks import HeadKind, Pool
from albert_ablate.loading import LoadedRun
from albert_ablate.model.architecture import Architecture
from albert_ablate.model.pretraining import initialise
from albert_ablate.record.folder import RunFolder
from albert_ablate.tasks.heads import POOLS, PooledModel
from albert_ablate.tasks.reread import manifest_of
from albert_ablate.tasks.task import HeadSettings, TaskBatch
from albert_ablate.tasks.unit_settings import LATER_COMMON, completed

SHAPE = Architecture(64, 8, 16, 2, 2, 32, 24, Share.NONE, initializer_range=0.3)
LENGTHS = [20, 3, 11, 7]
#: Pool -> positions that are read of a sequence of n tokens, worked out by hand.
READ: dict[Pool, Callable[[int], list[int]]] = {
    "first": lambda n: [0], "mean": lambda n: list(range(n)), "last": lambda n: [n - 1],
}  # fmt: skip


def batch(choices: int = 1) -> TaskBatch:
    """Random sequences of ``LENGTHS``; padding has random ids, too, which must not matter."""
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 64, (len(LENGTHS), max(LENGTHS)), generator=draw, dtype=torch.int32)
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    return TaskBatch(ids, torch.zeros_like(ids), mask, torch.zeros(len(LENGTHS) // choices, 1), choices)


def made(pool: Pool, kind: HeadKind, outputs: int = 3) -> Any:
    model = PooledModel(SHAPE, outputs, HeadSettings(0.1, pool, kind))
    initialise(model, 0.3, 0)
    return model.eval()


@pytest.mark.parametrize("kind", ["pooled", "bare"])
@pytest.mark.parametrize("pool", READ)
def test_an_output_is_that_of_the_sequence_alone_worked_out_by_hand(pool: Pool, kind: HeadKind) -> None:
    model, b = made(pool, kind), batch()
    with torch.no_grad():
        found = model(b)
        for row, n in enumerate(LENGTHS):
            states = model.encoder(b.input_ids[row : row + 1, :n], b.type_ids[row : row + 1, :n])[0]  # (n, H)
            state = states[READ[pool](n)].mean(0)
            if kind == "pooled":
                state = torch.tanh(model.pooler.dense.weight @ state + model.pooler.dense.bias)
            expected = model.classifier.weight @ state + model.classifier.bias
            torch.testing.assert_close(found[row], expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(model(b.widened(24, 24)), found, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pool", READ)
def test_a_gradient_reaches_the_states_that_are_read_in_equal_shares(pool: Pool) -> None:
    b = batch()
    states = torch.randn(len(LENGTHS), max(LENGTHS), 16, requires_grad=True)

    def encoder(*_: Tensor, rows: Tensor | None = None) -> Tensor:
        return states if rows is None else states.flatten(0, 1)[rows]

    POOLS[pool](encoder, b).sum().backward()  # type: ignore[arg-type]
    expected = torch.zeros_like(states)
    for row, n in enumerate(LENGTHS):
        expected[row, READ[pool](n)] = 1 / len(READ[pool](n))
    torch.testing.assert_close(states.grad, expected)
    assert states.grad is not None
    assert not states.grad[~b.mask].any(), "padding is excluded, exactly"


@pytest.mark.parametrize("pool", READ)
def test_choices_are_scored_one_by_one(pool: Pool) -> None:
    model = made(pool, "bare", outputs=1)
    with torch.no_grad():
        assert torch.equal(model(batch(choices=2)), model(batch()).view(2, 2))


def test_a_bare_head_differs_from_the_pooled_one_only_in_the_pooler() -> None:
    pooled, bare = made("first", "pooled").state_dict(), made("first", "bare").state_dict()
    assert pooled.keys() - bare.keys() == {"pooler.dense.weight", "pooler.dense.bias"}
    assert all(torch.equal(pooled[name], tensor) for name, tensor in bare.items())


# --- on record --------------------------------------------------------------------------------------


def test_a_fine_tuning_records_its_pooling_and_predicts_by_it(folder: Path) -> None:
    """``predict`` composes the settings anew; the recorded ones count."""
    words = ("task.pool=mean", "task.head=bare", "tasks.sst2.steps=4")
    assert start(with_tasks(folder, "task=sst2", f"task.data_dir={folder / 'data'}", *words)) == 0
    run = run_of(folder)
    units = [RunFolder(path.parent, path.name) for path in run.path.glob("tasks/sst2-*")]
    (unit,) = (unit for unit in units if manifest_of(unit)["settings"]["common"]["pool"] == "mean")
    recorded = unit.read("results.json")["set_up"]["all_tasks"]
    assert (recorded["pool"], recorded["head"]) == ("mean", "bare")
    rows = [line.split("\t") for line in (folder / "data" / "SST-2" / "dev.tsv").read_text().splitlines()[1:]]
    written = (unit.path / "predictions" / "SST-2.tsv").read_text().splitlines()[1:]
    found = LoadedRun(run).predict(unit.name, [text for text, _ in rows], f"task.data_dir={folder / 'data'}")
    assert found == [line.split("\t")[1] for line in written]


def test_what_an_older_fine_tuning_did_not_record_is_what_it_did(folder: Path) -> None:
    common = asdict(with_tasks(folder, "task.pool=mean", "task.start=random").task)
    older = {k: v for k, v in common.items() if k not in LATER_COMMON}
    older["optimizer"] = {k: v for k, v in common["optimizer"].items() if not k.startswith("layer")}
    found = completed(older)
    assert (found["pool"], found["head"], found["start"]) == ("first", "pooled", "random")
    assert found.keys() == common.keys()
    assert found["optimizer"] == common["optimizer"]
    assert completed(common) == common
