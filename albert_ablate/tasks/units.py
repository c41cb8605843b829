"""The fine-tunings of a run: one unit per task and seed, skipped if finished.

``RUN/tasks/<task>-s<seed>-<identity>/`` is itself a run folder, with status, lock, metrics, results
and predictions. ``collect`` copies finished units into the run's ``results.json``.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from albert_ablate import console
from albert_ablate.command_line import command_name
from albert_ablate.config.schema import RunConfig
from albert_ablate.config.tasks import PAPER_FIVE, TaskConfig
from albert_ablate.data.tokenizer import Tokenizer
from albert_ablate.errors import PreemptedError, UserError
from albert_ablate.files import digest, read_json, write_json
from albert_ablate.record import formats, provenance
from albert_ablate.record.folder import RunFolder, wanted
from albert_ablate.record.lock import guard_file, locked
from albert_ablate.record.manifest import Attention
from albert_ablate.record.outcome import recorded
from albert_ablate.record.results import Results
from albert_ablate.record.tasks import Average, SetUp, TaskEntry, UnitData, UnitManifest, UnitResults, UnitSettings
from albert_ablate.tasks.finetuning import FineTuner, build_task_model, tidy
from albert_ablate.tasks.load import Make, Source, locate, read
from albert_ablate.tasks.recipe import max_length, resolve, wanted_length
from albert_ablate.tasks.task import Baselines, Task
from albert_ablate.tasks.unit_settings import common_settings, task_settings
from albert_ablate.training.attention_choice import ForwardPass, choose_attention
from albert_ablate.training.checkpoint import newest, require_device
from albert_ablate.training.describe import code, hardware
from albert_ablate.training.machine import Machine
from albert_ablate.training.trackers import open_trackers

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


def plan_units(config: RunConfig, run: RunFolder, precision: str) -> list[Unit]:
    """Every task and seed of ``config``, with its data located. Raises DataError if they are missing."""
    sources = [locate(config.task, task) for task in config.tasks.values()]
    identity = _identity(run)
    units = []
    for seed in config.task.seeds:
        for source in sources:
            settings = [common_settings(config.task, source.task), task_settings(source.task)]
            before = [NUMERICS, identity, *settings, source.fingerprint, precision]
            # With precision fp32 older heads gave the same numbers, so those fine-tunings keep their names.
            values = before if precision == formats.HEADS else [*before, {"heads": formats.HEADS}]
            folder, older = (_folder(config, run, source.task, seed, parts) for parts in (values, before))
            units.append(
                Unit(source.task, seed, source, folder, digest(values, 8), None if values is before else older)
            )
    return units


def _folder(config: RunConfig, run: RunFolder, task: TaskConfig, seed: int, values: list[Any]) -> RunFolder:
    name = task.name + ("-random" if config.task.start == "random" else "")
    return RunFolder(run.path / "tasks", f"{name}-s{seed}-{digest([*values, seed], 8)}")


def heads_of(folder: RunFolder, recipe: Mapping[str, Any]) -> str:
    """Number format of the head; for fine-tunings that did not record it, the format of the whole fine-tuning."""
    recorded_format = recipe.get("heads")
    return str(recorded_format or folder.read("manifest.json").get("precision", "unknown"))


def _identity(run: RunFolder) -> str:
    """Identity in the run's recorded name: a renamed copy is still the same run."""
    try:
        name = run.read("manifest.json")["name"]
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return run.identity  # a new run, or one that recorded no name
    return RunFolder(run.path.parent, str(name)).identity


def read_units(units: Sequence[Unit], again: bool = False) -> dict[str, Make]:
    """Task name -> its data, read and checked, for every task with an unfinished unit. Raises DataError.

    ``again`` also reads the data of finished units.
    """
    sources = {unit.task.name: unit.source for unit in units if again or unit.folder.state() != "finished"}
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
    run.read("results.json")
    failures: list[UserError] = []
    made: dict[str, tuple[Task, Baselines]] = {}
    for unit in units:
        if unit.folder.state() == "finished":
            tidy(unit.folder)  # if the process ended just before tidying
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
                    made.clear()  # one task's data at a time
                    made[unit.task.name] = _make(config, unit, readers[unit.task.name], tokenizer)
                _fine_tune(config, run, unit, *made[unit.task.name], machine)
        except PreemptedError:
            raise
        except UserError as error:
            console.say(f"  ✗ {unit.folder.name}: {error}")
            failures.append(error)
        collect(run)
    if failures:
        worst = max(failures, key=lambda error: error.exit_code)
        raise type(worst)(
            f"{len(failures)} of {len(units)} fine-tunings of {run.name} failed; the first: {failures[0]}"
        )


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


