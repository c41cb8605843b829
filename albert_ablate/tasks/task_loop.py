"""What all training on a task's examples has in common: batches, noise and optimizer."""

from collections.abc import Iterator
from dataclasses import fields

from torch import nn

from albert_ablate import streams
from albert_ablate.config.schema import BudgetConfig, OptimizerConfig, RuntimeConfig
from albert_ablate.config.tasks import FineTuneConfig, UpdateConfig
from albert_ablate.record.folder import RunFolder
from albert_ablate.stopping import Stop
from albert_ablate.tasks.batches import TaskBatches
from albert_ablate.tasks.recipe import Recipe
from albert_ablate.tasks.task import Task, TaskBatch
from albert_ablate.training.backend import Backend
from albert_ablate.training.checkpoint import Owner
from albert_ablate.training.loop import Loop
from albert_ablate.training.machine import Machine

#: On a GPU, batches are padded to a multiple of this many tokens, because libraries set up anew for each width.
_WIDTHS = 32


class TaskLoop(Loop):
    """Trains a model on the training examples of a task for the steps of a recipe."""

    #: In the names of the streams of randomness: another order and other noise than those of other stages.
    stage = ""

    def __init__(
        self,
        task: Task,
        model: nn.Module,
        recipe: Recipe,
        common: FineTuneConfig,
        seed: int,
        folder: RunFolder,
        owner: Owner,
        machine: Machine,
        runtime: RuntimeConfig,
    ) -> None:
        self.task = task
        self.recipe = recipe
        self.common = common
        self.seed = seed
        self.title = f"{task.name}, seed {seed}"
        self.batches = TaskBatches(task.train, recipe.batch_size, self.stage + task.name, seed, common.group_by_length)
        schedule, settings = _schedule(recipe, common)
        whole = self.batches.batch_size * task.train.choices  # sequences of a batch
        self.planned_micro_size = whole if common.micro_size is None else common.micro_size
        self.owner = owner
        super().__init__(model, settings, schedule, runtime, folder, machine, self.planned_micro_size)

    def first_backend(self, backend: Backend | None) -> Backend | None:
        """Compiled only if that is set: batches have many widths, and compiling each takes longer than its steps."""
        return backend if backend is None or self.runtime.backend == "compiled" else Backend.EAGER

    def shaped(self, part: TaskBatch) -> TaskBatch:
        """Padded so that few widths occur."""
        (encoder,) = self.encoders
        return part.widened(_WIDTHS, encoder.shape.max_positions)

    @property
    def static_shapes(self) -> bool:
        """False: widths depend on the examples."""
        return False

    def noise(self, step: int) -> int:
        """Depends on the task, so that tasks with the same seed draw different noise."""
        return streams.key(self.seed, f"{self.stage}task dropout", self.task.name, step)

    def batch_of(self, step: int) -> TaskBatch:
        """The batch of ``step``."""
        return self.batches[step]

    def stream(self, done: int) -> Iterator[TaskBatch]:
        """The batches after ``done`` steps, built when they are needed."""
        return (self.batch_of(step) for step in range(done, self.recipe.steps))

    def continuing(self, done: int) -> str:
        """For example ``sst2, seed 0: continuing after step 40``."""
        return f"{self.title}: continuing after step {done}"

    def stopped(self, stop: Stop, done: int) -> BaseException:
        """The error of a stopped unit, which names the task."""
        return stop.error(f"step {done:,} of {self.recipe.steps:,}", self.task.name)


def _schedule(recipe: Recipe, common: FineTuneConfig) -> tuple[BudgetConfig, OptimizerConfig]:
    """The optimizer of the released fine-tuning code: AdamW with linear warm-up and decay.

    The decay over layers is no part of it: see ``FineTuner.scale``.
    """
    budget = BudgetConfig("steps", recipe.steps, recipe.warmup_steps, None, None, None, "free")
    update = {field.name: getattr(common.optimizer, field.name) for field in fields(UpdateConfig)}
    optimizer = OptimizerConfig(name="adamw", learning_rate=recipe.learning_rate, skip_spikes=None, **update)
    return budget, optimizer
