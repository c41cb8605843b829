"""The settings of downstream tasks: one dataclass for each family, chosen by ``kind``.

Part of the typed configuration (``config.schema``); values come only from ``conf/task/``.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

_STRICT = ConfigDict(extra="forbid")

Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


def _as_word(value: Any) -> Any:
    """A label as text. Numbers become their digits; true and false need quotes, as they have several spellings."""
    if isinstance(value, bool):
        raise ValueError("a word is expected. Put it in quotes, spelt as in your file: ['true','false']")
    return str(value) if isinstance(value, int | float) else value


Word = Annotated[str, BeforeValidator(_as_word)]
OpenFraction = Annotated[float, Field(gt=0, lt=1)]

#: The state of the last layer that a head for whole sequences reads, and the kind of such a head.
Pool = Literal["first", "mean", "last"]
HeadKind = Literal["pooled", "bare", "relu"]
#: What a task's model predicts: a class, any number of labels, numbers, one of several texts, a span, or tags of words.
AnswerKind = Literal["classes", "labels", "values", "choices", "spans", "tags"]
#: Pieces of a word that carry its label in training.
LabelPieces = Literal["first", "all"]

#: The weight of a loss; 0 leaves it out.
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
#: Which of the teacher's layers a student's layer learns from.
LayerMap = Literal["uniform", "top", "bottom"]
#: Attention as a student imitates it: scores before the softmax, or probabilities.
AttentionTarget = Literal["scores", "probabilities"]
#: Matrices from the student's states to the teacher's width.
Projections = Literal["paper", "shared", "per_layer"]
#: Whether padding enters the means of a student's losses over layers.
Padding = Literal["left_out", "released"]

#: The five task columns of the paper's tables, in the order of its average.
PAPER_FIVE = ("squad11", "squad20", "mnli", "sst2", "race")


@dataclass(frozen=True, config=_STRICT)
class ScalingConfig:
    """How a scale changes every task's recipe."""

    steps: Literal["recipe", "epochs"]  # the recipe's steps, or its epochs over the available examples
    epochs: PositiveFloat  # factor
    learning_rate: PositiveFloat  # factor
    batch_size: Positive | None  # at most
    max_length: Positive | None  # at most


@dataclass(frozen=True, config=_STRICT)
class UpdateConfig:
    """Settings of every update rule, in pretraining and fine-tuning."""

    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    beta1: Fraction
    beta2: Fraction
    epsilon: PositiveFloat
    bias_correction: bool
    clip_norm: PositiveFloat | None
    decay_from: Literal["start", "warmup_end", "throughout", "never"]


@dataclass(frozen=True, config=_STRICT)
class TuningUpdateConfig(UpdateConfig):
    """Update rule of fine-tuning."""

    layer_decay: Annotated[float, Field(gt=0, le=1)] | None  # factor of the learning rate from a layer to the one below
    layer_decay_rule: Literal["released", "intended"]  # in ELECTRA's code, and by its authors (issue electra#51)


#: Settings that only a distillation reads, with their defaults.
DISTIL: Mapping[str, Any] = {
    "epochs": 20.0, "learning_rate": 5e-5, "predictions": "soft", "temperature": 1.0, "mean": "examples",
    "embedding_weight": 1.0, "hidden_weight": 1.0, "attention_weight": 1.0, "layer_map": "uniform",
    "attention_target": "scores", "projections": "paper", "padding": "left_out", "cache": False,
}  # fmt: skip
#: Settings that only an augmentation reads, with their defaults.
AUGMENT: Mapping[str, Any] = {"probability": 0.4, "candidates": 15, "word_vectors": None, "pairs": "one"}


@dataclass(frozen=True, config=_STRICT)
class DistilConfig:
    """Task distillation: a fine-tuned teacher (Jiao et al., 2020, section 3.2)."""

    teacher: Annotated[str, Field(min_length=1)] | None  # a run folder, or ``pretraining``
    epochs: Annotated[float, Field(ge=0, allow_inf_nan=False)]  # of the first stage
    learning_rate: PositiveFloat  # of the first stage
    predictions: Literal["soft", "gold"]
    temperature: PositiveFloat
    mean: Literal["examples", "classes"]
    embedding_weight: Weight
    hidden_weight: Weight
    attention_weight: Weight
    layer_map: LayerMap
    attention_target: AttentionTarget
    projections: Projections
    padding: Padding
    cache: bool


