"""Scores finished fine-tunings with bf16 heads again, with heads in fp32; nothing is trained.

``results.json`` then holds the new scores, with the old ones under ``before``. ``predictions/`` holds the new
predictions, and ``predictions-bf16/`` the old ones. The number format of the head is part of the recipe, so these
scores are averaged neither with the old ones nor with fine-tunings that were trained with a head in fp32.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from albert_ablate import console
from albert_ablate.config.knowledge import KNOWLEDGE
from albert_ablate.config.parse import parse
from albert_ablate.config.schema import RunConfig
from albert_ablate.data.tokenizer import Tokenizer
from albert_ablate.errors import DamagedFileError, DataError, UserError
from albert_ablate.record import formats, provenance
from albert_ablate.record.folder import RunFolder
from albert_ablate.record.lock import locked
from albert_ablate.record.tasks import Before, ScoredAgain, Scores, UnitResults
from albert_ablate.tasks.collected import collect, heads_of
from albert_ablate.tasks.finetuning import BEST, LAST, PREDICTIONS, FineTuner, build_task_model
from albert_ablate.tasks.knowledge.reading import FactSource, locate_facts
from albert_ablate.tasks.load import locate, read
from albert_ablate.tasks.recipe import max_length, resolve
from albert_ablate.tasks.unit_settings import LATER, completed
from albert_ablate.training.describe import code, hardware
from albert_ablate.training.machine import Machine

#: Settings that locate a task's files: of all tasks, and of one task. The command may override them.
_COMMON_SOURCES, _TASK_SOURCES = ("source", "data_dir"), ("hub", "train_file", "dev_file", "test_file")


@dataclass(frozen=True)
class Reread:
    """One fine-tuning that was scored again, with scores as in ``results.json``."""

    name: str
    best: tuple[float, float]  # before, now
    last: tuple[float, float]


def waiting(run: RunFolder) -> list[RunFolder]:
    """The run's finished fine-tunings with heads in bf16, sorted by name."""
    folders = [RunFolder(file.parent.parent, file.parent.name) for file in run.path.glob("tasks/[!.]*/results.json")]
    finished = [unit for unit in folders if unit.state() == "finished"]
    units = (unit for unit in finished if heads_of(unit, unit.read("results.json")["recipe"]) == formats.BEFORE)
    return sorted(units, key=lambda unit: unit.name)


def manifest_of(unit: RunFolder) -> dict[str, Any]:
    """The manifest of a fine-tuning. Raises DamagedFileError if a key is missing."""
    manifest = unit.read("manifest.json")
    missing = [key for key in ("task", "seed", "settings", "data", "precision") if key not in manifest]
    if missing:
        raise DamagedFileError(f"{unit.path / 'manifest.json'} lacks {', '.join(missing)}.")
    return dict(manifest)


def settings_of(manifest: dict[str, Any]) -> list[str]:
    """Settings with which the configuration of a run has the task of a fine-tuning. ``tuner_of`` adds all others."""
    pool = completed(manifest["settings"]["common"])["pool"]  # its default is refused with causal LM
    return [f"task=[{manifest['task']}]", f"task.pool={pool}"]


def reread(
    config: RunConfig,
    run: RunFolder,
    units: Sequence[RunFolder],
    given: Callable[[str], bool],
    tokenizer: Tokenizer,
    machine: Machine,
) -> list[Reread]:
    """Score ``units`` again. ``given`` returns whether the command sets a setting; ``config`` has every unit's task.

    A failing unit does not stop the others; the first error is raised at the end.
    """
    scored: list[Reread] = []
    failures: list[UserError] = []
    for unit in units:
        try:
            with locked(unit.path):
                scored.append(_reread(config, unit, given, tokenizer, machine))
        except UserError as error:
            console.say(f"  ✗ {unit.name}: {error}")
            failures.append(error)
        collect(run)
    if failures:
        raise type(failures[0])(f"{len(failures)} of {len(units)} were not scored again; the first: {failures[0]}")
    return scored


