"""Fine-tunings: ``manifest.json`` and ``results.json`` of one unit, and its entry in the run's ``results.json``."""

from typing import Annotated, Any

from pydantic import ConfigDict, Field

from albert_ablate.record.manifest import Attention, Code, Hardware
from albert_ablate.record.part import CheckedByReader, Interval, Number, Part, Whole

#: Metrics of which less is better, among those that choose a checkpoint.
_ERRORS = frozenset(("mean_squared_error",))
#: Name of a dev set -> baseline -> its score.
Floors = dict[str, dict[str, Number]]


def direction(metric: str) -> int:
    """1 if more of a metric is better, -1 if less is."""
    return -1 if metric in _ERRORS else 1


def form(metric: str) -> str:
    """How values of a metric are printed: shares and correlations in percent, errors as they are."""
    return "{:.4f}" if metric in _ERRORS else "{:.3f}" if "error" in metric else "{:.1%}"


class Metric(Part):
    """A metric with its interval over the examples of a set."""

    n: Whole | None = None  # examples, if the metric covers a part of the set
    value: Number
    interval: Interval
    classes: Whole | None = None  # present or predicted, for a mean over classes
    of: Whole | None = None  # classes of the task


class SquadPart(Part):
    """Scores over some of SQuAD's questions; None if there are none."""

    n: Whole | None = None
    exact: Number | None = None
    f1: Number | None = None


class TargetScores(Part):
    """Scores of one of several numbers."""

    mean_squared_error: Number
    mean_squared_error_of_the_mean: Number  # of predicting the mean of the training set
    mean_absolute_error: Number
    r2: Number
    spearman: Number | None  # None for a target without variation
    training_mean: Number


class LabelScores(Part):
    """Scores of the entities with one label."""

    f1: Number
    precision: Number
    recall: Number
    entities: Whole  # present
    predicted: Whole


class SetMetrics(Part):
    """One dev set. Its metrics are further fields with the names that the task gives them."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Metric | Number] = Field(init=False)  # older versions wrote a plain number

    n: Whole | None = None  # examples
    f1_unit: str | None = None  # of SQuAD: words, characters or both
    has_answer: SquadPart | None = None
    no_answer: SquadPart | None = None
    threshold: Number | None = None  # of SQuAD 2.0's null score
    threshold_was_searched_on_this_set: bool | None = None
    best_exact: Number | None = None  # at the best threshold for it
    best_exact_threshold: Number | None = None
    best_f1: Number | None = None
    best_f1_threshold: Number | None = None
    at_threshold_0: SquadPart | None = None
    targets_scored_by_spearman: Whole | None = None  # of several numbers, those that enter the mean
    by_target: dict[str, TargetScores] | None = None
    by_label: dict[str, LabelScores] | None = None  # of entities

    @classmethod
    def _is_known(cls, name: str, value: Any) -> bool:
        """Also accepts anything with the form of a metric, and metrics that older versions wrote as numbers."""
        measured = isinstance(value, dict) and ("value" in value or "interval" in value)
        return super()._is_known(name, value) or measured or name in ("f1", "exact", "accuracy")


class Scores(Part):
    """Scores of one state of the weights."""

    step: Whole | None = None
    score: Number  # used to choose the checkpoint
    average: Number  # used in the mean over tasks
    sets: dict[str, SetMetrics]  # dev set -> its metrics


class UnitTraining(Part):
    """Resources that a fine-tuning used."""

    steps: Whole
    epochs: Number
    examples: Whole
    seconds: Number
    micro_size: Whole | None = None  # sequences, if it had to be lowered
    backends: list[str] | None = None  # of a GPU, in the order in which they computed steps


class UnitName(Part):
    """Identifies a fine-tuning."""

    task: str
    seed: Whole
    start: str  # ``pretrained`` or ``random``
    group: str  # the same for all seeds of one setting


class FineTuned(Part):
    """Measurements of ``finetuning.FineTuner``."""

    metric: str  # name of the score
    best: Scores  # of the best evaluation on the first dev set
    last: Scores  # of the last step
    selection: str  # how the best evaluation was chosen
    recipe: dict[str, Number | str | bool | None]  # ``recipe.Recipe``, and the number format of the head
    training: UnitTraining


class SetUp(Part):
    """The set-up, which must be equal for scores to be comparable; settings as in ``config.tasks``."""

    all_tasks: dict[str, Any] | None = None
    task: dict[str, Any] | None = None
    data: str | None = None  # fingerprint
    precision: str | None = None


class Before(Part):
    """Scores of a fine-tuning that was scored again."""

    heads: str  # the number format in which its head answered
    selection: str
    best: Scores
    last: Scores


class ScoredAgain(Part):
    """The code and the machine that scored a fine-tuning again."""

    source: Code
    packages: dict[str, str | None]
    hardware: Hardware


class UnitTeacher(Part):
    """The fine-tuning that taught another one."""

    run: str  # folder of its run
    identity: str  # of its run
    unit: str  # its folder in ``tasks`` of its run


class FirstStage(Part):
    """The first stage of a distillation, over the teacher's layers."""

    steps: Whole
    epochs: Number
    examples: Whole
    seconds: Number
    losses: dict[str, Number]  # of the last log line: embedding, hidden, attention


class Distilled(UnitTeacher):
    """What a student learned from its teacher."""

    score: Number  # the teacher's
    layers: FirstStage | None = None  # None: there was no first stage
    predictions: str  # targets of the second stage: soft, or gold


