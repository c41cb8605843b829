"""A fine-tuned teacher in memory, and the two stages of a student that learns from it (TinyBERT, section 3.2)."""

from dataclasses import asdict, replace
from pathlib import Path

from torch import nn

from albert_ablate import console
from albert_ablate.config.schema import RuntimeConfig
from albert_ablate.config.tasks import FineTuneConfig
from albert_ablate.files import digest
from albert_ablate.model.base import without_values
from albert_ablate.model.encoder import Encoder
from albert_ablate.model.imitation import ImitationSettings
from albert_ablate.record.folder import RunFolder
from albert_ablate.record.tasks import Distilled, FirstStage, UnitResults
from albert_ablate.tasks.finetuning import BEST, LAYERS, Loss, predict
from albert_ablate.tasks.kept_outputs import keep_outputs
from albert_ablate.tasks.layers import LayerTuner
from albert_ablate.tasks.planning import Unit, UnitTeacher
from albert_ablate.tasks.recipe import Recipe, resolve
from albert_ablate.tasks.soft import soft_loss_of
from albert_ablate.tasks.task import Distribution, FeatureSet, GivesDistribution, HeadSettings, Task, training_on
from albert_ablate.training.checkpoint import Owner, load_strictly, require_device
from albert_ablate.training.machine import Machine


class Teacher:
    """The best weights of a finished fine-tuning, in eval mode and without gradients."""

    def __init__(self, source: UnitTeacher, task: Task, machine: Machine) -> None:
        """``task`` is the student's, whose classes are the same. Raises CheckpointError if weights are damaged."""
        config, folder = source.run.config, source.unit.folder
        self.name = source.name
        shape = config.architecture()
        recipe = resolve(source.unit.task, config.task.scaling, task.examples, shape.max_positions)
        head = HeadSettings(recipe.classifier_dropout, config.task.pool, config.task.head)
        self.model: nn.Module = without_values(lambda: task.build(shape, head))
        load_strictly(folder.path / BEST, self.model)
        self.model.to(machine.device).eval().requires_grad_(False)
        self.score = folder.load("results.json", UnitResults).best.score
        self._machine = machine

    @property
    def encoder(self) -> Encoder:
        """The encoder, whose layers are imitated."""
        encoder = self.model.encoder
        assert isinstance(encoder, Encoder)
        return encoder

    def answering(self, task: Task) -> Task:
        """``task`` with the teacher's logits as the targets of its training examples."""
        with console.stage(f"the teacher answers {len(task.train):,} training examples of {task.name}"):
            logits = predict(task, self.model, task.train, self._machine)["logits"]
        return training_on(task, FeatureSet(task.train.sequences, logits, task.train.choices))


def goal(common: FineTuneConfig, task: Task, augmented: Task, teacher: Teacher | None) -> tuple[Task, Loss | None]:
    """What the last stage of a fine-tuning trains on, and its loss; None: the task's own.

    With a teacher, numbers are learned from the gold values of the original examples, as in the paper.
    """
    if teacher is None:
        return augmented, None
    answers = _distribution(task)
    if common.distil.predictions == "soft" and answers is not None:
        return teacher.answering(augmented), soft_loss_of(common.distil, answers)
    return task, None


def distil(
    task: Task,
    student: nn.Module,
    teacher: Teacher,
    recipe: Recipe,
    common: FineTuneConfig,
    unit: Unit,
    owner: Owner,
    machine: Machine,
    runtime: RuntimeConfig,
    cache: Path,
) -> Distilled:
    """The first stage, or what is left of it: trains ``student`` in place. Returns the record of both stages.

    Its checkpoints are in a sub-folder of the unit, so that a later start finds its last weights again. Outputs of the
    teacher that are kept lie in ``cache``. Raises CheckpointError if the stage was begun on another kind of device.
    """
    soft = common.distil.predictions == "soft" and _distribution(task) is not None
    record = Distilled(**teacher.name.as_json(), score=teacher.score, predictions="soft" if soft else "gold")
    if not common.distil.epochs:
        return record
    folder = RunFolder(unit.folder.path, LAYERS)
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.note = unit.folder.note
    require_device(folder.checkpoints, machine.device.type, machine.card)
    owner = replace(owner, identity=f"{owner.identity}-{LAYERS}")
    tuner = LayerTuner(task, student, teacher.encoder, recipe, common, unit.seed, folder, owner, machine, runtime)
    unit.folder.say(
        f"{unit.folder.name}: first {tuner.recipe.steps:,} steps of {tuner.batches.batch_size} examples over the "
        f"layers of {teacher.name.run}, learning rate {tuner.recipe.learning_rate:.3g}"
    )
    if common.distil.cache:
        key = digest(
            [
                asdict(ImitationSettings.of(common.distil)),
                teacher.name.as_json(),
                machine.precision,
                machine.device.type,
            ]
        )
        kept = keep_outputs(task.name, cache, key, task.train, tuner.compute_shown, machine.device)
        tuner.shown = kept or tuner.shown
    record.layers = FirstStage.model_validate(tuner.fit())
    return record


def _distribution(task: Task) -> Distribution | None:
    return task.distribution if isinstance(task, GivesDistribution) else None
