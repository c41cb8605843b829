"""Finds the data of a configured task, reads them, and builds the task."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from albert_ablate.config.tasks import (  # fmt: skip
    FactsConfig,
    FineTuneConfig,
    GeneratedConfig,
    GlueConfig,
    LabelPieces,
    NerConfig,
    QuestConfig,
    RaceConfig,
    SquadConfig,
    TaskConfig,
    TextConfig,
)
from albert_ablate.data.tokenizer import Tokenizer
from albert_ablate.files import digest, sha256_file
from albert_ablate.tasks.knowledge.generated import facts_fingerprint, generated_examples
from albert_ablate.tasks.knowledge.reading import FactSource
from albert_ablate.tasks.ner.data import ner_files, read_ner
from albert_ablate.tasks.ner.generated import FORMAT as NER_FORMAT
from albert_ablate.tasks.ner.task import NerTask
from albert_ablate.tasks.quest.data import quest_files, read_quest
from albert_ablate.tasks.quest.generated import FORMAT as QUEST_FORMAT
from albert_ablate.tasks.quest.task import QuestTask
from albert_ablate.tasks.race import RaceTask, race_files, read_race
from albert_ablate.tasks.squad.data import SquadSet, hub_squad, read_squad
from albert_ablate.tasks.squad.task import SquadTask, by_characters
from albert_ablate.tasks.tables import find, named
from albert_ablate.tasks.task import Task
from albert_ablate.tasks.texts.balance import class_notes, weigh
from albert_ablate.tasks.texts.examples import limit_sets, limited, read_glue, read_text, task_files
from albert_ablate.tasks.texts.generated import generated_fingerprint, read_generated
from albert_ablate.tasks.texts.sets import ExampleSets
from albert_ablate.tasks.texts.task import SentenceTask

#: (tokenizer, most tokens of a sequence) -> the task, with its data as token sequences.
Make = Callable[[Tokenizer, int], Task]


@dataclass(frozen=True)
class Source:
    """The data of a task, located but not read."""

    task: TaskConfig
    files: dict[str, list[Path]] | None  # None: from the hub, or generated
    fingerprint: str
    generated: bool = False
    label_pieces: LabelPieces = "first"  # of a task on words
    facts: FactSource | None = None  # that are read beside the texts

    def names(self) -> dict[str, list[str]] | str:
        """Names of the files, for the manifest; ``generated`` or ``hub`` if there are none."""
        if self.files is None:
            return "generated" if self.generated else "hub"
        return {name: [path.name for path in paths][:3] for name, paths in self.files.items()}


def locate(common: FineTuneConfig, task: TaskConfig, facts: FactSource | None = None) -> Source:
    """Find a task's files and compute their fingerprint. Raises DataError if one is missing."""
    return replace(_located(common, task), facts=facts, label_pieces=common.label_pieces)


def _located(common: FineTuneConfig, task: TaskConfig) -> Source:
    if isinstance(task, FactsConfig):
        return Source(task, None, facts_fingerprint(), generated=True)
    if isinstance(task, GeneratedConfig):
        return Source(task, None, generated_fingerprint(), generated=True)
    if isinstance(task, QuestConfig) and task.source == "generated":
        return Source(task, None, digest(["quest", QUEST_FORMAT, task.questions]), generated=True)
    if isinstance(task, NerConfig) and task.source == "generated":
        return Source(task, None, digest(["ner", NER_FORMAT, task.sentences]), generated=True)
    if common.source == "hub" and not isinstance(task, TextConfig | QuestConfig | NerConfig):
        return Source(task, None, digest(["hub", asdict(task.hub) if task.hub else None]))
    files = _files(common, task)
    hashes = {name: [sha256_file(path) for path in paths] for name, paths in files.items()}
    fingerprint = digest(hashes)
    if isinstance(task, SquadConfig) and by_characters(read_squad(files["dev"][0], task.version), task.f1_unit):
        fingerprint = digest([hashes, "characters"])  # scores differ from those by words, so it is another fine-tuning
    return Source(task, files, fingerprint)


