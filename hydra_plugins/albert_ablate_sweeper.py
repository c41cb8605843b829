"""The sweeper of ``conf/hydra/sweeper/ablation.yaml``: Hydra's plug-in point for ``-m``.

It passes the overrides to ``albert_ablate.door.app``, which lists the cells and gives them to the
configured launcher. This folder is a namespace package that Hydra searches.
"""

from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class AblationSweeper(Sweeper):
    """Runs the cells of a sweep file or of swept overrides: skips finished ones, resumes, retries and counts."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Make the launcher."""
        from hydra.core.plugins import Plugins

        from albert_ablate.door.app import across_time_limits

        across_time_limits(config)
        self.composed = config
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run the cells that the overrides ``arguments`` describe, then exit with the sweep's code."""
        from albert_ablate.door.app import multirun

        multirun(arguments, self.composed, self.launcher)