@dataclass(frozen=True, config=_STRICT)
class AugmentConfig:
    """Further training examples with replaced words (Jiao et al., 2020, Algorithm 1)."""

    copies: Count
    probability: Annotated[float, Field(ge=0, le=1)]
    candidates: Positive
    masked_lm: Annotated[str, Field(min_length=1)] | None  # a run folder, or ``pretraining``
    word_vectors: Annotated[str, Field(min_length=1)] | None  # a file
    pairs: Literal["one", "released"]


@dataclass(frozen=True, config=_STRICT)
class FineTuneConfig:
    """Settings common to all tasks of a run."""

    source: Literal["files", "hub"]
    data_dir: str | None
    seeds: Annotated[tuple[Count, ...], Field(min_length=1)]
    start: Literal["pretrained", "random"]
    evaluations: Positive  # on dev, evenly spaced
    evaluate_every: Positive | None  # instead: steps between evaluations
    group_by_length: bool
    micro_size: Positive | None  # sequences in one forward pass
    keep_weights: bool
    bag_of_words: bool
    pool: Pool
    head: HeadKind
    label_pieces: LabelPieces
    scaling: ScalingConfig
    distil: DistilConfig
    augment: AugmentConfig
    optimizer: TuningUpdateConfig  # of the released fine-tuning code's AdamW


@dataclass(frozen=True, config=_STRICT)
class RecipeConfig:
    """A task's hyperparameters at full size (paper, Table 14)."""

    learning_rate: PositiveFloat
    batch_size: Positive
    dropout: Fraction  # of the encoder
    classifier_dropout: Fraction
    steps: Positive | None
    warmup_steps: Count | None
    epochs: PositiveFloat  # steps x batch_size / official training examples
    warmup: Fraction  # warmup_steps / steps
    max_length: Annotated[int, Field(ge=8)]


@dataclass(frozen=True, config=_STRICT)
class HubTask:
    """A Hugging Face dataset."""

    path: str
    config: str | None
    revision: str | None


@dataclass(frozen=True, config=_STRICT)
class TaskBase:
    """Settings of every task. Empty ones come from ``recipe`` and ``task.scaling``."""

    #: Whether the head reads one state for each sequence, which ``FineTuneConfig.pool`` chooses.
    pools: ClassVar[bool] = True
    #: Whether words have labels, each on pieces that ``FineTuneConfig.label_pieces`` chooses.
    labels_words: ClassVar[bool] = False
    #: Whether an example is one text or two, so that its words can be replaced.
    of_texts: ClassVar[bool] = True
    #: Whether facts can be read beside its texts, and whether it has facts of its own.
    takes_facts: ClassVar[bool] = False
    own_facts: ClassVar[bool] = False

    name: str
    recipe: RecipeConfig
    hub: HubTask | None
    train_file: str | None  # replaces the official file name
    dev_file: str | None
    max_train: Positive | None  # examples, for a quick test; the first of a fixed shuffle
    max_dev: Positive | None
    learning_rate: PositiveFloat | None
    batch_size: Positive | None
    epochs: PositiveFloat | None
    steps: Positive | None
    warmup_steps: Count | None
    max_length: Annotated[int, Field(ge=8)] | None
    dropout: Fraction | None
    classifier_dropout: Fraction | None


@dataclass(frozen=True, config=_STRICT)
class GlueConfig(TaskBase):
    """A GLUE task; ``tasks/texts/glue.py`` has its columns, labels and metrics."""

    takes_facts: ClassVar[bool] = True

    kind: Literal["glue"]


@dataclass(frozen=True, config=_STRICT)
class TextConfig(TaskBase):
    """Classification or regression of a user's own files."""

    takes_facts: ClassVar[bool] = True

    kind: Literal["text_classification", "text_regression"]
    text_columns: Annotated[tuple[str, ...], Field(min_length=1, max_length=2)]
    target_columns: Annotated[tuple[str, ...], Field(min_length=1)]
    id_column: str | None
    labels: tuple[Word, ...] | None  # in order; empty: the sorted labels of the training file
    dev_fraction: OpenFraction  # of the training rows, chosen by a hash of their text, if there is no dev file
    dev_split: Literal["text", "label"]  # drawn from all rows, or the same share of every class
    class_weights: Literal["none", "balanced"] | tuple[PositiveFloat, ...]  # of errors, in the order of labels
    choose_by: Literal["macro_f1"] | None  # the metric that chooses the checkpoint; empty: the first one