def _files(common: FineTuneConfig, task: TaskConfig) -> dict[str, list[Path]]:
    if isinstance(task, RaceConfig):
        return race_files(common, task)
    if isinstance(task, SquadConfig):
        given = {"train": task.train_file, "dev": task.dev_file}
        return {side: [_squad_file(common, task, side, file)] for side, file in given.items()}
    if isinstance(task, QuestConfig):
        return {name: [path] for name, path in quest_files(common, task).items()}
    if isinstance(task, NerConfig):
        return {name: [path] for name, path in ner_files(common, task).items()}
    assert isinstance(task, GlueConfig | TextConfig)
    return {name: [path] for name, path in task_files(common, task).items()}


def _squad_file(common: FineTuneConfig, task: SquadConfig, side: str, given: str | None) -> Path:
    field = f"tasks.{task.name}.{side}_file"
    if given is not None:
        return named(field, given)
    return find(field, common.data_dir, ("SQuAD",), f"{side}-v{task.version}", (".json",))


def read(source: Source) -> Make:
    """Read and check all data now; tokenise later, with the returned function. Raises DataError."""
    task, files = source.task, source.files
    knowledge = None if source.facts is None else source.facts.read()
    if isinstance(task, RaceConfig):
        train, dev = (
            limited(read_race(task, files, side), limit, side)
            for side, limit in (("train", task.max_train), ("dev", task.max_dev))
        )
        return lambda tokenizer, length: RaceTask(task, train, dev, tokenizer, length, knowledge)
    if isinstance(task, SquadConfig):
        sides = {"train": _squad_side(task, files, "train"), "dev": _squad_side(task, files, "dev")}
        return lambda tokenizer, length: SquadTask(task, sides["train"], sides["dev"], tokenizer, length)
    if isinstance(task, NerConfig):
        tagged = read_ner(task, None if files is None else {name: paths[0] for name, paths in files.items()})
        return lambda tokenizer, length: NerTask(task, tagged, tokenizer, length, source.label_pieces)
    sets = read_examples(source)
    if isinstance(task, QuestConfig):
        return lambda tokenizer, length: QuestTask(task, sets, tokenizer, length)
    split = None
    if isinstance(task, TextConfig):
        weigh(sets, task)
        sets.chosen_by = task.choose_by
        if sets.kind == "classes" and task.dev_file is None and task.dev_split == "text":
            split = f"tasks.{task.name}.dev_split=label"
    sets.counts["notes"] = [*sets.notes, *class_notes(sets, split)]
    return lambda tokenizer, length: SentenceTask(task.name, sets, tokenizer, length, knowledge)


def read_examples(source: Source) -> ExampleSets:
    """The examples of a task of texts, at most ``max_train`` and ``max_dev``. Raises DataError."""
    sets = _examples(source.task, source.files)
    limit_sets(sets, source.task)
    return sets


def _squad_side(task: SquadConfig, files: dict[str, list[Path]] | None, side: str) -> SquadSet:
    if files is None:
        squad = hub_squad(task.name, task.hub, {"train": "train", "dev": "validation"}[side], task.version)
    else:
        squad = read_squad(files[side][0], task.version)
    limit = task.max_train if side == "train" else task.max_dev
    return SquadSet(squad.paragraphs, limited(squad.questions, limit, side))


def _examples(task: TaskConfig, files: dict[str, list[Path]] | None) -> ExampleSets:
    if isinstance(task, GeneratedConfig):
        return read_generated(task)
    if isinstance(task, FactsConfig):
        return generated_examples(task)
    single = None if files is None else {name: paths[0] for name, paths in files.items()}
    if isinstance(task, QuestConfig):
        return read_quest(task, single)
    if isinstance(task, TextConfig):
        assert single is not None
        return read_text(task, single)
    assert isinstance(task, GlueConfig)
    return read_glue(task, single)
