"""Fine-tuning needs the encoder of a pretrained model, and none of its heads."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from runhelpers import newest_checkpoint, read_json, run, start, tiny_config
from safetensors.torch import load_file
from taskhelpers import with_tasks, write_race, write_squad, write_sst2

from albert_ablate.axes import MethodName
from albert_ablate.loading import LoadedRun
from albert_ablate.methods import METHODS, Term
from albert_ablate.methods.method import Measure
from albert_ablate.methods.mlm import MaskedLM
from albert_ablate.model.base import EncoderModel, without_values
from albert_ablate.model.encoder import Encoder
from albert_ablate.model.pretraining import initialise
from albert_ablate.model.shape import Shape
from albert_ablate.record.folder import RunFolder
from albert_ablate.training.checkpoint import newest


class EncoderAlone(EncoderModel):
    """An encoder without pooler and heads."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.encoder = Encoder(shape)


class Shrinking(MaskedLM):
    """Makes the states small; nothing is predicted."""

    @property
    def measures(self) -> frozenset[Measure]:
        return frozenset()

    def build(self, parents: Mapping[str, Path]) -> Any:
        shape = self.config.architecture()
        model = without_values(lambda: EncoderAlone(shape))
        initialise(model, shape.initializer_range, self.config.seed)
        return model

    def terms(self, model: Any, batch: Any) -> tuple[Term, ...]:
        states = model.encoder(batch.input_ids, batch.type_ids, batch.mask)
        return (Term("size", (states * batch.mask[..., None]).square().sum(), "tokens"),)

    def shown(self, line: Mapping[str, float]) -> str:
        return f"size {line['size_loss']:.3f}"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    write_race(write_squad(write_sst2(folder / "data")))
    return folder


@pytest.fixture(autouse=True)
def shrinking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, MethodName.MLM, Shrinking)


@pytest.fixture
def pretrained(place: Path, shrinking: None) -> RunFolder:
    """A finished run whose checkpoint holds an encoder and nothing else."""
    found = run(tiny_config(place))
    names = load_file(newest(found.checkpoints) / "model.safetensors")
    assert {name.partition(".")[0] for name in names} == {"encoder"}
    return found


def fine_tuned(place: Path, run: RunFolder, *words: str) -> list[RunFolder]:
    """The units that these settings added to the run."""
    before = {path.name for path in run.path.glob("tasks/*-*")}
    assert start(with_tasks(place, f"task.data_dir={place / 'data'}", *words)) == 0
    added = (path for path in sorted(run.path.glob("tasks/*-*")) if path.name not in before)
    return [RunFolder(path.parent, path.name) for path in added]


def test_it_is_fine_tuned_with_every_kind_of_head(place: Path, pretrained: RunFolder) -> None:
    weights = load_file(newest_checkpoint(pretrained) / "model.safetensors")
    tasks, notice = "task=[sst2,race,squad11]", "the pretrained model has no pooler"
    small = [f"tasks.{name}.steps=2" for name in ("sst2", "race", "squad11")]
    units = fine_tuned(place, pretrained, tasks, *small)
    bare = fine_tuned(place, pretrained, tasks, *small, "task.head=bare", "task.pool=mean")
    assert [unit.name.split("-")[0] for unit in units] == ["race", "squad11", "sst2"]
    assert [unit.name.split("-")[0] for unit in bare] == ["race", "sst2"], "SQuAD's is the same unit"
    for unit in (*units, *bare):
        assert read_json(unit.path / "status.json")["state"] == "finished"
        told = notice in (unit.path / "log.txt").read_text()
        assert told is (unit in units and not unit.name.startswith("squad")), "where the head has a pooler"
        learned = load_file(unit.path / "last.safetensors")
        assert all(learned[name].shape == tensor.shape for name, tensor in weights.items())
        same = [torch.allclose(learned[name], tensor, atol=0.02) for name, tensor in weights.items()]
        assert all(same), "it starts from the pretrained encoder"
    texts = ["a fine film", "a dull plot"]
    assert len(LoadedRun(pretrained).predict(bare[1].name, texts, f"task.data_dir={place / 'data'}")) == 2


def test_its_new_pooler_is_that_of_a_random_start(place: Path, pretrained: RunFolder) -> None:
    """The same for every arm of a seed: drawn by its name."""
    still = ("task=sst2", "tasks.sst2.steps=1", "tasks.sst2.warmup_steps=0", "tasks.sst2.learning_rate=1e-30")
    (own,) = fine_tuned(place, pretrained, *still)
    (random,) = fine_tuned(place, pretrained, *still, "task.start=random")
    a, b = (load_file(unit.path / "last.safetensors") for unit in (own, random))
    assert torch.equal(a["pooler.dense.weight"], b["pooler.dense.weight"])
    assert not torch.equal(a["encoder.embedding.word.weight"], b["encoder.embedding.word.weight"])