class FactCounts(Part):
    """Facts beside the texts of a set."""

    mentions: Whole  # of subjects
    matched: Whole  # facts of these mentions
    injected: Whole  # of the matched facts
    dropped: Whole  # of the matched facts, for lack of room


class UnitResults(FineTuned, UnitName):
    """``results.json`` of a fine-tuning."""

    to_beat: Floors
    to_beat_each: dict[str, Floors] = Field(default_factory=dict)  # dev set -> metric -> baseline -> its value
    set_up: SetUp | None = None
    teacher: Distilled | None = None  # of a distillation
    facts: dict[str, FactCounts] = Field(default_factory=dict)  # set -> its facts, if texts were read with any
    before: Before | None = None  # if it was scored again
    reread: ScoredAgain | None = None  # if it was scored again


class TaskEntry(Part):
    """One task and setting over its seeds: medians, and the sets of the median seed."""

    task: str
    start: str
    group: str | None = None
    metric: str
    seeds: list[Whole]
    score: Number  # median of the best scores
    spread: Interval  # least and greatest of them
    scores: list[Number] = Field(default_factory=list)  # of each seed
    last_score: Number
    last_scores: list[Number] = Field(default_factory=list)
    average: Number | None
    sets: dict[str, SetMetrics]
    last_sets: dict[str, SetMetrics] = Field(default_factory=dict)
    sets_of_seed: Whole | None = None
    to_beat: Floors = Field(default_factory=dict)
    to_beat_each: dict[str, Floors] = Field(default_factory=dict)
    selection: str | None = None
    recipe: dict[str, Number | str | bool | None] | None = None
    set_up: SetUp | None = None
    seconds: Number | None = None  # of training, all seeds together
    units: Annotated[list[str], CheckedByReader] = Field(default_factory=list)  # folders


class Average(Part):
    """The mean of the paper's five tasks (Table 2)."""

    value: Number
    tasks: dict[str, Number]
    heads: str  # the number format in which all five heads answered


class UnitSettings(Part):
    """The settings of all tasks and of this one, as in ``config.tasks``."""

    common: dict[str, Any]
    task: dict[str, Any]
    knowledge: dict[str, Any] | None = None  # as in ``config.knowledge``, if texts were read with facts


class UnitData(Part):
    """A task's files and examples, and counts of what was left out or cut; each family sets its own counts."""

    fingerprint: str | None = None
    files: dict[str, list[str]] | str | None = None  # set -> names; ``hub`` or ``generated`` without files
    facts: str | None = None  # fingerprint of their table, if texts were read with facts
    source: str | None = None  # of generated examples
    rows_with_missing_fields_left_out: Whole | None = None
    rows_without_a_gold_label_left_out: Whole | None = None
    train: Whole | None = None  # examples
    augmented: Whole | None = None  # examples with their copies; absent without augmentation
    dev: dict[str, Whole] = Field(default_factory=dict)
    dev_texts_also_in_train: dict[str, Whole] = Field(default_factory=dict)
    questions: dict[str, Whole] = Field(default_factory=dict)  # of rows that share their question
    windows: dict[str, Whole] = Field(default_factory=dict)
    train_windows_without_the_answer: Whole | None = None
    dev_questions_scored_by_characters: Whole | None = None
    questions_left_out_because_the_answer_is_not_where_the_file_says: Whole | None = None
    articles_cut: Whole | None = None
    tag_schemes: dict[str, str] = Field(default_factory=dict)  # file of columns -> IOB1, IOB2 or mixed
    words: dict[str, Whole] = Field(default_factory=dict)
    entities: dict[str, Whole] = Field(default_factory=dict)
    words_cut: dict[str, Whole] = Field(default_factory=dict)  # their first piece is beyond the last position
    share_of_words_cut: dict[str, Number] = Field(default_factory=dict)
    entities_that_split_a_word: dict[str, Whole] = Field(default_factory=dict)  # spans, widened to whole words
    words_without_a_piece: dict[str, Whole] = Field(default_factory=dict)
    class_weights: dict[str, Number] = Field(default_factory=dict)
    notes: list[str] = Field(default_factory=list)


class Answers(Part):
    """What the outputs of a fine-tuning mean, so that it can answer without the files of its task."""

    kind: str  # as ``config.tasks.AnswerKind``
    names: list[str]  # of the classes, labels, numbers or tags, in the order of the outputs
    columns: list[list[str]] = Field(default_factory=list)  # names of the column of each text
    mean: list[Number] = Field(default_factory=list)  # numbers are outputs x deviation + mean
    deviation: list[Number] = Field(default_factory=list)


class UnitManifest(Part):
    """``manifest.json`` of a fine-tuning."""

    task: str | None = None
    seed: Whole | None = None
    start: str | None = None
    group: str | None = None
    run: str | None = None  # folder of the pretrained run
    identity: str | None = None
    checkpoint: str | None = None  # None for a random start
    settings: UnitSettings | None = None
    teacher: UnitTeacher | None = None  # of a distillation
    answers: Answers | None = None  # None: of an older version
    data: UnitData = UnitData()
    source: Code | None = None
    packages: dict[str, str | None] = Field(default_factory=dict)
    hardware: Hardware = Hardware()
    attention: Attention | None = None  # absent on a CPU
    precision: str | None = None
    heads: str | None = None  # the number format in which the head answers