def _make(config: RunConfig, unit: Unit, make: Make, tokenizer: Tokenizer) -> tuple[Task, Baselines]:
    """The task as token sequences, and its baselines, which are cached."""
    name = unit.task.name
    length = max_length(unit.task, config.task.scaling, config.model.max_positions)
    with console.stage(f"turning {name} into tokens"):
        task = make(tokenizer, length)
    notes = [*task.counts.get("notes", []), *_length_notes(config, unit.task, task, length)]
    # Counts belong to the files, so they may already hold notes of an earlier seed.
    task.counts["notes"] = list(dict.fromkeys(notes))
    key = digest([3, name, task_settings(unit.task), unit.source.fingerprint, config.task.bag_of_words])
    path = Path(config.paths.cache) / "tasks" / f"{name}-{key}.json"
    if not path.is_file():
        with console.stage(f"scoring the baselines of {name}"):
            write_json(path, task.baselines(config.task.bag_of_words))
    console.say(f"{name}: {_describe_counts(task)}")
    for note in task.counts["notes"]:
        console.say(f"  ! {name}: {note}.")
    return task, read_json(path)


def _length_notes(config: RunConfig, task: TaskConfig, made: Task, length: int) -> list[str]:
    """Notes on truncated sequences, and on positions that pretraining never used."""
    wanted, seen, notes = wanted_length(task, config.task.scaling), config.pairs.max_length, []
    if wanted > length:
        notes.append(f"{wanted} tokens, by its recipe and the scale, are cut to the model's {length} positions")
    if length > seen and config.task.start == "pretrained":
        lengths = made.train.lengths
        notes.append(
            f"up to {length} tokens, but pretraining ended at {seen}: positions {seen + 1} to {length} start "
            f"untrained; {int((lengths > seen).sum()):,} of {len(lengths):,} training sequences reach them. "
            f"tasks.{task.name}.max_length={seen} does without"
        )
    return notes


def _describe_counts(task: Task) -> str:
    dev = ", ".join(f"{count:,} {name}" for name, count in task.counts["dev"].items())
    parts = [f"{task.counts['train']:,} training examples, {dev}"]
    for reason, count in task.counts.items():
        number = sum(count.values()) if isinstance(count, dict) and reason.startswith("dev_texts") else count
        if isinstance(number, int) and number and reason not in ("train",):
            parts.append(f"{number:,} {reason.replace('_', ' ')}")
    return " · ".join(parts)


def _fine_tune(
    config: RunConfig,
    run: RunFolder,
    unit: Unit,
    task: Task,
    baselines: Baselines,
    machine: Machine,
) -> None:
    shape = config.architecture()
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
    folder.write("manifest.json", _manifest(config, run, unit, task, pretrained, machine, attention))
    started = folder.name if config.task.start == "pretrained" else f"{folder.name} from random weights"
    folder.say(
        f"{started}: {recipe.steps:,} steps of {recipe.batch_size} examples, learning rate {recipe.learning_rate:.3g}, "
        f"at most {recipe.max_length} tokens"
    )
    identity = f"{_identity(run)}-{folder.identity}"
    with open_trackers(config, folder, identity, job="finetune") as trackers:
        tuner = FineTuner(
            task,
            model,
            recipe,
            config.task,
            unit.seed,
            folder,
            machine,
            config.runtime,
            {
                "run": run.name,
                "data": unit.source.fingerprint,
                "common": common_settings(config.task, unit.task),
                "task": task_settings(unit.task),
            },
            trackers.log,
        )
        results = tuner.fit()
        trackers.summarise({"best": results["best"]["score"], "last": results["last"]["score"]})
    record = UnitResults(
        task=unit.task.name,
        seed=unit.seed,
        start=config.task.start,
        group=unit.group,
        **results,
        to_beat={name: bars["score"] for name, bars in baselines.items()},
        to_beat_each={name: {k: v for k, v in bars.items() if k != "score"} for name, bars in baselines.items()},
        set_up=SetUp(
            all_tasks=common_settings(config.task, unit.task),
            task=task_settings(unit.task),
            data=unit.source.fingerprint,
            precision=machine.precision,
        ),
    )
    folder.write("results.json", record)
    tuner.keep_weights()
    folder.set_status("finished")
    tidy(folder)