def tuner_of(
    config: RunConfig, unit: RunFolder, given: Callable[[str], bool], tokenizer: Tokenizer, machine: Machine
) -> FineTuner:
    """A finished fine-tuning as it was set up, its task's files read again; the model has its first weights.

    ``config`` has the unit's task; ``given`` as in ``reread``. Raises DataError: the weights were not kept, or the
    files are not there or are not those of the fine-tuning.
    """
    manifest = manifest_of(unit)
    name = manifest["task"]
    if not all((unit.path / file).is_file() for file in (BEST, LAST)):
        raise DataError(
            f"{unit.path}: its weights are not there (task.keep_weights=false). Move this folder away and fine-tune "
            f"again with task={name} task.keep_weights=true."
        )
    config = as_recorded(config, manifest["settings"], name, given)
    task = config.tasks[name]
    source = locate(config.task, task, locate_facts(config.knowledge, task, Path(config.paths.cache)))
    if source.fingerprint != manifest["data"]["fingerprint"]:
        raise DataError(f"the files of {name} are not those that it was fine-tuned on. Give the same task.data_dir.")
    require_facts(config, source.facts, manifest)
    shape = config.architecture()
    made = read(source)(tokenizer, max_length(task, config.task.scaling, shape.max_positions))
    recipe = resolve(task, config.task.scaling, made.examples, shape.max_positions)
    shape = replace(shape, hidden_dropout=recipe.dropout, attention_dropout=recipe.dropout)
    model = build_task_model(made, shape, recipe, config.task, manifest["seed"], None, shape.initializer_range)
    machine = replace(machine, precision=manifest["precision"])
    return FineTuner(made, model, recipe, config.task, manifest["seed"], unit, machine, config.runtime)


def require_facts(config: RunConfig, facts: FactSource | None, manifest: dict[str, Any]) -> None:
    """Raise DataError unless ``facts`` are those of the fine-tuning with this manifest."""
    if facts is not None and facts.fingerprint != manifest["data"].get("facts"):
        raise DataError(
            f"knowledge.file={config.knowledge.file}: these are not the facts that {manifest['task']} was fine-tuned "
            f"with. Give knowledge={config.knowledge.name} knowledge.file=FACTS.tsv with that table."
        )


def _reread(
    config: RunConfig, unit: RunFolder, given: Callable[[str], bool], tokenizer: Tokenizer, machine: Machine
) -> Reread:
    results = unit.load("results.json", UnitResults)
    tuner = tuner_of(config, unit, given, tokenizer, machine)
    kept = unit.path / f"{PREDICTIONS}-{formats.BEFORE}"
    if not kept.exists() and (unit.path / PREDICTIONS).exists():  # moved already if this was interrupted
        (unit.path / PREDICTIONS).rename(kept)
    now = tuner.measure()
    before = Before(heads=formats.BEFORE, selection=results.selection, best=results.best, last=results.last)
    results.best = Scores(step=before.best.step, **now["best"])
    results.last = Scores(step=before.last.step, **now["last"])
    results.recipe = results.recipe | {"heads": formats.REREAD}
    results.selection = f"{before.selection}, by scores of its head in {formats.BEFORE}"
    results.before = before
    results.reread = ScoredAgain(source=code(), packages=provenance.packages(), hardware=hardware(tuner.machine))
    unit.amend("results.json", results)
    unit.log(f"scored again with the head in {formats.HEADS}; before it answered in {formats.BEFORE}")
    return Reread(unit.name, (before.best.score, results.best.score), (before.last.score, results.last.score))


def as_recorded(config: RunConfig, settings: dict[str, Any], name: str, given: Callable[[str], bool]) -> RunConfig:
    """``config`` with the recorded settings of one fine-tuning; the command may override where its files are."""
    common, task = completed(settings["common"]), dict(settings["task"])
    now_common, now_task = asdict(config.task), asdict(config.tasks[name])
    common |= {key: now_common[key] for key in _COMMON_SOURCES if given(f"task.{key}")}
    task |= {key: now_task[key] for key in _TASK_SOURCES if given(f"tasks.{name}.{key}")}
    later = {key: value for key, value in LATER.items() if key in now_task}
    values = config.as_dict()
    knowledge = settings.get("knowledge") or {"name": "none", **KNOWLEDGE}
    if settings.get("knowledge") and given("knowledge.file"):
        knowledge = knowledge | {"file": config.knowledge.file}
    parsed = parse(values | {"task": now_common | common, "tasks": {name: later | task}, "knowledge": knowledge})
    return replace(config, task=parsed.task, tasks=parsed.tasks, knowledge=parsed.knowledge)
