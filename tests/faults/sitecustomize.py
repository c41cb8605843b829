"""On PYTHONPATH, makes the training of chosen seeds fail: seed 1 raises, 2 exits, 3 runs out of
memory, 4 is killed (once, or always with FAULT_ALWAYS). FAULT_STEP_SECONDS makes every step longer.
Python imports this by itself at start."""

import importlib.abc
import importlib.machinery
import os
import signal
import sys
import time


def _break(trainer) -> None:
    update = trainer.Trainer.update

    def broken(self, step, batch, *rest):
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


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name != "albert_ablate.training.trainer":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module

        def exec_module(module) -> None:
            execute(module)
            _break(module)

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, _Finder())