def _manifest(
    config: RunConfig,
    run: RunFolder,
    unit: Unit,
    task: Task,
    pretrained: Path | None,
    machine: Machine,
    attention: Attention | None,
) -> UnitManifest:
    """Everything needed to trace a score of this fine-tuning."""
    manifest = UnitManifest(
        task=unit.task.name,
        seed=unit.seed,
        start=config.task.start,
        group=unit.group,
        run=run.name,
        identity=unit.folder.identity,
        checkpoint=None if pretrained is None else pretrained.name,
        settings=UnitSettings(common=asdict(config.task), task=asdict(unit.task)),
        data=UnitData(fingerprint=unit.source.fingerprint, files=unit.source.names(), **task.counts),
        source=code(),
        packages=provenance.packages(),
        hardware=hardware(machine),
        precision=machine.precision,
        heads=formats.HEADS,
    )
    if attention is not None:
        manifest.attention = attention
    return manifest


def _out_of_memory(config: RunConfig, unit: Unit) -> str:
    return (
        f"Out of memory while fine-tuning {unit.task.name}. Set task.micro_size={config.task.micro_size or 16} or "
        f"lower, or tasks.{unit.task.name}.max_length. runtime.oom_halving=true lowers the first by itself."
    )


def collect(run: RunFolder) -> None:
    """Write every finished unit to ``tasks`` of the run's ``results.json``, with the seeds of a setting grouped."""
    guard = guard_file(run.path)
    guard.parent.mkdir(exist_ok=True)
    with FileLock(f"{guard}.results"):
        finished = [
            RunFolder(p.parent.parent, p.parent.name) for p in sorted((run.path / "tasks").glob("[!.]*/results.json"))
        ]
        records = [(unit, unit.load("results.json", UnitResults)) for unit in finished if unit.state() == "finished"]
        groups: dict[tuple[str, str], list[tuple[str, UnitResults]]] = {}
        for unit, record in records:
            answered = heads_of(unit, record.recipe)
            record.recipe = record.recipe | {"heads": answered}
            groups.setdefault((record.group, answered), []).append((unit.name, record))
        results = Results(tasks=[_entry(members) for members in groups.values()])
        average = paper_average(results.as_json()["tasks"])
        if average:
            results.average = Average.model_validate(average)
        run.amend("results.json", results)


def _entry(members: list[tuple[str, UnitResults]]) -> TaskEntry:
    """One task and setting over its seeds: median, range, and the sets of the median seed."""
    members = sorted(members, key=lambda member: member[1].seed)
    records = [record for _, record in members]
    best = [record.best.score for record in records]
    middle = records[best.index(statistics.median_low(best))]
    last = [record.last.score for record in records]
    return TaskEntry(
        task=middle.task,
        start=middle.start,
        group=middle.group,
        metric=middle.metric,
        seeds=[record.seed for record in records],
        score=statistics.median(best),
        spread=[min(best), max(best)],
        scores=best,
        last_score=statistics.median(last),
        last_scores=last,
        average=statistics.median(record.best.average for record in records),
        sets=middle.best.sets,
        last_sets=middle.last.sets,
        sets_of_seed=middle.seed,
        to_beat=middle.to_beat,
        to_beat_each=middle.to_beat_each,  # empty for older units, which recorded only the score's baselines
        selection=middle.selection,
        recipe=middle.recipe,
        set_up=middle.set_up,  # None for older units, which recorded only the recipe
        seconds=sum(record.training.seconds for record in records),
        units=[name for name, _ in members],
    )


def paper_average(tasks: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The paper's Avg (Table 2): the mean of five tasks, after averaging F1 and EM of each SQuAD.

    Covers fine-tunings of the pretrained model whose heads share a number format; None unless all five exist. If a
    task has several settings the last entry counts; if there are several formats, fp32.
    """
    by_format: dict[str, dict[str, float]] = {}
    for entry in tasks:
        if entry["start"] == "pretrained":
            answered = entry.get("recipe", {}).get("heads", formats.HEADS)
            by_format.setdefault(answered, {})[entry["task"]] = entry["average"]
    complete = sorted(
        (answered for answered in by_format if set(PAPER_FIVE) <= by_format[answered].keys()), key=formats.order
    )
    if not complete:
        return None
    parts = {name: by_format[complete[0]][name] for name in PAPER_FIVE}
    return {"value": statistics.mean(parts.values()), "tasks": parts, "heads": complete[0]}
