"""Under ``LD_PRELOAD=faults.so``: saves a checkpoint with a fault at every call in turn; prints outcomes as JSON.

Every fault happens in a fork of this process. Afterwards this process loads what is there.
"""

import ctypes
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from albert_ablate.record.outcome import disk_is_full
from albert_ablate.training import checkpoint

KINDS = {"fail": 1, "full": 2, "short": 3, "crash": 4}
OWNER = checkpoint.Owner("0123456789ab", {"seed": 0})

faults = ctypes.CDLL(None)
faults.fault_log.restype = ctypes.c_char_p


def trained(steps: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A model after so many steps, the same every time."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 40), nn.Linear(40, 40))
    optimizer = torch.optim.AdamW(model.parameters())
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.ones(3, 40)).square().sum().backward()
        optimizer.step()
    return model, optimizer


def saved(folder: Path, step: int, armed: tuple[int, int] = (0, 0)) -> None:
    """A checkpoint of ``step``; ``armed`` is the number of the call that fails, and how."""
    state = checkpoint.snapshot(*trained(step), copied=False)
    faults.fault_arm(str(folder).encode(), *armed)
    try:
        checkpoint.save(folder, step, OWNER, state, {"tokens": step}, keep=1)
    finally:
        log = faults.fault_log()
        faults.fault_arm(b"", 0, 0)
        (folder.parent / "log").write_bytes(log)


def loaded(folder: Path) -> int:
    """The step of the newest whole checkpoint; its weights and moments are those of that step."""
    checkpoint.clear_unfinished(folder)
    model, optimizer = trained(0)
    meta = checkpoint.load_latest(folder, OWNER, model, optimizer)
    assert meta is not None
    expected, theirs = trained(meta["step"])
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), expected.state_dict().values(), strict=True)
    )
    mine, other = optimizer.state_dict()["state"], theirs.state_dict()["state"]
    assert all(torch.equal(mine[i][name], other[i][name]) for i in other for name in other[i])
    assert meta["tokens"] == meta["step"]
    return int(meta["step"])


def one(place: Path, number: int, kind: str) -> dict[str, Any]:
    """Checkpoint 4 is there; checkpoint 8 is saved with a fault."""
    shutil.rmtree(place, ignore_errors=True)
    folder = place / "checkpoints"
    folder.mkdir(parents=True)
    saved(folder, 4)
    child = os.fork()
    if child == 0:
        try:
            saved(folder, 8, (number, KINDS[kind]))
        except Exception as error:
            os._exit(28 if disk_is_full(error) else 1)
        except BaseException as error:
            print(type(error), error, file=sys.stderr)
            os._exit(99)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    found = loaded(folder)
    saved(folder, 12)  # space is back, or the same command again
    assert loaded(folder) == 12
    names = sorted(path.name for path in folder.iterdir())
    return {"kind": kind, "call": number, "code": code, "step": found, "left": names}


def main(place: Path) -> None:
    """All faults at all calls."""
    folder = place / "checkpoints"
    folder.mkdir(parents=True)
    saved(folder, 4)
    saved(folder, 8)
    calls = (place / "log").read_text().splitlines()
    outcomes = [one(place, number, kind) for kind in KINDS for number in range(1, len(calls) + 1)]
    print(json.dumps({"calls": calls, "outcomes": outcomes}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
