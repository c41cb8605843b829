"""The fine-tunings that a run's settings ask for, before anything is trained."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from albert_ablate.config.schema import RunConfig
from albert_ablate.config.tasks import TaskConfig
from albert_ablate.errors import DataError
from albert_ablate.files import digest
from albert_ablate.record import formats
from albert_ablate.record import tasks as record
from albert_ablate.record.folder import RunFolder
from albert_ablate.tasks.augmenting import Augmentation, locate_augmentation
from albert_ablate.tasks.finetuning import BEST
from albert_ablate.tasks.knowledge.reading import locate_facts
from albert_ablate.tasks.load import Source, locate
from albert_ablate.tasks.teachers import Corpus, TeacherRun, locate_teacher
from albert_ablate.tasks.unit_settings import common_settings, task_settings

#: Raise when the same settings would fine-tune to other numbers.
NUMERICS = 1


@dataclass(frozen=True)
class Unit:
    """One fine-tuning."""

    task: TaskConfig
    seed: int
    source: Source
    folder: RunFolder
    group: str  # the same for all seeds of one setting
    older: RunFolder | None = None  # folder of the same unit from versions whose heads were not in fp32
    augmentation: Augmentation | None = None
    teacher: "UnitTeacher | None" = None


@dataclass(frozen=True)
class UnitTeacher:
    """The fine-tuning that teaches another one."""

    run: TeacherRun
    unit: Unit

    @property
    def name(self) -> record.UnitTeacher:
        """Its name in the record."""
        return record.UnitTeacher(
            run=self.run.run.name, identity=run_identity(self.run.run), unit=self.unit.folder.name
        )

    def require_weights(self) -> None:
        """Raise DataError if the teacher is finished and its weights were not kept."""
        folder = self.unit.folder
        if folder.state() == "finished" and not (folder.path / BEST).is_file():
            raise DataError(
                f"{folder.path}: the best weights of a teacher are needed, and they were not kept "
                "(task.keep_weights=false). Move this folder away, and the teacher is fine-tuned again."
            )


def plan_units(config: RunConfig, run: RunFolder, precision: str, corpus: Corpus | None = None) -> list[Unit]:
    """Every task and seed of ``config``, with its data located. Raises DataError if they are missing.

    ``corpus``: for a run that is not trained yet. Raises ConfigError if a run that the settings name does not suit.
    """
    if not config.fine_tuned:
        return []
    cache = Path(config.paths.cache)
    sources = [locate(config.task, task, locate_facts(config.knowledge, task, cache)) for task in config.tasks.values()]
    augmentation = locate_augmentation(config, run, precision, corpus)
    teacher = locate_teacher(config, run, precision, corpus)
    teachers: dict[str, UnitTeacher] = {}
    if teacher is not None:
        teachers = {
            unit.task.name: UnitTeacher(teacher, unit) for unit in plan_units(teacher.config, teacher.run, precision)
        }
    identity = run_identity(run)
    units = []
    for seed in config.task.seeds:
        for source in sources:
            settings = [common_settings(config.task, source.task, source.facts), task_settings(source.task)]
            before = [NUMERICS, identity, *settings, source.fingerprint, precision]
            # With precision fp32 older heads gave the same numbers, so those fine-tunings keep their names.
            values = before if precision == formats.HEADS else [*before, {"heads": formats.HEADS}]
            further = _further(augmentation, teachers.get(source.task.name))
            if further:
                values = before = [*values, further]
            folder, older = (_folder(config, run, source.task, seed, parts) for parts in (values, before))
            units.append(
                Unit(
                    source.task, seed, source, folder, digest(values, 8), None if values is before else older,
                    augmentation, teachers.get(source.task.name),
                )
            )  # fmt: skip
    return units


def _further(augmentation: Augmentation | None, teacher: UnitTeacher | None) -> dict[str, Any]:
    """What the settings name by a path: the model and the file of an augmentation, and the teacher."""
    parts: dict[str, Any] = {} if augmentation is None else {"augment": augmentation.sources}
    return parts if teacher is None else parts | {"teacher": teacher.unit.folder.identity}


def _folder(config: RunConfig, run: RunFolder, task: TaskConfig, seed: int, values: list[Any]) -> RunFolder:
    name = task.name + ("-random" if config.task.start == "random" else "")
    return RunFolder(run.path / "tasks", f"{name}-s{seed}-{digest([*values, seed], 8)}")


def run_identity(run: RunFolder) -> str:
    """Identity in the run's recorded name: a renamed copy is still the same run."""
    try:
        name = run.read("manifest.json")["name"]
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return run.identity  # a new run, or one that recorded no name
    return RunFolder(run.path.parent, str(name)).identity
