"""Tasks as questions with options, for models that answer by the probability of each option."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from albert_ablate.config.tasks import NerConfig, RaceConfig, SquadConfig
from albert_ablate.errors import ConfigError
from albert_ablate.tasks.load import Source, read_examples
from albert_ablate.tasks.race import RaceQuestion, read_race
from albert_ablate.tasks.texts.examples import limited
from albert_ablate.tasks.texts.sets import Example


@dataclass(frozen=True)
class Question:
    """One question. Its fields are what a template may show."""

    id: str
    fields: dict[str, str]
    options: tuple[str, ...]  # the classes of the task, or texts of its own
    answer: int
    cluster: str  # questions of one cluster are not independent, such as those about one passage
    phenomenon: str | None = None  # of which accuracy is also reported

    def equals(self, other: "Question") -> bool:
        """Whether both ask the same."""
        return self.fields == other.fields and self.options == other.options


@dataclass(frozen=True)
class Questions:
    """The questions of a task."""

    training: Sequence[Question]  # demonstrations are drawn from them; empty: there are none
    dev: Sequence[Question]
    classes: tuple[str, ...]  # empty where each question has options of its own

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields that every question has."""
        return tuple(self.dev[0].fields)

    @property
    def chance(self) -> float:
        """Accuracy of guessing."""
        return sum(1 / len(question.options) for question in self.dev) / len(self.dev)

    @property
    def majority(self) -> float | None:
        """Accuracy of the most frequent answer of the training questions; None without them."""
        if not self.training:
            return None
        answer, _ = Counter(question.answer for question in self.training).most_common(1)[0]
        return sum(question.answer == answer for question in self.dev) / len(self.dev)


def read_questions(source: Source) -> Questions:
    """The training questions and the first dev set of a task with classes or choices.

    Raises DataError for wrong files, and ConfigError for a task whose answers are no options.
    """
    task = source.task
    if isinstance(task, SquadConfig):
        raise ConfigError(f"task={task.name}: its answers are spans of a text. kshot takes classes and choices.")
    if isinstance(task, NerConfig):
        raise ConfigError(f"task={task.name}: its answers are labels of words. kshot takes classes and choices.")
    if isinstance(task, RaceConfig):
        training, dev = (
            [_of_race(question) for question in limited(read_race(task, source.files, side), limit, side)]
            for side, limit in (("train", task.max_train), ("dev", task.max_dev))
        )
        return Questions(training, dev, ())
    sets = read_examples(source)
    if sets.kind != "classes":
        raise ConfigError(
            f"task={task.name}: its answers are {'numbers' if sets.kind == 'values' else 'several labels at once'}. "
            "kshot takes classes and choices."
        )
    first = next(iter(sets.dev.values()))
    training, dev = ([_of_text(example, sets.names) for example in side] for side in (sets.train, first))
    return Questions(training, dev, sets.names)


def _of_text(example: Example, names: tuple[str, ...]) -> Question:
    assert isinstance(example.target, int)
    fields = {"first": example.first} | ({} if example.second is None else {"second": example.second})
    return Question(example.id, fields | {"text": " ".join(fields.values())}, names, example.target, example.id)


def _of_race(question: RaceQuestion) -> Question:
    fields = {"article": question.article, "question": question.question}
    return Question(question.id, fields, question.options, question.answer, question.passage)
