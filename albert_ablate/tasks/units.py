"""The fine-tunings of a run: one unit per task and seed, skipped if finished.

``RUN/tasks/<task>-s<seed>-<identity>/`` is itself a run folder, with status, lock, metrics, results
and predictions. ``collect`` copies finished units into the run's ``results.json``.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from albert_ablate import console
from albert_ablate.command_line import command_name
from albert_ablate.config.schema import RunConfig
from albert_ablate.data.tokenizer import Tokenizer
from albert_ablate.errors import PreemptedError, RunFolderError, UserError, raise_worst
from albert_ablate.files import require_writable
from albert_ablate.record import formats, provenance
from albert_ablate.record.folder import RunFolder, wanted
from albert_ablate.record.lock import guard_file, locked, owner
from albert_ablate.record.manifest import Attention
from albert_ablate.record.outcome import recorded
from albert_ablate.record.tasks import FactCounts, SetUp, UnitData, UnitManifest, UnitResults, UnitSettings
from albert_ablate.tasks.answering import recorded_answers
from albert_ablate.tasks.collected import collect
from albert_ablate.tasks.distilling import Teacher, distil, goal
from albert_ablate.tasks.finetuning import FineTuner, Loss, build_task_model, tidy
from albert_ablate.tasks.load import Make, read
from albert_ablate.tasks.material import Material, make_material
from albert_ablate.tasks.planning import Unit, run_identity
from albert_ablate.tasks.recipe import resolve
from albert_ablate.tasks.task import Task
from albert_ablate.tasks.unit_settings import common_settings, task_settings
from albert_ablate.training.attention_choice import ForwardPass, choose_attention
from albert_ablate.training.checkpoint import Owner, newest, require_device
from albert_ablate.training.describe import code, hardware
from albert_ablate.training.machine import Machine
from albert_ablate.training.trackers import open_trackers

#: Seconds between two looks at a teacher that another process fine-tunes.
_LOOK_SECONDS = 3.0


def read_units(units: Sequence[Unit], again: bool = False) -> dict[str, Make]:
    """Task name -> its data, read and checked, for every task with an unfinished unit. Raises DataError.

    ``again`` also reads the data of finished units. Word vectors are read, and teachers looked for, too.
    """
    waiting = [unit for unit in units if again or unit.folder.state() != "finished"]
    for unit in waiting:
        if unit.teacher is not None:
            unit.teacher.require_weights()
    if waiting and waiting[0].augmentation is not None:  # the same for all
        waiting[0].augmentation.require_readable()
    sources = {unit.task.name: unit.source for unit in waiting}
    made = {}
    for name, source in sources.items():
        with console.stage(f"reading {name}"):
            made[name] = read(source)
    return made


def fine_tune_all(
    config: RunConfig,
    run: RunFolder,
    units: Sequence[Unit],
    readers: Mapping[str, Make],
    tokenizer: Tokenizer,
    machine: Machine,
) -> None:
    """Fine-tune every unfinished unit.

    A failing unit does not stop the others; the worst error is raised at the end. A stop signal is raised at once.
    Raises RunFolderError before the training if the run's ``results.json``, to which the scores are added, is damaged.
    """
    settle(run, units)
    failures: list[UserError] = []
    made: dict[str, Prepared] = {}
    for unit in units:
        if unit.folder.state() == "finished":
            continue
        if unit.older is not None and unit.older.path.exists() and not unit.folder.path.exists():
            console.say(_superseded(run, unit, unit.older))
        unit.folder.note = run.note
        try:
            with (
                locked(unit.folder.path),
                recorded(unit.folder, _out_of_memory(config, unit), config.runtime.time_limits),
            ):
                unit.folder.set_status("running")
                if unit.task.name not in made:
                    made.clear()  # one task's data and teacher at a time
                    _fine_tune_teacher(unit, readers, tokenizer, machine)
                    made[unit.task.name] = _prepared(config, unit, readers[unit.task.name], tokenizer, machine)
                _fine_tune(config, run, unit, made[unit.task.name], machine)
        except PreemptedError:
            raise
        except UserError as error:
            console.say(f"  ✗ {unit.folder.name}: {error}")
            failures.append(error)
        collect(run)
    raise_worst(failures, f"{len(units)} fine-tunings of {run.name}")


def settle(run: RunFolder, units: Sequence[Unit]) -> None:
    """Do what a process left undone that ended right after a fine-tuning: remove its checkpoints, collect its score.

    Writes nothing if nothing was left. Raises RunFolderError if the run's ``results.json`` is damaged.
    """
    finished = [unit.folder for unit in units if unit.folder.state() == "finished"]
    for folder in finished:
        tidy(folder)
    listed = {name for entry in run.read("results.json").get("tasks") or [] for name in entry.get("units", ())}
    if any(folder.name not in listed for folder in finished):
        collect(run)


def _superseded(run: RunFolder, unit: Unit, older: RunFolder) -> str:
    """A message that the fine-tuning in ``older``, whose head was in bf16, does not replace ``unit``."""
    opening = f"  ! {unit.task.name}, seed {unit.seed}: in {older.path}"
    again = f"the task is fine-tuned again with its head in {formats.HEADS}"
    if older.state() != "finished":
        return f"{opening} the head answers in {formats.BEFORE}, as in older versions; {again}."
    return (
        f"{opening} the head answered in {formats.BEFORE}, as in older versions. Its score is kept and never averaged "
        f"with others; {again}. `{command_name('finetune')} {run.path} --reread` scores the old weights with the "
        f"head in {formats.HEADS}."
    )


def rerun_units(units: Sequence[Unit], rerun: str) -> list[Unit]:
    """The units that ``rerun`` selects; with ``all`` their old folders are moved aside."""
    chosen = [unit for unit in units if wanted(rerun, unit.folder.state())]
    if rerun == "all":
        for unit in chosen:
            unit.folder.set_aside()
    return chosen


@dataclass(frozen=True)
class Prepared:
    """What the fine-tunings of one task with all seeds have in common."""

    material: Material
    teacher: Teacher | None
    task: Task  # with the training set of the last stage
    loss: Loss | None  # of the last stage; None: the task's


def _prepared(config: RunConfig, unit: Unit, make: Make, tokenizer: Tokenizer, machine: Machine) -> Prepared:
    material = make_material(config, unit, make, tokenizer, machine)
    teacher = None if unit.teacher is None else Teacher(unit.teacher, material.task, machine)
    task, loss = goal(config.task, material.task, material.augmented, teacher)
    return Prepared(material, teacher, task, loss)


def _fine_tune_teacher(unit: Unit, readers: Mapping[str, Make], tokenizer: Tokenizer, machine: Machine) -> None:
    """Fine-tune the teacher of ``unit`` if it is not finished. Raises RunFolderError if its run cannot be written."""
    if unit.teacher is None:
        return
    unit.teacher.require_weights()
    teacher, source = unit.teacher.unit, unit.teacher.run
    _wait_for(teacher.folder, unit.folder)
    if teacher.folder.state() == "finished":
        return
    try:
        require_writable(source.run.path, source.run.path / "tasks", guard_file(source.run.path).parent)
    except OSError as error:
        raise RunFolderError(
            f"the teacher {source.run.path} is not fine-tuned on {unit.task.name} yet, and the folder cannot be "
            f"written ({error.strerror}). Copy it, and name the copy in task.distil.teacher."
        ) from error
    unit.folder.say(f"{unit.folder.name}: its teacher is fine-tuned first, in {teacher.folder.path}")
    fine_tune_all(source.config, source.run, [teacher], readers, tokenizer, machine)


def _wait_for(teacher: RunFolder, student: RunFolder) -> None:
    """Wait while another process fine-tunes the teacher, such as that of another student in a sweep."""
    told = False
    while (other := owner(teacher.path)) is not None:
        if not told:
            student.say(f"{student.name}: waits for its teacher, which process {other['pid']} fine-tunes")
        told = True
        time.sleep(_LOOK_SECONDS)


def _fine_tune(
    config: RunConfig,
    run: RunFolder,
    unit: Unit,
    prepared: Prepared,
    machine: Machine,
) -> None:
    shape, task, material = config.architecture(), prepared.task, prepared.material
    recipe = resolve(unit.task, config.task.scaling, task.examples, shape.max_positions)
    shape = replace(shape, hidden_dropout=recipe.dropout, attention_dropout=recipe.dropout)
    pretrained = newest(run.checkpoints) if config.task.start == "pretrained" else None
    folder, spread = unit.folder, shape.initializer_range
    model = build_task_model(task, shape, recipe, config.task, unit.seed, pretrained, spread, folder.say)
    another_card = require_device(folder.checkpoints, machine.device.type, machine.card)
    if another_card is not None:
        folder.say(f"{folder.name}: {another_card}")
    sequences = config.task.micro_size or recipe.batch_size * task.train.choices
    attention = choose_attention(config, ForwardPass(shape, sequences, recipe.max_length), machine)
    folder.write("manifest.json", _manifest(config, run, unit, material, pretrained, machine, attention))
    described = {
        "run": run.name,
        "data": unit.source.fingerprint,
        "common": common_settings(config.task, unit.task, unit.source.facts),
        "task": task_settings(unit.task),
    }
    distilled = None
    if prepared.teacher is not None:
        holder = Owner(folder.identity, described, machine.device.type, machine.card)
        distilled = distil(
            material.augmented, model, prepared.teacher, recipe, config.task, unit, holder, machine, config.runtime,
            Path(config.paths.cache),
        )  # fmt: skip
    started = folder.name if config.task.start == "pretrained" else f"{folder.name} from random weights"
    folder.say(
        f"{started}: {recipe.steps:,} steps of {recipe.batch_size} examples, learning rate {recipe.learning_rate:.3g}, "
        f"at most {recipe.max_length} tokens"
    )
    identity = f"{run_identity(run)}-{folder.identity}"
    with open_trackers(config, folder, identity, job="finetune") as trackers:
        tuner = FineTuner(
            task, model, recipe, config.task, unit.seed, folder, machine, config.runtime, described, trackers.log,
            prepared.loss,
        )  # fmt: skip
        results = tuner.fit()
        trackers.summarise({"best": results["best"]["score"], "last": results["last"]["score"]})
    baselines = material.baselines
    record = UnitResults(
        task=unit.task.name,
        seed=unit.seed,
        start=config.task.start,
        group=unit.group,
        **results,
        to_beat={name: bars["score"] for name, bars in baselines.items()},
        to_beat_each={name: {k: v for k, v in bars.items() if k != "score"} for name, bars in baselines.items()},
        set_up=SetUp(
            all_tasks=common_settings(config.task, unit.task, unit.source.facts),
            task=task_settings(unit.task),
            data=unit.source.fingerprint,
            precision=machine.precision,
        ),
    )
    if distilled is not None:
        record.teacher = distilled
    if unit.source.facts is not None:
        record.facts = _facts(task)
    folder.write("results.json", record)
    tuner.keep_weights()
    folder.set_status("finished")
    tidy(folder)


def _facts(task: Task) -> dict[str, FactCounts]:
    """Name of a set -> its mentions and facts."""
    sets = {"train": task.train, **task.dev}
    counts = {name: features.sequences.facts for name, features in sets.items()}
    return {name: FactCounts.model_validate(facts.counts) for name, facts in counts.items() if facts is not None}


def _manifest(
    config: RunConfig,
    run: RunFolder,
    unit: Unit,
    material: Material,
    pretrained: Path | None,
    machine: Machine,
    attention: Attention | None,
) -> UnitManifest:
    """Everything needed to trace a score of this fine-tuning."""
    data = UnitData(fingerprint=unit.source.fingerprint, files=unit.source.names(), **material.task.counts)
    if unit.source.facts is not None:
        data.facts = unit.source.facts.fingerprint
    if unit.augmentation is not None:
        data.augmented = material.augmented.examples
    manifest = UnitManifest(
        task=unit.task.name,
        seed=unit.seed,
        start=config.task.start,
        group=unit.group,
        run=run.name,
        identity=unit.folder.identity,
        checkpoint=None if pretrained is None else pretrained.name,
        settings=_unit_settings(config, unit),
        data=data,
        source=code(),
        packages=provenance.packages(),
        hardware=hardware(machine),
        precision=machine.precision,
        heads=formats.HEADS,
    )
    answers = recorded_answers(material.task)
    if answers is not None:
        manifest.answers = answers
    if attention is not None:
        manifest.attention = attention
    if unit.teacher is not None:
        manifest.teacher = unit.teacher.name
    return manifest


def _unit_settings(config: RunConfig, unit: Unit) -> UnitSettings:
    settings = UnitSettings(common=asdict(config.task), task=asdict(unit.task))
    if unit.source.facts is not None:
        settings.knowledge = asdict(config.knowledge)
    return settings


def _out_of_memory(config: RunConfig, unit: Unit) -> str:
    return (
        f"Out of memory while fine-tuning {unit.task.name}. Set task.micro_size={config.task.micro_size or 16} or "
        f"lower, or tasks.{unit.task.name}.max_length. runtime.oom_halving=true lowers the first by itself."
    )
