"""Equal states of an optimizer are equal files, also where parts of a model begin to learn after a restart."""

from pathlib import Path

import pytest
import torch
from torch import nn

from albert_ablate.door.compose import compose
from albert_ablate.training import checkpoint
from albert_ablate.training.checkpoint import Owner
from albert_ablate.training.optimizers import build_optimizer, enter_stage

OWNER = Owner("run")
#: Stages of a progressive transfer: the first layer, both layers, the second.
FACTORS = {"0": (3.0, 0.3, 0.0), "1": (0.0, 3.0, 1.0)}


def new(name: str) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    config = compose([f"optimizer={name}", f"optimizer.bias_correction={str(name == 'adamw').lower()}"])
    return model, build_optimizer(model, config.optimizer, lambda parameter: FACTORS[parameter[0]])


def trained(model: nn.Module, optimizer: torch.optim.Optimizer, stage: int) -> None:
    enter_stage(optimizer, stage)
    optimizer.zero_grad()
    model(torch.ones(2, 4)).square().sum().backward()
    optimizer.step()


@pytest.mark.parametrize("name", ["lamb", "adamw"])
@pytest.mark.parametrize("stopped", [1, 2])
def test_a_restart_between_stages_leaves_no_trace(name: str, stopped: int, tmp_path: Path) -> None:
    model, optimizer = new(name)
    for stage in range(3):
        trained(model, optimizer, stage)
    whole = checkpoint.save(tmp_path / "whole", 3, OWNER, checkpoint.snapshot(model, optimizer, False), {}, keep=1)

    model, optimizer = new(name)
    for stage in range(stopped):
        trained(model, optimizer, stage)
    folder = tmp_path / "restarted"
    checkpoint.save(folder, stopped, OWNER, checkpoint.snapshot(model, optimizer, False), {}, keep=1)
    model, optimizer = new(name)
    assert checkpoint.load_latest(folder, OWNER, model, optimizer) is not None
    for stage in range(stopped, 3):
        trained(model, optimizer, stage)
    again = checkpoint.save(folder, 3, OWNER, checkpoint.snapshot(model, optimizer, False), {}, keep=1)
    for file in (checkpoint.WEIGHTS, checkpoint.STATE):
        assert (again / file).read_bytes() == (whole / file).read_bytes(), file