@dataclass(frozen=True, config=_STRICT)
class GeneratedConfig(TaskBase):
    """A task made from the embedded corpus."""

    takes_facts: ClassVar[bool] = True

    kind: Literal["generated"]
    task: Literal["era", "word_order"]
    train_examples: Positive
    dev_examples: Positive


@dataclass(frozen=True, config=_STRICT)
class FactsConfig(TaskBase):
    """A task on made-up nouns, whose answers only a table of facts tells."""

    takes_facts: ClassVar[bool] = True
    own_facts: ClassVar[bool] = True

    kind: Literal["facts"]
    train_examples: Positive
    dev_examples: Positive


@dataclass(frozen=True, config=_STRICT)
class SquadConfig(TaskBase):
    """Extractive question answering."""

    pools: ClassVar[bool] = False  # the head reads the states of all tokens
    of_texts: ClassVar[bool] = False

    kind: Literal["squad"]
    version: Literal["1.1", "2.0"]
    max_query: Positive  # pieces
    stride: Positive  # pieces between window starts at the recipe's length; scaled for shorter windows
    n_best: Positive
    max_answer: Positive  # pieces
    beam: Positive  # of the 2.0 head: start positions, and end positions for each
    threshold: Literal["best_f1", "zero"]  # of the null score: searched on dev, or 0 (a probability of one half)
    f1_unit: Literal["auto", "words", "characters"]  # unit of F1; auto: depends on the paragraph's script


@dataclass(frozen=True, config=_STRICT)
class RaceConfig(TaskBase):
    """Four-way multiple choice."""

    of_texts: ClassVar[bool] = False
    takes_facts: ClassVar[bool] = True

    kind: Literal["race"]
    levels: Annotated[tuple[Literal["middle", "high"], ...], Field(min_length=1)]
    max_query: Positive  # pieces of question and option, counted from the end


@dataclass(frozen=True, config=_STRICT)
class QuestConfig(TaskBase):
    """Quality of questions and answers (Google QUEST): several numbers from 0 to 1 for each row."""

    pools: ClassVar[bool] = False  # its own settings choose state and head
    of_texts: ClassVar[bool] = False

    kind: Literal["quest"]
    source: Literal["file", "generated"]  # train.csv, or a generated table in its format
    questions: Positive  # of the generated table
    targets: Literal["paper", "all", "question"]  # 20, 30 or 21 columns
    input: Literal["title_body", "pair", "question_answer"]
    title_pass: bool  # the head also reads the state of a second pass, over the title alone
    pool: Pool
    head: HeadKind
    loss: Literal["bce", "mse"]
    folds: Annotated[int, Field(ge=2)]  # of the questions, by a hash of the body, if there is no dev file
    fold: Count  # the one that is held out
    constant: Literal["skip", "zero", "nan"]  # what a target without variation adds to the mean Spearman correlation
    discretise: Literal["none", "ranks", "first_place"]  # predictions that a further Spearman correlation reads


@dataclass(frozen=True, config=_STRICT)
class NerConfig(TaskBase):
    """Named entities: a tag for each word, in a user's own files."""

    pools: ClassVar[bool] = False  # the head reads the states of all tokens
    of_texts: ClassVar[bool] = False
    labels_words: ClassVar[bool] = True

    kind: Literal["ner"]
    source: Literal["file", "generated"]
    sentences: Positive  # of the generated training set
    test_file: str | None
    labels: Annotated[tuple[Word, ...], Field(min_length=1)] | None  # of entities, in order
    dev_fraction: OpenFraction  # of the training sentences, by a hash of their text, if there is no dev file
    strict: bool  # an entity begins only with B-X


TaskConfig = Annotated[
    GlueConfig | TextConfig | GeneratedConfig | FactsConfig | SquadConfig | RaceConfig | QuestConfig | NerConfig,
    Field(discriminator="kind"),
]
