"""A finished fine-tuning that answers. What its outputs mean is recorded, so the files of its task are not needed."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import cast

import numpy as np
from torch import nn

from albert_ablate.config.schema import RunConfig
from albert_ablate.config.tasks import LabelPieces, NerConfig, QuestConfig, RaceConfig, SquadConfig, TaskConfig
from albert_ablate.data.tokenizer import Tokenizer
from albert_ablate.errors import DataError
from albert_ablate.record.folder import RunFolder
from albert_ablate.record.tasks import Answers, UnitResults
from albert_ablate.tasks.finetuning import BEST, build_task_model, predict
from albert_ablate.tasks.knowledge.reading import Knowledge, locate_facts
from albert_ablate.tasks.ner.data import TaggedSets, require_seqeval
from albert_ablate.tasks.ner.tags import labels_of
from albert_ablate.tasks.ner.task import NerTask
from albert_ablate.tasks.quest.task import QuestTask
from albert_ablate.tasks.race import RaceTask
from albert_ablate.tasks.recipe import Recipe
from albert_ablate.tasks.reread import as_recorded, manifest_of, require_facts, tuner_of
from albert_ablate.tasks.squad.data import SquadSet
from albert_ablate.tasks.squad.task import SquadTask
from albert_ablate.tasks.task import AnswersTexts, FeatureSet, HasMeaning, Outputs, Task
from albert_ablate.tasks.texts.sets import ExampleSets, Kind
from albert_ablate.tasks.texts.task import SentenceTask
from albert_ablate.training.checkpoint import load_strictly
from albert_ablate.training.machine import Machine


@dataclass(frozen=True)
class Answerer:
    """A fine-tuning in memory, with its best weights."""

    task: Task  # without examples, unless it had to read its files
    model: nn.Module
    recipe: Recipe
    folder: RunFolder
    machine: Machine

    def predict(self, features: FeatureSet) -> Outputs:
        """The task's outputs for every example, in order."""
        return predict(self.task, self.model, features, self.machine)


def recorded_answers(task: Task) -> Answers | None:
    """What the manifest says of the outputs of a task; None if they cannot be explained."""
    if not isinstance(task, HasMeaning):
        return None
    meaning = task.meaning
    answers = Answers(kind=meaning.kind, names=list(meaning.names))
    if isinstance(task, AnswersTexts):
        answers.columns = [list(names) for names in task.columns]
    if meaning.kind == "values":
        answers.mean, answers.deviation = meaning.mean.tolist(), meaning.deviation.tolist()
    return answers


def answerer_of(
    config: RunConfig, unit: RunFolder, given: Callable[[str], bool], tokenizer: Tokenizer, machine: Machine
) -> Answerer:
    """The finished fine-tuning in ``unit``; ``config`` has its task, ``given`` as in ``reread``.

    One of an older version reads the files of its task. Raises DataError: the weights were not kept, or files or facts
    are not there or are not those of the fine-tuning.
    """
    manifest = manifest_of(unit)
    name = manifest["task"]
    if manifest.get("answers") is None:
        tuner = tuner_of(config, unit, given, tokenizer, machine)
        load_strictly(unit.path / BEST, tuner.model)
        return Answerer(tuner.task, tuner.model, tuner.recipe, unit, tuner.machine)
    if not (unit.path / BEST).is_file():
        raise DataError(
            f"{unit.path}: its weights are not there (task.keep_weights=false). Move this folder away and fine-tune "
            f"again with task={name} task.keep_weights=true."
        )
    config = as_recorded(config, manifest["settings"], name, given)
    task = config.tasks[name]
    facts = locate_facts(config.knowledge, task, Path(config.paths.cache))
    require_facts(config, facts, manifest)
    noted = unit.load("results.json", UnitResults).recipe
    recipe = Recipe(**{field.name: noted[field.name] for field in fields(Recipe)})  # type: ignore[arg-type]
    answers = Answers.read(manifest["answers"])
    knowledge = None if facts is None else facts.read()
    made = without_examples(task, answers, config.task.label_pieces, tokenizer, recipe.max_length, knowledge)
    shape = replace(config.architecture(), hidden_dropout=recipe.dropout, attention_dropout=recipe.dropout)
    model = build_task_model(made, shape, recipe, config.task, manifest["seed"], None, shape.initializer_range)
    load_strictly(unit.path / BEST, model)
    machine = replace(machine, precision=manifest["precision"])
    return Answerer(made, model.to(machine.device), recipe, unit, machine)


def without_examples(
    task: TaskConfig,
    answers: Answers,
    pieces: LabelPieces,
    tokenizer: Tokenizer,
    max_length: int,
    knowledge: Knowledge | None,
) -> Task:
    """The task with the recorded meaning of its outputs and no examples."""
    names = tuple(answers.names)
    if isinstance(task, SquadConfig):
        return SquadTask(task, SquadSet([], []), SquadSet([], []), tokenizer, max_length)
    if isinstance(task, RaceConfig):
        return RaceTask(task, [], [], tokenizer, max_length, knowledge)
    if isinstance(task, NerConfig):
        require_seqeval(task.name)
        return NerTask(task, TaggedSets(labels_of(names), [], {}), tokenizer, max_length, pieces)
    columns = tuple(map(tuple, answers.columns))
    if isinstance(task, QuestConfig):
        return QuestTask(task, ExampleSets("values", names, [], {}, columns=columns), tokenizer, max_length)
    scale = (np.array(answers.mean), np.array(answers.deviation)) if answers.mean else None
    sets = ExampleSets(cast(Kind, answers.kind), names, [], {}, columns=columns, scale=scale)
    return SentenceTask(task.name, sets, tokenizer, max_length, knowledge)
