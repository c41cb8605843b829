"""The launcher of ``conf/hydra/launcher/ray.yaml``: a task of Ray for each cell.

It needs Ray's core alone, where hydra-ray-launcher also brings in the clients of a cloud.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.utils import JobReturn, JobStatus, filter_overrides, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict


class RayLauncher(Launcher):
    """Runs cells as tasks of the Ray cluster that this process is connected to."""

    def __init__(self, address: str, num_cpus: float, num_gpus: float, resources: Mapping[str, float]) -> None:
        """``address`` is that of the connection, which ``albert_ablate.door.ray`` makes."""
        self.num_cpus, self.num_gpus, self.resources = num_cpus, num_gpus, dict(resources)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what a task needs."""
        self.hydra_context, self.task_function, self.composed = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        """Run the jobs; a task that was lost, as with its node, is answered as failed."""
        import ray
        from hydra.core.singleton import Singleton

        setup_globals()
        # The sweep itself starts a cell again (runtime.retries).
        task = ray.remote(num_cpus=self.num_cpus, num_gpus=self.num_gpus, resources=self.resources, max_retries=0)(_run)
        tasks = []
        for number, overrides in enumerate(job_overrides, initial_job_idx):
            config = self.hydra_context.config_loader.load_sweep_config(self.composed, list(overrides))
            with open_dict(config):
                config.hydra.job.id, config.hydra.job.num = str(number), number
            tasks.append(task.remote(self.hydra_context, config, self.task_function, Singleton.get_state()))
        return [_answer(ray, one, overrides) for one, overrides in zip(tasks, job_overrides, strict=True)]


def _run(context: HydraContext, config: DictConfig, function: TaskFunction, singletons: Any) -> JobReturn:
    """Body of a task."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.singleton import Singleton

    setup_globals()
    Singleton.set_state(singletons)
    HydraConfig.instance().set_config(config)
    return run_job(function, config, "hydra.sweep.dir", "hydra.sweep.subdir", context)


def _answer(ray: Any, task: Any, overrides: Sequence[str]) -> JobReturn:
    try:
        answer: JobReturn = ray.get(task)
    except ray.exceptions.RayError as error:
        answer = JobReturn(overrides=filter_overrides(overrides), status=JobStatus.FAILED, _return_value=error)
    return answer
