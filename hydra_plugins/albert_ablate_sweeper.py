"""The sweeper of ``conf/hydra/sweeper/ablation.yaml``: Hydra's plug-in point for ``-m``.

It passes the overrides to ``albert_ablate.door.app``, which lists the cells and gives them to the
configured launcher. This folder is a namespace package that Hydra searches.
"""

from typing import Any

from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class AblationSweeper(Sweeper):
    """Runs the cells of a sweep file or of swept overrides: skips finished ones, resumes, retries and counts."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what makes a launcher."""
        self.composed = config
        self.parts: dict[str, Any] = {"hydra_context": hydra_context, "task_function": task_function}

    def sweep(self, arguments: list[str]) -> None:
        """Run the cells that the overrides ``arguments`` describe, then exit with the sweep's code."""
        from albert_ablate.door.app import multirun

        multirun(arguments, self.composed, self._launcher)

    def _launcher(self, config: DictConfig) -> Launcher:
        from hydra.core.plugins import Plugins

        return Plugins.instance().instantiate_launcher(config=config, **self.parts)
