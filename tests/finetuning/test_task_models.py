"""Heads and weights of a fine-tuned model at its start."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from finetunehelpers import make, run_of, tuner
from safetensors.torch import load_file
from taskhelpers import (
    with_tasks,
)
from torch.nn import functional as F

from albert_ablate.errors import CheckpointError
from albert_ablate.tasks.finetuning import build_task_model
from albert_ablate.tasks.heads import AnswerableSpanModel, forbidden
from albert_ablate.tasks.recipe import resolve
from albert_ablate.training.checkpoint import checkpoints


def test_the_encoder_starts_with_the_pretrained_weights(folder: Path, tmp_path: Path) -> None:
    own = load_file(checkpoints(run_of(folder).checkpoints)[-1] / "model.safetensors")
    found = tuner(folder, "sst2", tmp_path).model.state_dict()
    shared = [name for name in found if name.startswith(("encoder.", "pooler."))]
    assert shared
    assert all(torch.equal(found[name], own[name]) for name in shared)
    random = tuner(folder, "sst2", tmp_path / "r", "task.start=random").model.state_dict()
    assert not torch.equal(random["encoder.embedding.word.weight"], own["encoder.embedding.word.weight"])
    assert torch.equal(random["classifier.weight"], found["classifier.weight"]), "the head starts equal in both arms"


def test_another_encoder_is_refused(folder: Path, tmp_path: Path) -> None:
    config = with_tasks(folder, "task=sst2", f"task.data_dir={folder / 'data'}")
    task = make(config, "sst2", folder)
    recipe = resolve(config.tasks["sst2"], config.task.scaling, 10, 32)
    shape = replace(config.architecture(), embedding_size=8)
    with pytest.raises(CheckpointError, match=r"lacks tensors of this encoder: .*encoder.embedding.word.weight"):
        build_task_model(task, shape, recipe, config.task, 0, checkpoints(run_of(folder).checkpoints)[-1], 0.05)


@pytest.mark.parametrize("words", [(), ("task.pool=mean", "task.head=bare"), ("task.pool=last",)], ids=" ".join)
def test_padding_does_not_change_the_outputs(folder: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    for name in ("sst2", "race") if words else ("sst2", "squad11", "squad20", "race"):
        t = tuner(folder, name, tmp_path, *words)
        (features,) = t.task.dev.values()
        together = t.predict(features)
        for number in (0, len(features) - 1):
            t.model.eval()
            with torch.no_grad():
                alone = t.task.outputs(t.model, features.batch(np.array([number])))
            for key, value in alone.items():
                if value.is_floating_point():
                    torch.testing.assert_close(
                        value[0].float(), torch.as_tensor(together[key][number]), rtol=1e-4, atol=1e-5
                    )


def test_the_loss_of_20_by_hand(folder: Path, tmp_path: Path) -> None:
    """.5 (start + end given the gold start) + .5 BCE, with start and end over [CLS] and the paragraph alone."""
    t = tuner(folder, "squad20", tmp_path)
    t.model.eval()
    model = t.model
    assert isinstance(model, AnswerableSpanModel)
    batch = t.task.train.batch(np.arange(4))
    with torch.no_grad():
        found = t.task.loss(model, batch)
        hidden = model.encoder(batch.input_ids, batch.type_ids, batch.mask)
        expected = 0.0
        for i, (start, end, none) in enumerate(batch.targets.tolist()):
            length = int(batch.mask[i].sum())
            allowed = [0, *(j for j in range(length - 1) if batch.type_ids[i, j] == 1)]
            h = hidden[i]
            starts = torch.stack([(h[j] * model.start.weight[0]).sum() + model.start.bias[0] for j in allowed])
            chance = torch.softmax(starts, 0)
            ends = []
            for j in allowed:
                x = torch.tanh(model.end_hidden(torch.cat([h[j], h[start]])))
                ends.append(model.end(model.end_norm(x))[0])
            summary = sum(p * h[j] for p, j in zip(chance, allowed, strict=True))
            logit = model.answer(torch.tanh(model.answer_hidden(torch.cat([summary, h[0]]))))[0]
            expected += 0.5 * float(F.cross_entropy(starts[None], torch.tensor([allowed.index(start)])))
            expected += 0.5 * float(F.cross_entropy(torch.stack(ends)[None], torch.tensor([allowed.index(end)])))
            expected += 0.5 * float(F.binary_cross_entropy_with_logits(logit, torch.tensor(float(none))))
    assert float(found) == pytest.approx(expected, rel=1e-4)
    assert set(forbidden(batch).unique().tolist()) == {0.0, -1.0000000150474662e30}


def test_micro_batches_give_the_same_gradient(folder: Path, tmp_path: Path) -> None:
    for name in ("sst2", "race", "squad20"):
        gradients = []
        for micro in ("null", "4"):
            still = [f"tasks.{name}.dropout=0", f"tasks.{name}.classifier_dropout=0", f"task.micro_size={micro}"]
            t = tuner(folder, name, tmp_path / micro, *still)
            t.optimizer.step = lambda closure=None: None  # type: ignore[assignment,method-assign]
            t.update(0, t.batches[0])
            gradients.append({n: p.grad.clone() for n, p in t.model.named_parameters() if p.grad is not None})
        assert gradients[0].keys() == gradients[1].keys()
        for key in gradients[0]:
            torch.testing.assert_close(gradients[0][key], gradients[1][key], rtol=1e-4, atol=1e-6)
