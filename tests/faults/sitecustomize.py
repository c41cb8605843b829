"""On PYTHONPATH, makes the training of chosen seeds fail: seed 1 raises, 2 exits, 3 runs out of
memory, 4 is killed (once, or always with FAULT_ALWAYS). FAULT_STEP_SECONDS makes every step longer.
With FAULT_GPUS a sweep sees so many GPUs, and each cell writes into the file FAULT_SEEN which of them it
sees, where it begins and where it ends. Python imports this by itself at start."""

import importlib.abc
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any


def _break(trainer: Any) -> None:
    update = trainer.Trainer.update

    def broken(self: Any, step: int, batch: Any, *rest: Any) -> Any:
        time.sleep(float(os.environ.get("FAULT_STEP_SECONDS", "0")))
        if step == 5:
            match self.config.seed:
                case 1:
                    raise ValueError("a bug in a new axis")
                case 2:
                    sys.exit(7)
                case 3:
                    import torch

                    torch.empty(10**15)  # refused by the allocator
                case 4:
                    mark = os.path.join(self.config.paths.cache, "killed")
                    if os.environ.get("FAULT_ALWAYS") or not os.path.exists(mark):
                        open(mark, "w").close()
                        os.kill(os.getpid(), signal.SIGKILL)
        return update(self, step, batch, *rest)

    trainer.Trainer.update = broken


def _count(gpus: Any) -> None:
    gpus.torch.cuda.device_count = lambda: int(os.environ["FAULT_GPUS"])


def _tell(experiment: Any) -> None:
    run_cell = experiment.run_cell

    def told(config: Any, paper: Any) -> Any:
        def say(what: str) -> None:
            line = f"{what} {os.environ.get('CUDA_VISIBLE_DEVICES')} {config.seed}\n"
            with open(os.environ["FAULT_SEEN"], "a") as out:
                out.write(line)

        say("begins")
        try:
            return run_cell(config, paper)
        finally:
            say("ends")

    experiment.run_cell = told


_CHANGES: dict[str, Callable[[Any], None]] = {"albert_ablate.training.trainer": _break}
if "FAULT_GPUS" in os.environ:
    _CHANGES |= {"albert_ablate.sweeping.gpus": _count, "albert_ablate.experiment": _tell}


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in _CHANGES:
            return None
        spec = PathFinder.find_spec(name, path)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            _CHANGES[name](module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, _Finder())
