"""The data of one task, ready for its fine-tunings: token sequences, augmented examples and baselines."""

from dataclasses import dataclass
from pathlib import Path

from albert_ablate import console
from albert_ablate.config.schema import RunConfig
from albert_ablate.config.tasks import TaskConfig
from albert_ablate.data.tokenizer import Tokenizer
from albert_ablate.files import digest, read_json, write_json
from albert_ablate.tasks.load import Make
from albert_ablate.tasks.planning import Unit
from albert_ablate.tasks.recipe import max_length, wanted_length
from albert_ablate.tasks.task import Baselines, Task, training_on
from albert_ablate.tasks.texts.task import SentenceTask
from albert_ablate.tasks.unit_settings import task_settings
from albert_ablate.training.machine import Machine


@dataclass
class Material:
    """The data of one task, for the fine-tunings of all seeds."""

    task: Task  # as in the files
    augmented: Task  # trains on the copies too; ``task`` without augmentation
    baselines: Baselines


def make_material(config: RunConfig, unit: Unit, make: Make, tokenizer: Tokenizer, machine: Machine) -> Material:
    """The task as token sequences, its augmented examples, and its baselines; the latter two are cached."""
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
    facts = task.train.sequences.facts
    if facts is not None and not facts.counts["matched"]:
        task.counts["notes"].append("no subject of a fact occurs in its training texts")
    for line in _facts_said(task):
        console.say(f"  {name}, {line}")
    for note in task.counts["notes"]:
        console.say(f"  ! {name}: {note}.")
    return Material(task, _augmented(unit, task, tokenizer, machine), read_json(path))


def _facts_said(task: Task) -> list[str]:
    """A line on the facts of each set; none without facts."""
    sets = {"train": task.train, **task.dev}
    counts = {name: features.sequences.facts for name, features in sets.items()}
    return [
        f"facts of {name}: {facts.counts['matched']:,} for {facts.counts['mentions']:,} mentions, "
        f"{facts.counts['injected']:,} taken, {facts.counts['dropped']:,} dropped for lack of room"
        for name, facts in counts.items()
        if facts is not None
    ]


def _augmented(unit: Unit, task: Task, tokenizer: Tokenizer, machine: Machine) -> Task:
    """The task with the augmented training set; itself without augmentation."""
    if unit.augmentation is None:
        return task
    assert isinstance(task, SentenceTask)  # the configuration refuses others
    data = digest([unit.source.fingerprint, task_settings(unit.task)])
    examples = unit.augmentation.examples(task.name, data, task.sets.train, tokenizer, machine)
    with console.stage(f"turning the copies of {task.name} into tokens"):
        return training_on(task, task.features(examples))


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
